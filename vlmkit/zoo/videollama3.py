"""VideoLLaMA 3 (Zhang et al. 2025, arXiv:2501.13106): SigLIP with rotary positions -> bilinear shrinking, MLP -> Qwen2.5.

A picture keeps its shape and, up to 16,384 patches, its size: a token a patch. The frames of a film share 65,536 patches, four to a
token; each stands behind its time, and what did not change since the frame before is left out.

Numbers: configs of DAMO-NLP-SG/VideoLLaMA3-2B and -7B, and those of lkhl/VideoLLaMA3-2B-Image-HF and -7B-Image-HF, the same models
written for transformers' VideoLlama3ForConditionalGeneration, from copies. The template is the one of transformers' own tests.
"""

from __future__ import annotations

from vlmkit.architecture import Architecture
from vlmkit.connectors.bilinear_mlp import BilinearMlp
from vlmkit.encoders.siglip_rotary import SiglipRotary
from vlmkit.fusion.splice import Splice
from vlmkit.language_model import LanguageModel
from vlmkit.layout.template import CHATML
from vlmkit.layout.timestamps import Timestamps
from vlmkit.preprocess.policies.smart_resize import ClipPixels, SmartResize
from vlmkit.preprocess.sampling import Sampling
from vlmkit.spec import Settings
from vlmkit.zoo.llava import TINY_LANGUAGE

QWEN2_5_7B = LanguageModel(
    model_type="qwen2",
    checkpoint="Qwen/Qwen2.5-7B-Instruct",
    config=Settings(
        vocab_size=152064,
        hidden_size=3584,
        intermediate_size=18944,
        num_hidden_layers=28,
        num_attention_heads=28,
        num_key_value_heads=4,
        max_position_embeddings=32768,
        rms_norm_eps=1e-6,
        rope_theta=1000000.0,
        bos_token_id=151643,
        eos_token_id=151645,
        tie_word_embeddings=False,
    ),
)
"""7,615,616,512 parameters. It stops at <|im_end|> (151645)."""

QWEN2_5_1_5B = QWEN2_5_7B.replace(
    checkpoint="Qwen/Qwen2.5-1.5B-Instruct",
    config=QWEN2_5_7B.config
    | {
        "vocab_size": 151936,
        "hidden_size": 1536,
        "intermediate_size": 8960,
        "num_attention_heads": 12,
        "num_key_value_heads": 2,
        "tie_word_embeddings": True,
    },
)
"""1,543,714,304 parameters, its embeddings tied."""

STARTS = Sampling(fps=1.0, min_frames=4, max_frames=180, multiple=1, spread="starts")
"""One frame a second, the first one of it."""


def shared_pixels(factor: int, min_pixels: int, total_pixels: int) -> ClipPixels:
    """The frames of a film share a number of pixels and nothing else bounds one of them from above."""
    return ClipPixels(
        factor=factor,
        min_pixels=min_pixels,
        max_pixels=total_pixels,
        total_pixels=total_pixels,
        frames_per_share=1,
        least=0.0,
        whole=True,
    )


VIDEOLLAMA3_7B = Architecture(
    name="videollama3-7b",
    policy=SmartResize(
        factor=14,
        min_pixels=16 * 14 * 14,
        max_pixels=16384 * 14 * 14,
        clip=shared_pixels(factor=28, min_pixels=16 * 28 * 28, total_pixels=16384 * 28 * 28),
    ),
    encoder=SiglipRotary(),
    connector=BilinearMlp(ratio=1, ratio_clips=2),
    layout=Timestamps(
        template=CHATML, placeholder="<|image_pad|>", video_placeholder="<|video_pad|>", after_image="\n", drop_unchanged=0.1
    ),
    fusion=Splice(),
    language_model=QWEN2_5_7B,
    sampling=STARTS,
)

VIDEOLLAMA3_2B = VIDEOLLAMA3_7B.replace(name="videollama3-2b", language_model=QWEN2_5_1_5B)

VIDEOLLAMA3_TINY = VIDEOLLAMA3_7B.replace(
    name="videollama3-tiny",
    policy=SmartResize(
        factor=14,
        min_pixels=4 * 14 * 14,
        max_pixels=64 * 14 * 14,
        clip=shared_pixels(factor=28, min_pixels=4 * 28 * 28, total_pixels=64 * 28 * 28),
    ),
    encoder=SiglipRotary(width=32, layers=3, heads=4, mlp=64),
    language_model=LanguageModel(
        model_type="qwen2",
        tokenizer="bytes",
        config=TINY_LANGUAGE | {"bos_token_id": 257, "eos_token_id": 259, "rope_theta": 1000000.0, "tie_word_embeddings": True},
    ),
)

MODELS = (VIDEOLLAMA3_2B, VIDEOLLAMA3_7B, VIDEOLLAMA3_TINY)
