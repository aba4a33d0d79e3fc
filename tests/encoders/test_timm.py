"""timm towers beside timm's own forward passes."""

import pytest
import timm
import torch
from beside import features, images
from drawn import draw, pixels, tiny
from safetensors.torch import save_file

from vlmkit.encoders.timm import Timm
from vlmkit.features import Grid
from vlmkit.spec import SpecError

GRIDS = [Grid(1, 5, 5), Grid(1, 3, 8), Grid(1, 10, 9)]
NUMBERS = {"embed_dim": 32, "depth": 3, "num_heads": 4, "patch_size": 4, "img_size": 20}
MODELS = {
    "vit_huge_patch14_clip_quickgelu_378": {},
    "vit_base_patch16_224": {},
    "vit_base_patch14_reg4_dinov2": {"prefix": 5},
    "vit_so400m_patch14_siglip_378": {"prefix": 0},
    "vit_base_patch16_reg4_gap_256": {"prefix": 4, "final_norm": False},
    "deit3_base_patch16_224": {},
    "eva02_large_patch14_clip_336": {},
    "eva02_base_patch14_224": {"final_norm": False},
    "aimv2_large_patch14_336": {"prefix": 0},
    "vit_base_patch16_dinov3": {"prefix": 5},
}
"""One of each family: CLIP, AugReg, DINOv2 with registers, SigLIP, pooled, DeiT-III, EVA-02 (rotary), AIMv2, DINOv3."""
every_model = pytest.mark.parametrize("model", MODELS)


def build(model, **changes):
    return tiny("timm", model=model, **(MODELS[model] | changes)).build().eval()


def theirs(model):
    return draw(timm.create_model(model, num_classes=0, dynamic_img_size=True, **NUMBERS))


def ours(reference, model, **changes):
    tower = build(model, **changes)
    tower.vit.load_state_dict({name: value for name, value in reference.state_dict().items() if name in tower.vit.state_dict()})
    return tower


@every_model
@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_features_are_timms_at_any_grid(model, grid):
    """Measured 0: it is timm's own forward pass."""
    reference, prefix = theirs(model), MODELS[model].get("prefix", 1)
    with torch.no_grad():
        expected = reference.forward_features(images(grid))
    assert (features(ours(reference, model), grid) - expected[:, prefix:]).abs().max() < 1e-6
    if prefix:
        assert (features(ours(reference, model, class_token="keep"), grid) - expected).abs().max() < 1e-6
        assert tiny("timm", **MODELS[model], class_token="keep").grid_out(grid).tokens == expected.shape[1]


@every_model
@pytest.mark.parametrize("layer", [-1, -2, 1, (-1, 1, 2)])
def test_layers_are_timms_intermediates(model, layer):
    """Measured 0."""
    reference, norm = theirs(model), MODELS[model].get("final_norm", True)
    indices = [index if index < 0 else index - 1 for index in (layer if isinstance(layer, tuple) else (layer,))]
    with torch.no_grad():
        each = [
            reference.forward_intermediates(images(GRIDS[1]), indices=[index], norm=norm, output_fmt="NLC", intermediates_only=True)[0]
            for index in indices
        ]
    assert (features(ours(reference, model, layer=layer), GRIDS[1]) - torch.cat(each, dim=-1)).abs().max() < 1e-6


@every_model
def test_built_on_meta_and_filled_nothing_is_lost(model):
    """Rotary frequencies are no part of the state dict."""
    reference = draw(build(model))
    expected = features(reference, GRIDS[1])
    with torch.device("meta"):
        tower = build(model)
    tower = tower.to_empty(device="cpu")
    for buffer in tower.buffers():
        buffer.fill_(float("nan"))
    tower.load_state_dict(reference.state_dict())
    assert torch.equal(features(tower, GRIDS[1]), expected)


@pytest.mark.parametrize(
    "name",
    [
        "vit_tiny_patch16_224",
        "vit_base_patch16_clip_224.openai",
        "vit_large_patch14_reg4_dinov2",
        "eva02_tiny_patch14_336",
        "deit_tiny_patch16_224",
    ],
)
def test_named_fills_in_what_the_model_has(name):
    spec = Timm.named(name)
    with torch.device("meta"):
        tower = spec.build()
        reference = timm.create_model(spec.model, num_classes=0)
    pooling = sum(value.numel() for key, value in reference.named_parameters() if key.startswith(("fc_norm", "attn_pool")))
    assert tower.spec.dim_out == reference.embed_dim
    assert len(tower.vit.blocks) == spec.layers == len(reference.blocks)
    assert (
        sum(parameter.numel() for parameter in tower.parameters())
        == sum(parameter.numel() for parameter in reference.parameters()) - pooling
    )
    assert spec.checkpoint == (name if "." in name else None)
    assert spec.mean == tuple(timm.get_pretrained_cfg(name).mean)


def test_the_defaults_are_the_flagship():
    spec = Timm.named("vit_huge_patch14_clip_quickgelu_378.dfn5b")
    assert spec == Timm(checkpoint="vit_huge_patch14_clip_quickgelu_378.dfn5b")
    with torch.device("meta"):
        assert sum(parameter.numel() for parameter in spec.build().parameters()) == 631_371_520


def test_a_statement_that_timm_contradicts_is_an_error_with_both_numbers():
    with pytest.raises(SpecError, match=r"width 768, timm's vit_small_patch16_224 has 384; heads 12, .* has 6\. Leave numbers out"):
        Timm(model="vit_small_patch16_224", width=768, layers=12, heads=12, patch=16, image_size=224).build()
    with pytest.raises(SpecError, match="prefix 1, timm's vit_base_patch14_reg4_dinov2 has 5"):
        tiny("timm", model="vit_base_patch14_reg4_dinov2").build()
    with pytest.raises(SpecError, match="norms after pooling"):
        build("eva02_base_patch14_224", final_norm=True)
    with pytest.raises(SpecError, match="no prefix tokens"):
        tiny("timm", prefix=0, class_token="keep")


@pytest.mark.parametrize(
    ("name", "match"),
    [
        ("vit_base_patch32_24", "unknown timm model 'vit_base_patch32_24'; did you mean 'vit_base_patch32_2"),
        ("convnext_tinny", "unknown timm model 'convnext_tinny'; did you mean 'convnext_tiny'"),
        ("vit_base_patch16_clip_224.openay", "did you mean 'openai'"),
        ("vit_base_patch16_sapiens2", "not square: 1024x768"),
        ("crossvit_tiny_240", "gives 14x14 features for 240x240 pixels; .* a feature for each square patch"),
    ],
)
def test_what_cannot_be_served_is_refused_with_the_reason(name, match):
    with pytest.raises(SpecError, match=match):
        Timm.named(name)
    with pytest.raises(SpecError, match=match):
        Timm(model=name)


@pytest.mark.parametrize("changes", [{}, {"layer": -2, "final_norm": False}])
@pytest.mark.parametrize("model", ["vit_huge_patch14_clip_quickgelu_378", "eva02_large_patch14_clip_336"])
def test_load_pretrained_from_a_file_of_timm(tmp_path, model, changes):
    """timm's own loading, with a classifier in the file."""
    reference = theirs(model)
    save_file(reference.state_dict() | {"head.weight": torch.zeros(7, 32), "head.bias": torch.zeros(7)}, tmp_path / "model.safetensors")
    spec = tiny("timm", model=model, checkpoint=str(tmp_path / "model.safetensors"), **changes)
    tower = spec.build().eval()
    spec.load_pretrained(tower)
    assert torch.equal(features(tower, GRIDS[1]), features(ours(reference, model, **changes), GRIDS[1]))


@pytest.mark.parametrize(
    ("model", "layer"),
    [("test_vit", -2), ("test_vit2", -1), ("test_vit3", 4), ("vit_tiny_patch16_224", -2), ("eva02_tiny_patch14_336", -3)],
)
def test_what_is_kept_unread_makes_a_tower_whole_again(tmp_path, model, layer):
    """Counted, loaded and saved; no feature depends on it and nothing trains it. Made for other images than timm's own."""
    side = 80
    with torch.device("meta"):
        parameters = sum(value.numel() for value in timm.create_model(model, num_classes=0, img_size=side).parameters())
    reference = timm.create_model(model, num_classes=0, img_size=side, dynamic_img_size=True).eval()
    draw(reference)
    save_file(reference.state_dict(), tmp_path / "model.safetensors")
    few = Timm(model=model, image_size=side, layer=layer, final_norm=False, checkpoint=str(tmp_path / "model.safetensors"))
    whole = few.replace(keep_unused=True)
    assert Timm.from_dict(whole.to_dict()) == whole
    tower, short = (spec.build().eval() for spec in (whole, few))
    for spec, made in ((whole, tower), (few, short)):
        spec.load_pretrained(made)
    assert sum(value.numel() for value in tower.parameters()) == parameters > sum(value.numel() for value in short.parameters())
    found = {name.partition(".")[2]: value for name, value in tower.state_dict().items()}
    assert found.keys() == reference.state_dict().keys()
    assert all(torch.equal(found[name], value) for name, value in reference.state_dict().items())
    grid = Grid(1, 5, 3)
    patches = torch.randn(15, 3 * whole.patch**2, generator=torch.Generator().manual_seed(0))
    tokens = tower(patches, (grid,)).tokens
    assert torch.equal(tokens, short(patches, (grid,)).tokens)
    tokens.sum().backward()
    unread = {id(value) for module in tower.unused() for value in module.parameters()}
    assert all((value.grad is None) == (id(value) in unread) for value in tower.parameters())


def test_only_plain_vision_transformers_keep_what_is_unread():
    with pytest.raises(SpecError, match=r"timm\.keep_unused: of plain vision transformers alone, but convnext_tiny is none"):
        Timm(model="convnext_tiny", keep_unused=True)


@pytest.mark.parametrize("file", ["model.pt", "model.pth", "model.bin", "model.safetensors"])
def test_whole_numbers_are_no_weights(tmp_path, file):
    weights = theirs("vit_base_patch16_224").state_dict()
    weights["blocks.1.norm1.weight"] = weights["blocks.1.norm1.weight"].to(torch.int32)
    (save_file if file.endswith("safetensors") else torch.save)(weights, tmp_path / file)
    spec = tiny("timm", model="vit_base_patch16_224", checkpoint=str(tmp_path / file))
    with pytest.raises(SpecError, match=r"blocks\.1\.norm1\.weight is stored as whole numbers"):
        spec.load_pretrained(spec.build())


def test_weights_that_do_not_fit_are_listed(tmp_path):
    weights = theirs("vit_base_patch16_224").state_dict()
    weights["blocks.7.norm1.weight"] = weights.pop("blocks.1.norm1.weight")
    save_file(weights, tmp_path / "model.safetensors")
    spec = tiny("timm", model="vit_base_patch16_224", checkpoint=str(tmp_path / "model.safetensors"))
    with pytest.raises(SpecError, match=r"missing blocks\.1\.norm1\.weight; unknown blocks\.7\.norm1\.weight"):
        spec.load_pretrained(spec.build())
    narrow = spec.replace(width=16)
    with pytest.raises(SpecError, match="size mismatch"):
        narrow.load_pretrained(narrow.build())
    elsewhere = spec.replace(checkpoint="vit_small_patch16_224.augreg_in1k")
    with pytest.raises(SpecError, match=r"neither a local file nor 'vit_base_patch16_224\.<tag>'"):
        elsewhere.load_pretrained(elsewhere.build())


def test_hooks_are_gone_after_an_error():
    tower = build("vit_base_patch16_224", layer=(-1, 1))
    tower.vit.norm.forward = None
    with pytest.raises(TypeError):
        tower(pixels((GRIDS[0],), 4), (GRIDS[0],))
    assert not any(block._forward_hooks for block in tower.vit.blocks)
