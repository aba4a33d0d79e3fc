from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from recipes.univa.stages import RECIPES
from vlmkit.spec import SpecError
from vlmkit.training.learning import Learn
from vlmkit.training.optimizers import build_optimizers, learning_parameters
from vlmkit.training.stage import Source, Stage

DATA = (Source(name="captions"),)
SCHEDULES = st.sampled_from(["cosine", "linear", "constant", "infinite"])


def packed(**changes) -> Stage:
    return Stage(**{"name": "s", "connector": 1.0, "data": DATA, "pack": True, "max_length": 2048} | changes)


@given(
    steps=st.integers(1, 300), warmup=st.integers(0, 300), final=st.floats(0, 1), schedule=st.sampled_from(["cosine", "linear", "constant"])
)
def test_rates_rise_to_the_peak_and_fall_to_the_end(steps, warmup, final, schedule):
    stage = Stage(name="s", steps=steps, batch_size=1, connector=1.0, warmup=min(warmup, steps), final=final, schedule=schedule, data=DATA)
    factors = [stage.factor(step) for step in range(steps)]
    rising, falling = factors[: stage.warmup], factors[stage.warmup :]
    assert all(0 < factor <= 1 for factor in rising)
    assert rising == sorted(rising)
    assert falling == sorted(falling, reverse=True)
    assert all(final - 1e-9 <= factor <= 1 for factor in falling)
    assert Stage.from_json(stage.to_json()) == stage
    assert stage.scaled(0.01).steps == max(1, round(steps * 0.01))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"connector": None}, "nothing learns"),
        ({"connector": -1.0}, "more than 0"),
        ({"steps": 0}, "steps has to be 1 or more, got 0"),
        ({"warmup": 11}, "between 0 and the 10 steps, got 11"),
        ({"final": 2.0}, "final cannot be 2.0"),
        ({"data": ()}, "needs data"),
        ({"data": DATA * 2}, "each source once"),
        ({"optimiser": "adamw"}, "did you mean 'optimizer'"),
        ({"learn": {"connector": 1.0}}, "connector is given twice"),
        ({"learn": {"conector.layers": 1.0}}, r"learn\['conector.layers'\] is no path of a model; did you mean 'connector'"),
        ({"learn": {"encoder..0": 1.0}}, "no path of a model"),
        ({"learn": {"encoder": 0.0}}, "more than 0"),
        ({"connector": None, "learn": {"encoder": None}}, "nothing learns"),
        ({"learn": {"encoder": Learn(rate=1.0, warmup=11)}}, "between 0 and the 10 steps, got 11"),
        ({"learn": {"encoder": "fast"}}, r"Stage.learn\['encoder'\]: expected .*Learn.*, got 'fast'"),
        ({"learn": [1.0]}, "expected an object of names and values"),
        ({"cooldown": 2}, "cooldown belongs to the schedule 'infinite', but this is 'cosine'"),
        ({"shift": 2}, "shift belongs to the schedule 'infinite'"),
        ({"schedule": "infinite", "warmup": 5, "cooldown": 6}, "5 updates of warmup and 6 of cooldown are more than its 10"),
        ({"timescale": 0}, "timescale cannot be 0"),
        ({"betas": (0.9, 1.0)}, r"betas cannot be \(0.9, 1.0\)"),
        ({"name": ""}, "a stage's name is that of a directory too"),
        ({"name": "a/b"}, "no slash, no dot before it; got 'a/b'"),
        ({"name": ".."}, "no slash, no dot before it; got '..'"),
        ({"name": "a\nb"}, "a stage's name is that of a directory too"),
        ({"tokens": 100}, "10 steps and as 100 tokens; leave one out"),
        ({"steps": 0, "tokens": 100}, "tokens counts tokens of packed rows; give pack=True and max_length"),
        ({"batch_tokens": 100}, "batch_tokens counts tokens of packed rows"),
        ({"batch_tokens": 100, "accumulate": 2}, "leave accumulate=2 out"),
        ({"batch_size": 0}, "batch_size has to be 1 or more, got 0"),
        ({"ema": 1.0}, "a decay between 0 and 1, such as 0.999; got 1.0"),
        ({"nonfinite": "ignore"}, "expected one of 'stop', 'skip', got 'ignore'"),
    ],
)
def test_a_stage_that_makes_no_sense_says_why(changes, words):
    stage = Stage(name="s", steps=10, batch_size=1, connector=1.0, data=DATA)
    with pytest.raises(SpecError, match=words):
        stage.replace(**changes)


def test_only_matrices_decay_and_a_shared_weight_is_there_once():
    stage = Stage(name="s", steps=1, batch_size=1, encoder=0.1, language_model=0.2, weight_decay=0.5, data=DATA)
    parts = {"encoder": torch.nn.Linear(2, 2), "connector": torch.nn.Linear(2, 2), "language_model": torch.nn.LayerNorm(2)}
    parts["language_model"].shared = parts["encoder"].weight
    (optimizer,) = build_optimizers(stage, parts, fused=False)
    groups = [(group["peak"], group["weight_decay"], [parameter.ndim for parameter in group["params"]]) for group in optimizer.param_groups]
    assert groups == [(0.1, 0.5, [2]), (0.1, 0.0, [1]), (0.2, 0.0, [1, 1])]
    assert [name for _, name, _ in learning_parameters(stage, parts)] == ["weight", "bias", "weight", "bias"]


@given(
    steps=st.integers(1, 300),
    warmup=st.integers(0, 150),
    cooldown=st.integers(0, 150),
    timescale=st.integers(1, 20_000),
    shift=st.integers(0, 10_000),
    final=st.floats(0, 1),
)
def test_the_infinite_schedule_is_warm_up_times_the_inverse_root_times_cool_down(steps, warmup, cooldown, timescale, shift, final):
    """big_vision's formula (google-research/big_vision, utils.py), but for a warm-up whose first update is 1 / warmup and not 0."""
    warmup, cooldown = min(warmup, steps), min(cooldown, steps - min(warmup, steps))
    stage = Stage(
        name="s",
        steps=steps,
        batch_size=1,
        connector=1.0,
        schedule="infinite",
        warmup=warmup,
        cooldown=cooldown,
        timescale=timescale,
        shift=shift,
        data=DATA,
    )
    for step in range(steps):
        expected = (1 + (max(step - warmup, 0) + shift) / timescale) ** -0.5
        expected *= min(1, (step + 1) / warmup) if warmup else 1
        expected *= min(1, (steps - step) / cooldown) if cooldown else 1
        assert stage.factor(step) == pytest.approx(expected, rel=1e-12)
    factors = [stage.replace(final=final).factor(step) for step in range(steps)]
    assert factors[warmup:] == sorted(factors[warmup:], reverse=True)
    assert all(0 < factor <= 1 for factor in factors)


def test_an_infinite_stage_that_is_cut_in_two_goes_on_where_it_was():
    whole = Stage(name="s", steps=40, batch_size=1, connector=1.0, schedule="infinite", timescale=10, data=DATA)
    rest = whole.replace(steps=25, shift=15)
    assert [whole.factor(step) for step in range(15, 40)] == pytest.approx([rest.factor(step) for step in range(25)], rel=1e-12)


@given(data=st.data(), schedule=SCHEDULES, own=SCHEDULES)
def test_what_a_path_does_not_say_is_the_stages_own(data, schedule, own):
    steps = data.draw(st.integers(1, 100))
    warmup, of_path = data.draw(st.integers(0, steps)), data.draw(st.integers(0, steps))
    stage = Stage(
        name="s",
        steps=steps,
        batch_size=1,
        connector=1e-3,
        schedule=schedule,
        warmup=warmup,
        final=0.1,
        weight_decay=0.5,
        learn={"encoder": 3e-4, "fusion": Learn(rate=2.0, schedule=own, warmup=of_path, final=0.3, weight_decay=0.0)},
        data=DATA,
    )
    other = stage.replace(schedule=own, warmup=of_path, final=0.3)
    for step in range(steps):
        assert stage.rate("connector", step) == 1e-3 * stage.factor(step)
        assert stage.rate("encoder", step) == 3e-4 * stage.factor(step)
        assert stage.rate("fusion", step) == 2.0 * other.factor(step)
    assert (stage.decay("encoder"), stage.decay("fusion")) == (0.5, 0.0)
    assert Stage.from_json(stage.to_json()) == stage
    assert len({stage, stage.replace()}) == 1
    with pytest.raises(SpecError, match="nothing learns by the name of 'language_model'; what does: connector, encoder, fusion"):
        stage.rate("language_model", 0)


def test_a_part_learns_where_any_path_in_it_does():
    stage = Stage(name="s", steps=1, batch_size=1, learn={"language_model.experts": 1.0, "encoder": None, "head": 1.0}, data=DATA)
    assert [part for part in ("encoder", "connector", "fusion", "language_model", "head") if stage.learns(part)] == [
        "language_model",
        "head",
    ]


def test_recipes_of_before_are_written_as_they_were():
    """A run is continued only where its configuration is the one that was written: fields that came later must not show."""
    for recipe in RECIPES.values():
        for stage in recipe.to_dict()["stages"]:
            # Nothing of the full preset was ever written without its tokens.
            assert stage.keys() & Stage.later == ({"batch_tokens"} if recipe.name == "full" else set())
            assert list(stage)[:3] == ["name", "steps", "batch_size"]
    changed = RECIPES["tiny"].stages[0].replace(nonfinite="skip", ema=0.99, compile=True).to_dict()
    assert changed.keys() & Stage.later == {"nonfinite", "ema", "compile"}


@given(
    rows=st.integers(1, 8),
    length=st.integers(1, 4096),
    processes=st.integers(1, 64),
    accumulate=st.integers(1, 16),
    extra=st.integers(0, 10**6),
)
def test_tokens_become_the_steps_and_micro_batches_that_hold_them(rows, length, processes, accumulate, extra):
    once = rows * length * processes
    stage = packed(batch_size=rows, max_length=length, batch_tokens=once * accumulate, tokens=once * accumulate + extra)
    plain = stage.resolved(processes)
    assert (plain.batch_size, plain.accumulate, plain.tokens, plain.batch_tokens) == (rows, accumulate, None, None)
    an_update = plain.batch_size * plain.accumulate * processes * length
    assert an_update == stage.batch_tokens
    assert (plain.steps - 1) * an_update < stage.tokens <= plain.steps * an_update
    assert plain.resolved(processes) is plain
    assert stage.from_json(stage.to_json()) == stage


def test_tokens_that_do_not_divide_are_refused_with_those_that_would():
    with pytest.raises(
        SpecError, match=r"batch_tokens 100000 is no multiple of the 16384 tokens that 2 process.*; 98304 or 114688 would be"
    ):
        packed(batch_size=4, batch_tokens=100_000, steps=10).resolved(2)
    with pytest.raises(SpecError, match=r"; 16384 would be"):
        packed(batch_size=4, batch_tokens=100, steps=10).resolved(2)
    assert packed(batch_tokens=3 * 2048, steps=1).resolved(1).accumulate == 3
    assert packed(batch_size=1, accumulate=2, tokens=5 * 4096 + 1).resolved(1).steps == 6


def test_a_length_in_tokens_has_no_rates_until_it_is_steps():
    stage = packed(batch_size=1, tokens=2048 * 10, warmup=3)
    with pytest.raises(SpecError, match=r"20480 tokens; stage.resolved\(processes\) says how many steps"):
        stage.factor(0)
    assert stage.resolved(1).factor(0) == 1 / 3
    with pytest.raises(SpecError, match="between 0 and the 2 steps, got 3"):
        stage.resolved(5)


@given(fraction=st.floats(0.001, 1), warmup=st.integers(0, 40), own=st.integers(0, 40), cooldown=st.integers(0, 60))
def test_a_fraction_of_a_stage_is_one(fraction, warmup, own, cooldown):
    learn = {"encoder": Learn(rate=1.0, warmup=own), "connector": 1.0}
    stage = Stage(name="s", steps=100, batch_size=1, learn=learn, warmup=warmup, cooldown=cooldown, schedule="infinite", data=DATA)
    scaled = stage.scaled(fraction)
    assert scaled.steps == max(1, round(100 * fraction))
    assert scaled.warmup <= scaled.steps
    assert stage.scaled(1.0) == stage
    assert packed(batch_size=1, tokens=1000).scaled(fraction).tokens == max(1, round(1000 * fraction))
