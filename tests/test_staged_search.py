"""Answers in stages: candidates for each, a judge who chooses, images that are encoded once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch

import vlmkit
from tests.tiny import architecture, assistant, draw, encoded_views, model, picture, user
from vlmkit.staged_search import STAGES, StagedAnswer, stage_beam_search

QUESTION = [user(picture(seed=1), "What is it?")]


@pytest.fixture(scope="module")
def tiny() -> Any:
    built = vlmkit.build("llama-3.2-vision-tiny", seed=0)
    draw(built)
    return built, vlmkit.build_processor("llama-3.2-vision-tiny")


def longest(candidates: Sequence[str]) -> int:
    return max(range(len(candidates)), key=lambda number: len(candidates[number]))


def search(tiny: Any, judge: Any = longest, seed: int = 0, **options: Any) -> StagedAnswer:
    return stage_beam_search(*tiny, QUESTION, judge=judge, seed=seed, max_new_tokens=6, **({"temperature": 3.0} | options))


def test_of_every_stage_the_candidate_is_kept_that_the_judge_chose(tiny: Any) -> None:
    asked: list[list[str]] = []

    def judge(candidates: Sequence[str]) -> int:
        asked.append(list(candidates))
        return longest(candidates)

    answer = search(tiny, judge, candidates=3)
    assert [len(candidates) for candidates in asked] == [3] * 4
    assert answer.names == STAGES == ("SUMMARY", "CAPTION", "REASONING", "CONCLUSION")
    for name, stage, candidates in zip(STAGES, answer.stages, asked, strict=True):
        assert stage == max(candidates, key=len)
        assert all(text.startswith(f"<{name}>") and text.endswith(f"</{name}>") for text in candidates)
        assert len(set(candidates)) > 1
    assert answer.text == "\n\n".join(answer.stages)
    assert answer.words("CONCLUSION") == answer.stages[3][len("<CONCLUSION>") : -len("</CONCLUSION>")].strip()


@pytest.mark.parametrize("fusion", ["cross_attention", "splice"])
def test_images_are_encoded_once(fusion: str) -> None:
    parts = architecture(layout="seen" if fusion == "cross_attention" else "run", fusion=fusion)
    built = model(parts)
    seen = encoded_views(built)
    search((built, vlmkit.build_processor(parts)), candidates=2)
    assert seen == [1]


def test_what_was_chosen_stands_before_the_next_stage_and_the_image_is_looked_at(tiny: Any) -> None:
    """Greedy: each stage is the answer to the conversation that has the stages before it in its last turn."""
    built, processor = tiny
    stages = search(tiny, lambda candidates: 0, candidates=1, do_sample=False, temperature=None).stages
    prompt = processor([QUESTION])
    for number, name in enumerate(STAGES):
        begun = "".join(f"{stage}\n\n" for stage in stages[:number]) + f"<{name}>"
        answered = processor([[*QUESTION, assistant(begun)]])
        length = prompt["input_ids"].shape[1] + len(begun.encode())
        with torch.no_grad():
            logits = built(**{key: value for key, value in answered.items() if key not in ("labels", "supervised")}).logits[0, length - 1]
        first = int(logits.argmax())
        said = stages[number].removeprefix(f"<{name}>").removesuffix(f"</{name}>")
        assert processor.decode([first], skip_special_tokens=True) == said[:1]


def test_a_seed_makes_it_reproducible_and_leaves_torchs_own_random_state_alone(tiny: Any) -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first, again, other = search(tiny, seed=1), search(tiny, seed=1), search(tiny, seed=2)
    assert torch.equal(torch.get_rng_state(), before)
    assert first == again != other


def test_a_stage_ends_with_its_tag(tiny: Any) -> None:
    """A language model that writes the tag of the stage after two letters."""
    built, processor = tiny
    written = "ab</SUMMARY>never"

    def only(number: int, ids: torch.Tensor) -> list[int]:
        said = processor.decode(ids.tolist(), skip_special_tokens=True).rpartition("<SUMMARY>")[2]
        return [ord(written[len(said)])]

    answer = stage_beam_search(
        built, processor, QUESTION, judge=longest, stages=("SUMMARY",), max_new_tokens=16, prefix_allowed_tokens_fn=only
    )
    assert answer.stages == ("<SUMMARY>ab</SUMMARY>",)


def test_a_judge_who_names_no_candidate_is_told(tiny: Any) -> None:
    with pytest.raises(ValueError, match="the judge chose candidate 2 of 2 for SUMMARY"):
        search(tiny, lambda candidates: 2)


def test_a_question_without_an_image_is_answered_too(tiny: Any) -> None:
    built, processor = tiny
    assert len(stage_beam_search(built, processor, [user("Who are you?")], judge=longest, max_new_tokens=2, seed=0).stages) == 4
