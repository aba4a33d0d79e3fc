"""Rules of engines, and what follows from them, over steps that were not traced: no torch."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import vlmkit
from vlmkit.architecture import PARTS
from vlmkit.planning import Hardware, Job, PlanError
from vlmkit.planning.engines import ENGINES, traffic
from vlmkit.planning.memory import largest_micro_batch, memory
from vlmkit.planning.trace import Part, Trace, undominated

UNIVA = vlmkit.architecture("univa-vl")
BILLION = 10**9


def step(learning: int, frozen: int, peak: int = 10 * BILLION, passes: bool = True) -> Trace:
    """Activations rise and fall, gradients rise."""
    gradients = 2 * learning
    moments = ((0, 0, 0), (peak // 2, 0, 0), (peak, peak // 10, 0), (peak // 2, 0, gradients // 2), (0, 0, gradients))
    return Trace(
        moments=moments,
        flops=10**15,
        parts={"encoder": Part(frozen, 0, passes), "language_model": Part(learning, learning, True)},
        largest_block=learning // 64,
        outside_blocks=learning // 32,
        buffers=0,
    )


def job(**fields: object) -> Job:
    return Job(model=UNIVA, **fields)  # type: ignore[arg-type]


def standing(engine: str, trace: Trace, gpus: int) -> float:
    """Weights, gradients and optimizer after the backward pass."""
    nothing = Trace(moments=(trace.moments[-1],), flops=0, parts=trace.parts, largest_block=0, outside_blocks=0, buffers=0)
    found = memory(engine, job(), nothing, gpus, 1)
    return found.weights + found.gradients + found.optimizer


@pytest.mark.parametrize(("gpus", "expected"), [(8, 65.8), (16, 32.9), (32, 16.4), (64, 8.2)])
@pytest.mark.parametrize("engine", ["zero3", "fsdp2"])
def test_full_tuning_takes_sixteen_bytes_a_parameter_divided_by_the_gpus(engine: str, gpus: int, expected: float) -> None:
    total = UNIVA.parameters().total
    assert standing(engine, step(total, 0), gpus) / 1e9 == pytest.approx(expected, rel=0.01)


def test_zero3_sends_the_weights_three_times() -> None:
    """Two gathers and one reduction of 65.8 GB each: 197 GB."""
    total = UNIVA.parameters().total
    assert traffic("zero3", job(), step(total, 0), 512).total / 1e9 == pytest.approx(197, rel=0.01)


def test_what_no_gradient_passes_is_gathered_once() -> None:
    frozen = BILLION
    with_it, without = (traffic("fsdp2", job(), step(BILLION, frozen, passes=passes), 8) for passes in (True, False))
    assert with_it.all_gather - without.all_gather == pytest.approx(2 * frozen * 7 / 8)


sizes = st.integers(10**6, 50 * BILLION)


@given(engine=st.sampled_from(ENGINES), learning=sizes, frozen=sizes, peak=sizes, memory_gb=st.integers(10, 2000))
@settings(max_examples=200, deadline=None)
def test_the_largest_micro_batch_is_the_last_that_fits(engine: str, learning: int, frozen: int, peak: int, memory_gb: int) -> None:
    found, hardware = step(learning, frozen, peak), Hardware(gpus=16, memory=memory_gb * 1e9)
    rows = largest_micro_batch(engine, job(), found, hardware)
    taken = [memory(engine, job(), found, 16, count).total for count in (max(rows, 1), rows + 1)]
    assert (taken[0] <= hardware.usable) == (rows > 0)
    assert taken[1] > hardware.usable


@given(learning=sizes, frozen=sizes, peak=sizes, rows=st.integers(1, 8), gpus=st.integers(2, 512))
@settings(max_examples=200, deadline=None)
def test_more_is_spread_the_less_stands_on_a_gpu(learning: int, frozen: int, peak: int, rows: int, gpus: int) -> None:
    found = step(learning, frozen, peak)
    ddp, zero2, zero3 = (standing(engine, found, gpus) for engine in ("ddp", "zero2", "zero3"))
    assert zero3 < zero2 < ddp
    for engine in ENGINES[2:]:
        assert standing(engine, found, 2 * gpus) < standing(engine, found, gpus)
    for engine in ENGINES:
        fewer, more = (memory(engine, job(), found, gpus, count).total for count in (rows, rows + 1))
        assert more >= fewer


@given(engine=st.sampled_from(ENGINES[1:]), learning=sizes, frozen=sizes, gpus=st.integers(2, 512))
@settings(max_examples=100, deadline=None)
def test_traffic_grows_with_the_gpus_to_a_bound(engine: str, learning: int, frozen: int, gpus: int) -> None:
    fewer, more = (traffic(engine, job(), step(learning, frozen), count).total for count in (gpus, gpus + 1))
    assert 0 < fewer < more <= (12 if engine == "fsdp2" else 8) * (learning + frozen)


def test_what_columns_are_supervised_in_any_row_goes_through_the_head_in_every_row() -> None:
    """p = 55 of 289 in each of 7 samples: 4 rows have more than 4 times the logits of one."""
    one = job()
    found = Trace(
        moments=((0, 10**9, 0),), flops=0, parts={"language_model": Part(1, 1, True)}, largest_block=0, outside_blocks=0, buffers=0
    )
    share = one.supervised_a_row / one.length
    expected = 4 * (1 - (1 - share) ** 4) / share
    assert memory("single", one, found, 1, 4).logits / 1e9 == pytest.approx(expected)
    assert 4 < expected < 4 / share


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"learns": ("tower",)}, "there is no part 'tower' that could learn; the parts are encoder, connector, fusion, language_model"),
        ({"learns": ()}, "nothing learns"),
        ({"length": 200}, "an image of 640x480 and its text are 289 tokens under univa-vl, more than a row of 200"),
        ({"micro_batch": 0}, "micro_batch has to be 1 or more, got 0"),
        ({"images": 0}, "images has to be 1 or more, got 0"),
    ],
)
def test_a_job_that_cannot_be_is_refused(fields: dict[str, object], words: str) -> None:
    with pytest.raises(PlanError, match=words):
        job(**fields)


def test_a_row_holds_whole_samples() -> None:
    found = job(length=2048, learns=PARTS)
    assert (found.visual_tokens, found.sample_tokens, found.samples_a_row, found.supervised_a_row) == (234, 289, 7, 385)
    seen = Job(model=vlmkit.architecture("llama-3.2-11b-vision"), length=2048)
    assert seen.sample_tokens == seen.text_tokens, "under cross-attention an image takes no place of the row"


moments = st.lists(st.tuples(*[st.integers(0, 9)] * 3), min_size=1, max_size=60)
weights = st.tuples(*[st.floats(0, 10)] * 3)


@given(moments=moments, weights=weights)
def test_the_peak_is_among_the_moments_that_are_kept(moments: list[tuple[int, int, int]], weights: tuple[float, float, float]) -> None:
    def total(moment: tuple[int, int, int]) -> float:
        return sum(weight * value for weight, value in zip(weights, moment, strict=True))

    kept = undominated(moments)
    assert set(kept) <= set(moments)
    assert max(map(total, kept)) == max(map(total, moments))
