"""Who looks at what, by hand."""

from __future__ import annotations

import torch

import vlmkit
from tests.tiny import architecture, assistant, picture, user
from vlmkit.features import Grid, View
from vlmkit.fusion.sight import mask_of, owners_of, sample_sees, sees

TILE = Grid(1, 1, 2)
CPU = torch.device("cpu")


def views(*canvases: tuple[int, int]) -> tuple[View, ...]:
    return tuple(
        View(TILE, image, row, column) for image, (rows, columns) in enumerate(canvases) for row in range(rows) for column in range(columns)
    )


def test_tokens_of_blank_tiles_are_of_the_picture_that_they_stand_behind() -> None:
    """Two pictures of three tiles, of which the first fills one and the second two, each of two tokens."""
    owners = owners_of((TILE,) * 6, views((1, 1), (1, 2)), CPU)
    assert owners.referred == 6
    assert owners.tokens.tolist() == [0, 1, 2, 3, 4, 5, 0, 0, 0, 0, 2, 2]
    whole = owners_of((TILE,) * 3, views((1, 1), (1, 2)), CPU)
    assert (whole.tokens.tolist(), whole.referred) == ([0, 1, 2, 3, 4, 5], 6)
    unseen = owners_of((TILE,) * 3, (), CPU)
    assert (unseen.tokens.tolist(), unseen.referred) == ([0, 1, 2, 3, 4, 5], 6)


def test_a_token_attends_to_its_range_to_all_of_its_sample_or_for_nothing_to_everything() -> None:
    owners = owners_of((TILE,) * 6, views((1, 1), (1, 2)), CPU)
    visible = torch.tensor([[[0, 2], [2, 6], [0, 6], [2, 0], [6, 2], [6, 0], [0, 0]]])
    assert sees(visible).tolist() == [[True, True, True, False, False, False, False]]
    assert sample_sees(visible).tolist() == [[True, True, True, True, True, True, False]]
    found = [[number for number, attends in enumerate(row) if attends] for row in mask_of(visible, owners).tolist()]
    assert found == [
        [0, 1],
        [2, 3, 4, 5],
        [0, 1, 2, 3, 4, 5],
        [0, 1, 6, 7, 8, 9],
        [2, 3, 4, 5, 10, 11],
        list(range(12)),
        list(range(12)),
    ]


def test_a_batch_says_what_each_word_looks_at() -> None:
    """Marks with words between them, marks side by side, and a sample without any; each image has nine tokens."""
    arch = architecture(layout="seen", fusion="cross_attention", policy=vlmkit.policies["squash"](size=42), encoder="clip", connector="mlp")
    processor = vlmkit.build_processor(arch)
    shown = [picture(seed=seed) for seed in range(4)]
    rows = [[user("A", shown[0], "B", shown[1], shown[2], "C"), assistant("D")], [user("E"), assistant("F")], [user(shown[3], "G")]]
    batch = processor(rows, add_generation_prompt=False)
    text = [processor.tokenizer.convert_ids_to_tokens(row) for row in batch["input_ids"].tolist()]
    looks = [dict(zip(words, ranges, strict=True)) for words, ranges in zip(text, batch["visible"].tolist(), strict=True)]
    assert {letter: looks[0][letter] for letter in "ABCD"} == {"A": [27, 0], "B": [0, 9], "C": [9, 27], "D": [9, 27]}
    marks = [ranges for words, ranges in zip(text[0], batch["visible"][0].tolist(), strict=True) if words == "<|image|>"]
    assert marks == [[0, 9], [9, 18], [9, 27]]
    assert looks[1]["E"] == looks[1]["F"] == [0, 0]
    assert looks[2]["G"] == [27, 36]
    fenced = vlmkit.build_processor(
        arch.replace(
            layout=vlmkit.layouts["seen_fenced"](template=arch.layout.template, placeholder="<|image|>", boundary="<|image_start|>")
        )
    )
    alone = fenced(rows[:1])
    text = [fenced.tokenizer.convert_ids_to_tokens(row) for row in alone["input_ids"].tolist()]
    assert dict(zip(text[0], alone["visible"][0].tolist(), strict=True))["C"] == [18, 27]
    packed = processor.pack([processor.sample(row) for row in (rows[2], rows[1], rows[0])])
    ids = processor.tokenizer.convert_ids_to_tokens(packed["input_ids"][0].tolist())
    found = dict(zip(ids, packed["visible"][0].tolist(), strict=True))
    assert {letter: found[letter] for letter in "GEFAB"} == {"G": [0, 9], "E": [0, 0], "F": [0, 0], "A": [36, 9], "B": [9, 18]}
