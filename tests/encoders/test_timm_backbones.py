"""Backbones of timm that are no plain vision transformers, beside timm's own `forward_intermediates`."""

import copy
import subprocess
import sys
from pathlib import Path

import pytest
import timm
import torch
from drawn import patchify, pixels
from safetensors.torch import save_file
from timm_walk import REFUSED, SMALLEST, apart, grids_of, images_of, measure, row, spec_of, stir

import vlmkit
from vlmkit.encoders.base import Encoder
from vlmkit.encoders.timm import Timm
from vlmkit.encoders.timm_towers import LevelsTower, NaFlexTower
from vlmkit.features import Grid, GridError
from vlmkit.preprocess.policies.squash import Squash
from vlmkit.spec import SpecError

TABLE = (Path(__file__).parents[2] / "docs" / "encoders.md").read_text().splitlines()
QUICK = ("convnext", "maxxvit", "resnet", "vision_transformer_relpos")
"""Of the families of which timm has a model for tests, one of each sort; they are walked in every run."""


@pytest.mark.parametrize("family", QUICK)
def test_a_backbone_is_timms(family):
    """Measured 0 but where two views pass one product of matrices: 4.7e-7 of the largest feature."""
    spec = spec_of(family)
    assert row(family, spec) in TABLE
    holds(measure(spec))


def test_the_table_has_a_line_for_every_family():
    lines = [line for line in TABLE if line.startswith("| ") and line.split("|")[1].strip() in SMALLEST]
    assert [line.split("|")[1].strip() for line in lines] == sorted(SMALLEST)
    assert [line.split("|")[1].strip() for line in lines if "refused" in line] == sorted(REFUSED)
    assert len(lines) == 98
    for family, line in zip(sorted(SMALLEST), lines, strict=True):
        assert f"`{SMALLEST[family]}`" in line


def holds(found):
    assert found.from_timm < 1e-5
    assert found.together < 1e-5
    assert found.trained < 1e-5
    assert found.refilled < 1e-5
    assert not found.silent


@pytest.mark.parametrize(("layer", "patch", "width"), [(-1, 32, 64), (-2, 16, 48), (1, 4, 24)])
def test_a_level_of_a_pyramid_has_its_own_stride_and_width(layer, patch, width):
    spec = Timm(model="test_convnext", layer=layer)
    assert (spec.patch, spec.width, spec.layers, spec.levels) == (patch, width, 4, True)
    assert Timm(model="test_convnext").replace(layer=layer) == spec
    holds(measure(spec))


def test_levels_of_one_stride_are_joined_in_the_order_given():
    spec = Timm(model="test_vit_relpos", layer=(-1, 2))
    tower = stir(spec.build())
    grid = spec.native_grid
    image = images_of(grid, spec.patch, 0)
    with torch.no_grad():
        whole = timm.create_model(spec.model, num_classes=0).eval()
        whole.load_state_dict(tower.vit.state_dict(), strict=False)
        second, last = whole.forward_intermediates(image, indices=[1, -1], norm=spec.final_norm, intermediates_only=True)
        expected = torch.cat([level[0].flatten(1).T for level in (last, second)], dim=-1)
        assert apart(tower(patchify(image, spec.patch), (grid,)).tokens, expected) < 1e-5
    with pytest.raises(SpecError, match=r"levels of one stride and width .* test_convnext has 3 \(16 pixels, 48 channels\), 4"):
        Timm(model="test_convnext", layer=(-1, -2))


def test_of_another_model_numbers_are_asked_anew():
    spec = Timm(model="test_convnext", layer=-2)
    other = spec.replace(model="test_resnet")
    assert other == Timm(model="test_resnet", layer=-2)
    assert Timm().replace(model="test_vit") == Timm(model="test_vit")
    assert spec.replace(final_norm=False) == spec
    assert copy.deepcopy(spec) == spec == Encoder.from_json(spec.to_json())


def test_a_model_of_one_size_is_made_for_the_size_that_is_stated():
    own = Timm(model="test_vit_relpos")
    assert own.positions == "fixed"
    assert own.native_grid == Grid(1, 10, 10)
    with pytest.raises(GridError, match="takes 160x160 pixels"):
        own.grid_out(Grid(1, 4, 4))
    small = Timm(model="test_vit_relpos", image_size=64)
    assert small.native_grid == Grid(1, 4, 4)
    holds(measure(small))
    with pytest.raises(SpecError, match="test_vit_relpos takes images of one size alone; use positions='fixed'"):
        Timm(model="test_vit_relpos", positions="bicubic_antialias")


def test_numbers_that_timm_contradicts_are_errors():
    with pytest.raises(SpecError, match="width 7, timm's test_convnext has 64"):
        Timm(model="test_convnext", width=7)
    with pytest.raises(SpecError, match="test_convnext has no norm for the patches of layer -1; use final_norm=False"):
        Timm(model="test_convnext", final_norm=True)
    with pytest.raises(SpecError, match="expected 1 to 4, or -4 to -1, got 9"):
        Timm(model="test_convnext", layer=9)
    whole = Timm(model="test_convnext").to_dict() | {"width": 32}
    with pytest.raises(SpecError, match="width 32, timm's test_convnext has 64"):
        Encoder.from_dict(whole).build()


def test_statistics_of_a_batch_are_never_taken():
    tower = stir(Timm(model="test_resnet").build()).train()
    before = {name: value.clone() for name, value in tower.state_dict().items() if "running" in name}
    assert before
    tower(pixels((Grid(1, 2, 3),), 32), (Grid(1, 2, 3),)).tokens.sum().backward()
    assert all(torch.equal(value, tower.state_dict()[name]) for name, value in before.items())


def test_gradients_are_the_same_with_checkpointing():
    spec = Timm(model="test_convnext")
    tower = stir(spec.build()).train()
    grid = grids_of(spec)[0]

    def gradients():
        tower.zero_grad()
        tower(pixels((grid,), spec.patch), (grid,)).tokens.square().mean().backward()
        return {name: parameter.grad.clone() for name, parameter in tower.named_parameters()}

    plain = gradients()
    tower.set_gradient_checkpointing(True)
    recomputed = gradients()
    assert tower.vit.stages[0].grad_checkpointing
    assert all(torch.allclose(plain[name], recomputed[name], rtol=1e-4, atol=1e-7) for name in plain)


def test_load_pretrained_from_a_file_of_timm_with_its_classifier(tmp_path):
    torch.manual_seed(0)
    reference = stir(timm.create_model("test_convnext", num_classes=7))
    save_file(reference.state_dict(), tmp_path / "model.safetensors")
    spec = Timm(model="test_convnext", layer=-2, checkpoint=str(tmp_path / "model.safetensors"))
    tower = spec.build().eval()
    spec.load_pretrained(tower)
    grid = Grid(1, 4, 5)
    image = images_of(grid, spec.patch, 0)
    with torch.no_grad():
        *_, level = reference.forward_intermediates(image, indices=[-2], intermediates_only=True)
        assert apart(tower(patchify(image, spec.patch), (grid,)).tokens, level[0].flatten(1).T) < 1e-5


def test_the_command_line_counts_by_a_timm_name():
    """In a process of its own; 576, once: a patch size guessed before it was known."""
    command = [sys.executable, "-m", "vlmkit", "tokens", "--size", "400x300", "--model", "llava-1.5-7b", "--json"]
    printed = subprocess.run([*command, "--encoder", "timm:model=vit_base_patch16_siglip_224"], capture_output=True, text=True, check=True)
    assert "441" in printed.stdout
    assert "576" not in printed.stdout


@pytest.mark.parametrize(
    ("model", "policy", "tokens"),
    [("test_vit", "squash:size=336", 441), ("test_convnext", "squash:size=352", 121), ("test_vit_relpos", "squash:size=160", 100)],
)
def test_the_count_before_anything_is_built_is_what_the_model_gives(model, policy, tokens):
    size = int(policy.rpartition("=")[2])
    arch = vlmkit.architecture("llava-1.5-tiny").replace(policy=Squash(size=size), encoder={"kind": "timm", "model": model})
    assert arch.tokens(vlmkit.Size(300, 400)) == tokens
    side = size // arch.encoder.patch
    features = stir(arch.encoder.build())(pixels((Grid(1, side, side),), arch.encoder.patch), (Grid(1, side, side),))
    assert len(features.tokens) == tokens


def test_a_vlm_with_a_backbone_answers(tmp_path):
    arch = vlmkit.architecture("llava-1.5-tiny").replace(policy=Squash(size=64), encoder=Timm(model="test_convnext"))
    model, processor = vlmkit.build(arch, seed=0), vlmkit.build_processor(arch)
    from PIL import Image

    batch = processor(images=Image.new("RGB", (50, 40), "red"), text="What is it?")
    logits = model.eval()(**batch).logits
    assert logits.isfinite().all()
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    again, _ = vlmkit.load(tmp_path)
    assert type(again.encoder) is LevelsTower
    assert torch.allclose(again.eval()(**batch).logits, logits, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("family", [family for family in SMALLEST if family not in (*QUICK, *REFUSED)])
def test_every_family_of_timm(family):
    """98 files, of which four are refused; half an hour of one core."""
    spec = spec_of(family)
    assert row(family, spec) in TABLE
    assert isinstance(spec.build(), NaFlexTower) == (family == "naflexvit")
    holds(measure(spec))


@pytest.mark.parametrize("family", REFUSED)
def test_what_has_no_whole_stride_is_refused(family):
    with pytest.raises(SpecError, match="a feature for each square patch"):
        spec_of(family)


def test_the_walk_goes_over_every_file_of_timm():
    files = {timm.model_entrypoint(name).__module__.rpartition(".")[2] for name in timm.list_models()}
    assert files == set(SMALLEST)
    assert len(files) == 98


def test_naflex_calls_each_block_once_whatever_the_sizes():
    tower = Timm(model=SMALLEST["naflexvit"], layer=1).build().eval()
    calls = []
    tower.vit.blocks[0].register_forward_hook(lambda module, args, output: calls.append(output.shape))
    grids = (Grid(1, 2, 3), Grid(1, 4, 1), Grid(1, 2, 2))
    assert tower(pixels(grids, 16), grids).grids == grids
    assert len(calls) == 1
