"""What makes batches of rows: the same in any process, and without a copy of pixels."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest
import torch

import vlmkit
from tests.data.mixed import jpeg, same, sample
from tests.tiny import architecture, part
from vlmkit.architecture import Architecture, VisionTower
from vlmkit.connectors.joined import Joined
from vlmkit.data.mixture import DataSource, Mixture
from vlmkit.data.mixture.windows import PlannedRow
from vlmkit.data.sample import Sample
from vlmkit.data.shards import Shards, ShardWriter

TWO = architecture(connector=Joined(), policy="squash").replace(
    beside=(VisionTower(policy=part(vlmkit.policies, "squash", size=64), encoder=part(vlmkit.encoders, "clip", patch=16)),)
)
"""Each of its towers has pixels of its own."""


def mixture(*kinds: str, of: Architecture | None = None) -> tuple[Mixture, list[PlannedRow]]:
    samples = [sample("a", number, kind) for number, kind in enumerate(kinds)]
    made = Mixture(
        [DataSource("a", samples)], vlmkit.build_processor(of or architecture()), rows=2, length=300, pack=True, limit=1.0, epochs=1
    )
    return made, made.windows[0].rows


def test_a_maker_in_another_process_makes_the_same_batch() -> None:
    mixed, rows = mixture("one", "two", "several", "truncated", "turns")
    batch, failed = mixed.maker()[rows]
    again, failed_again = pickle.loads(pickle.dumps(mixed.maker(threads=2)))[rows]
    assert same(batch, again)
    assert failed == failed_again
    assert [(one.id, one.reason) for one in failed] == [("a3", "image cannot be decoded")]


@pytest.mark.parametrize("of", [architecture(), TWO], ids=["one tower", "two towers"])
def test_pixels_are_decoded_into_the_batch_and_moved_only_where_an_image_is_left_out(of: Architecture) -> None:
    for kinds, copied in ((("one", "two", "one"), False), (("one", "truncated", "one"), True)):
        mixed, rows = mixture(*kinds, of=of)
        maker = mixed.maker()
        rooms: list[tuple[torch.Tensor, ...]] = []
        give = maker.processor.room
        maker.processor.room = lambda planned, rooms=rooms, give=give: rooms.extend(give(planned)) or rooms
        (batch, _) = maker[rows]
        images = [maker.processor.render_image(jpeg(number + more)) for number, more in shown(rows, mixed)]
        sets = [
            [image.pixel_values for image in images],
            *([image.beside[n].pixel_values for image in images] for n in range(len(of.beside))),
        ]
        for number, (place, patches) in enumerate(zip(rooms[0], sets, strict=True)):
            pixels = batch[f"pixel_values_{number}" if number else "pixel_values"]
            assert (pixels.data_ptr() != place.data_ptr()) == copied
            assert torch.equal(pixels, torch.cat(patches))


def shown(rows: list[PlannedRow], mixed: Mixture) -> list[tuple[int, int]]:
    """Of every image of the rows that can be decoded: the number of its sample, and its place in it."""
    samples: Any = mixed.sources[0].samples
    parts = [part for row in rows for part in row if decodable(samples[part.sample])]
    return [(part.sample, image) for part in parts for image in part.piece.images]


def decodable(found: Sample) -> bool:
    return all(image.endswith(b"\xff\xd9") for image in found.images if isinstance(image, bytes))


def test_a_sample_that_storage_has_changed_is_counted_as_that(tmp_path: Path) -> None:
    with ShardWriter(tmp_path / "shards") as writer:
        for number in range(3):
            writer.write(sample("a", number, "one"))
    shard = tmp_path / "shards" / "shard-000000.tar"
    mixed = Mixture([DataSource("a", Shards(tmp_path / "shards"))], vlmkit.build_processor(architecture()), rows=3, limit=1.0)
    rows = mixed.windows[0].rows[:3]
    data = bytearray(shard.read_bytes())
    data[data.index(b"\xff\xd8") + 300] ^= 1
    shard.write_bytes(data)
    _, failed = mixed.maker()[rows]
    assert [(one.id, one.reason) for one in failed] == [("a0", "sample cannot be read")]


class Indexed(list[Sample]):
    """Samples of which sizes, words and images can be had apart, as shards give them."""

    def __init__(self, samples: list[Sample]) -> None:
        super().__init__(samples)
        self.asked: list[str] = []

    def __getitem__(self, number: Any) -> Any:
        self.asked.append("all")
        return super().__getitem__(number)

    def image_sizes(self, number: int) -> list[vlmkit.Size]:
        from vlmkit.preprocess.images import image_size

        return [image_size(image) for image in super().__getitem__(number).images]

    def without_images(self, number: int) -> Sample:
        found = super().__getitem__(number)
        return Sample((), found.conversations, found.source, found.id)

    def images(self, number: int) -> Any:
        return super().__getitem__(number).images


def test_where_words_and_images_can_be_had_apart_nothing_is_read_twice() -> None:
    samples = [sample("a", number, kind) for number, kind in enumerate(["one", "two", "turns", "truncated"])]
    batches = []
    for source in (samples, Indexed(samples)):
        mixed = Mixture([DataSource("a", source)], vlmkit.build_processor(architecture()), rows=4, length=300, pack=True, limit=1.0)
        batches.append(next(mixed.batches()))
    assert same(*batches)
    assert source.asked == []
