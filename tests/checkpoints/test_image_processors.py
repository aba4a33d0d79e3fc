"""Image processors of published directories, field by field: each is honoured to the pixel, without effect, or refused by name."""

from __future__ import annotations

import copy
import json
from dataclasses import dataclass, replace
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from families.llava import reference as llava
from families.registered import SYSTEMS
from families.system import Reference, System, user
from families.tiny import LANGUAGE, picture
from torch import Tensor

import vlmkit
from vlmkit.checkpoints import family_of
from vlmkit.preprocess.geometry import Size
from vlmkit.processor import VLMProcessor

BY_NAME = {system.tiny: system for system in SYSTEMS}
LLAVA = BY_NAME["llava-1.5-tiny"]


def with_clips_processor() -> Reference:
    """LLaVA-1.5 as its checkpoints on the hub are: CLIP's processor, which cuts out the middle."""
    made = llava(transformers.LlamaConfig(**LANGUAGE))
    made.processor.image_processor = transformers.CLIPImageProcessor(size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28})
    return made


WALKED: dict[str, System] = {
    **{system.tiny: system for system in SYSTEMS if system.tiny not in ("bakllava-tiny", "paligemma2-tiny", "idefics2-split-tiny")},
    "llava-clip": replace(LLAVA, tiny="llava-clip", reference=with_clips_processor),
}
"""One system for each class of image processor in each family."""
SQUARE, WIDE = {"height": 56, "width": 56}, {"height": 28, "width": 42}
VALUES: dict[str, tuple[Any, ...]] = {
    "background_color": ([1, 2, 3],),
    "cap_pixels_per_frame": (True,),
    "crop_size": ({"height": 42, "width": 42}, WIDE, 20),
    "data_format": ("channels_last",),
    "default_to_square": (True, False),
    "device": ("cpu",),
    "disable_grouping": (True, False),
    "do_center_crop": (True, False),
    "do_convert_rgb": (True, False),
    "do_image_splitting": (True, False),
    "do_normalize": (False,),
    "do_pad": (True, False),
    "do_rescale": (False,),
    "do_resize": (False,),
    "do_sample_frames": (True,),
    "fps": (1, 3.5),
    "image_grid_pinpoints": ([[28, 56]],),
    "image_mean": ([0.1, 0.25, 0.3], 0.25, [0.1, 0.2]),
    "image_num_channels": (1,),
    "image_seq_length": (9,),
    "image_size": (42,),
    "image_std": ([0.2, 0.4, 0.3], 0.25, [0.1, 0.2]),
    "input_data_format": ("channels_last", "channels_first"),
    "max_frames": (4,),
    "max_image_size": (490, {"longest_edge": 28}, {"longest_edge": 70}),
    "max_image_tiles": (2, 6),
    "max_pixels": (8 * 28 * 28,),
    "max_video_tokens": (20,),
    "merge_size": (1, 2, 3),
    "min_frames": (2,),
    "min_image_size": (200, 1000),
    "min_pixels": (30 * 28 * 28,),
    "min_size": (1, 20, 50),
    "num_frames": (2,),
    "pad_size": (SQUARE, {"height": 300, "width": 300}),
    "padding_mode": ("reflect",),
    "padding_value": (0.0, 7.6, 200.0, 300.0),
    "patch_size": (7, 14, 20, {"height": 20, "width": 20}, {"height": 14, "width": 28}),
    "resample": (0, 1, 2, 3, 4, 5),
    "rescale_factor": (1 / 127.5, 0.0, -0.01),
    "return_metadata": (True, False),
    "return_row_col_info": (True,),
    "return_tensors": ("np",),
    "size": (
        42,
        SQUARE,
        WIDE,
        {"shortest_edge": 28},
        {"shortest_edge": 42},
        {"longest_edge": 90},
        {"shortest_edge": 28, "longest_edge": 42},
        {"shortest_edge": 196, "longest_edge": 12544},
        {"max_height": 40, "max_width": 60},
    ),
    "split_image": (True,),
    "split_resolutions": ([[490, 490], [490, 980]],),
    "temporal_patch_size": (1, 2, 3),
    "transform": ("flip",),
    "use_token_compression": (False,),
    "video_metadata": (),
    # Of the processor around it.
    "image_break_token": ("</s>",),
    "image_end_token": ("</s>",),
    "image_seq_len": (9,),
    "num_additional_image_tokens": (0, 1, 5),
    "num_image_tokens": (9,),
    "size_conversion": ({"490": 3, "980": 5}, {"490": 2, "980": 4, "700": 7}),
    "spatial_merge_size": (2,),
    "use_default_system_prompt": (False,),
    "vision_feature_select_strategy": ("default", "full"),
}
"""What each field is changed to, where it is not so already."""
SIZES = (Size(41, 53), Size(65, 33), Size(28, 28), Size(56, 56), Size(71, 113), Size(33, 97))
"""Odd, or not resized: with filter 0 no pixel's centre lies between two, where libraries differ."""
FEW = {"aria-tiny": 1}
"""How many of them are tried where an image is large."""


@dataclass
class Walked:
    """A system's reference in a directory, whose processor's fields can be changed."""

    system: System
    directory: Path

    @cached_property
    def settings(self) -> dict[str, Any]:
        """As they were saved."""
        found: dict[str, Any] = json.loads((self.directory / "processor_config.json").read_text())
        return found

    def fields(self, part: str) -> list[str]:
        """Those that a part of the processor takes, and those that it writes; of the processor itself for ""."""
        if not part:
            apart = ("image_processor", "video_processor", "processor_class", "image_token")
            return [name for name in self.settings if name not in apart]
        processor = getattr(reference_of(self.system).processor, part)
        taken = {*processor.valid_kwargs.__annotations__, *self.settings[part]}
        return sorted(taken - {"image_processor_type", "video_processor_type", "processor_class"})

    def changed(self, part: str, field: str, value: Any) -> Any:
        """The reference's processor of the directory, which differs in a field now."""
        settings = copy.deepcopy(self.settings)
        (settings[part] if part else settings)[field] = value
        (self.directory / "processor_config.json").write_text(json.dumps(settings))
        return reference_of(self.system).read_processor(transformers.AutoProcessor, self.directory)


@cache
def reference_of(system: System) -> Reference:
    return system.reference()


@pytest.fixture(scope="module", params=WALKED, ids=str)
def walked(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Walked:
    system = WALKED[request.param]
    directory = tmp_path_factory.mktemp("published")
    reference_of(system).processor.save_pretrained(directory)
    made = Walked(system, directory)
    assert made.settings
    return made


def architecture_of(reference: Reference, processor: Any) -> vlmkit.Architecture:
    """What vlmkit reads of a directory beside its weights."""
    config = copy.deepcopy(reference.model.config)
    return family_of(config.model_type).architecture(config, processor).validate()


def normalised(patches: Tensor, spec: vlmkit.Architecture) -> Tensor:
    each = patches.shape[1] // 3
    mean, std = (torch.tensor(values).repeat_interleave(each) for values in (spec.encoder.mean, spec.encoder.std))
    return (patches / 255 - mean) / std


@cache
def unchanged(system: System) -> vlmkit.Architecture:
    return architecture_of(reference_of(system), reference_of(system).processor)


def of_images(system: System, processor: Any, size: Size, spec: vlmkit.Architecture) -> tuple[list[int], Tensor] | None:
    """Ids and patches by the reference; None for a size that it does not serve."""
    reference, row = reference_of(system), [user("What?", picture(size.height, size.width))]
    try:
        inputs = reference.inputs(processor, row)
    except Exception:
        return None
    if "pixel_attention_mask" in processor.image_processor.model_input_names and "pixel_attention_mask" not in inputs:
        values = inputs["pixel_values"]
        inputs["pixel_attention_mask"] = torch.ones(*values.shape[:2], *values.shape[3:], dtype=torch.int64)
    if processor.__class__.__name__ == "VideoLlama3Processor":
        return inputs["input_ids"][0].tolist(), by_rows(inputs, processor.image_processor.merge_size)
    return inputs["input_ids"][0].tolist(), reference.patches(inputs, spec.encoder)


def by_rows(inputs: dict[str, Tensor], merge: int) -> Tensor:
    """Patches of one image, which go by the blocks that are merged."""
    _, rows, columns = inputs["image_grid_thw"][0].tolist()
    blocks = inputs["pixel_values"].view(rows // merge, columns // merge, merge, merge, -1)
    return blocks.transpose(1, 2).flatten(0, 3)


def by_vlmkit(processor: VLMProcessor, size: Size) -> tuple[list[int], Tensor]:
    batch = processor([[user("What?", picture(size.height, size.width))]], add_generation_prompt=True)
    return batch["input_ids"][0].tolist(), batch["pixel_values"]


def apart(ours: Tensor, theirs: Tensor, spec: vlmkit.Architecture) -> float:
    """The greatest difference of pixels, in steps of 8 bits."""
    assert ours.shape == theirs.shape
    std = torch.tensor(spec.encoder.std).repeat_interleave(ours.shape[1] // 3)
    return float(((normalised(ours, spec) - theirs) * std * 255).abs().max())


def exported_processor(system: System, spec: vlmkit.Architecture, processor: VLMProcessor, directory: Path) -> Any:
    """The reference's processor of what vlmkit writes."""
    family_of(reference_of(system).model.config.model_type).processor(spec, processor).save_pretrained(directory)
    return reference_of(system).read_processor(transformers.AutoProcessor, directory)


def compare(walked: Walked, part: str, field: str, value: Any, exports: Path) -> str:
    """Checks a directory that differs in a field, and says what became of it."""
    system, reference = walked.system, reference_of(walked.system)
    try:
        theirs = walked.changed(part, field, value)
    except Exception:
        return "the reference itself cannot be made"
    try:
        spec = architecture_of(reference, theirs)
    except vlmkit.SpecError as error:
        assert field in str(error), f"{field}={value}: refused without its name: {error}"
        return "refused"
    ours, served = VLMProcessor(theirs.tokenizer, architecture=spec.to_dict()), 0
    for size in SIZES[: FEW.get(system.tiny)]:
        expected = of_images(system, theirs, size, spec)
        if expected is None:
            continue
        ids, patches = by_vlmkit(ours, size)
        assert ids == expected[0], f"{field}={value}: ids of {size}"
        difference = apart(patches, expected[1], spec)
        assert difference <= 2.01, f"{field}={value}: pixels of {size} are {difference} apart"
        served += 1
    assert served, f"{field}={value}: the reference serves no image, and vlmkit does not refuse it"
    if spec == unchanged(system):
        return "without effect"
    exported = exported_processor(system, spec, ours, exports)
    for size in SIZES[: FEW.get(system.tiny, 2)]:
        expected = of_images(system, theirs, size, spec)
        if expected is not None:
            found = of_images(system, exported, size, spec)
            assert found is not None
            assert found[0] == expected[0], f"{field}={value}: ids of {size} after an export"
            assert torch.allclose(found[1], expected[1], rtol=1e-4, atol=1e-4), f"{field}={value}: pixels of {size} after an export"
    return "honoured"


def values_of(walked: Walked, part: str, field: str) -> list[Any]:
    stated = (walked.settings[part] if part else walked.settings).get(field)
    # Pillow adds up roundings, which decide where a pixel's centre lies between two of a picture that was resized before.
    undecided = (0,) if field == "resample" and reference_of(walked.system).processor.image_processor.backend == "pil" else ()
    return [value for value in VALUES[field] if value != stated and value not in undecided]


@pytest.mark.parametrize("part", ["image_processor", ""], ids=["image_processor", "processor"])
def test_every_field_is_honoured_or_without_effect_or_refused_by_name(walked: Walked, part: str, tmp_path: Path) -> None:
    wrong, seen = [], {}
    for field in walked.fields(part):
        for value in values_of(walked, part, field):
            try:
                seen[field, str(value)] = compare(walked, part, field, value, tmp_path)
            except Exception as error:
                wrong.append(f"{type(error).__name__}: {field}={value}: {str(error)[:300]}")
    print(seen)
    assert not wrong, "\n".join(wrong)
