"""Train models that differ in a part alike, with several seeds, and say which differences are larger than chance.

    vlmkit compare univa-vl-tiny --connector conv_patch_merger mlp pixel_shuffle perceiver --seeds 3

Without --data all learn from pictures that are drawn for them, as recipes/univa/train.py does; its warm-ups are shared by candidates with
the same tower and language model. With several families every combination is a candidate. The same command goes on where it was stopped.
"""

from __future__ import annotations

import os
import sys
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vlmkit.commands import UsageError
from vlmkit.commands.choice import add_plugin_option, described, load_plugins
from vlmkit.commands.table import print_table
from vlmkit.commands.terminal import say

if TYPE_CHECKING:
    from vlmkit.comparing.world import World

FAMILIES = ("policy", "encoder", "connector", "layout", "fusion", "language_model")


def configure(parser: ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help="the model whose parts are exchanged: a name, a directory or an architecture's JSON")
    for family in FAMILIES:
        option = family.replace("_", "-")
        what = "DIR" if family == "language_model" else "KIND[:FIELD=VALUE,...]"
        parser.add_argument(f"--{option}", nargs="+", metavar=what, default=[], help="compare these")
    parser.add_argument("--seeds", type=_count, default=1, metavar="N", help="trials of each candidate, with other random numbers (1)")
    parser.add_argument(
        "--scale",
        type=_fraction,
        nargs="+",
        default=[1.0],
        metavar="X",
        help="fraction of the steps of each stage; of several budgets it is asked whether the smallest tells the order of the largest",
    )
    parser.add_argument(
        "--warm-up", type=_fraction, default=1.0, metavar="X", help="fraction of the steps in which drawn pictures are first seen (1)"
    )
    parser.add_argument("--out", type=Path, metavar="DIR", help="directory of the comparison; comparisons/MODEL without")
    parser.add_argument("--fresh", action="store_true", help="remove the comparison in that directory and start anew")
    parser.add_argument("--data", type=Path, metavar="DIR", help="shards of each source of --stages, in place of drawn pictures")
    parser.add_argument("--stages", metavar="FILE", help="stages in YAML, or a Python file with STAGES")
    parser.add_argument("--hold-out", type=_count, default=100, metavar="N", help="samples of each source that are asked about (100)")
    parser.add_argument("--jobs", type=_count, metavar="N", help="trials at a time; one a GPU, or one, without")
    parser.add_argument("--threads", type=_count, metavar="N", help="of each trial; without, cores shared out among the jobs")
    add_plugin_option(parser)


def run(arguments: Namespace) -> None:
    load_plugins(arguments)
    from vlmkit.comparing.candidates import candidates
    from vlmkit.spec import SpecError

    if (arguments.data is None) != (arguments.stages is None):
        raise UsageError("--data and --stages go together: shards, and what is learned from them")
    try:
        found = candidates(described(arguments.model), {family: getattr(arguments, family) for family in FAMILIES})
    except (SpecError, ValueError) as error:
        raise UsageError(str(error)) from None
    _compare(arguments, tuple(found), _worlds(arguments))


def _worlds(arguments: Namespace) -> dict[float, World]:
    from vlmkit.comparing.world import DrawnWorld, ShardsWorld

    budgets = sorted(set(arguments.scale))
    if arguments.data is None:
        return {budget: DrawnWorld(budget, arguments.hold_out, arguments.warm_up) for budget in budgets}
    from vlmkit.spec import SpecError
    from vlmkit.training.stage_files import read_stages

    if not arguments.data.is_dir():
        raise UsageError(f"--data {arguments.data} is no directory; 'vlmkit data pack' writes shards")
    try:
        stages = read_stages(arguments.stages)
        return {budget: ShardsWorld(stages, arguments.data, arguments.hold_out, budget) for budget in budgets}
    except (SpecError, ValueError) as error:
        raise UsageError(str(error)) from None


def _compare(arguments: Namespace, found: tuple[Any, ...], worlds: dict[float, World]) -> None:
    from vlmkit.comparing import report
    from vlmkit.comparing.progress import StudyProgress
    from vlmkit.comparing.study import Study
    from vlmkit.files import write_whole
    from vlmkit.screen import Screen
    from vlmkit.training.run import RunDirectory

    if find_spec("scipy") is None:
        raise UsageError("what is a difference is reckoned with scipy, which is not installed: pip install 'vlmkit[eval]'")
    devices = _devices()
    jobs = arguments.jobs or max(1, devices)
    study = Study(
        arguments.out or Path("comparisons") / Path(arguments.model).name,
        found,
        arguments.seeds,
        worlds,
        arguments.threads or max(1, _cores() // jobs),
        tuple(os.path.abspath(name) if os.path.exists(name) else name for name in arguments.plugins),
    )
    directory = RunDirectory(study.path)
    if arguments.fresh:
        directory.clear()
    directory.begin({"kind": "comparison"})
    try:
        study.write()
    except BaseException:
        directory.unlock()
        raise
    try:
        with StudyProgress(Screen(stderr=True), study, jobs) as progress:
            study.run(jobs, progress.done, devices, progress.watch)
    except KeyboardInterrupt:
        say(f"stopped; the same command goes on with what stands in {study.path}", file=sys.stderr)
        raise
    finally:
        directory.unlock()
        if tables := report.tables(study):
            write_whole(study.path / "report.html", report.page(study, tables))
    for table in tables:
        print_table(table.columns, table.lines(), title=f"{table.budget:g} of the steps", right=table.columns[1:])
        say(table.verdict())
    if len(tables) > 1 and (same := report.correlation(tables[0], tables[-1])) is not None:
        say(f"Rank correlation of {tables[0].budget:g} and {tables[-1].budget:g} of the steps: {same:.2f}.")
    say(f"page: {study.path / 'report.html'}")


def _devices() -> int:
    import torch

    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def _cores() -> int:
    from vlmkit.data.shards.pack import cores

    return cores()


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise ArgumentTypeError(f"expected a whole number from 1 up, got {text!r}")
    return int(text)


def _fraction(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value <= 100:
        raise ArgumentTypeError(f"expected a number above 0 and up to 100, got {text!r}")
    return value
