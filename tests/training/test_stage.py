from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vlmkit.spec import SpecError
from vlmkit.training.optimizers import build_optimizers, learning_parameters
from vlmkit.training.stage import Source, Stage

DATA = (Source(name="captions"),)


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
