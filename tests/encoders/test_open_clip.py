"""OpenCLIP towers beside open_clip's own class, timm and transformers, all with the same weights."""

import open_clip
import pytest
import torch
from drawn import TINY, draw, open_clip_to_timm, open_clip_to_transformers, patchify, pixels, tiny
from open_clip.model import CLIPVisionCfg, _build_vision_tower
from safetensors.torch import save_file

from vlmkit.encoders.open_clip import OpenClip
from vlmkit.features import Grid
from vlmkit.spec import SpecError

GRIDS = [Grid(1, 5, 5), Grid(1, 3, 8), Grid(1, 9, 2), Grid(1, 10, 10)]
VISION = {"width": 32, "layers": 3, "head_width": 8, "patch_size": 4, "image_size": 20}
REFUSED = {
    "ViT-B-16-SigLIP": "is timm's: use the encoder 'timm' with model='vit_base_patch16_siglip_224'",
    "RN50": "a ResNet",
    "coca_ViT-B-32": "pools by attention",
    "ViT-H-14-378-quickgelo": "did you mean 'ViT-H-14-378-quickgelu'",
}


def theirs(**changes):
    """open_clip's vision tower, drawn."""
    return draw(_build_vision_tower(16, CLIPVisionCfg(**(VISION | changes)), quick_gelu=True))


def ours(weights, **changes):
    tower = tiny("open_clip", **changes).build().eval()
    needed = {name: weights[name] for name in tower.state_dict()}
    tower.load_state_dict(needed)
    return tower


def images(grid, count=2):
    return torch.randn(count, 3, grid.rows * 4, grid.columns * 4, generator=torch.Generator().manual_seed(3))


def features(tower, grid):
    with torch.no_grad():
        tokens = tower(patchify(images(grid), 4), (grid, grid)).tokens
    return tokens.view(2, -1, tower.spec.dim_out)


def test_the_flagship_has_exactly_its_parameters():
    with torch.device("meta"):
        tower = OpenClip.named("ViT-H-14-378-quickgelu", tag="dfn5b").build()
    assert sum(parameter.numel() for parameter in tower.parameters()) == 631_371_520
    assert tower.spec == OpenClip(checkpoint="ViT-H-14-378-quickgelu/dfn5b")
    assert tower.spec.grid_out(Grid(1, 28, 28)) == Grid(1, 28, 28)


def test_features_are_open_clips_output_tokens():
    """Measured 0: the same modules in the same order."""
    visual = theirs()
    visual.output_tokens = True
    with torch.no_grad():
        _, tokens = visual(images(GRIDS[0]))
    assert (features(ours(visual.state_dict()), GRIDS[0]) - tokens).abs().max() < 1e-5


@pytest.mark.parametrize("layer", [-1, -2, 1])
@pytest.mark.parametrize("final_norm", [True, False])
def test_layers_norm_and_class_token_are_open_clips_intermediates(layer, final_norm):
    """Measured 0: the same modules in the same order."""
    visual = theirs()
    with torch.no_grad():
        out = visual.forward_intermediates(
            images(GRIDS[0]),
            indices=[layer if layer < 0 else layer - 1],
            normalize_intermediates=final_norm,
            output_fmt="NLC",
            output_extra_tokens=True,
        )
    expected = torch.cat([out["image_intermediates_prefix"][0], out["image_intermediates"][0]], dim=1)
    kept = features(ours(visual.state_dict(), layer=layer, final_norm=final_norm, class_token="keep"), GRIDS[0])
    dropped = features(ours(visual.state_dict(), layer=layer, final_norm=final_norm), GRIDS[0])
    assert (kept - expected).abs().max() < 1e-5
    assert torch.equal(kept[:, 1:], dropped)


@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_the_same_tower_in_timm_at_any_grid(grid):
    """Measured 1.2e-6 in features of size 3."""
    import timm

    visual = theirs()
    model = timm.create_model(
        "vit_huge_patch14_clip_quickgelu_378",
        num_classes=0,
        embed_dim=32,
        depth=3,
        num_heads=4,
        patch_size=4,
        img_size=20,
        dynamic_img_size=True,
    )
    model.load_state_dict(open_clip_to_timm(visual.state_dict()))
    with torch.no_grad():
        expected = model.eval().forward_features(images(grid))[:, 1:]
    assert (features(ours(visual.state_dict()), grid) - expected).abs().max() < 1e-5


@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_the_same_tower_in_transformers_at_any_grid(grid):
    """Measured 1.3e-6 in features of size 3, with the filter of transformers."""
    from transformers import CLIPVisionConfig, CLIPVisionModel

    visual = theirs()
    numbers = {
        "hidden_size": 32,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "intermediate_size": 128,
        "patch_size": 4,
        "image_size": 20,
    }
    model = CLIPVisionModel(CLIPVisionConfig(**numbers, hidden_act="quick_gelu")).eval()
    model.load_state_dict(open_clip_to_transformers(visual.state_dict()))
    with torch.no_grad():
        expected = model.post_layernorm(model(images(grid), interpolate_pos_encoding=True).last_hidden_state)[:, 1:]
    assert (features(ours(visual.state_dict(), positions="bicubic"), grid) - expected).abs().max() < 1e-5
    if min(grid.rows, grid.columns) < 5:
        assert (features(ours(visual.state_dict()), grid) - expected).abs().max() > 0.1, "the filters differ where they shrink the table"


def test_the_activation_matters():
    visual = theirs()
    assert (
        features(ours(visual.state_dict()), GRIDS[0]) - features(ours(visual.state_dict(), activation="gelu"), GRIDS[0])
    ).abs().max() > 0.01


@pytest.mark.parametrize(
    ("vision", "spec"),
    [
        ({"no_ln_pre": True, "pool_type": "avg", "final_ln_after_pool": True}, {"pre_norm": False, "final_norm": False}),
        ({"ls_init_value": 0.1}, {"layer_scale": 0.1}),
        ({"mlp_ratio": 4.9231}, {"mlp_ratio": 4.9231}),
        ({"norm_kwargs": {"eps": 0.1}}, {"norm_eps": 0.1}),
    ],
)
def test_variants_are_open_clips(vision, spec):
    """CLIPA's norms, layer scale, bigG's MLP. Measured 0."""
    visual = theirs(**vision, output_tokens=True)
    with torch.no_grad():
        _, tokens = visual(images(GRIDS[0]))
    assert (features(ours(visual.state_dict(), **spec), GRIDS[0]) - tokens).abs().max() < 1e-5


def test_every_open_clip_vision_transformer_is_built_with_its_parameters():
    """On meta, each architecture once: open_clip's own tower without the projection, and without a final norm that only
    pooling uses."""
    specs, refused = {}, []
    for name in open_clip.list_models():
        try:
            specs.setdefault(OpenClip.named(name), []).append(name)
        except SpecError:
            refused.append(name)
    for spec, (name, *_) in specs.items():
        config = open_clip.get_model_config(name)
        with torch.device("meta"):
            visual = _build_vision_tower(config["embed_dim"], config["vision_cfg"], config.get("quick_gelu", False))
            tower = spec.build()
        unused = ("proj",) if spec.final_norm else ("proj", "ln_post.weight", "ln_post.bias")
        expected = {name: parameter.shape for name, parameter in visual.named_parameters() if name not in unused}
        assert {name: parameter.shape for name, parameter in tower.named_parameters()} == expected, name
    assert sum(map(len, specs.values())) == 54
    assert len(refused) == 90


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_plain_vision_transformer_is_refused(name):
    with pytest.raises(SpecError, match=REFUSED[name]):
        OpenClip.named(name)


def test_a_checkpoint_settles_its_constants_and_its_activation():
    assert OpenClip.named("ViT-L-14-CLIPA", tag="datacomp1b").mean == (0.485, 0.456, 0.406)
    assert OpenClip.named("ViT-L-14", tag="openai", activation="quick_gelu").checkpoint == "ViT-L-14/openai"
    with pytest.raises(SpecError, match=r"trained with quick_gelu, but the tower has activation='gelu'. Use ViT-H-14-378-quickgelu"):
        OpenClip.named("ViT-H-14-378", tag="dfn5b")
    with pytest.raises(SpecError, match=r"no checkpoint 'dfn5' of 'ViT-H-14-378-quickgelu'; did you mean 'dfn5b'\? known: dfn5b"):
        OpenClip.named("ViT-H-14-378-quickgelu", tag="dfn5")


@pytest.mark.parametrize("form", ["clip.pt", "visual.safetensors", "directory"])
@pytest.mark.parametrize("changes", [{}, {"layer": -2, "final_norm": False}])
def test_load_pretrained_from_a_file_of_open_clip(tmp_path, form, changes):
    config = {
        "embed_dim": 16,
        "vision_cfg": CLIPVisionCfg(**VISION),
        "text_cfg": open_clip.CLIPTextCfg(vocab_size=9, width=8, heads=2, layers=1),
    }
    model = draw(open_clip.CLIP(**config, quick_gelu=True))
    path = tmp_path / form
    if form == "clip.pt":
        torch.save({"state_dict": {f"module.{name}": value for name, value in model.state_dict().items()}}, path)
    else:
        path = path / "weights.safetensors" if form == "directory" else path
        path.parent.mkdir(exist_ok=True)
        save_file(model.visual.state_dict(), path)
    spec = tiny("open_clip", checkpoint=str(tmp_path / form), **changes)
    tower = spec.build().eval()
    spec.load_pretrained(tower)
    assert torch.equal(features(tower, GRIDS[1]), features(ours(model.visual.state_dict(), **changes), GRIDS[1]))
    with torch.device("meta"):
        meta = spec.build().eval()
    spec.load_pretrained(meta)
    assert torch.equal(features(meta, GRIDS[1]), features(tower, GRIDS[1]))


@pytest.mark.parametrize("file", ["visual.pt", "visual.pth", "visual.bin", "visual.safetensors"])
def test_whole_numbers_are_no_weights(tmp_path, file):
    weights = theirs().state_dict()
    weights |= {"ln_pre.weight": weights["ln_pre.weight"].to(torch.int32)}
    (save_file if file.endswith("safetensors") else torch.save)(weights, tmp_path / file)
    spec = tiny("open_clip", checkpoint=str(tmp_path / file))
    with pytest.raises(SpecError, match=r"ln_pre\.weight is stored as whole numbers \(torch\.int32\)"):
        spec.load_pretrained(spec.build())


def test_weights_that_do_not_fit_are_listed(tmp_path):
    weights = theirs(image_size=24, no_ln_pre=True).state_dict() | {"extra.weight": torch.zeros(3)}
    save_file(weights, tmp_path / "other.safetensors")
    spec = tiny("open_clip", checkpoint=str(tmp_path / "other.safetensors"))
    with pytest.raises(SpecError) as error:
        spec.load_pretrained(spec.build())
    for part in ("missing ln_pre.weight (32,)", "unknown extra.weight (3,)", "positional_embedding is (37, 32), the tower has (26, 32)"):
        assert part in str(error.value)


def test_native_pixels_through_the_whole_way():
    """uint8 patches of several sizes, one call: shapes only; values are above."""
    tower = draw(tiny("open_clip", class_token="keep").build())
    grids = (GRIDS[1], GRIDS[0], GRIDS[1])
    out = tower(pixels(grids, TINY["open_clip"]["patch"]), grids)
    assert [grid.tokens for grid in out.grids] == [25, 26, 25]
    assert out.tokens.shape == (76, 32)


@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_a_tower_without_a_class_token_is_open_clips_blocks_on_patches_alone(grid):
    """Measured 1e-6 in features of size 10: each view by itself through open_clip's own norm and blocks."""
    visual = theirs()
    weights = dict(visual.state_dict())
    table = weights["positional_embedding"] = weights["positional_embedding"][1:]
    tower = ours(weights, class_token="none", final_norm=False, positions="bicubic")
    assert tower.class_embedding is None
    assert tower.spec.grid_out(grid) == grid
    image = table.T.reshape(1, 32, 5, 5)
    resampled = torch.nn.functional.interpolate(image, size=(grid.rows, grid.columns), mode="bicubic")[0].flatten(1).T
    with torch.no_grad():
        tokens = visual.conv1(images(grid)).flatten(2).mT + resampled
        expected = visual.transformer(visual.ln_pre(tokens))
    assert (features(tower, grid) - expected).abs().max() < 1e-5
