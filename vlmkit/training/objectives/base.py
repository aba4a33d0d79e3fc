"""What an objective's description is: fields, and the task that they make for an architecture."""

from __future__ import annotations

from collections.abc import Iterator
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

    def task(self, architecture: Architecture, seed: int = 0) -> Task:
        """The loss and the head of a stage: `trainer.train(stage, batches, loss=task, head=task.head)`. seed: of the head. Raises SpecError
        where the architecture cannot be trained so."""
        if problems := list(self.problems(architecture)):
            raise SpecError(f"objective {self.kind!r} does not fit {architecture.name}: " + "\n".join(problems))
        made: Task = objectives.built(self, "module", architecture, seed)
        return made

    def problems(self, architecture: Architecture) -> Iterator[str]:
        """Why the architecture cannot be trained so, in words."""
        return iter(())
