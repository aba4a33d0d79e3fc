"""The contact sheet: one cell for models that cut alike, every word in its place, every view as the encoder gets it."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageDraw

import vlmkit
from tests.photos import photo
from vlmkit import page, sheet
from vlmkit.commands.tokens import image_tokens
from vlmkit.preprocess.geometry import Size
from vlmkit.sheet import CELL_WIDTH, GAP, MARGIN, PICTURE_HEIGHT, Cut, alike, draw_sheet, picture, wrapped
from vlmkit.show import see

MODELS = [vlmkit.architecture(name) for name in vlmkit.list_models()]


def cuts_of(size: Size) -> list[Cut]:
    return alike([(model, image_tokens(model, size)) for model in MODELS])


@pytest.mark.parametrize("size", [Size(400, 600), Size(300, 300), Size(7, 900), Size(1, 1)], ids=str)
def test_every_model_is_in_one_cell_and_models_of_a_cell_see_the_same(size: Size) -> None:
    cuts = cuts_of(size)
    assert sorted(name for cut in cuts for name in cut.names) == vlmkit.list_models()
    pixels = np.asarray(Image.fromarray(photo("coffee")).resize((size.width, size.height)))
    for cut in cuts:
        if isinstance(cut.tokens, str):
            continue
        first, *others = (see(pixels, model) for model in cut.models)
        for other in others:
            assert first.tokens == other.tokens
            assert all(np.array_equal(one, two) for one, two in zip(first.views, other.views, strict=True))


def test_models_that_differ_in_what_the_encoder_gets_are_apart() -> None:
    base = vlmkit.architecture("univa-vl")
    squash = vlmkit.policies["squash"]
    models = [
        base.replace(name="bicubic", policy=squash(size=392)),
        base.replace(name="bilinear", policy=squash(size=392, resample="bilinear")),
        base.replace(name="sharp", policy=squash(size=392, antialias=False)),
        base.replace(name="mlp", policy=squash(size=392), connector="mlp"),
        base.replace(name="the same", policy=squash(size=392)),
    ]
    cuts = alike([(model, image_tokens(model, Size(300, 400))) for model in models])
    assert [cut.names for cut in cuts] == [["mlp"], ["bicubic", "the same"], ["bilinear"], ["sharp"]], "most tokens first"


def test_models_that_refuse_the_image_come_last_with_their_reason() -> None:
    cuts = cuts_of(Size(3, 1000))
    refused = [cut for cut in cuts if isinstance(cut.tokens, str)]
    assert refused == cuts[len(cuts) - len(refused) :]
    (univa,) = (cut for cut in refused if "univa-vl" in cut.names)
    assert "aspect ratios up to 200" in str(univa.tokens)


@pytest.mark.parametrize("size", [Size(400, 600), Size(900, 60), Size(3, 1000), Size(2, 2)], ids=str)
def test_text_fits_its_cell_and_nothing_reaches_into_the_margins(size: Size, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[tuple[int, str]] = []

    def recorded(pen: ImageDraw.ImageDraw, left: int, top: int, text: str, size: int, *rest: object, bold: bool = False) -> None:
        written.append((page.text_width(text, size, bold=bold), text))
        page.write_text(pen, left, top, text, size, *rest, bold=bold)

    monkeypatch.setattr(sheet, "write_text", recorded)
    cuts = cuts_of(size)
    pixels = np.asarray(Image.fromarray(photo("coffee")).resize((size.width, size.height)))
    drawn = draw_sheet(pixels, cuts, "a photograph.jpg")
    assert max(written)[0] <= CELL_WIDTH, max(written)
    words = " ".join(text for _, text in written)
    assert all(name in words for name in vlmkit.list_models()), "every name is written out"
    columns = min(4, len(cuts) + 1)
    assert drawn.width == 2 * MARGIN + columns * CELL_WIDTH + (columns - 1) * GAP
    ink = (np.asarray(drawn) != 255).any(axis=2)
    assert not ink[:, : MARGIN - 2].any(), "a j reaches out by a pixel"
    for number in range(1, columns + 1):
        right = MARGIN + number * (CELL_WIDTH + GAP)
        assert not ink[:, right - GAP : right - 2].any(), f"after column {number}"
    assert not ink[: MARGIN - 8].any()
    assert not ink[-MARGIN + 1 :].any()


@pytest.mark.parametrize("name", vlmkit.list_models())
@pytest.mark.parametrize("size", [Size(400, 600), Size(60, 900), Size(900, 60)], ids=str)
def test_the_picture_of_a_cell_is_as_large_as_fits(name: str, size: Size) -> None:
    model = vlmkit.architecture(name)
    if isinstance(image_tokens(model, size), str):
        pytest.skip("refused")
    pixels = np.asarray(Image.fromarray(photo("coffee")).resize((size.width, size.height)))
    drawn = picture(see(pixels, model))
    assert drawn.width <= CELL_WIDTH
    assert drawn.height <= PICTURE_HEIGHT
    assert drawn.width > CELL_WIDTH / 2 or drawn.height > PICTURE_HEIGHT / 2


def test_models_of_which_one_leaves_tokens_out_are_apart_and_say_how_many() -> None:
    whole = vlmkit.architecture("llava-1.6-vicuna-7b")
    run = whole.replace(name="whole", layout=vlmkit.layouts["run"](template=whole.layout.template, placeholder="<image>"))
    every, partial = alike([(model, image_tokens(model, Size(480, 640))) for model in (whole, run)])
    assert (partial.names, every.names) == (["llava-1.6-vicuna-7b"], ["whole"])
    assert sheet._words(partial).endswith("each, 576 of 2,880 left out, 36 learned embeddings added")
    assert sheet._words(every).endswith("each")


def test_words_are_wrapped_between_words_only() -> None:
    words = ["a-rather-long-name-of-a-model-7b,"] * 3 + ["b"]
    lines = wrapped(words, 19, bold=True)
    assert " ".join(lines) == " ".join(words)
    assert len(lines) == 3
