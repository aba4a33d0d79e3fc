"""Scores of short answers to questions: of several people's answers, of one, of words in any order.

All compare texts that were normalised, each by its own benchmark's rule, for published figures depend on it.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Sequence
from typing import Literal

from vlmkit.evaluation.metrics.errors import edit_distance, normalise

Boundary = Literal["kept", "dropped"]


def vqa_accuracy(answer: str, answers: Sequence[str]) -> float:
    """Agreement with ten people (Antol et al. 2015, arXiv:1505.00468): leaving out each in turn, min(1, those of the others who said the
    same / 3), on average. So three equal answers of ten are worth 0.9 and four are worth 1.

    Both sides after `vqa_normalise`. Disputed: the VQA v2 evaluation normalises only where people disagree, TextVQA's (Singh et al. 2019,
    arXiv:1904.08920) always, which is done here. Papers that write min(1, same / 3) leave nobody out and give more. Data with fewer
    people (a test of one's own) are scored by the same words; of a single person's answer nobody is left to agree. Raises ValueError then.

    >>> vqa_accuracy("Nokia.", ["nokia"] * 3 + ["toshiba"] * 7)
    0.9
    """
    if len(answers) < 2:
        raise ValueError(f"VQA accuracy leaves out one person of several, got {len(answers)} answers; score a single one by exact match")
    said, count = vqa_normalise(answer), len(answers)
    same = sum(vqa_normalise(one) == said for one in answers)
    # Who said the same is left out `same` times, who did not, the other times.
    return (same * min(3, max(same - 1, 0)) + (count - same) * min(3, same)) / (3 * count)


def vqa_normalise(text: str) -> str:
    """The answers' form in TextVQA's evaluation (EvalAI): lower case, no punctuation, digits for zero to ten, no articles, apostrophes put
    back into contractions.

    Its peculiarities are kept, because scores depend on them: a sign becomes nothing where it stands beside a blank anywhere in the text
    (or where a comma divides digits), and a blank elsewhere; of full stops that no digit follows the first 32 go; an 's is a word;
    capitals of the published table of contractions never meet a text in lower case; somebody'd loses its apostrophe.

    >>> vqa_normalise("The two T-shirts, on a rack"), vqa_normalise("dont"), vqa_normalise("1,000.5 m.")
    ('2 t shirts on rack', "don't", '1000.5 m')
    """
    text = text.lower().replace(",", "").replace("?", "").replace("'s", " 's").strip()
    text = text.replace("\n", " ").replace("\t", " ").strip()
    plain = text
    for sign in _SIGNS:
        beside_blank = f"{sign} " in text or f" {sign}" in text
        plain = plain.replace(sign, "" if beside_blank else " ")
    plain = _FULL_STOP.sub("", plain, count=32)
    words = [_DIGITS.get(word, word) for word in plain.split()]
    return " ".join(_CONTRACTIONS.get(word, word) for word in words if word not in _ARTICLES)


_SIGNS = ';/[]"{}()=+\\_-><@`!'
_FULL_STOP = re.compile(r"\.(?!\d)")
_ARTICLES = {"a", "an", "the"}
_NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_DIGITS = {word: str(number) for number, word in enumerate(_NUMBERS)} | {"none": "0"}
_SHORTENED = """
ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't haven't he'd he'd've he's how'd how'll how's
isn't it'd it'd've it'll ma'am mightn't mightn't've might've mustn't must've needn't not've o'clock oughtn't 'ow's'at shan't she'd've
should've shouldn't shouldn't've somebody'd've somebody'll somebody's someone'd someone'd've someone'll someone's something'd
something'd've something'll that's there'd there'd've there're there's they'd they'd've they'll they're they've 'twas wasn't we'd've we've
weren't what'll what're what's what've when's where'd where's where've who'd who'd've who'll who's who've why'll why're why's won't would've
wouldn't wouldn't've y'all y'all'll y'all'd've you'd you'll you're you've
""".split()  # noqa: SIM905 - they read better so
_CONTRACTIONS = {word[:place] + word[place + 1 :]: word for word in _SHORTENED for place, letter in enumerate(word) if letter == "'"} | {
    "somebody'd": "somebodyd"
}
"""Each word by how it is written without one of its apostrophes."""


def gqa_match(answer: str, reference: str) -> float:
    """1.0 where both are the same without case, ASCII punctuation and white space around, else 0.0.

    Disputed: GQA's own evaluation (Hudson and Manning 2019, arXiv:1902.09506) compares texts as they are, with answers in lower case; what
    is published for models that generate comes from scripts that forgive a capital and a full stop, as lmms-eval's does.

    >>> gqa_match("Yes.", "yes"), gqa_match("t shirt", "t-shirt")
    (1.0, 0.0)
    """
    return float(_without_punctuation(answer) == _without_punctuation(reference))


def _without_punctuation(text: str) -> str:
    return text.lower().translate(_NO_PUNCTUATION).strip()


_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


def anls(answer: str, answers: Sequence[str], *, threshold: float = 0.5, boundary: Boundary = "kept") -> float:
    """Average normalised Levenshtein similarity, of one answer (Biten et al. 2019, arXiv:1905.13648): 1 - edits / length of the longer one,
    for the nearest of the right answers; 0 where that is below the threshold. In lower case, runs of blanks as one.

    boundary: what becomes of a similarity of exactly the threshold. The paper drops it (a distance has to be *less* than 0.5), and so
    does the package `anls`; the evaluation script that circulates for DocVQA, which lmms-eval has too, keeps it. Two further corners: that
    script divides by the length with the blanks that it has squeezed out, here by the length that is compared; two empty texts are 1.

    >>> anls("abcd", ["abxy"]), anls("abcd", ["abxy"], boundary="dropped"), anls("Paul", ["paul", "Peter"])
    (0.5, 0.0, 1.0)
    """
    if not answers:
        raise ValueError("ANLS takes one right answer or more, got none")
    said = _squeezed(answer)
    best = max(_similarity(said, _squeezed(one)) for one in answers)
    return best if best > threshold or (best == threshold and boundary == "kept") else 0.0


def _squeezed(text: str) -> str:
    return " ".join(text.lower().split())


def _similarity(one: str, other: str) -> float:
    length = max(len(one), len(other))
    return 1 - edit_distance(one, other) / length if length else 1.0


def word_f1(answer: str, reference: str) -> float:
    """F1 of words in any order: words are counted, 2 * common / (words of both). Both after `normalise`, split at white space.

    As SQuAD's F1 (Rajpurkar et al. 2016, arXiv:1606.05250) without its rules for punctuation and articles, which stand in pictures too.
    Two empty texts are 1.0.

    >>> word_f1("world hello hello", "Hello world")
    0.8
    """
    said, right = Counter(normalise(answer).split()), Counter(normalise(reference).split())
    total = said.total() + right.total()
    return 2 * (said & right).total() / total if total else 1.0
