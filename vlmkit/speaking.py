"""The model's side of the language: what stands and what is seen -> logits and losses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.modeling_outputs import CausalLMOutputWithPast

from vlmkit.architecture import Architecture
from vlmkit.attention import attends_by_sample
from vlmkit.body import BodyOutput, without_head
from vlmkit.cache_name import CACHE
from vlmkit.causal_head import decoder_of
from vlmkit.experts_module import routed
from vlmkit.fusion.incoming import Incoming
from vlmkit.losses import next_token_loss, router_loss, spoken
from vlmkit.outputs import output
from vlmkit.packing import (
    Boundaries,
    by_boundaries,
    in_one_row,
    labels_in_one_row,
    refuse_states,
    takes_masks,
    variable_length,
    varies,
    weights_in_one_row,
)


@dataclass
class VLMOutput(CausalLMOutputWithPast):  # type: ignore[misc]
    """As transformers' causal LM output. `visual` holds the visual tokens (T, D_lm) when images were given; `losses` what `loss` is
    the sum of, by name."""

    visual: Tensor | None = None
    losses: dict[str, Tensor] | None = None


class Speaks(PreTrainedModel):  # type: ignore[misc]
    """Part of VLM: fusion and language model are called."""

    spec: Architecture
    fusion: nn.Module
    language_model: PreTrainedModel

    def speak(
        self,
        incoming: Incoming,
        labels: Tensor | None = None,
        supervised: Tensor | None = None,
        boundaries: Boundaries | None = None,
        *,
        loss_weights: Tensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | Tensor = 0,
        num_items_in_batch: Tensor | int | None = None,
        headless: bool = False,
        **kwargs: Any,
    ) -> VLMOutput | BodyOutput:
        """The side of the language model: what meets in the fusion -> logits and losses. Reads nothing back from the device.

        supervised: the columns (K,) of `labels` that go through the LM head, and no logits are given; None: all of them. boundaries:
        (P + 1,), where the samples of packed rows begin; attention by sample needs them, or else makes masks of whole rows. On a CPU it is
        one graph with numbers, a graph for each value of theirs, and in several graphs, that stay, with a tensor.
        """
        model, rows = self.language_model, incoming.embeddings.shape[0]
        packed = incoming.segments is not None and incoming.attention_mask is None and incoming.cache is None
        if packed:
            refuse_states(model)
        held = incoming.segments >= 0 if packed and incoming.segments is not None else None
        tokens = held if incoming.attention_mask is None or incoming.attention_mask.dim() != 2 else incoming.attention_mask
        if incoming.segments is not None and (incoming.cache is not None or not takes_masks(model)):
            incoming = incoming._replace(segments=None)
        whole = supervised is not None or (isinstance(logits_to_keep, int) and logits_to_keep == 0)
        if incoming.segments is not None and varies(model):
            told = variable_length(incoming.segments, boundaries)
        elif incoming.segments is not None and boundaries is not None and packed and whole and attends_by_sample(model):
            told = {} if kwargs.get("output_attentions") else by_boundaries(incoming.segments, boundaries)
        else:
            told = {}
        if told:
            kwargs |= told
            incoming = in_one_row(incoming, maskless=not varies(model))
            if labels is not None:
                columns = torch.arange(labels.shape[1] - 1, device=labels.device) if supervised is None else supervised
                labels, columns = labels_in_one_row(labels, columns)
                supervised = None if supervised is None else columns
                loss_weights = weights_in_one_row(loss_weights)
        if labels is None and vars(model.config).get("output_router_logits"):
            # Only a loss asks for it, and over a cache transformers would count the mask of all tokens against logits of the last ones.
            kwargs.setdefault("output_router_logits", False)
        arguments = {"position_ids": incoming.position_ids} | self.fusion(incoming) | {CACHE: incoming.cache, "return_dict": True} | kwargs
        arguments["use_cache"] = False if packed or labels is not None or headless else use_cache
        with routed(model, tokens, heard=labels is not None) as mixtures:
            if headless:
                return without_head(decoder_of(model)[1](**arguments), rows)
            outputs = model(**arguments, logits_to_keep=logits_to_keep if supervised is None else supervised)
            balance = None if mixtures is None else mixtures.loss
        losses = {}
        if labels is not None:
            labels = spoken(labels, outputs.logits.shape[-1], self.spec.language_model.unspoken)
            losses["language_model"] = next_token_loss(
                outputs.logits, labels, logits_to_keep if supervised is None else supervised, num_items_in_batch, loss_weights
            )
            if (of_router := router_loss(outputs, model, held, balance)) is not None:
                losses["router"] = of_router
        logits, hidden = None if supervised is not None else outputs.logits, getattr(outputs, "hidden_states", None)
        if told and hidden is not None:
            hidden = tuple(layer.view(rows, -1, layer.shape[-1]) for layer in hidden)
        return output(
            VLMOutput,
            loss=torch.stack(list(losses.values())).sum() if losses else None,
            logits=logits.view(rows, -1, logits.shape[-1]) if logits is not None and logits.shape[0] != rows else logits,
            # Not every language model returns all of them: RecurrentGemma keeps its cache to itself.
            **{CACHE: getattr(outputs, CACHE, None)},
            hidden_states=hidden,
            attentions=getattr(outputs, "attentions", None),
            losses=losses or None,
        )
