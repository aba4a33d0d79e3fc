"""Stages of a file are planned as the trainer reads them."""

from __future__ import annotations

from pathlib import Path

import pytest

import vlmkit
from vlmkit.planning import Job, PlanError
from vlmkit.planning.stages import stage_of_file
from vlmkit.training.adapter import Adapter

pytest.importorskip("vlmkit.training.stage_files", reason="this vlmkit reads no stage files yet")

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
    align = {"name": "align", "learns": ("connector",), "freezes": (), "micro_batch": 2, "length": 512}
    assert stage_of_file(path, "align") == align
    everything = {"name": "all", "learns": ("language_model",), "freezes": ("language_model.embeddings",), "micro_batch": 1}
    assert stage_of_file(path, "all") == everything
    lora = {"name": "lora", "learns": ("language_model",), "freezes": (), "micro_batch": 1}
    assert stage_of_file(path, "lora") == lora | {"adapters": (("language_model", Adapter(rank=4)),)}


def test_four_bits_are_not_planned() -> None:
    with pytest.raises(PlanError, match="adapters on 'connector' are over four bits"):
        Job(model=vlmkit.architecture("univa-vl-tiny"), adapters=(("connector", Adapter(quantize="nf4")),))


@pytest.mark.parametrize(
    ("name", "words"), [(None, r"has 3 stages \(align, all, lora\); name one"), ("sft", "has no stage 'sft'; it has align, all")]
)
def test_a_stage_that_is_not_there_is_an_error(path: str, name: str | None, words: str) -> None:
    with pytest.raises(PlanError, match=words):
        stage_of_file(path, name)
