"""AIMv2 (Fini et al. 2024, arXiv:2411.14402) as the eyes of Llama 3: AIMv2-L/14-336 -> 2-layer MLP -> Llama-3-8B.

The paper measures its towers so, trained as LLaVA is with the tower frozen (from memory); the weights of these models were never
published. Its towers are in transformers, and LlavaForConditionalGeneration over one is what this is compared with: it reads the
last block without the last norm, which the paper does not say. Padding to a square and the template are LLaVA-1.5's and
Llama 3's; images stand where a token is that Llama 3 keeps in reserve.
"""

from __future__ import annotations

from vlmkit.architecture import Architecture
from vlmkit.connectors.mlp import Mlp
from vlmkit.encoders.aimv2 import Aimv2
from vlmkit.fusion.splice import Splice
from vlmkit.language_model import LanguageModel
from vlmkit.layout.run import Run
from vlmkit.layout.template import Template
from vlmkit.preprocess.policies.pad_square import PadSquare
from vlmkit.spec import Settings
from vlmkit.zoo.llava import TINY_LANGUAGE

LLAMA_3 = Template(
    begin="<|begin_of_text|>",
    system=("<|start_header_id|>system<|end_header_id|>\n\n", "<|eot_id|>"),
    user=("<|start_header_id|>user<|end_header_id|>\n\n", "<|eot_id|>"),
    assistant=("<|start_header_id|>assistant<|end_header_id|>\n\n", "<|eot_id|>"),
)
"""The turns of Meta-Llama-3-8B-Instruct."""

LLAMA_3_8B = LanguageModel(
    model_type="llama",
    checkpoint="meta-llama/Meta-Llama-3-8B-Instruct",
    config=Settings(
        vocab_size=128256,
        hidden_size=4096,
        intermediate_size=14336,
        num_hidden_layers=32,
        num_attention_heads=32,
        num_key_value_heads=8,
        max_position_embeddings=8192,
        rope_theta=500000.0,
        rms_norm_eps=1e-5,
        bos_token_id=128000,
        eos_token_id=128009,
    ),
)

AIMV2_LLAMA_3_8B = Architecture(
    name="aimv2-llama-3-8b",
    policy=PadSquare(size=336, fill="mean"),
    encoder=Aimv2(checkpoint="apple/aimv2-large-patch14-336", final_norm=False, keep_unused=True),
    connector=Mlp(depth=2),
    layout=Run(template=LLAMA_3, placeholder="<|reserved_special_token_0|>", after_image="\n"),
    fusion=Splice(),
    language_model=LLAMA_3_8B,
)

AIMV2_TINY = AIMV2_LLAMA_3_8B.replace(
    name="aimv2-tiny",
    policy=PadSquare(size=28, fill="mean"),
    encoder=Aimv2(width=32, layers=3, heads=4, mlp=64, image_size=28, final_norm=False, keep_unused=True),
    language_model=LanguageModel(model_type="llama", tokenizer="bytes", config=TINY_LANGUAGE | {"eos_token_id": 267}),
)

MODELS = (AIMV2_LLAMA_3_8B, AIMV2_TINY)
