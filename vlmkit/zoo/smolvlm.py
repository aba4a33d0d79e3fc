"""SmolVLM (Marafioti et al. 2025, arXiv:2504.05299): Idefics3 made small, with 3x3 or 4x4 pixel shuffles, over SmolLM2.

HuggingFaceTB/SmolVLM-256M-Instruct, SmolVLM-500M-Instruct and SmolVLM-Instruct (2.2B). The small ones see tiles of 512 pixels with
SigLIP-base and have a token for every tag; the large one tiles of 384, of which SigLIP-so400m sees 378, and spells tags out. Numbers
of the small ones as in Liger-Kernel's tests, with 500M's depth and widths from SmolLM2-360M; 2.2B's language model is SmolLM2-1.7B
with a rotary base of 273,768 (the blog post rounds it to 273k) and 16,384 positions, from memory.
"""

from __future__ import annotations

from vlmkit.architecture import Architecture
from vlmkit.connectors.pixel_shuffle import PixelShuffle
from vlmkit.encoders.siglip import Siglip
from vlmkit.fusion.splice import Splice
from vlmkit.language_model import LanguageModel
from vlmkit.layout.tile_tags import TileTags
from vlmkit.preprocess.policies.longest_edge_tiles import LongestEdgeTiles
from vlmkit.spec import Settings
from vlmkit.zoo.idefics3 import END_OF_UTTERANCE
from vlmkit.zoo.llava import TINY_LANGUAGE

SIGLIP_B_512 = Siglip(
    checkpoint="google/siglip-base-patch16-512",
    width=768,
    layers=12,
    heads=12,
    mlp=3072,
    patch=16,
    image_size=512,
    positions="bucket",
)

SMOLLM2_135M = LanguageModel(
    model_type="llama",
    checkpoint="HuggingFaceTB/SmolLM2-135M-Instruct",
    tokenizer="HuggingFaceTB/SmolVLM-256M-Instruct",
    config=Settings(
        vocab_size=49280,
        hidden_size=576,
        intermediate_size=1536,
        num_hidden_layers=30,
        num_attention_heads=9,
        num_key_value_heads=3,
        max_position_embeddings=8192,
        rms_norm_eps=1e-5,
        rope_theta=100000.0,
        bos_token_id=1,
        eos_token_id=49279,
        pad_token_id=2,
    ),
)
"""SmolLM2 ties its embeddings, SmolVLM does not."""

SMOLVLM_256M = Architecture(
    name="smolvlm-256m",
    policy=LongestEdgeTiles(size=512),
    encoder=SIGLIP_B_512,
    connector=PixelShuffle(ratio=4),
    layout=TileTags(template=END_OF_UTTERANCE.replace(begin="<|im_start|>"), placeholder="<image>"),
    fusion=Splice(),
    language_model=SMOLLM2_135M,
)

SMOLVLM_500M = SMOLVLM_256M.replace(
    name="smolvlm-500m",
    language_model=SMOLLM2_135M.replace(
        checkpoint="HuggingFaceTB/SmolLM2-360M-Instruct",
        tokenizer="HuggingFaceTB/SmolVLM-500M-Instruct",
        config=SMOLLM2_135M.config
        | {"hidden_size": 960, "intermediate_size": 2560, "num_hidden_layers": 32, "num_attention_heads": 15, "num_key_value_heads": 5},
    ),
)

SMOLVLM_2_2B = SMOLVLM_256M.replace(
    name="smolvlm-2.2b",
    policy=LongestEdgeTiles(size=384, view=378),
    encoder=Siglip(checkpoint="google/siglip-so400m-patch14-384", positions="bucket"),
    connector=PixelShuffle(ratio=3),
    language_model=LanguageModel(
        model_type="llama",
        checkpoint="HuggingFaceTB/SmolLM2-1.7B-Instruct",
        tokenizer="HuggingFaceTB/SmolVLM-Instruct",
        config=Settings(
            vocab_size=49155,
            hidden_size=2048,
            intermediate_size=8192,
            num_hidden_layers=24,
            num_attention_heads=32,
            num_key_value_heads=32,
            max_position_embeddings=16384,
            rms_norm_eps=1e-5,
            rope_theta=273768.0,
            bos_token_id=1,
            eos_token_id=49154,
            pad_token_id=2,
        ),
    ),
)

SMOLVLM_TINY = SMOLVLM_2_2B.replace(
    name="smolvlm-tiny",
    policy=LongestEdgeTiles(size=86, view=84, tiles=2),
    encoder=Siglip(width=32, layers=3, heads=4, mlp=64, image_size=86, positions="bucket"),
    language_model=LanguageModel(model_type="llama", tokenizer="bytes", config=TINY_LANGUAGE | {"bos_token_id": 258, "eos_token_id": 264}),
)

MODELS = (SMOLVLM_256M, SMOLVLM_500M, SMOLVLM_2_2B, SMOLVLM_TINY)
