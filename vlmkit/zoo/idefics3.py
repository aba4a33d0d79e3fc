"""Idefics3 (Laurencon et al. 2024, arXiv:2408.12637): SigLIP-so400m on tiles of 364 pixels -> 2x2 pixel shuffle -> Llama 3.1 8B.

HuggingFaceM4/Idefics3-8B-Llama3. Numbers of the tower, of the tiles and of the turns as transformers' Idefics3 classes and their
tests state them; those of the language model are Llama 3.1's, with three more words, from memory.
"""

from __future__ import annotations

from vlmkit.architecture import Architecture
from vlmkit.connectors.pixel_shuffle import PixelShuffle
from vlmkit.encoders.siglip import Siglip
from vlmkit.fusion.splice import Splice
from vlmkit.language_model import LanguageModel
from vlmkit.layout.template import Template
from vlmkit.layout.tile_tags import TileTags
from vlmkit.preprocess.policies.longest_edge_tiles import LongestEdgeTiles
from vlmkit.spec import Settings
from vlmkit.zoo.llava import TINY_LANGUAGE

END_OF_UTTERANCE = Template(
    begin="<|begin_of_text|>",
    system=("System:", "<end_of_utterance>\n"),
    user=("User:", "<end_of_utterance>\n"),
    assistant=("Assistant:", "<end_of_utterance>\n"),
    before_text=" ",
)
"""The turns of Idefics2, Idefics3 and SmolVLM, which differ in how they begin."""

LLAMA_3_1_8B = LanguageModel(
    model_type="llama",
    checkpoint="meta-llama/Llama-3.1-8B-Instruct",
    tokenizer="HuggingFaceM4/Idefics3-8B-Llama3",
    config=Settings(
        vocab_size=128259,
        hidden_size=4096,
        intermediate_size=14336,
        num_hidden_layers=32,
        num_attention_heads=32,
        num_key_value_heads=8,
        max_position_embeddings=131072,
        rms_norm_eps=1e-5,
        rope_parameters={
            "rope_type": "llama3",
            "rope_theta": 500000.0,
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 8192,
        },
        bos_token_id=128000,
        eos_token_id=[128001, 128258],
        pad_token_id=128002,
    ),
)

IDEFICS3_8B = Architecture(
    name="idefics3-8b-llama3",
    policy=LongestEdgeTiles(size=364),
    encoder=Siglip(image_size=364, positions="bucket"),
    connector=PixelShuffle(ratio=2),
    layout=TileTags(template=END_OF_UTTERANCE, placeholder="<image>"),
    fusion=Splice(),
    language_model=LLAMA_3_1_8B,
)

IDEFICS3_TINY = IDEFICS3_8B.replace(
    name="idefics3-tiny",
    policy=LongestEdgeTiles(size=56, tiles=2),
    encoder=Siglip(width=32, layers=3, heads=4, mlp=64, image_size=56, positions="bucket"),
    language_model=LanguageModel(model_type="llama", tokenizer="bytes", config=TINY_LANGUAGE),
)

MODELS = (IDEFICS3_8B, IDEFICS3_TINY)
