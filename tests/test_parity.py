"""Splice and Olmo3 beside transformers' LLaVA over the same tower, projector and language model, with the same weights.

The published families have tests of their own; this one holds the parts together that UNIVA is made of.
"""

from __future__ import annotations

import functools
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor

import vlmkit
from tests.tiny import apart, architecture, draw, language_model
from vlmkit.model import VLM
from vlmkit.preprocess.pixels import patchify

IMAGE = 150
COUNTS = {"one image": [1], "several images": [3], "a batch": [2, 1, 1], "text only": [0], "a batch with and without": [1, 0, 2]}


@functools.cache
def models() -> tuple[Any, VLM]:
    """LlavaForConditionalGeneration(CLIP, Olmo3) and ours. Weights ~N(0, 0.15), norms ~N(1, 0.1)."""
    arch = architecture(
        policy=vlmkit.policies["squash"](size=28),
        encoder=vlmkit.encoders["clip"](width=32, layers=3, heads=4, mlp=64, patch=14, image_size=28, layer=-2),
        connector="mlp",
        language=language_model("olmo3", eos_token_id=2),
    )
    vision = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "image_size": 28,
        "patch_size": 14,
    }
    config = transformers.LlavaConfig(
        vision_config=transformers.CLIPVisionConfig(**vision, projection_dim=32),
        text_config=arch.language_model.transformers_config(),
        image_token_id=IMAGE,
        vision_feature_layer=-2,
        vision_feature_select_strategy="default",
    )
    reference = transformers.LlavaForConditionalGeneration(config).eval()
    draw(reference)
    ours = vlmkit.build(arch)
    theirs = reference.state_dict()
    tower = {name.removeprefix("model.vision_tower.").removeprefix("vision_model."): value for name, value in theirs.items()}
    weights = {}
    for name in ours.state_dict():
        part, _, rest = name.partition(".")
        if part == "encoder":
            weights[name] = tower[rest]
        elif part == "connector":
            number = {"0": "1", "2": "2"}[rest.split(".")[1]]
            weights[name] = theirs[f"model.multi_modal_projector.linear_{number}.{rest.split('.')[2]}"]
        else:
            weights[name] = theirs[rest.replace("model.", "model.language_model.", 1)]
    ours.load_state_dict(weights)
    return reference, ours


def batch(counts: list[int], seed: int = 0) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Rows with these numbers of images, padded on the left: for transformers, and for vlmkit."""
    generator = torch.Generator().manual_seed(seed)

    def words(number: int) -> list[int]:
        return torch.randint(10, 100, (number,), generator=torch.Generator().manual_seed(number)).tolist()

    rows = [words(3) + [token for image in range(count) for token in [IMAGE] * 4 + words(2 + image)] + words(9 - count) for count in counts]
    length = max(map(len, rows))
    ids = torch.tensor([[0] * (length - len(row)) + row for row in rows])
    mask = torch.tensor([[0] * (length - len(row)) + [1] * len(row) for row in rows])
    theirs = ours = {"input_ids": ids, "attention_mask": mask}
    if sum(counts):
        images = torch.randn(sum(counts), 3, 28, 28, generator=generator)
        places = (ids == IMAGE).flatten()
        index = torch.where(places, places.cumsum(0) - 1, -1).view_as(ids)
        patches = torch.cat([patchify(image.permute(1, 2, 0), 14) for image in images])
        theirs = theirs | {"pixel_values": images}
        ours = ours | {"pixel_values": patches, "grids": torch.tensor([[1, 2, 2]] * len(images)), "visual_index": index}
    return theirs, ours


@pytest.mark.parametrize("counts", COUNTS.values(), ids=COUNTS)
def test_logits_equal_those_of_transformers_llava(counts: list[int]) -> None:
    reference, built = models()
    theirs, ours = batch(counts)
    seen = theirs["attention_mask"].bool()
    with torch.no_grad():
        wanted, got = reference(**theirs).logits[seen], built(**ours).logits[seen]
    assert apart(got, wanted) < 1e-5  # measured 0
    assert float(wanted.abs().max()) > 1


@pytest.mark.parametrize("counts", COUNTS.values(), ids=COUNTS)
def test_greedy_answers_equal_those_of_transformers_llava(counts: list[int]) -> None:
    reference, built = models()
    theirs, ours = batch(counts)
    options: dict[str, Any] = {"max_new_tokens": 12, "do_sample": False, "pad_token_id": 0}
    assert torch.equal(built.generate(**ours, **options), reference.generate(**theirs, **options))


def test_the_logits_of_both_move_when_the_image_moves() -> None:
    reference, built = models()
    with torch.no_grad():
        for which, one in enumerate((reference, built)):
            first, second = (one(**batch([1], seed)[which]).logits[:, -1] for seed in (0, 1))
            assert apart(first, second) > 0.1
