"""List named models and the parts they are made of, or all parts of a family.

Every part has its own name, the one that the other commands and the Python functions take.
"""

from __future__ import annotations

import inspect
import sys
from argparse import ArgumentParser, Namespace
from typing import Any

from vlmkit.commands.choice import add_plugin_option, load_plugins, match
from vlmkit.commands.table import print_table
from vlmkit.connectors import connectors
from vlmkit.data.filters import filters
from vlmkit.data.formats import formats
from vlmkit.encoders import encoders
from vlmkit.evaluation.benchmarks import tasks
from vlmkit.fusion import fusions
from vlmkit.layout import layouts
from vlmkit.preprocess.policies import policies
from vlmkit.registry import Catalogue
from vlmkit.zoo import architecture, list_models

FAMILIES: dict[str, Catalogue[Any]] = {
    "policies": policies,
    "encoders": encoders,
    "connectors": connectors,
    "layouts": layouts,
    "fusions": fusions,
    "formats": formats,
    "filters": filters,
    "tasks": tasks,
}


def configure(parser: ArgumentParser) -> None:
    parser.add_argument("pattern", metavar="PATTERN", nargs="?", default="*", help="a shell pattern such as 'univa*'; all without")
    family = parser.add_mutually_exclusive_group()
    for name, registry in FAMILIES.items():
        what = f"list the kinds of {registry.family} in place of models"
        family.add_argument(f"--{name}", dest="family", action="store_const", const=name, help=what)
    parser.add_argument(
        "--parameters", action="store_true", help="count the parameters of every model (seconds each; nothing is allocated)"
    )
    add_plugin_option(parser)


def run(arguments: Namespace) -> None:
    load_plugins(arguments)
    if arguments.family is None:
        _print_models(match(arguments.pattern, "model", list_models()), arguments.parameters)
    else:
        registry = FAMILIES[arguments.family]
        kinds = match(arguments.pattern, registry.family, registry.names())
        print_table((registry.family, "what it is"), [(kind, summary(registry[kind])) for kind in kinds])


def _print_models(names: list[str], count: bool) -> None:
    columns = ["model", "policy", "encoder", "connector", "layout", "fusion", "language model"]
    counts = ["encoder parameters", "connector parameters", "fusion parameters", "language model parameters", "all parameters"]
    rows = []
    for name in names:
        model = architecture(name)
        row = [name, *model.kinds().values()]
        if count:
            parameters = model.parameters()
            row += [f"{number:,}" for number in (*parameters, parameters.total)]
        rows.append(row)
    print_table([*columns, *(counts if count else [])], rows, right=counts)


def summary(part: Any) -> str:
    """The first sentence or line about a part: of its file where the file is its own, otherwise of its class or function, or
    where that says nothing of its file."""
    own_file = part.__module__.rpartition(".")[2] == part.kind
    text = (None if own_file else _own_doc(part)) or inspect.getdoc(sys.modules[part.__module__])
    lines: list[str] = []
    for line in (text or "").strip().partition("\n\n")[0].splitlines():
        lines.append(line.strip())
        if line.endswith((".", ":")):
            break
    return " ".join(lines)


def _own_doc(part: Any) -> str:
    """Not that of a class it inherits from, nor what dataclass writes where nobody did."""
    text: str = (part.__dict__.get("__doc__") if isinstance(part, type) else part.__doc__) or ""
    return "" if text.startswith(f"{part.__name__}(") else text
