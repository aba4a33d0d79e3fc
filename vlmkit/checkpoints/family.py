"""What a family's file states, and the two ways that all families share."""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Container, Iterable
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from vlmkit.architecture import Architecture
from vlmkit.checkpoints.decoder import OWN_HEAD, is_tied, leaves_out, names_of, refuse_head, say_tied, with_head, with_tied
from vlmkit.spec import SpecError

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

    from vlmkit.model import VLM
    from vlmkit.processor import VLMProcessor

Renames = tuple[tuple[str, str], ...]
"""Pairs of (vlmkit's prefix, transformers' prefix) of weight names; the first that fits is used, in both directions."""
LANGUAGE_MODEL: Renames = (("language_model.lm_head.", "lm_head."), ("language_model.model.", "model.language_model."))
"""Of a decoder that lies inside of a published model, its head beside that."""


class Family(ABC):
    """One published model class of transformers.

    Weights keep their values and their order; only names change. So the class of transformers itself reads and writes its
    directories (shards, older names, tied weights), and vlmkit takes the tensors over without copying them.
    """

    pooling: ClassVar[tuple[str, ...]] = ("model.vision_tower.head",)
    """Modules that towers of transformers' class may have, and their config or weights may say so or not: pooling heads, which no
    feature depends on. vlmkit does not build them, loading says what it leaves out, and an exported config says that there is none."""
    unread: ClassVar[tuple[str, ...]] = ()
    """Modules of transformers' class that vlmkit does not build. Loading says what it leaves out, and an exported directory
    does not hold their weights."""
    own_head: ClassVar[bool] = False
    """Whether the published class makes logits as the language model's own causal class does; most have a linear layer, whatever the
    language model."""

    @abstractmethod
    def reference(self) -> type[PreTrainedModel]:
        """transformers' model class."""

    @abstractmethod
    def renames(self, architecture: Architecture) -> Renames:
        """How weight names correspond."""

    @abstractmethod
    def architecture(self, config: PretrainedConfig, processor: Any) -> Architecture:
        """The parts that a published config and processor describe. Raises SpecError for what vlmkit does not build."""

    @abstractmethod
    def config(self, architecture: Architecture, processor: VLMProcessor) -> PretrainedConfig:
        """The inverse. Raises SpecError for an architecture that the published class cannot express."""

    @abstractmethod
    def processor(self, architecture: Architecture, processor: VLMProcessor) -> Any:
        """transformers' processor of the published class with the same image policy, layout and tokenizer. Raises SpecError
        for an architecture that it cannot express."""

    def load(self, directory: str, dtype: torch.dtype | None = None) -> tuple[VLM, VLMProcessor]:
        """Model and processor of a published directory, in its own dtype unless another is asked for.

        Raises SpecError listing missing and unexpected keys of what vlmkit builds.
        """
        from transformers import AutoProcessor, initialization

        from vlmkit.checkpoint_weights import read_model
        from vlmkit.config import VLMConfig
        from vlmkit.model import VLM
        from vlmkit.processor import VLMProcessor

        published = AutoProcessor.from_pretrained(directory, trust_remote_code=False)
        reference, report = read_model(self.reference(), directory, dtype=dtype or "auto")
        refuse_incomplete(directory, report, (*self.unread, *self.pooling))
        refuse_other_placeholders(reference.config, published)
        say_left_out(directory, self.weights_left_out(reference, report))
        theirs = self.read(reference, directory, report["missing_keys"])
        architecture = with_tied(self.architecture(reference.config, published), reference)
        if not self.own_head:
            architecture = with_head(architecture, reference)
        architecture.validate()
        with initialization.no_init_weights():
            model = VLM(VLMConfig(architecture=architecture.to_dict(), dtype=reference.dtype))
        names = self.names(model)
        ours = {translate(name, *reversed(names), to_ours=True): tensor for name, tensor in theirs.items()}
        take_over(model, ours, directory)
        model.generation_config = reference.generation_config
        return model.eval(), VLMProcessor(published.tokenizer, architecture=architecture.to_dict())

    def described(self, directory: str) -> Architecture:
        """The architecture of a published directory, of which no weights are read: whether embeddings are tied is what its config says.
        Raises SpecError for what vlmkit does not build."""
        from transformers import AutoConfig, AutoProcessor

        config = AutoConfig.from_pretrained(directory, trust_remote_code=False)
        with torch.device("meta"):
            reference = self.reference()(config)
        architecture = with_tied(self.architecture(config, AutoProcessor.from_pretrained(directory, trust_remote_code=False)), reference)
        return architecture if self.own_head else with_head(architecture, reference)

    def export(self, model: VLM, processor: Any, config: PretrainedConfig, directory: str) -> None:
        """Write a directory that transformers' own class loads, of what `self.processor` and `self.config` gave."""
        architecture = model.config.spec
        config.dtype = model.dtype
        if not self.own_head and (lost := leaves_out(architecture)):
            setattr(config, OWN_HEAD, True)
            warnings.warn(f"{directory}: {self.reference().__name__} leaves out {lost}; logits there will differ", stacklevel=3)
        reference = self.empty(config, tied=is_tied(model))
        for name in self.unread:
            parent, _, module = name.rpartition(".")
            delattr(reference.get_submodule(parent), module)
        if self.unread:
            warnings.warn(f"{directory}: without weights of {', '.join(self.unread)}, which vlmkit does not build", stacklevel=3)
        names = self.names(model)
        ours = model.state_dict()
        if is_tied(model) and not is_tied(reference):
            (head, _), _ = names_of(model.language_model)
            ours[f"{head}weight"] = ours[f"{head}weight"].clone()
        theirs = {translate(name, *names, to_ours=False): tensor for name, tensor in ours.items()}
        take_over(reference, self.write(theirs, config), architecture.name)
        reference.generation_config = model.generation_config
        reference.save_pretrained(directory, max_shard_size="5GB")
        processor.save_pretrained(directory)

    def empty(self, config: PretrainedConfig, *, tied: bool) -> PreTrainedModel:
        """transformers' model without weights, with embeddings tied where it can tie them: it looks for `embed_tokens` in the language
        model. The config says afterwards what it is."""
        say_tied(config, tied)
        try:
            with torch.device("meta"):
                made = self.reference()(config)
        except AttributeError:
            if not tied:
                raise
            return self.empty(config, tied=False)
        return made if is_tied(made) or not tied else self.empty(config, tied=False)

    def check(self, architecture: Architecture) -> None:
        """Raise SpecError for a language model whose head has weights that the published class has no place for."""
        if not self.own_head:
            refuse_head(architecture, self.reference().__name__)

    def names(self, model: VLM) -> tuple[Renames, Renames]:
        """How weight names become the published ones: first those of the language model what most decoders call them."""
        return names_of(model.language_model), self.renames(model.config.spec)

    def read(self, reference: PreTrainedModel, directory: str, missing: Container[str]) -> dict[str, Tensor]:
        """The weights that vlmkit builds."""
        weights: dict[str, Tensor] = reference.state_dict()
        return {name: tensor for name, tensor in weights.items() if not is_within(name, (*self.unread, *self.pooling))}

    def weights_left_out(self, reference: PreTrainedModel, report: dict[str, Any]) -> dict[str, int]:
        """Modules that are not built, each with the number of its values in the directory: 0 where transformers did not read them
        either, for its config does not speak of them."""
        there = {name: tensor.numel() for name, tensor in reference.state_dict().items() if name not in report["missing_keys"]}
        there |= dict.fromkeys(map(str, report["unexpected_keys"]), 0)
        sizes = {module: [size for name, size in there.items() if is_within(name, (module,))] for module in (*self.unread, *self.pooling)}
        return {module: sum(found) for module, found in sizes.items() if found}

    def write(self, weights: dict[str, Tensor], config: PretrainedConfig) -> dict[str, Tensor]:
        """What `read` gives, as the published class of this config has it: the same, but where a family cuts tensors otherwise."""
        return weights


def is_within(name: str, modules: tuple[str, ...]) -> bool:
    """Whether a weight belongs to one of the modules."""
    return any(name.startswith(f"{module}.") for module in modules)


def translate(name: str, *steps: Renames, to_ours: bool) -> str:
    """A weight's name on the other side, step by step; unchanged by a step where no prefix fits."""
    for renames in steps:
        pairs = [(theirs, ours) if to_ours else (ours, theirs) for ours, theirs in renames]
        before, after = next((pair for pair in pairs if name.startswith(pair[0])), ("", ""))
        name = after + name.removeprefix(before)
    return name


def made_of(architecture: Architecture, weights: dict[str, Tensor], source: str, dtype: torch.dtype) -> VLM:
    """The model in evaluation mode of tensors under vlmkit's names, in this dtype. Raises SpecError as `take_over` does, before anything is
    allocated."""
    from transformers import initialization

    from vlmkit.config import VLMConfig
    from vlmkit.model import VLM
    from vlmkit.sliced import bare_of

    refuse_other(bare_of(architecture, dtype), weights, source)
    with initialization.no_init_weights():
        model = VLM(VLMConfig(architecture=architecture.to_dict(), dtype=dtype))
    take_over(model, {name: tensor.to(dtype) for name, tensor in weights.items()}, source)
    evaluating: VLM = model.eval()
    return evaluating


def take_over(model: PreTrainedModel, weights: dict[str, Tensor], source: str) -> None:
    """Give tensors to a model without copying. Raises SpecError listing keys, shapes and types that do not fit."""
    refuse_other(model, weights, source)
    model.load_state_dict(weights, assign=True)
    model.tie_weights()


def refuse_other(model: PreTrainedModel, weights: dict[str, Tensor], source: str) -> None:
    """Raise SpecError listing keys, shapes and types that do not fit a model."""
    expected = model.state_dict()
    problems = [
        *(f"missing {name}" for name in sorted(expected.keys() - weights.keys())),
        *(f"unexpected {name}" for name in sorted(weights.keys() - expected.keys())),
        *(
            f"{name} is {tuple(weights[name].shape)}, expected {tuple(own.shape)}"
            for name, own in expected.items()
            if name in weights and weights[name].shape != own.shape
        ),
        *(
            f"{name} is stored as whole numbers ({weights[name].dtype}), expected floating ones"
            for name, own in expected.items()
            if name in weights and own.is_floating_point() and not weights[name].is_floating_point()
        ),
    ]
    if problems:
        raise SpecError(f"{source} does not fit: {some(problems)}")


def say_left_out(directory: str, modules: dict[str, int]) -> None:
    """Warn of modules that are not built, with the numbers of their values where those are known."""
    if modules:
        counted = ", ".join(f"{module} ({size:,} values)" if size else module for module, size in modules.items())
        warnings.warn(f"{directory}: {counted} are not read, for vlmkit does not build them", stacklevel=4)


def refuse_other_placeholders(config: PretrainedConfig, processor: Any) -> None:
    """Raise SpecError where the processor writes another token for an image or a film than the model looks for: transformers' class then
    finds no place for its features."""
    told = config.to_dict()
    for kind in ("image", "video"):
        name = next((name for name in (f"{kind}_token_id", f"{kind}_token_index") if name in told), None)
        written = getattr(processor, f"{kind}_token", None)
        if name is None or written is None:
            continue
        found = processor.tokenizer.convert_tokens_to_ids(str(written))
        if found != told[name]:
            raise SpecError(f"{name}: the config says {told[name]}, but the processor writes {str(written)!r}, which is token {found}")


def refuse_incomplete(directory: str, report: dict[str, Any], unread: tuple[str, ...] = ()) -> None:
    """Raise SpecError with the keys that transformers found missing, unexpected or of another shape, outside modules that are
    not read."""
    kinds = ("missing_keys", "unexpected_keys", "mismatched_keys")
    problems = [
        f"{kind.removesuffix('_keys')} {key}"
        for kind in kinds
        for key in sorted(map(str, report.get(kind) or ()))
        if not is_within(key, unread)
    ]
    if problems:
        raise SpecError(f"{directory} is not complete: {some(problems)}")


def some(items: Iterable[str], most: int = 20) -> str:
    """The first items in one line, and how many more there are."""
    listed = list(items)
    shown = "; ".join(listed[:most])
    return shown if len(listed) <= most else f"{shown}; and {len(listed) - most} more"
