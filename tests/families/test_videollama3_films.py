"""Films of VideoLLaMA 3 beside transformers' video processor and model: sizes, frames, times, what is left out, logits."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from families.system import Reference
from families.tiny import picture
from families.videollama3 import reference
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor

import vlmkit
from vlmkit.model import VLM
from vlmkit.preprocess.geometry import Clip, Size
from vlmkit.processor import VLMProcessor

Frames = NDArray[np.uint8]


def film(frames: int, height: int, width: int, seed: int = 0) -> Frames:
    """(F, H, W, 3): of three frames one is new, one is new in a corner, one is the frame before again."""
    rng = np.random.default_rng(seed)
    shown = [np.array(picture(height, width, seed))]
    for number in range(1, frames):
        new = np.array(picture(height, width, seed + number))
        kind = rng.integers(3)
        before = shown[-1].copy()
        if kind == 1:
            before[: height // 2, : width // 2] = new[: height // 2, : width // 2]
        shown.append(new if kind == 0 else before)
    return np.stack(shown)


def asked(frames: Frames, fps: float, sampling: dict[str, Any] | None = None) -> list[dict[str, Any]]:
    item = {"type": "video", "video": frames, "fps": fps} | ({} if sampling is None else {"sampling": sampling})
    return [{"role": "user", "content": [item, {"type": "text", "text": "What?"}]}]


def every_frame(frames: Frames) -> dict[str, Any]:
    return {"frames": len(frames), "multiple": 1, "spread": "starts"}


def by_transformers(reference: Reference, films: list[Frames], rate: float, **options: Any) -> dict[str, Tensor]:
    """What transformers' processor makes of a question about films of `rate` frames a second."""
    text = f"<|im_start|>user\n{'<|video_pad|>' + chr(10) if films else ''}What?<|im_end|>\n<|im_start|>assistant\n"
    metadata = [{"fps": rate, "total_num_frames": len(frames), "frames_indices": list(range(len(frames)))} for frames in films]
    found: dict[str, Tensor] = reference.processor(text=text, videos=films, video_metadata=metadata, return_tensors="pt", **options)
    return found


def in_rows(inputs: dict[str, Tensor]) -> Tensor:
    """transformers' patches of a film, merge x merge of a token one behind the other, row by row."""
    (frames, rows, columns), merge = inputs["video_grid_thw"][0].tolist(), 2
    blocks = inputs["pixel_values_videos"].view(frames, rows // merge, columns // merge, merge, merge, -1)
    return blocks.transpose(2, 3).flatten(0, 4)


@pytest.fixture(scope="module")
def theirs() -> Reference:
    return reference()


@pytest.fixture(scope="module")
def ours(theirs: Reference, tmp_path_factory: pytest.TempPathFactory) -> tuple[VLM, VLMProcessor]:
    return theirs.taken_over(tmp_path_factory.mktemp("videollama3"))


def test_pixels_and_token_ids_are_the_references(theirs: Reference, ours: tuple[VLM, VLMProcessor]) -> None:
    """Films of 1 to 7 frames of any size. Measured: no pixel differs, in 8 bits."""
    model, processor = ours
    side = st.integers(8, 400)
    left_out = 0

    @settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.integers(1, 7), side, side, st.sampled_from([1.0, 2.0, 29.97]), st.integers(0, 2**16))
    def compare(frames: int, height: int, width: int, fps: float, seed: int) -> None:
        nonlocal left_out
        shown = film(frames, height, width, seed)
        inputs = by_transformers(theirs, [shown], fps)
        batch = processor([asked(shown, fps, every_frame(shown))], add_generation_prompt=True)
        assert batch["input_ids"].tolist() == inputs["input_ids"].tolist()
        expected = in_rows(inputs)
        found = model.encoder.normalise(batch["pixel_values"])[: len(expected)]
        assert float(((found - expected) * 0.5 * 255).abs().max()) <= 0.01
        left_out += int((~inputs["video_compression_mask"]).sum())

    compare()
    assert left_out > 0


@pytest.mark.parametrize("frames", [1, 2, 5])
def test_logits_and_answers_are_the_references(theirs: Reference, ours: tuple[VLM, VLMProcessor], frames: int) -> None:
    """Measured 2e-6, allowed 1e-4."""
    model, processor = ours
    shown = film(frames, 60, 90, seed=4)
    inputs = by_transformers(theirs, [shown], 2.0)
    batch = processor([asked(shown, 2.0, every_frame(shown))], add_generation_prompt=True)
    with torch.no_grad():
        expected = theirs.model(**inputs).logits
        assert float((model(**batch).logits - expected).abs().max()) < 1e-4
        moved = model(**processor([asked(255 - shown, 2.0, every_frame(shown))], add_generation_prompt=True)).logits
    assert moved.shape == expected.shape
    assert float((moved - expected).abs().max()) > 1e-2
    limit = {"max_new_tokens": 6, "do_sample": False}
    answers = [made.generate(**given, **limit)[0, -6:].tolist() for made, given in ((theirs.model, inputs), (model, batch))]
    assert answers[0] == answers[1]


def test_a_film_beside_a_picture_and_words_is_the_film_alone(ours: tuple[VLM, VLMProcessor]) -> None:
    """Of three frames and of one; padded and packed. Measured 2e-6."""
    model, processor = ours
    answer = {"role": "assistant", "content": "A film."}
    still = [{"role": "user", "content": [{"type": "image", "image": picture(50, 70)}, {"type": "text", "text": "And?"}]}, answer]
    words = [{"role": "user", "content": "Who are you?"}, answer]
    for frames in (3, 1):
        shown = film(frames, 60, 90, seed=frames)
        row = [*asked(shown, 1.0, every_frame(shown)), answer]
        with torch.no_grad():
            alone = model(**processor([row])).logits[0]
            beside = model(**processor([still, row, words])).logits[1, : len(alone)]
            packed = model(**processor([still, row, words], pack=True)).logits[0]
        start = len(processor([still])["input_ids"][0])
        assert float((beside - alone).abs().max()) < 1e-4
        assert float((packed[start : start + len(alone)] - alone).abs().max()) < 1e-4


@pytest.mark.parametrize(("total", "fps"), [(3, 1.0), (40, 8.0), (90, 30.0), (250, 1.0)])
def test_frames_are_chosen_as_transformers_chooses_them(theirs: Reference, ours: tuple[VLM, VLMProcessor], total: int, fps: float) -> None:
    """One a second, four at least, 180 at most."""
    _, processor = ours
    shown = np.repeat(film(10, 12, 16), total // 10 + 1, axis=0)[:total]
    inputs = by_transformers(theirs, [shown], fps, do_sample_frames=True, fps=1)
    batch = processor([asked(shown, fps)], add_generation_prompt=True)
    assert batch["grids"][0, 0].item() == inputs["video_grid_thw"][0, 0].item()
    assert batch["input_ids"].tolist() == inputs["input_ids"].tolist()


def test_a_count_is_that_of_a_film_in_which_everything_changes(ours: tuple[VLM, VLMProcessor]) -> None:
    model, processor = ours
    arch = model.config.spec
    whole = vlmkit.build_processor(arch.replace(layout=arch.layout.replace(drop_unchanged=None)), tokenizer=processor.tokenizer)
    for seconds, fps, height, width in ((6, 2.0, 90, 60), (0.5, 2.0, 40, 70)):
        clip = Clip(seconds, fps, Size(height, width))
        batch = whole([asked(film(clip.frames, height, width), fps)], add_generation_prompt=True)
        assert int((batch["visual_index"] >= 0).sum()) == arch.tokens(clip=clip)
    published = vlmkit.architecture("videollama3-7b")
    assert published.tokens(clip=Clip(20, 30, Size(1080, 1920))) == 20 * 19 * 42


def test_films_train(theirs: Reference) -> None:
    """Tokens that are left out are encoded and get no gradient; everything that learns does."""
    model = vlmkit.build("videollama3-tiny", seed=0).train()
    processor = vlmkit.build_processor("videollama3-tiny", tokenizer=theirs.processor.tokenizer)
    answer = {"role": "assistant", "content": "A film."}
    rows = [[*asked(shown, 1.0, every_frame(shown)), answer] for shown in (film(4, 60, 90, seed=1), film(1, 40, 40))]
    batch = processor(rows)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    losses = []
    for _ in range(3):
        loss = model(**batch).loss
        loss.backward()
        still = [name for name, parameter in model.named_parameters() if parameter.grad is None or not bool(parameter.grad.any())]
        assert still == []
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
