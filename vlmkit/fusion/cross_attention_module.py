"""The module of `cross_attention`: the layers, the hooks that run them, and what generation keeps beside the cache."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from vlmkit.cache_name import CACHE
from vlmkit.features import Features
from vlmkit.fusion.cross_attention import CrossAttention
from vlmkit.fusion.cross_layer import CrossLayer, Form, KeysValues
from vlmkit.fusion.incoming import FusionError, Incoming
from vlmkit.fusion.masks import causal_masks
from vlmkit.fusion.module import FusionModule
from vlmkit.fusion.sight import Owners, Sight, mask_of, owners_of, sample_sees, sees
from vlmkit.spec import SpecError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from vlmkit.layout.base import TokenLayout


def build(spec: CrossAttention, language_model: PreTrainedModel, layout: TokenLayout) -> FusionModule:
    return CrossAttentionModule(spec, language_model, layout)


def form_over(spec: CrossAttention, config: Any) -> Form:
    """The layers of a spec over a language model's config. Raises SpecError where heads do not share keys and values evenly."""
    dim = config.hidden_size
    heads = spec.heads or config.num_attention_heads
    kv_heads = spec.kv_heads or getattr(config, "num_key_value_heads", None) or heads
    if heads % kv_heads:
        raise SpecError(f"cross_attention.kv_heads: {heads} heads do not share {kv_heads} heads of keys and values evenly")
    return Form(
        dim=dim,
        visual=spec.dim_visual(dim),
        heads=heads,
        kv_heads=kv_heads,
        head_dim=spec.head_dim or getattr(config, "head_dim", None) or dim // heads,
        hidden=spec.hidden or config.intermediate_size,
        eps=spec.norm_eps or float(getattr(config, "rms_norm_eps", 1e-6)),
        activation=spec.activation,
        qk_norm=spec.qk_norm,
        gate_size=dim if spec.gate == "vector" else 1,
        gate_start=spec.gate_start,
        gate_spread=spec.gate_spread,
    )


class CrossAttentionModule(FusionModule):
    def __init__(self, spec: CrossAttention, language_model: PreTrainedModel, layout: TokenLayout) -> None:
        super().__init__(language_model, layout)
        self.spec = spec
        self.config = language_model.config
        decoder = decoder_layers(language_model)
        places = spec.places(len(decoder))
        form = form_over(spec, self.config)
        self.places = places
        self.layers = nn.ModuleList(CrossLayer(form) for _ in places)
        for number, layer in enumerate(decoder):
            layer.register_forward_pre_hook(Hook(number), with_kwargs=True)

    def forward(self, incoming: Incoming) -> dict[str, Any]:
        """Raises FusionError for visual tokens beside a batch that does not say who looks at them."""
        embeddings = self.embeddings(incoming if self.spec.places_visual else incoming._replace(visual=None))
        arguments: dict[str, Any] = {"inputs_embeds": embeddings, "attention_mask": causal_masks(self.config, embeddings, incoming)}
        sight = self.sight(incoming)
        return arguments if sight is None else arguments | {SIGHT: sight}

    def remembers(self, cache: Any) -> bool:
        return memory_of(cache) is not None

    def sight(self, incoming: Incoming) -> Sight | None:
        """What the layers are given; None where none of them has anything to do."""
        visual, visible, memory = incoming.visual, incoming.visible, memory_of(incoming.cache)
        if visible is None:
            if visual is not None and incoming.views:
                raise FusionError(f"fusion {self.spec.kind!r} needs visible, what each token may look at: pass the processor's whole batch")
            visible = torch.zeros(*incoming.embeddings.shape[:2], 2, dtype=torch.long, device=incoming.embeddings.device)
        tokens, owners = None, None if memory is None else memory.owners
        if visual is not None and len(visual.tokens):
            tokens, owners = self.seen_by_words(incoming, visual)
        elif memory is None and self.spec.feeds == "seeing":
            return None
        looks = sees(visible)
        return Sight(
            tokens,
            mask=None if owners is None else mask_of(visible, owners),
            attends=looks if self.spec.looks_at_none == "nothing" else sample_sees(visible),
            feeds=looks if self.spec.feeds == "seeing" else torch.ones_like(looks),
            owners=owners,
            standing=Standing(dict(zip(self.places, self.layers, strict=True))),
        )

    def seen_by_words(self, incoming: Incoming, visual: Features) -> tuple[Tensor, Owners]:
        """What can be looked at (T, D), and of which picture each of it is."""
        tokens, owners = visual.tokens, owners_of(visual.grids, incoming.views, visual.tokens.device)
        if self.spec.looks_at_none == "nothing":
            return tokens[: owners.referred], owners._replace(tokens=owners.tokens[: owners.referred])
        return tokens, owners


SIGHT = "sight"
"""The argument of the language model's forward, and of its layers, that the hooks look for."""


class Standing:
    """The layers, by the number of the decoder's layer that they stand before.

    They come with each forward, from the fusion that was called: a copy of a model, and an adapter that trains a copy of the fusion, run
    their own. In an object, for whoever moves arguments to a device moves modules among them as well.
    """

    def __init__(self, layers: dict[int, nn.Module]) -> None:
        self.layers = layers


class Hook:
    """Stands before one of the decoder's layers, and runs the layer that stands there, if any."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __call__(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        sight = kwargs.pop(SIGHT, None)
        layer = None if sight is None else sight.standing.layers.get(self.number)
        if layer is None:
            return args, kwargs
        hidden = args[0] if args else kwargs["hidden_states"]
        cache = kwargs.get(CACHE)
        memory = memory_of(cache)
        hidden, kept = layer(hidden, sight, None if memory is None else memory.kept.get(self.number))
        if cache is not None and sight.tokens is not None:
            remember(cache, self.number, kept, sight.owners)
        return ((hidden, *args[1:]), kwargs) if args else (args, kwargs | {"hidden_states": hidden})


@dataclass
class Memory:
    """What a cache keeps of the visual tokens that its prompt looked at. It is there once for all rows, so beams that change places leave
    it alone."""

    owners: Owners
    kept: dict[int, KeysValues]
    """Keys and values, by the layer of the language model that they are read before."""


_MEMORY = "looked_at"
"""The name under which it hangs on transformers' cache."""


def memory_of(cache: Any) -> Memory | None:
    found: Memory | None = getattr(cache, _MEMORY, None)
    return found


def remember(cache: Any, number: int, kept: KeysValues, owners: Owners) -> None:
    """Keep the keys and values of a layer with the cache, in place of those of other visual tokens."""
    memory = memory_of(cache)
    if memory is None or memory.owners.tokens is not owners.tokens:
        memory = Memory(owners, {})
        setattr(cache, _MEMORY, memory)
    memory.kept[number] = kept


def decoder_layers(language_model: PreTrainedModel) -> nn.ModuleList:
    """The layers of a decoder, one after the other. Raises SpecError for one that hands them no further arguments."""
    name, count = language_model.config.model_type, language_model.config.num_hidden_layers
    stacks = [path for path, module in language_model.named_modules() if isinstance(module, nn.ModuleList) and len(module) == count]
    if not stacks:
        raise SpecError(f"language model {name!r} has no stack of its {count} layers, before which cross-attention could stand")
    path = min(stacks, key=lambda path: path.count("."))
    layers = language_model.get_submodule(path)
    assert isinstance(layers, nn.ModuleList)
    for module in (language_model, language_model.get_submodule(path.rpartition(".")[0]), *layers):
        if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in inspect.signature(module.forward).parameters.values()):
            raise SpecError(
                f"language model {name!r} hands no further arguments to its layers ({type(module).__name__}.forward takes no **kwargs), so "
                "fusion 'cross_attention' cannot reach them; choose a language model that does, such as 'llama'"
            )
    return layers
