"""What is in shards: images and their sizes, words, what both cost in tokens under a model, what packing saves.

All images are counted, from the index alone. Words have to be read to be counted in tokens: that is done for some samples
drawn at random, and the sum is taken from theirs.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from vlmkit.architecture import Architecture
from vlmkit.conversation import pictures, read_conversation
from vlmkit.data.packing import first_fit
from vlmkit.data.rejections import Rejections
from vlmkit.data.shards.shards import Shards
from vlmkit.features import GridError
from vlmkit.layout.laid_out import LayoutError
from vlmkit.layout.pieces import ImageTokens
from vlmkit.preprocess.geometry import ImageSizeError, Size

if TYPE_CHECKING:
    from vlmkit.processor import VLMProcessor

BYTES_PER_TOKEN = 4
"""Of English text, about, under the tokenizers of large language models: where none can be loaded."""
_CHUNK = 1 << 20

Numbers = NDArray[np.float64]


@dataclass(frozen=True)
class Values:
    """Different values, ascending, and how often each occurs."""

    values: Numbers
    counts: NDArray[np.int64]

    @classmethod
    def of(cls, pairs: Counter[float]) -> Values:
        ordered = sorted(pairs)
        return cls(np.array(ordered, np.float64), np.array([pairs[value] for value in ordered], np.int64))

    @property
    def number(self) -> int:
        return int(self.counts.sum())

    @property
    def total(self) -> float:
        return float((self.values * self.counts).sum())

    @property
    def mean(self) -> float:
        return self.total / max(1, self.number)

    def at(self, share: float) -> float:
        """The value that this share, 0 to 1, of all lies at or below; 0 where there is none."""
        if not self.number:
            return 0.0
        place = int(np.searchsorted(np.cumsum(self.counts), share * self.number))
        return float(self.values[min(place, len(self.values) - 1)])


@dataclass(frozen=True)
class Source:
    samples: int
    images: int
    text_bytes: int


@dataclass(frozen=True)
class Content:
    """What is there, whatever the model."""

    samples: int
    conversations: int
    images: int
    image_bytes: int
    text_bytes: int
    sources: dict[str, Source]
    sizes: Counter[Size]
    images_per_sample: Values
    text_bytes_per_sample: Values
    rejections: Rejections

    def per_image(self, value: Callable[[Size], float]) -> Values:
        found: Counter[float] = Counter()
        for size, count in self.sizes.items():
            found[value(size)] += count
        return Values.of(found)


@dataclass(frozen=True)
class Cost:
    """What it takes under a model, in tokens."""

    model: str
    visual: Values
    """Visual tokens of each image."""
    refused: dict[str, int]
    """Images that the model does not take, by the reason."""
    sampled: int
    """Samples of which the words were counted."""
    lengths: tuple[int, ...]
    """Tokens of each of their conversations, images included."""
    text_tokens: float
    """Of all conversations: as many a byte as in those that were sampled."""
    estimated: str
    """Why tokens of words are guessed from bytes; empty where the tokenizer counted."""

    def padding(self, batch: int, seed: int = 0) -> float:
        """The share of padding, 0 to 1, where every conversation is a row and `batch` rows are padded to the longest."""
        lengths = list(self.lengths)
        random.Random(seed).shuffle(lengths)
        rows = [lengths[first : first + batch] for first in range(0, len(lengths), batch)]
        return 1 - sum(lengths) / sum(len(row) * max(row) for row in rows) if lengths else 0.0

    def packed_padding(self, length: int) -> float:
        """The same where rows of `length` hold as many conversations as fit; longer ones are left out."""
        fitting = [number for number in self.lengths if number <= length]
        return 1 - sum(fitting) / (length * len(first_fit(fitting, length))) if fitting else 0.0

    def longer_than(self, length: int) -> int:
        """Conversations of those sampled that no row of this length holds."""
        return sum(number > length for number in self.lengths)


def content(shards: Shards) -> Content:
    """Count everything; memory does not grow with the number of samples."""
    rows, sizes, summary = shards.tables.rows, shards.tables.sizes, shards.summary
    per_source = np.zeros((3, len(summary.sources)), np.int64)
    images: Counter[float] = Counter()
    texts: Counter[float] = Counter()
    totals = np.zeros(2, np.int64)
    for first in range(0, len(rows), _CHUNK):
        part = rows[first : first + _CHUNK]
        weights = (np.ones(len(part), np.int64), part["images"], part["text_bytes"])
        per_source += [np.bincount(part["source"], weight, per_source.shape[1]).astype(np.int64) for weight in weights]
        images += _counted(part["images"])
        texts += _counted(part["text_bytes"])
        totals += (int(part["conversations"].sum()), int(part["pictures"].sum()))
    pairs: Counter[int] = Counter()
    for first in range(0, len(sizes), _CHUNK):
        part = sizes[first : first + _CHUNK].astype(np.uint64)
        pairs += _counted(part[:, 0] << np.uint64(32) | part[:, 1])
    return Content(
        samples=len(rows),
        conversations=int(totals[0]),
        images=len(sizes),
        image_bytes=int(totals[1]),
        text_bytes=int(per_source[2].sum()),
        sources={name: Source(*map(int, per_source[:, number])) for number, name in enumerate(summary.sources)},
        sizes=Counter({Size(pair >> 32, pair & 0xFFFFFFFF): count for pair, count in pairs.items()}),
        images_per_sample=Values.of(images),
        text_bytes_per_sample=Values.of(texts),
        rejections=shards.rejections,
    )


def cost(shards: Shards, found: Content, model: Architecture, processor: VLMProcessor | str, *, samples: int = 2000, seed: int = 0) -> Cost:
    """processor: counts the words; in its place, why there is none, and they are guessed from their bytes."""
    planned: dict[Size, ImageTokens] = {}
    refused: dict[str, int] = {}
    visual: Counter[float] = Counter()
    for size, count in found.sizes.items():
        try:
            planned[size] = model.image_tokens(model.plan(size))
            visual[planned[size].count] += count
        except (ImageSizeError, GridError) as error:
            refused[str(error)] = refused.get(str(error), 0) + count
    drawn = sorted(random.Random(seed).sample(range(len(shards)), min(samples, len(shards))))
    lengths: list[int] = []
    words = text_bytes = 0
    for number in drawn:
        sizes = shards.image_sizes(number)
        if all(size in planned for size in sizes):
            here = _lengths(shards, number, [planned[size] for size in sizes], processor)
            lengths += [all_of_it for all_of_it, _ in here]
            words += sum(text for _, text in here)
            text_bytes += shards.text_bytes(number)
    return Cost(
        model=model.name,
        visual=Values.of(visual),
        refused=refused,
        sampled=len(drawn),
        lengths=tuple(lengths),
        text_tokens=words * found.text_bytes / max(1, text_bytes),
        estimated=processor if isinstance(processor, str) else "",
    )


def _lengths(shards: Shards, number: int, images: Sequence[ImageTokens], processor: VLMProcessor | str) -> list[tuple[int, int]]:
    """Tokens of each conversation, and how many of them are no visual tokens. Those that cannot be laid out are left out."""
    if isinstance(processor, str):
        visual, conversations = sum(image.count for image in images), int(shards.tables.rows["conversations"][number])
        words = -(-shards.text_bytes(number) // (BYTES_PER_TOKEN * max(1, conversations)))
        return [(visual + words, words)] * conversations
    found = []
    for conversation in shards.without_images(number).conversations:
        try:
            turns, media = read_conversation(conversation)
            layout = processor.spec.layout.lay_out(turns, [images[image] for image in pictures(media)], processor.plain_tokenizer)
        except LayoutError:
            continue
        found.append((len(layout.ids), len(layout.ids) - sum(span.length for span in layout.spans)))
    return found


def _counted(values: NDArray[np.integer]) -> Counter[int]:
    different, counts = np.unique(values, return_counts=True)
    return Counter(dict(zip(different.tolist(), counts.tolist(), strict=True)))
