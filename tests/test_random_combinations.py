"""Two hundred models drawn from the whole catalogue: each is built, learns and answers, or is refused before anything is built.

What is drawn follows from the registries: a new part is in it without a word here. Besides its kind a part draws some of its
fields, so that patches, merges and sizes meet that do not fit. A refusal names the parts that do not fit and says why.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from dataclasses import dataclass, fields
from typing import Any

import pytest
import torch

import vlmkit
from tests.tiny import LANGUAGE_MODELS, architecture, assistant, draw, language_model, part, picture, user
from vlmkit.architecture import Architecture
from vlmkit.connectors.mlp import Mlp
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
VARIANTS: dict[str, dict[str, tuple[dict[str, Any], ...]]] = {
    "encoder": {"timm": ({"model": "eva02_large_patch14_clip_336"},)},
    "connector": {
        "mlp": ({"norm_in": "layer_norm"}, {"norm_between": "layer_norm", "norm_out": "rms_norm"}),
        "pixel_shuffle": ({"inner": Mlp(norm_in="layer_norm", bias=False)},),
    },
}
"""What every second part of a kind is, where no field of it was changed: rotary EVA-02, the norms of Yi-VL's and NVLM's projectors."""
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
    found: list[Draw] = []
    times: Counter[str] = Counter()
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
        for family, kind in kinds.items():
            variants = VARIANTS.get(family, {}).get(kind, ())
            if variants and parts[family] == part(PARTS[family], kind):
                times[kind] += 1
                if times[kind] % 2:  # counted, not drawn: what else is drawn stays
                    parts[family] = parts[family].replace(**variants[times[kind] // 2 % len(variants)])
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


def test_every_variant_and_experts_are_in_a_model_that_fits() -> None:
    fitting = [each.architecture for each in DRAWS if not each.architecture.problems()]
    for family, kinds in VARIANTS.items():
        for kind, variants in kinds.items():
            for variant in variants:
                wanted = part(PARTS[family], kind, **variant)
                assert any(getattr(arch, family) == wanted for arch in fitting), wanted
    assert {arch.language_model.experts for arch in fitting} == {None, *EXPERTS}


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
