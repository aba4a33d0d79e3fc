"""Tags that look at their own tiles, and images of which a part is placed and a part is looked at: alone, in batches, in packed rows, from
a cache, and in training."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import vlmkit
from tests.fusion.laws import (
    TOLERANCE,
    a_second_turn_goes_on,
    batched_is_single,
    beams_share,
    cached_is_uncached,
    logits_of,
    packed_is_alone,
)
from tests.tiny import CONVERSATIONS, LANGUAGE_MODELS, PROMPTS, apart, architecture, model, picture, user
from vlmkit.cache_name import CACHE
from vlmkit.fusion.hybrid import Hybrid
from vlmkit.fusion.incoming import FusionError
from vlmkit.model import VLM
from vlmkit.processor import VLMProcessor
from vlmkit.spec import SpecError

FORMS: dict[str, dict[str, str]] = {
    "X": {"layout": "seen_tiles", "fusion": "cross_attention"},
    "H": {"layout": "seen_tiles_beside", "fusion": "hybrid"},
}
every_form = pytest.mark.parametrize("form", FORMS)
every_language = pytest.mark.parametrize("language", LANGUAGE_MODELS)


def made(form: str, language: str = "llama", **parts: Any) -> tuple[VLM, VLMProcessor]:
    chosen = architecture(
        **{"policy": "tiles", "encoder": "intern_vit", "connector": "pixel_shuffle", "language": language, **FORMS[form], **parts}
    )
    chosen = chosen.replace(fusion=chosen.fusion.replace(before=1))
    return model(chosen).eval(), vlmkit.build_processor(chosen)


@every_language
@every_form
def test_batched_is_single_and_packed_is_alone(form: str, language: str) -> None:
    built, processor = made(form, language)
    batched_is_single(built, processor)
    packed_is_alone(built, processor)


@every_language
@every_form
def test_cached_is_uncached_and_images_are_encoded_once(form: str, language: str) -> None:
    cached_is_uncached(*made(form, language))


@every_language
@every_form
def test_beams_share_what_they_look_at(form: str, language: str) -> None:
    beams_share(*made(form, language), num_beams=3)


@every_form
@pytest.mark.parametrize("first", [5, -2], ids=["images come later", "images come first"])
def test_a_cache_that_is_handed_on_by_hand_keeps_what_is_looked_at(form: str, first: int) -> None:
    built, processor = made(form)
    prompt = processor(PROMPTS[0])
    rows = ("input_ids", "position_ids", "visual_index", "visible")
    pixels = {name: prompt[name] for name in ("pixel_values", "grids", "tags") if name in prompt}
    length = prompt["input_ids"].shape[1]
    with torch.no_grad():
        whole = built(**prompt).logits
        begun = built(**{name: prompt[name][:, :first] for name in rows}, **pixels)
        assert apart(begun.logits, whole[:, :first]) < TOLERANCE
        for place in (first % length, length - 1):
            step = slice(place, length - 1 if place < length - 1 else None)
            again = pixels if form == "H" and bool((prompt["visual_index"][:, step] >= 0).any()) else {}
            begun = built(**{name: prompt[name][:, step] for name in rows}, **again, **{CACHE: begun[CACHE]})
            assert apart(begun.logits, whole[:, step]) < TOLERANCE


@every_form
def test_a_second_turn_that_adds_an_image_goes_on_from_the_cache_of_the_first(form: str) -> None:
    a_second_turn_goes_on(*made(form))


@every_form
def test_visual_tokens_serve_in_place_of_pixels(form: str) -> None:
    built, processor = made(form)
    batch = processor(PROMPTS)
    options: dict[str, Any] = {"max_new_tokens": 4, "do_sample": False}
    expected = built.generate(**batch, **options)
    given = {name: batch.pop(name) for name in ("pixel_values", "grids", "tags") if name in batch}
    visual = built.get_image_features(**given)
    del given["pixel_values"]
    for use_cache in (True, False):
        assert torch.equal(built.generate(**batch, **given, visual=visual, **options, use_cache=use_cache), expected)


@every_form
def test_every_module_is_called_equally_often_whatever_the_batch_holds(form: str) -> None:
    """Also the embedding of words, which embeds tags. Every parameter learns."""
    built, processor = made(form)
    built.train()
    watched = [built.get_input_embeddings(), *built.fusion.layers, built.connector, built.encoder]
    calls = [0] * len(watched)
    for number, module in enumerate(watched):
        module.register_forward_hook(lambda *unused, number=number: calls.__setitem__(number, calls[number] + 1))
    expected = [2 if form == "H" else 1, *[1] * (len(watched) - 1)]
    for rows in (CONVERSATIONS, CONVERSATIONS[1:2]):
        calls[:] = [0] * len(calls)
        built.zero_grad()
        built(**processor(rows)).loss.backward()
        assert calls == expected
        for name, parameter in built.named_parameters():
            assert parameter.grad is not None, name
            assert torch.isfinite(parameter.grad).all(), name
        if rows is CONVERSATIONS:
            assert all(bool(parameter.grad.abs().max() > 0) for parameter in built.parameters())


def hidden_behind(built: VLM, batch: Any) -> Tensor:
    """(S, D) behind the first cross-attention layer, before which no word has met another."""
    found: list[Tensor] = []
    handle = built.fusion.layers[0].register_forward_hook(lambda module, given, out: found.append(out[0][0]))
    with torch.no_grad():
        built(**batch)
    handle.remove()
    return found[0]


def moved(built: VLM, batch: Any, **changed: Tensor) -> list[int]:
    """Places that are not what they were when a part of the batch is another one."""
    one, other = hidden_behind(built, batch), hidden_behind(built, {**batch, **changed})
    return ((one - other).abs().amax(-1) > 1e-6).nonzero().flatten().tolist()


def place_of(processor: VLMProcessor, batch: Any, text: str) -> range:
    words = [processor.decode([token]) for token in batch["input_ids"][0].tolist()]
    begin = next(at for at in range(len(words)) if "".join(words[at:]).startswith(text))
    return range(begin, begin + len(text))


def test_a_tag_looks_at_its_own_tile_and_words_behind_at_all() -> None:
    """Two tiles and the whole, each changed by itself."""
    built, processor = made("X")
    batch = processor([user("First", picture(50, 100), "what?")])
    assert batch["grids"].tolist() == [[1, 4, 4]] * 3
    end = place_of(processor, batch, "</Image>")
    behind = set(range(end.start, batch["input_ids"].shape[1]))
    for number, tag in enumerate(("<tile_1>", "<tile_2>", "<tile_global_thumbnail>")):
        pixels = batch["pixel_values"].clone()
        pixels[16 * number : 16 * number + 16] = 255 - pixels[16 * number : 16 * number + 16]
        assert set(moved(built, batch, pixel_values=pixels)) == {*place_of(processor, batch, tag), *behind}


def test_the_whole_stands_among_words_its_tiles_and_tags_are_looked_at() -> None:
    built, processor = made("H")
    batch = processor([user("First", picture(50, 100), "what?")])
    start = place_of(processor, batch, "<Image>").start
    from_image_on = set(range(start, batch["input_ids"].shape[1]))
    stands = {at for at, token in enumerate(batch["visual_index"][0].tolist()) if token >= 0}
    assert batch["visual_index"][0, sorted(stands)].tolist() == [8, 9, 10, 11]
    tile, whole, tags = batch["pixel_values"].clone(), batch["pixel_values"].clone(), batch["tags"].clone()
    tile[:16], whole[32:] = 255 - tile[:16], 255 - whole[32:]
    assert set(moved(built, batch, pixel_values=tile)) == from_image_on
    assert set(moved(built, batch, pixel_values=whole)) == stands
    assert tags[2].tolist() == [-1] * tags.shape[1], "the whole has no tag"
    tags[0, 0] += 1
    assert set(moved(built, batch, tags=tags)) == from_image_on


def test_words_behind_an_image_of_one_view_look_at_nothing() -> None:
    built, processor = made("H")
    batch = processor([user(picture(50, 100), "what?", picture(50, 50), "and?")])
    tiles = batch["pixel_values"].clone()
    tiles[:32] = 255 - tiles[:32]
    marks = batch["visible"][0]
    last = marks[-1].tolist()
    assert last[1] < last[0], "nothing, and of the sample everything between"
    assert max(moved(built, batch, pixel_values=tiles)) < len(marks) - 1


@every_form
def test_rows_are_cut_and_carried_on_by_others(form: str) -> None:
    built, processor = made(form)
    own = processor(CONVERSATIONS)
    expected = logits_of(built, own)
    portable = processor(CONVERSATIONS, portable_form=True)
    for mine, found in zip(expected, logits_of(built, portable), strict=True):
        assert apart(mine, found) < TOLERANCE
    for batch in (own, portable):
        for mine, found in zip(expected[2:], logits_of(built, batch[2:]), strict=True):
            assert apart(mine, found) < TOLERANCE


def test_what_went_missing_is_said() -> None:
    built, processor = made("H")
    batch = dict(processor(PROMPTS[:1]))
    with pytest.raises(FusionError, match="fusion 'hybrid' needs tags"):
        built(**{name: value for name, value in batch.items() if name != "tags"})
    with pytest.raises(FusionError, match="fusion 'hybrid' needs visible"):
        built(**{name: value for name, value in batch.items() if name != "visible"})
    portable = dict(processor(PROMPTS[:1], portable_form=True))
    with pytest.raises(FusionError, match="the batch has lost 'tags'"):
        built(**{name: value for name, value in portable.items() if name != "tags"})


def test_fields_that_cannot_be_are_refused() -> None:
    with pytest.raises(SpecError, match=r"hybrid\.visual_dim: .* leave 48 out"):
        Hybrid(visual_dim=48)
    with pytest.raises(SpecError, match=r"hybrid\.looks_at_none: expected 'nothing'"):
        Hybrid(looks_at_none="everything")
    with pytest.raises(vlmkit.ArchitectureError, match=r"layout 'run' gives visual tokens 1 place each, but fusion 'hybrid' does both"):
        architecture(fusion="hybrid").validate()
    with pytest.raises(
        vlmkit.ArchitectureError, match=r"'seen_tiles_beside' .* but fusion 'splice' puts .* use fusion 'hybrid', or .* 'run'"
    ):
        architecture(layout="seen_tiles_beside").validate()


def test_a_batch_has_room_for_the_longest_usual_tag() -> None:
    _, processor = made("H")
    wide, narrow = processor([user(picture(50, 100), "?")]), processor([user(picture(50, 50), "?")])
    assert wide["tags"].shape == (3, len("<tile_99>"))
    assert narrow["tags"].tolist() == [[-1] * len("<tile_99>")]
    assert processor.decode(wide["tags"][1][wide["tags"][1] >= 0]) == "<tile_2>"
    assert "tags" not in processor([user("no picture")])
