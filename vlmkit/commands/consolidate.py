"""Write what a training run has reached as a checkpoint, whatever engine trains it.

The run may be going on; its last complete state is taken.
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path

from vlmkit.commands.choice import add_plugin_option, load_plugins
from vlmkit.commands.terminal import say


def configure(parser: ArgumentParser) -> None:
    parser.add_argument("run_directory", metavar="RUN", help="directory of a training run")
    parser.add_argument("directory", metavar="DIR", help="where to write: a directory that is not there yet, or is empty")
    parser.add_argument("--averaged", action="store_true", help="moving averages in place of weights, where a stage kept them (ema)")
    parser.add_argument("--dtype", default="float32", help="of the written weights, such as bfloat16 (%(default)s)")
    add_plugin_option(parser)


def run(arguments: Namespace) -> None:
    load_plugins(arguments)
    from vlmkit.commands.export import check_target, whole_directory

    target = Path(arguments.directory)
    check_target(target)

    import vlmkit
    from vlmkit.training.consolidate import consolidate
    from vlmkit.training.states import SavedState

    with whole_directory(target) as partial:
        consolidate(arguments.run_directory, partial, averaged=arguments.averaged, dtype=arguments.dtype)
        state = SavedState.newest(Path(arguments.run_directory) / "state")
        assert state is not None, "consolidate has read it"
        architecture = vlmkit.Architecture.from_dict(state.position["model"]["architecture"])
        vlmkit.build_processor(architecture).save_pretrained(partial)
    say(target)
