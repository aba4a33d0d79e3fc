"""Stopped anywhere and continued, twice: the same batches bit for bit, the same counts, whoever makes them."""

from __future__ import annotations

import json
from math import lcm
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.data.mixed import BAD, GOOD, counted, processor, run, same, sample, state_of
from vlmkit.data.mixture import DataSource, Mixture
from vlmkit.data.mixture.state import MixtureStateError
from vlmkit.data.sample import DataError

KINDS = st.sampled_from(GOOD * 3 + BAD)


@st.composite
def mixtures(draw: st.DrawFn) -> dict[str, Any]:
    """Arguments of a mixture: the same arguments make the same one, as a process that was just started would."""
    names = draw(st.lists(st.sampled_from("abc"), min_size=1, max_size=3, unique=True))
    weighted = draw(st.booleans())
    sources = []
    for name in names:
        kinds = ["none", *draw(st.lists(KINDS, max_size=12))]
        samples = [sample(name, number, kind) for number, kind in enumerate(kinds)]
        sources.append(DataSource(name, samples, draw(st.floats(0.25, 4)) if weighted else None))
    pack = draw(st.booleans())
    return {
        "sources": sources,
        "rows": draw(st.integers(1, 3)),
        "length": draw(st.sampled_from([70, 100, 200] + [None] * (not pack))),
        "pack": pack,
        "seed": draw(st.integers(0, 3)),
        "epochs": draw(st.sampled_from([None, None, 1, 2])),
        "window": draw(st.sampled_from([1, 3, 10, 40])),
        "limit": 1.0,
    }


@st.composite
def runs(draw: st.DrawFn) -> dict[str, Any]:
    """A mixture, and three pieces of a run: how many steps, and by how many processes."""
    mixture = draw(mixtures())
    ends = mixture["epochs"] is not None
    worlds = [1, 1, 1] if ends else draw(st.lists(st.integers(1, 3), min_size=3, max_size=3))
    streams = 1 if ends else draw(st.sampled_from([1, 2, 3, 4]))
    steps, taken = [], 0
    for world, following in zip(worlds, [*worlds[1:], 1], strict=True):
        # Micro-batches that were taken are shared equally by those who go on.
        each = lcm(world, following)
        stop = (-(-taken // each) + draw(st.integers(0, 2 if each > 2 else 5))) * each
        steps.append((stop - taken) // world)
        taken = stop
    return {"mixture": mixture, "worlds": worlds, "streams": streams, "steps": steps, "threads": draw(st.sampled_from([1, 1, 2]))}


def check(drawn: dict[str, Any], workers: int = 0) -> None:
    def made() -> Mixture:
        return Mixture(processor=processor(), **drawn["mixture"])

    worlds, steps = drawn["worlds"], drawn["steps"]
    total = sum(number * world for number, world in zip(steps, worlds, strict=True))
    wanted, wanted_state = run(made(), total, streams=drawn["streams"])
    state: dict[str, Any] | None = None
    taken: list[Any] = []
    for world, number in zip(worlds, steps, strict=True):
        # Saved at once after it was restored, it is the same state.
        again = state_of([made().batches(state, rank=rank, world=world, streams=drawn["streams"]) for rank in range(world)])
        assert state is None or counted(again) == counted(state)
        batches, state = run(made(), number, again, world=world, workers=workers, threads=drawn["threads"])
        state = json.loads(json.dumps(state))
        taken += batches
    assert len(taken) == len(wanted)
    assert all(same(one, other) for one, other in zip(taken, wanted, strict=True))
    assert state is not None
    assert counted(state) == counted(json.loads(json.dumps(wanted_state)))


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(runs())
def test_a_run_stopped_twice_is_the_run_that_was_not(drawn: dict[str, Any]) -> None:
    check(drawn)


@settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck))
@given(runs(), st.integers(1, 2))
def test_and_so_with_worker_processes(drawn: dict[str, Any], workers: int) -> None:
    check(drawn, workers)


class Counting(list[Any]):
    """Samples that count how often one is read."""

    reads = 0

    def __getitem__(self, number: Any) -> Any:
        self.reads += 1
        return super().__getitem__(number)


def test_the_cost_of_a_resume_does_not_grow_with_the_step_and_neither_does_the_state() -> None:
    def made() -> tuple[Counting, Mixture]:
        samples = Counting(sample("a", number, "one") for number in range(50))
        return samples, Mixture([DataSource("a", samples)], processor(), rows=2, length=200, pack=True, window=20)

    reads, sizes = [], []
    state = made()[1].batches().state()
    for steps in (3, 60, 60):
        state = run(made()[1], steps, state)[1]
        samples, mixture = made()
        begun = mixture.batches(state)
        next(begun)
        begun.close()
        reads.append(samples.reads)
        sizes.append(len(json.dumps(state)))
    assert state["batch"] == 123
    # A window is planned, another ahead of it, and the rows of one batch are read.
    assert max(reads) <= 2 * 20 + 20
    assert max(sizes) - min(sizes) <= 10


def test_every_sample_once_an_epoch_whatever_the_window_and_however_many_take_part() -> None:
    kinds = [GOOD[number % len(GOOD)] for number in range(37)]

    def texts(world: int, **options: Any) -> list[str]:
        mixture = Mixture([DataSource("a", [sample("a", n, kind) for n, kind in enumerate(kinds)])], processor(), epochs=2, **options)
        batches, state = run(mixture, None, world=world)
        assert state["rejected"]["rejected"] == []
        assert state["rejected"]["seen"] == {"a": 74}
        rows = [row for batch in batches for row in processor().batch_decode(batch["input_ids"])]
        questions = [piece.split("?")[0] for row in rows for piece in row.split("a")[1:] if piece[0].isdigit()]
        return sorted(questions)

    expected = texts(1, rows=1)
    assert len(expected) == 2 * sum(3 if kind == "several" else 1 for kind in kinds)
    for world, options in ((1, {"rows": 2, "window": 5}), (3, {"rows": 2}), (2, {"rows": 1, "length": 400, "pack": True, "window": 8})):
        assert texts(world, **options) == expected


def mixture_of(count: int = 20, **options: Any) -> Mixture:
    samples = [sample("a", number, "one") for number in range(count)]
    return Mixture([DataSource("a", samples)], processor(), **({"rows": 2, "length": 200, "pack": True, "window": 10} | options))


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"count": 21}, "sources.a.samples: saved with 20, now 21"),
        ({"seed": 5}, "seed: saved with 0, now 5"),
        ({"rows": 3}, "rows: saved with 2, now 3"),
        ({"length": 100}, "length: saved with 200, now 100"),
        ({"window": 11, "pack": False}, "pack: saved with true, now false"),
        ({"epochs": 1}, "epochs: saved with null, now 1"),
    ],
)
def test_another_mixture_is_refused_with_both_values(changed: dict[str, Any], words: str) -> None:
    state = run(mixture_of(), 2)[1]
    with pytest.raises(MixtureStateError, match=words):
        mixture_of(**changed).batches(state)


def test_a_number_of_processes_that_cannot_have_shared_the_batches_is_refused() -> None:
    state = run(mixture_of(), 1, world=4)[1]
    assert mixture_of().batches(state, world=2).state()["batch"] == 4
    with pytest.raises(MixtureStateError, match="4 micro-batches were taken, which 3 processes cannot have shared equally"):
        mixture_of().batches(state, world=3)
    with pytest.raises(DataError, match=r"a mixture that ends after 1 epoch\(s\) is one stream"):
        mixture_of(epochs=1).batches(world=2, streams=2)


def test_states_of_different_steps_are_not_put_together() -> None:
    one, other = (mixture_of().batches(rank=rank, world=2) for rank in range(2))
    next(one)
    with pytest.raises(MixtureStateError, match="processes stand at batches 2 and 0"):
        state_of([one, other])
    with pytest.raises(MixtureStateError, match="says nothing of stream 1"):
        mixture_of().batches(one.state())
