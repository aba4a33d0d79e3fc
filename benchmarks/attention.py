"""A training step on packed rows whose samples attend by themselves, beside the same step under a dense mask of S x S.

    python benchmarks/attention.py --rows 2048 4096 --repeats 3 --json attention.json

The language model has Olmo3's shape and about 27 million parameters, the tower and the connector are those of univa-vl-tiny. Samples are a
picture, a question and an answer, as in visual question answering. Both ways take turns over the same batch, on one thread; what counts is
the processor's time, so a busy machine disturbs little. The ratio is the median of the ratios within a turn.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

import vlmkit
from vlmkit.allocator import reuse_large_blocks
from vlmkit.language_model import LanguageModel
from vlmkit.model import VLM
from vlmkit.processor import VLMProcessor
from vlmkit.spec import Settings

OLMO3 = LanguageModel(
    model_type="olmo3",
    tokenizer="bytes",
    config=Settings(
        vocab_size=4096,
        hidden_size=384,
        intermediate_size=1280,
        num_hidden_layers=12,
        num_attention_heads=6,
        num_key_value_heads=2,
        max_position_embeddings=8192,
        sliding_window=1024,
        rope_theta=500000.0,
        pad_token_id=256,
        bos_token_id=None,
        eos_token_id=[257, 259],
    ),
)


def packed_row(processor: VLMProcessor, length: int, seed: int = 0) -> Any:
    """One row of so many tokens, as full as samples drawn one after the other make it."""
    rng, row, room = np.random.default_rng(seed), [], length
    while True:
        height, width = rng.integers(60, 160, 2)
        image = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
        content = [{"type": "image", "image": image}, {"type": "text", "text": "What is it? " * int(rng.integers(1, 5))}]
        answer = {"role": "assistant", "content": "Some words. " * int(rng.integers(1, 9))}
        sample = processor.sample([{"role": "user", "content": content}, answer])
        room -= len(sample.layouts[0].ids)
        if room < 0:
            return processor.pack_rows([row], length)
        row.append(sample)


def seconds(model: VLM, batch: Any, attention: str) -> tuple[float, float]:
    """Processor time of a step, and its loss."""
    model.language_model.set_attn_implementation(attention)
    begin = time.process_time()
    loss = model(**batch).loss
    loss.backward()
    taken = time.process_time() - begin
    model.zero_grad(set_to_none=True)
    return taken, float(loss.detach())


def measure(model: VLM, processor: VLMProcessor, length: int, repeats: int) -> dict[str, Any]:
    batch = packed_row(processor, length)
    lengths = batch["boundaries"].diff()
    turns = [{name: seconds(model, batch, name) for name in ("sdpa", "by_sample")} for _ in range(repeats + 1)][1:]
    taken = {name: statistics.median(turn[name][0] for turn in turns) for name in turns[0]}
    return {
        "tokens": length,
        "samples": len(lengths),
        "share_of_scores": float((lengths.double() ** 2).sum()) / length**2,
        "dense_seconds": taken["sdpa"],
        "by_sample_seconds": taken["by_sample"],
        "ratio": statistics.median(turn["sdpa"][0] / turn["by_sample"][0] for turn in turns),
        "losses_apart": max(abs(turn["sdpa"][1] - turn["by_sample"][1]) for turn in turns),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[2048, 4096], help="tokens of a row")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    reuse_large_blocks()
    spec = dataclasses.replace(vlmkit.build_processor("univa-vl-tiny").spec, name="attention", language_model=OLMO3)
    model, processor = vlmkit.build(spec, seed=0).train(), vlmkit.build_processor(spec)
    found = [measure(model, processor, length, options.repeats) for length in options.rows]
    millions = sum(parameter.numel() for parameter in model.parameters()) / 1e6
    table = Table(
        "tokens", "samples", "scores needed", "dense mask", "by sample", "ratio", "losses apart", title=f"{millions:.1f}M parameters"
    )
    for row in found:
        table.add_row(
            *(str(row["tokens"]), str(row["samples"]), f"{row['share_of_scores']:.1%}", f"{row['dense_seconds']:.2f} s"),
            *(f"{row['by_sample_seconds']:.2f} s", f"{row['ratio']:.2f}", f"{row['losses_apart']:.0e}"),
        )
    Console().print(table)
    if options.json:
        options.json.write_text(json.dumps({"torch": torch.__version__, "parameters": millions, "rows": found}, indent=1))


if __name__ == "__main__":
    main()
