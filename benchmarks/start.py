"""What a command costs before it does anything, beside an interpreter that does nothing.

    python benchmarks/start.py
    python benchmarks/start.py --json start.json

Each command runs in a process of its own, in turn with `python -c pass`, so that a busy machine slows all of them alike; ratios are of the
processor time. `import torch` stands beside them for what a description would cost if it needed torch.
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import statistics
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

BASELINE = "python -c pass"
SIZE = ("--size", "640x480")
COMMANDS: dict[str, tuple[str, ...]] = {
    BASELINE: ("-c", "pass"),
    "import vlmkit": ("-c", "import vlmkit"),
    "vlmkit --help": ("-m", "vlmkit", "--help"),
    "vlmkit tokens --help": ("-m", "vlmkit", "tokens", "--help"),
    "vlmkit list": ("-m", "vlmkit", "list"),
    "vlmkit list --connectors": ("-m", "vlmkit", "list", "--connectors"),
    "vlmkit tokens --size 640x480": ("-m", "vlmkit", "tokens", *SIZE),
    "vlmkit tokens --size 640x480 --json": ("-m", "vlmkit", "tokens", *SIZE, "--json"),
    "vlmkit show --steps --size 640x480": ("-m", "vlmkit", "show", "--steps", *SIZE),
    "vlmkit plan univa-vl --stage nothing": ("-m", "vlmkit", "plan", "univa-vl", "--stage", "nothing"),
    "import torch": ("-c", "import torch"),
}
"""Name -> arguments of the interpreter. The last of vlmkit's is refused before a step is traced."""
BARS = {"vlmkit --help": 0.3, "vlmkit tokens --help": 0.3, "vlmkit list": 0.6, "vlmkit tokens --size 640x480": 0.6}
"""Seconds that the project asks for, on a machine that has nothing else to do."""


@dataclass(frozen=True)
class Result:
    command: str
    seconds: float
    """Median, of the clock."""
    processor_seconds: float
    """Median."""
    ratio: float
    """Processor time over that of an interpreter that does nothing."""


def once(arguments: tuple[str, ...]) -> tuple[float, float]:
    """Seconds of the clock and of the processor that one process takes."""
    before, start = busy_children(), time.perf_counter()
    done = subprocess.run([sys.executable, *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    seconds = time.perf_counter() - start
    if done.returncode not in (0, 2):
        raise SystemExit(f"{' '.join(arguments)} ended with {done.returncode}: {done.stderr}")
    return seconds, busy_children() - before


def busy_children() -> float:
    """Seconds of the processor that ended processes of this one took."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def measure(repeats: int) -> list[Result]:
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in COMMANDS}
    for number in range(repeats + 1):
        for name, arguments in COMMANDS.items():
            found = once(arguments)
            if number:  # the first round writes bytecode, and reads files that lie in memory from then on
                times[name].append(found)
    medians = {name: tuple(map(statistics.median, zip(*found, strict=True))) for name, found in times.items()}
    return [Result(name, seconds, busy, busy / medians[BASELINE][1]) for name, (seconds, busy) in medians.items()]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--repeats", type=int, default=9, help="measured rounds (default %(default)s)")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    arguments = parser.parse_args()
    results = measure(arguments.repeats)
    print(f"{'command':40} {'s':>6} {'CPU s':>6} {'of pass':>8}  asked")
    for result in results:
        bar = f"{BARS[result.command]:.1f} s" if result.command in BARS else ""
        print(f"{result.command:40} {result.seconds:6.2f} {result.processor_seconds:6.2f} {result.ratio:7.1f}x  {bar}")
    if arguments.json:
        rows = [asdict(result) for result in results]
        arguments.json.write_text(json.dumps({"python": platform.python_version(), "results": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
