"""Count what is in packed shards, print it and draw it: images, sizes, words, tokens under a model, what packing saves.

Images are all counted, from the index alone. Words are counted in tokens for samples drawn at random. Sizes are
width x height; '5 %' is the value that 5 % of all lie at or below.
"""

from __future__ import annotations

import json
import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vlmkit.commands import UsageError
from vlmkit.commands.choice import EXCHANGEABLE, add_exchange_options, add_language_model_option, add_plugin_option, chosen, load_plugins
from vlmkit.commands.data_pack import positive
from vlmkit.commands.data_show import default_output
from vlmkit.commands.picture import add_force_option, check_output, write_picture
from vlmkit.commands.table import print_table
from vlmkit.commands.terminal import say

if TYPE_CHECKING:
    from vlmkit.architecture import Architecture
    from vlmkit.data.looking.statistics import Content, Cost, Values
    from vlmkit.processor import VLMProcessor


def configure(parser: ArgumentParser) -> None:
    parser.add_argument(
        "shards", metavar="SHARDS", help="directory that 'vlmkit data pack' wrote, or its address, such as s3://bucket/folder"
    )
    parser.add_argument("--model", metavar="NAME", help="count tokens under this model: 'vlmkit list' knows them")
    add_exchange_options(parser)
    add_language_model_option(parser)
    parser.add_argument("--tokenizer", metavar="NAME_OR_DIRECTORY", help="count words by this tokenizer in place of the model's own")
    parser.add_argument("--length", metavar="N", type=positive, default=4096, help="of packed rows, in tokens (4096)")
    parser.add_argument("--samples", metavar="N", type=positive, default=2000, help="samples whose words are counted (2000)")
    parser.add_argument("--json", action="store_true", help="print JSON in place of tables, and draw only with -o")
    parser.add_argument("-o", "--output", metavar="FILE.png", help="where to draw; SHARDS.stats.png in this directory without")
    add_force_option(parser)
    add_plugin_option(parser)


def run(arguments: Namespace) -> None:
    load_plugins(arguments)
    for option in () if arguments.model else ("tokenizer", *EXCHANGEABLE, "language_model", "beside"):
        if getattr(arguments, option) not in (None, []):
            raise UsageError(f"--{option.replace('_', '-')} is about a model: name it with --model")
    model = chosen(arguments) if arguments.model else None
    from vlmkit.data.shards.places import place

    directory = place(arguments.shards)
    drawing = arguments.output or not arguments.json
    output = Path(arguments.output or default_output(directory, "stats"))
    if drawing:
        check_output(output, Path(arguments.shards), arguments.force)

    from vlmkit.data.looking.statistics import content, cost
    from vlmkit.data.shards import Shards

    shards = Shards(directory)
    found = content(shards)
    spent = cost(shards, found, model, _processor(model, arguments.tokenizer), samples=arguments.samples) if model else None
    told = as_json(found, spent, arguments.length)
    if arguments.json:
        say(json.dumps(told, indent=2))
    else:
        _print(shards.directory.name, found, spent, told)
    if spent is not None and spent.estimated:
        say(f"tokens of words are estimated from their bytes: {spent.estimated}", file=sys.stderr)
    if drawing:
        from vlmkit.data.looking.charts import draw

        write_picture(draw(shards.directory.name, found, spent, arguments.length), output)
        say(output, file=sys.stderr if arguments.json else sys.stdout)


def _processor(model: Architecture, tokenizer: str | None) -> VLMProcessor | str:
    """What counts words; where there is no tokenizer, why not, as its absence says nothing about images."""
    from vlmkit.build import build_processor
    from vlmkit.spec import SpecError

    try:
        return build_processor(model, tokenizer=tokenizer)
    except SpecError as error:
        if tokenizer is not None:
            raise
        return str(error)


def as_json(found: Content, spent: Cost | None, length: int) -> dict[str, Any]:
    """Everything that is counted, with names."""
    from vlmkit.data.looking.charts import BATCHES

    told: dict[str, Any] = {
        "samples": found.samples,
        "conversations": found.conversations,
        "images": found.images,
        "image_bytes": found.image_bytes,
        "text_bytes": found.text_bytes,
        "sources": {name: vars(source) for name, source in found.sources.items()},
        "width": spread(found.per_image(lambda size: size.width)),
        "height": spread(found.per_image(lambda size: size.height)),
        "megapixels": spread(found.per_image(lambda size: size.pixels / 1e6)),
        "width_over_height": spread(found.per_image(lambda size: size.width / size.height)),
        "images_per_sample": spread(found.images_per_sample),
        "text_bytes_per_sample": spread(found.text_bytes_per_sample),
        "rejected": {source: found.rejections.by_reason(source) for source in found.rejections.sources if found.rejections.total(source)},
    }
    if spent is not None:
        told["tokens"] = {
            "model": spent.model,
            "visual_tokens": int(spent.visual.total),
            "visual_tokens_per_image": spread(spent.visual),
            "images_refused": spent.refused,
            "text_tokens": round(spent.text_tokens),
            "text_tokens_estimated_because": spent.estimated or None,
            "samples_read": spent.sampled,
            "padding": {f"batch of {batch}": round(spent.padding(batch), 4) for batch in BATCHES},
            f"padding_packed_to_{length}": round(spent.packed_padding(length), 4),
            f"conversations_longer_than_{length}": spent.longer_than(length),
        }
    return told


def spread(values: Values) -> dict[str, float]:
    shares = {"5 %": 0.05, "median": 0.5, "95 %": 0.95, "most": 1.0}
    return {"mean": round(values.mean, 3), "least": round(values.at(0), 3)} | {name: round(values.at(at), 3) for name, at in shares.items()}


def _print(title: str, found: Content, spent: Cost | None, told: dict[str, Any]) -> None:
    counts = {
        "samples": found.samples,
        "conversations": found.conversations,
        "images": found.images,
        "megabytes of images": found.image_bytes / 1e6,
        "megabytes of text": found.text_bytes / 1e6,
    }
    if spent is not None:
        about = f" ({'guessed' if spent.estimated else 'reckoned'} from {spent.sampled:,} samples)"
        counts |= {f"visual tokens under {spent.model}": spent.visual.total, f"text tokens{about}": spent.text_tokens}
    print_table(("", "count"), [(name, _number(value)) for name, value in counts.items()], title=title, right=("count",))
    say()
    names = ("width", "height", "megapixels", "width_over_height", "images_per_sample", "text_bytes_per_sample")
    spreads = {name.replace("_", " "): told[name] for name in names}
    if spent is not None:
        spreads["visual tokens per image"] = told["tokens"]["visual_tokens_per_image"]
    columns = list(told["width"])
    print_table(("", *columns), [(name, *map(_number, row.values())) for name, row in spreads.items()], right=columns)
    if len(found.sources) > 1:
        say()
        columns = ["source", "samples", "images", "bytes of text"]
        sources = [(name, *(f"{number:,}" for number in vars(source).values())) for name, source in found.sources.items()]
        print_table(columns, sources, right=columns[1:])
    if spent is not None:
        say()
        tokens = told["tokens"]
        rows = [(f"padded to the longest, {name}", f"{share:.1%}") for name, share in tokens["padding"].items()]
        rows += [
            (name.replace("padding_", "").replace("_", " "), f"{share:.1%}") for name, share in tokens.items() if "padding_packed" in name
        ]
        print_table(("rows", "share of padding"), rows, right=("share of padding",))
        for name, number in tokens.items():
            if name.startswith("conversations_longer") and number:
                say(f"{number:,} of {len(spent.lengths):,} {name.replace('_', ' ')} tokens")
        if spent.refused:  # each size has a reason of its own
            number, reason = sum(spent.refused.values()), max(spent.refused, key=lambda reason: spent.refused[reason])
            say(f"{number:,} of {found.images:,} images refused by {spent.model}, such as: {reason}")
    if report := found.rejections.report():
        say(f"\nLeft out when packing:\n{report}")


def _number(value: float) -> str:
    return f"{value:,.0f}" if value == int(value) or value >= 1000 else f"{value:,.2f}"
