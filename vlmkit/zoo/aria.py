"""ARIA (Li et al. 2024, arXiv:2410.05993): SigLIP-so400m at nearly the image's own shape -> learned queries -> a mixture of experts.

rhymes-ai/Aria: 256 tokens an image, whose longer side is 980 pixels. Turns and brackets as transformers' script that converts the
weights writes the chat template, sizes of images as its processor asks for them unless it is told otherwise. With views of 490 pixels
(`policy=EdgeFit(longest=490)`) an image is 128 tokens, and it may be cut into squares of these (`ARIA_SPLIT`), or into views of up to four
of them, 256 tokens each (`ARIA_SPLIT_980`). Numbers as the published config.json has them, or transformers' class where that one is
silent: 25,307,311,216 parameters, the published 25.3B. That the id of <|im_end|> is 93532 is from memory.
"""

from __future__ import annotations

from vlmkit.architecture import Architecture
from vlmkit.connectors.query_attention import QueryAttention
from vlmkit.encoders.siglip import Siglip
from vlmkit.fusion.splice import Splice
from vlmkit.language_model import LanguageModel
from vlmkit.layout.bracketed import Bracketed
from vlmkit.layout.template import CHATML
from vlmkit.preprocess.policies.edge_fit import EdgeFit
from vlmkit.spec import Settings
from vlmkit.zoo.llava import TINY_LANGUAGE

ARIA_GRIDS = (
    *((1, columns) for columns in range(2, 9)),
    *((2, 4), (2, 3), (2, 2), (2, 1), (3, 1), (3, 2), (4, 1), (4, 2)),
    *((rows, 1) for rows in range(5, 9)),
)
"""Rows and columns of squares that transformers' image processor chooses from where it is asked to split."""

ARIA_SPLIT = EdgeFit(longest=490, grids=ARIA_GRIDS)

ARIA_SPLIT_980 = EdgeFit(grids=ARIA_GRIDS, halves=True)

ARIA_MOE = LanguageModel(
    model_type="aria_text",
    tokenizer="rhymes-ai/Aria",
    config=Settings(
        vocab_size=100352,
        hidden_size=2560,
        intermediate_size=1664,
        num_hidden_layers=28,
        num_attention_heads=20,
        num_key_value_heads=20,
        moe_num_experts=64,
        moe_topk=6,
        moe_num_shared_experts=2,
        max_position_embeddings=65536,
        rope_parameters={"rope_type": "default", "rope_theta": 5e6},
        rms_norm_eps=1e-6,
        bos_token_id=1,
        eos_token_id=[2, 93532],
        pad_token_id=2,
    ),
)
"""24,869,091,840 parameters. Of 64 experts a layer 6 answer; what is called 2 shared ones is one of twice the width that always does."""

ARIA_25B = Architecture(
    name="aria-25b",
    policy=EdgeFit(),
    encoder=Siglip(image_size=980, positions="bucket", final_norm=False, keep_unused=True),
    connector=QueryAttention(),
    layout=Bracketed(template=CHATML, placeholder="<|img|>", start="<fim_prefix>", end="<fim_suffix>"),
    fusion=Splice(),
    language_model=ARIA_MOE,
)

ARIA_TINY = ARIA_25B.replace(
    name="aria-tiny",
    policy=EdgeFit(factor=98),
    encoder=Siglip(width=32, layers=3, heads=4, mlp=64, patch=98, image_size=686, positions="bucket", final_norm=False, keep_unused=True),
    connector=QueryAttention(queries=((5, 2), (10, 4)), heads=4),
    language_model=LanguageModel(
        model_type="aria_text",
        tokenizer="bytes",
        config=TINY_LANGUAGE
        | {"moe_num_experts": 4, "moe_topk": 2, "moe_num_shared_experts": 2, "bos_token_id": None, "eos_token_id": 259},
    ),
)
"""transformers' processor knows no other lengths than 490 and 980 pixels: few patches are large ones here."""

MODELS = (ARIA_25B, ARIA_TINY)
