"""Questions about images that an annotation file lists by question: one sample an image, one conversation a question.

So an image is stored and encoded once, and the questions about it do not see each other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from vlmkit.data.reading.rows import AnnotationRow, Groups, each
from vlmkit.data.reading.wording import ask
from vlmkit.data.sample import Image, Rejected, Sample


def by_image(
    source: str,
    rows: Iterable[AnnotationRow | Rejected],
    read: Callable[[AnnotationRow], tuple[str, str, str]],
    find: Callable[[str], Image],
) -> Iterator[Sample | Rejected]:
    """read: a row -> name of the image, question, answer; find: the image of that name, which is the sample's id too.

    All rows are read before the first sample comes; questions and answers are held meanwhile (`Groups`).
    """
    groups = Groups()
    for rejected in each(source, rows, lambda row: groups.add(*read(row))):
        if rejected is not None:
            yield rejected
    for name, pairs in groups:
        yield Sample((find(name),), tuple(ask(question, answer) for question, answer in pairs), source, name)
