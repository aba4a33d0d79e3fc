"""Every field of a published config is honoured, without effect, or refused by name: towers, connectors, and what lies beside them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path as File
from typing import Any

import pytest
import torch
import transformers
from checkpoints.told_otherwise import Path, base_of, changed, fields_of, logits_of, logits_of_reference

import vlmkit
from vlmkit.checkpoints import export

pytestmark = pytest.mark.filterwarnings("ignore:.*vlmkit does not build:UserWarning")

VISION, SQUARE = "vision_config", {"height": 7, "width": 7}
COUNTS = {
    "LLaVA-1.5": 19,
    "Maya": 17,
    "AIMv2": 21,
    "Pixtral": 18,
    "LLaVA-1.6": 20,
    "ARIA": 16,
    "Idefics": 45,
    "Idefics2": 23,
    "Idefics3": 15,
    "SmolVLM": 15,
    "Janus-Pro": 35,
    "Llama 3.2-Vision": 16,
    "PaliGemma": 16,
    "Qwen2-VL": 16,
    "VideoLLaMA 3": 13,
    "Fuyu": 5,
}
"""Systems, one for each class of transformers and each tower, and how many fields of their configs are walked."""

EVERYWHERE = {"attention_dropout", "initializer_range", "initializer_factor", "image_seq_length", "use_cache"}
WITHOUT_EFFECT: dict[str, set[str]] = {
    "LLaVA-1.5": {"vision_config.projection_dim"},
    "Maya": {"vision_config.vision_use_head"},
    "AIMv2": {"vision_config.use_head"},
    "Pixtral": {"vision_config.image_size"},
    "LLaVA-1.6": {"vision_config.projection_dim"},
    "Idefics": {
        *("dropout", "alpha_initializer", "alphas_initializer_range", "pad_token_id", "bos_token_id", "eos_token_id"),
        *("freeze_text_layers", "freeze_text_module_exceptions", "freeze_lm_head", "freeze_vision_layers"),
        *("freeze_vision_module_exceptions", "max_position_embeddings", "perceiver_config.use_resampler"),
    },
    "Idefics2": {"perceiver_config.hidden_size"},
    "Idefics3": {"_pad_token_id"},
    "SmolVLM": {"_pad_token_id"},
    "Janus-Pro": {
        *("vision_config.hidden_dropout_rate", "vision_config.projection_dropout", "vision_config.num_image_tokens"),
        "vq_config",
    },
    "PaliGemma": {"vision_config.projection_dim", "vocab_size", "hidden_size", "vision_config.vision_use_head"},
    "Fuyu": {"image_size"},
}
"""Fields that no logit depends on: of training, of beginnings, of modules that no feature passes; by their way, or the start of it."""

REFUSED: dict[str, set[str]] = {
    "AIMv2": {"vision_feature_select_strategy"},
    "Pixtral": {"vision_feature_select_strategy"},
    "LLaVA-1.6": {"vision_feature_select_strategy"},
    "ARIA": {"max_value_projector_patch_to_query_dict"},
    "Idefics": {"use_resampler"},
    "Idefics2": {"perceiver_config.hidden_act"},
    "Janus-Pro": {"vision_config.attention_bias", "vision_config.projection_dim", "vision_config.use_qk_norm"},
    "PaliGemma": {"projection_dim"},
    "Qwen2-VL": {"vision_config.hidden_size", "video_token_id", "vision_start_token_id", "vision_end_token_id"},
    "VideoLLaMA 3": {"video_token_id"},
}
"""Fields that vlmkit has one value for, or whose value the rest of the directory settles."""
ALWAYS_REFUSED = {"num_channels", "in_channels", "temporal_patch_size", "image_token_index", "image_token_id"}

VALUES: dict[str, Any] = {
    "hidden_act": "relu",
    "projector_hidden_act": "gelu_new",
    "alpha_initializer": "ones",
    "alpha_type": "float",
    "patch_size": 7,
    "num_hidden_layers": 4,
    "depth": 4,
    "vision_feature_layer": [-1, 0],
    "rope_parameters": {"rope_theta": 300.0, "rope_type": "axial"},
    "freeze_text_module_exceptions": ["a"],
    "freeze_vision_module_exceptions": ["a"],
    "pad_token_id": 255,
    "num_attention_heads": 2,
    "num_heads": 2,
    "attention_heads": 2,
}
"""Other values than the tiny systems', by the name of the field; a number not named here is doubled, a switch turned."""
VALUES_OF: dict[tuple[str, str], Any] = {
    ("LLaVA-1.5", "vision_feature_select_strategy"): "full",
    ("Maya", "vision_feature_select_strategy"): "full",
    ("LLaVA-1.6", "vision_feature_select_strategy"): "full",
    ("AIMv2", "vision_feature_select_strategy"): "default",
    ("Pixtral", "vision_feature_select_strategy"): "default",
    ("Pixtral", "patch_size"): 8,
    ("Pixtral", "head_dim"): 32,
    ("LLaVA-1.6", "image_grid_pinpoints"): [[56, 112], [112, 112]],
    ("ARIA", "patch_size"): 49,
    ("ARIA", "image_size"): 490,
    ("ARIA", "projector_patch_to_query_dict"): {100: 3, 400: 4},
    ("ARIA", "vision_feature_layer"): -2,
    ("Idefics", "vocab_size"): 266,
    ("Idefics", "cross_layer_interval"): 4,
    ("Idefics", "rope_parameters"): {"rope_theta": 300.0, "rope_type": "default"},
    ("SmolVLM", "scale_factor"): 2,
    ("Janus-Pro", "channel_multiplier"): [1, 2],
    ("Llama 3.2-Vision", "max_num_tiles"): 3,
    ("Llama 3.2-Vision", "intermediate_layers_indices"): [1, 2],
    ("Llama 3.2-Vision", "supported_aspect_ratios"): [[1, 1], [1, 2], [1, 3], [2, 1], [3, 1]],
    ("Fuyu", "patch_size"): 5,
}


def size(**sides: int) -> Any:
    return transformers.image_utils.SizeDict(**sides)


def llava(processor: Any) -> None:
    processor.patch_size, processor.vision_feature_select_strategy = 7, "full"
    processor.image_processor.size = size(shortest_edge=56)
    processor.image_processor.crop_size = size(height=56, width=56)


def maya(processor: Any) -> None:
    processor.patch_size, processor.vision_feature_select_strategy = 7, "full"
    processor.image_processor.size = size(height=56, width=56)


def aimv2(processor: Any) -> None:
    processor.patch_size = 7
    processor.image_processor.size = size(shortest_edge=56)
    processor.image_processor.crop_size = size(height=56, width=56)


def pixtral(processor: Any) -> None:
    processor.patch_size, processor.image_processor.patch_size = 8, size(height=8, width=8)


def llava_next(processor: Any) -> None:
    aimv2(processor)
    processor.image_processor.image_grid_pinpoints = [[56, 112], [112, 112]]


def aria(processor: Any) -> None:
    processor.size_conversion = {490: 3, 980: 4}


def idefics(processor: Any) -> None:
    processor.image_processor.image_size, processor.image_processor.size = 56, size(height=56, width=56)


def longer(count: int) -> Callable[[Any], None]:
    def adapt(processor: Any) -> None:
        processor.image_seq_len = count

    return adapt


def janus(processor: Any) -> None:
    processor.num_image_tokens, processor.image_processor.size = 64, size(height=56, width=56)


def mllama(processor: Any) -> None:
    processor.image_processor.size, processor.image_processor.max_image_tiles = size(height=112, width=112), 3


def paligemma(processor: Any) -> None:
    processor.image_processor.size, processor.image_processor.image_seq_length = size(height=56, width=56), 64
    processor.image_seq_length = 64


def both(processor: Any) -> None:
    processor.image_processor.patch_size = processor.video_processor.patch_size = 7


def qwen2_vl(processor: Any) -> None:
    both(processor)
    processor.image_processor.merge_size = processor.video_processor.merge_size = 4


def fuyu(processor: Any) -> None:
    processor.image_processor.patch_size = size(height=5, width=5)


ADAPT: dict[str, Callable[[Any], None]] = {
    "LLaVA-1.5": llava,
    "Maya": maya,
    "AIMv2": aimv2,
    "Pixtral": pixtral,
    "LLaVA-1.6": llava_next,
    "ARIA": aria,
    "Idefics": idefics,
    "Idefics2": longer(8),
    "Idefics3": longer(4),
    "SmolVLM": longer(36),
    "Janus-Pro": janus,
    "Llama 3.2-Vision": mllama,
    "PaliGemma": paligemma,
    "Qwen2-VL": qwen2_vl,
    "VideoLLaMA 3": both,
    "Fuyu": fuyu,
}
"""What a processor says beside the other values of the config."""


def other(title: str, path: Path, value: Any) -> Any:
    name = path[-1]
    if (title, name) in VALUES_OF:
        return VALUES_OF[title, name]
    if name in VALUES:
        return VALUES[name]
    if isinstance(value, bool):
        return not value
    return value + 0.05 if isinstance(value, float) else 2 * value


def among(path: Path, names: set[str]) -> bool:
    """Whether a field is named by its way, or by the start of it."""
    return any(".".join(path[: end + 1]) in names for end in range(len(path)))


def sorted_out(title: str) -> tuple[dict[Path, Any], dict[Path, Any], dict[Path, Any]]:
    """Other values of the fields that are honoured, that have no effect, and that are refused."""
    honoured: dict[Path, Any] = {}
    without_effect: dict[Path, Any] = {}
    refused: dict[Path, Any] = {}
    for path, value in fields_of(title).items():
        kind = honoured
        if path[-1] in EVERYWHERE or among(path, WITHOUT_EFFECT.get(title, set())):
            kind = without_effect
        elif path[-1] in ALWAYS_REFUSED or among(path, REFUSED.get(title, set())):
            kind = refused
        kind[path] = other(title, path, value)
    return honoured, without_effect, refused


every_system = pytest.mark.parametrize("title", COUNTS)


@every_system
def test_every_field_is_walked(title: str) -> None:
    assert len(fields_of(title)) == COUNTS[title]


@every_system
def test_fields_are_honoured_all_at_once_and_exported(title: str, tmp_path: File) -> None:
    reference = changed(title, sorted_out(title)[0], ADAPT[title])
    theirs = logits_of_reference(reference)
    reference.save(tmp_path / "read")
    loaded = vlmkit.load(tmp_path / "read")
    assert (logits_of(loaded, reference) - theirs).abs().max() < 1e-4  # measured
    export(*loaded, tmp_path / "written")
    again = type(reference.model).from_pretrained(tmp_path / "written").eval()
    assert (logits_of_reference(reference, again) - theirs).abs().max() < 1e-6  # 5e-7 where a vocabulary is cut elsewhere, else 0


@every_system
def test_fields_without_effect_have_none(title: str, tmp_path: File) -> None:
    changes = sorted_out(title)[1]
    if not changes:
        return
    reference = changed(title, changes)
    theirs = logits_of_reference(reference)
    assert torch.equal(theirs, logits_of_reference(base_of(title)))
    reference.save(tmp_path)
    assert (logits_of(vlmkit.load(tmp_path), reference) - theirs).abs().max() < 1e-4


def refusals() -> list[Any]:
    """Those of colours and placeholders, which all systems share, take their time."""
    every = [(title, path) for title in COUNTS for path in sorted_out(title)[2]]
    shared = {False: (), True: pytest.mark.slow}
    return [pytest.param(*one, marks=shared[one[1][-1] in ALWAYS_REFUSED and one[0] != "LLaVA-1.5"], id=str(one)) for one in every]


@pytest.mark.parametrize(("title", "path"), refusals())
def test_fields_that_are_refused_are_named(title: str, path: Path, tmp_path: File) -> None:
    value = sorted_out(title)[2][path]
    reference = changed(title, {path: value})
    if path[-1] == "temporal_patch_size":
        for pixels in (reference.processor.image_processor, reference.processor.video_processor):
            pixels.temporal_patch_size = value
    reference.save(tmp_path)
    with pytest.raises(vlmkit.SpecError, match=path[-1]):
        vlmkit.load(tmp_path)
