"""Orders: every sample once an epoch, shares exact, any place at once, nothing kept."""

from __future__ import annotations

import time
import tracemalloc
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlmkit.data.mixture import order
from vlmkit.data.mixture.order import Order, Place
from vlmkit.data.packing import first_fit

SIZES = st.lists(st.integers(1, 40), min_size=1, max_size=4)


@given(SIZES, st.integers(0, 9), st.integers(1, 3))
def test_without_weights_every_sample_of_every_source_comes_once_an_epoch(sizes: list[int], seed: int, epochs: int) -> None:
    mixed = Order(sizes, seed=seed, epochs=epochs)
    assert mixed.length == epochs * sum(sizes)
    for epoch in range(epochs):
        places = [mixed[place] for place in range(epoch * sum(sizes), (epoch + 1) * sum(sizes))]
        assert sorted(places) == [Place(source, number, epoch) for source, size in enumerate(sizes) for number in range(size)]


@given(SIZES, st.data())
def test_weights_are_shares_at_every_place_and_counts_say_what_came_before(sizes: list[int], data: st.DataObject) -> None:
    weights = data.draw(st.lists(st.floats(0.01, 100), min_size=len(sizes), max_size=len(sizes)))
    mixed = Order(sizes, weights, seed=0)
    found: Counter[int] = Counter()
    for place in range(60):
        assert mixed.counts(place) == tuple(found[source] for source in range(len(sizes)))
        for source, weight in enumerate(weights):
            assert abs(found[source] - place * weight / sum(weights)) < len(sizes)
        found[mixed[place].source] += 1


@given(SIZES, st.data(), st.integers(1, 3))
def test_with_weights_and_epochs_the_source_that_is_through_first_ends_it(sizes: list[int], data: st.DataObject, epochs: int) -> None:
    weights = data.draw(st.lists(st.integers(1, 9), min_size=len(sizes), max_size=len(sizes)))
    mixed = Order(sizes, weights, seed=0, epochs=epochs)
    assert mixed.length is not None
    assert all(count <= epochs * size for count, size in zip(mixed.counts(mixed.length), sizes, strict=True))
    assert any(count > epochs * size for count, size in zip(mixed.counts(mixed.length + 1), sizes, strict=True))


def test_large_sources_are_shuffled_by_number_and_each_epoch_and_source_in_its_own_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(order, "LISTED", 99)
    mixed = Order([3000, 3000], seed=7)
    orders = {}
    for epoch in range(2):
        places = [mixed[place] for place in range(epoch * 6000, (epoch + 1) * 6000)]
        for source in range(2):
            orders[epoch, source] = [place.sample for place in places if place.source == source]
            assert sorted(orders[epoch, source]) == list(range(3000))
    assert len(set(map(tuple, orders.values()))) == 4
    assert [place for place in range(3000) if orders[0, 0][place] == orders[1, 0][place]] != list(range(3000))


def test_ten_million_samples_are_shuffled_in_no_time_and_no_memory() -> None:
    Order([1 << 17], seed=0)[0]  # grain is loaded
    tracemalloc.start()
    begun = time.process_time()
    mixed = Order([10_000_000, 5], [3.0, 1.0], seed=0)
    numbers = {mixed[place].sample for place in range(0, 10**12, 10**9) if mixed[place].source == 0}
    assert time.process_time() - begun < 2  # measured 0.05
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()
    assert len(numbers) > 700


@given(st.lists(st.integers(1, 100), max_size=60), st.integers(100, 300))
def test_first_fit_places_everything_once_in_rows_that_hold_it(lengths: list[int], capacity: int) -> None:
    rows = first_fit(lengths, capacity)
    assert sorted(number for row in rows for number in row) == list(range(len(lengths)))
    used = [sum(lengths[number] for number in row) for row in rows]
    assert all(0 < length <= capacity for length in used)
    assert sum(length <= capacity // 2 for length in used) <= 1, "two half empty rows would have been one"


def test_what_no_row_can_hold_is_refused() -> None:
    with pytest.raises(ValueError, match="a sample of 101 tokens does not fit into a row of 100"):
        first_fit([3, 101], 100)
