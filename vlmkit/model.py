"""The model: encoder -> connector -> fusion -> language model, as a transformers PreTrainedModel."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import AutoModelForImageTextToText, GenerationMixin, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutputWithPast

from vlmkit.cache_name import CACHE
from vlmkit.config import VLMConfig
from vlmkit.features import Features, Grid
from vlmkit.fusion.base import FusionError, Incoming
from vlmkit.layout.laid_out import IGNORE

if TYPE_CHECKING:
    from vlmkit.processor import VLMProcessor


@dataclass
class VLMOutput(CausalLMOutputWithPast):  # type: ignore[misc]
    """As transformers' causal LM output. `visual` holds the visual tokens (T, D_lm) when images were given."""

    visual: Tensor | None = None


class VLM(PreTrainedModel, GenerationMixin):  # type: ignore[misc]
    """A vision-language model assembled from the six parts of its architecture.

    Batch: `input_ids` (B, S), `attention_mask` (B, S), `position_ids` (B, S), `labels` (B, S), `pixel_values` (N, 3*p*p)
    uint8 (or floating: already normalised), `grids` (V, 3), `visual_index` (B, S): the row of the visual token that stands
    there, -1 for text, -2 - k for the layout's learned embedding number k. Several rows may refer to the
    same visual tokens: images are encoded once.
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
        parts = config.spec.validate()
        self.encoder = parts.encoder.build()
        self.connector = parts.connector.build(parts.encoder.dim_out, parts.language_model.dim)
        self.language_model = parts.language_model.build(config.text_config)
        self.fusion = parts.fusion.build(self.language_model, parts.layout)
        dim = parts.language_model.dim
        self.learned = nn.ParameterDict({name: nn.Parameter(torch.randn(dim) * dim**-0.5) for name in parts.layout.learned})
        self._parts_are_fresh = True
        self.post_init()
        self._parts_are_fresh = False

    def _init_weights(self, module: nn.Module) -> None:
        # Encoder and connector come with their libraries' own initialisation; transformers initialises its own models.
        # Only a module that a checkpoint left empty has to be drawn here.
        reset = getattr(module, "reset_parameters", None)
        if not self._parts_are_fresh and callable(reset):
            reset()

    def get_input_embeddings(self) -> nn.Module:
        return self.language_model.get_input_embeddings()  # type: ignore[no-any-return]

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.language_model.set_input_embeddings(value)

    def get_output_embeddings(self) -> nn.Module:
        return self.language_model.get_output_embeddings()  # type: ignore[no-any-return]

    def set_output_embeddings(self, new_embeddings: nn.Module) -> None:
        self.language_model.set_output_embeddings(new_embeddings)

    def get_image_features(self, pixel_values: Tensor, grids: Tensor) -> Features:
        """Patches (N, 3*p*p) and grids (V, 3) -> visual tokens (T, D_lm) with the grid of each view."""
        seen: Features = self.encoder(pixel_values, grids)
        if next(self.encoder.parameters(), None) is None:  # float32, where there are no weights to follow
            seen = seen._replace(tokens=seen.tokens.to(self.dtype))
        features: Features = self.connector(seen)
        return features

    def _with_learned(self, visual: Features, visual_index: Tensor) -> tuple[Features, Tensor]:
        """Learned embeddings as rows behind the visual tokens: -2 - k in `visual_index` becomes the row of number k."""
        if not self.learned:
            return visual, visual_index
        total = visual.tokens.shape[0]
        rows = torch.stack(list(self.learned.values())).to(visual.tokens.dtype)
        grids = (*visual.grids, *(Grid(1, 1, 1) for _ in self.learned))
        return Features(torch.cat([visual.tokens, rows]), grids), torch.where(visual_index < -1, total - 2 - visual_index, visual_index)

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Any = None,
        inputs_embeds: Tensor | None = None,
        pixel_values: Tensor | None = None,
        grids: Tensor | None = None,
        visual_index: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        cache: Any = None,
        logits_to_keep: int | Tensor = 0,
        num_items_in_batch: Tensor | int | None = None,
        return_dict: bool | None = None,
        **kwargs: Any,
    ) -> VLMOutput | tuple[Any, ...]:
        """Logits (B, S, vocabulary), and the loss where labels are given.

        With labels in training mode only positions that some row supervises go through the LM head, and `logits` is None:
        at a 100k vocabulary all of them would be most of the memory. Rows whose positions start again are packed samples:
        pass them without an attention mask, and no cache is kept. `cache` and `past_key_values` are two names of one
        thing: transformers renamed it. Raises FusionError where images and places do not fit.
        """
        cache = past_key_values if cache is None else cache
        packed = is_packed(position_ids, attention_mask, cache)
        rows = 1
        if packed and carries_state(self.language_model):
            raise FusionError(
                f"language model {self.language_model.config.model_type!r} carries a state through a row, also from one packed sample "
                "to the next; leave packing out: pad each sample to the longest"
            )
        if packed and position_ids is not None and self._packs_one_row_only():
            rows = len(position_ids)
            if labels is not None:
                labels = labels.index_fill(1, torch.tensor([0], device=labels.device), IGNORE)
            input_ids, inputs_embeds, position_ids, visual_index, token_type_ids, labels = (
                in_one_row(value) for value in (input_ids, inputs_embeds, position_ids, visual_index, token_type_ids, labels)
            )
        if inputs_embeds is None:
            inputs_embeds = self.get_input_embeddings()(input_ids)
        visual = None
        if pixel_values is not None:
            if grids is None or visual_index is None:
                raise FusionError("pixel_values need grids and visual_index beside them: pass the processor's whole batch")
            visual, visual_index = self._with_learned(self.get_image_features(pixel_values, grids), visual_index)
        elif visual_index is not None and bool((visual_index != -1).any()):
            raise FusionError("visual_index refers to images, but the batch has no pixel_values")
        incoming = Incoming(inputs_embeds, visual, visual_index, attention_mask, position_ids, cache, token_type_ids)
        arguments = {"position_ids": position_ids} | self.fusion(incoming)
        if packed or labels is not None:
            use_cache = False
        if labels is not None and self.training:
            logits_to_keep = (labels[:, 1:] != IGNORE).any(dim=0).nonzero().squeeze(1)
        outputs = self.language_model(
            **arguments,
            **{CACHE: cache},
            use_cache=use_cache,
            logits_to_keep=logits_to_keep,
            return_dict=True,
            **kwargs,
        )
        loss = None if labels is None else next_token_loss(outputs.logits, labels, logits_to_keep, num_items_in_batch)
        logits = None if labels is not None and self.training else outputs.logits
        output = VLMOutput(
            loss=loss,
            logits=logits.unflatten(1, (rows, -1))[0] if logits is not None and rows > 1 else logits,
            # Not every language model returns all of them: RecurrentGemma keeps its cache to itself.
            **{CACHE: getattr(outputs, CACHE, None)},
            hidden_states=getattr(outputs, "hidden_states", None),
            attentions=getattr(outputs, "attentions", None),
            visual=None if visual is None else visual.tokens,
        )
        return output if return_dict is not False else output.to_tuple()

    def _packs_one_row_only(self) -> bool:
        """Whether samples of a row are kept apart only where it is the batch's only one: so transformers calls flash attention."""
        return "flash" in str(self.language_model.config._attn_implementation)

    def prepare_inputs_for_generation(
        self,
        input_ids: Tensor,
        *args: Any,
        visual_index: Tensor | None = None,
        pixel_values: Tensor | None = None,
        grids: Tensor | None = None,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """Images go in with the tokens that refer to them: at the prompt, and again only where nothing is cached. What was
        generated is behind the prefix."""
        inputs: dict[str, Any] = super().prepare_inputs_for_generation(input_ids, *args, **kwargs)
        if visual_index is None:
            return inputs
        given = inputs["input_ids"] if inputs.get("input_ids") is not None else inputs["inputs_embeds"]
        begin = input_ids.shape[1] - given.shape[1]
        if (types := inputs.get("token_type_ids")) is not None:
            generated = torch.arange(begin, input_ids.shape[1], device=types.device) >= visual_index.shape[1]
            inputs["token_type_ids"] = types.masked_fill(generated, 1)
        if pixel_values is None:
            return inputs
        places = functional.pad(visual_index, (0, max(0, input_ids.shape[1] - visual_index.shape[1])), value=-1)[:, begin:]
        if begin < visual_index.shape[1] and bool((places != -1).any()):
            inputs |= {"pixel_values": pixel_values, "grids": grids, "visual_index": places}
        return inputs

    @staticmethod
    def create_masks_for_generate(attention_mask: Tensor | None, **unused: Any) -> Tensor | None:
        """Masks are made where they are known: by the fusion, or by the language model. Prepared ones would be causal."""
        return attention_mask

    def _expand_inputs_for_generation(
        self, expand_size: int = 1, is_encoder_decoder: bool = False, input_ids: Tensor | None = None, **model_kwargs: Any
    ) -> tuple[Tensor, dict[str, Any]]:
        """Beams and several answers share an image: only what has a row a sample is repeated."""
        shared = {name: model_kwargs.pop(name) for name in ("pixel_values", "grids") if name in model_kwargs}
        ids, expanded = super()._expand_inputs_for_generation(expand_size, is_encoder_decoder, input_ids, **model_kwargs)
        return ids, expanded | shared

    @torch.no_grad()
    def chat(self, processor: VLMProcessor, image: Any, question: str, **generate: Any) -> str:
        """One question about one image (or about none), one answer. `generate` takes transformers' arguments, among them
        `max_new_tokens`, `do_sample`, `temperature` and `streamer`."""
        content = [] if image is None else [{"type": "image", "image": image}]
        conversation = [{"role": "user", "content": [*content, {"type": "text", "text": question}]}]
        batch = processor([conversation], add_generation_prompt=True).to(self.device)
        stops = {*processor.stop_token_ids, *_ids(self.generation_config.eos_token_id)}
        ids = self.generate(**batch, **({"max_new_tokens": 256, "do_sample": False, "eos_token_id": sorted(stops)} | generate))
        answer = [token for token in ids[0, batch["input_ids"].shape[1] :].tolist() if token not in stops]
        text: str = processor.decode(answer, skip_special_tokens=True)
        return text.strip()

    def save_pretrained(self, save_directory: Any, max_shard_size: int | str = "5GB", **kwargs: Any) -> None:
        """As transformers, in shards of 5 GB. Raises NotADirectoryError where a file has the name."""
        if os.path.isfile(save_directory):
            raise NotADirectoryError(f"{save_directory} is a file; name a directory to save to")
        super().save_pretrained(save_directory, max_shard_size=max_shard_size, **kwargs)


def in_one_row(value: Tensor | None) -> Tensor | None:
    """(B, S, ...) -> (1, B * S, ...): packed rows one after the other, which is one packed row."""
    return None if value is None else value.flatten(0, 1)[None]


def is_packed(position_ids: Tensor | None, attention_mask: Tensor | None, cache: Any) -> bool:
    """Whether positions start again within a row: several samples in one row.

    Raises FusionError where such a row comes with an attention mask or for generation: then language models do not look
    at positions, and samples would see each other.
    """
    if position_ids is None or position_ids.dim() != 2 or position_ids.shape[1] < 2:
        return False
    restarts = position_ids[:, 1:] <= position_ids[:, :-1]
    if attention_mask is not None and attention_mask.dim() == 2:
        seen = attention_mask[:, -position_ids.shape[1] :].bool()
        restarts = restarts & seen[:, 1:] & seen[:, :-1]
    if not bool(restarts.any()):
        return False
    if attention_mask is not None or cache is not None:
        raise FusionError("packed samples (positions start again within a row) take neither attention_mask nor a cache; leave both out")
    return True


STATES = {"conv", "hybrid", "hybrid_sliding", "linear_attention"}
"""transformers' types of layers that see what was before by a state, whatever the positions."""


def carries_state(language_model: PreTrainedModel) -> bool:
    return language_model._is_stateful or not STATES.isdisjoint(getattr(language_model.config, "layer_types", None) or ())


def _ids(token: int | list[int] | None) -> list[int]:
    return token if isinstance(token, list) else [] if token is None else [token]


def next_token_loss(logits: Tensor, labels: Tensor, kept: int | Tensor, items: Tensor | int | None) -> Tensor:
    """Mean cross-entropy of the next token over supervised positions; over `items` where the caller counts them.

    logits: (B, S, vocabulary), or (B, K, vocabulary) of the K positions in `kept`. labels: (B, S).
    """
    targets = labels[:, 1:]
    if isinstance(kept, Tensor):
        targets = targets[:, kept]
    else:
        logits = logits[:, :-1]
    supervised = targets != IGNORE
    total = functional.cross_entropy(logits[supervised].float(), targets[supervised].to(logits.device), reduction="sum")
    return total / (items if items is not None else supervised.sum().clamp(min=1).to(logits.device))


AutoModelForImageTextToText.register(VLMConfig, VLM)
