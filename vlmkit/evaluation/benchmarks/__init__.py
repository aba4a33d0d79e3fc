"""Tasks by name: from a folder as a data set's authors publish it to questions, what a model is asked, what counts of its answer, and the
scores that are published.

    @vlmkit.tasks.register("signs")
    def signs(folder: Path) -> Task:
        "Street signs of our town."
        return Task("signs", images, questions, prompt="{question}\\nAnswer in one word.")

A task is one function of a folder. What else it can be told are keywords with a default, such as split="val"; `vlmkit eval` passes those
that were given. A plugin's tasks have names like vlmkit's own.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vlmkit.registry import Catalogue

if TYPE_CHECKING:
    from vlmkit.evaluation.tasks import Task

tasks: Catalogue[Callable[..., Task]] = Catalogue(
    "task", package=__name__, builtin=("coco_captions", "docvqa", "gqa", "synthtext", "textvqa")
)


def read_task(name: str, folder: Path | str, *, limit: int = 0, **options: Any) -> Task:
    """The task of that name over a folder; `limit` questions at most, all with 0. Options that are None are left out.

    Raises RegistryError for an unknown name, ValueError for an option that it does not take, and DataError for data that cannot be used.
    """
    from vlmkit.data.sample import DataError

    make = tasks[name]
    given = {option: value for option, value in options.items() if value is not None}
    taken = [parameter.name for parameter in list(inspect.signature(make).parameters.values())[1:]]
    for option in given:
        if option not in taken:
            raise ValueError(f"task {name!r} takes no {option}; it takes {', '.join(taken) or 'nothing but its folder'}")
    if not Path(folder).is_dir():
        raise DataError(f"{str(folder)!r} is no folder; expected one that holds the data set of task {name!r}")
    task = make(Path(folder).resolve(), **given)
    if not task.questions:
        raise DataError(f"task {name!r} found no question in {folder}")
    return task.limited(limit) if limit else task
