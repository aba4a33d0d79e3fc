"""Prismatic's named models by parts: each tower beside timm's own features of the last block but one, the projector beside its equations,
the sequence beside its prompt. Sizes are those of the published configurations. test_prismatic_checkpoints.py has the whole."""

from __future__ import annotations

import pytest
import timm
import torch
from families.prismatic import COUNTS, ROW
from families.record import record
from families.system import patchify, user
from families.tiny import picture as smooth
from hypothesis import given, settings
from hypothesis import strategies as st
from timm.models.vision_transformer import checkpoint_filter_fn
from torch import Tensor, nn
from torchvision.transforms import CenterCrop, Compose, InterpolationMode, Normalize, Resize, ToTensor

import vlmkit
from tests.tiny import apart, draw, picture
from vlmkit.model import VLM
from vlmkit.preprocess import Size
from vlmkit.preprocess.pixels import render
from vlmkit.processor import VLMProcessor
from vlmkit.tokenizer import bytes_tokenizer

TINY = vlmkit.architecture("prismatic-tiny")


@pytest.fixture(scope="module")
def built() -> tuple[VLM, VLMProcessor]:
    model = vlmkit.build(TINY, seed=0)
    draw(model)
    tokenizer = bytes_tokenizer(("<image>", "<s>", "</s>"), bos_token="<s>", eos_token="</s>")
    return model, vlmkit.build_processor(TINY, tokenizer=tokenizer)


def test_towers_are_timms_with_their_own_normalisation(built: tuple[VLM, VLMProcessor]) -> None:
    model, processor = built
    batch = processor([[user("What?", picture(28, 28))]])
    assert "pixel_values_1" not in batch, "both towers see the same pixels"
    worst = 0.0
    for described, tower in zip(TINY.towers, model.towers, strict=True):
        encoder = described.encoder
        theirs = timm.create_model(
            encoder.model, num_classes=0, embed_dim=encoder.width, depth=3, num_heads=4, patch_size=14, img_size=28, dynamic_img_size=True
        ).eval()
        theirs.load_state_dict(tower.vit.state_dict(), strict=False)
        pixels = torch.from_numpy(picture(28, 28)).permute(2, 0, 1) / 255
        mean, std = (torch.tensor(value)[:, None, None] for value in (encoder.mean, encoder.std))
        with torch.no_grad():
            (wanted,) = theirs.get_intermediate_layers(((pixels - mean) / std)[None], n={len(theirs.blocks) - 2})
            found = tower(batch["pixel_values"], batch["grids"]).tokens
        worst = max(worst, apart(found, wanted[0]))
    assert worst < 1e-5  # measured 3e-6
    first, second = (tower.normalise(batch["pixel_values"]) for tower in model.towers)
    assert apart(first, second) > 0.1


@pytest.mark.parametrize("number", [0, 1])
def test_a_table_of_positions_for_other_sizes_is_resampled_as_timm_does_when_it_reads_weights(number: int) -> None:
    """Prismatic makes timm's towers for 384 pixels, and the weights of DINOv2, made for 518, are resampled while they are read."""
    encoder = TINY.towers[number].encoder.replace(image_size=70)
    tower = encoder.build()
    draw(tower)
    sizes = {"embed_dim": encoder.width, "depth": 3, "num_heads": 4, "patch_size": 14, "img_size": 44}
    theirs = timm.create_model(encoder.model, num_classes=0, **sizes).eval()
    weights = checkpoint_filter_fn(dict(tower.vit.state_dict()), theirs, interpolation="bicubic", antialias=True)
    assert weights["pos_embed"].shape[1] < tower.vit.pos_embed.shape[1]
    theirs.load_state_dict(weights, strict=False)
    pixels = torch.randn(3, 44, 44, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        (wanted,) = theirs.get_intermediate_layers(pixels[None], n={len(theirs.blocks) - 2})
        found = tower(patchify(pixels, 14), torch.tensor([[1, 3, 3]])).tokens
    assert apart(found, wanted[0]) < 1e-5  # measured 0


@settings(max_examples=20)
@given(st.integers(1, 700), st.integers(1, 700))
def test_pixels_are_those_of_the_published_transforms(height: int, width: int) -> None:
    """'resize-naive' at 384 pixels by PIL, of which 27 patches of 14 pixels are seen; `differ` counts steps of 255."""
    arch = vlmkit.architecture("prismatic-dinosiglip-7b")
    photo = smooth(height, width)
    plan = arch.plan(Size(height, width))
    values, grids = render(photo, plan, patch=14, resample=arch.policy.resample, antialias=arch.policy.antialias)
    assert grids.tolist() == [[1, 27, 27]]
    for described in arch.towers:
        encoder = described.encoder
        resize = Resize((384, 384), interpolation=InterpolationMode.BICUBIC)
        transform = Compose([resize, CenterCrop(384), ToTensor(), Normalize(encoder.mean, encoder.std)])
        mean, std = (torch.tensor(value).repeat_interleave(14 * 14) for value in (encoder.mean, encoder.std))
        differ = ((values / 255 - mean) / std - patchify(transform(photo), 14)) * std * 255
        assert float(differ.abs().max()) < 2.001  # measured 2, in 0.6 % of the pixels
    record(ROW, pixels=2.0)


def test_the_projector_is_three_layers_of_which_the_first_is_four_times_as_wide(built: tuple[VLM, VLMProcessor]) -> None:
    model, processor = built
    batch = processor([[user("What?", picture(28, 28))]])
    layers = nn.Sequential(nn.Linear(56, 224), nn.GELU(), nn.Linear(224, 32), nn.GELU(), nn.Linear(32, 32))
    layers.load_state_dict({name.removeprefix("inner.layers."): value for name, value in model.connector.state_dict().items()})
    with torch.no_grad():
        patches = torch.cat([tower(batch["pixel_values"], batch["grids"]).tokens for tower in model.towers], dim=1)
        assert apart(model.get_image_features(batch["pixel_values"], batch["grids"]).tokens, layers(patches)) < 1e-6


def test_patches_stand_between_the_first_token_and_the_prompt(built: tuple[VLM, VLMProcessor]) -> None:
    _, processor = built
    ids = processor([[user("Where?", picture(30, 70))]])["input_ids"][0]
    assert processor.decode(ids) == "<s>" + "<image>" * 4 + "In: Where?\nOut:"
    answered = processor([[user("Where?", picture(30, 70)), {"role": "assistant", "content": "Here."}]])
    assert processor.decode(answered["input_ids"][0]) == "<s>" + "<image>" * 4 + "In: Where?\nOut: Here.</s>"


@pytest.mark.parametrize("name", COUNTS)
def test_published_sizes(name: str) -> None:
    """Towers as timm counts them; the projector from 2176 channels."""
    arch = vlmkit.architecture(name)
    assert arch.parameters() == COUNTS[name]
    assert arch.tokens(Size(480, 640)) == 729
    record(ROW, builds=len(COUNTS), parameters={name: counts.total for name, counts in COUNTS.items()})


def test_it_trains(built: tuple[VLM, VLMProcessor]) -> None:
    _, processor = built
    model = vlmkit.build(TINY, seed=0).train()
    batch = processor([[user("What is this?", picture(28, 28)), {"role": "assistant", "content": "A picture."}]])
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    losses: list[Tensor] = []
    for _ in range(3):
        loss = model(**batch).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.detach())
    assert losses[-1] < losses[0]
    record(ROW, trains=True)


def test_the_patches_of_both_towers_move_the_logits(built: tuple[VLM, VLMProcessor]) -> None:
    model, processor = built
    batch = processor([[user("What?", picture(28, 28))]])
    with torch.no_grad():
        before = model(**batch).logits
        for tower in model.towers:
            weight = tower.vit.patch_embed.proj.weight
            kept = weight.clone()
            weight.mul_(-1)
            assert apart(model(**batch).logits, before) > 1e-2
            weight.copy_(kept)
