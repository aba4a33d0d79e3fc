"""Laws of every registered layout, and the exact ids, labels and spans of the first ones."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

import vlmkit
from tests.tiny import part
from vlmkit.features import Grid
from vlmkit.layout.laid_out import IGNORE, LayoutError, Span, Turn
from vlmkit.layout.pieces import ImageTokens
from vlmkit.layout.specials import Specials
from vlmkit.layout.template import CHATML, Template
from vlmkit.preprocess.geometry import Box, ImagePlan, Render, Size
from vlmkit.spec import SpecError
from vlmkit.tokenizer import PlainTokenizer, bytes_tokenizer

TOKENIZER = PlainTokenizer(bytes_tokenizer())
PLACEHOLDER = TOKENIZER.specials["<|image|>"]


def image(*grids: tuple[int, int]) -> ImageTokens:
    """An image whose views have these grids after the connector."""
    renders = tuple(Render.whole(Size(rows, columns)) for rows, columns in grids)
    return ImageTokens(ImagePlan(Size(10, 10), renders), tuple(Grid(1, rows, columns) for rows, columns in grids))


IMAGES = st.tuples(st.integers(1, 5), st.integers(1, 5)).map(image)
WORDS = st.text(alphabet="ab \n<|>猫", max_size=6)


@st.composite
def conversations(draw: st.DrawFn) -> tuple[list[Turn], list[ImageTokens]]:
    """Any number of turns and images, the last turn an answer."""
    turns, images = [], []
    for _ in range(draw(st.integers(1, 3))):
        content: list[str | int] = []
        for _ in range(draw(st.integers(0, 3))):
            if draw(st.booleans()):
                content.append(len(images))
                images.append(draw(IMAGES))
            else:
                content.append(draw(WORDS))
        turns += [Turn("user", tuple(content)), Turn("assistant", (draw(WORDS),))]
    return turns, images


@pytest.mark.parametrize("kind", vlmkit.list_layouts())
@given(given_=conversations())
def test_every_visual_token_stands_exactly_once_on_a_placeholder(kind: str, given_: tuple[list[Turn], list[ImageTokens]]) -> None:
    turns, images = given_
    spec = part(vlmkit.layouts, kind)
    layout = spec.lay_out(turns, images, TOKENIZER)
    places: dict[tuple[int, int], int] = {}
    for span in layout.spans:
        for step in range(span.length):
            assert places.setdefault((span.image, span.offset + step), span.start + step) == span.start + step
    looked_at = {(mark.image, mark.start + step) for mark in layout.seen for step in range(mark.length)}
    assert bool(looked_at) <= spec.looked_at
    assert bool(places) <= spec.placed
    assert [mark.place for mark in layout.seen] == sorted(mark.place for mark in layout.seen)
    all_tokens = {(number, token) for number, tokens in enumerate(images) for token in range(tokens.count)}
    assert places.keys() | looked_at == all_tokens or (spec.partial and set(places) < all_tokens)
    if not spec.placed:
        assert layout.spans == layout.learned == ()
        assert {mark.image for mark in layout.seen} == set(range(len(images)))
        return
    learned = [place for place, _ in layout.learned]
    assert sorted([*places.values(), *learned]) == [at for at, token in enumerate(layout.ids) if token == PLACEHOLDER]
    assert [start for start, _ in layout.extents] == sorted(start for start, _ in layout.extents)


@pytest.mark.parametrize("kind", vlmkit.list_layouts())
@given(given_=conversations())
def test_exactly_the_answers_and_the_ends_of_their_turns_are_supervised(kind: str, given_: tuple[list[Turn], list[ImageTokens]]) -> None:
    turns, images = given_
    layout = part(vlmkit.layouts, kind).lay_out(turns, images, TOKENIZER)
    assert len(layout.labels) == len(layout.ids)
    assert all(label in (IGNORE, token) for label, token in zip(layout.labels, layout.ids, strict=True))
    supervised = [token for token in layout.labels if token != IGNORE]
    end = TOKENIZER.specials["<|im_end|>"]
    wanted = [token for turn in turns if turn.role == "assistant" for token in [*"".join(map(str, turn.content)).encode(), end]]
    assert supervised == wanted


@pytest.mark.parametrize("kind", vlmkit.list_layouts())
@given(given_=conversations(), length=st.integers(0, 120))
def test_truncation_drops_whole_images_and_everything_after(kind: str, given_: tuple[list[Turn], list[ImageTokens]], length: int) -> None:
    turns, images = given_
    whole = part(vlmkit.layouts, kind).lay_out(turns, images, TOKENIZER)
    cut = whole.truncated(length)
    assert len(cut.ids) <= length
    assert (cut.ids, cut.labels) == (whole.ids[: len(cut.ids)], whole.labels[: len(cut.ids)])
    assert cut.spans == tuple(span for span in whole.spans if span.start + span.length <= len(cut.ids))
    for number in {span.image for span in cut.spans}:
        assert [span for span in cut.spans if span.image == number] == [span for span in whole.spans if span.image == number]
    if all(not start < length < stop for start, stop in whole.extents):
        assert len(cut.ids) == min(length, len(whole.ids))


@pytest.mark.parametrize("kind", vlmkit.list_layouts())
@given(given_=conversations())
def test_a_prompt_is_the_beginning_of_the_conversation_that_it_is_answered_in(
    kind: str, given_: tuple[list[Turn], list[ImageTokens]]
) -> None:
    turns, images = given_
    spec = part(vlmkit.layouts, kind)
    answered = spec.lay_out(turns, images, TOKENIZER)
    prompt = spec.lay_out(turns[:-1], images, TOKENIZER, add_generation_prompt=True)
    assert prompt.ids == answered.ids[: len(prompt.ids)]
    assert set(answered.labels[len(prompt.ids) :]) >= {TOKENIZER.specials["<|im_end|>"]}


@pytest.mark.parametrize("kind", vlmkit.list_layouts())
def test_a_layout_names_the_special_tokens_that_it_writes(kind: str) -> None:
    spec = part(vlmkit.layouts, kind)
    layout = spec.lay_out([Turn("user", (0,))], [image((2, 3))], TOKENIZER, add_generation_prompt=True)
    written = {token for token in layout.ids if token in TOKENIZER.specials.values()}
    required = {TOKENIZER.specials[name] for name in spec.required_specials()}
    assert written == required or (not spec.placed and written == required - {PLACEHOLDER}), "prompts write it in the place of an image"


def text(ids: Sequence[int]) -> str:
    return str(bytes_tokenizer().decode(ids))


def test_run_writes_the_image_the_text_after_it_and_nothing_else() -> None:
    layout = vlmkit.layouts["run"](template=CHATML, placeholder="<|image|>", after_image="\n").lay_out(
        [Turn("user", (0, "hi")), Turn("assistant", ("yes",))], [image((1, 2))], TOKENIZER
    )
    assert text(layout.ids) == "<|im_start|>user\n<|image|><|image|>\nhi<|im_end|>\n<|im_start|>assistant\nyes<|im_end|>\n"
    assert layout.spans == (Span(start=6, length=2, image=0, offset=0),)
    assert layout.extents == ((6, 8),)


def test_bracketed_stands_between_its_tokens_and_a_cut_takes_both() -> None:
    spec = vlmkit.layouts["bracketed"](template=CHATML, placeholder="<|image|>", start="<|image_start|>", end="<|image_end|>")
    layout = spec.lay_out([Turn("user", ("a", 0, "b", 1))], [image((1, 2)), image((1, 1))], TOKENIZER)
    assert text(layout.ids) == (
        "<|im_start|>user\na<|image_start|><|image|><|image|><|image_end|>b<|image_start|><|image|><|image_end|><|im_end|>\n"
    )
    assert layout.extents == ((7, 11), (12, 15))
    assert text(layout.truncated(14).ids) == "<|im_start|>user\na<|image_start|><|image|><|image|><|image_end|>b"


def test_rows_end_in_a_token_and_the_last_in_another_where_there_is_one() -> None:
    fields = {"template": CHATML, "placeholder": "<|image|>", "row_end": "<|image_start|>"}
    two_views = ImageTokens(image((2, 3), (1, 2)).plan, (Grid(1, 2, 3), Grid(1, 1, 2, prefix=1)))
    rows = "<|image|><|image|><|image|><|image_start|>" * 2 + "<|image|><|image|><|image|>"
    for last, end in ({}, "<|image_start|>"), ({"image_end": "<|image_end|>"}, "<|image_end|>"):
        layout = vlmkit.layouts["rows"](**fields, **last).lay_out([Turn("user", ("a", 0, "b"))], [two_views], TOKENIZER)
        assert text(layout.ids) == f"<|im_start|>user\na{rows}{end}b<|im_end|>\n"
        assert layout.spans == (Span(7, 3, 0, 0), Span(11, 3, 0, 3), Span(15, 3, 0, 6))
        assert layout.extents == ((7, 19),)


def test_tiles_stand_behind_their_tags_and_the_whole_image_behind_its_own() -> None:
    spec = vlmkit.layouts["tile_tags"](template=CHATML, placeholder="<|image|>", boundary="<|image_start|>")
    whole = Render.whole(Size(1, 1))
    tiles = Render(resize=Size(2, 2), canvas=Size(2, 2), tiles=tuple(Box(row, column, 1, 1) for row in (0, 1) for column in (0, 1)))
    cut = ImageTokens(ImagePlan(Size(9, 9), (tiles, whole)), (Grid(1, 1, 2),) * 5)
    layout = spec.lay_out([Turn("user", (0, "a", 1))], [cut, image((1, 1))], TOKENIZER)
    two, start = "<|image|><|image|>", "<|image_start|>"
    assert text(layout.ids) == (
        f"<|im_start|>user\n{start}<row_1_col_1>{two}{start}<row_1_col_2>{two}\n{start}<row_2_col_1>{two}{start}<row_2_col_2>{two}\n"
        f"\n{start}<global-img>{two}{start}a{start}<global-img><|image|>{start}<|im_end|>\n"
    )
    assert [(span.image, span.offset, span.length) for span in layout.spans] == [*((0, offset, 2) for offset in (0, 2, 4, 6, 8)), (1, 0, 1)]


def test_a_fence_stands_once_between_neighbours_and_a_word_behind_it_is_set_off() -> None:
    spec = vlmkit.layouts["fenced"](template=CHATML, placeholder="<|image|>", boundary="<|image_start|>")
    content = (0, "", 1, "a", 2, " b", 3, "<b>", 4, "\n", 5)
    layout = spec.lay_out([Turn("user", content)], [image((1, 2), (1, 1)), *[image((1, 1))] * 5], TOKENIZER)
    one, fence = "<|image|>", "<|image_start|>"
    assert text(layout.ids) == (
        f"<|im_start|>user\n{fence}{one}{one}{fence}{one}{fence}{one}{fence} a{fence}{one}{fence} b{fence}{one}{fence}<b>"
        f"{fence}{one}{fence}\n{fence}{one}{fence}<|im_end|>\n"
    )
    assert layout.extents[:2] == ((6, 12), (12, 14))
    assert text(layout.truncated(13).ids) == f"<|im_start|>user\n{fence}{one}{one}{fence}{one}{fence}"


def test_a_tag_without_a_place_for_row_and_column_is_refused() -> None:
    with pytest.raises(SpecError, match=r"tile_tags\.tile: expected text with \{row\} and \{column\}, got '<\{number\}>'"):
        vlmkit.layouts["tile_tags"](template=CHATML, placeholder="<|image|>", tile="<{number}>")


def test_text_is_set_off_from_its_role_and_an_image_is_not() -> None:
    template = Template(user=("User:", "<|im_end|>"), assistant=("Assistant:", "<|im_end|>"), before_text=" ")
    spec = vlmkit.layouts["run"](template=template, placeholder="<|image|>")
    turns = [Turn("user", ("a", 0)), Turn("assistant", ("b",)), Turn("user", (1, "c"))]
    layout = spec.lay_out(turns, [image((1, 1))] * 2, TOKENIZER, add_generation_prompt=True)
    assert text(layout.ids) == "User: a<|image|><|im_end|>Assistant: b<|im_end|>User:<|image|>c<|im_end|>Assistant:"
    assert text([token for token in layout.labels if token != IGNORE]) == " b<|im_end|>"


@pytest.mark.parametrize("used", [(), (0,), (0, 0), (1, 1), (0, 2)])
def test_a_conversation_that_does_not_show_every_image_once_is_refused(used: tuple[int, ...]) -> None:
    with pytest.raises(LayoutError, match=r"refers to images \[.*\], but 2 image\(s\) were given"):
        part(vlmkit.layouts, "run").lay_out([Turn("user", used)], [image((1, 1))] * 2, TOKENIZER)


def test_a_layout_that_loses_a_visual_token_is_refused_with_both_numbers() -> None:
    class Loses(vlmkit.layouts["run"]):
        def image_pieces(self, image: ImageTokens) -> tuple[object, ...]:
            return ()

    with pytest.raises(LayoutError, match="image 0 has 6 visual tokens, but the layout places 0"):
        Loses(template=CHATML, placeholder="<|image|>").lay_out([Turn("user", (0,))], [image((2, 3))], TOKENIZER)


def test_a_default_system_message_stands_where_none_is_given() -> None:
    spec = vlmkit.layouts["run"](template=CHATML.replace(default_system="Be kind."), placeholder="<|image|>")
    assert text(spec.lay_out([Turn("user", ("hi",))], [], TOKENIZER).ids).startswith(
        "<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user"
    )
    own = spec.lay_out([Turn("system", ("Be brief.",)), Turn("user", ("hi",))], [], TOKENIZER)
    assert text(own.ids).count("system") == 1


def test_where_the_template_ends_a_turn_without_a_special_token_nothing_after_the_answer_is_supervised() -> None:
    plain = Template(user=("USER: ", " "), assistant=("ASSISTANT: ", "\n"))
    layout = vlmkit.layouts["run"](template=plain, placeholder="<|image|>").lay_out(
        [Turn("user", ("hi",)), Turn("assistant", ("yes",))], [], TOKENIZER
    )
    assert [token for token in layout.labels if token != IGNORE] == [*b"yes"]


def test_specials_are_split_off_and_the_longest_spelling_wins() -> None:
    assert Specials({"<a>": 1, "<ab>": 2, "<a": 3}).split("<a>x<ab>y") == (1, "x", 2, "y")
    assert Specials({"<a>": 1}).split("") == ()
    assert Specials({}).split("plain") == ("plain",)
    assert Specials({"<a>": 1}).split_behind_first("x<a>\n<a>") == (("x", 1), ("\n", 1))
    assert Specials({"<a>": 1}).split_behind_first("plain") == ((), ("plain",))


def test_a_template_names_its_special_tokens() -> None:
    assert CHATML.specials == ("<|im_start|>", "<|im_end|>")


def test_bracketed_lines_give_each_image_a_line_of_its_own() -> None:
    spec = part(vlmkit.layouts, "bracketed_lines")
    between = spec.lay_out([Turn("user", (0, 1, "a", 2))], [image((1, 1))] * 3, TOKENIZER)
    assert text(between.ids) == "<|im_start|>user\n{0}\n\n{0}\na\n{0}<|im_end|>\n".format("<|image_start|><|image|><|image_end|>")


def test_images_first_begins_the_text_behind_the_last_image_before_the_first_answer() -> None:
    template = Template(begin="<|endoftext|>", user=("", "\n"), assistant=("", "<|im_end|>"))
    spec = part(vlmkit.layouts, "images_first", template=template)
    turns = [Turn("user", (0, 1, "a")), Turn("assistant", ("b",)), Turn("user", (2,))]
    laid_out = spec.lay_out(turns, [image((1, 1))] * 3, TOKENIZER)
    assert text(laid_out.ids) == "<|image|><|image|><|endoftext|>a\nb<|im_end|><|image|>\n"
    assert text(laid_out.ids[: laid_out.prefix]) == "<|image|><|image|><|endoftext|>a\n"
    assert text(spec.lay_out([Turn("user", ("a",))], [], TOKENIZER).ids) == "<|endoftext|>a\n"


def test_what_stands_between_role_and_answer_is_supervised_and_not_asked_for() -> None:
    template = Template(user=("U:", "\n"), assistant=("A:", "<|im_end|>"), before_answer=" ")
    spec = part(vlmkit.layouts, "run", template=template)
    turns = [Turn("user", ("a",)), Turn("assistant", ("b",))]
    answered, asked = spec.lay_out(turns, [], TOKENIZER), spec.lay_out(turns[:1], [], TOKENIZER, add_generation_prompt=True)
    assert text(asked.ids) == "U:a\nA:"
    assert text([label for label in answered.labels if label != IGNORE]) == " b<|im_end|>"


def test_a_film_may_have_a_placeholder_of_its_own() -> None:
    """Qwen2-VL's `<|video_pad|>`. What fills the places changes, where they are does not."""
    spec = part(vlmkit.layouts, "bracketed", video_placeholder="<|reserved|>")
    tokenizer = PlainTokenizer(bytes_tokenizer((*TOKENIZER.specials, "<|reserved|>")))
    picture, film = image((1, 2)), ImageTokens(image((1, 2)).plan, (Grid(1, 1, 2),), seconds=(0.0, 0.5))
    turns = [Turn("user", (0, 1))]
    layout, pictures = (spec.lay_out(turns, [picture, second], tokenizer) for second in (film, picture))
    filled = [[layout.ids[place] for place in range(span.start, span.start + span.length)] for span in layout.spans]
    assert filled == [[tokenizer.specials["<|image|>"]] * 2, [tokenizer.specials["<|reserved|>"]] * 2]
    assert (layout.spans, layout.extents) == (pictures.spans, pictures.extents)
    assert "<|reserved|>" in spec.required_specials()
    assert "<|reserved|>" not in part(vlmkit.layouts, "bracketed").required_specials()
