"""Train a model on packed shards, through the stages of a file or in one pass, on one process or on many.

    vlmkit train univa-vl-tiny --data shards/mine
    vlmkit train univa-vl-tiny --stages stages.yaml --data shards --run runs/mine
    torchrun --nproc-per-node 8 -m -- vlmkit train univa-vl --weights pretrained --stages stages.yaml --data shards --engine fsdp2

The same command goes on from where a run was stopped.
"""

from __future__ import annotations

import sys
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vlmkit.commands import UsageError
from vlmkit.commands.beginning import Beginning, beginning
from vlmkit.commands.choice import MODEL, add_exchange_options, add_language_model_option, add_plugin_option, chosen
from vlmkit.commands.terminal import say

if TYPE_CHECKING:
    from vlmkit.data.shards.gathered import Gathered
    from vlmkit.data.shards.places import Place
    from vlmkit.training.stage import Stage

ENGINES = ("single", "ddp", "fsdp2", "zero2", "zero3")


def configure(parser: ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help=f"{MODEL}; a directory brings its weights and tokenizer")
    parser.add_argument(
        "--stages",
        "--stage",
        metavar="FILE",
        help="stages in YAML, or a Python file with STAGES; one pass over --data without it, which is printed as such a file",
    )
    parser.add_argument(
        "--data",
        required=True,
        action="append",
        type=shards_at,
        metavar="DIR_OR_ADDRESS",
        help="a folder of shards for each source that the stages name, in a directory or such as s3://bucket/folder; or such a folder "
        "itself; repeatable",
    )
    # torchrun takes --run for short of one of its own options where nothing keeps its words from ours.
    parser.add_argument(
        "--run", "--run-dir", type=Path, dest="directory", metavar="DIR", help="directory of the run; runs/<model> unless given"
    )
    parser.add_argument("--fresh", action="store_true", help="remove the run in that directory and start anew")
    add_engine_options(parser)
    parser.add_argument(
        "--evaluate",
        type=shards_at,
        metavar="DIR_OR_ADDRESS",
        help="where --evaluate-every takes samples from: a folder of shards for each source, as in --data",
    )
    parser.add_argument(
        "--hold-out",
        type=int,
        default=0,
        metavar="N",
        help="take them from --data instead: keep N samples of each source out of the training",
    )
    parser.add_argument(
        "--weights",
        metavar="WHAT",
        help="'pretrained', or a checkpoint's directory; those of MODEL where it is a directory, random otherwise",
    )
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32", help="of the computation (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of random weights and of the order of data (%(default)s)")
    add_exchange_options(parser)
    add_language_model_option(parser)
    add_plugin_option(parser)


def shards_at(text: str) -> Place:
    """What --data names, for argparse: a directory or an address."""
    from vlmkit.data.sample import DataError
    from vlmkit.data.shards.places import place

    try:
        return place(text)
    except DataError as error:
        raise ArgumentTypeError(str(error)) from None


def add_engine_options(parser: ArgumentParser) -> None:
    """What any command that trains takes."""
    parser.add_argument("--engine", choices=ENGINES, help="how processes share the work; single, or ddp where there are several")
    parser.add_argument("--workers", type=int, metavar="N", help="processes that prepare batches ahead, in each process")
    parser.add_argument("--save-seconds", type=float, metavar="S", help="time between two saved states")
    parser.add_argument("--threads", type=int, metavar="N", help="CPU threads of each process; all cores unless given")
    parser.add_argument(
        "--evaluate-every",
        type=int,
        default=0,
        metavar="N",
        help="score held-out samples after every N steps and at the end of a stage",
    )


def check_engine_options(arguments: Namespace) -> None:
    """Raises UsageError for a number that cannot be."""
    for name, least in (("workers", 0), ("threads", 1), ("save_seconds", 0), ("evaluate_every", 0), ("hold_out", 0)):
        if (value := getattr(arguments, name, None)) is not None and value < least:
            raise UsageError(f"--{name.replace('_', '-')} takes {least} or more, got {value}")


def run(arguments: Namespace) -> None:
    check_engine_options(arguments)
    _check_data(arguments)
    from vlmkit.data.shards.gathered import Gathered
    from vlmkit.spec import SpecError
    from vlmkit.training.launched import place
    from vlmkit.training.run import RunDirectory
    from vlmkit.training.stage_files import read_stages

    architecture = chosen(arguments)
    begun = beginning(arguments.model, architecture, arguments.weights)
    arguments.data = Gathered(tuple(arguments.data))
    try:
        stages = _one_pass(arguments.data, begun) if arguments.stages is None else read_stages(arguments.stages)
        for stage in stages:
            stage.resolved(place().world)
    except SpecError as error:
        raise UsageError(str(error)) from None
    run = RunDirectory(arguments.directory or Path("runs") / architecture.name)
    configuration: dict[str, Any] = {
        "architecture": architecture.to_dict(),
        "stages": [stage.to_dict() for stage in stages],
        "data": str(arguments.data.resolve()),
        "weights": begun.weights,
        "dtype": arguments.dtype,
        "seed": arguments.seed,
    }
    if arguments.hold_out:
        configuration["hold_out"] = arguments.hold_out
    try:
        code = _train(arguments, begun, stages, run, configuration)
    finally:
        run.unlock()
    if code:
        sys.exit(code)


def _one_pass(data: Gathered, begun: Beginning) -> tuple[Stage, ...]:
    """The stage of a run without a file of stages, printed as one."""
    from vlmkit.training.launched import place
    from vlmkit.training.one_pass import one_pass
    from vlmkit.training.stage_files import stages_to_yaml

    stages = (one_pass(data.sources(), fresh=begun.weights is None),)
    if place().rank == 0:
        say(f"without --stages, one pass:\n\n{stages_to_yaml(stages)}")
    return stages


def _check_data(arguments: Namespace) -> None:
    # Of an address only what lies under it is known: the mixture says which source is not there.
    for name, places in (("data", arguments.data), ("evaluate", [arguments.evaluate])):
        for directory in places:
            if isinstance(directory, Path) and not directory.is_dir():
                raise UsageError(f"--{name} {directory} is no directory; 'vlmkit data pack' writes shards")
    if arguments.evaluate is not None and arguments.hold_out:
        raise UsageError(f"--evaluate {arguments.evaluate} and --hold-out {arguments.hold_out} both say what is held out; leave one out")
    if arguments.evaluate_every and arguments.evaluate is None and not arguments.hold_out:
        raise UsageError(
            "--evaluate-every needs samples that are not trained on: name them with --evaluate DIR, or keep some of each source back with "
            "--hold-out N"
        )


def _rehearse(stages: tuple[Any, ...], arguments: Namespace, architecture: Any, engine: Any) -> None:
    """Find now what would stop a later stage, and leave no run in which nothing was trained. Raises UsageError, and DataError for a source
    without shards."""
    from vlmkit.data.shards import Shards
    from vlmkit.spec import SpecError
    from vlmkit.training.rehearsal import rehearse

    try:
        rehearse(stages, architecture, engine.name, engine.processes)
    except SpecError as error:
        raise UsageError(f"{arguments.stages}: {error}") from None
    for name in dict.fromkeys(source.name for stage in stages for source in stage.data):
        Shards(arguments.data / name)


def _train(arguments: Namespace, begun: Beginning, stages: tuple[Any, ...], run: Any, configuration: dict[str, Any]) -> int:
    """Exit status: 0 done, 128 + n stopped by signal n."""
    import torch

    import vlmkit
    from vlmkit.resolution import at_resolution
    from vlmkit.screen import Screen
    from vlmkit.training.consolidate import consolidate
    from vlmkit.training.engines import engine
    from vlmkit.training.held_out import held_out, kept_back
    from vlmkit.training.loop import Interrupted, Trainer
    from vlmkit.training.processes import meet
    from vlmkit.training.signals import StopSignals
    from vlmkit.training.sources import stage_data

    if arguments.threads is not None:
        torch.set_num_threads(arguments.threads)
    processes = meet()
    made = engine(arguments.engine, processes, dtype=arguments.dtype)
    if arguments.fresh or run.configuration() is None:
        _rehearse(stages, arguments, begun.architecture, made)
    with processes.main_first():
        if processes.main:
            if arguments.fresh:
                run.clear()
            run.begin(configuration)
        else:
            run.check(configuration)
    console = Screen(quiet=not processes.main)
    blueprint, tokenizer = begun.make(arguments.seed, arguments.dtype)
    processor = vlmkit.build_processor(begun.architecture, tokenizer=tokenizer)
    with StopSignals() as stop:
        trainer = Trainer(
            run,
            blueprint,
            engine=made,
            seed=arguments.seed,
            console=console,
            save_seconds=120.0 if arguments.save_seconds is None else arguments.save_seconds,
            workers=1 if arguments.workers is None else arguments.workers,
            stop=stop,
        )
        try:
            for stage in stages:
                if stage.image_size is not None:
                    processor = vlmkit.build_processor(at_resolution(begun.architecture, stage.image_size), tokenizer=tokenizer)
                looks = None
                if arguments.evaluate_every and stage.name not in trainer.done:
                    if arguments.hold_out:
                        looks = kept_back(stage, processor, arguments.data, arguments.hold_out)
                    else:
                        looks = held_out(stage, processor, arguments.evaluate)
                task = None if stage.objective is None else stage.objective.task(begun.architecture, arguments.seed)
                data = stage_data(stage, processor, arguments.data, seed=arguments.seed, hold_out=arguments.hold_out, task=task)
                learnt = {} if task is None else {"loss": task, "head": task.head}
                trainer.train(stage, data, evaluate=looks, evaluate_every=arguments.evaluate_every, **learnt)
        except Interrupted as stopped:
            console.print(f"{stopped}; the state is saved. The same command goes on from there.", soft_wrap=True)
            return 128 + stopped.signal
        finally:
            if trainer.log is not None:
                trainer.log.close()
    # Nobody waits for the main process: writing a large checkpoint may take longer than processes wait for each other.
    if processes.main:
        from vlmkit.files import replace_directory

        with replace_directory(run.path / "checkpoint") as directory:
            consolidate(run.path, directory, dtype=arguments.dtype)
            processor.save_pretrained(directory)
        console.print(f"checkpoint: {run.path / 'checkpoint'}", soft_wrap=True)
    return 0
