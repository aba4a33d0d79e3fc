"""Films of Qwen2-VL beside transformers' video processor and model: ids, pixels, positions, logits and answers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from einops import rearrange
from families.qwen2_vl import reference
from families.system import Reference
from families.tiny import picture
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor

import vlmkit
from tests.films import write
from vlmkit.checkpoints import export
from vlmkit.layout.jinja_template import JinjaTemplate
from vlmkit.model import VLM
from vlmkit.preprocess.geometry import Clip, Size
from vlmkit.processor import VLMProcessor

Frames = NDArray[np.uint8]


def film(frames: int, height: int, width: int, seed: int = 0) -> Frames:
    """(F, H, W, 3)"""
    return np.stack([np.array(picture(height, width, seed + number)) for number in range(frames)])


def asked(*media: Any) -> list[dict[str, Any]]:
    """A question about films and pictures; every frame of a film is shown."""
    content: list[dict[str, Any]] = []
    for medium in media:
        if isinstance(medium, np.ndarray):
            every = {"frames": len(medium), "multiple": 1, "spread": "starts"}
            content.append({"type": "video", "video": medium, "fps": 2.0, "sampling": every})
        else:
            content.append({"type": "image", "image": medium})
    return [{"role": "user", "content": [*content, {"type": "text", "text": "What?"}]}]


def by_transformers(reference: Reference, row: list[dict[str, Any]]) -> dict[str, Tensor]:
    text = reference.processor.apply_chat_template(row, add_generation_prompt=True, tokenize=False)
    content = row[0]["content"]
    films = [item["video"] for item in content if item["type"] == "video"]
    images = [item["image"] for item in content if item["type"] == "image"]
    metadata = [{"fps": 2.0, "total_num_frames": len(shown), "frames_indices": list(range(len(shown)))} for shown in films]
    return dict(reference.processor(text=text, images=images or None, videos=films, video_metadata=metadata, return_tensors="pt"))


def in_rows(inputs: dict[str, Tensor]) -> Tensor:
    """transformers' patches of films, which go by blocks of 2x2, row by row."""
    sizes = inputs["video_grid_thw"]
    pieces = inputs["pixel_values_videos"].split(sizes.prod(dim=1).tolist())
    return torch.cat(
        [
            rearrange(piece, "(f h w dh dw) c -> (f h dh w dw) c", f=frames, h=rows // 2, w=columns // 2, dh=2, dw=2)
            for piece, (frames, rows, columns) in zip(pieces, sizes.tolist(), strict=True)
        ]
    )


@pytest.fixture(scope="module")
def theirs() -> Reference:
    return reference()


@pytest.fixture(scope="module")
def ours(theirs: Reference, tmp_path_factory: pytest.TempPathFactory) -> tuple[VLM, VLMProcessor]:
    return theirs.taken_over(tmp_path_factory.mktemp("qwen2_vl"))


def test_pixels_and_token_ids_are_the_references(theirs: Reference, ours: tuple[VLM, VLMProcessor]) -> None:
    """Films of 1 to 7 frames of any size, an odd one filled up with its last frame."""
    model, processor = ours
    side = st.integers(8, 300)

    @settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.integers(1, 7), side, side, st.integers(0, 2**16))
    def compare(frames: int, height: int, width: int, seed: int) -> None:
        row = asked(film(frames, height, width, seed))
        inputs, batch = by_transformers(theirs, row), processor([row], add_generation_prompt=True)
        assert batch["input_ids"].tolist() == inputs["input_ids"].tolist()
        assert batch["grids"].tolist() == inputs["video_grid_thw"].tolist()
        std = torch.tensor(model.spec.encoder.std).repeat_interleave(model.spec.encoder.values // 3)
        apart = (model.encoder.normalise(batch["pixel_values"]) - in_rows(inputs)) * std * 255
        assert float(apart.abs().max()) <= 0.01

    compare()


MEDIA: dict[str, list[Any]] = {
    "two frames": [film(2, 60, 90)],
    "an odd number of frames": [film(5, 90, 60)],
    "a film between two pictures": [picture(40, 52), film(4, 60, 90), picture(64, 33, 5)],
    "two films": [film(3, 60, 90), film(4, 40, 40, 9)],
}


@pytest.mark.parametrize("media", MEDIA.values(), ids=MEDIA)
def test_positions_logits_and_answers_are_the_references(theirs: Reference, ours: tuple[VLM, VLMProcessor], media: list[Any]) -> None:
    model, processor = ours
    row = asked(*media)
    inputs, batch = by_transformers(theirs, row), processor([row], add_generation_prompt=True)
    assert batch["input_ids"].tolist() == inputs["input_ids"].tolist()
    grids = {name: inputs.get(name) for name in ("image_grid_thw", "video_grid_thw")}
    wanted, _ = theirs.model.model.get_rope_index(inputs["input_ids"], inputs["mm_token_type_ids"], **grids)
    assert batch["position_ids"].tolist() == wanted.tolist()
    with torch.no_grad():
        expected = theirs.model(**inputs).logits
        assert float((model(**batch).logits - expected).abs().max()) < 1e-4  # measured 3e-6
        moved = asked(*(255 - medium if isinstance(medium, np.ndarray) else medium for medium in media))
        assert float((model(**processor([moved], add_generation_prompt=True)).logits - expected).abs().max()) > 1e-2
    limit = {"max_new_tokens": 6, "do_sample": False}
    answers = [made.generate(**given, **limit)[0, -6:].tolist() for made, given in ((theirs.model, inputs), (model, batch))]
    assert answers[0] == answers[1]


def test_a_count_is_known_before_anything_is_read(ours: tuple[VLM, VLMProcessor]) -> None:
    model, processor = ours
    shown = film(6, 90, 120)
    item = {"type": "video", "video": shown, "fps": 1.0}
    batch = processor([[{"role": "user", "content": [item, {"type": "text", "text": "?"}]}]])
    placed = int((batch["visual_index"] >= 0).sum())
    assert model.spec.tokens(clip=Clip(seconds=6, fps=1.0, size=Size(90, 120))) == placed > 0


def test_bounds_of_films_come_back_from_an_export(tmp_path: Path) -> None:
    arch = vlmkit.architecture("qwen2-vl-tiny")
    arch = arch.replace(policy=arch.policy.replace(clip=arch.policy.clip.replace(total_pixels=115_200 * 28 * 28, whole=True)))
    export(vlmkit.build(arch), vlmkit.build_processor(arch, tokenizer=reference().processor.tokenizer), tmp_path)
    assert vlmkit.load(tmp_path)[0].spec.policy == arch.policy


def test_tarsier2_shows_sixteen_moments_each_as_a_patch_of_its_own(tmp_path: Path, ours: tuple[VLM, VLMProcessor]) -> None:
    """A patch holds two frames; of a moment that is shown twice they are one, as of a picture."""
    tarsier = vlmkit.architecture("tarsier2-7b")
    clip = Clip(seconds=20, fps=30, size=Size(720, 1280))
    assert tarsier.plan_clip(clip).views[0] == Size(504, 896), "of up to 460,800 pixels"
    assert tarsier.tokens(clip=clip) == 16 * 18 * 32
    path = tmp_path / "film.mp4"
    write(path, frames=40, height=64, width=96)
    processor = vlmkit.build_processor(ours[0].spec.replace(sampling=tarsier.sampling), tokenizer=ours[1].tokenizer)
    items: list[dict[str, Any]] = [{"type": "video", "video": path}, {"type": "video", "video": film(40, 64, 96), "fps": 30.0}]
    for item in items:
        batch = processor([[{"role": "user", "content": [item, {"type": "text", "text": "?"}]}]])
        assert batch["grids"][:, 0].tolist() == [16]
        first, second = batch["pixel_values"].unflatten(1, (3, 2, -1)).unbind(2)
        assert torch.equal(first, second)
        moments = first.unflatten(0, (16, -1))
        assert not torch.equal(moments[0], moments[-1])


def test_bounds_of_frames_alone_are_exported_too(tmp_path: Path) -> None:
    arch = vlmkit.architecture("qwen2-vl-tiny").replace(policy=vlmkit.architecture("tarsier2-7b").policy)
    export(vlmkit.build(arch), vlmkit.build_processor(arch, tokenizer=reference().processor.tokenizer), tmp_path)
    assert vlmkit.load(tmp_path)[0].spec.policy == arch.policy


def test_a_chat_template_of_the_directory_places_films_and_pictures(tmp_path: Path) -> None:
    told = reference()
    told.processor.chat_template = (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{% for c in m.content %}{% if c.type == 'image' %}Picture: <|vision_start|>"
        "<|image_pad|><|vision_end|>{% elif c.type == 'video' %}Film: <|vision_start|><|video_pad|><|vision_end|>{% else %}"
        "{{ c.text | trim }}{% endif %}{% endfor %}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    _, processor = told.taken_over(tmp_path)
    assert isinstance(processor.spec.layout.template, JinjaTemplate)
    for row in (asked(film(4, 56, 56)), asked(picture(40, 52), film(6, 56, 84), picture(64, 33)), asked(film(4, 56, 56), film(2, 84, 56))):
        assert torch.equal(processor(row)["input_ids"], by_transformers(told, row)["input_ids"])
