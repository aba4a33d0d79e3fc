"""Tokens a second of vlmkit's trainer on packed rows, beside the same model under transformers.Trainer and TRL's SFTTrainer.

    python benchmarks/train.py --rounds 3 --json train.json

About 27 million parameters: an Olmo3-shaped language model of 12 layers, the tower and connector of univa-vl-tiny, everything learns with
AdamW in float32, on one thread. All read the same JPEGs and conversations, of lengths like those of RedCaps and GQA, decode and lay them
out on the way, and take the same number of samples an update. They take turns, a process each; what counts is the processor's time of the
steps, so a busy machine disturbs little. Tokens are those of samples: padding counts as nothing.

TRL's SFTTrainer refuses to pack samples with images ("Packing is not supported for vision-language models", trl 1.16), and pads as
transformers.Trainer does.
"""

from __future__ import annotations

import argparse
import io
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parents[1]))

SAMPLES = 32
"""Of an update."""
ROW = 2048


def samples(count: int, seed: int) -> list[Any]:
    """Captions of one picture, and pictures with several questions one after the other."""
    import numpy as np
    from PIL import Image

    import vlmkit

    rng, found = np.random.default_rng(seed), []
    for number in range(count):
        height, width = rng.integers(84, 280, 2)
        file = io.BytesIO()
        Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8)).save(file, "JPEG", quality=90)
        turns: list[dict[str, Any]] = []
        for turn in range(1 if number % 2 else int(rng.integers(1, 6))):
            text = {"type": "text", "text": "What is it? " * int(rng.integers(1, 4))}
            turns.append({"role": "user", "content": [{"type": "image", "image": 0}, text] if turn == 0 else [text]})
            turns.append({"role": "assistant", "content": "some words " * int(rng.integers(1, 8))})
        found.append(vlmkit.Sample((file.getvalue(),), (turns,), "noise", str(number)))
    return found


def shown(sample: Any) -> list[dict[str, Any]]:
    """The conversation with its picture in it."""
    asked, *others = sample.conversations[0]
    return [asked | {"content": [{"type": "image", "image": sample.images[0]}, *asked["content"][1:]]}, *others]


def architecture() -> Any:
    import dataclasses

    import vlmkit
    from benchmarks.attention import OLMO3

    return dataclasses.replace(vlmkit.build_processor("univa-vl-tiny").spec, name="train", language_model=OLMO3)


def packed(data: Sequence[Any], updates: int, directory: Path) -> dict[str, float]:
    """vlmkit: rows of ROW tokens, as many an update as hold SAMPLES samples on average."""
    import vlmkit
    from vlmkit.data.mixture import DataSource, Mixture
    from vlmkit.training.loop import Trainer
    from vlmkit.training.metrics_log import read_metrics
    from vlmkit.training.run import RunDirectory
    from vlmkit.training.stage import Source, Stage

    arch = architecture()
    processor = vlmkit.build_processor(arch)
    lengths = [len(processor.sample(shown(sample)).layouts[0].ids) for sample in data]
    rows = max(1, round(SAMPLES * statistics.mean(lengths) / ROW))
    stage = Stage(
        name="all",
        steps=updates,
        batch_size=1,
        accumulate=rows,
        encoder=1e-4,
        connector=1e-4,
        language_model=1e-4,
        pack=True,
        max_length=ROW,
        data=(Source(name="noise"),),
    )
    run = RunDirectory(directory)
    run.begin({})
    trainer = Trainer(run, vlmkit.build(arch, seed=0), save_seconds=1e9, workers=0)
    mixture = Mixture([DataSource("noise", data, 1.0)], processor, rows=1, length=ROW, pack=True, seed=0)
    begun = time.process_time()
    trainer.train(stage, mixture)
    taken = time.process_time() - begun
    records = list(read_metrics(directory))
    places = sum(rows * ROW for _ in records)
    padding = statistics.mean(record["padding"] for record in records)
    return {"tokens": places * (1 - padding), "seconds": taken, "padding": padding, "updates": updates, "memory": peak()}


def padded(data: Sequence[Any], updates: int, directory: Path) -> dict[str, float]:
    """transformers.Trainer: micro-batches of 8 samples, each padded to its longest."""
    from torch.utils.data import Dataset
    from transformers import Trainer, TrainingArguments

    import vlmkit

    arch = architecture()

    class Rows(Dataset[Any]):
        def __len__(self) -> int:
            return updates * SAMPLES

        def __getitem__(self, number: int) -> Any:
            return shown(data[number % len(data)])

    given = TrainingArguments(**arguments(updates, directory))
    processor = vlmkit.build_processor(arch)
    return trained(Trainer(model=vlmkit.build(arch, seed=0), args=given, train_dataset=Rows(), data_collator=processor), updates)


def supervised(data: Sequence[Any], updates: int, directory: Path) -> dict[str, float]:
    """TRL's SFTTrainer with its own collator, the same batches."""
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    import vlmkit

    arch = architecture()
    rows = [data[number % len(data)] for number in range(updates * SAMPLES)]
    columns = {"messages": [row.conversations[0] for row in rows], "images": [[{"bytes": row.images[0], "path": None}] for row in rows]}
    given = SFTConfig(**arguments(updates, directory), max_length=None)
    processor = vlmkit.build_processor(arch)
    placed = [[{"role": turn["role"], "content": pieces(turn["content"])} for turn in row] for row in columns["messages"]]
    table = Dataset.from_dict(columns | {"messages": placed})
    return trained(SFTTrainer(model=vlmkit.build(arch, seed=0), args=given, train_dataset=table, processing_class=processor), updates)


def pieces(content: Any) -> list[dict[str, Any]]:
    """Of a message, all alike, as a table needs them."""
    parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
    return [{"type": part["type"], "text": part.get("text")} for part in parts]


def arguments(updates: int, directory: Path) -> dict[str, Any]:
    """4 micro-batches of 8 samples an update, and nothing written."""
    import torch

    return {
        "output_dir": str(directory),
        "per_device_train_batch_size": 8,
        "gradient_accumulation_steps": SAMPLES // 8,
        "max_steps": updates,
        "learning_rate": 1e-4,
        "optim": "adamw_torch_fused",
        "gradient_checkpointing": False,
        "bf16": False,
        "report_to": [],
        "save_strategy": "no",
        "logging_strategy": "no",
        "remove_unused_columns": False,
        "use_cpu": not torch.cuda.is_available(),
        "disable_tqdm": True,
    }


def trained(trainer: Any, updates: int) -> dict[str, float]:
    """What its steps took, and how many tokens its collator gave."""
    counted, collator = {"tokens": 0, "places": 0}, trainer.data_collator

    def collate(rows: list[Any]) -> dict[str, Any]:
        batch = dict(collator(rows))
        counted["tokens"] += int(batch["attention_mask"].sum())
        counted["places"] += batch["attention_mask"].numel()
        return batch

    trainer.data_collator = collate
    begun = time.process_time()
    trainer.train()
    taken = time.process_time() - begun
    padding = 1 - counted["tokens"] / counted["places"]
    return {"tokens": counted["tokens"], "seconds": taken, "padding": padding, "updates": updates, "memory": peak()}


def peak() -> float:
    """Bytes that were resident at most."""
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024.0


WAYS = {"transformers.Trainer, padded": padded, "trl.SFTTrainer, padded": supervised, "vlmkit, packed": packed}


def work(way: str, updates: int) -> None:
    import torch

    from vlmkit.allocator import reuse_large_blocks

    torch.set_num_threads(1)
    reuse_large_blocks()
    with tempfile.TemporaryDirectory() as directory:
        print(json.dumps(WAYS[way](samples(400, 0), updates, Path(directory))))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--updates", type=int, default=4)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--one", choices=WAYS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        work(options.one, options.updates)
        return
    found: dict[str, list[dict[str, float]]] = {way: [] for way in WAYS}
    for _ in range(options.rounds):
        for way in WAYS:
            command = [sys.executable, __file__, "--one", way, "--updates", str(options.updates)]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            found[way].append(json.loads(done.stdout.strip().splitlines()[-1]))
    speeds = {way: [run["tokens"] / run["seconds"] for run in runs] for way, runs in found.items()}
    for way, runs in found.items():
        each = ", ".join(f"{speed:.0f}" for speed in speeds[way])
        print(f"{way:<30} {each} tokens/s of processor time, {runs[0]['padding']:.1%} padding, {runs[0]['memory'] / 2**30:.1f} GiB")
    *peers, ours = speeds
    for peer in peers:
        ratio = statistics.median(one / other for one, other in zip(speeds[ours], speeds[peer], strict=True))
        print(f"{ours} : {peer} {ratio:.2f}")
    if options.json:
        options.json.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
