"""Olmo-3.1-UNIVA-VL: OpenCLIP ViT-H/14-378 -> convolutional patch merger -> OLMo-3.1-32B-Instruct.

Source: the model card of Olmo-3.1-UNIVA-VL (Apache-2.0), which publishes a README and neither code nor weights. Where it
is silent, docs/architecture.md says what was decided. The language model: OLMo 3 (Ai2, 2025), the tower: Data Filtering
Networks (Fang et al. 2023, arXiv:2309.17425).
"""

from __future__ import annotations

from vlmkit.architecture import Architecture
from vlmkit.connectors.conv_patch_merger import ConvPatchMerger
from vlmkit.encoders.open_clip import OpenClip
from vlmkit.fusion.splice import Splice
from vlmkit.language_model import LanguageModel
from vlmkit.layout.run import Run
from vlmkit.layout.template import CHATML, Template
from vlmkit.preprocess.policies.smart_resize import SmartResize
from vlmkit.spec import Settings

OLMO_3_1_32B = LanguageModel(
    model_type="olmo3",
    checkpoint="allenai/Olmo-3.1-32B-Instruct",
    config=Settings(
        vocab_size=100278,
        hidden_size=5120,
        intermediate_size=27648,
        num_hidden_layers=64,
        num_attention_heads=40,
        num_key_value_heads=8,
        max_position_embeddings=65536,
        sliding_window=4096,
        rms_norm_eps=1e-6,
        rope_theta=500000.0,
        rope_scaling={
            "rope_type": "yarn",
            "factor": 8.0,
            "original_max_position_embeddings": 8192,
            "attention_factor": 1.2079441541679836,
            "beta_fast": 32.0,
            "beta_slow": 1.0,
        },
        pad_token_id=100277,
        bos_token_id=None,
        eos_token_id=[100257, 100265],
        tie_word_embeddings=False,
    ),
)
"""32,233,522,176 parameters. Three layers of four slide over 4096 tokens; YaRN acts on the full ones. It stops at
<|endoftext|> (100257) and at <|im_end|> (100265)."""

UNIVA_VL = Architecture(
    name="univa-vl",
    policy=SmartResize(factor=28, min_pixels=64 * 28 * 28, max_pixels=256 * 28 * 28),
    encoder=OpenClip(checkpoint="ViT-H-14-378-quickgelu/dfn5b"),
    connector=ConvPatchMerger(),
    layout=Run(template=CHATML, placeholder="<|extra_id_0|>", after_image="\n"),
    fusion=Splice(),
    language_model=OLMO_3_1_32B,
)

BRIEF = Template(
    system=("<|im_start|>", "<|im_end|>"),
    user=("<|im_start|>", "<|im_end|>"),
    assistant=("", "<|im_end|>"),
)
"""ChatML without its words: at one token a byte they would be half of a short conversation."""

UNIVA_VL_TINY = Architecture(
    name="univa-vl-tiny",
    policy=SmartResize(factor=28, min_pixels=12 * 28 * 28, max_pixels=20 * 28 * 28),
    encoder=OpenClip(width=160, layers=4, heads=5, image_size=126),
    connector=ConvPatchMerger(),
    layout=Run(template=BRIEF, placeholder="<|image|>"),
    fusion=Splice(),
    language_model=LanguageModel(
        model_type="olmo3",
        tokenizer="bytes",
        config=Settings(
            vocab_size=320,
            hidden_size=128,
            intermediate_size=384,
            num_hidden_layers=4,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=1024,
            sliding_window=64,
            rms_norm_eps=1e-6,
            rope_theta=500000.0,
            rope_scaling={
                "rope_type": "yarn",
                "factor": 8.0,
                "original_max_position_embeddings": 128,
                "attention_factor": 1.2079441541679836,
                "beta_fast": 32.0,
                "beta_slow": 1.0,
            },
            pad_token_id=256,
            bos_token_id=None,
            eos_token_id=[257, 259],
            tie_word_embeddings=False,
        ),
    ),
)
"""The same architecture with small numbers and one token a byte, for a laptop."""

MODELS = (UNIVA_VL, UNIVA_VL_TINY)
