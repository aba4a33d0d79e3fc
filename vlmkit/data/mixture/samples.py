"""What a mixture takes its samples from, and how it reads only as much of one as it needs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Protocol

from vlmkit.data.sample import Image, Sample
from vlmkit.preprocess.geometry import Size
from vlmkit.preprocess.images import image_size


class Samples(Protocol):
    """Samples by number, for several threads and processes at once. Where there is also `image_sizes(number)`,
    `without_images(number)` and `images(number)`, as shards have them, samples are planned without an image being read, and
    images are read without the words."""

    def __len__(self) -> int: ...
    def __getitem__(self, number: int, /) -> Sample: ...


def words_and_sizes(samples: Any, number: int) -> tuple[Sample, Sequence[Size]]:
    """A sample without its images, and their sizes."""
    if hasattr(samples, "image_sizes"):
        text = samples.without_images if hasattr(samples, "without_images") else samples.__getitem__
        return text(number), samples.image_sizes(number)
    sample: Sample = samples[number]
    return replace(sample, images=()), [image_size(image) for image in sample.images]


def images_alone(samples: Any, number: int) -> Sequence[Image]:
    """The images of a sample, without its words where the source can."""
    images: Sequence[Image] = samples.images(number) if hasattr(samples, "images") else samples[number].images
    return images
