"""Pairs of towers drawn from the catalogue, and films through whatever is drawn: each is built, learns and answers, or is refused."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
import torch

import vlmkit
from tests.test_random_combinations import DRAWS, Draw
from tests.tiny import LANGUAGE_MODELS, architecture, assistant, draw, part, picture, user
from vlmkit.architecture import Architecture, VisionTower
from vlmkit.connectors.joined import Joined

PAIRS = 36
FILMS = 24


def pairs() -> list[Architecture]:
    """Two encoders, often under two policies, their features joined before any connector of one tower."""
    chance = random.Random(1)
    inner = [kind for kind in vlmkit.list_connectors() if vlmkit.connectors[kind].towers == 1]
    found = []
    for _ in range(PAIRS):
        policies = [part(vlmkit.policies, kind) for kind in chance.choices(["squash", "letterbox", "pad_square", "center_crop"], k=2)]
        first, second = (part(vlmkit.encoders, kind) for kind in chance.choices(vlmkit.list_encoders(), k=2))
        connector = Joined(inner=part(vlmkit.connectors, chance.choice(inner)), how=chance.choice(["channels", "channels", "sequence"]))
        language = chance.choice(sorted(LANGUAGE_MODELS))
        arch = architecture(policy=policies[0], encoder=first, connector=connector, language=language)
        found.append(arch.replace(beside=(VisionTower(policy=chance.choice(policies), encoder=second),)))
    return found


def answers(arch: Architecture, *rows: list[dict[str, Any]]) -> None:
    """A step of training moves the loss, and a prompt is answered."""
    built, processor = vlmkit.build(arch, seed=0), vlmkit.build_processor(arch)
    draw(built)
    batch = processor([[*row, assistant("that")] for row in rows])
    optimizer = torch.optim.SGD(built.parameters(), lr=1e-4)
    first = built.train()(**batch).loss
    first.backward()
    optimizer.step()
    with torch.no_grad():
        second = built(**batch).loss
    assert torch.isfinite(first)
    assert second != first
    prompt = processor([rows[0]])
    ids = built.eval().generate(**prompt, max_new_tokens=2, min_new_tokens=2, do_sample=False)
    assert ids.shape[1] == prompt["input_ids"].shape[1] + 2


@pytest.mark.parametrize("number", range(PAIRS))
def test_two_towers_learn_and_answer_or_are_refused_before_anything_is_built(number: int) -> None:
    arch = pairs()[number]
    if arch.problems():
        with pytest.raises(vlmkit.ArchitectureError):
            vlmkit.build(arch)
        return
    answers(arch, [user("what", picture(50, 70), "?")], [user("no picture")])


def test_most_pairs_fit() -> None:
    assert PAIRS // 2 < sum(not arch.problems() for arch in pairs()) < PAIRS


def films() -> list[Draw]:
    return [each for each in DRAWS if not each.architecture.problems()][:FILMS]


@pytest.mark.parametrize("each", films(), ids=lambda each: each.name)
def test_a_film_goes_through_any_combination_frame_by_frame_or_whole(each: Draw) -> None:
    height, width = each.image
    film = np.stack([picture(height, width, seed) for seed in range(3)])
    item = {"type": "video", "video": film, "fps": 1.0}
    answers(each.architecture, [{"role": "user", "content": [item, {"type": "text", "text": "what?"}]}], [user("no film")])
