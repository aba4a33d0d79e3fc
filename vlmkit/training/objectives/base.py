"""What an objective's description is: fields, and the task that they make for an architecture."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from vlmkit.architecture import Architecture
from vlmkit.registry import Registry
from vlmkit.spec import Spec, SpecError
from vlmkit.training.objectives import objectives

if TYPE_CHECKING:
    from vlmkit.training.objectives.task import Task


@dataclass(frozen=True, kw_only=True)
class Objective(Spec):
    registry: ClassVar[Registry[Objective]] = objectives
    has_head: ClassVar[bool] = False
    """Whether a module learns beside the model, at the rate `stage.head`, on engines that hold the model whole."""

    def task(self, architecture: Architecture, seed: int = 0) -> Task:
        """The loss and the head of a stage: `trainer.train(stage, batches, loss=task, head=task.head)`. A stage that has the objective as
        its `objective` says the same as data. seed: of the head. Raises SpecError
        where the architecture cannot be trained so."""
        self.check(architecture)
        made: Task = objectives.built(self, "module", architecture, seed)
        return made

    def check(self, architecture: Architecture) -> None:
        """Raise SpecError where the architecture cannot be trained so."""
        if problems := list(self.problems(architecture)):
            raise SpecError(f"objective {self.kind!r} does not fit {architecture.name}: " + "\n".join(problems))

    def problems(self, architecture: Architecture) -> Iterator[str]:
        """Why the architecture cannot be trained so, in words."""
        return iter(())

    def misfits(self, learning: Callable[[str], bool], pack: bool) -> Iterator[str]:
        """Why a stage cannot have it, in words. learning: of a part, whether anything of it does. pack: whether rows are packed."""
        if self.has_head and not learning("head"):
            yield "a module learns beside the model in it; give head a learning rate"
        if not self.has_head and learning("head"):
            yield "nothing learns beside the model in it; leave head out"
