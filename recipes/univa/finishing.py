"""What is left of a stage and of a run: the checkpoint, what it scores beside its blind twin, the report."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import asking
import playing

import vlmkit

if TYPE_CHECKING:
    from rich.console import Console
    from stages import Recipe

    from vlmkit.data.shards.places import Place
    from vlmkit.training.loop import Trainer
    from vlmkit.training.run import RunDirectory
    from vlmkit.training.stage import Stage


def finish(
    recipe: Recipe,
    architecture: vlmkit.Architecture,
    run: RunDirectory,
    trainer: Trainer,
    processor: vlmkit.VLMProcessor,
    data: Place | None,
    console: Console,
) -> None:
    """Save the checkpoint, evaluate, write results and report. Done again from the start if it is interrupted."""
    import report

    from vlmkit.files import replace_directory, write_whole
    from vlmkit.training.consolidate import consolidate

    log = trainer.log
    assert log is not None, "the main process finishes the run"
    with replace_directory(run.path / "checkpoint") as directory:
        consolidate(run.path, directory, dtype=recipe.dtype)
        processor.save_pretrained(directory)
    model = trainer.model
    if trainer.engine.spread:
        # Generating with weights that are spread over processes takes all of them: it is done from the checkpoint, where that fits.
        trainer.release()
        model, _ = vlmkit.load(run.path / "checkpoint", device=trainer.processes.device)
    results = asking.evaluate(recipe, model.eval(), processor, data, console)
    scores: dict[str, Any] = {
        result.name: {"sighted": result.values(), "blind": result.values(blind=True), "questions": len(result.answers)}
        for result in results
    }
    for name, both in scores.items():
        log.scores(trainer.updates, {f"{name}/exact": both["sighted"]["exact"], f"{name}/exact blind": both["blind"]["exact"]})
    log.close()
    playing.write(run.path, results, model, processor)
    write_whole(run.path / "report.html", report.page(recipe, architecture, run, results, trainer.seconds, playing.line(run.path)))
    write_whole(run.path / "results.json", json.dumps({"scores": scores, "seconds": round(trainer.seconds, 1)}, indent=2) + "\n")
    if results:
        console.print(asking.table(results))
    console.print(f"checkpoint: {run.path / 'checkpoint'}\nreport: {run.path / 'report.html'}", soft_wrap=True)
    if results:
        console.print(playing.invitation(run.path), soft_wrap=True)


def show_stage(
    recipe: Recipe,
    architecture: vlmkit.Architecture,
    run: RunDirectory,
    trainer: Trainer,
    processor: vlmkit.VLMProcessor,
    stage: Stage,
    shards: Place,
) -> None:
    """The report so far, with the model's answers to the first pictures of each source of the stage."""
    import report

    from vlmkit.evaluation.tasks import evaluate as ask
    from vlmkit.files import write_whole

    tasks = [] if trainer.engine.spread or stage.name.startswith("warmup") else asking.training_tasks(stage, shards)
    samples = [ask(trainer.model, processor, task, max_new_tokens=recipe.answer_tokens) for task in tasks]
    write_whole(run.path / "report.html", report.stage_page(recipe, architecture, run, trainer.seconds, samples))


def headline(run: RunDirectory) -> str:
    """The scores of a finished run in one line."""
    scores = json.loads((run.path / "results.json").read_text(encoding="utf-8"))["scores"]
    return ", ".join(f"{name} {both['sighted']['exact']:.2f} (blind {both['blind']['exact']:.2f})" for name, both in scores.items())
