"""What goes to a device, and in which order it is asked for."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch

import vlmkit
from tests.tiny import CONVERSATIONS, architecture
from vlmkit.training import copies
from vlmkit.training.copies import Copier


class Streams:
    """Stands in for torch.cuda: notes on which stream what happens. It cannot say whether a GPU does two things at once."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.now = "computing"
        self.events = 0

    def Stream(self, device: torch.device) -> Streams:  # noqa: N802 (torch's name)
        return self

    @contextmanager
    def stream(self, stream: Streams) -> Iterator[None]:
        self.now = "copying"
        yield
        self.now = "computing"

    def current_stream(self, device: torch.device) -> Streams:
        return self

    def record_event(self) -> int:
        self.events += 1
        self.notes.append(f"{self.now}: event {self.events}")
        return self.events

    def wait_event(self, event: int) -> None:
        self.notes.append(f"{self.now}: waits for event {event}")


@pytest.fixture
def batch() -> dict[str, torch.Tensor]:
    return dict(vlmkit.build_processor(architecture())(CONVERSATIONS))


def test_on_a_cpu_a_batch_is_what_it_was(batch):
    copier = Copier(torch.device("cpu"))
    coming = copier.begin(batch)
    assert coming.copied is None
    taken = copier.take(coming)
    assert all(taken[name] is value for name, value in batch.items())


def test_copies_are_asked_for_beside_and_each_computation_waits_for_its_own(batch, monkeypatch):
    streams = Streams()

    def noted(batch, device):
        streams.notes.append(f"{streams.now}: copy")
        return dict(batch)

    monkeypatch.setattr(copies, "to_device", noted)
    copier = Copier(torch.device("cpu"), streams)
    coming = [copier.begin(batch) for _ in range(2)]
    for one in coming:
        taken = copier.take(one)
        assert all(taken[name] is value for name, value in batch.items())
        streams.notes.append(f"{streams.now}: forward")
    assert streams.notes == [
        "copying: copy",
        "copying: event 1",
        "copying: copy",
        "copying: event 2",
        "computing: waits for event 1",
        "computing: forward",
        "computing: waits for event 2",
        "computing: forward",
    ]


def test_whole_numbers_about_views_stay_where_they_are(batch):
    moved = copies.to_device(batch, torch.device("meta"))
    assert {name for name, value in moved.items() if value.device.type == "cpu"} == {"grids"}
    assert moved["pixel_values"].dtype == torch.uint8
