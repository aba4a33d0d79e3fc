"""The language model inside of a published model: a decoder without its head, and one linear layer beside it.

Most vision-language classes of today's transformers are made so, whatever the language model. What the decoder's own causal
class does behind it is left out there: Phi's bias of the head, the scale of logits of Cohere and Granite, Gemma 2's cap. Three things
follow. A directory is read as its class computes it, with `LanguageModel.plain_head` where that differs from the own class. A model
with its own head is exported with a word and a mark in the config, by which vlmkit reads it back as it was. A head with weights of
its own beyond the one matrix cannot be exported.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import torch

from vlmkit.architecture import Architecture
from vlmkit.language_model import LanguageModel
from vlmkit.spec import SpecError

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

OWN_HEAD = "vlmkit_own_head"
"""What an exported config has where the model has its decoder's own head, which the published class leaves out."""


def is_tied(model: PreTrainedModel) -> bool:
    """Whether the head and the embeddings are one matrix."""
    return model.get_output_embeddings().weight is model.get_input_embeddings().weight


def say_tied(config: PretrainedConfig, tied: bool) -> None:
    """State it at the top and in the language model's part: some classes of transformers read the one, some the other."""
    for part in (config, config.get_text_config(decoder=True)):
        part.tie_word_embeddings = tied


def with_tied(architecture: Architecture, reference: PreTrainedModel) -> Architecture:
    """The architecture with embeddings tied as the loaded weights are: where a checkpoint holds two different ones,
    transformers keeps both, whatever the config says."""
    language_model = architecture.language_model
    settings = language_model.config | {"tie_word_embeddings": is_tied(reference)}
    return architecture.replace(language_model=language_model.replace(config=settings))


def with_head(architecture: Architecture, reference: PreTrainedModel) -> Architecture:
    """The architecture with a plain head where the published class leaves out what the decoder's own class does. A warning says so."""
    if getattr(reference.config, OWN_HEAD, False) or not (lost := leaves_out(architecture)):
        return architecture
    warnings.warn(
        f"{type(reference).__name__} leaves out {lost}; logits are those of the published class (plain_head). "
        f'"{OWN_HEAD}": true in config.json asks for the others',
        stacklevel=4,
    )
    return architecture.replace(language_model=architecture.language_model.replace(plain_head=True))


def leaves_out(architecture: Architecture) -> str:
    """In words, what the language model does behind its decoder besides one linear layer; empty where that is all."""
    from vlmkit.causal_head import CausalHead, is_plain

    model = _on_meta(architecture.language_model)
    if model is None or isinstance(model, CausalHead) or is_plain(model):
        return ""
    return f"what {type(model).__name__} does behind its decoder besides one linear layer"


def refuse_head(architecture: Architecture, published: str) -> None:
    """Raise SpecError where the language model has weights behind its decoder besides the head's matrix."""
    model = _on_meta(architecture.language_model)
    if model is None:
        return
    head, decoder = (here for here, _ in names_of(model))
    names = [f"language_model.{name}" for name, _ in model.named_parameters(remove_duplicate=False)]
    if further := [name for name in names if not name.startswith(decoder) and name != f"{head}weight"]:
        raise SpecError(
            f"{published} has one linear layer without bias behind the decoder, but {architecture.language_model.model_type!r} has "
            f"{', '.join(further)}; a language model with plain_head=True has none"
        )


def names_of(language_model: PreTrainedModel) -> tuple[tuple[str, str], ...]:
    """Pairs of prefixes of weights' names: what the head and the decoder are called here, and in most language models."""
    from vlmkit.causal_head import decoder_of

    head, (decoder, _) = language_model.get_output_embeddings(), decoder_of(language_model)
    here = next(name for name, module in language_model.named_modules() if module is head)
    return ((f"language_model.{here}.", "language_model.lm_head."), (f"language_model.{decoder}.", "language_model.model."))


def _on_meta(language_model: LanguageModel) -> PreTrainedModel | None:
    """The language model without memory; None where vlmkit cannot build it, which the model itself will say."""
    try:
        with torch.device("meta"):
            return language_model.build(language_model.transformers_config())
    except SpecError:
        return None
