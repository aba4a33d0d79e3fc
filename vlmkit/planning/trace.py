"""One training step of the real model on the meta device: what lives when, how much is computed, and what is gathered at once.

A backward pass on the meta device would start threads of torch's autograd, and processes that are forked off afterwards could run none
(torch 2.15): so it runs in this thread.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vlmkit.architecture import PARTS
from vlmkit.features import Features, View
from vlmkit.planning.job import Job, PlanError
from vlmkit.recompute import recompute

if TYPE_CHECKING:
    from torch import Tensor, nn

    from vlmkit.model import VLM


Moment = tuple[int, int, int]
"""Bytes of activations, logits and gradients."""


@dataclass(frozen=True)
class Part:
    """Parameters of a part."""

    total: int
    learning: int
    gradient_passes: bool
    """Whether the backward pass goes through it: it learns, or something before it does."""


@dataclass(frozen=True)
class Trace:
    """What one micro-batch does to the memory of a process that holds the whole model."""

    moments: tuple[Moment, ...]
    """Bytes of (activations, logits, gradients) at the moments that can be the peak, whatever an engine divides: those than which no other
    has more of everything. The last is that after the backward pass. Weights and optimizer states are not in it."""
    flops: int
    """Operations of forward and backward, of recomputation too."""
    parts: dict[str, Part]
    largest_block: int
    """Parameters of the largest layer that repeats: what FSDP gathers at once."""
    outside_blocks: int
    """Parameters that are in no such layer."""
    buffers: int
    """Bytes of tensors that are no parameters."""

    @property
    def total(self) -> int:
        return sum(part.total for part in self.parts.values())

    @property
    def learning(self) -> int:
        return sum(part.learning for part in self.parts.values())


TAG = 8
"""Tokens of the text of a view that is looked at, where a fusion reads it; how many they are, tokenizers say."""


def trace(job: Job, *, repeated_keys: bool = False) -> Trace:
    """Run the step. repeated_keys: keys and values are written out for every head, as on CPU. Seconds for the largest models, on one core.

    Raises PlanError for a model whose step cannot run without values.
    """
    import torch

    import vlmkit
    from vlmkit.planning.attention import FusedAttention
    from vlmkit.planning.ledger import Ledger, watch

    dtype = getattr(torch, job.dtype)
    model: Any = vlmkit.build(job.model, device="meta", dtype=dtype)
    attention = FusedAttention(min(job.sample_tokens, job.length), repeated=repeated_keys)
    _prepare(job, model)
    name = attention.register()
    model.language_model.set_attn_implementation(name)
    ledger = Ledger((*model.parameters(), *model.buffers()), job.model.language_model.vocabulary)
    watch(ledger, model)
    try:
        with ExitStack() as within:
            within.enter_context(torch.device("meta"))
            within.enter_context(attention)
            within.enter_context(ledger)
            loss = _loss(job, model)
            # Layers that are recomputed need the modes too. Functions of a tensor rest them, other threads do not know them: so the pass
            # begins at an edge of the graph, in this thread.
            edge, one = torch.autograd.graph.get_gradient_edge(loss), torch.ones_like(loss)
            del loss
            with torch.autograd.set_multithreading_enabled(False):
                torch.autograd.backward(edge, one)
    except (RuntimeError, NotImplementedError, ValueError, TypeError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise PlanError(f"a step of {job.model.name} cannot be traced without values ({type(error).__name__}: {reason})") from error
    blocks, outside = _blocks(model)
    return Trace(
        moments=(*undominated(ledger.moments.bytes), ledger.moments.bytes[-1]),
        flops=ledger.moments.flops + attention.flops,
        parts=_parts(job, model),
        largest_block=max(blocks, default=0),
        outside_blocks=outside,
        buffers=sum(buffer.nbytes for buffer in model.buffers()),
    )


def undominated(moments: Sequence[Moment]) -> list[Moment]:
    """Those than which no other is as high in every number, once each, the highest activations first."""
    kept: list[Moment] = []
    for moment in sorted(set(moments), reverse=True):
        if not any(all(high >= low for high, low in zip(other, moment, strict=True)) for other in kept):
            kept.append(moment)
    return kept


def _prepare(job: Job, model: Any) -> None:
    """What learns, and what is recomputed: as the trainer does it."""
    from vlmkit.encoders.unused import freeze_unused

    model.train()
    if job.recompute:
        recompute(model)
    for part in PARTS:
        module = getattr(model, part)
        module.requires_grad_(part in job.learns)
        freeze_unused(module)
    if job.adapters or job.freezes or any("." in path for path in job.learns):
        _choose_paths(job, model)


def _choose_paths(job: Job, model: Any) -> None:
    """Paths within parts mean what they mean to the trainer. Raises PlanError where it knows none."""
    from vlmkit.training import optimizers, stage

    values: dict[str, Any] = {"learn": dict.fromkeys(job.learns, 1.0) | dict.fromkeys(job.freezes), "data": (stage.Source(name="any"),)}
    try:
        learning = stage.Stage(name="plan", steps=1, batch_size=1, **values)
    except TypeError:
        raise PlanError(
            f"this vlmkit's stages know whole parts only, not {', '.join((*job.learns, *job.freezes))}; name parts with --learn"
        ) from None
    adapted = None
    if job.adapters:
        from vlmkit.training.adapters import add_adapters, is_adapter

        add_adapters(model, dict(job.adapters))
        wearing = {path.partition(".")[0] for path, _ in job.adapters}
        for name, module in model.named_modules():
            if is_adapter(name):  # what learns is traced in the precision of the computation, and counted in float32 by engines
                module.to(model.dtype)
        named = model.named_parameters()
        adapted = {id(value) for name, value in named if is_adapter(name) or name.partition(".")[0] not in wearing}
    optimizers.prepare_parts(learning, {part: getattr(model, part) for part in PARTS}, adapted)


def _loss(job: Job, model: VLM) -> Tensor:
    """Of one micro-batch that is full: every row holds the same samples."""
    import torch

    from vlmkit.fusion.incoming import Incoming

    rows, length = job.micro_batch, job.length
    ids = torch.zeros(rows, length, dtype=torch.long)
    patches, views = _pixels(job)
    features: Features = model.see(patches, views)
    embeddings = model.get_input_embeddings()(ids)
    positions = torch.zeros(3, rows, length, dtype=torch.long) if model.three_positions else None
    incoming = Incoming(
        embeddings,
        features,
        torch.zeros(rows, length, dtype=torch.long) if job.stands_in_row else None,
        torch.zeros(rows, length, dtype=torch.long) if job.model.layout.learned else None,
        torch.zeros(rows, length, 2, dtype=torch.long) if job.model.fusion.needs_visible else None,
        None,
        None,
        positions,
        None,
        torch.zeros(rows, length, dtype=torch.long),
        views[0],
        model.embed_tags({"tags": torch.zeros(len(views[0]), TAG, dtype=torch.long)}, features) if job.model.fusion.reads_tags else None,
    )
    supervised = torch.zeros(job.supervised_a_row, dtype=torch.long)
    loss: Tensor = model.speak(incoming, torch.zeros(rows, length, dtype=torch.long), supervised).loss
    return loss


def _pixels(job: Job) -> tuple[tuple[Tensor, ...], tuple[tuple[View, ...], ...]]:
    """Patches and views of every tower, for the images of all rows."""
    import torch

    arch = job.model
    cuts = arch.cuts(arch.plan(job.size))
    patches, views = [], []
    for number in arch.pixel_sets:
        tower, plan = cuts[number]
        grids = arch.cut(plan, tower)
        places = plan.places if len(plan.places) == len(grids) else [(0, 0, 0)] * len(grids)
        images = range(job.samples_a_row * job.micro_batch)
        views.append(tuple(View(grid, image, *place) for image in images for grid, place in zip(grids, places, strict=True)))
        patches.append(torch.zeros(sum(view.grid.tokens for view in views[-1]), tower.encoder.values, dtype=torch.uint8))
    return tuple(patches), tuple(views)


def _parts(job: Job, model: Any) -> dict[str, Part]:
    found, passes = {}, False
    for name in ("encoder", "connector", "fusion", "language_model"):
        parameters = list(getattr(model, name).parameters())
        learning = sum(parameter.numel() for parameter in parameters if parameter.requires_grad)
        passes = passes or learning > 0
        found[name] = Part(sum(parameter.numel() for parameter in parameters), learning, passes)
    return found


def _blocks(model: nn.Module) -> tuple[list[int], int]:
    """Parameters of each layer that repeats, and of all that is outside of these. Several towers are in a list too, and do not repeat."""
    from torch import nn

    inside: set[int] = set()

    def walk(module: nn.Module) -> Iterator[int]:
        repeats = isinstance(module, nn.ModuleList) and module is not getattr(model, "encoder", None)
        for child in module.children():
            if not repeats:
                yield from walk(child)
            else:
                own = list(child.parameters())
                inside.update(map(id, own))
                yield sum(parameter.numel() for parameter in own)

    blocks = list(walk(model))
    return blocks, sum(parameter.numel() for parameter in model.parameters() if id(parameter) not in inside)
