"""The model: towers -> connector -> fusion -> language model, as a transformers PreTrainedModel."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor, nn
from transformers import AutoModelForImageTextToText, GenerationMixin, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutputWithPast

from vlmkit.arrival import check_places
from vlmkit.attention import attend_by_sample, attends_by_sample
from vlmkit.auto_map import Referred
from vlmkit.batch.portable import whole
from vlmkit.body import Body, BodyOutput
from vlmkit.cache_name import CACHE
from vlmkit.causal_head import decoder_of
from vlmkit.config import VLMConfig
from vlmkit.encoders.unused import freeze_unused
from vlmkit.experts_module import routed
from vlmkit.features import Features, View
from vlmkit.fusion.incoming import FusionError, Incoming
from vlmkit.generation import Generates
from vlmkit.losses import next_token_loss, router_loss, supervised_columns
from vlmkit.packing import (
    Boundaries,
    boundaries_of,
    by_boundaries,
    in_one_row,
    labels_in_one_row,
    refuse_mask,
    refuse_states,
    segments_of,
    takes_masks,
    variable_length,
    varies,
)
from vlmkit.renamed import RENAMED
from vlmkit.resized import Resizes
from vlmkit.sharding import is_sharded
from vlmkit.spec import SpecError
from vlmkit.views import take_pixels, views_of
from vlmkit.wrapped import refuse_wrapped

Views = tuple[View, ...]


@dataclass
class VLMOutput(CausalLMOutputWithPast):  # type: ignore[misc]
    """As transformers' causal LM output. `visual` holds the visual tokens (T, D_lm) when images were given; `losses` what `loss` is
    the sum of, by name."""

    visual: Tensor | None = None
    losses: dict[str, Tensor] | None = None


class VLM(Referred, Resizes, Generates, PreTrainedModel, GenerationMixin):  # type: ignore[misc]
    """A vision-language model assembled from the parts of its architecture.

    The batch states everything, and forward looks for nothing (docs/architecture.md has it as a table): `input_ids`,
    `attention_mask`, `position_ids`, `labels`, `segments` (B, S); `pixel_values` (N, 3*t*p*p) uint8 (or floating: already normalised) and
    `grids` (V, 3); `visual_index` (B, S): the visual token that stands there, or -1. Several rows may refer to the same visual
    tokens: images are encoded once.
    """

    config_class = VLMConfig
    base_model_prefix = ""
    main_input_name = "input_ids"
    input_modalities = ("image", "text")
    supports_gradient_checkpointing = True
    _supports_flash_attn = True
    _supports_sdpa = True
    _supports_flex_attn = True
    _supports_attention_backend = True
    _skip_keys_device_placement = ("cache", "past_key_values")

    def __init__(self, config: VLMConfig) -> None:
        super().__init__(config)
        self.spec = spec = config.spec.validate(words=False)
        self.encoder: Any = self.one_or_several([tower.encoder.build() for tower in spec.towers])
        self.connector = spec.build_connector()
        asked_for = config.text_config._attn_implementation
        self.language_model = spec.language_model.build(config.text_config)
        if asked_for is None:
            attend_by_sample(self.language_model)
        self.fusion = spec.fusion.build(self.language_model, spec.layout)
        if spec.layout.learned and getattr(self.fusion, "learned", None) is None:
            raise SpecError(
                f"layout {spec.layout.kind!r} has learned embeddings ({', '.join(spec.layout.learned)}), but fusion {spec.fusion.kind!r} "
                "owns none: derive its module from vlmkit.fusion.module.FusionModule"
            )
        self._no_split_modules = self.undivided()
        self.three_positions = spec.language_model.positions == "three"
        self._parts_are_fresh = True
        self.post_init()
        self._parts_are_fresh = False
        freeze_unused(self)

    def undivided(self) -> list[str]:
        """Classes of modules that `device_map="auto"` lays on one device each: what adds to its own input has to find both there. Of the
        language model transformers knows them."""
        from transformers.modeling_layers import GradientCheckpointingLayer  # which imports this file, where it is loaded first

        layers = [module for module in self.fusion.modules() if isinstance(module, GradientCheckpointingLayer)]
        return sorted({type(module).__name__ for module in (*self.towers, self.connector, *layers)})

    @staticmethod
    def one_or_several(towers: list[nn.Module]) -> nn.Module:
        """What `encoder` is: the tower itself where there is one, as its weights have been named since there was no other."""
        return towers[0] if len(towers) == 1 else nn.ModuleList(towers)

    @property
    def towers(self) -> tuple[nn.Module, ...]:
        return tuple(self.encoder) if isinstance(self.encoder, nn.ModuleList) else (self.encoder,)

    @classmethod
    def from_pretrained(cls, *args: Any, **kwargs: Any) -> Any:
        """As transformers. Directories of before learned embeddings were the fusion's are read as well."""
        kwargs.setdefault("key_mapping", RENAMED)
        loaded = super().from_pretrained(*args, **kwargs)
        model: Self = loaded[0] if isinstance(loaded, tuple) else loaded
        model._weight_conversions = None  # what is saved has today's names
        freeze_unused(model)
        return loaded

    def _init_weights(self, module: nn.Module) -> None:
        # Encoder and connector come with their libraries' own initialisation; transformers initialises its own models.
        # Only a module that a checkpoint left empty has to be drawn here.
        reset = getattr(module, "reset_parameters", None)
        if not self._parts_are_fresh and callable(reset):
            reset()

    @property
    def base_model(self) -> Any:
        """The model without its head: called like the model, it gives `last_hidden_state` (B, S, D_lm) and no logits."""
        return Body(self)

    @property
    def device(self) -> torch.device:
        """Where inputs belong: that of the weights, and of weights that accelerate keeps elsewhere where it brings them."""
        found: torch.device = super().device
        brought = getattr(getattr(self, "_hf_hook", None), "execution_device", None)
        return found if found.type != "meta" or brought is None else torch.device(brought)

    def get_input_embeddings(self) -> nn.Module:
        return self.language_model.get_input_embeddings()  # type: ignore[no-any-return]

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.language_model.set_input_embeddings(value)

    def get_output_embeddings(self) -> nn.Module:
        return self.language_model.get_output_embeddings()  # type: ignore[no-any-return]

    def set_output_embeddings(self, new_embeddings: nn.Module) -> None:
        self.language_model.set_output_embeddings(new_embeddings)

    def get_image_features(self, pixel_values: Tensor, grids: Tensor, places: Tensor | None = None, **further: Any) -> Features:
        """Patches (N, 3*t*p*p) and grids (V, 3) -> visual tokens (T, D_lm) with the grid of each view."""
        return self.see(*self.read_pixels({"pixel_values": pixel_values, "grids": grids, "places": places} | further))

    def read_pixels(self, batch: dict[str, Any]) -> tuple[tuple[Tensor, ...], tuple[Views, ...]]:
        """Patches and views for each tower. Whole numbers that lie on a device come back here, once."""
        patches, views = [], []
        for number in self.spec.pixel_sets:
            behind = f"_{number}" if number else ""
            pixels, grids = batch.get(f"pixel_values{behind}"), batch.get(f"grids{behind}")
            if pixels is None or grids is None:
                raise FusionError(f"pixel_values{behind} and grids{behind} come together: pass the processor's whole batch")
            patches.append(pixels)
            views.append(views_of(grids, batch.get("places")))
        return tuple(patches), tuple(views)

    def see(self, patches: tuple[Tensor, ...], views: tuple[Views, ...]) -> Features:
        """Patches (N, 3*t*p*p) and views of each tower -> visual tokens (T, D_lm)."""
        seen = [tower(pixels, of) for tower, pixels, of in zip(self.towers, patches, views, strict=True)]
        seen = [
            # A tower without weights has none to follow: its features are float32.
            one if next(tower.parameters(), None) is not None else one._replace(tokens=one.tokens.to(self.dtype))
            for one, tower in zip(seen, self.towers, strict=True)
        ]
        features: Features = self.connector(*seen)
        return features

    def see_nothing(self) -> Features:
        """What one blank view gives, for a batch without images: so each rank of a sharded model, and each process that averages
        gradients, calls the same modules whatever its batch holds. No token refers to it."""
        blank = self.spec.blank_views
        patches = tuple(torch.zeros(grid.tokens, values, dtype=torch.uint8, device=self.device) for grid, values in blank)
        return self.see(patches, tuple((View(grid),) for grid, _ in blank))

    def embed_tags(self, pixels: dict[str, Any], features: Features | None) -> tuple[Tensor, Tensor] | None:
        """Embeddings (V, L, D_lm) of the text of each view, and which of them are there (V, L). For a blank view, and for visual tokens
        of which no views are stated, one that is not there, so that each rank calls the same modules."""
        tags = pixels.get("tags")
        if features is None or (tags is None and pixels["grids"] is not None):
            return None
        device = features.tokens.device
        tags = torch.full((1, 1), -1, device=device) if tags is None else tags.to(device, non_blocking=True)
        return self.get_input_embeddings()(tags.clamp(min=0)), tags >= 0

    def look(
        self,
        pixels: dict[str, Any],
        visual_index: Tensor | None,
        visible: Tensor | None,
        kept: Features | Tensor | None,
        made_here: bool,
        cached: bool,
    ) -> tuple[Features | None, Views]:
        """The visual tokens (T, D_lm) of a batch, those that were `kept` from an earlier step, or nothing; and the views that the batch
        states. Raises FusionError."""
        if pixels["pixel_values"] is not None:
            if pixels["grids"] is None or (visual_index is None and visible is None):
                raise FusionError("pixel_values need grids and visual_index beside them: pass the processor's whole batch")
            patches, views = self.read_pixels(pixels)
            if not made_here and visual_index is not None:
                grids = self.spec.grids_out(*([view.grid for view in of] for of in views))
                check_places(grids, visual_index, whole=not self.spec.layout.partial)
            return self.see(patches, views), views[0]
        if isinstance(kept, Features):
            return kept, () if pixels["grids"] is None else views_of(pixels["grids"], pixels["places"])
        if kept is not None:
            return Features(kept, ()), ()
        if visual_index is not None and (not made_here or visual_index.device.type == "cpu") and bool((visual_index != -1).any()):
            raise FusionError("visual_index refers to images, but the batch has no pixel_values")
        return self.see_nothing() if not cached and (self.training or is_sharded(self)) else None, ()

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Any = None,
        inputs_embeds: Tensor | None = None,
        pixel_values: Tensor | None = None,
        grids: Tensor | None = None,
        places: Tensor | None = None,
        visual_index: Tensor | None = None,
        learned_index: Tensor | None = None,
        visible: Tensor | None = None,
        segments: Tensor | None = None,
        boundaries: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        labels: Tensor | None = None,
        supervised: Tensor | None = None,
        visual: Features | Tensor | None = None,
        cache: Any = None,
        return_dict: bool | None = None,
        mm_token_type_ids: Tensor | None = None,
        image_grid_thw: Tensor | None = None,
        visual_counts: Tensor | None = None,
        **kwargs: Any,
    ) -> VLMOutput | BodyOutput | tuple[Any, ...]:
        """Logits (B, S, vocabulary), and the loss where labels are given.

        With labels in training mode only columns that some row supervises go through the LM head, and `logits` is None: at a 100k
        vocabulary all of them would be most of the memory. `visual`: visual tokens in place of pixels, as `get_image_features` gives them;
        `grids` and `places` stay. Packed samples (`segments`, or positions that start again) take no attention
        mask, and no cache is kept. `cache` and `past_key_values` are two names of one thing: transformers renamed it.
        `mm_token_type_ids`, `image_grid_thw` and `visual_counts`: a batch in the portable form (vlmkit.batch.portable), which says the
        same. Raises FusionError where images and places do not fit.
        """
        if mm_token_type_ids is not None:
            given: dict[str, Any] = {
                "mm_token_type_ids": mm_token_type_ids,
                "visual_counts": visual_counts,
                "image_grid_thw": image_grid_thw,
            }
            given |= {"attention_mask": attention_mask, "pixel_values": pixel_values, "grids": grids, "places": places}
            given |= {"input_ids": input_ids, "inputs_embeds": inputs_embeds, "position_ids": position_ids}
            given |= {"past_key_values": past_key_values, "labels": labels, "cache": cache, "return_dict": return_dict}
            read: VLMOutput | BodyOutput | tuple[Any, ...] = VLM.forward(self, **whole(given | kwargs, self.spec))
            return read
        cache = past_key_values if cache is None else cache
        cached = cache is not None and cache.get_seq_length() > 0
        made_here = segments is not None
        if not made_here and not cached:
            segments = segments_of(position_ids, attention_mask, cache is not None)
        elif boundaries is not None:
            refuse_mask(attention_mask, cache)
        sees = pixel_values is not None or (visual is not None and not cached)
        if sees and self.three_positions and (position_ids is None or position_ids.dim() != 3):
            raise FusionError(
                f"language model {self.language_model.config.model_type!r} turns by time, row and column, which images alone do not say: "
                "pass position_ids (3, B, S), as the processor's whole batch has them"
            )
        pixels = {"pixel_values": pixel_values, "grids": grids, "places": places} | take_pixels(kwargs)
        features, views = self.look(pixels, visual_index, visible, visual, made_here, cached)
        if inputs_embeds is None:
            inputs_embeds = self.get_input_embeddings()(input_ids)
        tags = self.embed_tags(pixels, features) if self.spec.fusion.reads_tags else None
        if labels is None or not self.training:
            supervised = None
        elif supervised is None:
            supervised = supervised_columns(labels)
        if boundaries is None and segments is not None and attention_mask is None and attends_by_sample(self.language_model):
            boundaries = boundaries_of(segments)
        output = self.speak(
            Incoming(
                inputs_embeds,
                features,
                visual_index,
                learned_index,
                visible,
                segments,
                attention_mask,
                position_ids,
                cache,
                token_type_ids,
                views,
                tags,
            ),
            labels,
            supervised,
            boundaries,
            **kwargs,
        )
        output.visual = features.tokens if features is not None and (pixel_values is not None or visual is not None) else None
        return output if return_dict is not False else output.to_tuple()

    def speak(
        self,
        incoming: Incoming,
        labels: Tensor | None = None,
        supervised: Tensor | None = None,
        boundaries: Boundaries | None = None,
        *,
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
        model, rows = self.language_model, len(incoming.embeddings)
        packed = incoming.segments is not None and incoming.attention_mask is None and incoming.cache is None
        if packed:
            refuse_states(model)
        held = incoming.segments >= 0 if packed and incoming.segments is not None else None
        tokens = held if incoming.attention_mask is None or incoming.attention_mask.dim() != 2 else incoming.attention_mask
        if incoming.cache is not None or not takes_masks(model):
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
        if labels is None and getattr(model.config, "output_router_logits", False):
            # Only a loss asks for it, and over a cache transformers would count the mask of all tokens against logits of the last ones.
            kwargs.setdefault("output_router_logits", False)
        arguments = {"position_ids": incoming.position_ids} | self.fusion(incoming) | {CACHE: incoming.cache, "return_dict": True} | kwargs
        arguments["use_cache"] = False if packed or labels is not None or headless else use_cache
        with routed(model, tokens, heard=labels is not None) as mixtures:
            if headless:
                return self.without_head(decoder_of(model)[1](**arguments), rows)
            outputs = model(**arguments, logits_to_keep=logits_to_keep if supervised is None else supervised)
            balance = None if mixtures is None else mixtures.loss
        losses = {}
        if labels is not None:
            losses["language_model"] = next_token_loss(
                outputs.logits, labels, logits_to_keep if supervised is None else supervised, num_items_in_batch
            )
            if (of_router := router_loss(outputs, model, held, balance)) is not None:
                losses["router"] = of_router
        logits, hidden = None if supervised is not None else outputs.logits, getattr(outputs, "hidden_states", None)
        if told and hidden is not None:
            hidden = tuple(layer.view(rows, -1, layer.shape[-1]) for layer in hidden)
        return VLMOutput(
            loss=torch.stack(list(losses.values())).sum() if losses else None,
            logits=logits.view(rows, -1, logits.shape[-1]) if logits is not None and len(logits) != rows else logits,
            # Not every language model returns all of them: RecurrentGemma keeps its cache to itself.
            **{CACHE: getattr(outputs, CACHE, None)},
            hidden_states=hidden,
            attentions=getattr(outputs, "attentions", None),
            losses=losses or None,
        )

    @staticmethod
    def without_head(outputs: Any, rows: int) -> BodyOutput:
        """What the decoder gave, in so many rows."""
        hidden, layers = outputs.last_hidden_state, getattr(outputs, "hidden_states", None)
        return BodyOutput(
            last_hidden_state=hidden.view(rows, -1, hidden.shape[-1]),
            hidden_states=None if layers is None else tuple(layer.view(rows, -1, layer.shape[-1]) for layer in layers),
            attentions=getattr(outputs, "attentions", None),
            router_logits=getattr(outputs, "router_logits", None),
        )

    def save_pretrained(self, save_directory: Any, max_shard_size: int | str = "5GB", **kwargs: Any) -> None:
        """As transformers, in shards of 5 GB. Raises NotADirectoryError where a file has the name, SpecError where adapters are not
        merged."""
        refuse_wrapped(self)
        if os.path.isfile(save_directory):
            raise NotADirectoryError(f"{save_directory} is a file; name a directory to save to")
        super().save_pretrained(save_directory, max_shard_size=max_shard_size, **kwargs)


AutoModelForImageTextToText.register(VLMConfig, VLM)
