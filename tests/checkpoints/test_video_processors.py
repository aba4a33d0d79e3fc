"""Video processors of published directories, field by field: each is honoured to the pixel, without effect, or refused by name."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from families import qwen2_vl, videollama3
from families.tiny import picture
from torch import Tensor

import vlmkit
from tests.checkpoints.fields import Walked, apart, walk
from vlmkit.checkpoints.image_processors import NORMALISED
from vlmkit.processor import VLMProcessor

SYSTEMS = {"qwen2-vl": qwen2_vl.QWEN2_VL, "videollama3": videollama3.SYSTEMS[0]}
FILMS = tuple(np.stack([np.array(picture(60, 90, seed + number)) for number in range(frames)]) for seed, frames in ((0, 9), (20, 4)))
RATE = 2.0


@pytest.fixture(scope="module", params=SYSTEMS, ids=str)
def walked(request: pytest.FixtureRequest) -> Walked:
    return Walked.of(SYSTEMS[request.param])


def asked(film: Any, processor: Any) -> list[dict[str, Any]]:
    """A question about a film, of which every frame is shown where the processor does not choose."""
    every = {} if processor.video_processor.do_sample_frames else {"sampling": {"frames": len(film), "multiple": 1, "spread": "starts"}}
    item = {"type": "video", "video": film, "fps": RATE} | every
    return [{"role": "user", "content": [item, {"type": "text", "text": "What?"}]}]


def by_transformers(film: Any, processor: Any) -> tuple[list[int], Tensor] | None:
    """Ids, and patches row by row; None for a film that it does not serve."""
    text = processor.apply_chat_template(asked(film, processor), add_generation_prompt=True, tokenize=False)
    metadata = [{"fps": RATE, "total_num_frames": len(film), "frames_indices": list(range(len(film)))}]
    try:
        inputs = processor(text=text, videos=[film], video_metadata=metadata, return_tensors="pt")
    except Exception:
        return None
    (frames, rows, columns), merge = inputs["video_grid_thw"][0].tolist(), processor.video_processor.merge_size
    blocks = inputs["pixel_values_videos"].view(frames, rows // merge, columns // merge, merge, merge, -1)
    return inputs["input_ids"][0].tolist(), blocks.transpose(2, 3).flatten(0, 4)


def compare(walked: Walked, theirs: Any, spec: vlmkit.Architecture) -> bool:
    ours, served = VLMProcessor(theirs.tokenizer, architecture=spec.to_dict()), False
    for film in FILMS:
        expected = by_transformers(film, theirs)
        if expected is None:
            continue
        batch = ours([asked(film, theirs)], add_generation_prompt=True)
        assert batch["input_ids"][0].tolist() == expected[0], f"ids of {len(film)} frames"
        assert apart(batch["pixel_values"], expected[1], spec) <= 2.01, f"pixels of {len(film)} frames"
        served = True
    return served


def compare_exported(walked: Walked, theirs: Any, exported: Any, spec: vlmkit.Architecture) -> None:
    # VideoLLaMA 3's shows all frames that it is given, or so many a second: which of both, its caller says.
    exported.video_processor.do_sample_frames = theirs.video_processor.do_sample_frames
    expected, found = (by_transformers(FILMS[0], processor) for processor in (theirs, exported))
    if expected is not None:
        assert found is not None
        assert found[0] == expected[0]
        assert torch.allclose(found[1], expected[1], rtol=1e-4, atol=1e-4)


def test_every_field_is_honoured_or_without_effect_or_refused_by_name(walked: Walked) -> None:
    walk(walked, "video_processor", compare, compare_exported)
    assert len(walked.fields("video_processor")) == {"qwen2-vl-tiny": 31, "videollama3-tiny": 30}[walked.system.tiny]


def test_fields_that_images_and_films_share_are_honoured_where_both_state_them(walked: Walked) -> None:
    seen = walk(walked, "image_processor+video_processor", compare, compare_exported)
    assert {(name, "honoured") for name in NORMALISED} <= seen


@pytest.mark.parametrize("chosen", [{"fps": 1, "min_frames": 2}, {"fps": 0.5}, {"num_frames": 2}, {"fps": 2, "max_frames": 4}], ids=str)
def test_frames_that_a_processor_chooses_are_chosen_alike(walked: Walked, chosen: dict[str, Any]) -> None:
    """By a number of frames and by frames a second, within bounds of its own."""
    videos = walked.settings["video_processor"] | chosen
    told = Walked(walked.system, {**walked.settings, "video_processor": videos})
    seen = walk(told, "video_processor", compare, compare_exported, only="do_sample_frames")
    assert seen == {("do_sample_frames", "honoured")}
