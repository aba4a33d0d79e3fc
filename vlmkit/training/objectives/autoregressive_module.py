"""The task of `autoregressive`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from vlmkit.architecture import Architecture
from vlmkit.spec import SpecError
from vlmkit.training.objectives.autoregressive import Autoregressive
from vlmkit.training.objectives.task import Task, drawn, unwrapped
from vlmkit.views import views_of

if TYPE_CHECKING:
    from vlmkit.processor import VLMProcessor

EPS = 1e-6
"""Beside a patch's variance, as MAE has it."""


def build(spec: Autoregressive, architecture: Architecture, seed: int) -> NextPatch:
    return NextPatch(spec, architecture, seed)


class NextPatch(Task):
    """head: one linear layer, D_lm -> pixels of a patch."""

    def __init__(self, spec: Autoregressive, architecture: Architecture, seed: int) -> None:
        self.spec = spec
        dim, values = architecture.language_model.dim, architecture.encoder.values
        self.head: nn.Module = drawn(seed, lambda: nn.Linear(dim, values))

    def batch(self, processor: VLMProcessor, conversations: Sequence[Any], seed: int) -> dict[str, Tensor]:
        """The processor's batch of conversations that begin with their image, and `prefixes` (V,): how many patches of each view are seen
        in both directions, drawn from 1 to all but one by the seed, such as the batch's number."""
        batch = dict(processor(conversations))
        generator = torch.Generator().manual_seed(seed)
        counts = [view.grid.tokens for view in views_of(batch["grids"])]
        drawn_counts = [int(torch.randint(1, count, (), generator=generator)) if count > 1 else 1 for count in counts]
        return batch | {"prefixes": torch.tensor(drawn_counts, dtype=torch.long)}

    def __call__(self, model: nn.Module, batch: Mapping[str, Any]) -> Tensor:
        return torch.stack(list(self.losses(model, batch).values())).sum()

    def losses(self, model: nn.Module, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """`text` and `pixels`, each with its weight. Raises SpecError for a batch without `prefixes`."""
        if "prefixes" not in batch:
            raise SpecError("objective 'autoregressive' needs prefixes beside a batch's grids; make batches with task.batch(...)")
        given = {name: value for name, value in batch.items() if name != "prefixes"}
        prefixes = batch["prefixes"].tolist()
        inner = unwrapped(model)
        with prefixes_of(inner.encoder, prefixes):
            output = model(**given, output_hidden_states=True)
        counts = [view.grid.tokens for view in views_of(given["grids"])]
        hidden = at_patches(output.hidden_states[-1], given["visual_index"], sum(counts))
        predicted = self.head(hidden.float() if next(self.head.parameters()).dtype == torch.float32 else hidden)
        wanted = whitened(inner.encoder.normalise(given["pixel_values"]))
        errors = (predicted[:-1].float() - wanted[1:]).square().mean(dim=-1)
        counted = behind_the_prefix(counts, prefixes).to(errors.device, non_blocking=True)
        return {"text": output.loss, "pixels": self.spec.weight * (errors * counted).sum() / counted.sum().clamp(min=1)}


def whitened(patches: Tensor) -> Tensor:
    """Patches (N, 3*p*p) -> each with mean 0 and deviation 1, float32."""
    values = patches.float()
    return (values - values.mean(dim=-1, keepdim=True)) / (values.var(dim=-1, keepdim=True) + EPS).sqrt()


def at_patches(hidden: Tensor, visual_index: Tensor, count: int) -> Tensor:
    """Hidden states (B, S, D), and the visual token that stands at each place (B, S) -> (N, D): those at the patches, in their order."""
    index = visual_index.flatten()
    places = torch.zeros(count + 1, dtype=torch.long, device=index.device)
    places.scatter_(0, index.where(index >= 0, count), torch.arange(len(index), device=index.device))
    return hidden.flatten(0, 1)[places[:count]]


def behind_the_prefix(counts: Sequence[int], prefixes: Sequence[int]) -> Tensor:
    """(N - 1,): 1 where the patch behind this one is of the same view, and beyond what the tower sees in both directions."""
    counted = [float(number + 1 >= prefix) for count, prefix in zip(counts, prefixes, strict=True) for number in range(count)]
    ends = torch.tensor(counts).cumsum(0) - 1
    found = torch.tensor(counted)
    found[ends] = 0.0
    return found[:-1]


@contextmanager
def prefixes_of(tower: Any, prefixes: Sequence[int]) -> Iterator[None]:
    """A tower that sees so many patches of each view in both directions, and later ones with those before them."""
    tower.prefixes = tuple(prefixes)
    try:
        yield
    finally:
        tower.prefixes = None
