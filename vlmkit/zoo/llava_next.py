"""LLaVA-1.6 (LLaVA-NeXT, Liu et al. 2024, llava-vl.github.io/blog/2024-01-30-llava-next): LLaVA-1.5 that sees an image
squashed and, beside that, cut into up to four tiles.

Sizes as llava-hf/llava-v1.6-vicuna-7b-hf, -mistral-7b-hf, -vicuna-13b-hf and -34b-hf publish them; transformers' script that
converts liuhaotian/llava-v1.6-* names the language models, their vocabularies and prompts. From memory are the numbers that
the language models' own config.json state and that no parameter count shows (rotary bases, lengths, ids). A system message before
Mistral's turns is vlmkit's own way: Mistral has none.

Granite Vision (arXiv:2502.09927) is of this class over Granite, which divides its logits by 8; IBM's own code to run it
(github.com/foundation-model-stack) does so too. Today's LlavaNextForConditionalGeneration does not, and `vlmkit.load` follows the class
of the directory: the greedy answer is the same, a temperature is not. `"vlmkit_own_head": true` in config.json asks for the division.
"""

from __future__ import annotations

from vlmkit.architecture import Architecture
from vlmkit.connectors.mlp import Mlp
from vlmkit.fusion.splice import Splice
from vlmkit.language_model import LanguageModel
from vlmkit.layout.template import Template
from vlmkit.layout.unpadded_rows import UnpaddedRows
from vlmkit.preprocess.policies.anyres import AnyRes
from vlmkit.spec import Settings
from vlmkit.zoo.llava import CLIP_L_336, LLAVA_1_5_13B, LLAVA_1_5_TINY, TINY_CLIP, VICUNA_7B, VICUNA_V1

MISTRAL_INSTRUCT = Template(begin="<s>", system=("", "\n\n"), user=("[INST] ", " [/INST]"), assistant=("", "</s>"))
"""The turns of Mistral-7B-Instruct-v0.2."""

CHATML_DIRECT = Template(
    system=("<|im_start|>system\n", "<|im_end|>"),
    user=("<|im_start|>user\n", "<|im_end|>"),
    assistant=("<|im_start|>assistant\n", "<|im_end|>"),
    default_system="Answer the questions.",
)
"""ChatML without line breaks between turns, as LLaVA prompts Nous-Hermes-2-Yi-34B."""

LLAVA_1_6_VICUNA_7B = Architecture(
    name="llava-1.6-vicuna-7b",
    policy=AnyRes(size=336),
    encoder=CLIP_L_336,
    connector=Mlp(depth=2),
    layout=UnpaddedRows(template=VICUNA_V1, placeholder="<image>", after_image="\n"),
    fusion=Splice(),
    language_model=VICUNA_7B.replace(tokenizer="llava-hf/llava-v1.6-vicuna-7b-hf", config=VICUNA_7B.config | {"pad_token_id": 0}),
)

LLAVA_1_6_VICUNA_13B = LLAVA_1_6_VICUNA_7B.replace(
    name="llava-1.6-vicuna-13b",
    language_model=LLAVA_1_5_13B.language_model.replace(
        tokenizer="llava-hf/llava-v1.6-vicuna-13b-hf", config=LLAVA_1_5_13B.language_model.config | {"pad_token_id": 0}
    ),
)

LLAVA_1_6_MISTRAL_7B = LLAVA_1_6_VICUNA_7B.replace(
    name="llava-1.6-mistral-7b",
    layout=LLAVA_1_6_VICUNA_7B.layout.replace(template=MISTRAL_INSTRUCT),
    language_model=LanguageModel(
        model_type="mistral",
        checkpoint="mistralai/Mistral-7B-Instruct-v0.2",
        tokenizer="llava-hf/llava-v1.6-mistral-7b-hf",
        config=Settings(
            vocab_size=32064,
            hidden_size=4096,
            intermediate_size=14336,
            num_hidden_layers=32,
            num_attention_heads=32,
            num_key_value_heads=8,
            max_position_embeddings=32768,
            sliding_window=None,
            rope_theta=1000000.0,
            rms_norm_eps=1e-5,
            pad_token_id=32001,
        ),
    ),
)

LLAVA_1_6_34B = LLAVA_1_6_VICUNA_7B.replace(
    name="llava-1.6-34b",
    layout=LLAVA_1_6_VICUNA_7B.layout.replace(template=CHATML_DIRECT),
    language_model=LanguageModel(
        model_type="llama",
        checkpoint="NousResearch/Nous-Hermes-2-Yi-34B",
        tokenizer="llava-hf/llava-v1.6-34b-hf",
        config=Settings(
            vocab_size=64064,
            hidden_size=7168,
            intermediate_size=20480,
            num_hidden_layers=60,
            num_attention_heads=56,
            num_key_value_heads=8,
            max_position_embeddings=4096,
            rope_theta=5000000.0,
            rms_norm_eps=1e-5,
            pad_token_id=0,
            bos_token_id=1,
            eos_token_id=7,
        ),
    ),
)
"""The vocabulary of Yi, 64,000 words, and three more, filled up to a multiple of 64."""

LLAVA_1_6_TINY = LLAVA_1_6_VICUNA_7B.replace(
    name="llava-1.6-tiny",
    policy=AnyRes(size=28),
    encoder=TINY_CLIP,
    language_model=LLAVA_1_5_TINY.language_model,
)

MODELS = (LLAVA_1_6_VICUNA_7B, LLAVA_1_6_VICUNA_13B, LLAVA_1_6_MISTRAL_7B, LLAVA_1_6_34B, LLAVA_1_6_TINY)
