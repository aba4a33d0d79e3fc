"""What the model is asked: held-out pictures at the end and on the way, pictures of its training after a stage."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console
    from stages import Recipe

    import vlmkit
    from vlmkit.data.shards.places import Place
    from vlmkit.evaluation.tasks import Task, TaskResult
    from vlmkit.training.stage import Stage

FEW = 24
"""Pictures of each task that are asked about on the way: a few seconds each time."""


def training_tasks(stage: Stage, shards: Place, pictures: int = 4) -> list[Task]:
    """The first pictures of each source, where they are questions about one image each."""
    from vlmkit.data.shards import Shards
    from vlmkit.evaluation.tasks import task_from_samples

    tasks = []
    for source in stage.data:
        with contextlib.suppress(ValueError):  # samples of another form are trained on, and not shown
            tasks.append(task_from_samples(source.name, Shards(shards / source.name), pictures))
    return [task for task in tasks if len(task.images) > 1]


def evaluate(recipe: Recipe, model: vlmkit.VLM, processor: vlmkit.VLMProcessor, data: Place | None, console: Console) -> list[TaskResult]:
    from vlmkit.evaluation.tasks import evaluate as ask

    results = []
    for task in evaluation_tasks(recipe, data):
        console.print(
            f"evaluating {task.name}: {len(task.questions)} questions about {len(task.images)} images, and with images swapped",
            soft_wrap=True,
        )
        results.append(ask(model, processor, task, max_new_tokens=recipe.answer_tokens))
    return results


def evaluation_tasks(recipe: Recipe, data: Place | None) -> list[Task]:
    """Held-out pictures; for data from a directory the first question about each image of the shards in `eval`."""
    if data is None:
        from vlmkit.drawn.pictures import evaluation_tasks as rendered

        return rendered(recipe.evaluation)
    from vlmkit.data.shards import Shards
    from vlmkit.data.shards.index import has_index
    from vlmkit.evaluation.tasks import task_from_samples

    names = dict.fromkeys(source.name for stage in recipe.stages for source in stage.data)
    folders = {name: data / "eval" / name for name in names}
    found = {name: folder for name, folder in folders.items() if (folder.is_dir() if isinstance(folder, Path) else has_index(folder))}
    return [task_from_samples(name, Shards(folder), recipe.evaluation) for name, folder in found.items()]


def on_the_way(recipe: Recipe, processor: vlmkit.VLMProcessor, data: Place | None) -> Callable[[Any], dict[str, float]]:
    """What the trainer calls after every so many steps: the tasks of the evaluation, with few pictures each."""
    from vlmkit.training.held_out import answered

    tasks = evaluation_tasks(recipe.replace(evaluation=min(FEW, recipe.evaluation or FEW)), data)
    return lambda model: answered(model, processor, tasks, new_tokens=recipe.answer_tokens)


def table(results: list[TaskResult]) -> Any:
    from rich.table import Table

    table = Table(title="held-out pictures", title_justify="left")
    for column in ("task", "right", "right with images swapped", "character errors", "questions"):
        table.add_column(column, justify="left" if column == "task" else "right")
    for result in results:
        sighted, blind = result.values(), result.values(blind=True)
        scores = (f"{score:.3f}" for score in (sighted["exact"], blind["exact"], sighted["characters"]))
        table.add_row(result.name, *scores, str(len(result.answers)))
    return table
