"""What train.py is asked for: its arguments, the recipe and the architecture that they choose, and all that a run depends on."""

from __future__ import annotations

import argparse
import hashlib
from pathlib import Path
from typing import Any

from stages import RECIPES, Recipe

import vlmkit
from vlmkit.commands.choice import EXCHANGEABLE, add_exchange_options, add_plugin_option, load_plugins, read_part
from vlmkit.commands.train import add_engine_options, check_engine_options, shards_at
from vlmkit.training.launched import place
from vlmkit.training.run import RunDirectory
from vlmkit.training.stage import Stage


def parser(description: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="train.py", description=description)
    parser.add_argument("--local_rank", type=int, help=argparse.SUPPRESS)  # of DeepSpeed's launcher; the environment says it too
    parser.add_argument(
        "--preset", choices=sorted(RECIPES, reverse=True), default="tiny", help="laptop or cluster; %(default)s unless given"
    )
    # torchrun takes --run for short of one of its own options where nothing keeps its words from ours.
    parser.add_argument("--run", "--run-dir", type=Path, metavar="DIR", help="directory of the run; runs/<model> unless given")
    parser.add_argument("--fresh", action="store_true", help="remove the run in that directory and start anew")
    parser.add_argument("--seed", type=int, default=0, help="of weights and data; %(default)s unless given")
    parser.add_argument(
        "--data",
        type=shards_at,
        metavar="DIR_OR_ADDRESS",
        help="shards of each data set, in a directory or such as s3://bucket/folder; the tiny preset renders its own pictures",
    )
    add_exchange_options(parser)
    add_plugin_option(parser)
    parser.add_argument(
        "--scale", type=_positive, default=1.0, metavar="X", help="fraction of the steps and of the evaluation, such as 0.02"
    )
    add_engine_options(parser)
    parser.add_argument("--model", metavar="NAME", help="architecture in the place of the preset's, such as one with few layers")
    parser.add_argument("--weights", metavar="WHAT", help="'pretrained', 'random' or a directory, in the place of the preset's")
    parser.add_argument("--length", type=int, metavar="N", help="tokens of a packed row, in the place of the preset's")
    parser.add_argument(
        "--batch-tokens", type=int, metavar="N", help="tokens of an update over all processes, in the place of the preset's"
    )
    return parser


def _positive(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value <= 100:
        raise argparse.ArgumentTypeError(f"expected a number above 0 and up to 100, got {text!r}")
    return value


def chosen(args: argparse.Namespace) -> tuple[Recipe, vlmkit.Architecture]:
    load_plugins(args)
    check_engine_options(args)
    for name in ("length", "batch_tokens"):
        if (value := getattr(args, name)) is not None and value < 1:
            raise ValueError(f"--{name.replace('_', '-')} takes 1 or more, got {value}")
    recipe = RECIPES[args.preset]
    stages = tuple(_packed(args, stage).scaled(args.scale) for stage in recipe.stages)
    for stage in stages:
        stage.resolved(place().world)  # what its tokens do not divide by is said here
    evaluation = max(2, round(recipe.evaluation * args.scale)) if recipe.evaluation else 0
    recipe = recipe.replace(stages=stages, evaluation=evaluation, **_given(args))
    parts = {name: read_part(name, given) for name in EXCHANGEABLE if (given := getattr(args, name)) is not None}
    return recipe, vlmkit.architecture(recipe.model).replace(**parts).validate()


def _packed(args: argparse.Namespace, stage: Stage) -> Stage:
    """A stage of packed rows with the lengths of the command line; with another length alone an update has as many rows as before."""
    if not stage.pack or stage.max_length is None:
        return stage
    length, tokens = args.length or stage.max_length, stage.batch_tokens
    if tokens is not None:
        tokens = tokens // stage.max_length * length
    return stage.replace(max_length=length, batch_tokens=args.batch_tokens or tokens)


def _given(args: argparse.Namespace) -> dict[str, Any]:
    """Fields of the recipe that the command line has other values for."""
    given = {name: value for name in ("model", "workers", "save_seconds") if (value := getattr(args, name)) is not None}
    if args.weights is not None:
        given["weights"] = None if args.weights == "random" else args.weights
    return given


def configuration(args: argparse.Namespace, recipe: Recipe, architecture: vlmkit.Architecture, run: RunDirectory) -> dict[str, Any]:
    """Everything that the result depends on. What it does not depend on stays as the run was begun, and so do the threads: a number that
    was asked for is tried anyway (`other_threads`)."""
    from vlmkit.data.shards.pack import cores

    begun = run.configuration() or {}
    kept = {name: value for name, value in begun.get("recipe", {}).items() if name in Recipe.free}
    plugins = [Path(plugin) for plugin in args.plugins if plugin.endswith(".py")]
    return {
        "recipe": recipe.to_dict() | kept,
        "architecture": architecture.to_dict(),
        "seed": args.seed,
        "threads": begun.get("threads") or args.threads or cores(),
        "data": str(args.data.resolve()) if args.data else None,
        "plugins": {plugin.name: hashlib.sha256(plugin.read_bytes()).hexdigest()[:16] for plugin in plugins},
    }


def other_threads(args: argparse.Namespace, run: RunDirectory) -> str:
    """What is to be said where a run goes on with another number of threads than it was begun with; nothing otherwise."""
    begun = (run.configuration() or {}).get("threads")
    if begun is None or args.threads in (None, begun):
        return ""
    return (
        f"the run was begun with {begun} threads and goes on with {args.threads}: sums in another order differ in their last bits, so its "
        "result is no longer that of an uninterrupted run to the bit"
    )
