"""Several conversations about one image count by the root of how many they are, however they are put into rows."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

import vlmkit
from tests.data.packs import jpeg
from tests.molmo_upstream import arrays
from tests.tiny import architecture, draw
from vlmkit.data.mixture import DataSource, Mixture, MixtureStateError
from vlmkit.data.sample import Sample
from vlmkit.layout.laid_out import IGNORE

ARCHITECTURE = architecture(connector="mlp")
PROCESSOR = vlmkit.build_processor(ARCHITECTURE)
COUNTS = (1, 3, 2, 5, 1, 4, 2, 3)
"""Conversations of each sample."""


def talk(sample: int, number: int) -> list[dict[str, Any]]:
    question = [{"type": "image", "image": 0}, {"type": "text", "text": f"{number}?"}]
    return [{"role": "user", "content": question}, {"role": "assistant", "content": chr(ord("a") + sample) * (1 + number)}]


class Annotated:
    def __len__(self) -> int:
        return len(COUNTS)

    def __getitem__(self, number: int) -> Sample:
        talks = tuple(talk(number, conversation) for conversation in range(COUNTS[number]))
        return Sample((jpeg(number, 28, 42),), talks, "a", str(number))


def mixture(**how: Any) -> Mixture:
    return Mixture([DataSource("a", Annotated())], PROCESSOR, **({"rows": 2, "epochs": 1, "weighing": "root"} | how))


WAYS = {
    "padded": {},
    "one row a sample": {"rows": 1, "length": 512, "pack": True},
    "many rows of a batch": {"rows": 16, "length": 60, "pack": True},
}
LETTERS = {PROCESSOR.tokenizer.encode(chr(ord("a") + number), add_special_tokens=False)[0]: number for number in range(len(COUNTS))}


@pytest.mark.parametrize("way", WAYS)
def test_each_supervised_token_counts_one_over_the_root_of_its_samples_conversations(way: str) -> None:
    """A sample whose conversations stand in several rows counts no more for it."""
    seen: Counter[int] = Counter()
    for batch in mixture(**WAYS[way]).batches():
        supervised = (batch["labels"] != IGNORE) & torch.isin(batch["labels"], torch.tensor([*LETTERS]))
        weights = batch.get("loss_weights", torch.ones(batch["labels"].shape))
        assert weights.dtype == torch.float32
        for token, weight in zip(batch["labels"][supervised].tolist(), weights[supervised].tolist(), strict=True):
            assert weight == pytest.approx(COUNTS[LETTERS[token]] ** -0.5)
            seen[LETTERS[token]] += 1
    assert seen == {number: count * (count + 1) // 2 for number, count in enumerate(COUNTS)}


def test_alike_no_batch_has_weights() -> None:
    assert all("loss_weights" not in batch for batch in mixture(weighing="alike").batches())


def by_hand(model: Any, batches: list[dict[str, Tensor]]) -> Tensor:
    """Cross-entropy of each token that is supervised, times its weight, over all weights."""
    total = counted = torch.zeros(())
    for batch in batches:
        logits = model(**{name: value for name, value in batch.items() if name not in ("labels", "supervised", "loss_weights")}).logits
        weights = batch.get("loss_weights", torch.ones(batch["labels"].shape))[:, 1:] * (batch["labels"][:, 1:] != IGNORE)
        each = functional.cross_entropy(logits[:, :-1].flatten(0, 1).float(), batch["labels"][:, 1:].flatten(), reduction="none")
        total = total + (each * weights.flatten()).sum()
        counted = counted + weights.sum()
    return total / counted


@pytest.mark.parametrize("training", [False, True])
def test_packed_rows_lose_what_separate_ones_do(training: bool) -> None:
    """Measured within 4.8e-7 of each other, allowed 2e-6; alike they lose otherwise."""
    model = vlmkit.build(ARCHITECTURE, seed=0)
    draw(model)
    model.eval()
    ways = {"rows": len(COUNTS)}, {"rows": 1, "length": 2048, "pack": True}, {"rows": 24, "length": 60, "pack": True}
    with torch.no_grad():
        wanted = by_hand(model, list(mixture(rows=1).batches()))
        model.train(training)
        for how in ways:
            batches = list(mixture(**how).batches())
            assert len(batches) == 1
            assert model(**batches[0]).loss.item() == pytest.approx(wanted.item(), abs=2e-6)
        alike = next(mixture(rows=len(COUNTS), weighing="alike").batches())
        assert abs(model(**alike).loss.item() - wanted.item()) > 1e-3


def test_a_batch_of_rows_keeps_the_weights_of_these_rows() -> None:
    batch = PROCESSOR.pack_rows([[sample] for sample in _prepared()], 128)
    assert torch.equal(batch[[2, 0]]["loss_weights"], batch["loss_weights"][[2, 0]])
    assert batch["loss_weights"].unique().numel() == 3


def _prepared() -> list[Any]:
    from dataclasses import replace

    from vlmkit.batch.sample import PreparedSample

    layouts = [PROCESSOR.lay_out([{"role": "user", "content": "?"}, {"role": "assistant", "content": "a"}], ()) for _ in range(3)]
    return [PreparedSample((), (replace(layout, weight=weight),)) for layout, weight in zip(layouts, (1.0, 0.5, 0.25), strict=True)]


def test_molmos_weights_are_upstreams() -> None:
    """Three annotations of one image: what upstream's preprocessor gave each token with a loss (tests/golden/molmo/README.md)."""
    golden = arrays()["several-weights"]
    arch = vlmkit.architecture("molmo-tiny")

    class Three:
        def __len__(self) -> int:
            return 1

        def __getitem__(self, number: int) -> Sample:
            said = (("What is this?", "A picture."), ("Where?", "Here."), ("How many are there?", "Two of them."))
            asked = [[{"type": "image", "image": 0}, {"type": "text", "text": question}] for question, _ in said]
            talks = [
                [{"role": "user", "content": one}, {"role": "assistant", "content": answer}]
                for one, (_, answer) in zip(asked, said, strict=True)
            ]
            return Sample((jpeg(0, 120, 90),), tuple(talks), "a", "0")

    made = Mixture([DataSource("a", Three())], vlmkit.build_processor(arch), rows=1, epochs=1, weighing="root")
    batch = next(made.batches())
    supervised = batch["labels"] != IGNORE
    assert int(supervised.sum()) == int((golden > 0).sum())
    assert batch["loss_weights"][supervised].tolist() == pytest.approx(golden[golden > 0].tolist())


def test_a_run_goes_on_with_the_weighing_that_it_began_with_alone() -> None:
    batches = mixture(epochs=None).batches()
    next(batches)
    next(mixture(epochs=None).batches(batches.state()))
    with pytest.raises(MixtureStateError, match="weighing"):
        mixture(epochs=None, weighing="alike").batches(batches.state())
