"""Weights of a model, read in runs: for whoever fills a model in pieces, because it is whole on no host.

Three kinds of WeightSource:

    SavedWeights        what save_pretrained of a VLM wrote
    PublishedWeights    as build(weights="pretrained"): towers and language model of published checkpoints, the rest drawn
    RandomWeights       as build(seed=...)

Directories were read; downloads go through huggingface_hub and were never run here: no network.
"""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from vlmkit.architecture import Architecture
from vlmkit.build import build, building, resolve, seeing
from vlmkit.checkpoint_weights import read_model
from vlmkit.converted import Converted, refuse
from vlmkit.experts_module import redraw_routers
from vlmkit.experts_weights import Copied, routers_of
from vlmkit.renamed import RENAMED
from vlmkit.saved_parts import check_parts, refuse_other_type
from vlmkit.spec import SpecError
from vlmkit.stored import Stored, files_of
from vlmkit.unspoken_weights import WithUnspoken
from vlmkit.weight_source import HeldWeights, WeightSource, values_of

if TYPE_CHECKING:
    from vlmkit.model import VLM


class SavedWeights(Converted):
    """A directory that `VLM.save_pretrained` wrote, also one of before weights were renamed."""

    def __init__(self, directory: str | os.PathLike[str], expected: Architecture | None = None) -> None:
        """Reads configs and headers. expected: what the directory has to hold. Raises FileNotFoundError where there is no checkpoint,
        SpecError where it is another model's or its names do not fit."""
        from vlmkit.config import VLMConfig

        place = Path(directory)
        if not (place / "config.json").is_file():
            raise FileNotFoundError(f"{place} holds no checkpoint (no config.json); give a directory that save_pretrained wrote")
        refuse_other_type(place)
        config = VLMConfig.from_pretrained(place)
        self.architecture: Architecture = config.spec
        if expected is not None:
            check_parts(place, self.architecture, expected)
        files = files_of(place)
        if not files:
            raise FileNotFoundError(f"{place} holds no model.safetensors and no index of several; save the model there again")
        super().__init__(bare(config), Stored(files), str(place), RENAMED)


class RandomWeights:
    """What `build(architecture, seed=seed, dtype=dtype)` draws. The whole model is built when the first value is read, for each part is
    drawn after the one before it: MemoryError where it does not fit, as build says it."""

    def __init__(self, architecture: str | Architecture, *, seed: int, dtype: str | torch.dtype = "float32") -> None:
        """Raises ArchitectureError where parts do not fit."""
        self.architecture, self.seed, self.dtype = resolve(architecture).validate(), seed, dtype
        self.shapes = shapes_of(bare_of(self.architecture, dtype))
        self._held: HeldWeights | None = None

    def names(self) -> tuple[str, ...]:
        return tuple(self.shapes)

    def shape(self, name: str) -> tuple[int, ...]:
        return self.shapes[name]

    def read(self, name: str, start: int, length: int) -> Tensor:
        if self._held is None:
            self._held = HeldWeights(build(self.architecture, seed=self.seed, dtype=self.dtype).state_dict())
        return self._held.read(name, start, length)


class PublishedWeights:
    """What `build(architecture, weights="pretrained", seed=seed, dtype=dtype)` has, without the language model in memory.

    Its weights are read from its safetensors files. Towers are loaded whole, and connector and fusion are drawn behind them in `dtype`,
    when the first value of one of them is read; they are held (a ViT-H: 2.5 GB in float32) until they are released.
    """

    def __init__(self, architecture: str | Architecture, *, seed: int, dtype: str | torch.dtype = "float32") -> None:
        """seed: of what has no checkpoint; the same in every process, for each draws it itself. Raises ArchitectureError where parts do not
        fit, SpecError where the language model's checkpoint is missing or is of another one; what a tower has to say is said when it is
        loaded. Warns of weights that cannot be read slice by slice."""
        self.architecture, self.seed = resolve(architecture).validate(), seed
        described = self.architecture.language_model
        if described.checkpoint is None:
            raise SpecError(
                f"{self.architecture.name}: the language model names no published checkpoint; leave weights out for random ones"
            )
        model = bare_of(self.architecture, dtype)
        self.config = model.config
        self.shapes = shapes_of(model)
        self.language_model = Copied(published(described, model), model.language_model, self._router)
        self._drawn: HeldWeights | None = None

    def names(self) -> tuple[str, ...]:
        return tuple(self.shapes)

    def shape(self, name: str) -> tuple[int, ...]:
        return self.shapes[name]

    def read(self, name: str, start: int, length: int) -> Tensor:
        if name.startswith(LANGUAGE_MODEL):
            return self.language_model.read(name.removeprefix(LANGUAGE_MODEL), start, length)
        return self.hold().read(name, start, length)

    def hold(self) -> HeldWeights:
        """Load the towers and draw the rest now, where processes of one machine take turns at it. All but the language model."""
        if self._drawn is None:
            self._drawn = HeldWeights(self._draw())
        return self._drawn

    def release(self) -> None:
        """Forget what `hold` holds; whoever reads of it again loads it again."""
        self._drawn = None

    def _draw(self) -> dict[str, Tensor]:
        spec = self.architecture
        with torch.random.fork_rng(devices=[]), building(self.config.dtype), torch.device("cpu"):
            torch.default_generator.manual_seed(self.seed)  # the one of torch.random, and none of a GPU
            model = seeing(self.config)
            redraw_routers(model.language_model)
            # Nothing of a language model that is read from files is drawn, so what comes behind it is drawn as if it had been.
            model.fusion = spec.fusion.build(model.language_model, spec.layout)
            routers = {f"{LANGUAGE_MODEL}{name}" for name in routers_of(model.language_model)}
        return {name: value for name, value in model.state_dict().items() if not name.startswith(LANGUAGE_MODEL) or name in routers}

    def _router(self, name: str, shape: tuple[int, ...]) -> Tensor:
        return self.hold().tensors[f"{LANGUAGE_MODEL}{name}"]


LANGUAGE_MODEL = "language_model."


def weights_of(
    architecture: str | Architecture, weights: str | os.PathLike[str] | None, *, seed: int, dtype: str | torch.dtype = "float32"
) -> WeightSource:
    """The source of what `build` with the same arguments has."""
    if weights is None:
        return RandomWeights(architecture, seed=seed, dtype=dtype)
    if os.fspath(weights) == "pretrained":
        return PublishedWeights(architecture, seed=seed, dtype=dtype)
    return SavedWeights(weights, resolve(architecture))


def refuse_unfit(module: nn.Module, source: WeightSource) -> None:
    """Raise SpecError listing names that only the module or only the source has, and those whose shapes differ."""
    own, names = module.state_dict(), set(source.names())
    wrong = {
        "missing keys": [name for name in own if name not in names],
        "unexpected keys": [name for name in source.names() if name not in own],
        "mismatched keys": [
            f"{name} {source.shape(name)}, expected {tuple(value.shape)}"
            for name, value in own.items()
            if name in names and source.shape(name) != tuple(value.shape)
        ],
    }
    refuse(f"the weights of {type(source).__name__} do not fit {type(module).__name__}", wrong)


def fill(module: nn.Module, source: WeightSource, *, device: str | torch.device = "cpu", dtype: torch.dtype | None = None) -> None:
    """Give a whole skeleton its weights, one parameter after the other: for one process that has room for it.

    Parameters are made on `device`, in their own dtype or in `dtype`; tied ones stay one, frozen ones frozen. Buffers move to the device,
    and those of the state dict take the source's values. Raises SpecError where the source is another model's.
    """
    refuse_unfit(module, source)
    made: dict[int, nn.Parameter] = {}
    persistent = module.state_dict().keys()
    for path, owner in module.named_modules():
        for name, parameter in owner._parameters.items():
            if parameter is None:
                continue
            if id(parameter) not in made:
                values = values_of(source, f"{path}.{name}" if path else name)
                values = values.to(device=device, dtype=dtype or parameter.dtype)
                made[id(parameter)] = nn.Parameter(values, requires_grad=parameter.requires_grad)
            owner._parameters[name] = made[id(parameter)]
        for name, buffer in owner._buffers.items():
            if buffer is None:
                continue
            full = f"{path}.{name}" if path else name
            values = values_of(source, full).to(buffer.dtype) if full in persistent else buffer
            owner._buffers[name] = values.to(device)


def bare(config: Any) -> VLM:
    """The model on the meta device, for its names, its shapes and what is tied."""
    from vlmkit.model import VLM

    with torch.random.fork_rng(devices=[]), building(config.dtype), torch.device("meta"):
        return VLM(config)


def bare_of(architecture: Architecture, dtype: str | torch.dtype) -> VLM:
    from vlmkit.config import VLMConfig

    with building(dtype) as chosen:
        return bare(VLMConfig(architecture=architecture.to_dict(), dtype=chosen))


def shapes_of(module: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(value.shape) for name, value in module.state_dict().items()}


def published(described: Any, model: VLM) -> WeightSource:
    """The published weights of a language model, and those of rows that it has not."""
    language_model: Any = model.language_model
    if described.experts is not None or described.unspoken:
        with torch.device("meta"):
            language_model = described.replace(experts=None, unspoken=0).build(model.config.text_config)
    found = published_alone(described, model, language_model)
    return WithUnspoken(found, described, language_model) if described.unspoken else found


def published_alone(described: Any, model: VLM, language_model: Any) -> WeightSource:
    """As they are published. Those whose files are not safetensors are loaded whole, and it is said."""
    files = files_of(directory_of(described.checkpoint, described.revision))
    if not files:
        warnings.warn(f"{described.checkpoint} has no safetensors files: every process loads it whole; convert it", stacklevel=4)
        revision = {} if described.revision is None else {"revision": described.revision}
        whole, info = read_model(type(language_model), described.checkpoint, config=model.config.text_config, dtype="auto", **revision)
        refuse(described.checkpoint, {what.replace("_", " "): sorted(map(str, info.get(what, ()))) for what in KEYS})
        return HeldWeights(whole.state_dict())
    found = Converted(language_model, Stored(files), described.checkpoint)
    if found.converted:
        warnings.warn(
            f"{described.checkpoint}: transformers makes {len(found.converted)} weights of tensors that are cut otherwise "
            f"({found.converted[0]}); to read a slice of one, all that it is made of is read",
            stacklevel=4,
        )
    return found


KEYS = ("missing_keys", "unexpected_keys", "mismatched_keys")


def directory_of(checkpoint: str, revision: str | None) -> Path:
    """Where a checkpoint's safetensors files are on this machine; those of a hub are fetched, once for all processes of the machine.
    Raises OSError where the hub does not answer."""
    from huggingface_hub import snapshot_download

    from vlmkit.hub import refuse_unreachable

    if os.path.isdir(checkpoint):
        return Path(checkpoint)
    refuse_unreachable(checkpoint, "config.json", revision)
    return Path(snapshot_download(checkpoint, revision=revision, allow_patterns=["*.json", "model*.safetensors"]))
