"""Inputs that metrics are compared on: drawn anew from a seed, and the same on every machine. Only the standard library."""

from __future__ import annotations

import random

# ruff: noqa: SIM905 - words read better in one text

CASES = 600
PLAIN = ["a", "the", "red", "cat", "on", "two", "tables", "12", "nokia", "b", "c", "street", "big", "of", "in"]
TRICKY = (
    "dont can't couldntve couldn'tve somebody'd somebodyd he's twas yall'dve zero One TEN none 1,000 1,00,0.5 3.5 .5 5. U.S. a.b, "
    "T-shirt black/white (old) [x] {y} a_b c=d e+f >g< @home `q` what? wow! The an \\n;x ; - / , . ? ow's'at y'allll shouldve Id've im "
    "straße ÉCOLE \t tab\tbed new\nline".split(" ")
)
CAPTIONS = (
    "a man's dog is sitting on the grass , near a t-shirt .",
    "two men aren't riding (old) motorcycles down the street.",
    "a black/white cat, lying on top of a laptop computer!",
    'a sign that says "stop" next to a tree.',
    "it's 10:30 p.m. and people can't cross 3.5 roads; really?",
    "the dogs' bowls & 1,000 plates on the table...",
    "a woman who's holding a Frisbee -- in U.S. colors.",
    "there are two-way streets with 50% of cars.",
    "they've got 5 oranges: they're on a plate",
    "A man cannot ride the red bus, so he'll walk",
)


def asked() -> list[tuple[str, list[str]]]:
    """(answer, ten answers of people) with spellings that normalisations differ in."""
    rng = random.Random(11)

    def text() -> str:
        pool = TRICKY if rng.random() < 0.6 else PLAIN
        return rng.choice(["", " "]) + " ".join(rng.choice(pool) for _ in range(rng.choice([1, 1, 1, 2, 2, 3, 5])))

    drawn = []
    for _ in range(CASES):
        pool = [text() for _ in range(rng.randint(1, 4))]
        said = rng.choice(pool) if rng.random() < 0.8 else text()
        said = rng.choice([said, said.upper(), f"{said}.", f"The {said}", said.replace("-", " ")])
        drawn.append((said, [rng.choice(pool) for _ in range(10)]))
    return drawn


def near() -> list[tuple[str, list[str]]]:
    """(answer, right answers): a right one with edits, many of them half of its letters, so that the boundary is met. Without two blanks
    in a row, and of letters that keep their number when their case changes."""
    rng = random.Random(12)
    drawn = []
    for _ in range(CASES):
        answers = ["".join(rng.choice("abXY 12") for _ in range(rng.choice([2, 4, 4, 6, 8, 9]))) for _ in range(rng.randint(1, 3))]
        letters = list(rng.choice(answers))
        for place in rng.sample(range(len(letters)), rng.choice([0, 1, len(letters) // 2, len(letters) // 2, len(letters)])):
            letters[place] = rng.choice("zZ9")
        squeezed = [" ".join(one.split()) or "a" for one in ("".join(letters), *answers)]
        drawn.append((squeezed[0], squeezed[1:]))
    return drawn


def words() -> list[tuple[str, str]]:
    """Pairs of texts of the same few words, without articles, punctuation and capitals."""
    rng = random.Random(13)
    pool = "red cat dog sign 12 street big old".split()
    return [tuple(" ".join(rng.choice(pool) for _ in range(rng.randint(1, 7))) for _ in range(2)) for _ in range(CASES)]


def captions() -> list[str]:
    """Captions as people write them, whole and cut together from two."""
    rng = random.Random(14)
    drawn = []
    for _ in range(CASES):
        one, other = rng.choice(CAPTIONS).split(), rng.choice(CAPTIONS).split()
        text = " ".join([*one[: rng.randint(2, len(one))], *other[rng.randint(0, len(other) - 2) :]])
        drawn.append(rng.choice([text, text.capitalize(), text.upper(), f"{text} ."]))
    return drawn


def captioned() -> list[tuple[str, list[str]]]:
    """(caption, captions of people) of words with blanks between: what tokenizers leave."""
    rng = random.Random(15)
    pool = "a man dog is on the grass near red bus two cats sit table big".split()

    def caption() -> list[str]:
        return [rng.choice(pool) for _ in range(rng.randint(1, 11))]

    drawn = []
    for _ in range(CASES):
        references = [caption() for _ in range(rng.randint(1, 5))]
        said = list(rng.choice(references)) if rng.random() < 0.7 else caption()
        for _ in range(rng.randint(0, 3)):
            said[rng.randrange(len(said))] = rng.choice(pool)
        drawn.append((" ".join(said), [" ".join(one) for one in references]))
    return drawn


DRAWS = {draw.__name__: draw for draw in (asked, near, words, captions, captioned)}
