"""The transformers config of a vlmkit model: an Architecture, and what transformers itself wants to know."""

from __future__ import annotations

import os
from typing import Any, ClassVar

from transformers import AutoConfig, PreTrainedConfig

from vlmkit.architecture import Architecture
from vlmkit.auto_map import AUTO_MAP, Referred, write_code
from vlmkit.spec import SpecError


class VLMConfig(Referred, PreTrainedConfig):  # type: ignore[misc]
    """`architecture` is the plain form of an Architecture; the language model's own config is made from it."""

    model_type = "vlmkit"
    # What Trainer does not gather of an evaluation: predictions are the logits alone.
    keys_to_ignore_at_inference: ClassVar[list[str]] = ["past_key_values", "cache", "losses", "visual"]

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
    def image_token_id(self) -> int:
        """Id of the reserved token that fills the places of visual tokens, as the tokenizer has it that lies beside the weights, or that
        the language model names; it is read where it is asked for. Raises AttributeError where there is none to be had."""
        from vlmkit.tokenizer import PlainTokenizer, load_tokenizer

        layout, place = self.spec.layout, self.name_or_path
        required = layout.required_specials()
        try:
            if os.path.isfile(os.path.join(place, "tokenizer.json")):
                tokenizer = load_tokenizer(place, required)
            else:
                tokenizer = self.spec.language_model.load_tokenizer(required)
        except SpecError as error:
            raise AttributeError(f"image_token_id is an id of the tokenizer's, and {error}") from None
        return PlainTokenizer(tokenizer, required).specials[layout.placeholder]

    @property
    def sub_configs(self) -> dict[str, Any]:
        """Parts whose attention implementation follows this config's."""
        return {"text_config": type(self.text_config)} if self.architecture is not None else {}

    def to_dict(self) -> dict[str, Any]:
        """With the language model's config as `text_config`, where PEFT looks for layers and widths."""
        return super().to_dict() | {"auto_map": AUTO_MAP}  # type: ignore[no-any-return]

    def to_diff_dict(self) -> dict[str, Any]:
        """What is saved. The language model's config follows from the architecture: it is stated once."""
        return {name: value for name, value in super().to_diff_dict().items() if name != "text_config"}

    def save_pretrained(self, save_directory: Any, *arguments: Any, **options: Any) -> None:
        """As transformers, with the lines of code that `auto_map` names."""
        super().save_pretrained(save_directory, *arguments, **options)
        write_code(save_directory)


AutoConfig.register(VLMConfig.model_type, VLMConfig)
