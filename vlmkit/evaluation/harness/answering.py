"""A model that answers conversations, for harnesses that have prompts and scores of their own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

import vlmkit
from vlmkit.conversation import Conversation

GENERATION = ("max_new_tokens", "temperature", "top_p", "num_beams", "do_sample")
"""What a harness may say of generation; of anything else they send it is theirs to make use."""


class Answerer:
    """A run's or a checkpoint's model, or a named model with its published weights.

    Raises what `vlmkit.load` and `vlmkit.build` raise.
    """

    def __init__(self, checkpoint: str, *, device: str | None = None, dtype: str | None = None, plugins: Sequence[str] = ()) -> None:
        for plugin in plugins:
            vlmkit.load_plugin(plugin)
        place = device or ("cuda" if torch.cuda.is_available() else "cpu")
        self.model: Any
        self.processor: Any
        if checkpoint in vlmkit.list_models():
            self.model = vlmkit.build(checkpoint, device=place, dtype=dtype or "float32", weights="pretrained")
            self.processor = vlmkit.build_processor(checkpoint)
        else:
            self.model, self.processor = vlmkit.load(checkpoint, device=place, dtype=dtype)
        self.model.eval()

    @torch.no_grad()
    def __call__(self, conversations: Sequence[Conversation], options: Mapping[str, Any] | None = None) -> list[str]:
        """An answer to each conversation, which ends with the user's words; greedy where no temperature is asked for.

        options: GENERATION, and `until`: texts that end an answer, which they are no part of.
        """
        given = dict(options or {})
        how = {name: given[name] for name in GENERATION if given.get(name) is not None}
        warm = float(how.pop("temperature", 0.0))
        how = {"max_new_tokens": 256} | how | {"do_sample": warm > 0}
        if warm > 0:
            how["temperature"] = warm
        else:
            how.pop("top_p", None)
        generation = self.model.generation_config
        ends = generation.eos_token_id
        stops = sorted({*self.processor.stop_token_ids, *(ends if isinstance(ends, list) else [] if ends is None else [ends])})
        batch = self.processor(list(conversations), add_generation_prompt=True).to(self.model.device)
        ids = self.model.generate(**batch, eos_token_id=stops, **how)
        said = ids[:, batch["input_ids"].shape[1] :].tolist()
        kept = [row[: next((at for at, token in enumerate(row) if token in stops), len(row))] for row in said]
        texts = self.processor.tokenizer.batch_decode(kept, skip_special_tokens=True)
        until = given.get("until") or []
        return [cut(text.strip(), [until] if isinstance(until, str) else until) for text in texts]


def cut(text: str, until: Sequence[str]) -> str:
    """A text up to the first of these.

    >>> cut("nokia\\n\\nIt is", ["\\n\\n", "ASSISTANT:"])
    'nokia'
    """
    return text[: min((text.index(one) for one in until if one and one in text), default=len(text))]
