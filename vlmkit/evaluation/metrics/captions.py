"""Scores of captions beside several people's captions of the same picture, as the COCO caption evaluation has them (Chen et al. 2015,
arXiv:1504.00325): its words, CIDEr-D, BLEU-4, ROUGE-L. METEOR and SPICE take a Java machine and are left to `pycocoevalcap`.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

Grams = Counter[tuple[str, ...]]

LONGEST_GRAM = 4
SIGMA = 6.0
"""Of the Gaussian that a difference of lengths is punished by, in words."""
BETA = 1.2
"""How much more recall counts than precision in ROUGE-L."""


def caption_words(text: str) -> list[str]:
    """A caption's words as the COCO evaluation compares them: Stanford's Penn Treebank tokens in lower case without punctuation.

    Its tokenizer is a Java program; the rules here are those that captions meet: contractions are two words (is n't, man 's), words
    joined by a hyphen or a slash are one, numbers keep their signs, so do abbreviations (u.s., mr.). Brackets stay as -lrb- and -rrb-,
    which the published list of punctuation misses because it has capitals. Not covered: emoticons, tags, and a single letter before a
    full stop, which Stanford's takes for an initial in some places.

    >>> caption_words("A man's T-shirt (old) isn't clean.")
    ['a', 'man', "'s", 't-shirt', '-lrb-', 'old', '-rrb-', 'is', "n't", 'clean']
    """
    found = (match[0] for match in _TOKEN.finditer(text.lower().replace("\u2019", "'")))
    words = [word for token in found for word in _parts(token)]
    return [word for word in words if word not in _PUNCTUATION]


_TOKEN = re.compile(
    r"""
    (?:https?://|www\.)\S+ | [\w.+-]+@\w[\w-]*(?:\.\w+)+        # an address
    | (?:[^\W\d_]\.){2,}                                        # u.s.
    | \b(?:mr|mrs|ms|dr|st|jr|sr|vs|etc|prof)\.
    | \d+(?:[.,:/]\d+)+ (?![\w])                                # 1,000.5 or 10:30
    | '(?:n'|tis\b|twas\b|\d0s\b)
    | \w+(?:[-/']\w+)*
    | '(?:s|d|m|ll|re|ve)\b
    | \.{2,} | -{2,} | \S
    """,
    re.VERBOSE,
)
_ENDING = re.compile(r"(.+?)(n't|'(?:s|d|m|ll|re|ve))")
_TWO = {"cannot": 3, "gonna": 3, "wanna": 3, "gotta": 3, "lemme": 3, "gimme": 3, "'tis": 2, "'twas": 2}
"""Words that are two, and where the second begins."""
_BRACKETS = {"(": "-lrb-", ")": "-rrb-", "[": "-lsb-", "]": "-rsb-", "{": "-lcb-", "}": "-rcb-"}
_PUNCTUATION = {*".?!,:;'`\"-\u201c\u201d\u2018\u2013\u2014\u2026", "''", "``", "--", "---", "...", ".."}


def _parts(token: str) -> tuple[str, ...]:
    if place := _TWO.get(token):
        return token[:place], token[place:]
    ending = _ENDING.fullmatch(token)
    return ending.groups() if ending else (_BRACKETS.get(token, token),)


def cider_d(answers: Sequence[Sequence[str]], references: Sequence[Sequence[Sequence[str]]]) -> list[float]:
    """CIDEr-D of each answer (Vedantam et al. 2015, arXiv:1411.5726); the score of a set is their mean. Words in, as `caption_words` has
    them; `references` holds several captions for each answer.

    Cosine similarity of counts of 1 to 4 words in a row, each weighted by how few of the pictures have it in their references, clipped at
    the reference's count, times a Gaussian of the difference in length; averaged over references and lengths, times 10. Corners: rarity
    is of *this* set of references (the published server's is of the whole of its split), so scores of a part are no part of the score,
    and of a single picture it is 0; length is counted in pairs of words, as in the published code; captions of one word have length 0.

    Raises ValueError where an answer has no reference.
    """
    if len(answers) != len(references) or not all(references):
        raise ValueError(f"{len(answers)} answers for {len(references)} sets of references, each of one caption or more")
    said = [_grams(words) for words in answers]
    right = [[_grams(words) for words in captions] for captions in references]
    pictures = Counter(gram for captions in right for gram in {gram for caption in captions for gram in caption})
    most = math.log(len(references)) if references else 0.0

    def weighed(grams: Grams) -> tuple[list[dict[tuple[str, ...], float]], list[float], int]:
        weights: list[dict[tuple[str, ...], float]] = [{} for _ in range(LONGEST_GRAM)]
        for gram, count in grams.items():
            weights[len(gram) - 1][gram] = count * (most - math.log(max(1, pictures[gram])))
        return weights, [math.sqrt(sum(one * one for one in vector.values())) for vector in weights], _pairs(grams)

    def similarity(one: Any, other: Any) -> float:
        total = 0.0
        for mine, theirs, norm, their_norm in zip(one[0], other[0], one[1], other[1], strict=True):
            common = sum(min(weight, theirs[gram]) * theirs[gram] for gram, weight in mine.items() if gram in theirs)
            if norm and their_norm:
                total += common / (norm * their_norm)
        return total / LONGEST_GRAM * math.exp(-((one[2] - other[2]) ** 2) / (2 * SIGMA**2))

    scores = []
    for grams, captions in zip(said, right, strict=True):
        mine = weighed(grams)
        scores.append(10 * sum(similarity(mine, weighed(caption)) for caption in captions) / len(captions))
    return scores


def _grams(words: Sequence[str]) -> Grams:
    return Counter(tuple(words[i : i + n]) for n in range(1, LONGEST_GRAM + 1) for i in range(len(words) - n + 1))


def _pairs(grams: Grams) -> int:
    return sum(count for gram, count in grams.items() if len(gram) == 2)


BleuCounts = tuple[float, ...]
"""Matches of 1 to 4 words in a row, how many there were of each, words of the answer, words of the nearest reference."""


def bleu4(answers: Sequence[Sequence[str]], references: Sequence[Sequence[Sequence[str]]]) -> float:
    """BLEU-4 of a set (Papineni et al. 2002), from 0 to 1, by sacrebleu (the extra `eval`): words as they are given, no smoothing, the
    nearest reference's length, of two equally near the shorter one.

    Corners: it is of the set, and no mean of sentences; 0 where no four words in a row match anywhere, for which pycocoevalcap's code
    gives about 1e-4 or less by the constants that it adds. What machine translation reports has sacrebleu's own tokens instead.
    """
    counts = [bleu_counts(*pair) for pair in zip(answers, references, strict=True)]
    return bleu_of([sum(column) for column in zip(*counts, strict=True)]) if counts else 0.0


def bleu_counts(answer: Sequence[str], references: Sequence[Sequence[str]]) -> BleuCounts:
    """What one answer adds to the counts of a set."""
    found = _sacrebleu().sentence_score(" ".join(answer), [" ".join(words) for words in references])
    return (*map(float, found.counts), *map(float, found.totals), float(found.sys_len), float(found.ref_len))


def bleu_of(counts: Sequence[float]) -> float:
    """BLEU-4 of summed counts."""
    matches, totals = ([round(one) for one in counts[at : at + LONGEST_GRAM]] for at in (0, LONGEST_GRAM))
    found = _sacrebleu().compute_bleu(matches, totals, round(counts[-2]), round(counts[-1]), smooth_method="none")
    return float(found.score) / 100


def _sacrebleu() -> Any:
    try:
        from sacrebleu.metrics import BLEU
    except ImportError:
        raise ImportError("BLEU-4 is computed by sacrebleu: pip install 'vlmkit[eval]'") from None
    return BLEU(tokenize="none", smooth_method="none", max_ngram_order=LONGEST_GRAM, effective_order=True)


def rouge_l(answer: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    """ROUGE-L of one answer (Lin 2004), as the COCO evaluation has it: the longest common subsequence of words over the words of the
    answer (precision) and of the reference (recall), each at its best over the references, F with recall counting 1.2 times.

    Corners: Lin's own and the package `rouge-score` take one reference, whose precision and recall go together, and F1. 0.0 for an empty
    answer.
    """
    common = [_subsequence(answer, words) for words in references]
    precision = max((one / len(answer) for one in common if answer), default=0.0)
    recall = max((one / len(words) for one, words in zip(common, references, strict=True) if words), default=0.0)
    if not precision or not recall:
        return 0.0
    return (1 + BETA**2) * precision * recall / (recall + BETA**2 * precision)


def _subsequence(one: Sequence[str], other: Sequence[str]) -> int:
    """Length of the longest common subsequence."""
    row = [0] * (len(other) + 1)
    for word in one:
        diagonal = 0
        for place, theirs in enumerate(other, start=1):
            diagonal, row[place] = row[place], diagonal + 1 if word == theirs else max(row[place], row[place - 1])
    return row[-1]
