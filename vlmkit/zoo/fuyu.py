"""Fuyu-8B (Bavishi et al. 2023, adept.ai/blog/fuyu-8b): raw patches -> linear layer -> Persimmon-8B. There is no tower.

An image that fits 1920 x 1080 pixels is not resized; its rows of 30 x 30 patches end in |NEWLINE|, the text follows behind
<s>. Numbers and layout are those of transformers' FuyuConfig and FuyuProcessor. A question ends with a line break, as in the
prompts of its documentation; <0x04> begins the answer, and the conversion script calls |ENDOFTEXT| the last token. Published
code knows one image and one question: several images all stand before <s> here, turns follow one another, and boxes and
points are words like any other.
"""

from __future__ import annotations

from vlmkit.architecture import Architecture
from vlmkit.connectors.linear import Linear
from vlmkit.encoders.patches import Patches
from vlmkit.fusion.splice import Splice
from vlmkit.language_model import LanguageModel
from vlmkit.layout.rows_first import RowsFirst
from vlmkit.layout.template import Template
from vlmkit.preprocess.policies.fit_canvas import FitCanvas
from vlmkit.spec import Settings

ADEPT = Template(begin="<s>", user=("", "\n"), assistant=("<0x04>", "|ENDOFTEXT|"))

FUYU_ROWS = RowsFirst(template=ADEPT, placeholder="|SPEAKER|", row_end="|NEWLINE|")
"""Its tokenizer has |SPEAKER| as 71011 and |NEWLINE| as 71019."""

PERSIMMON_8B = LanguageModel(
    model_type="persimmon",
    checkpoint="adept/persimmon-8b-base",
    tokenizer="adept/fuyu-8b",
    config=Settings(
        vocab_size=262144,
        hidden_size=4096,
        intermediate_size=16384,
        num_hidden_layers=36,
        num_attention_heads=64,
        hidden_act="relu2",
        qk_layernorm=True,
        max_position_embeddings=16384,
        layer_norm_eps=1e-5,
        rope_parameters={"rope_type": "default", "rope_theta": 25000.0, "partial_rotary_factor": 0.5},
        bos_token_id=1,
        eos_token_id=2,
    ),
)
"""9,397,175,296 parameters: squared ReLU, norms on queries and keys, half of each head rotated."""

FUYU_8B = Architecture(
    name="fuyu-8b",
    policy=FitCanvas(height=1080, width=1920, factor=30),
    encoder=Patches(patch=30),
    connector=Linear(),
    layout=FUYU_ROWS,
    fusion=Splice(),
    language_model=PERSIMMON_8B,
)

FUYU_TINY = FUYU_8B.replace(
    name="fuyu-tiny",
    policy=FitCanvas(height=60, width=90, factor=10),
    encoder=Patches(patch=10),
    language_model=PERSIMMON_8B.replace(
        checkpoint=None,
        tokenizer="bytes",
        config=PERSIMMON_8B.config
        | {
            "vocab_size": 320,
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "max_position_embeddings": 2048,
            "pad_token_id": 256,
            "bos_token_id": 264,
            "eos_token_id": 266,
        },
    ),
)
"""For the byte-level tokenizer: |SPEAKER|, <s>, <0x04>, |ENDOFTEXT| and |NEWLINE| from 263 on."""

MODELS = (FUYU_8B, FUYU_TINY)
