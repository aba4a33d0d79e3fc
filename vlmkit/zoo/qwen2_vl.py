"""Qwen2-VL (Wang et al. 2024, arXiv:2409.12191): a tower of 631M for any size and for films -> patch merger -> Qwen2, whose
positions turn by time, row and column.

Of Qwen/Qwen2-VL-2B-Instruct, -7B-Instruct and -72B-Instruct. Numbers of the tower, the merger, the turns and which tokens stand
around an image as transformers' Qwen2-VL classes state them; sizes of the language models, ids, bounds of an image's pixels (4 to
16,384 tokens) and the default system message from memory of the checkpoints' own files. Films are shown as qwen-vl-utils shows them: two
frames a second, of 128 to 768 tokens each and 115,200 all together.

The same parts with other weights:

- **UI-TARS** (Qin et al. 2025, arXiv:2501.12326), an agent on screens: what it says becomes clicks by `vlmkit.actions`. Its checkpoints,
  ByteDance-Seed/UI-TARS-2B-SFT, -7B-SFT, -7B-DPO, -72B-SFT and -72B-DPO, are directories of Qwen2-VL's class.
- **Tarsier2** (Yuan et al. 2025, arXiv:2501.07888), which describes films: 7B, 16 frames from the first to the last, each shown twice and
  of up to 460,800 pixels (configs/tarser2_default_config.yaml of its repository). Its own processor resamples a frame twice, to the
  bound and from there to multiples of 28 pixels, and bounds pictures likewise; here it is done once, and pictures are Qwen2-VL's. From
  memory: omni-research/Tarsier2-Recap-7b states a class of its own, whose tower is called `vision_tower`, not `visual`.
"""

from __future__ import annotations

from vlmkit.architecture import Architecture
from vlmkit.connectors.patch_merger import PatchMerger
from vlmkit.encoders.qwen2_vl import Qwen2VL
from vlmkit.fusion.splice import Splice
from vlmkit.language_model import LanguageModel
from vlmkit.layout.bracketed import Bracketed
from vlmkit.layout.template import CHATML
from vlmkit.preprocess.policies.smart_resize import ClipPixels, SmartResize
from vlmkit.preprocess.sampling import Sampling
from vlmkit.spec import Settings
from vlmkit.zoo.llava import TINY_LANGUAGE

QWEN2 = Settings(
    max_position_embeddings=32768,
    rope_parameters={"rope_type": "default", "rope_theta": 1000000.0, "mrope_section": [16, 24, 24]},
    rms_norm_eps=1e-6,
    bos_token_id=151643,
    eos_token_id=151645,
)
"""What the three language models share. Of a head's 64 frequencies 16 turn by time, 24 by row and 24 by column."""

QWEN2_7B = LanguageModel(
    model_type="qwen2_vl_text",
    tokenizer="Qwen/Qwen2-VL-7B-Instruct",
    config=QWEN2
    | {
        "vocab_size": 152064,
        "hidden_size": 3584,
        "intermediate_size": 18944,
        "num_hidden_layers": 28,
        "num_attention_heads": 28,
        "num_key_value_heads": 4,
    },
)
"""7,615,616,512 parameters."""

QWEN2_2B = QWEN2_7B.replace(
    tokenizer="Qwen/Qwen2-VL-2B-Instruct",
    config=QWEN2
    | {
        "vocab_size": 151936,
        "hidden_size": 1536,
        "intermediate_size": 8960,
        "num_hidden_layers": 28,
        "num_attention_heads": 12,
        "num_key_value_heads": 2,
        "tie_word_embeddings": True,
    },
)
"""1,543,714,304 parameters."""

QWEN2_72B = QWEN2_7B.replace(
    tokenizer="Qwen/Qwen2-VL-72B-Instruct",
    config=QWEN2
    | {
        "vocab_size": 152064,
        "hidden_size": 8192,
        "intermediate_size": 29568,
        "num_hidden_layers": 80,
        "num_attention_heads": 64,
        "num_key_value_heads": 8,
    },
)
"""72,706,203,648 parameters."""

PICTURES = SmartResize(min_pixels=4 * 28 * 28, max_pixels=16384 * 28 * 28)

QWEN2_VL_7B = Architecture(
    name="qwen2-vl-7b",
    policy=PICTURES.replace(clip=ClipPixels()),
    encoder=Qwen2VL(),
    connector=PatchMerger(),
    layout=Bracketed(
        template=CHATML.replace(default_system="You are a helpful assistant."),
        placeholder="<|image_pad|>",
        video_placeholder="<|video_pad|>",
        start="<|vision_start|>",
        end="<|vision_end|>",
    ),
    fusion=Splice(),
    language_model=QWEN2_7B,
)

QWEN2_VL_2B = QWEN2_VL_7B.replace(name="qwen2-vl-2b", language_model=QWEN2_2B)
QWEN2_VL_72B = QWEN2_VL_7B.replace(name="qwen2-vl-72b", language_model=QWEN2_72B)

UI_TARS_2B = QWEN2_VL_2B.replace(name="ui-tars-2b")
UI_TARS_7B = QWEN2_VL_7B.replace(name="ui-tars-7b")
UI_TARS_72B = QWEN2_VL_72B.replace(name="ui-tars-72b")

TARSIER2_7B = QWEN2_VL_7B.replace(
    name="tarsier2-7b",
    policy=PICTURES.replace(clip=ClipPixels(min_pixels=4 * 28 * 28, max_pixels=460_800, total_pixels=None)),
    sampling=Sampling(frames=16, multiple=1, repeat=2),
)

QWEN2_VL_TINY = QWEN2_VL_7B.replace(
    name="qwen2-vl-tiny",
    policy=SmartResize(
        min_pixels=4 * 28 * 28,
        max_pixels=16 * 28 * 28,
        clip=ClipPixels(min_pixels=4 * 28 * 28, max_pixels=16 * 28 * 28, total_pixels=None),
    ),
    encoder=Qwen2VL(width=32, layers=3, heads=4, mlp=64),
    language_model=LanguageModel(
        model_type="qwen2_vl_text",
        tokenizer="bytes",
        config=TINY_LANGUAGE
        | {
            "rope_parameters": {"rope_type": "default", "rope_theta": 1000000.0, "mrope_section": [1, 1, 2]},
            "bos_token_id": 257,
            "eos_token_id": 259,
            "tie_word_embeddings": False,
        },
    ),
)

MODELS = (QWEN2_VL_2B, QWEN2_VL_7B, QWEN2_VL_72B, UI_TARS_2B, UI_TARS_7B, UI_TARS_72B, TARSIER2_7B, QWEN2_VL_TINY)
