"""The language model: any transformers causal LM, described by its own config."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from vlmkit.spec import Settings, Spec, SpecError

if TYPE_CHECKING:
    from transformers import PretrainedConfig


@dataclass(frozen=True, kw_only=True)
class LanguageModel(Spec):
    """A transformers causal LM. Random weights come from the config; a checkpoint names published ones."""

    model_type: str
    """transformers' own name of the architecture, such as "olmo3" or "llama"."""
    config: Settings
    """Keyword arguments of its config class."""
    checkpoint: str | None = None
    """Hub name or directory of published weights."""
    tokenizer: str | None = None
    """Hub name or directory of the tokenizer, or "bytes" for the byte-level one that is built in code; None: as checkpoint."""

    @classmethod
    def from_config(cls, config: PretrainedConfig, **fields: Any) -> Self:
        """Describe an existing transformers config."""
        values = {name: value for name, value in config.to_diff_dict().items() if name not in _NOT_ARCHITECTURE}
        return cls(model_type=config.model_type, config=Settings(values), **fields)

    @property
    def dim(self) -> int:
        """Width of the token embeddings, D_lm."""
        return self._number("hidden_size", "n_embd", "d_model")

    @property
    def vocabulary(self) -> int:
        return self._number("vocab_size")

    def transformers_config(self) -> PretrainedConfig:
        """The transformers config. Raises SpecError for an architecture that transformers does not have."""
        from transformers import AutoConfig

        settings = self.config.to_dict()
        # Classes with one rotary embedding a layer type (Olmo3) ignore flat rope_parameters without a word; the older
        # spelling is understood by all.
        rope = settings.get("rope_parameters")
        if isinstance(rope, dict) and "rope_type" in rope:
            del settings["rope_parameters"]
            settings["rope_theta"] = rope.pop("rope_theta", settings.get("rope_theta", 10000.0))
            settings["rope_scaling"] = rope
        try:
            return AutoConfig.for_model(self.model_type, **settings)
        except ValueError as error:
            raise SpecError(f"language_model.model_type {self.model_type!r} with these settings: {str(error).splitlines()[0]}") from None

    def _number(self, *names: str) -> int:
        for name in names:
            value = self.config.get(name)
            if isinstance(value, int):
                return value
        value = getattr(self.transformers_config(), names[0], None)
        if not isinstance(value, int):
            raise SpecError(f"language_model.config: {self.model_type!r} says nothing of {names[0]!r}; state it")
        return value


_NOT_ARCHITECTURE = {"model_type", "transformers_version", "_name_or_path", "architectures", "dtype", "torch_dtype"}
