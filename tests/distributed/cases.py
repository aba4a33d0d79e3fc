"""Models and pairs of batches that two ranks are given."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import vlmkit
from tests.tiny import architecture, assistant, picture, user
from vlmkit.architecture import Architecture

Rows = list[list[dict[str, Any]]]

ONE: Rows = [[user(picture(56, 56, 1), "one?"), assistant("1")]]
EQUAL: Rows = [[user(picture(56, 56, 2), "and?"), assistant("22")]]
SIZES: Rows = [
    [user(*(picture(28 + 9 * number, 120 - 11 * number, number) for number in range(4)), "four?"), assistant("4")],
    [user(picture(90, 40, 7), "?"), assistant("b")],
]
TEXT: Rows = [[user("only words?"), assistant("yes")]]

PAIRS: dict[str, tuple[Rows, Rows]] = {
    "equal grids": (ONE, EQUAL),
    "other grids": (ONE, SIZES),
    "text beside images": (SIZES, TEXT),
    "text alone": (TEXT, [[user("words"), assistant("no")]]),
}


@dataclass(frozen=True)
class Case:
    architecture: Callable[[], Architecture]
    rows: tuple[Rows, Rows]
    engine: Literal["fsdp", "ddp", "zero3"]
    pack: bool = False


TINY = [name for name in vlmkit.list_models() if name.endswith("-tiny")]


def named(name: str) -> Callable[[], Architecture]:
    return lambda: vlmkit.architecture(name)


def small(**parts: Any) -> Callable[[], Architecture]:
    return lambda: architecture(**parts)


AROUND: dict[str, dict[str, Any]] = {
    "mllama": {"policy": "canvas_tiles", "connector": "linear"},
    "cross_attention": {"layout": "seen"},
    "hybrid": {"layout": "seen_tiles_beside", "policy": "tiles"},
}
"""What a part needs beside it where the usual small parts do not fit."""


def _cases() -> dict[str, Case]:
    # One image a row for named models: some of their processors take no more, and every size serves.
    mixed: tuple[Rows, Rows] = (ONE, [*TEXT, [user(picture(90, 40, 7), "?"), assistant("b")]])
    cases = {f"{name}, {engine}, other grids": Case(named(name), mixed, engine) for name in TINY for engine in ("fsdp", "ddp")}
    cases |= {f"{name}, fsdp, text beside images": Case(named(name), (ONE, TEXT), "fsdp") for name in TINY}
    for pair, rows in PAIRS.items():
        cases[f"small, fsdp, {pair}"] = Case(small(), rows, "fsdp")
        cases[f"small, ddp, {pair}"] = Case(small(), rows, "ddp")
        cases[f"small, fsdp, {pair}, packed"] = Case(small(fusion="prefix"), rows, "fsdp", pack=True)
    for encoder in vlmkit.list_encoders():
        cases[f"encoder {encoder}, fsdp"] = Case(small(encoder=encoder, **AROUND.get(encoder, {})), PAIRS["other grids"], "fsdp")
    for connector in vlmkit.list_connectors():
        cases[f"connector {connector}, fsdp"] = Case(small(connector=connector), PAIRS["text beside images"], "fsdp")
    for fusion in vlmkit.list_fusions():
        cases[f"fusion {fusion}, fsdp"] = Case(small(fusion=fusion, **AROUND.get(fusion, {})), PAIRS["text beside images"], "fsdp")
    for policy in sorted({*vlmkit.list_policies()} - {named(name)().policy.kind for name in TINY}):
        cases[f"policy {policy}, fsdp"] = Case(small(policy=policy), PAIRS["text beside images"], "fsdp")
    cases["learned embeddings, ddp"] = Case(small(policy="anyres", layout="unpadded_rows"), PAIRS["text beside images"], "ddp")
    return cases


CASES = _cases()
ZERO3 = {f"small, {pair}": Case(small(), rows, "zero3") for pair, rows in PAIRS.items()} | {
    f"{name}, text beside images": Case(named(name), (ONE, TEXT), "zero3")
    for name in (
        "univa-vl-tiny",
        "llava-1.6-tiny",
        "paligemma-tiny",
        "llama-3.2-vision-tiny",
        "idefics-tiny",
        "moe-llava-tiny",
        "nvlm-h-tiny",
    )
}
"""What asks for DeepSpeed."""
