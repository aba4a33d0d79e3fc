"""Idefics (Laurencon et al. 2023, arXiv:2306.16527): CLIP ViT-H/14 -> Flamingo's resampler -> cross-attention in LLaMA.

HuggingFaceM4/idefics-9b-instruct and idefics-80b-instruct, an open Flamingo: 64 tokens an image, at which words look until the next
image. Sizes as transformers' Idefics classes and the cards state them. From memory: cross-attention before every fourth layer, and the
ids behind LLaMA's 32,000 words (<fake_token_around_image>, <image>, <end_of_utterance>), for which the published class has tables of
their own.
"""

from __future__ import annotations

from vlmkit.architecture import Architecture
from vlmkit.connectors.flamingo_resampler import FlamingoResampler
from vlmkit.encoders.clip import Clip
from vlmkit.fusion.cross_attention import CrossAttention
from vlmkit.language_model import LanguageModel
from vlmkit.layout.seen_fenced import SeenFenced
from vlmkit.preprocess.policies.squash import Squash
from vlmkit.spec import Settings
from vlmkit.zoo.idefics3 import END_OF_UTTERANCE
from vlmkit.zoo.llava import TINY_LANGUAGE

CLIP_H_224 = Clip(
    checkpoint="laion/CLIP-ViT-H-14-laion2B-s32B-b79K",
    width=1280,
    layers=32,
    heads=16,
    mlp=5120,
    image_size=224,
    activation="gelu",
    class_token="keep",
    keep_unused=True,
)
"""630,766,080 parameters. All tokens of the last block are read; the norm behind it, which nobody applies, is kept."""

LLAMA_7B = LanguageModel(
    model_type="llama",
    checkpoint="huggyllama/llama-7b",
    tokenizer="HuggingFaceM4/idefics-9b-instruct",
    config=Settings(
        vocab_size=32003,
        hidden_size=4096,
        intermediate_size=11008,
        num_hidden_layers=32,
        num_attention_heads=32,
        num_key_value_heads=32,
        max_position_embeddings=2048,
        rms_norm_eps=1e-6,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    ),
)

IDEFICS_9B = Architecture(
    name="idefics-9b",
    policy=Squash(size=224),
    encoder=CLIP_H_224,
    connector=FlamingoResampler(),
    layout=SeenFenced(template=END_OF_UTTERANCE.replace(begin="<s>"), placeholder="<image>"),
    fusion=CrossAttention(before=4, visual_dim=1280),
    language_model=LLAMA_7B,
)

IDEFICS_80B = IDEFICS_9B.replace(
    name="idefics-80b",
    language_model=LLAMA_7B.replace(
        checkpoint="huggyllama/llama-65b",
        tokenizer="HuggingFaceM4/idefics-80b-instruct",
        config=LLAMA_7B.config
        | {"hidden_size": 8192, "intermediate_size": 22016, "num_hidden_layers": 80, "num_attention_heads": 64, "num_key_value_heads": 64},
    ),
)

IDEFICS_TINY = IDEFICS_9B.replace(
    name="idefics-tiny",
    policy=Squash(size=28),
    encoder=Clip(width=48, layers=2, heads=4, mlp=64, image_size=28, activation="gelu", class_token="keep", keep_unused=True),
    connector=FlamingoResampler(latents=4, depth=2, heads=4, head_dim=8),
    fusion=CrossAttention(before=2, visual_dim=48, gate="vector"),
    language_model=LanguageModel(
        model_type="llama",
        tokenizer="bytes",
        config=TINY_LANGUAGE
        | {
            "vocab_size": 268,
            "num_hidden_layers": 4,
            "num_key_value_heads": 4,
            "rms_norm_eps": 1e-6,
            "bos_token_id": 263,
            "eos_token_id": 264,
        },
    ),
)

MODELS = (IDEFICS_9B, IDEFICS_80B, IDEFICS_TINY)
