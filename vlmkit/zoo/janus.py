"""Janus-Pro (Chen et al. 2025, arXiv:2501.17811), its understanding side: SigLIP-L/16-384 -> 2-layer MLP -> DeepSeek-LLM.

The published checkpoints also draw images: a VQ tokenizer, embeddings of its codes, an aligner and a head. vlmkit builds none of
that. Loading says what it leaves out; an exported directory answers in transformers and draws nothing of worth. Sizes
and prompts as transformers' conversion script writes deepseek-community/Janus-Pro-1B and -7B; the language models' numbers
are from memory, and their parameters with those that are not built and the pooling head add up to the 2.09B and 7.42B that are
published.
"""

from __future__ import annotations

from vlmkit.architecture import Architecture
from vlmkit.connectors.mlp import Mlp
from vlmkit.encoders.siglip import Siglip
from vlmkit.fusion.splice import Splice
from vlmkit.language_model import LanguageModel
from vlmkit.layout.bracketed_lines import BracketedLines
from vlmkit.layout.template import Template
from vlmkit.preprocess.policies.letterbox import Letterbox
from vlmkit.spec import Settings
from vlmkit.zoo.llava import TINY_LANGUAGE

PROMPT = Template(
    begin="<｜begin▁of▁sentence｜>",  # noqa: RUF001
    system=("", "\n\n"),
    user=("<|User|>: ", "\n\n"),
    assistant=("<|Assistant|>:", "<｜end▁of▁sentence｜>"),  # noqa: RUF001
    before_answer=" ",
    preface=(
        "You are a helpful language and vision assistant. You are able to understand the visual content that the user provides, "
        "and assist the user with a variety of tasks using natural language.\n\n"
    ),
)
"""A system message of one's own stands behind the default one, as transformers' processor has it; in github.com/deepseek-ai/Janus it
takes its place."""

SIGLIP_L_384 = Siglip(width=1024, layers=24, heads=16, mlp=4096, patch=16, image_size=384, activation="gelu")
"""303,688,704 parameters. SigLIP itself has the tanh approximation of GELU, so that its checkpoint would not be this tower."""

DEEPSEEK_1B = LanguageModel(
    model_type="llama",
    checkpoint=None,
    tokenizer="deepseek-community/Janus-Pro-1B",
    config=Settings(
        vocab_size=102400,
        hidden_size=2048,
        intermediate_size=5632,
        num_hidden_layers=24,
        num_attention_heads=16,
        num_key_value_heads=16,
        max_position_embeddings=16384,
        rms_norm_eps=1e-6,
        bos_token_id=100000,
        eos_token_id=100001,
        tie_word_embeddings=False,
    ),
)

DEEPSEEK_7B = DEEPSEEK_1B.replace(
    checkpoint="deepseek-ai/deepseek-llm-7b-base",
    tokenizer="deepseek-community/Janus-Pro-7B",
    config=DEEPSEEK_1B.config
    | {"hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 30, "num_attention_heads": 32, "num_key_value_heads": 32},
)

JANUS_PRO_7B = Architecture(
    name="janus-pro-7b",
    policy=Letterbox(size=384, min_side=14),
    encoder=SIGLIP_L_384,
    connector=Mlp(depth=2),
    layout=BracketedLines(template=PROMPT, placeholder="<image_placeholder>", start="<begin_of_image>", end="<end_of_image>"),
    fusion=Splice(),
    language_model=DEEPSEEK_7B,
)

JANUS_PRO_1B = JANUS_PRO_7B.replace(name="janus-pro-1b", language_model=DEEPSEEK_1B)

JANUS_TINY = JANUS_PRO_7B.replace(
    name="janus-tiny",
    policy=Letterbox(size=28, min_side=14),
    encoder=Siglip(width=32, layers=3, heads=4, mlp=64, image_size=28, activation="gelu"),
    language_model=LanguageModel(
        model_type="llama",
        tokenizer="bytes",
        config=TINY_LANGUAGE | {"bos_token_id": 264, "eos_token_id": 267, "tie_word_embeddings": False},
    ),
)

MODELS = (JANUS_PRO_1B, JANUS_PRO_7B, JANUS_TINY)
