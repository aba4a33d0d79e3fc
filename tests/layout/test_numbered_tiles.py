"""Tags that count tiles: what is written, and what is looked at from where on."""

from __future__ import annotations

from typing import Any

import pytest

import vlmkit
from vlmkit.features import Grid
from vlmkit.layout.laid_out import LayoutError, Mark, Turn
from vlmkit.layout.pieces import ImageTokens, Seen, Visual
from vlmkit.layout.template import CHATML
from vlmkit.layout.writer import covered
from vlmkit.preprocess import Size, policies
from vlmkit.spec import SpecError
from vlmkit.tokenizer import PlainTokenizer, bytes_tokenizer

TOKENIZER = PlainTokenizer(bytes_tokenizer())
GRID = Grid(1, 1, 2)
TWO_TILES = Size(50, 100)
KINDS = ("numbered_tiles", "seen_tiles", "seen_tiles_beside")


def layout(kind: str, **fields: Any) -> Any:
    return vlmkit.layouts[kind](template=CHATML, placeholder="<|image|>", **fields)


def image(size: Size = TWO_TILES, times: tuple[float, ...] = (), **policy: Any) -> ImageTokens:
    """Under tiles, or another policy of views; two visual tokens a view."""
    chosen = policy.pop("policy", policies["tiles"](size=56, most=4))
    plan = chosen.plan_clip(size, times) if times else chosen.plan(size)
    return ImageTokens(plan, (GRID,) * (len(plan.views) * plan.frames), seconds=times)


def written(kind: str, of: ImageTokens, **fields: Any) -> tuple[str, Any]:
    laid_out = layout(kind, **fields).lay_out([Turn("user", (0, "?"))], [of], TOKENIZER)
    return bytes_tokenizer().decode(laid_out.ids).removeprefix("<|im_start|>user\n").removesuffix("?<|im_end|>\n"), laid_out


def test_all_views_stand_behind_their_tags() -> None:
    text, laid_out = written("numbered_tiles", image())
    two = "<|image|><|image|>"
    assert text == f"<Image><tile_1>{two}<tile_2>{two}<tile_global_thumbnail>{two}</Image>"
    assert [(span.offset, span.length) for span in laid_out.spans] == [(0, 2), (2, 2), (4, 2)]
    assert laid_out.seen == ()


def test_an_image_of_one_view_has_the_tag_of_the_whole() -> None:
    assert written("numbered_tiles", image(Size(50, 50)))[0] == "<Image><tile_global_thumbnail><|image|><|image|></Image>"


def test_where_the_whole_comes_first_so_does_its_tag() -> None:
    text, _ = written("numbered_tiles", image(policy=policies["anyres"](size=56)))
    assert text.startswith("<Image><tile_global_thumbnail><|image|><|image|><tile_1>")


def test_a_mark_shows_the_tile_of_its_tag_and_the_last_all() -> None:
    text, laid_out = written("seen_tiles", image())
    assert text == "<Image><tile_1><tile_2><tile_global_thumbnail></Image>"
    begins = [text.index(tag) for tag in ("<tile_1>", "<tile_2>", "<tile_g", "</I")]
    places = [mark.place for mark in laid_out.seen]
    assert [place - places[0] for place in places] == [begin - begins[0] for begin in begins]
    assert [mark[1:] for mark in laid_out.seen] == [(0, 0, 2), (0, 2, 2), (0, 4, 2), (0, 0, 6)]
    assert laid_out.spans == ()


def test_tiles_are_seen_from_the_start_on_and_the_whole_is_placed() -> None:
    text, laid_out = written("seen_tiles_beside", image())
    assert text == "<Image><|image|><|image|></Image>"
    assert [mark[1:] for mark in laid_out.seen] == [(0, 0, 4)]
    assert [(span.offset, span.length) for span in laid_out.spans] == [(4, 2)]
    assert bytes_tokenizer().decode(laid_out.ids[laid_out.seen[0].place :]).startswith("<Image>")
    assert layout("seen_tiles_beside").tags(image()) == ("<tile_1>", "<tile_2>", "")
    _, alone = written("seen_tiles_beside", image(Size(50, 50)))
    assert [mark[1:] for mark in alone.seen] == [(0, 0, 0)], "from here on nothing is seen"
    first, _ = written("seen_tiles_beside", image(policy=policies["anyres"](size=56)), whole="<w>")
    assert first == "<Image><w><|image|><|image|></Image>"


@pytest.mark.parametrize(("kind", "placed"), [("numbered_tiles", 6), ("seen_tiles", 0), ("seen_tiles_beside", 2)])
def test_what_an_image_costs(kind: str, placed: int) -> None:
    of = image()
    assert layout(kind).places(of) == 6
    assert layout(kind).in_sequence(of) == placed


def test_frames_of_a_film_are_counted_anew_and_words_behind_it_see_all() -> None:
    film = image(times=(0.0, 1.0))
    frame = "<tile_1><tile_2><tile_global_thumbnail>"
    text, laid_out = written("seen_tiles", film)
    assert text == f"<Image>{frame}{frame}</Image>"
    assert laid_out.seen[-1][1:] == (0, 0, 12)
    text, laid_out = written("seen_tiles_beside", film)
    assert text == f"<Image>{'<|image|>' * 4}</Image>"
    assert [mark[1:] for mark in laid_out.seen] == [(0, 0, 10)], "up to the last tile; the whole of the first frame lies between"
    assert layout("seen_tiles_beside").tags(film) == ("<tile_1>", "<tile_2>", "") * 2
    text, _ = written("numbered_tiles", film)
    assert text.count("<Image>") == 2, "placed, each frame is a picture"


@pytest.mark.parametrize("kind", KINDS)
def test_a_tag_has_to_count(kind: str) -> None:
    for tile in ("<tile>", "<tile_{row}>", "<tile_{"):
        with pytest.raises(SpecError, match=rf"{kind}\.tile: expected text with {{number}}"):
            layout(kind, tile=tile)


def test_tiles_are_seen_from_some_text_on() -> None:
    with pytest.raises(SpecError, match=r"seen_tiles_beside\.start: expected text before an image"):
        layout("seen_tiles_beside", start="")


def test_a_visual_token_that_is_neither_placed_nor_shown_is_an_error() -> None:
    class Half(type(layout("seen"))):  # type: ignore[misc]
        def image_pieces(self, image: ImageTokens) -> tuple[Any, ...]:
            return (Seen(self.placeholder, 0, 2), Visual(3, 1))

    spec = Half(template=CHATML, placeholder="<|image|>")
    with pytest.raises(LayoutError, match="image 0 has 6 visual tokens, but the layout neither places nor shows 3"):
        spec.lay_out([Turn("user", (0,))], [image()], TOKENIZER)


def test_numbers_that_ranges_cover() -> None:
    assert covered([(0, 4), (2, 3)]) == 5
    assert covered([(4, 1), (0, 2), (1, 0)]) == 3
    assert covered([]) == 0


def test_a_mark_behind_the_cut_goes() -> None:
    _, laid_out = written("seen_tiles", image())
    last = laid_out.seen[-1].place
    assert laid_out.truncated(last).seen == laid_out.seen[:-1]
    assert laid_out.truncated(last - 1).seen == ()
    assert isinstance(laid_out.seen[0], Mark)
