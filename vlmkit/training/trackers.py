"""Weights & Biases and trackio as places where a run's numbers go too: only where they are asked for.

Asked for by name (`MetricsLog(directory, trackers=("wandb",))`), or by the environment variables that say where to: WANDB_PROJECT,
or TRACKIO_PROJECT, TRACKIO_SPACE_ID or TRACKIO_SERVER_URL. All else is those tools' own (WANDB_MODE, WANDB_ENTITY, logging in).
A run keeps its identity in `trackers.json` of its directory, so that a continued one goes on as the same run there. Steps that a killed
run did after its last saved state are done again, to the same loss: wandb leaves out those that its server has, trackio has them twice.

Run with wandb 0.31 offline and with trackio 0.43 into a local directory; never against a server of either.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import uuid
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vlmkit.files import write_whole

ASKED_BY = {"wandb": ("WANDB_PROJECT",), "trackio": ("TRACKIO_PROJECT", "TRACKIO_SPACE_ID", "TRACKIO_SERVER_URL")}
"""The environment variables that ask for a tracker, the one with the project's name first."""


class TrackerError(Exception):
    """A tracker that is not known, or not installed."""


def asked_for() -> tuple[str, ...]:
    """The trackers that the environment asks for; a warning about one that is not installed, for such variables are often set for all
    that a machine runs."""
    asked = [name for name, variables in ASKED_BY.items() if any(map(os.environ.get, variables))]
    installed = tuple(name for name in asked if importlib.util.find_spec(name) is not None)
    for name in set(asked) - set(installed):
        said = next(variable for variable in ASKED_BY[name] if os.environ.get(variable))
        warnings.warn(f"{said} asks for {name}, which is not installed (pip install {name}); nothing is sent there", stacklevel=3)
    return installed


class Tracker:
    """One run at one tracker."""

    def __init__(self, name: str, directory: Path, config: Mapping[str, Any] | None = None) -> None:
        """Begins the run there, or goes on with the one that the directory knows. Raises TrackerError where the package is not
        installed."""
        if name not in ASKED_BY:
            raise TrackerError(f"unknown tracker {name!r}; expected one of {', '.join(ASKED_BY)}")
        if importlib.util.find_spec(name) is None:
            raise TrackerError(f"{name} was asked for and is not installed: pip install {name}")
        self.name, self._file = name, directory / "trackers.json"
        known = self._known()
        if name not in known:
            project = os.environ.get(ASKED_BY[name][0]) or "vlmkit"
            known[name] = {"id": uuid.uuid4().hex[:12], "project": project, "step": 0}
            write_whole(self._file, json.dumps(known, indent=2) + "\n")
        identity = known[name]
        self.id: str = identity["id"]
        self._sent = self._newest = int(identity["step"])
        self._run = _begin(name, identity, directory, dict(config or {}))
        if name == "wandb":
            self._sent = max(self._sent, int(self._run.step))

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Numbers of a step, once."""
        if step > self._sent:
            self._run.log(dict(values), step=step)
            self._sent = self._newest = step

    def add(self, step: int, values: Mapping[str, float]) -> None:
        """Further numbers of the newest step, such as an evaluation's."""
        if self.name == "wandb":  # it takes no step before its own, which counts on by itself when a run is continued
            self._run.log(dict(values))
        else:
            self._run.log(dict(values), step=step)

    def keep(self) -> None:
        """Note in the directory what was sent; done when the run's state is saved."""
        known = self._known()
        if self._newest != known[self.name]["step"]:
            known[self.name]["step"] = self._newest
            write_whole(self._file, json.dumps(known, indent=2) + "\n")

    def close(self) -> None:
        self.keep()
        self._run.finish()

    def _known(self) -> dict[str, dict[str, Any]]:
        return dict(json.loads(self._file.read_text(encoding="utf-8"))) if self._file.is_file() else {}


def _begin(name: str, identity: Mapping[str, Any], directory: Path, config: dict[str, Any]) -> Any:
    package: Any = importlib.import_module(name)
    called = directory.resolve().name
    if name == "wandb":
        return package.init(project=identity["project"], id=identity["id"], name=called, dir=str(directory), config=config, resume="allow")
    # A run of trackio is known by its name alone.
    return package.init(project=identity["project"], name=f"{called}-{identity['id']}", config=config, resume="allow")
