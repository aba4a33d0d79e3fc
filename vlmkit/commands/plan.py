"""Say what training a model takes: memory a GPU, the micro-batch and engine that fit, communication, time and cost.

A step of the model is traced without memory; nothing is trained, and no GPU is needed. Of univa-vl it takes some seconds. How far the
numbers were checked stands at their end.
"""

from __future__ import annotations

import json
import re
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from typing import TYPE_CHECKING

from vlmkit.architecture import PARTS
from vlmkit.commands import UsageError
from vlmkit.commands.choice import MODEL, add_exchange_options, add_language_model_option, add_plugin_option, chosen
from vlmkit.commands.photo import read_size
from vlmkit.commands.terminal import say

if TYPE_CHECKING:
    from vlmkit.architecture import Architecture
    from vlmkit.planning import Job
    from vlmkit.planning.published import KnownStage

UNITS = {"": 1.0, "mb": 1e6, "gb": 1e9, "tb": 1e12, "mib": 2.0**20, "gib": 2.0**30}


def configure(parser: ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help=MODEL)
    parser.add_argument("--gpus", type=_count, default=1, metavar="N", help="GPUs in all, 8 to a machine (default 1)")
    parser.add_argument("--gpu", default="h100", help="a100, h100, h200 or b200 (default h100)")
    parser.add_argument("--gpu-memory", type=read_bytes, metavar="80GB", help="bytes of a GPU, where not the data sheet's")
    parser.add_argument("--peak-tflops", type=_positive, metavar="N", help="operations of a GPU, where not the data sheet's")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--stage", metavar="NAME", help="align, pretrain or sft, or a stage of --stages; everything learns without it")
    what.add_argument("--learn", metavar="PARTS", help=f"what learns, with commas between: {','.join(PARTS)}")
    parser.add_argument("--stages", metavar="FILE", help="a stage file; --stage names one of several")
    parser.add_argument("--engine", help="single, ddp, zero2, fsdp2 or zero3; all of them are compared without it")
    parser.add_argument("--length", type=_count, metavar="S", help="tokens of a packed row (default 2048)")
    parser.add_argument("--micro-batch", type=_count, metavar="ROWS", help="rows of a GPU at once; the largest that fits without it")
    again = parser.add_mutually_exclusive_group()
    again.add_argument("--recompute", dest="recompute", action="store_true", default=None, help="only with activations recomputed")
    again.add_argument("--no-recompute", dest="recompute", action="store_false", help="only without")
    parser.add_argument("--dtype", choices=["bfloat16", "float32"], default="bfloat16", help="of the computation (default %(default)s)")
    parser.add_argument("--size", type=read_size, metavar="WIDTHxHEIGHT", help="pixels of every image (default 640x480)")
    parser.add_argument("--text-tokens", type=_count, metavar="N", help="tokens of text beside an image (default: published, or 55)")
    parser.add_argument("--images", type=_count, metavar="N", help="images of the stage (default: as published)")
    parser.add_argument("--mfu", type=_positive, default=0.4, help="share of the peak that is reached (default %(default)s)")
    parser.add_argument("--gpu-hour-price", type=_positive, metavar="PRICE", help="for the cost, in whatever money")
    add_exchange_options(parser)
    add_language_model_option(parser)
    add_plugin_option(parser)
    parser.add_argument("--json", action="store_true", help="print the plan as JSON, in bytes and seconds")


def run(arguments: Namespace) -> None:
    from vlmkit.planning import Hardware, PlanError, plan
    from vlmkit.planning.text import lines

    model = chosen(arguments)
    try:
        found = plan(
            _job(arguments, model),
            Hardware(
                gpus=arguments.gpus,
                gpu=arguments.gpu,
                memory=arguments.gpu_memory or 0.0,
                peak=1e12 * (arguments.peak_tflops or 0.0),
            ),
            engine=arguments.engine,
            recompute=arguments.recompute,
            mfu=arguments.mfu,
            gpu_hour_price=arguments.gpu_hour_price,
            largest=arguments.micro_batch is None,
        )
    except PlanError as error:
        raise UsageError(str(error)) from None
    say(json.dumps(found.to_dict(), indent=2) if arguments.json else "\n".join(lines(found)))


def _job(arguments: Namespace, model: Architecture) -> Job:
    from vlmkit.planning import Job
    from vlmkit.planning.published import known_stages

    given = {
        "size": arguments.size,
        "text_tokens": arguments.text_tokens,
        "images": arguments.images,
        "length": arguments.length,
        "micro_batch": arguments.micro_batch,
        "dtype": arguments.dtype,
    }
    stated: dict[str, object] = {"model": model}
    if arguments.stages is not None:
        from vlmkit.planning.stages import stage_of_file

        stated = stage_of_file(arguments.stages, arguments.stage, model)
    elif arguments.stage is not None:
        stated |= _as_published(arguments.stage, known_stages(model.name))
    if arguments.learn is not None:
        stated["learns"] = tuple(part.strip() for part in arguments.learn.split(",") if part.strip())
    values = stated | {name: value for name, value in given.items() if value is not None}
    return Job(**values)  # type: ignore[arg-type]


def _as_published(name: str, known: tuple[KnownStage, ...]) -> dict[str, object]:
    for stage in known:
        if stage.name == name:
            found: dict[str, object] = {"name": name, "learns": stage.learns, "images": stage.images}
            return found if stage.text_an_image is None else found | {"text_tokens": stage.text_an_image}
    raise UsageError(f"no stage {name!r}; there are {', '.join(stage.name for stage in known)}, or name a file with --stages")


def read_bytes(text: str) -> float:
    """'80GB' -> 8e10, '80GiB' -> 85899345920.0."""
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([a-z]*)\s*", text.lower())
    if found is None or found[2] not in UNITS or float(found[1]) <= 0:
        raise ArgumentTypeError(f"expected bytes such as 80GB or 141GiB, got {text!r}")
    return float(found[1]) * UNITS[found[2]]


def _count(text: str) -> int:
    if not re.fullmatch(r"\s*\d+\s*", text) or int(text) < 1:
        raise ArgumentTypeError(f"expected a whole number from 1 up, got {text!r}")
    return int(text)


def _positive(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 < value < float("inf"):
        raise ArgumentTypeError(f"expected a number more than 0, got {text!r}")
    return value
