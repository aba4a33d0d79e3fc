"""A training step of a batch that states everything, beside the same batch without what forward can find out; and graphs of the step.

    python benchmarks/forward.py --model univa-vl-tiny --rows 8 --repeats 20 --json forward.json

Both ways take turns, so that a busy machine slows both alike; the ratio is the median of the ratios within a round. Reads are
operations for which the host waits for the device. Graphs are those that torch.compile makes of the language model's side.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch.utils._python_dispatch import TorchDispatchMode

import vlmkit
from vlmkit.allocator import reuse_large_blocks
from vlmkit.fusion.incoming import Incoming
from vlmkit.model import VLM

STATED = ("segments", "boundaries", "supervised")
"""What a batch of the processor says beside what any collator would."""
READS = {"_local_scalar_dense", "nonzero", "masked_select", "item", "equal"}


class Reads(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += func._schema.name.removeprefix("aten::") in READS
        return func(*args, **(kwargs or {}))


def conversations(rows: int, seed: int = 0) -> list[list[dict[str, Any]]]:
    """A picture of another size in every row, a question, an answer."""
    rng = np.random.default_rng(seed)
    found = []
    for row in range(rows):
        height, width = rng.integers(60, 160, 2)
        image = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
        content = [{"type": "image", "image": image}, {"type": "text", "text": "What is it?" * (1 + row % 3)}]
        found.append([{"role": "user", "content": content}, {"role": "assistant", "content": "An answer of some words. " * (1 + row % 4)}])
    return found


def step(model: VLM, batch: Any) -> None:
    model(**batch).loss.backward()
    model.zero_grad(set_to_none=True)


def graphs(model: VLM, batch: Any) -> int:
    """How many torch.compile makes of the language model's side."""
    visual = model.get_image_features(batch["pixel_values"], batch["grids"])
    names = ("visual_index", "learned_index", "segments", "attention_mask", "position_ids", "token_type_ids")
    incoming = Incoming(model.get_input_embeddings()(batch["input_ids"]), visual, **{name: batch.get(name) for name in names})
    torch._dynamo.reset()
    explained = torch._dynamo.explain(lambda meeting, labels, columns: model.speak(meeting, labels, columns).loss)
    return int(explained(incoming, batch["labels"], batch["supervised"]).graph_count)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="univa-vl-tiny", help="a named model with one tower")
    parser.add_argument("--rows", type=int, default=8, help="conversations of a batch")
    parser.add_argument("--repeats", type=int, default=20, help="measured rounds")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    reuse_large_blocks()
    model, processor = vlmkit.build(arguments.model, seed=0, device=arguments.device).train(), vlmkit.build_processor(arguments.model)
    results = []
    for pack in (False, True):
        stated = dict(processor(conversations(arguments.rows), pack=pack).to(arguments.device))
        silent = {name: value for name, value in stated.items() if name not in STATED}
        times: dict[str, list[float]] = {"stated": [], "looked for": []}
        for batch in (stated, silent):
            step(model, batch)
        for _ in range(arguments.repeats):
            for name, batch in (("stated", stated), ("looked for", silent)):
                if arguments.device != "cpu":
                    torch.cuda.synchronize()
                begun = time.perf_counter()
                step(model, batch)
                if arguments.device != "cpu":
                    torch.cuda.synchronize()
                times[name].append(1e3 * (time.perf_counter() - begun))
        reads = []
        for batch in (stated, silent):
            with Reads() as counted:
                step(model, batch)
            reads.append(counted.count)
        ratio = statistics.median(other / own for own, other in zip(times["stated"], times["looked for"], strict=True))
        results.append(
            {
                "rows": "packed" if pack else "padded",
                "tokens": stated["input_ids"].numel(),
                "ms, stated": round(statistics.median(times["stated"]), 1),
                "ms, looked for": round(statistics.median(times["looked for"]), 1),
                "ratio": round(ratio, 3),
                "reads, stated": reads[0],
                "reads, looked for": reads[1],
                "graphs": graphs(model, stated),
            }
        )
    table = Table(*results[0], title=f"{arguments.model}: one training step, {arguments.rows} conversations")
    for result in results:
        table.add_row(*map(str, result.values()))
    console = Console()
    console.width = max(console.width, 120)
    console.print(table)
    if arguments.json:
        arguments.json.write_text(json.dumps({"torch": torch.__version__, "results": results}, indent=2) + "\n")


if __name__ == "__main__":
    main()
