"""Stages in files: what is written is read back, and what does not fit is named with its line."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from recipes.univa.stages import RECIPES
from vlmkit.spec import SpecError
from vlmkit.training.learning import Learn
from vlmkit.training.stage import Source, Stage
from vlmkit.training.stage_files import read_stages, stages_from_yaml, stages_to_yaml

WORDS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12) | st.sampled_from(
    ["no", "1e3", "0x1", "1_0", "~", "null", "true", "<<", "2026-11-27", "1:30", "- a", "a: b", "#", ".5", "=", "yes", "0o7", "\n", " "]
)
RATES = st.floats(1e-12, 1e3)
LEARN = st.builds(
    Learn,
    rate=RATES,
    schedule=st.none() | st.sampled_from(["cosine", "linear", "constant", "infinite"]),
    warmup=st.none() | st.integers(0, 5),
    final=st.none() | st.floats(0, 1),
    weight_decay=st.none() | st.floats(0, 10),
)
NAMES = WORDS.filter(lambda name: name.isprintable() and name.strip() and name[0] != "." and not {*name} & {*"/\\"})
"""Of stages, which are directories too."""
PATHS = st.builds(lambda part, below: f"{part}.{below}", st.sampled_from(["encoder", "fusion", "language_model"]), WORDS).filter(
    lambda path: all(path.split("."))
)
STAGES = st.builds(
    Stage,
    name=NAMES,
    steps=st.integers(5, 10**9),
    batch_size=st.integers(1, 10**6),
    connector=RATES,
    learn=st.dictionaries(PATHS, RATES | LEARN | st.none(), max_size=4),
    betas=st.tuples(st.floats(0, 1, exclude_max=True), st.floats(0, 1, exclude_max=True)),
    weight_decay=st.floats(0, 1),
    ema=st.none() | st.floats(0.1, 0.9999),
    nonfinite=st.sampled_from(["stop", "skip"]),
    compile=st.booleans(),
    optimizer=st.sampled_from(["adamw", "muon"]),
    data=st.lists(st.builds(Source, name=WORDS, weight=RATES), min_size=1, max_size=3, unique_by=lambda source: source.name).map(tuple),
)

GOOD = """\
stages:
  - name: align
    tokens: 1_000_000
    batch_tokens: 4096
    pack: true
    max_length: 2048
    connector: 1e-3
    data: [{name: captions}]
  - name: all
    steps: 20
    batch_size: 4
    learn:
      language_model.experts: 1e-5
      encoder:
        rate: 1e-6
        warmup: 5
      language_model.embeddings: ~
    data:
      - name: no
        weight: 3
"""


@given(stages=st.lists(STAGES, min_size=1, max_size=3, unique_by=lambda stage: stage.name))
def test_what_is_written_is_read_back(stages: list[Stage]) -> None:
    text = stages_to_yaml(stages)
    assert stages_from_yaml(text) == tuple(stages)
    assert [Stage.from_json(stage.to_json()) for stage in stages] == stages


@pytest.mark.parametrize("name", RECIPES)
def test_the_stages_of_a_recipe_are_a_file(name: str, tmp_path: Path) -> None:
    stages = RECIPES[name].stages
    (tmp_path / "stages.yaml").write_text(stages_to_yaml(stages))
    assert read_stages(tmp_path / "stages.yaml") == stages


def test_a_file_says_what_a_person_means_by_it() -> None:
    align, everything = stages_from_yaml(GOOD)
    assert (align.tokens, align.connector, align.data) == (1_000_000, 1e-3, (Source(name="captions"),))
    assert dict(everything.learn) == {
        "language_model.experts": 1e-5,
        "encoder": Learn(rate=1e-6, warmup=5),
        "language_model.embeddings": None,
    }
    assert everything.data == (Source(name="no", weight=3.0),)
    assert yaml.safe_load("rate: 1e-3") == {"rate": "1e-3"}  # why PyYAML's own reading of scalars is not taken


def test_what_stages_share_is_written_once() -> None:
    text = """\
stages:
  - &first {name: one, steps: 3, batch_size: 2, connector: 1e-3, data: [{name: a}]}
  - {<<: *first, name: two, encoder: 1e-4}
"""
    one, two = stages_from_yaml(text)
    assert two == one.replace(name="two", encoder=1e-4)


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ("warmup: 5", "warmupp: 5", "f.yaml, line 16: stages[1].learn['encoder'].warmupp: unknown field, did you mean 'warmup'?"),
        ("batch_size: 4", "batchsize: 4", "f.yaml, line 11: stages[1].batchsize: unknown field, did you mean 'batch_size'?"),
        ("steps: 20", "steps: twenty", "f.yaml, line 10: stages[1].steps: expected int, got 'twenty'"),
        ("weight: 3", "weight: -3", "f.yaml, line 19: stages[1].data[0]: source 'no': the weight has to be more than 0"),
        ("rate: 1e-6", "rate: -1", "f.yaml, line 14: stages[1].learn['encoder']: a learning rate has to be more than 0"),
        ("warmup: 5", "warmup: 50", "f.yaml, line 9: stages[1]: stage 'all': warmup has to be between 0 and the 20 steps, got 50"),
        ("name: align\n    ", "", "f.yaml, line 2: stages[0].name: missing"),
        ("steps: 20", "steps: 20\n    steps: 30", "f.yaml, line 11: steps: given twice"),
        ("stages:", "stage:", "f.yaml: expected `stages:` and a list of them"),
        ("stages:", "schema: 99\nstages:", "f.yaml: schema: this vlmkit reads schema 1, the file says 99"),
        ("stages:", "model: x\nstages:", "f.yaml, line 1: model: unknown field, known: schema, stages"),
        ("[{name: captions}]", "[{name: captions}", "f.yaml, line 9: not YAML: "),
        ("steps: 20", "1: 20", "f.yaml, line 10: a field's name is a word, got '1'"),
        ("steps: 20", "steps: !!python/object/apply:os.getcwd []", "f.yaml, line 10: not YAML: could not determine a constructor"),
        ("steps: 20", "steps: &a [*a]", "f.yaml: something in it is its own part"),
        ("steps: 20", "steps: *nothing", "f.yaml, line 10: not YAML: found undefined alias"),
    ],
)
def test_what_does_not_fit_is_named_with_its_line(before: str, after: str, message: str) -> None:
    assert GOOD.count(before) == 1
    with pytest.raises(SpecError) as error:
        stages_from_yaml(GOOD.replace(before, after), "f.yaml")
    assert str(error.value).startswith(message)


def test_stages_of_one_name_do_not_follow_each_other(tmp_path: Path) -> None:
    (tmp_path / "f.yaml").write_text(GOOD.replace("name: all", "name: align"))
    with pytest.raises(SpecError, match=r"f\.yaml: stages that follow each other need names of their own, but there are several 'align'"):
        read_stages(tmp_path / "f.yaml")


PYTHON = """\
from vlmkit.training.stage import Source, Stage

base = Stage(name="one", steps=3, batch_size=2, connector=1e-3, data=(Source(name="a"),))
STAGES = [
    base.replace(name=f"at-{size}", max_length=size)
    for size in (224, 448, 896)
]
"""


def test_a_python_file_is_run_for_its_variable(tmp_path: Path) -> None:
    (tmp_path / "f.py").write_text(PYTHON)
    assert [stage.name for stage in read_stages(tmp_path / "f.py")] == ["at-224", "at-448", "at-896"]


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ("max_length", "maxlength", r"f\.py, line 5: .*maxlength: unknown field, did you mean 'max_length'"),
        ("STAGES", "stages", r"f\.py: expected a variable STAGES, a list or tuple of Stage; got None"),
        ("(224, 448, 896)", "()", r"f\.py: expected a variable STAGES"),
        ("(224, 448, 896)", "(224, 448, 896", r"f\.py, line \d: not Python"),
        ("at-{size}", "at", r"f\.py: stages that follow each other"),
    ],
)
def test_a_python_file_is_as_strict(tmp_path: Path, before: str, after: str, message: str) -> None:
    (tmp_path / "f.py").write_text(PYTHON.replace(before, after))
    with pytest.raises(SpecError, match=message):
        read_stages(tmp_path / "f.py")


def test_another_file_or_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"read from \.yaml, \.yml and \.py files, not from \.json"):
        read_stages(tmp_path / "f.json")
    with pytest.raises(SpecError, match="cannot be read as stages"):
        read_stages(tmp_path / "none.yaml")
