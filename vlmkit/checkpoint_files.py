"""The files of a checkpoint's directory, looked at before a library reads them: what is damaged, out of bounds or leads elsewhere is said
in one sentence, and nothing that lies there is run. Loads no torch.

Bounds are far above what is published: the largest tokenizer.json has 33 MB, Gemma 3 adds 6,415 tokens, the deepest decoder has 126
layers.
"""

from __future__ import annotations

import json
import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from vlmkit.foreign import words_of
from vlmkit.spec import SpecError

LARGEST_JSON = 16 << 20
"""Bytes of a config."""
LARGEST_TOKENIZER = 64 << 20
"""Bytes of a tokenizer.json, a vocabulary or an index of weights."""
MOST_LAYERS = 1000
MOST_LABELS = 100_000
MOST_ADDED_TOKENS = 50_000

CONFIGS = (
    *("config.json", "generation_config.json", "preprocessor_config.json", "processor_config.json", "video_preprocessor_config.json"),
    *("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "chat_template.json"),
)
LONG = ("tokenizer.json", "vocab.json", "model.safetensors.index.json", "pytorch_model.bin.index.json")
TOKENIZERS = ("tokenizer.json", "vocab.json", "vocab.txt", "tokenizer.model", "tekken.json", "*.tiktoken")
TEXTS = ("chat_template.jinja", "merges.txt", "tokenizer.model", "vocab.txt")
_DEPTH = re.compile(r"(^|_)(n_layer|layers|depth|blocks)$")
_LABELS = ("num_labels", "id2label", "label2id")
_ADDED = ("added_tokens", "added_tokens_decoder", "additional_special_tokens", "extra_special_tokens")


class CheckpointError(FileNotFoundError):
    """A directory or repository without a checkpoint."""


class DamagedCheckpointError(CheckpointError, SpecError):
    """A file of a checkpoint that is not what its name says, or that is out of bounds."""


def look_at(directory: str | os.PathLike[str]) -> None:
    """Raise DamagedCheckpointError with file and reason for a directory whose files cannot be what a checkpoint's are."""
    place = Path(directory)
    look_at_texts(place)
    for path in (*place.glob("*.safetensors"), *place.glob("*.bin"), *place.glob("*.gguf")):
        regular_file(path)
        if path.suffix == ".safetensors":
            with path.open("rb") as file:
                length = int.from_bytes(file.read(8), "little")
            if not 1 < length <= min(path.stat().st_size - 8, LARGEST_TOKENIZER):
                raise DamagedCheckpointError(
                    f"{path} cannot be read: it is no whole safetensors file (a header of {length:,} bytes); fetch or write it again"
                )
    if (place / "adapter_config.json").exists():
        raise DamagedCheckpointError(
            f"{place}: adapter_config.json lies beside config.json, and would change the model; move the adapter elsewhere, "
            "load the model, and add the adapter with vlmkit.training.adapter_files.load_adapters or peft.PeftModel.from_pretrained"
        )


def look_at_texts(place: Path) -> None:
    """As `look_at`, of all but weights: what a tokenizer or a processor is read from."""
    for name in (*CONFIGS, *LONG):
        path = place / name
        if not os.path.lexists(path):
            continue
        said = read_object(path, LARGEST_TOKENIZER if name in LONG else LARGEST_JSON)
        if name in ("added_tokens.json", "tokenizer.json", "tokenizer_config.json"):
            _refuse_many(path, {name.partition(".")[0]: said} if name == "added_tokens.json" else said)
        elif name.endswith(".index.json"):
            _refuse_elsewhere(path, said)
        elif name == "config.json":
            _refuse_large(path, said)
    for name in TEXTS:
        if os.path.lexists(place / name):
            regular_file(place / name, LARGEST_TOKENIZER)
            if not name.endswith(".model"):
                _refuse_bytes(place / name)


def read_object(path: Path, most: int = LARGEST_JSON) -> dict[str, Any]:
    """A JSON object of at most so many bytes. Raises DamagedCheckpointError."""
    regular_file(path, most)
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DamagedCheckpointError(f"{path} cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:  # a JSONDecodeError is one
        raise DamagedCheckpointError(f"{path} is no JSON ({error}); fetch or write it again") from None
    if not isinstance(found, dict):
        raise DamagedCheckpointError(f"{path} holds no JSON object but {_short(found)}; fetch or write it again")
    return found


@contextmanager
def reading(directory: str | os.PathLike[str]) -> Iterator[None]:
    """What other libraries raise while they read a directory becomes a DamagedCheckpointError that names the file, where one is to blame.
    vlmkit's own errors, and memory that does not suffice, stay what they are."""
    try:
        yield
    except (MemoryError, ImportError):
        raise
    except Exception as error:
        if isinstance(error, SpecError) and os.fspath(directory) not in str(error):
            raise SpecError(f"{os.fspath(directory)}: {error}") from None
        if type(error).__module__.partition(".")[0] == "vlmkit":
            raise
        where, reason = blamed(Path(directory)) or (Path(directory), words_of(error))
        raise DamagedCheckpointError(f"{where} cannot be read: {reason}; fetch or write it again") from error


def blamed(directory: Path) -> tuple[Path, str] | None:
    """The file that cannot be read by itself, and the reason. Called after something went wrong: each file is opened once more."""
    import torch
    from safetensors import safe_open
    from tokenizers import Tokenizer

    def tensors(path: Path) -> None:
        with safe_open(path, framework="pt"):
            pass

    def older(path: Path) -> None:
        torch.load(path, map_location="meta", weights_only=True)

    def tokenizer(path: Path) -> None:
        Tokenizer.from_file(str(path))

    for pattern, opens in (("*.safetensors", tensors), ("pytorch_model*.bin", older), ("tokenizer.json", tokenizer)):
        for path in sorted(directory.glob(pattern)):
            try:
                opens(path)
            except Exception as error:
                # torch's own words ask for weights_only=False, which would run what lies in the file.
                reason = "it holds more than tensors, or is cut; nothing of it was run" if opens is older else words_of(error)
                return path, reason
    if any(directory.glob("*.safetensors")) and not any(any(directory.glob(pattern)) for pattern in TOKENIZERS):
        return directory, "it holds no tokenizer (tokenizer.json)"
    return None


def regular_file(path: Path, most: int | None = None) -> int:
    """Raise DamagedCheckpointError for what is no file (a pipe or a device would be read without end), and for a larger one."""
    try:
        found = path.stat()
    except OSError as error:
        raise DamagedCheckpointError(f"{path} cannot be read: {error.strerror}") from None
    if not stat.S_ISREG(found.st_mode):
        raise DamagedCheckpointError(f"{path} is no regular file; put the file itself there")
    if most is not None and found.st_size > most:
        raise DamagedCheckpointError(f"{path} has {found.st_size:,} bytes, more than the {most:,} that are read")
    return found.st_size


def _refuse_bytes(path: Path) -> None:
    try:
        path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise DamagedCheckpointError(f"{path} is no text in UTF-8 ({error}); fetch or write it again") from None


def _refuse_elsewhere(path: Path, index: dict[str, Any]) -> None:
    """Files of an index lie beside it."""
    listed = index.get("weight_map")
    if not isinstance(listed, dict):
        raise DamagedCheckpointError(f"{path} has no weight_map that names the file of each weight; fetch or write it again")
    for name in sorted({repr(each): each for each in listed.values()}.items()):
        file = name[1]
        if not isinstance(file, str) or file in ("", ".", "..") or re.search(r"[/\\\0]", file):
            raise DamagedCheckpointError(f"{path} names {_short(file)}; the files of an index lie beside it and have plain names")
        if not os.path.lexists(path.parent / file):
            raise DamagedCheckpointError(f"{path} lists {file}, which is not there; copy it too")
        regular_file(path.parent / file)


def _refuse_large(path: Path, config: dict[str, Any]) -> None:
    waiting: list[tuple[str, Any]] = [("", config)]
    while waiting:
        at, value = waiting.pop()
        if isinstance(value, list):
            waiting += [(f"{at}[{number}]", each) for number, each in enumerate(value) if isinstance(each, dict | list)]
        if not isinstance(value, dict):
            continue
        for name, each in value.items():
            field = f"{at}.{name}".lstrip(".")
            if _DEPTH.search(name):
                _refuse_more(path, field, each, MOST_LAYERS)
            elif name in _LABELS:
                _refuse_more(path, field, each, MOST_LABELS)
            if isinstance(each, dict | list):
                waiting.append((field, each))


def _refuse_many(path: Path, said: dict[str, Any]) -> None:
    for name in _ADDED:
        _refuse_more(path, name, said.get(name), MOST_ADDED_TOKENS)


def _refuse_more(path: Path, field: str, value: Any, most: int) -> None:
    numbers = value if isinstance(value, list) else [value]
    count = len(value) if isinstance(value, dict | list) else 0
    most_said = max((each for each in numbers if isinstance(each, int | float) and not isinstance(each, bool)), default=0)
    if count > most or most_said > most:
        raise DamagedCheckpointError(f"{path}: {field} is {max(count, most_said):,}, expected at most {most:,}")


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
