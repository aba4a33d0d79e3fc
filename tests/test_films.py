"""Films through every named tiny model: what is counted is what is laid out, and logits move with the film."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

import vlmkit
from tests.films import write
from vlmkit.features import GridError
from vlmkit.layout.laid_out import LayoutError
from vlmkit.preprocess import ImageError, open_video
from vlmkit.preprocess.images import open_image

TINY = vlmkit.list_models("*tiny*")
NO_FILMS = ("llama-3.2-vision-tiny",)
"""Its tower reads the tiles of one picture together."""
FRAMES, SIZE = 20, vlmkit.Size(60, 90)
SAMPLING = {"frames": 5, "multiple": 1, "spread": "starts"}


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("films") / "film.mp4", FRAMES, height=SIZE.height, width=SIZE.width)


def asked(*media: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"role": "user", "content": [*media, {"type": "text", "text": "What happens?"}]}]


def by_frame(name: str) -> bool:
    """Whether each frame is a picture to the model, so that nothing but the text around pictures may differ."""
    return not vlmkit.architecture(name).encoder.clips


@pytest.mark.parametrize("name", [name for name in TINY if name not in NO_FILMS])
def test_a_film_is_counted_laid_out_and_seen(name: str, film: Path) -> None:
    spec, processor = vlmkit.architecture(name), vlmkit.build_processor(name)
    batch = processor([asked({"type": "video", "video": str(film)})])
    clip = vlmkit.Clip(FRAMES / 30, 30, SIZE)
    assert open_video(film).clip == clip
    shown = batch["visual_index"][batch["visual_index"] >= 0].tolist()
    assert sorted(shown) == sorted(set(shown))
    # Tokens of crops that overlap are laid side by side again, row by row, and stand in another order than the views.
    assert shown == sorted(shown) or spec.layout.kind == "stitched_rows"
    placed = len(shown) + int((batch["learned_index"] >= 0).sum() if "learned_index" in batch else 0)
    if spec.layout.looked_at:
        placed = spec.image_tokens(spec.plan_clip(clip)).count
    dropped = spec.layout.unchanged is not None
    assert placed == spec.tokens(clip=clip) or (dropped and 0 < placed < spec.tokens(clip=clip))
    model = vlmkit.build(name, seed=0).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.15, generator=torch.Generator().manual_seed(parameter.numel()))
        seen = model(**batch).logits
        other = batch["pixel_values"].flip(0)
        moved = (model(**{**batch, "pixel_values": other}).logits - seen).abs().max()
    assert seen.isfinite().all()
    assert moved > 1e-4


@pytest.mark.parametrize("name", [name for name in TINY if by_frame(name) and name not in NO_FILMS])
def test_a_tower_of_pictures_sees_the_pixels_of_the_frames(name: str, film: Path) -> None:
    processor = vlmkit.build_processor(name)
    video = open_video(film)
    frames = list(video.at([number / 30 for number in (0, 4, 8, 12, 16)]))
    whole = processor([asked({"type": "video", "video": str(film), "sampling": SAMPLING})])
    alone = processor([asked(*({"type": "image", "image": frame} for frame in frames))])
    listed = processor([asked({"type": "video", "video": [open_image(frame) for frame in frames]})])
    for name in ("pixel_values", "grids"):
        assert torch.equal(whole[name], alone[name])
        assert torch.equal(whole[name], listed[name])
    # Text may stand around pictures that does not stand around frames; their own tokens and what stands among them is the same.
    places = [batch["visual_index"][batch["visual_index"] >= 0].tolist() for batch in (whole, alone)]
    assert places[0] == places[1]


def test_pictures_and_films_stand_side_by_side(film: Path) -> None:
    processor = vlmkit.build_processor("qwen2-vl-tiny")
    picture = next(open_video(film).at([0.0]))
    media: Sequence[dict[str, Any]] = (
        {"type": "image", "image": picture},
        {"type": "video", "video": film},
        {"type": "image", "image": picture},
    )
    batch = processor([asked(*media)])
    assert [grid[0] for grid in batch["grids"].tolist()] == [1, 2, 1]
    index = batch["visual_index"][batch["visual_index"] >= 0].tolist()
    assert index == list(range(len(index)))
    patches = batch["pixel_values"].view(-1, 3, 2, 14 * 14)
    assert torch.equal(patches[: len(patches) // 4, :, 0], patches[: len(patches) // 4, :, 1]), "a picture is shown twice"


@pytest.mark.parametrize("name", NO_FILMS)
def test_a_tower_of_tiles_says_that_it_takes_no_films(name: str, film: Path) -> None:
    with pytest.raises(GridError, match="takes no films; pass their frames as images"):
        vlmkit.build_processor(name)([asked({"type": "video", "video": film})])


def test_a_film_that_cannot_be_read_says_so(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"no film")
    processor = vlmkit.build_processor("univa-vl-tiny")
    with pytest.raises(ImageError, match="expected a complete film"):
        processor([asked({"type": "video", "video": tmp_path / "a.mp4"})])
    with pytest.raises(LayoutError, match="a video file states its frames a second itself"):
        processor([asked({"type": "video", "video": "a.mp4", "fps": 2})])


def test_tokens_of_a_clip_or_an_image() -> None:
    univa = vlmkit.architecture("univa-vl")
    clip = vlmkit.Clip(20, 30, vlmkit.Size(1080, 1920))
    assert univa.tokens(clip=clip) == 40 * univa.tokens(clip.size)
    assert univa.replace(sampling={"fps": 1.0}).tokens(clip=clip) == 20 * univa.tokens(clip.size)
    with pytest.raises(vlmkit.ImageSizeError, match="or of a clip, not of both"):
        univa.tokens(clip.size, clip=clip)
    with pytest.raises(vlmkit.ImageSizeError, match="expected a clip such as"):
        univa.tokens(clip=clip.size)
