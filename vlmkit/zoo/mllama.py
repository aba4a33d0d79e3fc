"""Llama 3.2-Vision (Dubey et al. 2024, arXiv:2407.21783, section 7): tiles read together -> linear layer -> cross-attention in Llama 3.1.

meta-llama/Llama-3.2-11B-Vision-Instruct and Llama-3.2-90B-Vision-Instruct, in transformers Mllama; the same numbers without Instruct.
Every fifth layer of the published language model is a cross-attention layer; here those are the fusion's, and what is left is Llama
3.1 8B or 70B, with eight more tokens that it can read. LLaVA-CoT (Xu et al. 2024, arXiv:2411.10440) is the 11B trained further, to answer
in four tagged stages: `vlmkit.stage_beam_search` searches through them.

Numbers of the towers and of 11B: transformers' classes and its script that converts the weights; of 90B, and the ids, from memory. Turns
as llama-models 0.3.0 describes them. The published chat template puts the date into a system message where a conversation has no
image (from memory); here no conversation has one that nobody wrote. What a token that looks at no image gets is transformers'; in
llama-models it gets nothing (`looks_at_none="nothing"`).
"""

from __future__ import annotations

from vlmkit.architecture import Architecture
from vlmkit.connectors.linear import Linear
from vlmkit.encoders.mllama import Mllama
from vlmkit.fusion.cross_attention import CrossAttention
from vlmkit.language_model import LanguageModel
from vlmkit.layout.seen import SeenMark
from vlmkit.preprocess.policies.canvas_tiles import CanvasTiles
from vlmkit.spec import Settings
from vlmkit.zoo.aimv2 import LLAMA_3
from vlmkit.zoo.llava import TINY_LANGUAGE

MLLAMA_8B = LanguageModel(
    model_type="mllama_text_model",
    tokenizer="meta-llama/Llama-3.2-11B-Vision-Instruct",
    config=Settings(
        vocab_size=128256,
        hidden_size=4096,
        intermediate_size=14336,
        num_hidden_layers=32,
        num_attention_heads=32,
        num_key_value_heads=8,
        cross_attention_layers=[],
        max_position_embeddings=131072,
        rope_parameters={
            "rope_type": "llama3",
            "rope_theta": 500000.0,
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 8192,
        },
        rms_norm_eps=1e-5,
        bos_token_id=128000,
        eos_token_id=[128001, 128008, 128009],
        pad_token_id=128004,
    ),
)
"""transformers' text model of Mllama without its cross-attention layers: Llama, and eight ids that have an embedding and no logit."""

LLAMA_3_2_11B_VISION = Architecture(
    name="llama-3.2-11b-vision",
    policy=CanvasTiles(size=560),
    encoder=Mllama(checkpoint="meta-llama/Llama-3.2-11B-Vision-Instruct"),
    connector=Linear(),
    layout=SeenMark(template=LLAMA_3, placeholder="<|image|>"),
    fusion=CrossAttention(before=(3, 7, 11, 15, 19, 23, 27, 31), looks_at_none="everything", feeds="seeing"),
    language_model=MLLAMA_8B,
)

LLAMA_3_2_90B_VISION = LLAMA_3_2_11B_VISION.replace(
    name="llama-3.2-90b-vision",
    encoder=Mllama(checkpoint="meta-llama/Llama-3.2-90B-Vision-Instruct"),
    fusion=CrossAttention(before=tuple(range(3, 80, 4)), looks_at_none="everything", feeds="seeing"),
    language_model=MLLAMA_8B.replace(
        tokenizer="meta-llama/Llama-3.2-90B-Vision-Instruct",
        config=MLLAMA_8B.config | {"hidden_size": 8192, "intermediate_size": 28672, "num_hidden_layers": 80, "num_attention_heads": 64},
    ),
)

LLAVA_COT_11B = LLAMA_3_2_11B_VISION.replace(
    name="llava-cot-11b",
    encoder=Mllama(checkpoint="Xkev/Llama-3.2V-11B-cot"),
    language_model=MLLAMA_8B.replace(tokenizer="Xkev/Llama-3.2V-11B-cot"),
)

LLAMA_3_2_VISION_TINY = LLAMA_3_2_11B_VISION.replace(
    name="llama-3.2-vision-tiny",
    policy=CanvasTiles(size=56),
    encoder=Mllama(width=32, layers=4, global_layers=2, heads=4, mlp=64, image_size=56, selected=(1, 3)),
    fusion=CrossAttention(before=(1, 2), looks_at_none="everything", feeds="seeing"),
    language_model=LanguageModel(
        model_type="mllama_text_model",
        tokenizer="bytes",
        config=TINY_LANGUAGE
        | {
            "num_hidden_layers": 3,
            "cross_attention_layers": [],
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e4},
            "bos_token_id": 263,
            "eos_token_id": 266,
        },
    ),
)

MODELS = (LLAMA_3_2_11B_VISION, LLAMA_3_2_90B_VISION, LLAVA_COT_11B, LLAMA_3_2_VISION_TINY)
