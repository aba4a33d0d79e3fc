"""What generation hands from step to step: images with the tokens that refer to them, positions that go on, what a fusion keeps."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional
from transformers import GenerationMixin, ProcessorMixin

from vlmkit.batch.portable import CODES, whole
from vlmkit.cache_name import CACHE
from vlmkit.finite import refuse_numberless, where
from vlmkit.fusion.incoming import FusionError
from vlmkit.layout.laid_out import LayoutError
from vlmkit.views import BESIDE_VISUAL, is_pixels, take_pixels

if TYPE_CHECKING:
    from vlmkit.about import About
    from vlmkit.conversation import Message


THREE = 3
"""Axes of `position_ids` of time, row and column: (3, B, S)."""


class Generates(GenerationMixin):  # type: ignore[misc]
    """Generation about images that are encoded once."""

    def generate(self, *args: Any, **kwargs: Any) -> Any:
        """As transformers, for batches of both forms (vlmkit.batch.portable). Raises FloatingPointError that says where, for logits
        that are no numbers."""
        asked = whole(kwargs, self.spec) if kwargs.get(CODES) is not None else kwargs
        try:
            return super().generate(*args, **asked)
        except FloatingPointError as error:
            takes = inspect.signature(self.forward).parameters
            batch = {name: value for name, value in asked.items() if name in takes or is_pixels(name)}
            raise FloatingPointError(f"{error}: {where(self, batch)}") from None

    def chat(self, processor: ProcessorMixin, image: Any, question: str, **generate: Any) -> str:
        """One question about one image (or about none), one answer. `generate` takes transformers' arguments, among them
        `max_new_tokens`, `do_sample`, `temperature` and `streamer`."""
        content = [] if image is None else [{"type": "image", "image": image}]
        conversation = [{"role": "user", "content": [*content, {"type": "text", "text": question}]}]
        batch = processor([conversation], add_generation_prompt=True).to(self.device)
        return self.answers(processor, batch, **generate)[0]

    def about(self, processor: ProcessorMixin, image: Any = None, *, before: Sequence[Message] = ()) -> About:
        """For several questions about one image, or a list of images, or none: these are encoded once, and what stands before a question
        is computed once. `before`: messages that every question follows, such as a system message."""
        from vlmkit.about import About

        images = [] if image is None else list(image) if isinstance(image, list | tuple) else [image]
        return About(self, processor, images, before)

    def stop_ids(self, processor: ProcessorMixin) -> list[int]:
        """Ids of tokens that end an answer: the processor's end of a turn, and those of the generation config."""
        return sorted({*processor.stop_token_ids, *token_ids(self.generation_config.eos_token_id)})

    def answers(self, processor: ProcessorMixin, batch: Mapping[str, Any], **generate: Any) -> list[str]:
        """The words generated behind each row of a batch whose rows end where an answer begins: greedy and of 256 tokens at most, unless
        `generate`, transformers' arguments, says otherwise."""
        batch = whole(dict(batch), self.spec) if batch.get(CODES) is not None else batch
        refuse_long(self.language_model.config, batch["input_ids"].shape[1], batch.get("position_ids"))
        stops = self.stop_ids(processor)
        ids = self.generate(**batch, **({"max_new_tokens": 256, "do_sample": False, "eos_token_id": stops} | generate))
        ids = ids if isinstance(ids, Tensor) else ids.sequences
        rows = ids[:, batch["input_ids"].shape[1] :].tolist()
        said = [[token for token in row if token not in stops] for row in rows]
        return [str(processor.decode(row, skip_special_tokens=True)).strip() for row in said]

    def prepare_inputs_for_generation(
        self,
        input_ids: Tensor,
        *args: Any,
        visual_index: Tensor | None = None,
        learned_index: Tensor | None = None,
        visible: Tensor | None = None,
        segments: Tensor | None = None,
        boundaries: Tensor | None = None,
        visual: Any = None,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """Images go in with the tokens that refer to them: at the prompt, and again only where nothing is cached. What was
        generated is behind the prefix. A fusion that looks at visual tokens at every step gets them at every step."""
        pixels = take_pixels(kwargs)
        inputs: dict[str, Any] = super().prepare_inputs_for_generation(input_ids, *args, **kwargs)
        length = input_ids.shape[1]
        given = inputs["input_ids"] if inputs.get("input_ids") is not None else inputs["inputs_embeds"]
        begin = length - given.shape[1]
        if boundaries is not None:
            raise FusionError("packed samples are of no use in generation: each row is one prompt; leave pack=True out")
        if visual_index is None:
            return inputs
        prompt = visual_index.shape[1]
        if (types := inputs.get("token_type_ids")) is not None:
            generated = torch.arange(begin, length, device=types.device) >= prompt
            inputs["token_type_ids"] = types.masked_fill(generated, 1)
        if learned_index is not None:
            inputs["learned_index"] = extended(learned_index, length, -1)[:, begin:]
        if segments is not None and begin < prompt:  # behind the prompt a row is one sample
            inputs["segments"] = extended(segments, length, 0)[:, begin:]
        places = extended(visual_index, length, -1)[:, begin:] if begin < prompt else None
        refers = places is not None and bool((places != -1).any())
        if visible is not None:
            whole = continued(visible, length)
            inputs["visible"] = whole[:, begin:]
            kept = begin > 0 and self.fusion.remembers(inputs.get(CACHE))
            looks = looks_further(whole, begin) if kept else bool((inputs["visible"].diff(dim=-1) != 0).any())
            refers = refers or (begin < prompt and looks)
        if visual is not None and begin and self.fusion.keeps_visual:
            inputs["visual"] = visual
        elif refers and visual is not None:  # in place of pixels, by a caller who has encoded them already
            inputs |= {name: pixels[name] for name in BESIDE_VISUAL if name in pixels}
            inputs |= {"visual": visual, "visual_index": places}
        elif refers and pixels.get("pixel_values") is not None:
            inputs |= pixels | {"visual_index": places}
        return inputs

    def _get_candidate_generator(self, *args: Any, model_kwargs: dict[str, Any], assistant_model: Any = None, **kwargs: Any) -> Any:
        """An assistant that sees images is given what this model is given; one of words alone only what it takes, and it guesses from the
        words."""
        if assistant_model is not None and not hasattr(assistant_model, "get_image_features"):
            takes = inspect.signature(assistant_model.forward).parameters
            model_kwargs = {name: value for name, value in model_kwargs.items() if name in takes}
            if (positions := model_kwargs.get("position_ids")) is not None and positions.dim() == THREE:
                del model_kwargs["position_ids"]
        return super()._get_candidate_generator(*args, model_kwargs=model_kwargs, assistant_model=assistant_model, **kwargs)

    def _validate_model_kwargs(self, model_kwargs: dict[str, Any]) -> None:
        """Pixels of further towers have names that no signature lists."""
        super()._validate_model_kwargs({name: value for name, value in model_kwargs.items() if not is_pixels(name)})

    def _update_model_kwargs_for_generation(
        self, outputs: Any, model_kwargs: dict[str, Any], is_encoder_decoder: bool = False, num_new_tokens: int = 1
    ) -> dict[str, Any]:
        """Visual tokens of the prompt are kept for a fusion that looks at them again. Of three positions all go on behind the largest,
        which need not be the last token's. Logits are looked at here, once a step: transformers asks a processor of them for its signature
        at every step, which takes longer."""
        refuse_numberless(outputs.logits)
        positions: Tensor | None = model_kwargs.get("position_ids")
        if positions is not None and positions.dim() == THREE:
            del model_kwargs["position_ids"]
        else:
            positions = None
        updated: dict[str, Any] = super()._update_model_kwargs_for_generation(
            outputs, model_kwargs, is_encoder_decoder=is_encoder_decoder, num_new_tokens=num_new_tokens
        )
        if positions is not None:
            updated["position_ids"] = gone_on(positions, num_new_tokens)
        if outputs.visual is not None and self.fusion.keeps_visual:
            updated["visual"] = outputs.visual
        return updated

    @staticmethod
    def create_masks_for_generate(attention_mask: Tensor | None, **unused: Any) -> Tensor | None:
        """Masks are made where they are known: by the fusion, or by the language model. Prepared ones would be causal."""
        return attention_mask

    def _expand_inputs_for_generation(
        self, expand_size: int = 1, is_encoder_decoder: bool = False, input_ids: Tensor | None = None, **model_kwargs: Any
    ) -> tuple[Tensor, dict[str, Any]]:
        """Beams and several answers share an image: only what has a row a sample is repeated."""
        shared = {name: model_kwargs.pop(name) for name in list(model_kwargs) if is_pixels(name) or name == "visual"}
        positions = model_kwargs.get("position_ids")
        if positions is not None and positions.dim() == THREE:  # (3, B, S)
            shared["position_ids"] = model_kwargs.pop("position_ids").repeat_interleave(expand_size, dim=1)
        begun = model_kwargs.get(CACHE)
        if expand_size > 1 and begun is not None and begun.get_seq_length() > 0:
            begun.batch_repeat_interleave(expand_size)
        ids, expanded = super()._expand_inputs_for_generation(expand_size, is_encoder_decoder, input_ids, **model_kwargs)
        return ids, expanded | shared


def refuse_long(config: Any, length: int, positions: Tensor | None) -> None:
    """Raise LayoutError for a prompt of `length` tokens that takes more positions than the language model has. By time, row and column
    (3, B, S) it takes fewer than it has tokens."""
    most = getattr(config, "max_position_embeddings", None)
    if most is None or length <= most:
        return
    taken = length if positions is None or positions.dim() != THREE else int(positions.max()) + 1
    if taken > most:
        at = "" if taken == length else f" at {taken:,} positions"
        raise LayoutError(f"the prompt has {length:,} tokens{at}, more than the {most:,} positions of the language model; shorten it")


def extended(index: Tensor, length: int, value: int) -> Tensor:
    """(B, prompt) -> (B, length) for what was generated behind the prompt."""
    return functional.pad(index, (0, max(0, length - index.shape[1])), value=value)


def continued(visible: Tensor, length: int) -> Tensor:
    """(B, prompt, 2) -> (B, length, 2): what was generated looks at what the prompt's last token looked at."""
    more = max(0, length - visible.shape[1])
    return torch.cat([visible, visible[:, -1:].expand(-1, more, -1)], dim=1)


def gone_on(positions: Tensor, new: int) -> Tensor:
    """(3, B, S) -> (3, B, S + new): each row goes on, on all three axes, behind the largest that it has."""
    following = positions.amax(dim=(0, 2))[None, :, None] + 1
    if new > 1:
        following = following + torch.arange(new, device=positions.device)
    return torch.cat([positions, following.expand(THREE, -1, -1)], dim=-1)


def looks_further(visible: Tensor, begin: int) -> bool:
    """Whether in any row of visible (B, S, 2) a token from `begin` on looks at visual tokens behind those that tokens before it look at."""
    ends = torch.where(visible[..., 1] > visible[..., 0], visible[..., 1], 0)
    return bool((ends[:, begin:].amax(dim=1) > ends[:, :begin].amax(dim=1)).any())


def token_ids(token: int | list[int] | None) -> list[int]:
    """What a generation config says of a kind of tokens, as a list."""
    return token if isinstance(token, list) else [] if token is None else [token]
