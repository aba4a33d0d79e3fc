"""The state of a run on disk: every process writes what it holds, any number of processes reads what it needs.

    state/000000120-1/rank-00000.safetensors   runs of values of weights, of optimizer states, of averaged weights; scalars; random numbers
    state/000000120-1/rank-00000.json          sha256 of that file
    state/000000120-1/position.json            where the run stands, the files with their sha256; written last

A tensor that is spread over processes lies in several files as runs of its flattened values, so neither the engine nor the number of
processes has to be the same when a run goes on. A directory counts once its position is there: whenever a process or a machine dies, the
state before is whole. Safetensors and JSON, never pickle.
"""

from __future__ import annotations

import hashlib
import json
import random
import shutil
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from vlmkit.files import commit, partial, write_whole, writing
from vlmkit.renamed import todays
from vlmkit.training.processes import Processes
from vlmkit.training.run import RunError

SCHEMA = 2
KEPT = 2
"""Complete states that stay: the newest, and the one before in case the newest is damaged on disk."""

GOES_ON = "the run goes on from the state before it"
WAY_OUT = "remove {}, and the run goes on from the state before it"


class StateError(RunError, ValueError):
    """A state that cannot be continued from."""


class SaveError(RunError, OSError):
    """A state that could not be saved; the one before it is as it was."""


@dataclass(frozen=True)
class Piece:
    """A run of values of a tensor that this process holds."""

    kind: str
    """"weight", a state of the optimizer such as "exp_avg", or "average"."""
    name: str
    shape: tuple[int, ...]
    """Of the whole tensor."""
    start: int
    """Place of the first value in the flattened tensor."""
    values: Tensor
    """(length,), a view: reading and filling are the same thing."""

    @property
    def key(self) -> str:
        return f"{self.kind}/{self.name}/{self.start}"


@dataclass(frozen=True)
class _Run:
    start: int
    length: int
    file: str
    key: str


class Saver:
    """Writes states in a thread of every process, while training goes on."""

    def __init__(self, directory: Path, processes: Processes) -> None:
        self.directory, self.processes = directory, processes
        self._thread: threading.Thread | None = None
        self._path = directory
        self._position: dict[str, Any] = {}
        self._error: OSError | None = None

    def begin(self, number: str, pieces: Iterable[Piece], scalars: Mapping[str, Mapping[str, float]], position: Mapping[str, Any]) -> None:
        """Copy the pieces and write them behind the training's back. All processes call it at the same step."""
        self.commit()
        self._path, self._position = self.directory / number, dict(position)
        self._refuse(self._make() if self.processes.main else None)
        tensors, where = {}, {}
        for piece in pieces:
            tensors[piece.key] = piece.values.detach().to("cpu", copy=True).contiguous()
            where[piece.key] = [piece.kind, piece.name, piece.start, list(piece.shape)]
        numbers, described = _random()
        header = {"schema": SCHEMA, "pieces": where, "scalars": {name: dict(found) for name, found in scalars.items()}, "random": described}
        self._thread = threading.Thread(target=self._write, args=(tensors | numbers, json.dumps(header)), daemon=False)
        self._thread.start()

    @property
    def finished(self) -> bool:
        """This process has written its share."""
        return self._thread is not None and not self._thread.is_alive()

    def commit(self) -> None:
        """Wait until all processes have written, and make the state count. Raises SaveError on all of them where one could not write."""
        if self._thread is None:
            return
        self._thread.join()
        self._thread = None
        problem, self._error = self._error, None
        self._refuse(problem)
        found, problem = self._complete() if self.processes.main else (self.processes.world, None)
        self._refuse(problem)
        if self.processes.sum([found])[0] != self.processes.world**2:
            raise SaveError(
                f"{self._path} holds the shares of fewer than {self.processes.world} processes; the run's directory has to be one that "
                "all machines share"
            )

    def _refuse(self, problem: OSError | None) -> None:
        """Raise SaveError on all processes where one of them has a problem: none waits for another that has left."""
        told = [told for told in self.processes.gather(None if problem is None else problem.strerror or str(problem)) if told is not None]
        if told:
            if self.processes.main:
                shutil.rmtree(self._path, ignore_errors=True)
            raise SaveError(f"the state could not be saved to {self._path}: {told[0]}; {GOES_ON}")

    def _make(self) -> OSError | None:
        """The directory of a state, and what the disk says against it."""
        shutil.rmtree(self._path, ignore_errors=True)
        try:
            self._path.mkdir(parents=True)
        except OSError as error:
            return error
        return None

    def _complete(self) -> tuple[int, OSError | None]:
        """The position is written where every process's share is there. Returns how many are, and what the disk says against it."""
        files = {path.with_suffix(".safetensors").name: json.loads(path.read_text()) for path in self._path.glob("rank-*.json")}
        if len(files) == self.processes.world:
            content = {"schema": SCHEMA, "position": self._position, "files": files}
            try:
                write_whole(self._path / "position.json", json.dumps(content | {"sha256": _digest(content)}))
            except OSError as error:
                return len(files), error
            _prune(self.directory)
        return len(files), None

    def _write(self, tensors: dict[str, Tensor], header: str) -> None:
        path = self._path / f"rank-{self.processes.rank:05}.safetensors"
        try:
            with writing(path):
                save_file(tensors, partial(path), {"state": header})
            digests = {"sha256": _sha256(partial(path)), "header": hashlib.sha256(header.encode()).hexdigest()}
            commit(partial(path), path)
            write_whole(path.with_suffix(".json"), json.dumps(digests))
        except OSError as error:
            self._error = error
            partial(path).unlink(missing_ok=True)


class SavedState:
    """A complete state. Each file is checked against its sha256 before the first value is read from it."""

    def __init__(self, path: Path) -> None:
        """Raises StateError for a directory that is not a whole state of a version that is known here."""
        self.path = path
        try:
            content = json.loads((path / "position.json").read_text(encoding="utf-8"))
            digest = content.pop("sha256")
            schema = content["schema"]
            self.position: dict[str, Any] = content["position"]
            self._files: dict[str, dict[str, str]] = content["files"]
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise StateError(f"{path} is not a saved training state ({error}); {WAY_OUT.format(path)}") from None
        if digest != _digest(content):
            raise StateError(f"{path / 'position.json'} is damaged (its sha256 differs); {WAY_OUT.format(path)}")
        if schema != SCHEMA:
            raise StateError(f"{path} has schema {schema!r}, this vlmkit reads {SCHEMA}")
        self._whole: set[str] = set()
        self._shapes: dict[tuple[str, str], tuple[int, ...]] = {}
        self._runs: dict[tuple[str, str], list[_Run]] = {}
        self.scalars: dict[str, dict[str, float]] = {}
        """Numbers of the optimizer for a parameter, such as its `step`."""
        self._random: dict[str, Any] = {}
        for file in self._files:
            header = self._header(file)
            self.scalars |= {todays(name): found for name, found in header["scalars"].items()}
            self._random[file] = header["random"]
            for key, (kind, name, start, shape) in header["pieces"].items():
                place = (kind, todays(name))
                self._shapes[place] = tuple(shape)
                self._runs.setdefault(place, []).append(_Run(start, header["lengths"][key], file, key))

    @classmethod
    def newest(cls, directory: Path) -> SavedState | None:
        """The last complete state under a directory, if there is one."""
        found = complete(directory)
        return cls(found[-1]) if found else None

    def names(self, kind: str) -> frozenset[str]:
        return frozenset(name for found, name in self._runs if found == kind)

    def kinds(self) -> frozenset[str]:
        return frozenset(kind for kind, _ in self._runs)

    def shape(self, kind: str, name: str) -> tuple[int, ...]:
        return self._shapes[kind, name]

    def read(self, kind: str, name: str, start: int, length: int) -> Tensor:
        """Values `start` to `start + length` of the flattened tensor: (length,), from whichever files they lie in."""
        parts: list[Tensor] = []
        at = start
        for run in sorted(self._runs[kind, name], key=lambda run: run.start):
            if at < start + length and run.start <= at < run.start + run.length:
                end = min(start + length, run.start + run.length)
                parts.append(self._values(run, at - run.start, end - run.start))
                at = end
        if at < start + length:
            raise StateError(f"{self.path}: of {name} ({kind}) the values from {at} on are in no file")
        # A copy: what the file hands out need not be aligned as torch aligns, and kernels may care.
        return torch.cat(parts) if parts else torch.empty(0)

    def restore_random(self, rank: int) -> None:
        """Set the generators of torch, Python and NumPy to where they were in this process; one that was not there begins as it is."""
        file = f"rank-{rank:05}.safetensors"
        if file not in self._files:
            return
        self._check(file)
        with safe_open(self.path / file, framework="pt") as opened:
            torch.set_rng_state(opened.get_tensor("random.torch"))
            if "random.cuda" in opened.keys() and torch.cuda.is_available():  # noqa: SIM118 (not a mapping)
                torch.cuda.set_rng_state(opened.get_tensor("random.cuda"))
        version, internal, gauss = self._random[file]["python"]
        random.setstate((version, tuple(internal), gauss))
        kind, keys, *rest = self._random[file]["numpy"]
        np.random.set_state((kind, np.array(keys, dtype=np.uint32), *rest))

    def _values(self, run: _Run, start: int, end: int) -> Tensor:
        self._check(run.file)
        with safe_open(self.path / run.file, framework="pt") as opened:
            found: Tensor = opened.get_slice(run.key)[start:end]
        return found

    def _header(self, file: str) -> dict[str, Any]:
        try:
            with safe_open(self.path / file, framework="pt") as opened:
                text = (opened.metadata() or {})["state"]
                if hashlib.sha256(text.encode()).hexdigest() != self._files[file]["header"]:
                    raise ValueError("the sha256 of its header differs")
                header: dict[str, Any] = json.loads(text)
                header["lengths"] = {key: opened.get_slice(key).get_shape()[0] for key in header["pieces"]}
        except (OSError, SafetensorError, KeyError, ValueError, TypeError) as error:
            raise self._damaged(file, str(error)) from None
        return header

    def _check(self, file: str) -> None:
        if file not in self._whole:
            if _sha256(self.path / file) != self._files[file]["sha256"]:
                raise self._damaged(file, "its sha256 differs")
            self._whole.add(file)

    def _damaged(self, file: str, how: str) -> StateError:
        return StateError(f"{self.path / file} is damaged ({how}); {WAY_OUT.format(self.path)}")


class StateWeights:
    """Weights and persistent buffers of a state, as a source of weights (vlmkit.sliced)."""

    def __init__(self, state: SavedState, *, averaged: bool = False) -> None:
        """averaged: moving averages of those weights that one was kept of."""
        self._state = state
        kinds = ("buffer", "weight", *(("average",) if averaged else ()))
        self._kinds = {name: kind for kind in kinds for name in state.names(kind)}

    def names(self) -> tuple[str, ...]:
        return tuple(self._kinds)

    def shape(self, name: str) -> tuple[int, ...]:
        return self._state.shape(self._kinds[name], name)

    def read(self, name: str, start: int, length: int) -> Tensor:
        return self._state.read(self._kinds[name], name, start, length)


def complete(directory: Path) -> list[Path]:
    """Complete states, oldest first."""
    return sorted(path.parent for path in directory.glob("*/position.json"))


def _prune(directory: Path) -> None:
    """Leave the newest complete states; what was never completed goes too. Called when none is being written."""
    kept = complete(directory)[-KEPT:]
    for path in directory.iterdir():
        if path not in kept:
            # First what makes it count, so that no half of a state ever does.
            (path / "position.json").unlink(missing_ok=True)
            shutil.rmtree(path)


def _random() -> tuple[dict[str, Tensor], dict[str, Any]]:
    tensors = {"random.torch": torch.get_rng_state()}
    if torch.cuda.is_available():
        tensors["random.cuda"] = torch.cuda.get_rng_state()
    kind, keys, *rest = np.random.get_state(legacy=True)
    return tensors, {"python": random.getstate(), "numpy": [kind, np.asarray(keys).tolist(), *rest]}


def _digest(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        raise StateError(f"{path} is missing; {WAY_OUT.format(path.parent)}") from None
