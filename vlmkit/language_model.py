"""The language model: any transformers causal LM, described by its own config."""

from __future__ import annotations

import importlib
import inspect
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

from vlmkit.experts import Experts
from vlmkit.language_config import read_config, refuse_misspelled, with_rope
from vlmkit.registry import suggestion
from vlmkit.spec import Settings, Spec, SpecError
from vlmkit.tokenizer import load_tokenizer

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase


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
    unspoken: int = 0
    """Ids behind the vocabulary that are read and never said: they have an embedding and no logit (Molmo's <im_patch> and 127 more). A
    published language model has no rows of them; beside its own they are drawn ~N(0, 0.02)."""
    revision: str | None = None
    """The commit, branch or tag of the hub's repositories that are named; None: the newest."""
    experts: Experts | None = None
    """FFNs that are turned into experts, begun as copies of what the checkpoint has; None: none are."""

    later: ClassVar[frozenset[str]] = frozenset({"plain_head", "revision", "experts", "unspoken"})

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.unspoken < 0:
            raise SpecError(f"language_model.unspoken: expected 0 or more, got {self.unspoken}")

    @classmethod
    def from_pretrained(cls, name: str | os.PathLike[str], *, revision: str | None = None, trust_remote_code: bool = False) -> Self:
        """Describe the language model of a directory or a hub name. Only config.json is read; `build(..., weights="pretrained")` reads
        the weights, and the tokenizer is the one beside them. A hub name is pinned to the commit that was read.

        Raises SpecError where there is no config to be had, where it is of a model that sees images, and where it is of no causal language
        model.
        """
        config, pinned = read_config(name, revision, trust_remote_code)
        place = os.path.abspath(os.path.expanduser(name)) if pinned is None else os.fspath(name)
        found = cls.from_config(config, checkpoint=place, tokenizer=place, revision=pinned)
        found.causal_class(found.transformers_config())
        return found

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

    @property
    def named_tokenizer(self) -> tuple[str | None, str | None]:
        """Where its tokenizer is, and the revision there."""
        beside = self.tokenizer in (None, self.checkpoint)
        return self.checkpoint if beside else self.tokenizer, self.revision if beside else None

    @property
    def is_here(self) -> bool:
        """Whether its tokenizer can be looked at before anything is built: in a directory of this machine, or in a repository whose
        commit was read before. Named models say a hub's name alone, and are not looked up."""
        name, revision = self.named_tokenizer
        return name is not None and name != "bytes" and (revision is not None or os.path.isdir(name))

    def load_tokenizer(self, required: tuple[str, ...] = ()) -> PreTrainedTokenizerBase:
        """Its tokenizer; "bytes" with the special tokens that are required. Raises SpecError where there is none to be had."""
        name, revision = self.named_tokenizer
        if name is None:
            raise SpecError("the language model names no tokenizer; pass tokenizer=")
        return load_tokenizer(name, required, revision=revision)

    def problems(self) -> Iterator[str]:
        """Why no model can be built of it, in words."""
        try:
            config = self.transformers_config()
            self.model_class(config)
        except SpecError as error:
            yield str(error)
            return
        if self.unspoken and config.tie_word_embeddings:
            yield (
                f"language_model.unspoken: expected 0, for the embedding is the head's as well (tie_word_embeddings), got {self.unspoken}; "
                "name ids of the vocabulary, or untie them"
            )
        pad, rows = self.config.get("pad_token_id"), self.config.get("vocab_size")
        if isinstance(pad, int) and isinstance(rows, int) and pad >= rows:
            yield f"language_model.config.pad_token_id: {pad} is beyond the vocabulary of {rows}; name a token of it, or None"
        if quantized := self.config.get("quantization_config"):
            method = quantized.get("quant_method", "unknown") if isinstance(quantized, Mapping) else "unknown"
            yield (
                f"language_model.config.quantization_config: the weights are quantized ({method}), and vlmkit builds language models in "
                "floating point; name the checkpoint that they were made of"
            )

    def transformers_config(self) -> PretrainedConfig:
        """The transformers config. Raises SpecError for an architecture that transformers does not have."""
        from huggingface_hub.errors import StrictDataclassError
        from transformers import CONFIG_MAPPING, AutoConfig

        if self.model_type not in CONFIG_MAPPING:
            raise SpecError(
                f"language_model.model_type: transformers has no {self.model_type!r};{suggestion(self.model_type, CONFIG_MAPPING)}"
            )
        settings = self.config.to_dict()
        refuse_misspelled(self.model_type, settings)
        try:
            settings = with_rope(self.model_type, settings)
            return AutoConfig.for_model(self.model_type, **settings)
        except (StrictDataclassError, TypeError, ValueError) as error:
            reason = " ".join(str(error).split())
            raise SpecError(f"language_model.config: {self.model_type!r} does not take these settings: {reason}") from None

    def causal_class(self, config: PretrainedConfig) -> Any:
        """transformers' causal LM of this config, or its text model with a head of ours where it has none or `plain_head` asks for it.
        Raises SpecError where there is neither."""
        found = causal_class(config)
        if found is None or self.plain_head:
            from vlmkit.causal_head import CausalHead, text_model_class

            if text_model_class(config) is not None:
                return CausalHead
            if found is None:
                raise SpecError(f"language_model.model_type: {self.model_type!r} is no causal language model in transformers")
        return found

    def model_class(self, config: PretrainedConfig) -> Any:
        """As `causal_class`. Raises SpecError also where the model cannot be told positions (Mamba, Bloom), and where its tokens see later
        ones."""
        from vlmkit.causal_head import CausalHead

        if (sees := getattr(config, "use_bidirectional_attention", None)) in (True, "all"):
            raise SpecError(
                f"language_model.config.use_bidirectional_attention: with {sees!r} every token of {self.model_type!r} sees those behind "
                "it, which a language model that writes cannot; leave it out"
            )
        found = self.causal_class(config)
        if found is not CausalHead and "position_ids" not in inspect.signature(found.forward).parameters:
            raise SpecError(
                f"language_model.model_type: {self.model_type!r} takes no position_ids, by which packed samples are kept apart and a "
                "cache is continued; choose a language model that does, such as 'llama'"
            )
        if self.plain_head and found is not CausalHead:
            raise SpecError(
                f"language_model.plain_head: transformers has no decoder of {self.model_type!r} without its own head; leave plain_head out"
            )
        return found

    def build(self, config: PretrainedConfig) -> PreTrainedModel:
        """The model with random weights, on the current default device. Raises SpecError as `model_class`, and where FFNs cannot become
        experts."""
        built: PreTrainedModel = self.model_class(config)._from_config(config)
        return self.changed(built)

    def changed(self, plain: PreTrainedModel) -> PreTrainedModel:
        """A model as its library has it, with what is read and never said, and with experts, in place."""
        return self.with_experts(self.with_unspoken(plain))

    def with_experts(self, dense: PreTrainedModel) -> PreTrainedModel:
        """A model of the plain decoder, whose FFNs become what `experts` says, in place."""
        if self.experts is None:
            return dense
        from vlmkit.experts_module import put_experts

        made: PreTrainedModel = put_experts(dense, self.experts)
        return made

    def with_unspoken(self, model: PreTrainedModel) -> PreTrainedModel:
        """The model, its embedding made larger by the rows of what is read and never said. The same rows wherever they are drawn."""
        if self.unspoken:
            import torch

            embedding: Any = model.get_input_embeddings()
            rows = self.unspoken_rows(embedding.embedding_dim).to(embedding.weight)
            embedding.weight = torch.nn.Parameter(torch.cat([embedding.weight.detach(), rows]), embedding.weight.requires_grad)
            embedding.num_embeddings += self.unspoken
        return model

    def unspoken_rows(self, dim: int) -> Any:
        """(unspoken, D_lm), as they are drawn, on the CPU."""
        import torch

        return torch.randn(self.unspoken, dim, generator=torch.Generator().manual_seed(0), device="cpu", dtype=torch.float32) * 0.02

    def _number(self, *names: str) -> int:
        for name in names:
            value = self.config.get(name)
            if isinstance(value, int):
                return value
        value = getattr(self.transformers_config(), names[0], None)
        if not isinstance(value, int):
            raise SpecError(f"language_model.config: {self.model_type!r} says nothing of {names[0]!r}; state it")
        return value


_NOT_ARCHITECTURE = {
    *("model_type", "auto_map", "transformers_version", "_name_or_path", "architectures", "dtype", "torch_dtype", "return_dict"),
}


def causal_class(config: PretrainedConfig) -> Any:
    """transformers' causal LM of a config: the one that it maps to it, or the one that stands beside a text model (Mllama's); or None."""
    from transformers import MODEL_FOR_CAUSAL_LM_MAPPING

    if type(config) in MODEL_FOR_CAUSAL_LM_MAPPING:
        return MODEL_FOR_CAUSAL_LM_MAPPING[type(config)]
    modeling = importlib.import_module(type(config).__module__.replace(".configuration_", ".modeling_"))
    beside = (each for name, each in vars(modeling).items() if name.endswith("ForCausalLM"))
    return next((each for each in beside if each.config_class is type(config)), None)
