"""The transformers config of a vlmkit model: an Architecture, and what transformers itself wants to know."""

from __future__ import annotations

from typing import Any

from transformers import AutoConfig, PreTrainedConfig

from vlmkit.architecture import Architecture
from vlmkit.auto_map import AUTO_MAP, Referred, write_code


class VLMConfig(Referred, PreTrainedConfig):  # type: ignore[misc]
    """`architecture` is the plain form of an Architecture; the language model's own config is made from it."""

    model_type = "vlmkit"

    architecture: dict[str, Any] | None = None

    def __post_init__(self, **kwargs: Any) -> None:
        kwargs.pop("text_config", None)
        if self.architecture is not None:
            language_model = self.spec.language_model.transformers_config()
            self.text_config = language_model
            for name in ("bos_token_id", "eos_token_id", "pad_token_id", "tie_word_embeddings"):
                kwargs.setdefault(name, getattr(language_model, name, None))
        super().__post_init__(**kwargs)

    @property
    def spec(self) -> Architecture:
        """The architecture as a value."""
        if self.architecture is None:
            raise ValueError("this config holds no architecture; make it with VLMConfig(architecture=arch.to_dict())")
        return Architecture.from_dict(self.architecture)

    @property
    def sub_configs(self) -> dict[str, Any]:
        """Parts whose attention implementation follows this config's."""
        return {"text_config": type(self.text_config)} if self.architecture is not None else {}

    def to_dict(self) -> dict[str, Any]:
        # The language model's config follows from the architecture: it is stated once.
        return {name: value for name, value in super().to_dict().items() if name != "text_config"} | {"auto_map": AUTO_MAP}

    def save_pretrained(self, save_directory: Any, *arguments: Any, **options: Any) -> None:
        """As transformers, with the lines of code that `auto_map` names."""
        super().save_pretrained(save_directory, *arguments, **options)
        write_code(save_directory)


AutoConfig.register(VLMConfig.model_type, VLMConfig)
