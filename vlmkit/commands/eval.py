"""Score a trained model on tasks: right pictures, swapped pictures, an interval beside every score.

    vlmkit eval runs/mine --task textvqa docvqa --data data
    torchrun --nproc-per-node 8 -m vlmkit eval runs/mine --task gqa --data data/gqa --limit 1000

DIR holds a folder for each task, called like it and laid out as its authors publish it; for a single task it may be that folder. The same
command goes on from where it was stopped. 'vlmkit list --tasks' knows the tasks.
"""

from __future__ import annotations

from argparse import ArgumentParser, BooleanOptionalAction, Namespace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vlmkit.commands import UsageError
from vlmkit.commands.checkpoint import find_checkpoint
from vlmkit.commands.choice import add_plugin_option, load_plugins
from vlmkit.commands.data_pack import positive
from vlmkit.commands.table import print_table
from vlmkit.commands.terminal import say

if TYPE_CHECKING:
    from vlmkit.evaluation.tasks import Task
    from vlmkit.training.processes import Processes


def configure(parser: ArgumentParser) -> None:
    parser.add_argument("run_directory", metavar="RUN", help="directory of a training run or of a checkpoint, or a hub's owner/name")
    parser.add_argument("--task", required=True, nargs="+", metavar="NAME", dest="tasks", help="one or several: 'vlmkit list --tasks'")
    parser.add_argument("--data", required=True, type=Path, metavar="DIR", help="where DIR/<task> holds the data of each task")
    parser.add_argument("--split", metavar="NAME", help="of the data, such as val; each task's own without")
    parser.add_argument("--limit", metavar="N", type=positive, default=0, help="questions of each task at most, about many images")
    parser.add_argument("--partial", action="store_true", help="leave out what cannot be used, such as questions whose image is missing")
    parser.add_argument("--as-asked", action="store_true", help="ask questions as the data has them, without the words a task adds")
    parser.add_argument("--batch-size", metavar="N", type=positive, default=16, help="questions at once, in each process (16)")
    parser.add_argument("--max-new-tokens", metavar="N", type=positive, help="length of an answer at most; each task's own without")
    parser.add_argument("--blind", action=BooleanOptionalAction, default=True, help="ask again with the images swapped (it does)")
    parser.add_argument("--out", type=Path, metavar="DIR", help="where answers and results go; RUN/eval without")
    parser.add_argument("--fresh", action="store_true", help="forget the answers in that directory and start anew")
    parser.add_argument("--seed", metavar="N", type=int, default=0, help="of the swapped images and of the intervals (0)")
    parser.add_argument("--device", help="such as cpu or cuda:1; each process's GPU without it, where there is one")
    parser.add_argument("--dtype", choices=("float32", "bfloat16", "float16"), help="of the weights; as they are stored without")
    add_plugin_option(parser)


def run(arguments: Namespace) -> None:
    load_plugins(arguments)
    names = list(dict.fromkeys(arguments.tasks))
    folders = {name: folder_of(name, arguments.data, names) for name in names}
    directory = find_checkpoint(arguments.run_directory)
    out = arguments.out or _output(arguments.run_directory)
    told = {name: _task(name, folders[name], arguments) for name in names}  # what is wrong with data is said before a model is loaded

    import torch

    from vlmkit.evaluation import answer_files, report
    from vlmkit.evaluation.tasks import evaluate
    from vlmkit.training.processes import meet

    processes = meet()
    model, processor = _model(directory, arguments, processes)
    identity = {"checkpoint": _fingerprint(directory), "dtype": str(model.dtype).removeprefix("torch.")}
    results = []
    for name, task in told.items():
        if arguments.fresh:
            with processes.main_first():
                if processes.main:
                    answer_files.clear(out / name)
        with _Progress(f"{name}: {len(task.questions)} questions", task, arguments.blind, processes) as progress:
            result = evaluate(
                model,
                processor,
                task,
                seed=arguments.seed,
                batch_size=arguments.batch_size,
                max_new_tokens=arguments.max_new_tokens,
                blind=arguments.blind,
                folder=out / name,
                identity=identity,
                processes=processes,
                on_batch=progress.advance,
            )
        results.append(result)
        if processes.main:
            report.write(result, out / name, str(arguments.run_directory))
    if processes.main:
        print_table(report.COLUMNS, report.rows(results), right=report.NUMBERS)
        for name in told:
            say(out / name / "page.html")
    if processes.world > 1:
        processes.wait()
        torch.distributed.destroy_process_group()


def folder_of(name: str, data: Path, names: list[str]) -> Path:
    """The folder of a task's data. Raises RegistryError for a task that nobody registered, UsageError where there is no folder."""
    from vlmkit.evaluation.benchmarks import tasks

    tasks[name]
    if (data / name).is_dir():
        return data / name
    if len(names) == 1 and data.is_dir():
        return data
    raise UsageError(f"--data {data}: there is no folder {data / name}; the data of task {name!r} lies there, as its authors publish it")


def _task(name: str, folder: Path, arguments: Namespace) -> Task:
    from dataclasses import replace

    from vlmkit.evaluation.benchmarks import read_task

    try:
        task = read_task(name, folder, limit=arguments.limit, split=arguments.split, partial=arguments.partial or None)
    except ValueError as error:
        if type(error) is ValueError:  # an option that the task does not take
            raise UsageError(str(error)) from None
        raise
    if arguments.blind and len(task.images) < 2:
        raise UsageError(f"task {name!r} has one image, which cannot be swapped with another; add --no-blind")
    return replace(task, prompt="{question}") if arguments.as_asked else task


def _output(run: str) -> Path:
    """Beside what is evaluated; in this directory for a hub's repository."""
    return Path(run) / "eval" if Path(run).is_dir() else Path("eval") / run.replace("/", "--")


def _model(directory: Path, arguments: Namespace, processes: Processes) -> tuple[Any, Any]:
    from transformers.utils.logging import disable_progress_bar

    import vlmkit

    disable_progress_bar()
    return vlmkit.load(directory, device=arguments.device or processes.device, dtype=arguments.dtype)


def _fingerprint(directory: Path) -> list[list[Any]]:
    """Of the weights: names, sizes and when they were written."""
    files = sorted(file for pattern in ("*.safetensors", "*.gguf", "config.json") for file in directory.glob(pattern))
    return [[file.name, file.stat().st_size, file.stat().st_mtime_ns] for file in files]


class _Progress:
    """A bar on stderr for the main process, of its own share where there are several."""

    def __init__(self, title: str, task: Task, blind: bool, processes: Processes) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, TimeRemainingColumn

        from vlmkit.screen import Bars, Screen, Words

        console = Screen(stderr=True, quiet=not processes.main)
        columns = (Words("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self._bar = Bars(*columns, console=console, transient=True)
        self._task = self._bar.add_task(title, total=len(task.questions) * (1 + blind))
        self._each = processes.world

    def __enter__(self) -> _Progress:
        self._bar.start()
        return self

    def __exit__(self, *unused: object) -> None:
        self._bar.stop()

    def advance(self, answers: int) -> None:
        self._bar.advance(self._task, answers * self._each)
