"""The two presets of the recipe as data: what learns in which stage, how fast, on what, for how long.

`tiny` learns everything from nothing on two CPU cores in minutes. A published tower and language model do not exist at
that size, so stage 0 stands in for their pretraining: the tower learns to name what stands in each cell of a picture, the
language model learns to answer questions about *typed* pages. Neither has seen what the other is shown. From stage 1 on
it is the recipe of Olmo-3.1-UNIVA-VL: first only the connector learns, then everything, then questions and answers.

`full` is that recipe. Its stages, data and counts are published in the model card, learning rates and batch sizes are
not: those below are customary values, untested at this size.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from vlmkit.drawn.stages import STAGES
from vlmkit.spec import Spec
from vlmkit.training.stage import Source, Stage


@dataclass(frozen=True, kw_only=True)
class Recipe(Spec):
    later: ClassVar[frozenset[str]] = frozenset({"engine"})
    free: ClassVar[frozenset[str]] = frozenset({"engine", "workers", "save_seconds"})
    """Fields that change nothing in the result: a run goes on with others."""

    name: str
    model: str
    """Name of the architecture."""
    stages: tuple[Stage, ...]
    dtype: Literal["float32", "bfloat16"] = "float32"
    weights: str | None = None
    """Where the weights before the first stage come from: "pretrained", or a checkpoint's directory; None draws them at random."""
    engine: Literal["ddp", "fsdp2", "zero2", "zero3"] | None = None
    """How processes share the work, unless the command says it; None: ddp where there are several."""
    workers: int = 1
    """Processes that prepare batches ahead of the training."""
    save_seconds: float = 30.0
    """Time between two saved states."""
    evaluation: int = 0
    """Held-out pictures per task of the evaluation; 0 evaluates all there are."""
    answer_tokens: int = 64
    """Longest answer in the evaluation."""


TINY = Recipe(name="tiny", model="univa-vl-tiny", evaluation=200, stages=STAGES)

PROCESSES = 64
"""GPUs on which an update of `full` is one micro-batch of each; fewer of them accumulate, so the run is the same on 8, 16, 32 or 64."""
ROW = 2048
"""Tokens of a packed row: about eight captions or six questions with their images, which take 64 to 256 tokens each."""

PRETRAINING = (Source(name="redcaps", weight=5_225_145), Source(name="synthtext", weight=858_750), Source(name="coco", weight=118_287))
"""6,202,182 images. The total is published; the split assumes that COCO train2017 and SynthText are complete."""
FINE_TUNING = (
    Source(name="gqa", weight=0.4),
    Source(name="textvqa", weight=0.2),
    Source(name="docvqa", weight=0.25),
    Source(name="synthtext", weight=0.15),
)
"""164,602 images. The total is published, the split is not: these weights are a choice."""

FULL = Recipe(
    name="full",
    model="univa-vl",
    dtype="bfloat16",
    weights="pretrained",
    engine="zero3",
    workers=8,
    save_seconds=1800.0,
    answer_tokens=128,
    stages=(
        # A tenth of the images is customary for a connector alone (LLaVA-1.5 used 558,128).
        Stage(
            name="align",
            steps=620_218 // (8 * 4 * PROCESSES),
            batch_size=4,
            batch_tokens=4 * ROW * PROCESSES,
            connector=1e-3,
            warmup=20,
            final=0.1,
            data=PRETRAINING,
            pack=True,
            max_length=ROW,
            recompute=True,
        ),
        Stage(
            name="pretrain",
            steps=6_202_182 // (8 * 4 * PROCESSES),
            batch_size=4,
            batch_tokens=4 * ROW * PROCESSES,
            encoder=2e-6,
            connector=2e-5,
            language_model=1e-5,
            warmup=100,
            final=0.1,
            data=PRETRAINING,
            pack=True,
            max_length=ROW,
            recompute=True,
        ),
        Stage(
            name="sft",
            steps=164_602 // (6 * PROCESSES),
            batch_size=1,
            batch_tokens=ROW * PROCESSES,
            encoder=1e-6,
            connector=1e-5,
            language_model=5e-6,
            warmup=10,
            final=0.0,
            data=FINE_TUNING,
            pack=True,
            max_length=ROW,
            recompute=True,
        ),
    ),
)

RECIPES = {recipe.name: recipe for recipe in (TINY, FULL)}
