"""The language model: any transformers causal LM, described by its own config."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

from vlmkit.registry import suggestion
from vlmkit.spec import Settings, Spec, SpecError

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel


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
    plain_head: bool = False
    """Whether logits are what one linear layer without bias makes of the decoder's output, as in most vision-language classes of
    transformers, and not what the causal class of the model type makes of it: Phi adds a bias there, Cohere and Granite scale logits,
    Gemma 2 caps them."""

    later: ClassVar[frozenset[str]] = frozenset({"plain_head"})

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

    def readable(self) -> int:
        """Ids that have an embedding: of some language models more than have a logit. Taken on the meta device."""
        import torch

        with torch.device("meta"):
            embeddings = self.build(self.transformers_config()).get_input_embeddings()
        return int(embeddings.num_embeddings)

    @property
    def positions(self) -> Literal["plain", "three"]:
        """Whether a token has one position, or three: time, row and column, by which Qwen2-VL's decoder turns its own shares of a
        head's channels (arXiv:2409.12191). Its config lists the shares as `mrope_section`."""
        rotary = (self.config.get(name) for name in ("rope_parameters", "rope_scaling"))
        shares = (value.get("mrope_section") for value in rotary if isinstance(value, Mapping))
        return "three" if any(len(share or ()) == 3 for share in shares) else "plain"

    def transformers_config(self) -> PretrainedConfig:
        """The transformers config. Raises SpecError for an architecture that transformers does not have."""
        from huggingface_hub.errors import StrictDataclassError
        from transformers import CONFIG_MAPPING, AutoConfig

        if self.model_type not in CONFIG_MAPPING:
            raise SpecError(
                f"language_model.model_type: transformers has no {self.model_type!r};{suggestion(self.model_type, CONFIG_MAPPING)}"
            )
        settings = self.config.to_dict()
        self._refuse_misspelled(CONFIG_MAPPING[self.model_type], settings)
        try:
            settings = self._with_rope(settings)
            return AutoConfig.for_model(self.model_type, **settings)
        except (StrictDataclassError, TypeError, ValueError) as error:
            reason = " ".join(str(error).split())
            raise SpecError(f"language_model.config: {self.model_type!r} does not take these settings: {reason}") from None

    def model_class(self, config: PretrainedConfig) -> Any:
        """transformers' causal LM of this config, or its text model with a head of ours where it has none or `plain_head` asks for it.
        Raises SpecError where there is neither, where it cannot be told positions (Mamba, Bloom), and where its tokens see later ones."""
        if (sees := getattr(config, "use_bidirectional_attention", None)) in (True, "all"):
            raise SpecError(
                f"language_model.config.use_bidirectional_attention: with {sees!r} every token of {self.model_type!r} sees those behind "
                "it, which a language model that writes cannot; leave it out"
            )
        found = causal_class(config)
        if found is None or self.plain_head:
            from vlmkit.causal_head import CausalHead, text_model_class

            if text_model_class(config) is not None:
                return CausalHead
            if found is None:
                raise SpecError(f"language_model.model_type: {self.model_type!r} is no causal language model in transformers")
        if "position_ids" not in inspect.signature(found.forward).parameters:
            raise SpecError(
                f"language_model.model_type: {self.model_type!r} takes no position_ids, by which packed samples are kept apart and a "
                "cache is continued; choose a language model that does, such as 'llama'"
            )
        if self.plain_head:
            raise SpecError(
                f"language_model.plain_head: transformers has no decoder of {self.model_type!r} without its own head; leave plain_head out"
            )
        return found

    def build(self, config: PretrainedConfig) -> PreTrainedModel:
        """The model with random weights, on the current default device. Raises SpecError as `model_class`."""
        built: PreTrainedModel = self.model_class(config)._from_config(config)
        return built

    def _refuse_misspelled(self, config_class: Any, settings: dict[str, Any]) -> None:
        """transformers keeps settings that it does not know, and takes its default for the one that was meant."""
        own = config_class()
        known = vars(own).keys() | config_class.attribute_map.keys() | _ROPE
        for name in settings.keys() - known - set(dir(own)):  # a property (output_attentions) is a setting too
            if near := get_close_matches(name, known, n=1, cutoff=0.85):
                raise SpecError(f"language_model.config.{name}: unknown setting of {self.model_type!r}, did you mean {near[0]!r}?")

    def _with_rope(self, settings: dict[str, Any]) -> dict[str, Any]:
        """The settings, with rotary ones spelled out for a class that has one rotary embedding a layer type (Olmo3, Gemma
        3): transformers ignores flat `rope_parameters` there, and gives `rope_theta` to the full layers only.

        Scaling is for the full layers; theta is for every layer type that has the full layers' theta by default.
        """
        from transformers import AutoConfig

        given = dict(settings.get("rope_parameters") or {})
        others = {name: value for name, value in settings.items() if name not in _ROPE}
        nested = getattr(AutoConfig.for_model(self.model_type, **others), "rope_parameters", None) or {}
        if "full_attention" not in nested or any(isinstance(value, dict) for value in given.values()):
            return settings
        scaling = dict(settings.get("rope_scaling") or {}) | given
        if "type" in scaling:
            scaling.setdefault("rope_type", scaling.pop("type"))
        theta = scaling.pop("rope_theta", settings.get("rope_theta"))
        usual = nested["full_attention"]["rope_theta"]
        for parameters in nested.values():
            if theta is not None and parameters["rope_theta"] == usual:
                parameters["rope_theta"] = theta
        nested["full_attention"] |= scaling
        return others | {"rope_parameters": nested}

    def _number(self, *names: str) -> int:
        for name in names:
            value = self.config.get(name)
            if isinstance(value, int):
                return value
        value = getattr(self.transformers_config(), names[0], None)
        if not isinstance(value, int):
            raise SpecError(f"language_model.config: {self.model_type!r} says nothing of {names[0]!r}; state it")
        return value


_ROPE = {"rope_parameters", "rope_scaling", "rope_theta"}
_NOT_ARCHITECTURE = {"model_type", "transformers_version", "_name_or_path", "architectures", "dtype", "torch_dtype", "return_dict"}


def causal_class(config: PretrainedConfig) -> Any:
    """transformers' causal LM of a config: the one that it maps to it, or the one that stands beside a text model (Mllama's); or None."""
    from transformers import MODEL_FOR_CAUSAL_LM_MAPPING

    if type(config) in MODEL_FOR_CAUSAL_LM_MAPPING:
        return MODEL_FOR_CAUSAL_LM_MAPPING[type(config)]
    modeling = importlib.import_module(type(config).__module__.replace(".configuration_", ".modeling_"))
    beside = (each for name, each in vars(modeling).items() if name.endswith("ForCausalLM"))
    return next((each for each in beside if each.config_class is type(config)), None)
