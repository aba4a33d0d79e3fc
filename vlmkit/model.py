"""The model: towers -> connector -> fusion -> language model, as a transformers PreTrainedModel."""

from __future__ import annotations

import os
from operator import attrgetter
from typing import Any, Self

import torch
from torch import Tensor, nn
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoModelForMultimodalLM,
    GenerationMixin,
    PreTrainedModel,
)

from vlmkit.arrival import check_columns
from vlmkit.attention import attend_by_sample, attends_by_sample
from vlmkit.auto_map import Referred
from vlmkit.batch.portable import whole
from vlmkit.body import Body, BodyOutput
from vlmkit.config import VLMConfig
from vlmkit.encoders.unused import freeze_unused
from vlmkit.features import Features
from vlmkit.files import writing
from vlmkit.fusion.incoming import FusionError, Incoming
from vlmkit.fusion.masks import is_whole
from vlmkit.generation import Generates
from vlmkit.losses import supervised_columns
from vlmkit.packing import (
    boundaries_of,
    refuse_mask,
    segments_of,
)
from vlmkit.renamed import RENAMED
from vlmkit.resized import Resizes
from vlmkit.seeing import Sees
from vlmkit.speaking import Speaks, VLMOutput
from vlmkit.spec import SpecError
from vlmkit.views import take_pixels
from vlmkit.wrapped import refuse_wrapped


class VLM(Referred, Resizes, Sees, Speaks, Generates, PreTrainedModel, GenerationMixin):  # type: ignore[misc]
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
        self._remember_places()
        freeze_unused(self)

    def _remember_places(self) -> None:
        """Where to find what every step of generation asks for: transformers looks under one name after another, and walks through the
        modules, which takes longer than to embed a token."""
        words = self.language_model.get_input_embeddings()
        self._words_of = attrgetter(next(name for name, module in self.language_model.named_modules() if module is words))
        self._first_module = attrgetter(next(name for name, _ in self.named_parameters()).rpartition(".")[0])

    def undivided(self) -> list[str]:
        """Classes of modules that `device_map="auto"` lays on one device each: what adds to its own input has to find both there. Of the
        language model transformers knows them."""
        from transformers.modeling_layers import GradientCheckpointingLayer  # which imports this file, where it is loaded first

        layers = [module for module in self.fusion.modules() if isinstance(module, GradientCheckpointingLayer)]
        return sorted({type(module).__name__ for module in (*self.towers, self.connector, *layers)})

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
        try:
            # Not by its name: under ZeRO-3 that would fetch the weight from all processes.
            weights = self._first_module(self)._parameters.values()
            found: torch.device = next(weight.device for weight in weights if weight is not None)
        except (AttributeError, StopIteration):  # parts were wrapped
            found = super().device
        if found.type != "meta":
            return found
        brought = getattr(getattr(self, "_hf_hook", None), "execution_device", None)
        return found if brought is None else torch.device(brought)

    def get_input_embeddings(self) -> nn.Module:
        try:
            found: nn.Module = self._words_of(self.language_model)
        except AttributeError:  # another language model was put in its place
            found = self.language_model.get_input_embeddings()
        return found

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.language_model.set_input_embeddings(value)

    def get_output_embeddings(self) -> nn.Module:
        return self.language_model.get_output_embeddings()  # type: ignore[no-any-return]

    def set_output_embeddings(self, new_embeddings: nn.Module) -> None:
        self.language_model.set_output_embeddings(new_embeddings)

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
        loss_weights: Tensor | None = None,
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
        vocabulary all of them would be most of the memory. `loss_weights` (B, S): what each token counts in the loss as a target; it is
        divided by their sum. `visual`: visual tokens in place of pixels, as `get_image_features` gives them;
        `grids` and `places` stay. `attention_mask` (B, S) says which tokens are there, beside segments and a prefix; (B, 1, S, S) says
        alone what each token sees. Packed samples (`segments`, or positions that start again) take no attention mask, and no cache is kept.
        `cache` and `past_key_values` are two names of one thing: transformers renamed it.
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
            given |= {"loss_weights": loss_weights}
            read: VLMOutput | BodyOutput | tuple[Any, ...] = VLM.forward(self, **whole(given | kwargs, self.spec))
            return read
        cache = past_key_values if cache is None else cache
        cached = cache is not None and cache.get_seq_length() > 0
        made_here = segments is not None
        if inputs_embeds is not None:
            check_columns(inputs_embeds, visual_index=visual_index, visible=visible, learned_index=learned_index)
        if boundaries is not None and (made_here or cached):
            refuse_mask(attention_mask, cache)
        if is_whole(attention_mask):
            segments = None
        elif not made_here and not cached:
            segments = segments_of(position_ids, attention_mask, cache is not None)
        elif segments is not None and attention_mask is not None and not cached:
            segments = segments.masked_fill(attention_mask[:, -segments.shape[1] :] == 0, -1)
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
        alone = attention_mask is None and cache is None  # beside either, nothing asks where samples begin
        if boundaries is None and segments is not None and alone and attends_by_sample(self.language_model):
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
            loss_weights=loss_weights,
            **kwargs,
        )
        if features is not None and (pixel_values is not None or visual is not None):
            output.visual = features.tokens
        return output if return_dict is not False else output.to_tuple()

    def save_pretrained(self, save_directory: Any, max_shard_size: int | str = "5GB", **kwargs: Any) -> None:
        """As transformers, in shards of 5 GB. Raises NotADirectoryError where a file has the name, SpecError where adapters are not
        merged."""
        refuse_wrapped(self)
        if os.path.isfile(save_directory):
            raise NotADirectoryError(f"{save_directory} is a file; name a directory to save to")
        with writing(save_directory):
            super().save_pretrained(save_directory, max_shard_size=max_shard_size, **kwargs)


for auto_class in (AutoModel, AutoModelForCausalLM, AutoModelForImageTextToText, AutoModelForMultimodalLM):
    auto_class.register(VLMConfig, VLM)
