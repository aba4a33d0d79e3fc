"""Laws of every registered encoder."""

import copy
import subprocess
import sys
from functools import partial

import open_clip
import pytest
import torch
from drawn import TINY, draw, patchify, tiny
from drawn import pixels as pixels_of
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from vlmkit.encoders import encoders
from vlmkit.encoders.base import BlockEncoder, Encoder, ViT
from vlmkit.encoders.by_size import BySizeTower, unpatchify
from vlmkit.features import Grid, GridError
from vlmkit.recompute import recompute
from vlmkit.spec import SpecError

KINDS = encoders.names()
WITH_BLOCKS = [kind for kind in KINDS if issubclass(encoders[kind], BlockEncoder)]
WITH_A_TABLE = [kind for kind in KINDS if issubclass(encoders[kind], ViT)]
GRIDS, FILMS = (
    st.lists(st.builds(Grid, frames, st.integers(1, 8), st.integers(1, 8)), min_size=1, max_size=6).map(tuple)
    for frames in (st.just(1), st.integers(1, 3))
)
NATIVE = Grid(1, 5, 5)
TILES = ("mllama",)
"""They read tiles, which are all of one size."""


def two_views(kind):
    return (NATIVE if kind in TILES else Grid(1, 3, 4), NATIVE)


def pixels(kind, grids, seed=0):
    """(N, 3*t*4*4) uint8 patches as the tiny tower of a kind takes them."""
    return pixels_of(grids, 4, seed, encoders[kind].patch_frames)


every_kind = pytest.mark.parametrize("kind", KINDS)
with_blocks = pytest.mark.parametrize("kind", WITH_BLOCKS)
with_a_table = pytest.mark.parametrize("kind", WITH_A_TABLE)


@pytest.fixture(scope="module")
def towers():
    return {kind: draw(tiny(kind).build()) for kind in KINDS}


def test_the_catalogue_is_whole():
    assert (
        KINDS
        == [
            "aimv2",
            "clip",
            "intern_vit",
            "mllama",
            "open_clip",
            "patches",
            "pixtral",
            "qwen2_vl",
            "siglip",
            "siglip2",
            "siglip_rotary",
            "timm",
        ]
        == sorted(TINY)
    )
    assert WITH_BLOCKS == ["aimv2", "clip", "intern_vit", "open_clip", "pixtral", "qwen2_vl", "siglip", "siglip2", "siglip_rotary", "timm"]
    assert WITH_A_TABLE == ["aimv2", "clip", "intern_vit", "open_clip", "siglip", "siglip2", "timm"]
    for kind in KINDS:
        assert encoders[kind].kind == kind


def test_numbers_are_known_without_the_libraries():
    code = f"""
import sys
from vlmkit.encoders import encoders
from vlmkit.features import Grid
for kind in {KINDS}:
    spec = encoders[kind]()
    print(kind, spec.patch_size, spec.dim_out, spec.grid_out(getattr(spec, "native_grid", Grid(1, 3, 4))))
assert not {{"open_clip", "timm", "torchvision", "transformers.models"}} & set(sys.modules)
"""
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert printed.splitlines() == [
        "aimv2 14 1024 24x24",
        "clip 14 1024 24x24",
        "intern_vit 14 3200 32x32",
        "mllama 14 7680 40x40 + 1",
        "open_clip 14 1280 27x27",
        "patches 30 2700 3x4",
        "pixtral 16 1024 3x4",
        "qwen2_vl 14 1280 3x4",
        "siglip 14 1152 27x27",
        "siglip2 16 768 16x16",
        "siglip_rotary 14 1152 3x4",
        "timm 14 1280 27x27",
    ]


@every_kind
def test_json_round_trip(kind):
    changes = {"layer": (-1, 1), "checkpoint": "a/b"} if kind in WITH_BLOCKS else {}
    for spec in (encoders[kind](), tiny(kind, **changes)):
        assert Encoder.from_json(spec.to_json()) == spec


@every_kind
@given(data=st.data(), seed=st.integers(0, 99))
@settings(max_examples=15, deadline=None)
def test_views_together_are_views_alone(towers, kind, data, seed):
    """In double precision: a product of matrices of other heights rounds otherwise, in single precision by up to 2.4e-6, which would hide
    what a view takes of its neighbours. A tower of tiles gives what blank ones are behind all views."""
    tower = copy.deepcopy(towers[kind]).double()
    grids = data.draw(
        st.lists(st.just(NATIVE), min_size=1, max_size=4).map(tuple) if kind in TILES else FILMS if tower.spec.clips else GRIDS
    )
    patches = pixels(kind, grids, seed)
    with torch.no_grad():
        together = tower(patches, grids)
        assert together.grids[: len(grids)] == tuple(tower.spec.grid_out(grid) for grid in grids)
        assert (len(together.grids) > len(grids)) == (kind in TILES)
        for mine, piece, grid in zip(together.views(), patches.split([grid.tokens for grid in grids]), grids, strict=kind not in TILES):
            alone = tower(piece, (grid,)).views()[0]
            assert mine.shape == (tower.spec.grid_out(grid).tokens, tower.spec.dim_out) == alone.shape
            assert (mine - alone).abs().max() < 2e-6


@every_kind
def test_a_tensor_of_grids_and_a_tuple_are_the_same(towers, kind):
    grids = two_views(kind)
    patches = pixels(kind, grids)
    numbers = torch.tensor([[1, grid.rows, grid.columns] for grid in grids])
    assert torch.equal(towers[kind](patches, grids).tokens, towers[kind](patches, numbers).tokens)


@every_kind
def test_pixels_are_normalised_and_floats_are_taken_as_they_are(towers, kind):
    """Measured 5e-7 before the tower."""
    tower, patches = towers[kind], pixels(kind, (NATIVE,))
    mean, std = (torch.tensor(values).repeat_interleave(tower.spec.values // 3) for values in (tower.spec.mean, tower.spec.std))
    normalised = (patches / 255 - mean) / std
    assert (tower.normalise(patches) - normalised).abs().max() < 1e-6
    assert torch.equal(tower(tower.normalise(patches), (NATIVE,)).tokens, tower(patches, (NATIVE,)).tokens)
    assert torch.equal(tower.normalise(normalised), normalised)


@with_blocks
def test_features_move_with_the_image_and_with_its_place(towers, kind):
    tower = towers[kind]
    grid = Grid(1, 3, 4)
    one, other = pixels(kind, (grid,), 1), pixels(kind, (grid,), 2)
    with torch.no_grad():
        features = tower(one, (grid,)).tokens
        assert (features - tower(other, (grid,)).tokens).abs().mean() > 0.1
        flipped = tower(one.flip(0), (grid,)).tokens.flip(0)
        assert (features - flipped).abs().mean() > 0.05


@every_kind
def test_patches_land_where_they_were_cut(towers, kind):
    """A tower sees the image that was cut, not a transposed or shuffled one."""
    seen = []
    tower = copy.deepcopy(towers[kind])
    grid = NATIVE if kind in TILES else Grid(1, 3, 5)
    tower.encode = lambda patches, views: (seen.append((patches, views)), torch.zeros(2 * tower.spec.grid_out(grid).tokens, 1))[1]
    tower.beside = lambda views: ()
    frames = torch.randn(tower.spec.patch_frames, 2, 3, 4 * grid.rows, 20)
    cut = torch.stack([patchify(images, 4).unflatten(1, (3, -1)) for images in frames], dim=2).flatten(1)
    tower(cut, (grid,) * 2)
    ((patches, views),) = seen
    pieces = patches.split([view.grid.tokens for view in views])
    for number, images in enumerate(frames):
        of_frame = [piece.unflatten(1, (3, len(frames), -1))[:, :, number].flatten(1) for piece in pieces]
        assert torch.equal(torch.stack([unpatchify(piece, view.grid, 4) for piece, view in zip(of_frame, views, strict=True)]), images)


@with_blocks
def test_half_precision(towers, kind):
    """bfloat16 keeps 8 bits: measured 0.009 of the features' norm."""
    tower = copy.deepcopy(towers[kind]).bfloat16()
    grids = (Grid(1, 3, 4), NATIVE)
    with torch.no_grad():
        half, full = tower(pixels(kind, grids), grids).tokens, towers[kind](pixels(kind, grids), grids).tokens
    assert half.dtype == tower.dtype == torch.bfloat16
    assert (half - full).norm() / full.norm() < 0.03


@every_kind
def test_a_state_dict_is_all_there_is(towers, kind):
    """Built on meta and filled, as transformers' from_pretrained does."""
    with torch.device("meta"):
        tower = tiny(kind).build()
    assert all(value.is_meta for value in tower.state_dict().values())
    tower = tower.to_empty(device="cpu").eval()
    tower.load_state_dict(towers[kind].state_dict())
    grids = two_views(kind)
    assert torch.equal(tower(pixels(kind, grids), grids).tokens, towers[kind](pixels(kind, grids), grids).tokens)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "patches"])
def test_weights_have_the_librarys_names_and_shapes(kind):
    """So checkpoints are read as they are published, and those that vlmkit wrote before stay readable."""
    spec = tiny(kind, **({"keep_unused": True} if hasattr(encoders[kind], "keep_unused") else {}))
    vit = partial(open_clip.transformer.VisionTransformer, 20, 4, 32, 3, 4, mlp_ratio=4, output_dim=1)
    library = vit() if kind == "open_clip" else spec.make()
    needed = getattr(spec, "needs", lambda name: name != "proj")
    named = {name: value.shape for name, value in library.state_dict().items() if needed(name)}
    outer = "vit." if kind == "timm" else ""
    assert {name: value.shape for name, value in spec.build().state_dict().items()} == {outer + name: named[name] for name in named}


@with_blocks
def test_blocks_above_the_selected_layer_are_not_there(towers, kind):
    def parameters(**changes):
        return sum(parameter.numel() for parameter in tiny(kind, **changes).build().parameters())

    assert parameters() - parameters(layer=-2) == parameters(layer=2) - parameters(layer=1) > 8 * 32 * 32
    assert parameters(layer=2) == parameters(layer=-2) == parameters(layer=(2, 1))


@with_blocks
def test_several_layers_are_joined_in_the_order_given(kind):
    grids = (Grid(1, 3, 4), NATIVE)
    both = draw(tiny(kind, layer=(-1, 1)).build())
    first = tiny(kind, layer=1).build().eval()
    first.load_state_dict({name: value for name, value in both.state_dict().items() if name in first.state_dict()})
    last = tiny(kind).build().eval()
    last.load_state_dict(both.state_dict())
    joined = torch.cat([last(pixels(kind, grids), grids).tokens, first(pixels(kind, grids), grids).tokens], dim=-1)
    assert both.spec.dim_out == 64
    assert torch.allclose(both(pixels(kind, grids), grids).tokens, joined, atol=1e-6)


@with_a_table
def test_the_final_norm_is_a_choice_and_unused_it_is_not_kept(towers, kind):
    bare = tiny(kind, final_norm=False).build().eval()
    normed = tiny(kind, final_norm=True).build().eval()
    draw(normed)
    missing, unexpected = bare.load_state_dict(normed.state_dict(), strict=False)
    assert not missing
    norm = next(
        module for name, module in normed.named_modules() if name in ("layernorm", "ln_post", "post_layernorm", "rms_norm", "vit.norm")
    )
    assert len(unexpected) == len(list(norm.parameters())) > 0
    grids = (Grid(1, 3, 4), NATIVE)
    tokens = pixels(kind, grids)
    assert torch.allclose(norm(bare(tokens, grids).tokens), normed(tokens, grids).tokens, atol=1e-6)


@with_blocks
def test_gradients_are_the_same_with_checkpointing(towers, kind):
    grids = (Grid(1, 3, 4), NATIVE)

    def gradients(tower):
        tower.zero_grad()
        tower(pixels(kind, grids), grids).tokens.square().mean().backward()
        return {name: parameter.grad.clone() for name, parameter in tower.named_parameters()}

    tower = copy.deepcopy(towers[kind]).train()
    plain = gradients(tower)
    calls = count_blocks(tower)
    gradients(tower)
    often = len(grids) if isinstance(tower, BySizeTower) else 1
    assert len(calls) == 3 * often, "each block runs once, whatever the number of grids"
    tower.set_gradient_checkpointing(True)
    recomputed = gradients(tower)
    assert len(calls) == 3 * 3 * often, "each block runs once forward and once more backward"
    for name, gradient in plain.items():
        assert gradient.abs().max() > 0, name
        assert torch.allclose(gradient, recomputed[name], atol=1e-7), name
    tower.eval()
    with torch.no_grad():
        tower(pixels(kind, grids), grids)
    assert len(calls) == 4 * 3 * often


def count_blocks(tower: nn.Module) -> list[str]:
    """Names of attention modules as they are run. A list that grows."""
    calls: list[str] = []
    for name, module in tower.named_modules():
        if name.endswith(("attn", "self_attn", "attention")):
            module.register_forward_hook(lambda module, args, output, name=name: calls.append(name))
    return calls


@with_blocks
def test_transformers_switches_recomputing_on(towers, kind):
    from transformers import PretrainedConfig, PreTrainedModel

    class Outer(PreTrainedModel):
        config_class = PretrainedConfig
        supports_gradient_checkpointing = True

        def __init__(self, tower):
            super().__init__(PretrainedConfig())
            self.tower = tower

    outer = Outer(copy.deepcopy(towers[kind])).train()
    calls = count_blocks(outer)
    recompute(outer)
    outer.tower(pixels(kind, (NATIVE,)), (NATIVE,)).tokens.sum().backward()
    assert len(calls) == 6
    recompute(outer, False)
    outer.tower(pixels(kind, (NATIVE,)), (NATIVE,)).tokens.sum().backward()
    assert len(calls) == 9


@with_a_table
def test_a_tower_of_fixed_size_refuses_other_sizes_before_anything_runs(kind):
    spec = tiny(kind, positions="fixed")
    assert spec.grid_out(NATIVE) == NATIVE
    with pytest.raises(GridError, match=r"takes 20x20 pixels \(a 5x5 grid of 4x4 patches\), but the view is a 3x4 grid. Use positions="):
        spec.grid_out(Grid(1, 3, 4))
    with pytest.raises(GridError, match="20x20"):
        spec.build()(pixels(kind, (Grid(1, 3, 4),)), (Grid(1, 3, 4),))


@every_kind
def test_what_no_tower_can_take_is_said(towers, kind):
    tower = towers[kind]
    if not tower.spec.clips:
        with pytest.raises(GridError, match="one still view at a time"):
            tower.spec.grid_out(Grid(2, 5, 5))
    with pytest.raises(ValueError, match="hold 25 patches, but pixel_values has 24"):
        tower(pixels(kind, (NATIVE,))[1:], (NATIVE,))
    assert tower(pixels(kind, ()), ()).tokens.shape == (0, tower.spec.dim_out)


@every_kind
def test_patches_of_another_models_processor_are_refused_with_both_sizes(towers, kind):
    side = towers[kind].spec.patch_size
    deep = "" if towers[kind].spec.patch_frames == 1 else r" of 2 frames"
    takes = rf"takes {towers[kind].spec.values} values \({side}x{side}x3{deep}\)"
    with pytest.raises(ValueError, match=rf"hold 75 values \(5x5x3\), encoder '{kind}' {takes}; .* this model's processor\?"):
        towers[kind](torch.zeros(4, 75), (Grid(1, 2, 2),))


@with_blocks
def test_numbers_that_no_tower_has_are_refused(kind):
    wrong = {"layer": 4, "layers": 0, "patch": 0}
    wrong |= {"image_size": 3} if kind in WITH_A_TABLE else {}
    wrong |= {"heads": 5} if kind != "timm" else {}
    for field, value in wrong.items():
        with pytest.raises(SpecError, match=f"{kind}.{field}"):
            tiny(kind, **{field: value})
    for layer in (-5, (), (-1, 4), *((0, -4, (-1, 0)) if kind == "timm" else ())):
        with pytest.raises(SpecError, match=f"{kind}.layer"):
            tiny(kind, layer=layer)


@every_kind
def test_dropout_is_off(towers, kind):
    tower = copy.deepcopy(towers[kind]).train()
    patches = pixels(kind, (NATIVE,))
    assert torch.allclose(tower(patches, (NATIVE,)).tokens, towers[kind](patches, (NATIVE,)).tokens, atol=1e-5)


@with_blocks
def test_without_a_checkpoint_nothing_is_loaded(towers, kind):
    with pytest.raises(SpecError, match=f"{kind}.checkpoint: no checkpoint is named"):
        tiny(kind).load_pretrained(towers[kind])


def test_defaults_are_what_their_docstrings_say():
    assert encoders["timm"]().dim_out == encoders["open_clip"]().dim_out == 1280
    assert [encoders[kind]().native_grid.tokens for kind in WITH_A_TABLE] == [24**2, 24**2, 32**2, 27**2, 27**2, 16**2, 27**2]
    assert encoders["siglip"]().mean == (0.5, 0.5, 0.5)
