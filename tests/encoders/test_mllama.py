"""Tiles read together, beside transformers' tower of Llama 3.2-Vision."""

import pytest
import torch
from drawn import draw, tiny
from transformers import MllamaVisionConfig, MllamaVisionModel

from vlmkit.encoders import encoders
from vlmkit.features import Grid, GridError, View, tiles_together
from vlmkit.preprocess import Size, policies
from vlmkit.spec import SpecError

SPEC = tiny("mllama", layers=4, global_layers=2, selected=(1, 3, 4))
TILE = SPEC.native_grid
COUNT = 26
"""Tokens of a tile: 5 x 5 patches and the class."""


@pytest.fixture(scope="module")
def both():
    tower = draw(SPEC.build())
    published = MllamaVisionModel(MllamaVisionConfig(**SPEC.numbers())).eval()
    published.load_state_dict(tower.state_dict())
    return tower, published


def views_of(*canvases):
    return tuple(
        View(TILE, image, row, column) for image, (rows, columns) in enumerate(canvases) for row in range(rows) for column in range(columns)
    )


def expected(published, canvases, patches):
    """transformers' features (I, tiles, n, D) of images whose blank tiles are zeros, and how many tiles of each are not."""
    pixels, held = torch.zeros(len(canvases), 4, 3, 20, 20), [rows * columns for rows, columns in canvases]
    tiles = iter(patches.view(-1, 5, 5, 3, 4, 4).permute(0, 3, 1, 4, 2, 5).reshape(-1, 3, 20, 20))
    for image, count in enumerate(held):
        for number in range(count):
            pixels[image, number] = next(tiles)
    ids = torch.tensor([[1 + SPEC.canvases.index(canvas) for canvas in canvases]])
    mask = torch.tensor([[[int(number < count) for number in range(4)] for count in held]])
    return published(pixel_values=pixels[None], aspect_ratio_ids=ids, aspect_ratio_mask=mask).last_hidden_state[0], held


@pytest.mark.parametrize("canvases", [((1, 1),), ((2, 2),), ((1, 3), (1, 1), (2, 2), (4, 1), (1, 3))], ids=str)
def test_features_are_transformers(both, canvases):
    """Measured 3e-6 in features of size 7: the image's own tiles first, then what became of the blank ones."""
    tower, published = both
    views = views_of(*canvases)
    patches = torch.randn(len(views) * 25, 48, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        features = tower(patches, views)
        theirs, held = expected(published, canvases, patches)
    own = [theirs[image, number] for image, count in enumerate(held) for number in range(count)]
    blank = [theirs[image, number] for image, count in enumerate(held) for number in range(count, 4)]
    assert features.grids == (Grid(1, 5, 5, prefix=1),) * (4 * len(canvases))
    assert (features.tokens - torch.cat([*own, *blank])).abs().max() < 2e-5
    assert features.tokens.shape == (4 * len(canvases) * COUNT, 32 * 4)


def test_features_of_a_tile_move_with_its_place_and_with_the_other_tiles(both):
    tower, _ = both
    patches = torch.randn(50, 48, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        wide, high = (tower(patches, views_of(canvas)).tokens[:COUNT] for canvas in ((1, 2), (2, 1)))
        apart = tower(patches, views_of((1, 1), (1, 1))).tokens[:COUNT]
        other = tower(torch.cat([patches[:25], -patches[25:]]), views_of((1, 2))).tokens[:COUNT]
    for changed in (high, apart, other):
        assert (wide - changed).abs().mean() > 0.01


def test_every_block_is_called_once_whatever_the_images(both):
    tower, _ = both
    calls = []
    hooks = [module.register_forward_hook(lambda *given: calls.append(1)) for module in tower.modules() if list(module.parameters(False))]
    for canvases in (((1, 1),), ((2, 2), (1, 1), (1, 3))):
        calls.clear()
        views = views_of(*canvases)
        tower(torch.randn(len(views) * 25, 48), views)
        assert len(calls) == len(hooks), "each module with parameters of its own"
    for hook in hooks:
        hook.remove()


def test_gradients_are_the_same_with_checkpointing():
    tower = draw(SPEC.build()).train()
    views = views_of((1, 2), (1, 1))
    patches = torch.randn(75, 48, generator=torch.Generator().manual_seed(0))
    found = []
    for recompute in (False, True):
        tower.set_gradient_checkpointing(recompute)
        tower.zero_grad()
        tower(patches, views).tokens.square().mean().backward()
        found.append({name: parameter.grad.clone() for name, parameter in tower.named_parameters()})
    for name, gradient in found[0].items():
        assert gradient.abs().max() > 0, name
        assert torch.allclose(gradient, found[1][name], atol=1e-7), name


def test_half_precision(both):
    """bfloat16 keeps 8 bits: measured 0.01 of the features' norm."""
    tower, views = both[0], views_of((1, 2), (1, 1))
    patches = torch.randn(75, 48, generator=torch.Generator().manual_seed(0))
    half = draw(SPEC.build()).bfloat16()
    with torch.no_grad():
        full, less = tower(patches, views).tokens, half(patches, views).tokens
    assert less.dtype == torch.bfloat16
    assert (less - full).norm() / full.norm() < 0.04


def test_a_picture_of_the_whole_image_is_an_image_of_its_own():
    views = (View(TILE, 0, -1, -1), *views_of((2, 2)), View(TILE, 1, -1, -1))
    assert tiles_together(views) == (range(1), range(1, 5), range(5, 6))
    with pytest.raises(GridError, match="the first view of a batch is the tile at row 0 and column 1"):
        tiles_together(views[2:])


@pytest.mark.parametrize(("canvas", "count"), [((2, 3), 6), ((5, 1), 5)])
def test_canvases_that_the_tower_does_not_know_are_refused(both, canvas, count):
    rows, columns = canvas
    with pytest.raises(GridError, match=f"4 at most, but image 0 has {count} on a canvas of {rows}x{columns}"):
        both[0](torch.zeros(count * 25, 48), views_of(canvas))
    plan = policies["canvas_tiles"](size=20, tiles=6).plan(Size(20 * rows, 20 * columns))
    assert plan.renders[0].tile_grid == canvas
    with pytest.raises(GridError, match=f"but image 0 has {count}"):
        SPEC.check_tiles(plan)


def test_a_checkpoint_is_read_and_one_that_does_not_fit_is_refused(both, tmp_path):
    both[1].save_pretrained(tmp_path)
    spec = SPEC.replace(checkpoint=str(tmp_path))
    tower = spec.build()
    spec.load_pretrained(tower)
    assert all(torch.equal(value, both[0].state_dict()[name]) for name, value in tower.state_dict().items())
    other = spec.replace(heads=2)
    with pytest.raises(SpecError, match="attention_heads is 4, the spec says 2"):
        other.load_pretrained(other.build())
    with pytest.raises(SpecError, match=r"mllama\.checkpoint: no checkpoint is named"):
        SPEC.load_pretrained(tower)


def test_the_published_towers_numbers_are_the_defaults():
    assert encoders["mllama"].from_config(MllamaVisionConfig(image_size=560)) == encoders["mllama"]()
    with pytest.raises(SpecError, match=r"supported_aspect_ratios: with max_num_tiles=4 the canvases are"):
        encoders["mllama"].from_config(MllamaVisionConfig(supported_aspect_ratios=[[1, 1], [2, 1]]))


@pytest.mark.parametrize(
    "changes", [{"tiles": 0}, {"heads": 5}, {"selected": ()}, {"selected": (9,)}, {"image_size": 3}, {"global_layers": 0}], ids=str
)
def test_numbers_that_make_no_tower_are_refused(changes):
    with pytest.raises(SpecError, match=f"mllama.{next(iter(changes))}"):
        tiny("mllama", **changes)
