"""Two hundred models drawn from the whole catalogue: each is built, learns and answers, or is refused before anything is built.

What is drawn follows from the registries: a new part is in it without a word here. Besides its kind a part draws some of its
fields, so that patches, merges and sizes meet that do not fit. A refusal names the parts that do not fit and says why.
"""

from __future__ import annotations

import random
import re
from dataclasses import dataclass, fields
from typing import Any

import pytest
import torch

import vlmkit
from tests.tiny import LANGUAGE_MODELS, architecture, assistant, draw, language_model, part, picture, user
from vlmkit.architecture import Architecture
from vlmkit.experts import Experts
from vlmkit.registry import Registry

COUNT = 200
PARTS: dict[str, Registry[Any]] = {
    "policy": vlmkit.policies,
    "encoder": vlmkit.encoders,
    "connector": vlmkit.connectors,
    "layout": vlmkit.layouts,
    "fusion": vlmkit.fusions,
}
CHANGES: dict[str, tuple[dict[str, Any], ...]] = {
    "policy": ({"size": 84}, {"size": 70}, {"resample": "bilinear"}, {"factor": 42}, {"longest": 168}),
    "encoder": ({"patch": 12, "image_size": 36}, {"positions": "fixed"}, {"class_token": "keep"}, {"first_patch": "drop"}, {"layer": -2}),
    "connector": ({"ratio": 3}, {"kernel": 3}, {"bias": True}, {"activation": "silu"}, {"depth": 3}),
}
"""Fields that are changed one set at a time where a part has them."""
EXPERTS = (Experts(), Experts(count=3, layers="all"), Experts(capacity=1.0, layers="second_half"))
"""What FFNs of every fifth language model are turned into."""


@dataclass(frozen=True)
class Draw:
    kinds: dict[str, str]
    architecture: Architecture
    image: tuple[int, int]
    """Height and width."""

    @property
    def name(self) -> str:
        return "-".join(self.kinds.values())


def drawn() -> list[Draw]:
    """Every fourth policy, encoder and connector or so has a changed field."""
    chance = random.Random(0)
    found = []
    for _ in range(COUNT):
        kinds = {family: chance.choice(registry.names()) for family, registry in PARTS.items()}
        if chance.random() < 0.9:  # or else most of what cross-attention is drawn with would be refused for its layout
            fusion = vlmkit.fusions[kinds["fusion"]]
            wanted = fusion.places_visual, fusion.needs_visible
            layouts = [(kind, vlmkit.layouts[kind]) for kind in vlmkit.layouts.names()]
            kinds["layout"] = chance.choice([kind for kind, layout in layouts if (layout.placed, layout.looked_at) == wanted])
        kinds["language"] = chance.choice(sorted(LANGUAGE_MODELS))
        parts = {
            family: part(registry, kinds[family], **changes(registry[kinds[family]], family, chance)) for family, registry in PARTS.items()
        }
        image = chance.randint(20, 160), chance.randint(20, 160)
        words = language_model(kinds["language"])
        if len(found) % 5 == 0:  # counted, not drawn: what else is drawn stays
            words = words.replace(experts=EXPERTS[len(found) // 5 % len(EXPERTS)])
        found.append(Draw(kinds, architecture(language=words, **parts), image))
    return found


def changes(spec: type[Any], family: str, chance: random.Random) -> dict[str, Any]:
    names = {field.name for field in fields(spec)}
    possible = [change for change in CHANGES.get(family, ()) if change.keys() <= names]
    return chance.choice(possible) if possible and chance.random() < 0.25 else {}


DRAWS = drawn()


def test_most_of_what_is_drawn_fits_and_every_part_is_drawn() -> None:
    refused = sum(bool(each.architecture.problems()) for each in DRAWS)
    assert len(DRAWS) == COUNT
    assert COUNT * 0.6 < COUNT - refused < COUNT * 0.95, f"{COUNT - refused} of {COUNT} fit"
    for family, registry in PARTS.items():
        assert {each.kinds[family] for each in DRAWS} == set(registry.names())


@pytest.mark.parametrize("each", DRAWS, ids=lambda each: each.name)
def test_a_combination_learns_and_answers_or_is_refused_by_name(each: Draw) -> None:
    arch = each.architecture
    if arch.problems():
        with pytest.raises(vlmkit.ArchitectureError) as refusal:
            vlmkit.build(arch)
        assert_told(str(refusal.value), each)
        return
    built, processor = vlmkit.build(arch, seed=0), vlmkit.build_processor(arch)
    draw(built)
    question = user("what", picture(*each.image), "?")
    batch = processor([[question, assistant("that")], [user("no picture"), assistant("yes")]])
    optimizer = torch.optim.SGD(built.parameters(), lr=1e-4)
    first = built.train()(**batch).loss
    first.backward()
    optimizer.step()
    with torch.no_grad():
        second = built(**batch).loss
    assert torch.isfinite(first)
    assert torch.isfinite(second)
    assert second != first
    prompt = processor([question])
    ids = built.eval().generate(**prompt, max_new_tokens=2, min_new_tokens=2, do_sample=False)
    assert ids.shape[1] == prompt["input_ids"].shape[1] + 2


def assert_told(message: str, each: Draw) -> None:
    """Every problem names two of the parts at least, with the numbers that disagree."""
    for problem in message.removeprefix(f"{each.architecture.name}: ").splitlines():
        named = {family for family, kind in each.kinds.items() if re.search(rf"\b{re.escape(kind)}\b", problem)}
        assert len(named) >= 2, problem
        assert re.search(r"\d", problem), problem
