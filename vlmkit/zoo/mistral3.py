"""Mistral Small 3.1 (Mistral AI 2025, mistral.ai/news/mistral-small-3-1): Pixtral's tower at patch 14 -> 2x2 merged, 2-layer MLP ->
Mistral Small 3, 24B.

An image keeps its shape and, up to 1540 pixels a side, its size, in steps of 28 pixels: four patches become one token. Its rows end
in [IMG_BREAK], the last in [IMG_END], as Pixtral's do. The numbers are those of the published config as others' code repeats it, and
of Mistral3Config in transformers; 3.2 has the same ones. The tokens around a system message are those of InstructTokenizerV7 in
mistral-common; the default system message of the published one, which holds the date, is left to the caller.
"""

from __future__ import annotations

from vlmkit.architecture import Architecture
from vlmkit.connectors.merged_mlp import MergedMlp
from vlmkit.encoders.pixtral import Pixtral
from vlmkit.fusion.splice import Splice
from vlmkit.language_model import LanguageModel
from vlmkit.layout.rows import Rows
from vlmkit.preprocess.policies.edge_cap import EdgeCap
from vlmkit.spec import Settings
from vlmkit.zoo.llava import TINY_LANGUAGE
from vlmkit.zoo.pixtral import MISTRAL_TEKKEN

MISTRAL_V7 = MISTRAL_TEKKEN.replace(system=("[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]"))
"""The turns of Mistral's models since Small 3: a system message has tokens of its own."""

SMALL_24B = LanguageModel(
    model_type="mistral",
    checkpoint="mistralai/Mistral-Small-24B-Instruct-2501",
    tokenizer="mistralai/Mistral-Small-3.1-24B-Instruct-2503",
    config=Settings(
        vocab_size=131072,
        hidden_size=5120,
        intermediate_size=32768,
        num_hidden_layers=40,
        num_attention_heads=32,
        num_key_value_heads=8,
        head_dim=128,
        max_position_embeddings=131072,
        sliding_window=None,
        rope_theta=1000000000.0,
        rms_norm_eps=1e-5,
        bos_token_id=1,
        eos_token_id=2,
        tie_word_embeddings=False,
    ),
)
"""23,572,403,200 parameters."""

MISTRAL_SMALL_3_1 = Architecture(
    name="mistral-small-3.1-24b",
    policy=EdgeCap(longest=1540, factor=28),
    encoder=Pixtral(patch=14, keep_unused=True),
    connector=MergedMlp(),
    layout=Rows(template=MISTRAL_V7, placeholder="[IMG]", row_end="[IMG_BREAK]", image_end="[IMG_END]"),
    fusion=Splice(),
    language_model=SMALL_24B,
)

MISTRAL3_TINY = MISTRAL_SMALL_3_1.replace(
    name="mistral3-tiny",
    policy=EdgeCap(longest=112, factor=28),
    encoder=Pixtral(width=32, layers=3, heads=4, mlp=64, patch=14, keep_unused=True),
    language_model=LanguageModel(
        model_type="mistral",
        tokenizer="bytes",
        config=TINY_LANGUAGE
        | {"head_dim": 16, "sliding_window": None, "rope_theta": 1e9, "rms_norm_eps": 1e-5, "tie_word_embeddings": False},
    ),
)

MODELS = (MISTRAL_SMALL_3_1, MISTRAL3_TINY)
