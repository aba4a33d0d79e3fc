"""Write docs/scale.md, a cluster on paper, from the planner.

python docs/scale.py --trace    trace the steps again into docs/scale.json (a minute), and write the page
python docs/scale.py            write the page from the steps that docs/scale.json holds
python docs/scale.py --check    say whether the page is stale and exit with 1, write nothing
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from textwrap import wrap
from typing import Any

from pieces import ROOT, table

import vlmkit
from vlmkit.data.shards.index import ROW
from vlmkit.planning import Hardware, Job, Plan, plan
from vlmkit.planning.published import UNIVA_VL
from vlmkit.planning.trace import Part, Trace, trace

PAGE, STEPS = ROOT / "docs" / "scale.md", ROOT / "docs" / "scale.json"
MEASURED = ROOT / "docs" / "scale-measured.json"
"""What `benchmarks/plan.py --json` wrote."""
GPUS = (8, 64, 512)
PRICE = 3.0
"""Of an hour of an H200; a round figure, to be exchanged."""
IMAGE = 152_000
"""Bytes of a photograph of 640x480 as JPEG: COCO train2017 has 118,287 in 18 GB."""
A_CORE = 450
"""Images of 640x480 that a core decodes, resizes and cuts into patches in a second: 2.2 ms each (two shared cores, one thread)."""
CORES = 16
"""Of a machine's cores for each GPU, as rented machines have."""
DISK = 5e9
"""Bytes a second that a local NVMe disk reads."""
COUNTS = (164_602, 6_202_182, 10**8, 10**9)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--trace", action="store_true", help="trace the steps again")
    parser.add_argument("--check", action="store_true", help="exit with 1 where the page is stale; write nothing")
    arguments = parser.parse_args()
    if arguments.trace:
        STEPS.write_text(written(steps()), encoding="utf-8")
        print(f"wrote {STEPS.relative_to(ROOT)}")
    page = "\n".join(lines(read(STEPS))) + "\n"
    if PAGE.is_file() and PAGE.read_text(encoding="utf-8") == page:
        return 0
    if arguments.check:
        print(f"{PAGE.relative_to(ROOT)} is stale: run `python docs/scale.py`")
        return 1
    PAGE.write_text(page, encoding="utf-8")
    print(f"wrote {PAGE.relative_to(ROOT)}")
    return 0


def jobs() -> dict[str, Job]:
    """UNIVA-VL's stages by their names."""
    arch = vlmkit.architecture("univa-vl")
    return {
        stage.name: Job(model=arch, name=stage.name, learns=stage.learns, images=stage.images, text_tokens=stage.text_an_image or 1)
        for stage in UNIVA_VL
    }


Steps = dict[str, dict[bool, Trace]]


def steps() -> Steps:
    return {name: {again: trace(replace(job, recompute=again)) for again in (False, True)} for name, job in jobs().items()}


def written(found: Steps) -> str:
    """One line a step."""
    entries = [f'  "{name} {int(again)}": {json.dumps(asdict(step))}' for name, of in found.items() for again, step in of.items()]
    return "{\n" + ",\n".join(entries) + "\n}\n"


def read(path: Path) -> Steps:
    found: Steps = {}
    for key, fields in json.loads(path.read_text(encoding="utf-8")).items():
        name, again = key.split()
        fields["moments"] = tuple(tuple(moment) for moment in fields["moments"])
        fields["parts"] = {part: Part(**numbers) for part, numbers in fields["parts"].items()}
        found.setdefault(name, {})[again == "1"] = Trace(**fields)
    return found


def lines(found: Steps) -> Iterator[str]:
    plans = {
        (name, gpus): plan(job, Hardware(gpus=gpus, gpu="h200"), gpu_hour_price=PRICE, traces=found[name])
        for name, job in jobs().items()
        for gpus in GPUS
    }
    yield "# At scale"
    yield ""
    yield from prose(
        "Written from the planner by `python docs/scale.py`; a test fails where it is stale. None of it was run: there was no GPU. "
        "`vlmkit plan univa-vl --gpus 64 --gpu h200 --stage sft` prints one line of the first table with everything that it is made of, "
        "and `benchmarks/plan.py` measures the memory of steps on a CPU, the only place where the planner was compared with what happens."
    )
    yield ""
    yield "## The three stages of UNIVA-VL"
    yield ""
    yield from _stages(plans)
    yield ""
    yield "## Data to a thousand million images"
    yield ""
    yield from _data(plans)
    yield ""
    yield "## Where each resource ends"
    yield ""
    yield from _ends(plans)
    yield ""
    yield "## How far the planner was checked"
    yield ""
    yield from _checked()


def _stages(plans: dict[tuple[str, int], Plan]) -> Iterator[str]:
    yield from prose(
        "On H200s, the cheapest engine that fits with the largest micro-batch that fits, in rows of 2,048 tokens. Computing is at 40 % "
        "MFU; sending is what the traffic would take alone, at 450 GB/s within a machine of 8 and 50 GB/s a GPU between machines."
    )
    yield ""
    rows = []
    for (name, gpus), found in plans.items():
        chosen, pace = found.chosen, found.pace
        if chosen is None or pace is None:
            rows.append([name, str(gpus), "nothing fits", *[""] * 9])
            continue
        rows.append(
            [
                name,
                str(gpus),
                chosen.engine + (", recomputed" if chosen.recompute else ""),
                str(pace.rows),
                f"{_memory(found):.0f}",
                f"{chosen.traffic.total / 1e9:,.1f}",
                f"{pace.sending:.2f}",
                f"{pace.seconds:.2f}",
                f"{pace.images:,.0f}",
                f"{pace.steps:,}",
                _time(pace.hours or 0.0),
                f"{pace.gpu_hours or 0:,.0f}",
                f"{pace.price or 0:,.0f}",
            ]
        )
    titles = [
        "stage",
        "GPUs",
        "engine",
        "rows",
        "GB a GPU",
        "GB sent",
        "s sending",
        "s computing",
        "images/s",
        "updates",
        "time",
        "GPU hours",
    ]
    yield table([*titles, f"cost at {PRICE:g} an hour"], rows, right=10)
    yield ""
    some = plans["pretrain", 64]
    yield "Assumed:"
    yield ""
    for assumption in some.assumptions[:-1]:
        yield f"- {assumption}"
    yield f"- images and text tokens as {UNIVA_VL[1].source} has them; {UNIVA_VL[0].source.partition('; ')[2]}"


def _memory(found: Plan) -> float:
    """GB of the chosen engine with its largest micro-batch."""
    from vlmkit.planning.memory import memory

    chosen, pace = found.chosen, found.pace
    assert chosen is not None
    assert pace is not None
    return memory(chosen.engine, found.job, read(STEPS)[found.job.name][chosen.recompute], found.hardware.gpus, pace.rows).total / 1e9


def _data(plans: dict[tuple[str, int], Plan]) -> Iterator[str]:
    yield from prose(
        f"A photograph of 640x480 is about {IMAGE / 1e3:.0f} kB as JPEG (COCO train2017: 118,287 in 18 GB); an index has {ROW.itemsize} "
        "bytes a sample. Time is that of one pass with everything learning (`pretrain`)."
    )
    yield ""
    rows = []
    for count in COUNTS:
        times = [_time(count / pace.images / 3600) for gpus in GPUS if (pace := plans["pretrain", gpus].pace) is not None]
        rows.append([f"{count:,}", _bytes(count * IMAGE), _bytes(count * ROW.itemsize), *times])
    yield table(["images", "shards", "index", *[f"on {gpus} GPUs" for gpus in GPUS]], rows, right=6)
    yield ""
    yield from prose(
        f"A core makes patches of about {A_CORE} such images a second (2.2 ms each: decoded whole, resized exactly; one thread of a shared "
        "machine). What the GPUs ask for:"
    )
    yield ""
    rows = []
    for (name, gpus), found in plans.items():
        if found.pace is not None:
            a_gpu = found.pace.images / gpus
            rows.append(
                [
                    name,
                    str(gpus),
                    f"{found.pace.images:,.0f}",
                    f"{_bytes(found.pace.images * IMAGE)}/s",
                    f"{_bytes(found.pace.images / math.ceil(gpus / 8) * IMAGE)}/s",
                    f"{a_gpu / A_CORE:.2f}",
                    str(math.ceil(8 * a_gpu / A_CORE)),
                ]
            )
    yield table(["stage", "GPUs", "images/s", "read", "read a machine", "cores a GPU", "workers a machine"], rows, right=6)


def _ends(plans: dict[tuple[str, int], Plan]) -> Iterator[str]:
    full = plans["pretrain", 64]
    need, usable = 16 * sum(of[0] for of in full.parts.values()), full.hardware.usable
    yield from prose(
        f"- **Memory.** Weights, gradients and optimizer of full tuning are 16 bytes a parameter, {need / 1e9:,.0f} GB: more than "
        f"{int(need // usable)} H200s hold before any activation. {_fit(plans)}."
    )
    for gpus in GPUS:
        found = plans["pretrain", gpus]
        if found.pace is not None and found.chosen is not None:
            sent = found.chosen.traffic.total
            rows = sent / found.hardware.bandwidth / (found.pace.seconds / found.pace.rows)
            yield from prose(
                f"- **Network, {gpus} GPUs.** {found.chosen.engine} sends {sent / 1e9:,.0f} GB a micro-batch, whatever its size: as long "
                f"as {rows:.1f} rows ({rows * full.job.length:,.0f} tokens) compute. The largest that fits is {found.pace.rows}."
            )
    yield from _batches(plans)
    paces = {gpus_and_name: found.pace for gpus_and_name, found in plans.items() if found.pace is not None}
    fastest = max(pace.images / gpus for (_, gpus), pace in paces.items())
    share = fastest / A_CORE
    yield from prose(
        f"- **Processors.** The fastest stage asks {fastest:.1f} images/s for each GPU: {share:.2f} cores, of some {CORES} that rented "
        f"machines have. Photographs of 12 megapixels take about ten times as long to decode: {10 * share:.1f} cores. They do not end "
        f"first at this model size. A model of 1B parameters sees some thirty times as many images a second: {30 * share:.1f} cores, and "
        f"{300 * share:.0f} with photographs of 12 megapixels."
    )
    most = max(pace.images / math.ceil(gpus / 8) for (_, gpus), pace in paces.items()) * IMAGE
    yield from prose(
        f"- **Disks.** A machine reads at most {_bytes(most)}/s, of {DISK / 1e9:.0f} GB/s that one local disk gives. A thousand million "
        f"images are {_bytes(1e9 * IMAGE)} and do not fit on a machine's disks: they are read from an object store, "
        f"{_bytes(512 / 8 * most)}/s for 64 machines."
    )
    yield from prose(
        f"- **Index.** At {ROW.itemsize} bytes a sample, 10^9 samples are {_bytes(1e9 * ROW.itemsize)}: mapped from disk, not held. Ten "
        "million were opened and read (`benchmarks/data.py`), a hundred times as many never were."
    )


def _checked() -> Iterator[str]:
    rows = json.loads(MEASURED.read_text(encoding="utf-8"))
    ratios = {what: [row["predicted"] / row[what] for row in rows] for what in ("live", "resident")}
    spread = {what: f"{100 * min(of) - 100:+.1f} to {100 * max(of) - 100:+.1f} %" for what, of in ratios.items()}
    yield from prose(
        "Three models of three families in float32 on one CPU core (`python benchmarks/plan.py`), each figure from a process of its own, "
        "MB at the peak; rows of one sample, so that attention needs no mask. Against live tensors, as torch's allocator reports them, the "
        f"prediction is {spread['live']} off; against resident memory, with a C library that gives back what is freed, "
        f"{spread['resident']}. Nothing was fitted to them. What kernels take for themselves while they run is not in the prediction. "
        "Engines that divide, bfloat16 and GPUs were not measured."
    )
    yield ""
    head = ["model", "learns", "recomputed", "predicted", "live", "resident"]
    shown = [
        [row["model"], row["stage"], "yes" if row["recompute"] else "no", *(f"{row[what] / 1e6:,.0f}" for what in head[3:])] for row in rows
    ]
    yield table(head, shown, right=3)


def _batches(plans: dict[tuple[str, int], Plan]) -> Iterator[str]:
    big = plans["sft", 512]
    assert big.pace is not None
    images, row = big.job.images or 0, big.job.samples_a_row
    yield from prose(
        f"- **Batch.** With the largest micro-batch 512 GPUs see {row * big.pace.rows * 512:,} images an update, and fine-tuning on "
        f"{images:,} would be {big.pace.steps} updates: too few to learn from. With one row a GPU it is {images / (row * 512):.0f} updates "
        f"on 512 GPUs, where sending then takes longer than computing, {images / (row * 64):.0f} on 64 and {images / (row * 8):,.0f} on 8. "
        "Fine-tuning ends first, and with it the use of more machines."
    )


def _fit(plans: dict[tuple[str, int], Plan]) -> str:
    largest: dict[str, int] = {}
    for candidate in plans["pretrain", 8].candidates:
        largest[candidate.engine] = max(largest.get(candidate.engine, 0), candidate.largest)
    fitting = [f"{engine} with up to {rows} rows" for engine, rows in largest.items() if rows]
    others = [engine for engine, rows in largest.items() if not rows]
    return f"Of the engines 8 GPUs hold {' and '.join(fitting) or 'none'}; not {' or '.join(others) or 'one is left out'}"


def prose(text: str) -> Iterator[str]:
    """A paragraph, or an item of a list, in lines of 125 characters."""
    yield from wrap(text, 125, subsequent_indent="  " if text.startswith("- ") else "", break_long_words=False, break_on_hyphens=False)


def _time(hours: float) -> str:
    if hours < 1:
        return f"{60 * hours:.0f} min"
    return f"{hours:.1f} h" if hours < 48 else f"{hours / 24:,.0f} days"


def _bytes(count: Any) -> str:
    for unit, size in (("PB", 1e15), ("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if count >= size:
            return f"{count / size:.3g} {unit}"
    return f"{count / 1e3:.3g} kB"


if __name__ == "__main__":
    raise SystemExit(main())
