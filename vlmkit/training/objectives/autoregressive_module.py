"""The task of `autoregressive`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from vlmkit.architecture import Architecture
from vlmkit.spec import SpecError
from vlmkit.training.objectives.autoregressive import Autoregressive
from vlmkit.training.objectives.task import Task, drawn, unwrapped
from vlmkit.training.sources import mixed
from vlmkit.views import views_of

if TYPE_CHECKING:
    from vlmkit.data.mixture import DataSource, Mixture
    from vlmkit.processor import VLMProcessor
    from vlmkit.training.stage import Stage

EPS = 1e-6
"""Beside a patch's variance, as MAE has it."""
PATCHES = "num_patches_in_batch"
"""Entry of a batch: what the sum of pixels' errors is divided by."""


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
        return self.prepared(dict(processor(conversations)), seed)

    def data(self, stage: Stage, sources: Sequence[DataSource], processor: VLMProcessor, seed: int) -> Mixture | Dataset[dict[str, Tensor]]:
        return mixed(stage, sources, processor, seed)

    def prepared(self, batch: dict[str, Tensor], number: int) -> dict[str, Tensor]:
        """With `prefixes`, drawn by the number where the batch states none. A batch without images has none."""
        if "prefixes" in batch:
            return batch
        generator = torch.Generator().manual_seed(number)
        counts = _counts(batch)
        drawn_counts = [int(torch.randint(1, count, (), generator=generator)) if count > 1 else 1 for count in counts]
        return batch | {"prefixes": torch.tensor(drawn_counts, dtype=torch.long)}

    def totals(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Patches that are regressed."""
        return {PATCHES: behind_the_prefix(_counts(batch), batch["prefixes"].tolist()).sum()}

    def __call__(self, model: nn.Module, batch: Mapping[str, Any]) -> Tensor:
        return torch.stack(list(self.losses(model, batch).values())).sum()

    def losses(self, model: nn.Module, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """`text` and `pixels`, each with its weight. A batch without images has no error of pixels, and enters the head as well, so that
        processes wait for each other in vain nowhere. Raises SpecError for a batch without `prefixes`."""
        if "prefixes" not in batch:
            raise SpecError("objective 'autoregressive' needs prefixes beside a batch's grids; make batches with task.batch(...)")
        given = {name: value for name, value in batch.items() if name not in ("prefixes", PATCHES)}
        prefixes = batch["prefixes"].tolist()
        inner = unwrapped(model)
        with prefixes_of(inner.encoder, prefixes):
            output = model(**given, output_hidden_states=True)
        counts = _counts(given)
        last = output.hidden_states[-1]
        hidden = at_patches(last, given["visual_index"], sum(counts)) if counts else last[0, :1]
        predicted = self.head(hidden.float() if next(self.head.parameters()).dtype == torch.float32 else hidden)
        if not counts:
            return {"text": output.loss, "pixels": 0.0 * predicted.float().sum()}
        wanted = whitened(inner.encoder.normalise(given["pixel_values"]))
        errors = (predicted[:-1].float() - wanted[1:]).square().mean(dim=-1)
        counted = behind_the_prefix(counts, prefixes).to(errors.device, non_blocking=True)
        whole = batch.get(PATCHES, counted.sum()).clamp(min=torch.finfo(torch.float32).tiny)
        return {"text": output.loss, "pixels": self.spec.weight * (errors * counted).sum() / whole}


def _counts(batch: Mapping[str, Tensor]) -> list[int]:
    """Patches of each view."""
    return [view.grid.tokens for view in views_of(batch["grids"])] if "grids" in batch else []


def whitened(patches: Tensor) -> Tensor:
    """Patches (N, 3*p*p) -> each with mean 0 and deviation 1, float32."""
    values = patches.float()
    return (values - values.mean(dim=-1, keepdim=True)) / (values.var(dim=-1, keepdim=True) + EPS).sqrt()


def at_patches(hidden: Tensor, visual_index: Tensor, count: int) -> Tensor:
    """Hidden states (B, S, D), and the visual token that stands at each place (B, S) -> (N, D): those at the patches, in their order; of a
    patch that stands in several conversations, at the first."""
    index = visual_index.flatten()
    places = torch.zeros(count + 1, dtype=torch.long, device=index.device)
    numbers = torch.arange(len(index), device=index.device)
    places.scatter_reduce_(0, index.where(index >= 0, count), numbers, "amin", include_self=False)
    return hidden.flatten(0, 1)[places[:count]]


def behind_the_prefix(counts: Sequence[int], prefixes: Sequence[int]) -> Tensor:
    """(N - 1,): 1 where the patch behind this one is of the same view, and beyond what the tower sees in both directions."""
    counted = [float(number + 1 >= prefix) for count, prefix in zip(counts, prefixes, strict=True) for number in range(count)]
    ends = torch.tensor(counts, dtype=torch.long).cumsum(0) - 1
    found = torch.tensor(counted, dtype=torch.float32)
    found[ends] = 0.0
    return found[:-1]


@contextmanager
def prefixes_of(tower: Any, prefixes: Sequence[int]) -> Iterator[None]:
    """A tower that sees so many patches of each view in both directions, and later ones with those before them."""
    tower.prefixes = tuple(prefixes) or None  # of a batch without images the one blank view is seen whole
    try:
        yield
    finally:
        tower.prefixes = None
