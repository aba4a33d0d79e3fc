"""Image processors of published directories, field by field: each is honoured to the pixel, without effect, or refused by name."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from families.llava import reference as llava
from families.registered import SYSTEMS
from families.system import Reference, System, user
from families.tiny import LANGUAGE, VISION, draw, picture
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from torch import Tensor

import vlmkit
from tests.checkpoints.fields import Walked, apart, architecture_of, reference_of, walk
from vlmkit.checkpoints import FAMILIES
from vlmkit.checkpoints.image_processors import NORMALISED
from vlmkit.preprocess.geometry import ImageSizeError, Size
from vlmkit.processor import VLMProcessor

BY_NAME = {system.tiny: system for system in SYSTEMS}
LLAVA = BY_NAME["llava-1.5-tiny"]


def with_clips_processor() -> Reference:
    """LLaVA-1.5 as its checkpoints on the hub are: CLIP's processor, which cuts out the middle."""
    made = llava(transformers.LlamaConfig(**LANGUAGE))
    made.processor.image_processor = transformers.CLIPImageProcessor(size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28})
    return made


WALKED: dict[str, System] = {
    **{system.tiny: system for system in SYSTEMS if system.tiny not in ("bakllava-tiny", "paligemma2-tiny")},
    "llava-clip": replace(LLAVA, tiny="llava-clip", reference=with_clips_processor),
}
"""One system for each class of image processor in each family."""
SIZES = (Size(41, 53), Size(65, 33), Size(28, 28), Size(71, 113))
"""Odd, or not resized: with filter 0 no pixel's centre lies between two, where libraries differ."""
FEW = {"aria-tiny": 1, "paligemma-tiny": 2}
"""How many of them are tried where an image is large."""
COMPOSITE = {
    **dict.fromkeys(("aimv2-tiny", "llava-1.5-tiny", "llava-1.6-tiny", "maya-tiny", "llava-clip"), 3),
    **dict.fromkeys(("aria-tiny", "idefics2-tiny", "idefics2-split-tiny", "idefics3-tiny", "smolvlm-tiny"), 1),
    "janus-tiny": 2,
    **dict.fromkeys(("pixtral-tiny", "mistral3-tiny"), 4),
}
"""Fields of the processors around them, beside parts, templates and the placeholder."""


@pytest.fixture(scope="module", params=WALKED, ids=str)
def walked(request: pytest.FixtureRequest) -> Walked:
    return Walked.of(WALKED[request.param])


def test_every_family_is_walked() -> None:
    assert {reference_of(system).model.config.model_type for system in WALKED.values()} == FAMILIES.keys()


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


def compare(walked: Walked, theirs: Any, spec: vlmkit.Architecture) -> bool:
    """Checks ids and pixels of images; False where the reference serves none."""
    ours = VLMProcessor(theirs.tokenizer, architecture=spec.to_dict())
    served = [compare_one(walked, theirs, ours, size) for size in SIZES[: FEW.get(walked.system.tiny)]]
    return any(served)


def compare_one(walked: Walked, theirs: Any, ours: VLMProcessor, size: Size) -> bool:
    """Checks ids and pixels of an image; False where the reference does not serve it."""
    expected = of_images(walked.system, theirs, size, ours.spec)
    if expected is None:
        return False
    batch = ours([[user("What?", picture(size.height, size.width))]], add_generation_prompt=True)
    assert batch["input_ids"][0].tolist() == expected[0], f"ids of {size}"
    difference = apart(batch["pixel_values"], expected[1], ours.spec)
    assert difference <= 2.01, f"pixels of {size} are {difference} apart"
    return True


def compare_exported(walked: Walked, theirs: Any, exported: Any, spec: vlmkit.Architecture) -> None:
    for size in SIZES[: FEW.get(walked.system.tiny, 2)]:
        expected, found = (of_images(walked.system, processor, size, spec) for processor in (theirs, exported))
        if expected is not None:
            assert found is not None
            assert found[0] == expected[0], f"ids of {size} after an export"
            assert torch.allclose(found[1], expected[1], rtol=1e-4, atol=1e-4), f"pixels of {size} after an export"


@pytest.mark.parametrize("part", ["image_processor", ""], ids=["image_processor", "processor"])
def test_every_field_is_honoured_or_without_effect_or_refused_by_name(walked: Walked, part: str) -> None:
    seen = walk(walked, part, compare, compare_exported)
    taken = len(reference_of(walked.system).processor.image_processor.valid_kwargs.__annotations__)
    if part:
        assert len(walked.fields(part)) == taken + (walked.system.tiny == "janus-tiny") >= 20
        filmed = hasattr(reference_of(walked.system).processor, "video_processor") and walked.system.tiny != "smolvlm-tiny"
        assert {(name, "refused" if filmed else "honoured") for name in NORMALISED} <= seen
    else:
        assert len(walked.fields(part)) == COMPOSITE.get(walked.system.tiny, 0)


def test_thin_images_are_served_where_the_reference_serves_them(walked: Walked) -> None:
    """And refused with both numbers where it refuses them."""
    theirs = reference_of(walked.system).processor
    ours = VLMProcessor(theirs.tokenizer, architecture=architecture_of(reference_of(walked.system), theirs).to_dict())

    @settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.integers(1, 4), st.integers(1, 3000), st.booleans())
    @example(1, 1, False)
    @example(1, 700, False)
    @example(3, 2000, True)
    def serve(short: int, long: int, tall: bool) -> None:
        size = Size(long, short) if tall else Size(short, long)
        if not compare_one(walked, theirs, ours, size):
            with pytest.raises(ImageSizeError, match=rf"an image of {size} \(height x width\) has "):
                ours([[user("What?", picture(size.height, size.width))]], add_generation_prompt=True)

    serve()


@pytest.mark.parametrize(
    "stated",
    [
        {"do_rescale": False},
        {"do_normalize": False, "rescale_factor": 1 / 127.5},
        {"do_resize": False},
        {"size": {"height": 40, "width": 30}},
        {"do_center_crop": False, "size": {"height": 28, "width": 28}},
    ],
    ids=str,
)
def test_a_directory_that_states_it_gives_the_references_logits(stated: dict[str, Any], tmp_path: Path) -> None:
    """From the files on. Measured 2e-6."""
    reference = with_clips_processor()
    for name, value in stated.items():
        setattr(reference.processor.image_processor, name, value)
    model, processor = reference.taken_over(tmp_path)
    theirs = reference.read_processor(transformers.AutoProcessor, tmp_path)
    seen = []
    for seed, size in enumerate(SIZES[:2]):
        row = [user("What?", picture(size.height, size.width, seed))]
        with torch.no_grad():
            expected = reference.model(**reference.inputs(theirs, row)).logits
            found = model(**processor([row], add_generation_prompt=True)).logits
        seen.append(found[0, -1])

        assert torch.allclose(found, expected, rtol=1e-4, atol=1e-4)
    assert float((seen[0] - seen[1]).abs().max()) > 1e-2


def test_what_fills_no_patch_is_left_out_as_the_towers_convolution_does(tmp_path: Path) -> None:
    """30 pixels of patches of 14, as SigLIP so400m has 384. Measured 3e-6."""
    made = llava(transformers.LlamaConfig(**LANGUAGE))
    vision = transformers.SiglipVisionConfig(**VISION, image_size=30, patch_size=14, vision_use_head=False)
    text, full = made.model.config.text_config, {"vision_feature_layer": -2, "vision_feature_select_strategy": "full"}
    config = transformers.LlavaConfig(vision_config=vision, text_config=text, image_token_index=263, **full)
    made.processor.image_processor = transformers.SiglipImageProcessor(size={"height": 30, "width": 30})
    made.processor.vision_feature_select_strategy, made.processor.num_additional_image_tokens = "full", 0
    reference = replace(made, model=draw(transformers.LlavaForConditionalGeneration(config)))
    model, processor = reference.taken_over(tmp_path)
    row = [user("What?", picture(41, 53))]
    with torch.no_grad():
        expected = reference.model(**reference.inputs(reference.processor, row)).logits
        assert float((model(**processor([row], add_generation_prompt=True)).logits - expected).abs().max()) < 1e-4
