"""All stages of a run, tried on a skeleton before the first of them begins: a path of the last one that the model lacks would otherwise be
found when the others are trained."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from vlmkit.architecture import Architecture
from vlmkit.skeleton import skeleton
from vlmkit.spec import SpecError
from vlmkit.training.adapters import add_adapters, is_adapter
from vlmkit.training.changed import changed
from vlmkit.training.kernels import refuse_liger
from vlmkit.training.optimizers import prepare_parts, refuse_unclaimed
from vlmkit.training.paths import parts_of
from vlmkit.training.processes import Processes
from vlmkit.training.stage import Stage


def rehearse(
    stages: Sequence[Stage], architecture: Architecture, engine: str, processes: Processes, *, heads: Collection[str] = ()
) -> None:
    """Make the model of each stage on the meta device and say what learns, as the trainer will. engine: its name. heads: stages that a
    recipe gives a head. Seconds for the largest models.

    Raises SpecError naming the stage that the model, the engine, the processes or the machine do not fit.
    """
    for stage in stages:
        try:
            head = stage.name in heads or (stage.objective is not None and stage.objective.has_head)
            refuse_elsewhere(stage.resolved(processes.world), engine, processes, head)
            architecture = changed(architecture, stage)
            if stage.objective is not None:
                stage.objective.check(architecture)
            _try(stage, architecture, processes, head)
        except SpecError as error:
            where = f"stage {stage.name!r}"
            raise SpecError(str(error) if str(error).startswith(where) else f"{where}: {error}") from None


def refuse_elsewhere(stage: Stage, engine: str, processes: Processes, head: bool) -> None:
    """Raise SpecError where the engine cannot train the stage."""
    where = f"stage {stage.name!r}"
    if head and engine not in ("single", "ddp"):
        raise SpecError(f"{where} has a head: it trains on engine 'single' or 'ddp', not on {engine!r}")
    if stage.optimizer == "muon" and (processes.world > 1 or engine != "single"):
        raise SpecError(f"{where} uses muon: it trains on engine 'single', not on {engine!r} with {processes.world} process(es)")


def _try(stage: Stage, architecture: Architecture, processes: Processes, head: bool) -> None:
    model = skeleton(architecture, dtype="float32")
    learning = None
    if stage.adapters:
        add_adapters(model, stage.adapters)
        adapted = {path.split(".")[0] for path in stage.adapters}
        learning = {id(value) for name, value in model.named_parameters() if is_adapter(name) or name.split(".")[0] not in adapted}
    parts = parts_of(model)
    refuse_unclaimed(model, parts)
    if stage.kernels == "liger":
        refuse_liger(model, processes.device)
    prepare_parts(stage, parts, learning)
    if not head and stage.learns("head"):
        raise SpecError("it has a rate for a head, a module that a recipe adds for one stage, and there is none here; leave head out")
    if not head and not any(parameter.requires_grad for parameter in model.parameters()):
        rated = ", ".join(path for path, rate in stage.paths.items() if rate is not None)
        raise SpecError(f"nothing learns, for {architecture.name} has no parameters in {rated}; give a rate to another part")
