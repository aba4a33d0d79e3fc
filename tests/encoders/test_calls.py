"""Which modules of a tower are called, and which of its weights learn.

Ranks whose weights are sharded wait for one another at each of these calls.
"""

from collections import Counter

import pytest
from drawn import draw, pixels, tiny

from vlmkit.encoders import encoders
from vlmkit.encoders.base import BlockEncoder
from vlmkit.encoders.by_size import BySizeTower
from vlmkit.encoders.unused import freeze_unused
from vlmkit.features import Grid, View

KINDS = encoders.names()
WITH_BLOCKS = [kind for kind in KINDS if issubclass(encoders[kind], BlockEncoder)]
TILE = Grid(1, 5, 5)
"""What every tiny tower takes; one that reads tiles takes no other."""
TEN = tuple(Grid(1, rows, 1 + rows % 4) for rows in range(1, 11))
LAYERS = [-1, -2, (-1, -3)]


def mixtures(spec):
    """Views of one batch: some of every sort."""
    blank = {"a blank view": (View(spec.smallest(2)),)}
    if spec.reads_places:
        canvases = [((0, 0),), ((0, 0), (0, 1)), ((0, 0), (1, 0), (2, 0))]
        several = tuple(View(TILE, image, *place) for image, tiles in enumerate(canvases) for place in tiles)
        return blank | {"one view": (View(TILE),), "several canvases": several}
    return blank | {"one view": (View(TILE),), "equal views": (View(TILE),) * 3, "ten sizes": tuple(View(grid) for grid in TEN)}


def pixels_of(tower, views):
    return pixels(tuple(view.grid for view in views), tower.spec.patch_size, frames=tower.spec.patch_frames)


def calls(tower, views):
    """How often each module that has parameters of its own is called, by name."""
    found = Counter()
    hooks = [
        module.register_forward_hook(lambda module, args, output, name=name: found.update([name]))
        for name, module in tower.named_modules()
        if next(module.parameters(recurse=False), None) is not None
    ]
    tower(pixels_of(tower, views), views)
    for hook in hooks:
        hook.remove()
    return found


def with_layers(kinds):
    return [(kind, layer) for kind in kinds for layer in (LAYERS if kind in WITH_BLOCKS else [None])]


@pytest.mark.parametrize(("kind", "layer"), with_layers(kind for kind in KINDS if kind != "timm"), ids=str)
def test_each_module_is_called_once_whatever_the_views(kind, layer):
    """The tower itself has parameters where it holds a class token."""
    tower = draw(tiny(kind, **({} if layer is None else {"layer": layer})).build())
    assert not isinstance(tower, BySizeTower)
    seen = {name: calls(tower, views) for name, views in mixtures(tower.spec).items()}
    assert len(seen) >= 3
    for name, found in seen.items():
        owners = {owner for owner, module in tower.named_modules() if next(module.parameters(recurse=False), None) is not None}
        assert found == dict.fromkeys(owners, 1), name


@pytest.mark.parametrize("layer", LAYERS, ids=str)
def test_a_tower_that_goes_by_size_calls_its_blocks_once_a_size(layer):
    tower = draw(tiny("timm", layer=layer).build())
    once = calls(tower, (View(TILE),))
    blocks = {name for name in once if name.startswith("vit.blocks")}
    assert {once[name] for name in blocks} == {1}
    assert {name.split(".")[2] for name in blocks} == {str(block) for block in range(max(tower.spec.depths))}
    for name, views in mixtures(tower.spec).items():
        sizes = len({view.grid for view in views})
        assert calls(tower, views) == {module: sizes * count for module, count in once.items()}, name


def learning(kind):
    """Changes under which a kind's tower is looked at: with what is unused left out, and kept where it can be."""
    layers = [{"layer": layer} for layer in (*LAYERS, 1)] if kind in WITH_BLOCKS else [{}]
    kept = [changes | {"keep_unused": True} for changes in layers] if hasattr(encoders[kind], "keep_unused") else []
    return [(kind, changes) for changes in layers + kept]


NORMLESS = ("intern_vit",)
"""Kinds whose towers are built without a final norm, which then cannot lie unused."""


@pytest.mark.parametrize(("kind", "changes"), [case for kind in KINDS if kind != "patches" for case in learning(kind)], ids=str)
def test_what_is_unused_gets_no_gradient_and_all_else_does(kind, changes):
    tower = draw(tiny(kind, **changes).build())
    unused = {id(parameter) for module in tower.unused() for parameter in module.parameters()}
    views = list(mixtures(tower.spec).values())[-1]
    tower(pixels_of(tower, views), views).tokens.square().mean().backward()
    named = dict(tower.named_parameters())
    assert {name for name, parameter in named.items() if parameter.grad is None} == {
        name for name, parameter in named.items() if id(parameter) in unused
    }
    assert all(parameter.grad.abs().max() > 0 for parameter in named.values() if parameter.grad is not None)
    is_last = max(getattr(tower.spec, "depths", (0,))) == getattr(tower.spec, "layers", 0)
    if not changes.get("keep_unused"):
        assert not unused
    elif not is_last or not (kind in NORMLESS or getattr(tower.spec, "final_norm", True)):
        assert unused
    freeze_unused(tower)
    assert {name for name, parameter in named.items() if not parameter.requires_grad} == {
        name for name, parameter in named.items() if id(parameter) in unused
    }


def test_an_adapter_on_the_last_projection_of_open_clips_attention_learns():
    """It is called as a module: hooks, adapters and offloading reach it."""
    peft = pytest.importorskip("peft")
    tower = draw(tiny("open_clip").build())
    grids = (Grid(1, 3, 4), TILE)
    before = tower(pixels(grids, 4), grids).tokens.detach()
    adapted = peft.inject_adapter_in_model(peft.LoraConfig(target_modules=["out_proj"], r=2), tower)
    assert (adapted(pixels(grids, 4), grids).tokens == before).all()
    adapted(pixels(grids, 4), grids).tokens.square().mean().backward()
    gradients = {name: parameter.grad for name, parameter in adapted.named_parameters() if "lora_B" in name}
    assert len(gradients) == 3
    assert all(gradient is not None and gradient.abs().max() > 0 for gradient in gradients.values())


def test_a_hook_on_the_last_projection_of_open_clips_attention_is_called_and_learns():
    tower = draw(tiny("open_clip").build())
    heard = []
    for block in tower.resblocks:
        block.attn.out_proj.register_forward_hook(lambda module, args, output: heard.append(output.shape))
    grids = (Grid(1, 3, 4), TILE)
    tower(pixels(grids, 4), grids).tokens.square().mean().backward()
    assert heard == [(1, 12 + 25 + 2, 32)] * 3
    assert all(block.attn.out_proj.weight.grad.abs().max() > 0 for block in tower.resblocks)
