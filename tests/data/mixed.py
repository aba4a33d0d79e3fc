"""Small sources for the laws of mixtures: real JPEGs, real layouts; only a picture that was rendered before is not again."""

from __future__ import annotations

import functools
import io
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor

import vlmkit
from tests.tiny import architecture
from vlmkit.data.mixture import Batches, Mixture, merge_states
from vlmkit.data.sample import Sample
from vlmkit.processor import VLMProcessor

GOOD = ("one", "two", "none", "several", "turns")
BAD = ("truncated", "missing", "endless", "silent")
"""Found when it is decoded, when it is planned, too long for any row, without a conversation."""


@functools.cache
def processor() -> VLMProcessor:
    made = vlmkit.build_processor(architecture())
    render = made.render_image
    again = functools.lru_cache(maxsize=None)(render)
    made.render_image = lambda image, planned=None, out=None: again(image, planned) if isinstance(image, bytes) else render(image, planned)
    return made


@functools.cache
def jpeg(number: int) -> bytes:
    height, width = ((56, 84), (84, 56), (90, 40), (60, 60))[number % 4]
    file = io.BytesIO()
    pixels = np.random.default_rng(number).integers(0, 256, (height, width, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(file, "JPEG", quality=90)
    return file.getvalue()


def asked(question: str, answer: str, *images: int) -> list[dict[str, Any]]:
    content = [*({"type": "image", "image": image} for image in images), {"type": "text", "text": question}]
    return [{"role": "user", "content": content}, {"role": "assistant", "content": answer}]


def sample(source: str, number: int, kind: str) -> Sample:
    one, other = jpeg(number), jpeg(number + 1)
    question = f"{source}{number}?"
    images, conversations = {
        "one": ((one,), [asked(question, "yes" * (number % 5), 0)]),
        "two": ((one, other), [asked(question, "no", 0, 1)]),
        "none": ((), [asked(question, "no picture")]),
        "several": ((one,), [asked(f"{question}{place}", "yes", 0) for place in range(3)]),
        "turns": ((one, other), [asked(question, "yes", 0) + asked("and this?", "no " * 10, 1)]),
        "truncated": ((one[:-200],), [asked(question, "yes", 0)]),
        "missing": ((b"",), [asked(question, "yes", 0)]),
        "endless": ((), [asked(question, "yes " * 200)]),
        "silent": ((one,), []),
    }[kind]
    return Sample(images, tuple(conversations), source, f"{source}{number}")


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(one[name].equal(other[name]) for name in one)


def run(
    mixture: Mixture, steps: int | None, state: dict[str, Any] | None = None, *, world: int = 1, **options: Any
) -> tuple[list[dict[str, Tensor]], dict[str, Any]]:
    """Batches of all processes in order, so many of each, and the state behind them."""
    processes = [mixture.batches(state, rank=rank, world=world, **options) for rank in range(world)]
    taken = []
    while steps is None or len(taken) < steps * world:
        batch = next(processes[len(taken) % world], None)
        if batch is None:
            break
        taken.append(batch)
    return taken, state_of(processes)


def state_of(processes: list[Batches]) -> dict[str, Any]:
    merged = merge_states([process.state() for process in processes])
    for process in processes:
        process.close()
    return merged


def counted(state: dict[str, Any]) -> dict[str, Any]:
    """A state without examples, whose order depends on which process met them."""
    return state | {
        name: {"seen": state[name]["seen"], "rejected": [(row["source"], row["reason"], row["count"]) for row in state[name]["rejected"]]}
        for name in ("rejected", "cut")
    }
