"""Activations that are computed again: by the name that this transformers has for it, and without its warnings."""

from __future__ import annotations

import re
import warnings
from pathlib import Path
from typing import Any

import pytest
from torch import nn

import vlmkit
from tests.tiny import model
from vlmkit.recompute import recompute


def recomputes(module: nn.Module) -> set[bool]:
    return {bool(part.gradient_checkpointing) for part in module.modules() if hasattr(part, "gradient_checkpointing")}


def adapted() -> Any:
    from peft import LoraConfig, get_peft_model

    return get_peft_model(model(), LoraConfig(r=2, target_modules=r".*language_model.*q_proj"))


@pytest.mark.parametrize("make", [model, lambda: model().language_model, adapted], ids=["whole", "language model", "adapted"])
def test_every_part_computes_again_or_none_and_nothing_warns(make: Any) -> None:
    built = make()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        recompute(built)
        assert recomputes(built) == {True}
        recompute(built, False)
        assert recomputes(built) == {False}


def test_the_name_of_before_is_taken_where_there_is_no_other() -> None:
    class Before:
        def __init__(self) -> None:
            self.told: list[str] = []

        def gradient_checkpointing_enable(self) -> None:
            self.told.append("enable")

        def gradient_checkpointing_disable(self) -> None:
            self.told.append("disable")

    older = Before()
    recompute(older)
    recompute(older, False)
    assert older.told == ["enable", "disable"]


def test_nothing_else_in_vlmkit_says_either_name() -> None:
    calls = re.compile(r"\.(?:gradient|activation)_checkpointing_(?:enable|disable)\(")
    files = Path(vlmkit.__file__).parent.rglob("*.py")
    assert [file.name for file in files if calls.search(file.read_text())] == []
