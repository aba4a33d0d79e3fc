"""Train UNIVA-VL: `python recipes/univa/train.py` trains the tiny preset on two CPU cores, without any download.

What it does, from top to bottom: data and stages (stages.py, vlmkit.drawn), training, evaluation beside its blind twin, a checkpoint that
`vlmkit.load` reads, and a report (finishing.py). Stop it whenever you like; the same command goes on from there.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

# A checkout runs without being installed; an installed vlmkit comes first.
sys.path.append(str(Path(__file__).resolve().parents[2]))

import arguments
import asking
import playing
from finishing import finish, headline, show_stage
from requirements import missing
from stages import Recipe

import vlmkit
from vlmkit.data.sample import DataError
from vlmkit.drawn import warm_up
from vlmkit.plugins import PluginError
from vlmkit.registry import RegistryError
from vlmkit.spec import SpecError
from vlmkit.terminal import guarded
from vlmkit.training.run import RunDirectory, RunError
from vlmkit.training.signals import quit_at_ctrl_c

if TYPE_CHECKING:
    from rich.console import Console
    from torch import Tensor
    from torch.utils.data import Dataset

    from vlmkit.data.mixture import Mixture
    from vlmkit.data.shards.places import Place
    from vlmkit.training.loop import Trainer
    from vlmkit.training.processes import Processes
    from vlmkit.training.stage import Stage

STOPPED = "stopped; the same command goes on from there"


@guarded()
def main(given: list[str] | None = None) -> int:
    """Exit status: 0 finished, 1 something is missing or went wrong, 2 wrong arguments, 128 + n stopped by signal n."""
    parser = arguments.parser((__doc__ or "").split("\n\n")[0])
    args = parser.parse_args(given)
    try:
        try:
            with quit_at_ctrl_c(STOPPED):
                recipe, architecture = arguments.chosen(args)
        except (SpecError, RegistryError, PluginError, ValueError) as error:
            parser.error(str(error))
        return _run(args, recipe, architecture)
    except (RunError, DataError, OSError, ArithmeticError) as error:
        print(f"train.py: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(STOPPED, file=sys.stderr)
        return 130


def _run(args: argparse.Namespace, recipe: Recipe, architecture: vlmkit.Architecture) -> int:
    with quit_at_ctrl_c(STOPPED):
        from vlmkit.training.processes import meet

    processes = meet()
    run = RunDirectory(args.run or Path("runs") / architecture.name)
    engine_name = args.engine or recipe.engine
    with processes.main_first():
        if args.fresh and processes.main:
            run.clear()
        run.check(arguments.configuration(args, recipe, architecture, run))
        if run.finished:
            if processes.main:
                print(f"{run.path} holds a finished run: {headline(run)}. Its report is {run.path / 'report.html'}.")
                if command := playing.line(run.path)[0]:
                    print(f"Ask it about a held-out picture: {command}")
                print("Start anew with --fresh, or elsewhere with --run DIR.")
            return 0
    if args.preset == "full":
        found = processes.gather(missing(recipe, architecture, args.data, engine_name))
        if problems := list(dict.fromkeys(problem for of in found for problem in of)):
            if processes.main:
                print(f"the full preset trains {architecture.name}; what is missing here:", file=sys.stderr)
                print("\n".join(f"  - {problem}" for problem in problems), file=sys.stderr)
                print("nothing was downloaded or written. The tiny preset runs anywhere: python recipes/univa/train.py", file=sys.stderr)
            return 1
    with processes.main_first():
        configuration = arguments.configuration(args, recipe, architecture, run)
        run.begin(configuration) if processes.main else run.check(configuration)
        if processes.main and (note := arguments.other_threads(args, run)):
            print(f"train.py: {note}", file=sys.stderr)
    try:
        return train(
            recipe,
            architecture,
            run,
            seed=args.seed,
            threads=args.threads or configuration["threads"],
            engine_name=engine_name,
            data=args.data,
            evaluate_every=args.evaluate_every,
        )
    finally:
        run.unlock()


def train(
    recipe: Recipe,
    architecture: vlmkit.Architecture,
    run: RunDirectory,
    *,
    seed: int,
    threads: int,
    engine_name: str | None = None,
    data: Place | None = None,
    evaluate_every: int = 0,
) -> int:
    """The run itself, from wherever it stands. `data` holds a folder for each source; without it pictures are rendered. evaluate_every:
    steps from one look at held-out pictures to the next; 0 looks at the end only."""
    with quit_at_ctrl_c(STOPPED):
        import torch
        import transformers
        from rich.text import Text

        from vlmkit.allocator import reuse_large_blocks
        from vlmkit.screen import Screen
        from vlmkit.training.blueprint import OfArchitecture
        from vlmkit.training.engines import engine
        from vlmkit.training.loop import Interrupted, Trainer
        from vlmkit.training.processes import meet
        from vlmkit.training.signals import StopSignals

        # transformers loads what a model is made of when it is first asked for.
        processor = vlmkit.build_processor(architecture)
        parameters = architecture.parameters()

    transformers.utils.logging.disable_progress_bar()
    torch.set_num_threads(threads)
    reuse_large_blocks()
    processes = meet()
    console = Screen(quiet=not processes.main)
    blueprint = OfArchitecture(
        architecture, weights=recipe.weights, seed=seed, dtype=recipe.dtype, changed=warm_up.begin, prepared=prefer_flash_attention
    )
    what = f": {parameters.total:,} parameters on {_place(processes, engine_name)} in {run.path}"
    console.print(Text.assemble((architecture.name, "bold"), what), soft_wrap=True)
    shards = data
    with StopSignals() as stop:
        trainer = Trainer(
            run,
            blueprint,
            engine=engine(engine_name, processes, dtype=recipe.dtype),
            seed=seed,
            console=console,
            save_seconds=recipe.save_seconds,
            workers=recipe.workers,
            stop=stop,
        )
        if shards is None:
            with processes.main_first():
                shards = rendered(recipe, run.path / "pictures", seed, console)
        try:
            for number, stage in enumerate(recipe.stages, start=1):
                if stage.name in trainer.done:
                    continue
                _announce(console, number, stage, recipe, trainer)
                further = warm_up.trainer_arguments(stage, trainer.model)
                if evaluate_every and not stage.name.startswith("warmup"):
                    further |= {"evaluate": asking.on_the_way(recipe, processor, data), "evaluate_every": evaluate_every}
                trainer.train(stage, batches(stage, processor, seed, shards), **further)
                if processes.main:
                    show_stage(recipe, architecture, run, trainer, processor, stage, shards)
        except Interrupted as interrupted:
            console.print(f"{interrupted}; the state is saved. The same command goes on from there.", soft_wrap=True)
            return 128 + interrupted.signal
    # The main process alone evaluates. Nobody waits for it: that may take longer than processes wait for each other.
    if processes.main:
        finish(recipe, architecture, run, trainer, processor, data, console)
    return 0


# --- data -------------------------------------------------------------------------------------------------------------


def rendered(recipe: Recipe, folder: Path, seed: int, console: Console) -> Path:
    """The pictures of the published stages, rendered once into the shards that they are trained from."""
    from vlmkit.drawn import pictures
    from vlmkit.screen import Bars

    wanted = pictures.counts(stage for stage in recipe.stages if stage.name not in pictures.WARM_UP)
    with Bars(console=console, transient=True) as progress:
        bar = progress.add_task("rendering pictures", total=sum(wanted.values()))
        for source, count in wanted.items():
            pictures.write_shards(folder / source, source, count, seed, written=lambda: progress.advance(bar))
            progress.update(bar, refresh=True)
    console.print(f"{sum(wanted.values()):,} pictures in {folder}", soft_wrap=True)
    return folder


def batches(stage: Stage, processor: vlmkit.VLMProcessor, seed: int, shards: Place) -> Mixture | Dataset[dict[str, Tensor]]:
    """The stage's micro-batches: a mixture of the shards of its sources, or pictures drawn on the way for a warm-up."""
    from vlmkit.training.sources import mixture

    if stage.name.startswith("warmup"):
        from vlmkit.drawn import pictures

        return pictures.PictureBatches(processor, stage, seed, pictures.WARM_UP[stage.name])
    return mixture(stage, processor, shards, seed=seed)


# --- words ------------------------------------------------------------------------------------------------------------


def _announce(console: Console, number: int, stage: Stage, recipe: Recipe, trainer: Trainer) -> None:
    from rich.text import Text

    from vlmkit.architecture import PARTS

    learning = [part.replace("_", " ") for part in PARTS if stage.learns(part)]
    frozen = [part.replace("_", " ") for part in ("encoder", "connector", "language_model") if not stage.learns(part)]
    data = ", ".join(source.name for source in stage.data)
    note = f"; frozen: {', '.join(frozen)}" if frozen else ""
    what = f" ({number} of {len(recipe.stages)}) on {data}; learning: {', '.join(learning)}{note}"
    console.print(Text.assemble((stage.name, "bold"), what))


# --- machines ---------------------------------------------------------------------------------------------------------


def _place(processes: Processes, engine_name: str | None) -> str:
    if processes.world > 1:
        return f"{processes.world} processes ({engine_name or 'ddp'})"
    return f"{processes.device} ({engine_name})" if engine_name else str(processes.device)


def prefer_flash_attention(model: vlmkit.VLM) -> None:
    """FlashAttention where it is installed and the weights are of a kind that it takes."""
    import importlib.util

    import torch

    if importlib.util.find_spec("flash_attn") and torch.cuda.is_available() and model.dtype in (torch.bfloat16, torch.float16):
        model.language_model.set_attn_implementation("flash_attention_2")


if __name__ == "__main__":
    sys.exit(main())
