"""Stages of a file are planned as the trainer reads them."""

from __future__ import annotations

from pathlib import Path

import pytest

import vlmkit
from vlmkit.planning import Job, PlanError
from vlmkit.planning.stages import stage_of_file
from vlmkit.training.adapter import Adapter

MODEL = vlmkit.architecture("llava-1.5-tiny")
FILE = """
stages:
  - name: align
    steps: 10
    batch_size: 2
    pack: true
    max_length: 512
    learn:
      connector: 1e-3
    data:
      - {name: redcaps}
  - name: all
    steps: 10
    batch_size: 1
    learn:
      language_model: 1e-5
      language_model.embeddings: null
    data:
      - {name: redcaps}
  - name: lora
    steps: 10
    batch_size: 1
    language_model: 1e-4
    adapters: {language_model: {rank: 4}}
    data: [{name: redcaps}]
"""


@pytest.fixture
def path(tmp_path: Path) -> str:
    (tmp_path / "stages.yaml").write_text(FILE)
    return str(tmp_path / "stages.yaml")


def test_what_a_stage_says_is_planned(path: str) -> None:
    align = {"model": MODEL, "name": "align", "learns": ("connector",), "freezes": (), "micro_batch": 2, "length": 512}
    assert stage_of_file(path, "align", MODEL) == align
    everything = {"name": "all", "learns": ("language_model",), "freezes": ("language_model.embeddings",), "micro_batch": 1}
    assert stage_of_file(path, "all", MODEL) == {"model": MODEL} | everything
    lora = {"name": "lora", "learns": ("language_model",), "freezes": (), "micro_batch": 1}
    assert stage_of_file(path, "lora", MODEL) == {"model": MODEL, "adapters": (("language_model", Adapter(rank=4)),)} | lora


def test_a_stage_is_planned_with_the_model_that_it_and_those_before_it_make(tmp_path: Path) -> None:
    stage = "  - {{name: {}, steps: 10, batch_size: 1, language_model: 1e-4, data: [{{name: redcaps}}]{}}}\n"
    said = (("low", ""), ("high", ", image_size: 56"), ("experts", ", experts: {count: 4, top: 2}"))
    file = tmp_path / "stages.yaml"
    file.write_text("stages:\n" + "".join(stage.format(*each) for each in said))
    low, high, experts = (stage_of_file(str(file), name, MODEL)["model"] for name, _ in said)
    assert low == MODEL
    photo = vlmkit.Size(height=480, width=640)
    assert (low.tokens(photo), high.tokens(photo), experts.tokens(photo)) == (4, 16, 16)
    assert high.language_model == MODEL.language_model
    assert experts.language_model.experts.count == 4
    with pytest.raises(PlanError, match=r"stage 'high': policy 'smart_resize' makes no squares"):
        stage_of_file(str(file), "experts", vlmkit.architecture("univa-vl-tiny"))


def test_four_bits_are_not_planned() -> None:
    with pytest.raises(PlanError, match="adapters on 'connector' are over four bits"):
        Job(model=vlmkit.architecture("univa-vl-tiny"), adapters=(("connector", Adapter(quantize="nf4")),))


@pytest.mark.parametrize(
    ("name", "words"), [(None, r"has 3 stages \(align, all, lora\); name one"), ("sft", "has no stage 'sft'; it has align, all")]
)
def test_a_stage_that_is_not_there_is_an_error(path: str, name: str | None, words: str) -> None:
    with pytest.raises(PlanError, match=words):
        stage_of_file(path, name, MODEL)
