"""What is to be planned: a model, what of it learns, what a row holds, and on which machines."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

from vlmkit.architecture import PARTS, Architecture
from vlmkit.preprocess.geometry import Size

PHOTO = Size(height=480, width=640)
"""The picture that stands for all of a data set: COCO's usual size."""


class PlanError(ValueError):
    """A plan that cannot be made, with the value and what was expected."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """A stage of training, as far as its memory and time depend on it."""

    model: Architecture
    learns: tuple[str, ...] = PARTS
    """The parts, or paths within them (`language_model.experts`), that have a learning rate; all else is frozen."""
    freezes: tuple[str, ...] = ()
    """Paths within those that have none all the same."""
    adapters: tuple[tuple[str, Any], ...] = ()
    """Paths and their `Adapter` (vlmkit.training.adapter), not in four bits: of the parts that have some, these alone learn."""
    name: str = ""
    """Of the stage."""
    length: int = 2048
    """Tokens of a packed row, S."""
    micro_batch: int = 1
    """Rows of one micro-batch of one process, B."""
    size: Size = PHOTO
    """Pixels of every image."""
    text_tokens: int = 55
    """Tokens of text beside an image."""
    answer_tokens: int | None = None
    """Of these, tokens that are supervised; None: all."""
    recompute: bool = True
    """Whether activations of a block are made again in the backward pass (gradient checkpointing)."""
    dtype: Literal["bfloat16", "float32"] = "bfloat16"
    """Of the computation and of what is frozen; what learns is kept in float32 too."""
    images: int | None = None
    """Images of the whole stage; None where nobody says."""

    def __post_init__(self) -> None:
        if unknown := [path for path in (*self.learns, *self.freezes) if path.partition(".")[0] not in PARTS]:
            raise PlanError(f"there is no part {unknown[0]!r} that could learn; the parts are {', '.join(PARTS)}")
        if not self.learns:
            raise PlanError(f"nothing learns; name at least one of {', '.join(PARTS)}")
        if packed := [path for path, adapter in self.adapters if adapter.quantize is not None]:
            raise PlanError(f"adapters on {packed[0]!r} are over four bits, whose memory is not planned yet; leave quantize out to plan it")
        for name in ("length", "micro_batch", "text_tokens", "answer_tokens", "images"):
            if (value := getattr(self, name)) is not None and value < 1:
                raise PlanError(f"{name} has to be 1 or more, got {value}")
        if self.sample_tokens > self.length:
            raise PlanError(
                f"an image of {self.size.width}x{self.size.height} and its text are {self.sample_tokens} tokens under {self.model.name}, "
                f"more than a row of {self.length}; give a longer row or a smaller image"
            )

    @cached_property
    def visual_tokens(self) -> int:
        """Of one image."""
        return self.model.tokens(self.size)

    @property
    def stands_in_row(self) -> bool:
        """Whether visual tokens take places in the row, all of them or some; under cross-attention they do not."""
        return self.model.fusion.places_visual

    @property
    def sample_tokens(self) -> int:
        """Places of a row that one image with its text takes."""
        return self.text_tokens + self.model.layout.in_sequence(self.model.image_tokens(self.model.plan(self.size)))

    @property
    def samples_a_row(self) -> int:
        """Whole samples that a row holds."""
        return max(1, self.length // self.sample_tokens)

    @property
    def supervised_a_row(self) -> int:
        """Tokens of a row that go through the LM head."""
        answered = self.text_tokens if self.answer_tokens is None else self.answer_tokens
        return min(self.samples_a_row * answered, self.length - 1)


GPUS: dict[str, tuple[float, float]] = {
    "a100": (80e9, 312e12),
    "h100": (80e9, 989e12),
    "h200": (141e9, 989e12),
    "b200": (180e9, 2250e12),
}
"""Memory in bytes and dense bfloat16 operations a second, from NVIDIA's data sheets."""


@dataclass(frozen=True, kw_only=True)
class Hardware:
    """Machines of equal GPUs."""

    gpus: int = 1
    gpu: str = "h100"
    memory: float = 0.0
    """Bytes of a GPU; 0 takes the data sheet's."""
    peak: float = 0.0
    """Floating-point operations a second of a GPU, by which MFU is reckoned; 0 takes the data sheet's."""
    a_machine: int = 8
    """GPUs of one machine."""
    inside: float = 450e9
    """Bytes a second and direction between GPUs of a machine: NVLink 4."""
    between: float = 50e9
    """Bytes a second and direction of one GPU between machines: a 400 Gbit/s adapter for each."""
    context: float = 1.5e9
    """Bytes that CUDA, NCCL and cuBLAS take."""
    headroom: float = 0.05
    """Share of the memory that the allocator loses to gaps."""

    def __post_init__(self) -> None:
        if self.gpu not in GPUS:
            raise PlanError(f"no GPU {self.gpu!r} is known; there are {', '.join(GPUS)}, or give its memory and peak")
        if self.gpus < 1:
            raise PlanError(f"gpus has to be 1 or more, got {self.gpus}")
        memory, peak = GPUS[self.gpu]
        object.__setattr__(self, "memory", self.memory or memory)
        object.__setattr__(self, "peak", self.peak or peak)

    @property
    def usable(self) -> float:
        """Bytes that a step may take."""
        return self.memory * (1 - self.headroom) - self.context

    @property
    def bandwidth(self) -> float:
        """Of a collective over all GPUs: that of its slowest link."""
        return self.inside if self.gpus <= self.a_machine else self.between
