"""What a published system states about itself, so that one set of tests serves them all."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

import vlmkit
from vlmkit.architecture import Parameters
from vlmkit.encoders.base import Encoder
from vlmkit.model import VLM
from vlmkit.preprocess.geometry import Size
from vlmkit.processor import VLMProcessor

Conversation = list[dict[str, Any]]


@dataclass(frozen=True)
class Reference:
    """The published implementation at tiny random weights."""

    model: Any
    processor: Any
    inputs: Callable[[Any, Conversation], dict[str, Tensor]]
    """(processor, conversation) -> what the model's forward and generate take, one conversation, no padding."""
    patches: Callable[[dict[str, Tensor], Encoder], Tensor]
    """(inputs, encoder) -> normalised patches (N, 3*p*p) in vlmkit's order of views and patches."""
    generate: dict[str, Any] = field(default_factory=dict)
    """More arguments of its `generate`."""
    read_processor: Callable[[type[Any], Path], Any] = lambda cls, directory: cls.from_pretrained(directory)
    """(class of the processor, directory) -> the processor that was saved there."""

    def save(self, directory: Path) -> None:
        self.model.save_pretrained(directory)
        self.processor.save_pretrained(directory)

    def taken_over(self, directory: Path) -> tuple[VLM, VLMProcessor]:
        """What vlmkit loads of it, by way of an empty directory."""
        self.save(directory)
        return vlmkit.load(directory)


@dataclass(frozen=True, eq=False)
class System:
    """A row of the table of systems."""

    title: str
    counts: dict[str, Parameters]
    """Named models and their published parameter counts."""
    tiny: str
    """The named tiny model."""
    reference: Callable[[], Reference]
    sizes: Sequence[Size] = (Size(40, 52), Size(64, 33), Size(28, 28), Size(200, 90))
    """Image sizes of the conversations."""
    pixel_sizes: tuple[int, int] = (1, 700)
    """Smallest and largest side that hypothesis draws for pixels and layout."""
    servable: Callable[[Size], bool] = lambda size: True
    """Sizes that the reference's own processor accepts."""
    logits_within: float = 1e-4
    """Allowed difference of logits; the measured one is in the table."""
    unread: tuple[str, ...] = ()
    """Prefixes of the reference's weights that vlmkit does not build."""
    compared_with: str = ""
    """What stands in for a reference that a column lacks, and why."""


def dense_patches(name: str = "pixel_values") -> Callable[[dict[str, Tensor], Encoder], Tensor]:
    """Patches of a dense tensor (..., 3, H, W): the last three dimensions are a view, the others are raster order."""

    def cut(inputs: dict[str, Tensor], encoder: Encoder) -> Tensor:
        images = inputs[name]
        return torch.cat([patchify(view, encoder.patch_size) for view in images.reshape(-1, *images.shape[-3:])])

    return cut


def patchify(view: Tensor, patch: int) -> Tensor:
    """(3, H, W) -> (rows * columns, 3*p*p), rows and columns that do not fill a patch left out."""
    rows, columns = view.shape[1] // patch, view.shape[2] // patch
    view = view[:, : rows * patch, : columns * patch].reshape(3, rows, patch, columns, patch)
    return view.permute(1, 3, 0, 2, 4).reshape(rows * columns, -1)


def user(text: str, *images: Image.Image) -> dict[str, Any]:
    """A user's message: images first."""
    return {"role": "user", "content": [*({"type": "image", "image": image} for image in images), {"type": "text", "text": text}]}


def images_of(conversation: Conversation) -> list[Image.Image]:
    return [item["image"] for message in conversation for item in message["content"] if item["type"] == "image"]


def chat(processor: Any, conversation: Conversation) -> dict[str, Tensor]:
    """Inputs by the processor's own chat template, which a published tokenizer begins with its first token."""
    begin = processor.tokenizer.bos_token or ""
    text = processor.apply_chat_template(conversation, add_generation_prompt=True, tokenize=False).removeprefix(begin)
    found = processor(images=images_of(conversation) or None, text=begin + text, return_tensors="pt", add_special_tokens=False)
    return {name: value for name, value in found.items() if name != "mm_token_type_ids"}
