"""An answer in stages, of each of which several are tried and the best is kept before the next one begins.

LLaVA-CoT (Xu et al. 2024, arXiv:2411.10440) is trained to answer in four tagged stages, and searches through them: not token by token, as
beam search does, and not over whole answers. Who says which candidate is best is the caller's: a reward model, the model itself
asked to compare, a rule. The published search lets the model write the tags as well; here they are written for it, so that no stage is
missed, and a stage that finds no end within its tokens is ended.

    question -> n times <SUMMARY>...</SUMMARY>, the best one -> n times <CAPTION>...</CAPTION>, the best one -> ...

Images are encoded once, whatever the numbers of stages and candidates.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformers import StoppingCriteria

from vlmkit.conversation import Conversation
from vlmkit.generation import continued, extended
from vlmkit.views import BESIDE_VISUAL, take_pixels

if TYPE_CHECKING:
    from vlmkit.model import VLM
    from vlmkit.processor import VLMProcessor

STAGES = ("SUMMARY", "CAPTION", "REASONING", "CONCLUSION")
"""LLaVA-CoT's tags."""
BETWEEN = "\n\n"
"""What stands between two stages."""
Judge = Callable[[Sequence[str]], int]
"""Candidates for one stage, each with its tags -> the number of the best."""


@dataclass(frozen=True)
class StagedAnswer:
    """The stages of an answer, in order, each with its tags."""

    names: tuple[str, ...]
    stages: tuple[str, ...]

    @property
    def text(self) -> str:
        """The whole answer."""
        return BETWEEN.join(self.stages)

    def words(self, name: str) -> str:
        """What a stage says, without its tags: words("CONCLUSION"). Raises ValueError for a stage that there is not."""
        return self.stages[self.names.index(name)].removeprefix(_begin(name)).removesuffix(_end(name)).strip()


@torch.no_grad()
def stage_beam_search(
    model: VLM,
    processor: VLMProcessor,
    conversation: Conversation,
    *,
    judge: Judge,
    candidates: int = 2,
    stages: Sequence[str] = STAGES,
    max_new_tokens: int = 512,
    seed: int | None = None,
    **generate: Any,
) -> StagedAnswer:
    """The answer to a conversation that ends with the user's message.

    candidates: how many are sampled for each stage. max_new_tokens: of a stage. seed: makes the answer reproducible and leaves torch's own
    random state alone. `generate` takes transformers' arguments, such as `temperature` and `top_p`. Raises ValueError where the judge
    names a candidate that there is not.
    """
    batch = processor([conversation], add_generation_prompt=True).to(model.device)
    pixels = take_pixels(batch.data)
    seen = {name: value for name, value in pixels.items() if name in BESIDE_VISUAL}
    if pixels:
        seen["visual"] = model.get_image_features(**pixels)
    with torch.random.fork_rng(enabled=seed is not None):
        if seed is not None:
            torch.manual_seed(seed)
        chosen: list[str] = []
        for name in stages:
            begun = "".join(f"{stage}{BETWEEN}" for stage in chosen) + _begin(name)
            rows = _with_words(batch.data, processor.plain_tokenizer.encode(begun, first=False))
            length = rows["input_ids"].shape[1]
            ids = model.generate(
                **rows,
                **seen,
                **({"do_sample": True} | generate),
                num_return_sequences=candidates,
                max_new_tokens=max_new_tokens,
                stopping_criteria=[_Ended(processor, length, _end(name))],
                eos_token_id=processor.stop_token_ids,
            )
            found = [_begin(name) + _words(processor, row[length:], _end(name)) + _end(name) for row in ids]
            best = judge(found)
            if not 0 <= best < len(found):
                raise ValueError(f"the judge chose candidate {best} of {len(found)} for {name}, counted from 0")
            chosen.append(found[best])
    return StagedAnswer(tuple(stages), tuple(chosen))


def _begin(name: str) -> str:
    return f"<{name}>"


def _end(name: str) -> str:
    return f"</{name}>"


def _words(processor: VLMProcessor, ids: Tensor, end: str) -> str:
    """What was generated, up to the tag that ends the stage."""
    text: str = processor.decode(ids.tolist(), skip_special_tokens=True)
    return text.partition(end)[0]


def _with_words(prompt: dict[str, Tensor], words: list[int]) -> dict[str, Tensor]:
    """The prompt's row with the ids of words behind it, at which nothing stands and which look at what its last token looks at."""
    rows = {name: value for name, value in prompt.items() if name != "supervised"}
    length = rows["input_ids"].shape[1] + len(words)
    more = torch.tensor([words], dtype=torch.long, device=rows["input_ids"].device)
    for name, value in prompt.items():
        if name == "input_ids":
            rows[name] = torch.cat([value, more], dim=1)
        elif name == "visible":
            rows[name] = continued(value, length)
        elif name in ("visual_index", "learned_index"):
            rows[name] = extended(value, length, -1)
        elif name in ("attention_mask", "token_type_ids"):
            rows[name] = extended(value, length, 1)
        elif name == "segments":
            rows[name] = extended(value, length, 0)
        elif name == "position_ids":
            steps = torch.arange(1, len(words) + 1, device=value.device)
            rows[name] = torch.cat([value, value[..., -1:] + steps], dim=-1)
    return rows


class _Ended(StoppingCriteria):  # type: ignore[misc]
    """A row ends where its text has the tag that ends the stage."""

    def __init__(self, processor: VLMProcessor, prompt: int, end: str) -> None:
        self.processor, self.prompt, self.end = processor, prompt, end

    def __call__(self, input_ids: Tensor, scores: Tensor, **unused: Any) -> Tensor:
        tails = input_ids[:, max(self.prompt, input_ids.shape[1] - len(self.end.encode()) - 1) :].tolist()
        ended = [self.end in self.processor.decode(tail, skip_special_tokens=True) for tail in tails]
        return torch.tensor(ended, device=input_ids.device)
