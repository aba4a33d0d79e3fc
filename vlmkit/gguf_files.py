"""GGUF, the files of llama.cpp: fields, and tensors that may be stored in blocks of few bits (github.com/ggml-org/ggml, docs/gguf.md).

    magic, version, number of tensors, number of fields
    fields:  name, type, value           values may be arrays: the words of a tokenizer are one
    tensors: name, sides, type, offset   the side that runs fastest first
    data, from the next multiple of `general.alignment` on

The header is read here, and not by the reader of the `gguf` package, for it takes every count as it stands and makes two arrays a word of a
vocabulary: what a file states is held against its length first. Blocks of few bits are that package's to undo.
"""

from __future__ import annotations

import math
import mmap
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from vlmkit.checkpoint_files import LARGEST_TOKENIZER, DamagedCheckpointError, regular_file
from vlmkit.files import whole_file
from vlmkit.spec import SpecError

MOST_FIELDS = 10_000
MOST_TENSORS = 50_000
MOST_ITEMS = 1_000_000
"""Of all arrays of a header: Qwen2.5 has 151,936 words, as many types of them, and 151,387 merges."""
SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
"""Number of a type in the file -> its form for `struct`."""
STRING, ARRAY = 8, 9
PLAIN = {0: torch.float32, 1: torch.float16, 30: torch.bfloat16}
"""Types of tensors that are no blocks: F32, F16, BF16."""
WHOLE = {24: "I8", 25: "I16", 26: "I32", 27: "I64"}


class Stored(NamedTuple):
    """A tensor's place in a file."""

    kind: int
    """Its type, as ggml numbers them."""
    shape: tuple[int, ...]
    """The side that runs fastest last, as torch has it."""
    start: int
    size: int
    """In bytes, of the file."""


class Header(NamedTuple):
    """What a file states, without its values."""

    where: str
    fields: dict[str, Any]
    shapes: dict[str, tuple[int, ...]]


class GgufFile:
    """A file whose header was read. Raises DamagedCheckpointError where it is none, or states what its length has no room for."""

    def __init__(self, path: Path) -> None:
        self.path, self.length = path, regular_file(path)
        self.fields: dict[str, Any] = {}
        if self.length < 24:
            raise self._damaged(f"{self.length} bytes are no header")
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            self._data, self._at, self._items = data, 0, 0
            self.tensors = self._header()
            del self._data

    @property
    def header(self) -> Header:
        return Header(str(self.path), self.fields, {name: stored.shape for name, stored in self.tensors.items()})

    def read(self, name: str) -> Tensor:
        """A tensor in the type that it is stored in; one of blocks in float32. Raises SpecError for one that the file does not have, or
        whose type nothing here undoes."""
        import numpy as np

        if name not in self.tensors:
            raise SpecError(f"{self.path} has no tensor {name!r}")
        stored = self.tensors[name]
        values = np.fromfile(self.path, dtype=np.uint8, count=stored.size, offset=stored.start)
        if stored.kind in PLAIN:
            return torch.from_numpy(values).view(PLAIN[stored.kind]).view(stored.shape)
        if stored.kind in WHOLE:
            raise SpecError(f"{self.path}: {name} is stored as whole numbers ({WHOLE[stored.kind]}), expected floating ones")
        package = gguf()
        kind = package.GGMLQuantizationType(stored.kind)
        rows = values.reshape(package.quants.quant_shape_to_byte_shape(stored.shape, kind))
        try:
            undone = package.dequantize(rows, kind)
        except NotImplementedError:
            raise SpecError(
                f"{self.path}: {name} is stored as {kind.name}, which the gguf package does not undo; quantise otherwise"
            ) from None
        return torch.from_numpy(np.ascontiguousarray(undone, dtype=np.float32)).view(stored.shape)

    def dtype(self, name: str) -> torch.dtype:
        """Of what `read` gives."""
        return PLAIN.get(self.tensors[name].kind, torch.float32)

    def _header(self) -> dict[str, Stored]:
        if self._data[:4] != b"GGUF":
            raise self._damaged("it does not begin as GGUF does")
        self._at = 4
        version, tensors, fields = self._take("<IQQ")
        if version not in (2, 3):
            swapped = " (its numbers are turned the other way round)" if version & 0xFFFF == 0 else ""
            raise self._damaged(f"it is of version {version}{swapped}, and 2 and 3 are read")
        for count, most, what in ((tensors, MOST_TENSORS, "tensors"), (fields, MOST_FIELDS, "fields")):
            if count > most:
                raise self._damaged(f"it states {count:,} {what}, and at most {most:,} are read")
        for _ in range(fields):
            name = self._string()
            if name in self.fields:
                raise self._damaged(f"it states {name!r} twice")
            self.fields[name] = self._value(*self._take("<I"))
        stated = [self._tensor() for _ in range(tensors)]
        return dict(self._placed(stated))

    def _placed(self, stated: list[tuple[str, int, tuple[int, ...], int]]) -> Iterator[tuple[str, Stored]]:
        """Tensors one behind the other, whole, and none twice."""
        alignment = self.fields.get("general.alignment", 32)
        if not isinstance(alignment, int) or alignment < 1 or alignment & (alignment - 1):
            raise self._damaged(f"general.alignment is {alignment!r}, expected a power of two")
        begin, end, names = -(-self._at // alignment) * alignment, 0, set[str]()
        sizes = gguf().GGML_QUANT_SIZES
        for name, kind, shape, offset in sorted(stated, key=lambda each: each[3]):
            if name in names:
                raise self._damaged(f"it holds {name!r} twice")
            names.add(name)
            if kind not in sizes:
                raise self._damaged(f"{name!r} is of type {kind}, which the gguf package does not know")
            block, size = sizes[kind]
            if shape[-1] % block:
                raise self._damaged(f"rows of {name!r} have {shape[-1]} values, which blocks of {block} do not fill")
            taken = math.prod(shape) // block * size
            if offset % alignment or offset < end:
                raise self._damaged(f"{name!r} begins at byte {offset:,} of the data, in the middle of another tensor")
            end = offset + taken
            if begin + end > self.length:
                raise self._damaged(f"{name!r} of {tuple(shape)} ends at byte {begin + end:,}, but the file has {self.length:,}")
            yield name, Stored(kind, shape, begin + offset, taken)

    def _tensor(self) -> tuple[str, int, tuple[int, ...], int]:
        name = self._string()
        (sides,) = self._take("<I")
        if not 1 <= sides <= 4:
            raise self._damaged(f"{name!r} has {sides} sides, expected 1 to 4")
        shape = tuple(reversed(self._take(f"<{sides}Q")))
        if not all(0 < side < 1 << 40 for side in shape):
            raise self._damaged(f"{name!r} is {shape}")
        kind, offset = self._take("<IQ")
        return name, kind, shape, offset

    def _value(self, kind: int) -> Any:
        if kind == STRING:
            return self._string()
        if kind in SCALARS:
            (value,) = self._take(f"<{SCALARS[kind]}")
            return shortest(value) if kind == 6 else value
        if kind != ARRAY:
            raise self._damaged(f"it has a field of type {kind}")
        inner, count = self._take("<IQ")
        self._items += count
        if self._items > MOST_ITEMS:
            raise self._damaged(f"its arrays state {self._items:,} values, and at most {MOST_ITEMS:,} are read")
        if inner == STRING:
            return [self._string() for _ in range(count)]
        if inner not in SCALARS:
            raise self._damaged(f"it has an array of type {inner}")
        found = self._take(f"<{count}{SCALARS[inner]}")
        return [shortest(value) for value in found] if inner == 6 else list(found)

    def _string(self) -> str:
        (length,) = self._take("<Q")
        begin = self._at
        self._pass(length)
        try:
            return self._data[begin : self._at].decode("utf-8")
        except UnicodeDecodeError as error:
            raise self._damaged(f"it states a text that is no UTF-8 ({error.reason})") from None

    def _take(self, form: str) -> tuple[Any, ...]:
        begin = self._at
        self._pass(struct.calcsize(form))
        return struct.unpack_from(form, self._data, begin)

    def _pass(self, size: int) -> None:
        self._at += size
        if self._at > self.length:
            raise self._damaged(f"its header states {self._at:,} bytes or more, but the file has {self.length:,}")
        if self._at > LARGEST_TOKENIZER:
            raise self._damaged(f"its header states {self._at:,} bytes or more, and at most {LARGEST_TOKENIZER:,} are read")

    def _damaged(self, reason: str) -> DamagedCheckpointError:
        return DamagedCheckpointError(f"{self.path} cannot be read: {reason}; fetch or write it again")


def shortest(value: float) -> float:
    """The shortest decimal that a float32 stands for: 1e-06, where struct says 9.999999974752427e-07."""
    import numpy as np

    return float(str(np.float32(value)))


def gguf() -> Any:
    """The package. Raises ImportError with the way to it."""
    try:
        import gguf as package
    except ImportError:
        raise ImportError("GGUF files are read and written with the gguf package: pip install 'vlmkit[gguf]'") from None
    return package


def write_gguf(path: Path, architecture: str, fields: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    """Tensors in their own types; whole numbers of fields as llama.cpp has them (uint32), kinds of words as int32. The file is there whole
    or not at all. Raises OSError with the path."""
    package = gguf()
    with whole_file(path) as partial:
        writer = package.GGUFWriter(partial, architecture)
        for name, value in fields.items():
            _add_field(writer, name, value)
        for name, tensor in tensors.items():
            values = tensor.detach().cpu().contiguous()
            if values.dtype == torch.bfloat16:
                blocks = values.view(torch.uint8).numpy()
                writer.add_tensor(name, blocks, raw_dtype=package.GGMLQuantizationType.BF16)
            else:
                writer.add_tensor(name, values.numpy())
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()


def _add_field(writer: Any, name: str, value: Any) -> None:
    if isinstance(value, bool):
        writer.add_bool(name, value)
    elif isinstance(value, int):
        writer.add_uint32(name, value)
    elif isinstance(value, float):
        writer.add_float32(name, value)
    elif isinstance(value, str):
        writer.add_string(name, value)
    else:
        writer.add_array(name, value)
