"""Runs of the values of tensors in safetensors files, of which no more is read than was asked for.

A file is eight bytes (the header's length, little-endian), a JSON header with dtype, shape and place of every tensor, and their values
one after the other, row by row (https://huggingface.co/docs/safetensors): values [start, start + length) of a flattened tensor are one
run of bytes. safetensors' own `get_slice` cuts along axes, and would read whole rows.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from vlmkit.spec import SpecError

DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
LARGEST_HEADER = 100_000_000
"""Bytes that safetensors allows a header."""


class Place(NamedTuple):
    path: Path
    start: int
    """Its first byte in the file."""
    dtype: torch.dtype
    shape: tuple[int, ...]


class Stored:
    """The tensors of safetensors files, by name. Files are opened for each read: several threads and forked processes may read."""

    def __init__(self, files: Iterable[Path]) -> None:
        """Reads the headers. Raises SpecError for a file that is not whole, or not of safetensors, and for a name in two files."""
        self.places: dict[str, Place] = {}
        for path in files:
            for name, place in read_header(path).items():
                if name in self.places:
                    raise SpecError(f"{path}: {name} is in {self.places[name].path.name} as well; leave one of the files out")
                self.places[name] = place

    def names(self) -> tuple[str, ...]:
        return tuple(self.places)

    def shape(self, name: str) -> tuple[int, ...]:
        return self.places[name].shape

    def dtype(self, name: str) -> torch.dtype:
        return self.places[name].dtype

    def read(self, name: str, start: int, length: int) -> Tensor:
        """(length,): values [start, start + length) of the flattened tensor, in the stored dtype. Raises IndexError outside of it."""
        place = self.places[name]
        refuse_outside(name, place.shape, start, length)
        values = torch.empty(length, dtype=place.dtype)
        into = values.view(torch.uint8).numpy().data
        with place.path.open("rb", buffering=0) as file:
            file.seek(place.start + start * place.dtype.itemsize)
            while into:  # one call gives two GiB at most
                count = file.readinto(into)
                if not count:
                    raise SpecError(f"{place.path} ends within {name}; it was cut since it was opened")
                into = into[count:]
        return values

    def whole(self, name: str) -> Tensor:
        """The tensor."""
        shape = self.shape(name)
        return self.read(name, 0, math.prod(shape)).view(shape)


def refuse_outside(name: str, shape: tuple[int, ...], start: int, length: int) -> None:
    """Raise IndexError for values that a tensor of this shape does not have."""
    total = math.prod(shape)
    if start < 0 or length < 0 or start + length > total:
        raise IndexError(f"{name} {shape} has {total:,} values, but [{start:,}, {start + length:,}) were asked for")


def read_header(path: Path) -> dict[str, Place]:
    """Where each tensor of a file is. Raises SpecError for a file that is not whole, or not of safetensors."""
    size = os.path.getsize(path)
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length > min(size - 8, LARGEST_HEADER):
            raise SpecError(f"{path} ({size:,} bytes) is no whole safetensors file; fetch or write it again")
        try:
            header = json.loads(file.read(length))
        except ValueError as error:
            raise SpecError(f"{path} is no safetensors file: its header is not JSON ({error})") from None
    found = {}
    for name, said in header.items():
        if name == "__metadata__":
            continue
        first, end = said["data_offsets"]
        if said["dtype"] not in DTYPES:
            raise SpecError(f"{path}: {name} is stored as {said['dtype']}, expected one of {', '.join(DTYPES)}")
        place = Place(path, 8 + length + first, DTYPES[said["dtype"]], tuple(said["shape"]))
        if end - first != math.prod(place.shape) * place.dtype.itemsize or 8 + length + end > size:
            raise SpecError(f"{path} ({size:,} bytes) does not hold all of {name} {place.shape}; fetch or write it again")
        found[name] = place
    return found


def files_of(directory: Path) -> list[Path]:
    """The safetensors files of a directory that save_pretrained of a model wrote: the one, or those that its index lists, as transformers
    looks for them; none where there are neither. Raises FileNotFoundError for one that is listed and not there."""
    one, index = directory / "model.safetensors", directory / "model.safetensors.index.json"
    if one.is_file() or not index.is_file():
        return [one] if one.is_file() else []
    listed = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    for name in listed:
        if not (directory / name).is_file():
            raise FileNotFoundError(f"{directory}: {index.name} lists {name}, which is not there; copy it too")
    return [directory / name for name in listed]
