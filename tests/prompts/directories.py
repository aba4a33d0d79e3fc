"""Directories as published: tiny models with drawn weights, saved by transformers with the tokenizer and template of a make."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import transformers
from families import idefics2, idefics3, janus, llava_next, mllama, pixtral, qwen2_vl
from families.system import dense_patches
from families.tiny import LANGUAGE, VISION, draw
from prompts.makes import Make
from torch import Tensor

from vlmkit.encoders.base import Encoder
from vlmkit.model import VLM
from vlmkit.processor import VLMProcessor

SIDE = 28
SQUARE = {"height": SIDE, "width": SIDE}

PATCHES: dict[str, Callable[[dict[str, Tensor], Encoder], Tensor]] = {
    "llava": dense_patches(),
    "llava_next": llava_next.patches,
    "pixtral": pixtral.patches,
    "idefics2": idefics2.patches,
    "idefics3": dense_patches(),
    "smolvlm": dense_patches(),
    "paligemma": dense_patches(),
    "janus": dense_patches(),
    "mllama": mllama.patches,
    "qwen2_vl": qwen2_vl.patches,
}
"""Family -> (the reference's inputs, encoder) -> normalised patches in vlmkit's order."""

LANGUAGES: dict[str, tuple[type[Any], dict[str, Any]]] = {
    "llama": (transformers.LlamaConfig, {}),
    "mistral": (transformers.MistralConfig, {"sliding_window": None}),
    "qwen2": (transformers.Qwen2Config, {}),
    "qwen3": (transformers.Qwen3Config, {"head_dim": 8}),
    "glm4": (transformers.Glm4Config, {"head_dim": 8}),
    "gemma": (transformers.GemmaConfig, {"head_dim": 8}),
    "gemma2": (transformers.Gemma2Config, {"head_dim": 8, "query_pre_attn_scalar": 8}),
    "phi3": (transformers.Phi3Config, {}),
    "cohere": (transformers.CohereConfig, {}),
    "olmo2": (transformers.Olmo2Config, {}),
    "granite": (transformers.GraniteConfig, {}),
}
"""`model_type` -> config class and what it wants beside the numbers of all."""


class Published(NamedTuple):
    """A directory, with what transformers and vlmkit read from it."""

    directory: Path
    reference: Any
    """transformers' processor."""
    model: VLM
    processor: VLMProcessor


def write(make: Make, directory: Path) -> None:
    """Save model and processor of a make. The processor is what `AutoProcessor` then reads; it may differ from the one in memory."""
    tokenizer = make.tokenizer()
    model, processor = FAMILIES[make.family](make, tokenizer)
    processor.chat_template = make.template
    model.generation_config.eos_token_id = None
    draw(model).save_pretrained(directory)
    processor.save_pretrained(directory)


def read(make: Make, directory: Path) -> Any:
    """The reference processor of a directory; Idefics3's and SmolVLM's resize with Pillow, as vlmkit does."""
    processor = transformers.AutoProcessor.from_pretrained(directory)
    if make.family in ("idefics3", "smolvlm"):
        processor.image_processor = transformers.AutoImageProcessor.from_pretrained(directory, backend="pil")
    return processor


def numbers(make: Make, tokenizer: Any, room: int = 0) -> dict[str, Any]:
    """Of the language model: places for all tokens and `room` for those that a processor adds."""
    special = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id, "pad_token_id": 0}
    return LANGUAGE | LANGUAGES[make.language][1] | special | {"vocab_size": len(tokenizer) + room}


def text_config(make: Make, tokenizer: Any, room: int = 0) -> Any:
    return LANGUAGES[make.language][0](**numbers(make, tokenizer, room))


def image_id(make: Make, tokenizer: Any) -> int:
    return int(tokenizer.convert_tokens_to_ids(make.image))


def llava(make: Make, tokenizer: Any) -> tuple[Any, Any]:
    vision = transformers.CLIPVisionConfig(**VISION, image_size=SIDE, patch_size=14)
    config = transformers.LlavaConfig(
        vision_config=vision,
        text_config=text_config(make, tokenizer),
        image_token_index=image_id(make, tokenizer),
        vision_feature_layer=-2,
        image_seq_length=4,
    )
    processor = transformers.LlavaProcessor(
        transformers.LlavaImageProcessor(size={"shortest_edge": SIDE}, crop_size=SQUARE),
        tokenizer,
        patch_size=14,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
    )
    return transformers.LlavaForConditionalGeneration(config), processor


def next_llava(make: Make, tokenizer: Any) -> tuple[Any, Any]:
    vision = transformers.CLIPVisionConfig(**VISION, image_size=SIDE, patch_size=14)
    config = transformers.LlavaNextConfig(
        vision_config=vision,
        text_config=text_config(make, tokenizer),
        image_token_index=image_id(make, tokenizer),
        image_grid_pinpoints=llava_next.PINPOINTS,
        image_seq_length=4,
    )
    images = transformers.LlavaNextImageProcessor(size={"shortest_edge": SIDE}, crop_size=SQUARE, image_grid_pinpoints=llava_next.PINPOINTS)
    processor = transformers.LlavaNextProcessor(
        images, tokenizer, patch_size=14, vision_feature_select_strategy="default", num_additional_image_tokens=1
    )
    return transformers.LlavaNextForConditionalGeneration(config), processor


def pixtral_llava(make: Make, tokenizer: Any) -> tuple[Any, Any]:
    vision = transformers.PixtralVisionConfig(**VISION, hidden_act="silu", image_size=112, patch_size=16)
    config = transformers.LlavaConfig(
        vision_config=vision,
        text_config=text_config(make, tokenizer),
        image_token_index=image_id(make, tokenizer),
        vision_feature_layer=-1,
        vision_feature_select_strategy="full",
    )
    processor = transformers.PixtralProcessor(transformers.PixtralImageProcessor(size={"longest_edge": 112}), tokenizer)
    return transformers.LlavaForConditionalGeneration(config), processor


def second_idefics(make: Make, tokenizer: Any) -> tuple[Any, Any]:
    perceiver = dict(resampler_n_latents=4, resampler_depth=2, resampler_n_heads=4, resampler_head_dim=8, num_key_value_heads=2)
    config = transformers.Idefics2Config(
        vision_config={**VISION, "image_size": 70, "patch_size": 14},
        perceiver_config={**perceiver, "hidden_size": 32},
        text_config=text_config(make, tokenizer),
        image_token_id=image_id(make, tokenizer),
    )
    images = transformers.Idefics2ImageProcessor(size={"shortest_edge": 28, "longest_edge": 84}, do_image_splitting=False)
    processor = transformers.Idefics2Processor(image_processor=images, tokenizer=tokenizer, image_seq_len=4)
    return transformers.Idefics2ForConditionalGeneration(config), processor


def third_idefics(make: Make, tokenizer: Any) -> tuple[Any, Any]:
    config = transformers.Idefics3Config(
        vision_config={**VISION, "image_size": 56, "patch_size": 14},
        text_config=text_config(make, tokenizer),
        image_token_id=image_id(make, tokenizer),
        scale_factor=2,
    )
    images = transformers.Idefics3ImageProcessorPil(**idefics3.image_fields(56))
    processor = transformers.Idefics3Processor(image_processor=images, tokenizer=tokenizer, image_seq_len=4)
    return transformers.Idefics3ForConditionalGeneration(config), processor


def smolvlm(make: Make, tokenizer: Any) -> tuple[Any, Any]:
    config = transformers.SmolVLMConfig(
        vision_config={**VISION, "image_size": 86, "patch_size": 14},
        text_config=text_config(make, tokenizer),
        image_token_id=image_id(make, tokenizer),
        scale_factor=3,
    )
    processor = transformers.SmolVLMProcessor(
        image_processor=transformers.SmolVLMImageProcessorPil(**idefics3.image_fields(86)),
        video_processor=transformers.SmolVLMVideoProcessor(**idefics3.image_fields(86)),
        tokenizer=tokenizer,
        image_seq_len=4,
    )
    return transformers.SmolVLMForConditionalGeneration(config), processor


def paligemma(make: Make, tokenizer: Any) -> tuple[Any, Any]:
    images = transformers.SiglipImageProcessor(size=SQUARE, resample=3, image_seq_length=4)
    processor = transformers.PaliGemmaProcessor(image_processor=images, tokenizer=tokenizer)
    vision = transformers.SiglipVisionConfig(**VISION, image_size=SIDE, patch_size=14, vision_use_head=False)
    config = transformers.PaliGemmaConfig(
        vision_config=vision,
        text_config=text_config(make, processor.tokenizer),
        image_token_index=image_id(make, tokenizer),
        projection_dim=32,
        hidden_size=32,
    )
    return transformers.PaliGemmaForConditionalGeneration(config), processor


def janus_model(make: Make, tokenizer: Any) -> tuple[Any, Any]:
    vision = transformers.JanusVisionConfig(
        hidden_size=32, num_hidden_layers=3, num_attention_heads=4, mlp_ratio=2, image_size=SIDE, patch_size=14, projection_dim=32
    )
    config = transformers.JanusConfig(
        vision_config=vision,
        text_config=text_config(make, tokenizer),
        vq_config=transformers.JanusVQVAEConfig(**janus.DRAWING),
        image_token_id=image_id(make, tokenizer),
        tie_word_embeddings=False,
    )
    images = transformers.JanusImageProcessor(size=SQUARE, image_mean=[0.5] * 3, image_std=[0.5] * 3)
    processor = transformers.JanusProcessor(images, tokenizer, num_image_tokens=4, **make.processor)
    return transformers.JanusForConditionalGeneration(config), processor


def llama_vision(make: Make, tokenizer: Any) -> tuple[Any, Any]:
    vision: dict[str, Any] = {**VISION, "num_hidden_layers": 4, "num_global_layers": 2, "image_size": 56, "patch_size": 14}
    more = {"num_hidden_layers": 5, "cross_attention_layers": [1, 3], "rope_parameters": {"rope_type": "default", "rope_theta": 1e4}}
    config = transformers.MllamaConfig(
        vision_config={**vision, "intermediate_layers_indices": [0, 2], "vision_output_dim": 96},
        text_config=numbers(make, tokenizer) | more,
        image_token_index=image_id(make, tokenizer),
    )
    images = transformers.MllamaImageProcessor(
        size={"height": 56, "width": 56}, image_mean=[0.48145466, 0.4578275, 0.40821073], image_std=[0.26862954, 0.26130258, 0.27577711]
    )
    return transformers.MllamaForConditionalGeneration(config), transformers.MllamaProcessor(images, tokenizer)


def second_qwen(make: Make, tokenizer: Any) -> tuple[Any, Any]:
    ids = {
        name: tokenizer.convert_tokens_to_ids(token)
        for name, token in zip(("image", "video", "start", "end"), qwen2_vl.SPECIALS, strict=True)
    }
    turning = {"rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [1, 1, 2]}}
    config = transformers.Qwen2VLConfig(
        text_config=numbers(make, tokenizer) | turning,
        vision_config={"embed_dim": 32, "depth": 3, "num_heads": 4, "mlp_ratio": 2, "hidden_size": 32, "patch_size": 14},
        image_token_id=ids["image"],
        video_token_id=ids["video"],
        vision_start_token_id=ids["start"],
        vision_end_token_id=ids["end"],
    )
    processor = transformers.Qwen2VLProcessor(
        image_processor=transformers.Qwen2VLImageProcessor(size=qwen2_vl.PIXELS),
        video_processor=transformers.Qwen2VLVideoProcessor(size=qwen2_vl.PIXELS),
        tokenizer=tokenizer,
    )
    return transformers.Qwen2VLForConditionalGeneration(config), processor


FAMILIES: dict[str, Callable[[Make, Any], tuple[Any, Any]]] = {
    "llava": llava,
    "llava_next": next_llava,
    "pixtral": pixtral_llava,
    "idefics2": second_idefics,
    "idefics3": third_idefics,
    "smolvlm": smolvlm,
    "paligemma": paligemma,
    "janus": janus_model,
    "mllama": llama_vision,
    "qwen2_vl": second_qwen,
}
"""Family -> (make, its tokenizer) -> model and processor."""
