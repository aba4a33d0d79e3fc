"""Pixtral 12B (Agrawal et al. 2024, arXiv:2410.07073): a tower of 400M for any size -> 2-layer MLP -> Mistral Nemo 12B.

An image keeps its shape and, up to 1024 pixels a side, its size; its rows end in [IMG_BREAK], the last in [IMG_END].
Numbers of the tower: the paper's table and github.com/mistralai/mistral-inference; of the language model: transformers'
script that converts mistralai/Pixtral-12B-2409. mistral-community/pixtral-12b is the converted checkpoint, written as
LlavaForConditionalGeneration; its template of turns is from memory. That template moves a system message into the last user's
turn; here its words and an empty line stand before the first turn.
"""

from __future__ import annotations

from vlmkit.architecture import Architecture
from vlmkit.connectors.mlp import Mlp
from vlmkit.encoders.pixtral import Pixtral
from vlmkit.fusion.splice import Splice
from vlmkit.language_model import LanguageModel
from vlmkit.layout.rows import Rows
from vlmkit.layout.template import Template
from vlmkit.preprocess.policies.edge_cap import EdgeCap
from vlmkit.spec import Settings
from vlmkit.zoo.llava import TINY_LANGUAGE

MISTRAL_TEKKEN = Template(begin="<s>", system=("", "\n\n"), user=("[INST]", "[/INST]"), assistant=("", "</s>"))
"""The turns of Mistral's models since Nemo: no space around the words."""

NEMO_12B = LanguageModel(
    model_type="mistral",
    checkpoint="mistralai/Mistral-Nemo-Instruct-2407",
    tokenizer="mistral-community/pixtral-12b",
    config=Settings(
        vocab_size=131072,
        hidden_size=5120,
        intermediate_size=14336,
        num_hidden_layers=40,
        num_attention_heads=32,
        num_key_value_heads=8,
        head_dim=128,
        max_position_embeddings=1024000,
        sliding_window=None,
        rope_theta=1000000000.0,
        rms_norm_eps=1e-5,
        bos_token_id=1,
        eos_token_id=2,
    ),
)
"""12,247,782,400 parameters. A head has 128 channels, not 5120 / 32."""

PIXTRAL_12B = Architecture(
    name="pixtral-12b",
    policy=EdgeCap(longest=1024, factor=16),
    encoder=Pixtral(keep_unused=True),
    connector=Mlp(depth=2),
    layout=Rows(template=MISTRAL_TEKKEN, placeholder="[IMG]", row_end="[IMG_BREAK]", image_end="[IMG_END]"),
    fusion=Splice(),
    language_model=NEMO_12B,
)

PIXTRAL_TINY = PIXTRAL_12B.replace(
    name="pixtral-tiny",
    policy=EdgeCap(longest=112, factor=16),
    encoder=Pixtral(width=32, layers=3, heads=4, mlp=64, keep_unused=True),
    language_model=LanguageModel(
        model_type="mistral", tokenizer="bytes", config=TINY_LANGUAGE | {"head_dim": 16, "sliding_window": None, "rope_theta": 1e9}
    ),
)

MODELS = (PIXTRAL_12B, PIXTRAL_TINY)
