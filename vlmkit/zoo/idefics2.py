"""Idefics2 (Laurencon et al. 2024, arXiv:2405.02246): SigLIP-so400m at nearly the image's own shape -> perceiver -> Mistral 7B.

HuggingFaceM4/idefics2-8b: 64 tokens an image, or 320 where its four quarters are seen too, which is what the published processor
does unless it is told otherwise. Sizes of images, tower, perceiver and turns as transformers' Idefics2 classes state them; that the
tower's table is for 980 pixels, the vocabulary and the ids from memory. The first implementation had an epsilon of 1e-5 in the
perceiver's norms; transformers' config has 1e-6 now.
"""

from __future__ import annotations

from vlmkit.architecture import Architecture
from vlmkit.connectors.perceiver import Perceiver
from vlmkit.encoders.siglip import Siglip
from vlmkit.fusion.splice import Splice
from vlmkit.language_model import LanguageModel
from vlmkit.layout.fenced import Fenced
from vlmkit.preprocess.policies.edge_bounds import EdgeBounds
from vlmkit.spec import Settings
from vlmkit.zoo.idefics3 import END_OF_UTTERANCE
from vlmkit.zoo.llava import TINY_LANGUAGE

MISTRAL_7B = LanguageModel(
    model_type="mistral",
    checkpoint="mistralai/Mistral-7B-v0.1",
    tokenizer="HuggingFaceM4/idefics2-8b",
    config=Settings(
        vocab_size=32003,
        hidden_size=4096,
        intermediate_size=14336,
        num_hidden_layers=32,
        num_attention_heads=32,
        num_key_value_heads=8,
        max_position_embeddings=32768,
        sliding_window=4096,
        rms_norm_eps=1e-5,
        bos_token_id=1,
        eos_token_id=[2, 32002],
        pad_token_id=0,
    ),
)
"""Mistral's 32,000 words, <fake_token_around_image>, <image> and <end_of_utterance>."""

IDEFICS2_8B = Architecture(
    name="idefics2-8b",
    policy=EdgeBounds(),
    encoder=Siglip(image_size=980, positions="bucket"),
    connector=Perceiver(hidden=14336),
    layout=Fenced(template=END_OF_UTTERANCE.replace(begin="<s>"), placeholder="<image>"),
    fusion=Splice(),
    language_model=MISTRAL_7B,
)

IDEFICS2_8B_SPLIT = IDEFICS2_8B.replace(name="idefics2-8b-split", policy=EdgeBounds(quarters=True))

IDEFICS2_TINY = IDEFICS2_8B.replace(
    name="idefics2-tiny",
    policy=EdgeBounds(shortest=28, longest=84),
    encoder=Siglip(width=32, layers=3, heads=4, mlp=64, image_size=70, positions="bucket"),
    connector=Perceiver(latents=4, depth=2, heads=4, kv_heads=2, head_dim=8, hidden=64),
    language_model=LanguageModel(model_type="mistral", tokenizer="bytes", config=TINY_LANGUAGE | {"sliding_window": None}),
)

IDEFICS2_SPLIT_TINY = IDEFICS2_TINY.replace(name="idefics2-split-tiny", policy=EdgeBounds(shortest=28, longest=84, quarters=True))

MODELS = (IDEFICS2_8B, IDEFICS2_8B_SPLIT, IDEFICS2_TINY, IDEFICS2_SPLIT_TINY)
