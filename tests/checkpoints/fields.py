"""What tests of the fields of published processors share: other values, and directories whose fields can be changed."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from families.system import Reference, System
from torch import Tensor

import vlmkit
from vlmkit.checkpoints import family_of
from vlmkit.checkpoints.image_processors import NORMALISED
from vlmkit.processor import VLMProcessor

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


PARTS = ("image_processor", "video_processor")
APART = ("processor_class", "tokenizer", "chat_template", "image_token")
"""What of a processor's settings is no field of images or films."""
CALLERS = {("videollama3-tiny", "do_sample_frames")}
"""Where vlmkit serves what the reference does not: how many frames a second is the caller's then, or one."""


@dataclass
class Walked:
    """A system's reference, whose processor's fields can be changed."""

    system: System
    settings: dict[str, Any]
    """As processor_config.json states them."""

    @classmethod
    def of(cls, system: System) -> Walked:
        return cls(system, written(reference_of(system).processor))

    def fields(self, part: str) -> list[str]:
        """Those that a part of the processor takes, and those that it writes; of the processor itself for "", and of two parts, joined by
        a plus, those that have to be alike."""
        if not part:
            return [name for name in self.settings if name not in (*PARTS, *APART)]
        if "+" in part:
            return list(NORMALISED)
        processor = getattr(reference_of(self.system).processor, part)
        taken = {*processor.valid_kwargs.__annotations__, *self.settings[part]}
        return sorted(taken - {"image_processor_type", "video_processor_type", "processor_class"})

    def changed(self, part: str, field: str, value: Any) -> Any:
        """The reference's processor where a field is another."""
        settings = copy.deepcopy(self.settings)
        for each in part.split("+"):
            (settings[each] if each else settings)[field] = value
        return read(reference_of(self.system).processor, settings)


def written(processor: Any) -> dict[str, Any]:
    """A processor's processor_config.json."""
    settings: dict[str, Any] = json.loads(processor.to_json_string())
    for part in PARTS:
        if hasattr(processor, part):
            settings[part] = json.loads(getattr(processor, part).to_json_string())
    return settings


def read(processor: Any, settings: dict[str, Any]) -> Any:
    """A processor of other settings. Its tokenizer is the same one: reading that is what takes time."""
    parts = {part: type(getattr(processor, part)).from_dict(settings[part]) for part in PARTS if part in settings}
    rest = {name: value for name, value in settings.items() if name not in (*PARTS, "processor_class", "tokenizer")}
    template = {} if processor.chat_template is None else {"chat_template": processor.chat_template}
    return type(processor)(tokenizer=processor.tokenizer, **parts, **rest, **template)


@cache
def reference_of(system: System) -> Reference:
    return system.reference()


def architecture_of(reference: Reference, processor: Any) -> vlmkit.Architecture:
    """What vlmkit reads of a directory beside its weights."""
    config = copy.deepcopy(reference.model.config)
    return family_of(config.model_type).architecture(config, processor).validate()


def normalised(patches: Tensor, spec: vlmkit.Architecture) -> Tensor:
    each = patches.shape[1] // 3
    mean, std = (torch.tensor(values).repeat_interleave(each) for values in (spec.encoder.mean, spec.encoder.std))
    return (patches / 255 - mean) / std


def apart(ours: Tensor, theirs: Tensor, spec: vlmkit.Architecture) -> float:
    """The greatest difference of pixels, in steps of 8 bits."""
    assert ours.shape == theirs.shape
    std = torch.tensor(spec.encoder.std).repeat_interleave(ours.shape[1] // 3)
    return float(((normalised(ours, spec) - theirs) * std * 255).abs().max())


def exported_processor(system: System, spec: vlmkit.Architecture, processor: VLMProcessor) -> Any:
    """The reference's processor of what vlmkit writes."""
    made = family_of(reference_of(system).model.config.model_type).processor(spec, processor)
    kind = reference_of(system).processor.image_processor
    settings = written(made)
    made.image_processor = type(kind).from_dict(settings["image_processor"])
    return made


def values_of(walked: Walked, part: str, field: str) -> list[Any]:
    first = part.split("+")[0]
    stated = (walked.settings[first] if first else walked.settings).get(field)
    # Pillow adds up roundings, which decide where a pixel's centre lies between two of a picture that was resized before.
    undecided = (0,) if field == "resample" and reference_of(walked.system).processor.image_processor.backend == "pil" else ()
    # How a film lies in memory that is handed over as an array. vlmkit looks at its shape.
    given = ("channels_first",) if field == "input_data_format" and part == "video_processor" else ()
    return [value for value in VALUES[field] if value != stated and value not in (*undecided, *given)]


def walk(
    walked: Walked,
    part: str,
    compare: Callable[[Walked, Any, vlmkit.Architecture], bool],
    compare_exported: Callable[[Walked, Any, Any, vlmkit.Architecture], None],
    only: str | None = None,
) -> set[tuple[str, str]]:
    """Changes each field of a part of the processor to other values, and says what became of them. Fails with all that breaks the law.

    compare: (walked, the reference's processor, what vlmkit read of it), False where the reference serves nothing. compare_exported: the
    same, with the processor that vlmkit wrote behind the reference's. only: the one field that is changed.
    """
    wrong, seen, reference = [], set(), reference_of(walked.system)
    unchanged = architecture_of(reference, reference.processor)
    for field in walked.fields(part) if only is None else [only]:
        for value in values_of(walked, part, field):
            try:
                theirs = walked.changed(part, field, value)
            except Exception:
                continue  # The reference itself cannot be made.
            try:
                spec = architecture_of(reference, theirs)
                if not compare(walked, theirs, spec):
                    assert (walked.system.tiny, field) in CALLERS, "the reference serves nothing, and vlmkit does not refuse it"
                if spec != unchanged:
                    ours = VLMProcessor(theirs.tokenizer, architecture=spec.to_dict())
                    compare_exported(walked, theirs, exported_processor(walked.system, spec, ours), spec)
                seen.add((field, "without effect" if spec == unchanged else "honoured"))
            except vlmkit.SpecError as error:
                seen.add((field, "refused"))
                if field not in str(error):
                    wrong.append(f"{field}={value}: refused without its name: {error}")
            except Exception as error:
                wrong.append(f"{field}={value}: {type(error).__name__}: {str(error)[:300]}")
    assert not wrong, "\n".join(wrong)
    return seen
