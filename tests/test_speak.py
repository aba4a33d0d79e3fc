"""The side of the language model reads nothing back from the device, and is one graph."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

import vlmkit
from tests.tiny import CONVERSATIONS, apart, architecture, draw, model
from vlmkit.fusion.incoming import Incoming
from vlmkit.model import VLM
from vlmkit.processor import VLMProcessor

READS_BACK = {"_local_scalar_dense", "nonzero", "masked_select", "unique_consecutive", "_unique2", "item", "equal"}


class ReadingBack(TorchDispatchMode):
    """Collects operations for which a host has to wait for its device."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func._schema.name.removeprefix("aten::")
        if name in READS_BACK or (name == "index" and any(index is not None and index.dtype == torch.bool for index in args[1])):
            self.found.append(name)
        return func(*args, **(kwargs or {}))


def small(fusion: str, layout: str, language: str) -> tuple[VLM, VLMProcessor]:
    arch = architecture(fusion=fusion, layout=layout, language=language)
    built = vlmkit.build(arch, seed=0)
    draw(built)
    return built.train(), vlmkit.build_processor(arch)


CASES = [("splice", "run", "olmo3"), ("splice", "unpadded_rows", "llama"), ("prefix", "run", "gemma2"), ("splice", "run", "qwen2")]


@pytest.mark.parametrize("pack", [False, True])
@pytest.mark.parametrize(("fusion", "layout", "language"), CASES)
def test_a_training_step_reads_nothing_back(fusion: str, layout: str, language: str, pack: bool) -> None:
    built, processor = small(fusion, layout, language)
    batch = processor(CONVERSATIONS, pack=pack)
    with ReadingBack() as reading:
        built(**batch).loss.backward()
    assert reading.found == []
    with ReadingBack() as reading:  # the law can be broken: a batch that does not state its segments is looked through
        built(**{name: value for name, value in batch.items() if name not in ("segments", "boundaries", "supervised")})
    assert reading.found


def meeting(built: VLM, batch: Any) -> Incoming:
    """What meets in the fusion for a batch."""
    visual = built.get_image_features(batch["pixel_values"], batch["grids"])
    names = ("visual_index", "learned_index", "visible", "segments", "attention_mask", "position_ids")
    rows = {name: batch.get(name) for name in names}
    return Incoming(built.get_input_embeddings()(batch["input_ids"]), visual, **rows, token_type_ids=batch.get("token_type_ids"))


@pytest.mark.parametrize("pack", [False, True])
@pytest.mark.parametrize(("fusion", "layout", "language"), CASES)
def test_it_is_one_graph_with_the_same_losses(fusion: str, layout: str, language: str, pack: bool) -> None:
    built, processor = small(fusion, layout, language)
    batch = processor(CONVERSATIONS, pack=pack)
    incoming = meeting(built, batch)

    def loss(meeting: Incoming, labels: Tensor, supervised: Tensor, boundaries: tuple[int, ...] | None) -> Tensor:
        out: Tensor = built.speak(meeting, labels, supervised, boundaries).loss
        return out

    torch.compiler.reset()
    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    told = (batch["labels"], batch["supervised"], tuple(batch["boundaries"].tolist()) if pack else None)
    assert apart(compiled(incoming, *told), loss(incoming, *told)) < 1e-5


def test_the_loss_is_the_sum_of_named_losses() -> None:
    built, processor = model().train(), vlmkit.build_processor(architecture())
    out = built(**processor(CONVERSATIONS))
    assert out.losses is not None
    assert set(out.losses) == {"language_model"}
    assert torch.equal(out.loss, out.losses["language_model"])
