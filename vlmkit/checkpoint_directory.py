"""Where a checkpoint is: a training run, a checkpoint's own directory, or the files of a repository of a hub. Loads no torch.

A hub is asked through huggingface_hub, once; what it sent before is kept on this machine, and with HF_HUB_OFFLINE=1 nothing else is looked
at. That was run against such kept files, and never against a hub: there was no network.
"""

from __future__ import annotations

import functools
import os
import re
from pathlib import Path

from vlmkit.checkpoint_files import CheckpointError as CheckpointError
from vlmkit.checkpoint_files import read_object
from vlmkit.hub import refuse_unreachable
from vlmkit.registry import suggestion

FILES = ("*.json", "*.safetensors", "*.jinja", "*.model", "*.txt", "*.tiktoken")
"""What of a repository is fetched: configs, weights and the tokenizer, and no code."""
OLDER = ("*.bin",)
"""Weights where a repository has none of safetensors. They are read without running what a pickle may hold."""
HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")


def checkpoint_directory(
    what: str | os.PathLike[str], *, revision: str | None = None, subfolder: str | None = None, token: str | bool | None = None
) -> Path:
    """The directory with the config.json of a run, a checkpoint's directory, or 'owner/name' of a hub.

    subfolder: where it lies in there. revision: a branch, tag or commit of the hub's repository; of a directory there is one only, as for
    `from_pretrained`. token: for the hub; None: the one that was logged in with. Raises CheckpointError.
    """
    name = os.fspath(what)
    place = Path(name).expanduser()
    if place.is_dir():
        return _within(place / (subfolder or ""))
    if place.exists():
        raise CheckpointError(f"{name!r} is a file; name the directory of a run or checkpoint")
    if HUB_NAME.fullmatch(name) and not isinstance(what, Path):
        return _of_hub(name, revision, subfolder, token)
    _refuse_named(name)
    raise CheckpointError(_not_here(place))


def _within(place: Path) -> Path:
    """The directory itself or its `checkpoint`, whichever holds a config.json or, without one, GGUF files."""
    for candidate in (place, place / "checkpoint"):
        if (candidate / "config.json").is_file():
            return candidate
    if next(place.glob("*.gguf"), None) is not None:
        return place
    if not place.is_dir():
        raise CheckpointError(_not_here(place))
    if (place / "run.json").is_file():
        raise CheckpointError(
            f"{str(place)!r}: this run has not finished, so it has no checkpoint yet; the training command goes on from where it stopped, "
            f"and `vlmkit consolidate {place} DIR` writes what it has reached as a checkpoint"
        )
    raise CheckpointError(
        f"no checkpoint in {str(place)!r}: neither config.json nor checkpoint/config.json nor a pair of GGUF files is there"
    )


def _not_here(place: Path) -> str:
    siblings = [path.name for path in place.parent.iterdir() if path.is_dir()] if place.parent.is_dir() else []
    return f"there is no directory {str(place)!r};{suggestion(place.name, siblings)}".rstrip(";")


def _of_hub(name: str, revision: str | None, subfolder: str | None, token: str | bool | None) -> Path:
    from huggingface_hub import snapshot_download

    prefix = f"{subfolder.strip('/')}/" if subfolder else ""
    try:
        refuse_unreachable(name, f"{prefix}config.json", revision, token)
        fetch = functools.partial(snapshot_download, name, revision=revision, token=token, ignore_patterns=[f"{prefix}*/*"])
        kept = fetch(allow_patterns=[prefix + pattern for pattern in FILES])
        if not any(Path(kept, prefix).glob("*.safetensors")):
            kept = fetch(allow_patterns=[prefix + pattern for pattern in FILES + OLDER])
        if folder := _tower_within(Path(kept, prefix)):
            files = [f"{prefix}{folder}/{pattern}" for pattern in FILES + OLDER]
            kept = snapshot_download(name, revision=revision, token=token, allow_patterns=files)
    except (OSError, ValueError) as error:  # huggingface_hub's are of these
        at = "" if revision is None else f", revision {revision!r},"
        reason = " ".join(str(error).split())
        raise CheckpointError(
            f"{_not_here(Path(name))}, and the hub gives no repository {name!r}{at}: {reason}; give the path of a directory, or fetch it "
            f"where there is a network: hf download {name}"
        ) from None
    if not Path(kept, prefix, "config.json").is_file():
        raise CheckpointError(
            f"{name!r} of the hub holds no {prefix}config.json; name the folder of the checkpoint with subfolder=, such as 'checkpoint'; "
            "GGUF files are read from a directory, to which `hf download` brings a pair of them"
        )
    return Path(kept, prefix)


def _tower_within(place: Path) -> str | None:
    """The folder of a repository in which its vision tower lies, where config.json says so, as Yi-VL's does."""
    try:
        named = read_object(place / "config.json").get("mm_vision_tower")
    except CheckpointError:
        return None  # said where it is read
    within = isinstance(named, str) and named.startswith("./") and ".." not in Path(named).parts
    return str(named).removeprefix("./").strip("/") or None if within else None


def _refuse_named(name: str) -> None:
    from vlmkit.zoo import list_models  # reads the file of every family, which nobody has to wait for but here

    if name in list_models():
        raise CheckpointError(
            f"{name!r} is a named model, of which no trained weights are here: train it, or give the directory of a run or checkpoint"
        )
