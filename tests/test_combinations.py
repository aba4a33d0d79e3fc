"""The whole catalogue at small sizes: every part meets every other part of another family at least once.

The product is too large to train. Combinations are chosen so that every pair of parts that can stand together does so in one of
them; each is built, trained for a step, and generates. What fits together and what does not is asked of the whole product.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import fields
from itertools import combinations, product
from typing import Any

import pytest
import torch

import vlmkit
from tests.tiny import LANGUAGE_MODELS, architecture, assistant, draw, part, picture, user
from vlmkit.encoders.base import Encoder
from vlmkit.features import GridError

AXES = {
    "encoder": vlmkit.list_encoders(),
    "connector": vlmkit.list_connectors(),
    "policy": vlmkit.list_policies(),
    "layout": vlmkit.list_layouts(),
    "fusion": vlmkit.list_fusions(),
    "language": sorted(LANGUAGE_MODELS),
}
Pair = frozenset[tuple[str, str]]


def pairs_of(choice: dict[str, str]) -> set[Pair]:
    return {frozenset(pair) for pair in combinations(choice.items(), 2)}


def all_pairs() -> list[Pair]:
    parts = {axis: [(axis, kind) for kind in kinds] for axis, kinds in AXES.items()}
    return [frozenset(pair) for one, other in combinations(parts.values(), 2) for pair in product(one, other)]


def fitting(*axes: str) -> list[dict[str, str]]:
    """Choices of these parts that have no problem, nothing else of them being at odds with the others."""
    rest = {"encoder": "clip", "connector": "mlp", "policy": "squash", "layout": "run", "fusion": "splice", "language": "llama"}
    chosen = [dict(zip(axes, kinds, strict=True)) for kinds in product(*(AXES[axis] for axis in axes))]
    return [choice for choice in chosen if not architecture(**rest | choice).problems()]


EYES, WORDS = fitting("encoder", "connector", "policy"), fitting("layout", "fusion")
"""Whether a tower fits does not depend on the layout, nor the other way round."""
MERGING = ("attention_pool", "bilinear_mlp", "conv_patch_merger", "merged_mlp", "patch_merger", "pixel_shuffle", "sequence_fold")
NEVER: set[Pair] = {
    *(frozenset({("encoder", "mllama"), ("connector", kind)}) for kind in MERGING),
    *(
        frozenset({("encoder", "mllama"), ("policy", kind)})
        for kind in ("edge_bounds", "edge_cap", "edge_fit", "fit_canvas", "multicrop", "smart_resize")
    ),
    *(
        frozenset({("layout", layout), ("fusion", fusion)})
        for layout, fusion in product(AXES["layout"], AXES["fusion"])
        if (layout in ("seen", "seen_fenced", "seen_tiles")) != (fusion == "cross_attention")
        or (layout == "seen_tiles_beside") != (fusion == "hybrid")
    ),
}
"""Pairs that cannot stand together: a class token has no neighbours to merge with, tiles have one size, and what is looked at takes no
place."""


def covering() -> Iterator[dict[str, str]]:
    """Combinations that hold every pair that fits: each time one that is missing, and of some ways to fill it up the best."""
    chance = random.Random(0)
    missing = set(all_pairs()) - NEVER
    for pair in all_pairs():
        if pair in missing:
            fixed = dict(pair)

            def possible(choices: list[dict[str, str]], fixed: dict[str, str] = fixed) -> list[dict[str, str]]:
                return [choice for choice in choices if choice.items() >= {(axis, fixed[axis]) for axis in fixed if axis in choice}]

            eyes, words, languages = possible(EYES), possible(WORDS), [fixed["language"]] if "language" in fixed else AXES["language"]
            drawn = [chance.choice(eyes) | chance.choice(words) | {"language": chance.choice(languages)} for _ in range(30)]
            best = max(drawn, key=lambda choice: len(pairs_of(choice) & missing))
            missing -= pairs_of(best)
            yield best


CHOICES = list(covering())


def test_every_pair_of_registered_parts_is_in_a_combination() -> None:
    walked = {pair for choice in CHOICES for pair in pairs_of(choice)}
    counts = [len(kinds) for kinds in AXES.values()]
    assert len(walked) + len(NEVER) == sum(one * other for one, other in combinations(counts, 2))
    assert walked.isdisjoint(NEVER)
    assert {axis: {choice[axis] for choice in CHOICES} for axis in AXES} == {axis: set(kinds) for axis, kinds in AXES.items()}
    assert [len(AXES[axis]) for axis in ("encoder", "connector", "policy", "layout", "fusion", "language")] >= [4, 4, 4, 2, 1, 4]


@pytest.mark.parametrize("choice", CHOICES, ids=lambda choice: "-".join(choice.values()))
def test_a_combination_is_built_trains_and_generates(choice: dict[str, str]) -> None:
    arch = architecture(**choice)
    built, processor = vlmkit.build(arch, seed=0), vlmkit.build_processor(arch)
    draw(built)
    question = user("what", picture(50, 70), "?")
    batch = processor([[question, assistant("that")], [user("no picture"), assistant("yes")]])
    stand, shown = sum(int((batch[name] != -1).sum()) for name in ("visual_index", "learned_index") if name in batch), 0
    if arch.layout.looked_at:
        shown = max(0, int(batch["visible"].diff(dim=-1).max()))
    assert stand + shown == arch.tokens(vlmkit.Size(50, 70)) > 0
    loss = built.train()(**batch).loss
    loss.backward()
    assert torch.isfinite(loss)
    still = [name for name, parameter in built.named_parameters() if parameter.grad is None or not bool(parameter.grad.abs().max() > 0)]
    if arch.layout.placed and not shown:  # what is seen as one view has places, and nothing is left to look at
        still = [name for name in still if not name.startswith("fusion.layers.")]
    assert still == [], "parameters without a gradient"
    prompt = processor([question])
    ids = built.eval().generate(**prompt, max_new_tokens=2, min_new_tokens=2, do_sample=False)
    assert ids.shape[1] == prompt["input_ids"].shape[1] + 2


SIZES = (vlmkit.Size(50, 70), vlmkit.Size(61, 40), vlmkit.Size(300, 300))
VARIANTS: tuple[dict[str, Any], ...] = ({}, {"positions": "fixed"}, {"class_token": "keep"}, {"patch": 12, "image_size": 36})


def variants(encoder: str) -> list[Encoder]:
    names = {field.name for field in fields(vlmkit.encoders[encoder])}
    known = ({name: value for name, value in changes.items() if name in names} for changes in VARIANTS)
    return list(dict.fromkeys(part(vlmkit.encoders, encoder, **changes) for changes in known))


@pytest.mark.parametrize("encoder", AXES["encoder"])
def test_an_architecture_has_problems_exactly_where_an_image_could_not_go_through_and_names_the_parts(encoder: str) -> None:
    fitting, refused = 0, 0
    for changed, connector, policy in product(variants(encoder), AXES["connector"], AXES["policy"]):
        arch = architecture(encoder=changed, connector=connector, policy=policy)
        problems = arch.problems()
        if not problems:
            fitting += 1
            assert all(arch.tokens(size) > 0 for size in SIZES)
            continue
        refused += 1
        assert all(repr(kind) in problem for problem in problems for kind in (encoder, connector))
        assert all(policy in problem for problem in problems)
        with pytest.raises(GridError):
            _ = [arch.tokens(size) for size in SIZES]
    assert fitting + refused == len(variants(encoder)) * len(AXES["connector"]) * len(AXES["policy"])
    assert min(fitting, refused) > 10
