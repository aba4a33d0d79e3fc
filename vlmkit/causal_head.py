"""A causal language model of a text model that transformers has without its head: the text half of Qwen2-VL, of Mllama and others.

transformers maps those to no class with a head of their own, for it builds them inside of a vision-language model only. Names of
weights are those of its causal models: `model.` and `lm_head.`. Text models that do have a class of their own get this head too where
that class does more than a linear layer does, and the vision-language model of transformers does not: see `is_plain`.
"""

from __future__ import annotations

import importlib
import inspect
from typing import Any

import torch
from torch import Tensor, nn
from transformers import GenerationMixin, PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutputWithPast

from vlmkit.cache_name import CACHE
from vlmkit.outputs import output

NEEDED = {"inputs_embeds", "attention_mask", "position_ids", CACHE}
"""What a decoder takes."""
ABILITIES = ("_supports_flash_attn", "_supports_sdpa", "_supports_flex_attn", "_supports_attention_backend", "_is_stateful")
"""What a class of transformers says about itself, and this head of its decoder."""


def text_model_class(config: PreTrainedConfig) -> type[PreTrainedModel] | None:
    """transformers' headless decoder of this config, that reads text and nothing else; None where it has none."""
    from transformers import MODEL_MAPPING  # a table that vlmkit.model, which needs this file, is registered in

    if type(config) in MODEL_MAPPING:
        mapped = MODEL_MAPPING[type(config)]
        return mapped if inspect.isclass(mapped) and _is_decoder(mapped, config) else None
    # The text half of a model that has no entry of its own stands in the file of that model.
    file = importlib.import_module(type(config).__module__.replace(".configuration_", ".modeling_"))
    classes: list[Any] = [cls for cls in vars(file).values() if inspect.isclass(cls) and issubclass(cls, PreTrainedModel)]
    found = [cls for cls in classes if cls.config_class is type(config) and _is_decoder(cls, config)]
    return found[0] if len(found) == 1 else None


def _is_decoder(cls: type[PreTrainedModel], config: PreTrainedConfig) -> bool:
    reads = cls.input_modalities
    only_text = {reads} == {"text"} if isinstance(reads, str) else {*reads} == {"text"}
    takes = inspect.signature(cls.forward).parameters.keys()
    return only_text and takes >= NEEDED and not issubclass(cls, GenerationMixin) and not config.is_encoder_decoder


def decoder_of(model: PreTrainedModel) -> tuple[str, nn.Module]:
    """The part of a causal model in which its embeddings are, and its name: some classes of transformers name another one by their
    `base_model_prefix`, or none."""
    embeddings = model.get_input_embeddings()
    return next((name, part) for name, part in model.named_children() if any(module is embeddings for module in part.modules()))


def is_plain(model: PreTrainedModel) -> bool:
    """Whether a causal model makes logits of its decoder's output by one linear layer without bias, and nothing else.

    The model is asked, not a list of settings: it runs over a decoder that answers with drawn numbers and a head that answers with
    drawn logits, and is plain where the head was given the ones and the model returned the others. It may lie on the meta device. One
    that cannot be asked so counts as not plain. Its decoder and its head are of no use afterwards.
    """
    head, (_, decoder) = model.get_output_embeddings(), decoder_of(model)
    if type(head) is not nn.Linear or head.bias is not None:
        return False
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(1, 1, head.in_features, generator=generator)
    logits = torch.randn(1, 1, head.out_features, generator=generator) * 10
    given: list[Tensor] = []

    def project(read: Tensor) -> Tensor:
        given.append(read)
        return logits

    embeddings = model.get_input_embeddings()
    for part in decoder.modules():  # some classes call a part of their decoder (OPT)
        if part is not embeddings and any(module is embeddings for module in part.modules()):
            part.forward = lambda *args, **kwargs: _Answer((hidden,))
    head.forward = project
    try:
        with torch.no_grad():
            found = model(input_ids=torch.zeros(1, 1, dtype=torch.long), use_cache=False, return_dict=True).logits
        return len(given) == 1 and torch.equal(given[0], hidden) and torch.equal(found, logits)
    except Exception:  # whatever a class of transformers raises over such a decoder
        return False


class _Answer(tuple[Tensor]):
    """What a decoder answers, by place and by any of its names: the last hidden state, and None for everything else."""

    def __getattr__(self, name: str) -> Tensor | None:
        return self[0] if name == "last_hidden_state" else None


class CausalHead(PreTrainedModel, GenerationMixin):  # type: ignore[misc]
    """The decoder of a config, and a linear layer from its width to its vocabulary."""

    base_model_prefix = "model"
    supports_gradient_checkpointing = True
    _skip_keys_device_placement = ("cache", "past_key_values")

    def __init__(self, config: PreTrainedConfig) -> None:
        decoder = text_model_class(config)
        if decoder is None:
            raise ValueError(f"transformers has no text model of {config.model_type!r}")
        for ability in ABILITIES:  # transformers chooses how to attend by them, while the model is made
            setattr(self, ability, getattr(decoder, ability))
        super().__init__(config)
        self.model = decoder(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        embeddings = self.model.get_input_embeddings()
        at = next(name for name, module in self.model.named_modules() if module is embeddings)
        self._tied_weights_keys = {"lm_head.weight": f"model.{at}.weight"}
        self.post_init()

    @classmethod
    def from_config(cls, config: PreTrainedConfig) -> CausalHead:
        """With random weights, as transformers' Auto classes have it."""
        made: CausalHead = cls._from_config(config)
        return made

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Any = None,
        position_ids: Tensor | None = None,
        past_key_values: Any = None,
        inputs_embeds: Tensor | None = None,
        use_cache: bool | None = None,
        cache: Any = None,
        logits_to_keep: int | Tensor = 0,
        return_dict: bool | None = None,
        **kwargs: Any,
    ) -> CausalLMOutputWithPast | tuple[Any, ...]:
        """Logits (B, S, vocabulary), or those of the last `logits_to_keep` tokens, or of the tokens that it lists.

        `position_ids` is (B, S), or (3, B, S) or (4, B, S) where the decoder takes those. What else is given reaches the decoder's
        layers. `cache` and `past_key_values` are two names of one thing.
        """
        outputs = self.model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            inputs_embeds=inputs_embeds,
            use_cache=use_cache,
            **{CACHE: past_key_values if cache is None else cache},
            return_dict=True,
            **kwargs,
        )
        kept = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
        found = output(
            CausalLMOutputWithPast,
            logits=self.lm_head(outputs.last_hidden_state[:, kept]),
            **{CACHE: getattr(outputs, CACHE, None)},
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )
        return found if return_dict is not False else found.to_tuple()
