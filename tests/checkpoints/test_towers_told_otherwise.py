"""Towers and projectors of published configs that say what no published model does: activations, layers, pooling heads."""

from __future__ import annotations

import json
import warnings
from pathlib import Path as File
from typing import Any

import pytest
import torch
from checkpoints.told_otherwise import Path, changed, logits_of, logits_of_reference
from families.system import Reference
from safetensors.torch import load_file, save_file
from transformers.activations import ACT2CLS

import vlmkit
from vlmkit.activations import NAMES
from vlmkit.checkpoints import export
from vlmkit.connectors.mlp import Mlp
from vlmkit.encoders.clip import Clip

ACT, PROJECTOR, LAYER = ("vision_config", "hidden_act"), ("projector_hidden_act",), ("vision_feature_layer",)


def agree(reference: Reference, directory: File, **told: Any) -> Any:
    """What vlmkit loads of it, which answers as the reference does when it is told so, and as what is exported."""
    reference.save(directory / "read")
    loaded = vlmkit.load(directory / "read")
    theirs = logits_of_reference(reference, **told)
    assert (logits_of(loaded, reference) - theirs).abs().max() < 1e-4  # measured 4e-6
    export(*loaded, directory / "written")
    again = type(reference.model).from_pretrained(directory / "written").eval()
    assert torch.equal(logits_of_reference(reference, again, **told), theirs)
    return loaded


def test_every_activation_of_transformers_is_known() -> None:
    assert ACT2CLS.keys() == NAMES


OFTEN = ("gelu_new", "quick_gelu", "prelu", "xielu")
"""Tried in every run; the others take their time."""


@pytest.mark.parametrize("name", [pytest.param(name, marks=() if name in OFTEN else pytest.mark.slow) for name in sorted(ACT2CLS)])
def test_activations_of_towers_and_projectors(name: str, tmp_path: File) -> None:
    model, _ = agree(changed("LLaVA-1.5", {ACT: name, PROJECTOR: name}), tmp_path)
    spec = model.config.spec
    assert vlmkit.Architecture.from_json(spec.to_json()) == spec


@pytest.mark.parametrize(
    ("title", "name"),
    [
        ("Janus-Pro", "gelu_pytorch_tanh"),
        ("Janus-Pro", "prelu"),
        ("Qwen2-VL", "xielu"),
        ("VideoLLaMA 3", "prelu"),
        ("Llama 3.2-Vision", "prelu"),
    ],
)
def test_activations_with_weights_in_other_towers(title: str, name: str, tmp_path: File) -> None:
    with warnings.catch_warnings(action="ignore", category=UserWarning):  # of what Janus draws with
        agree(changed(title, {ACT: name}), tmp_path)


def test_an_activation_that_transformers_lacks_is_an_error_with_the_nearest_name() -> None:
    with pytest.raises(vlmkit.SpecError, match=r"clip\.activation: .* no activation 'quickgelu'; did you mean 'quick_gelu'\?"):
        Clip(activation="quickgelu")
    with pytest.raises(vlmkit.SpecError, match=r"mlp\.activation: transformers has no activation 'gelu_tan'; did you mean"):
        Mlp(activation="gelu_tan")
    with pytest.raises(vlmkit.SpecError, match=r"clip\.activation: transformers has no activation 'gelu_tanh'"):
        Clip(activation="gelu_tanh")
    with pytest.raises(vlmkit.SpecError, match=r"connector\.activation: expected str, got 3"):
        vlmkit.architecture("llava-1.5-tiny").replace(connector={"kind": "mlp", "activation": 3})


@pytest.mark.parametrize("layer", [0, [-4, 3, 3], *(pytest.param(one, marks=pytest.mark.slow) for one in (-4, 3, [0, -2]))], ids=str)
@pytest.mark.parametrize("title", ["LLaVA-1.5", "Maya", "AIMv2", "Pixtral"])
def test_layers_down_to_the_embeddings(title: str, layer: int | list[int], tmp_path: File) -> None:
    """transformers 5.24 takes a single layer 0 for no layer at all, and fails, unless all of them are asked for."""
    reference = changed(title, {LAYER: layer})
    if layer == 0:
        with pytest.raises(TypeError, match="not subscriptable"):
            logits_of_reference(reference)
    agree(reference, tmp_path, output_hidden_states=True)


@pytest.mark.parametrize("layer", [4, -5, [0, 4]], ids=str)
def test_layers_that_do_not_exist_are_refused(layer: int | list[int], tmp_path: File) -> None:
    changed("LLaVA-1.5", {LAYER: layer if isinstance(layer, int) else [0, 1]}).save(tmp_path)
    told = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(told | {"vision_feature_layer": layer}))
    with pytest.raises(vlmkit.SpecError, match=r"vision_feature_layer.*expected 0 to 3"):
        vlmkit.load(tmp_path)


RATIOS = ("vision_config", "supported_aspect_ratios")
HEADS = {"Maya": "vision_use_head", "PaliGemma": "vision_use_head", "AIMv2": "use_head"}


@pytest.mark.parametrize("title", HEADS)
def test_a_pooling_head_is_not_read_whoever_speaks_of_it(title: str, tmp_path: File) -> None:
    """Config and weights, weights alone, config alone."""
    switch: Path = ("vision_config", HEADS[title])
    reference = changed(title, {switch: True})
    theirs = logits_of_reference(reference)
    with pytest.warns(UserWarning, match=r"model\.vision_tower\.head \([\d,]+ values\) are not read"):
        agree(reference, tmp_path)

    told = json.loads((tmp_path / "read" / "config.json").read_text())
    told["vision_config"][HEADS[title]] = False
    (tmp_path / "read" / "config.json").write_text(json.dumps(told))
    with pytest.warns(UserWarning, match=r"model\.vision_tower\.head are not read"):
        loaded = vlmkit.load(tmp_path / "read")
    assert (logits_of(loaded, reference) - theirs).abs().max() < 1e-4

    told["vision_config"][HEADS[title]] = True
    (tmp_path / "read" / "config.json").write_text(json.dumps(told))
    file = tmp_path / "read" / "model.safetensors"
    save_file({name: weight for name, weight in load_file(file).items() if ".head." not in name}, file, {"format": "pt"})
    with warnings.catch_warnings(action="error", category=UserWarning):
        loaded = vlmkit.load(tmp_path / "read")
    assert (logits_of(loaded, reference) - theirs).abs().max() < 1e-4


def test_positions_of_aimv2_may_be_sines_of_the_grid(tmp_path: File) -> None:
    """Such a tower takes pictures of any size: here of another than its config speaks of."""
    reference = changed("AIMv2", {("vision_config", "is_native"): True})
    images = reference.processor.image_processor
    images.size, images.crop_size = ({"shortest_edge": 56}, {"height": 56, "width": 56})
    agree(reference, tmp_path)


def test_the_tiles_of_llava_next_have_no_class_token(tmp_path: File) -> None:
    """With `full` features of a tower that has one transformers' own class fails, whatever the processor counts."""
    reference = changed("LLaVA-1.6", {("vision_feature_select_strategy",): "full"})
    reference.processor.vision_feature_select_strategy = "full"
    with pytest.raises(RuntimeError, match="expanded size"):
        logits_of_reference(reference)
    reference.save(tmp_path)
    with pytest.raises(vlmkit.SpecError, match=r"vision_feature_select_strategy: .* with 'full' the 'clip' tower gives 2x2 \+ 1 tokens"):
        vlmkit.load(tmp_path)


def test_norms_of_janus_fail_in_transformers_too(tmp_path: File) -> None:
    reference = changed("Janus-Pro", {("vision_config", "use_qk_norm"): True})
    with pytest.raises(RuntimeError, match="normalized_shape"):
        logits_of_reference(reference)


@pytest.mark.parametrize(
    ("title", "path", "value"),
    [
        ("Pixtral", ("vision_config", "head_dim"), 16),
        ("Pixtral", ("vision_config", "rope_parameters"), {"rope_type": "axial", "rope_theta": 1e4, "partial_rotary_factor": 0.5}),
        ("Llama 3.2-Vision", ("vision_config", "vision_output_dim"), 64),
        (
            "Llama 3.2-Vision",
            ("vision_config", "supported_aspect_ratios"),
            [[1, 2], [1, 1], [1, 3], [1, 4], [2, 1], [2, 2], [3, 1], [4, 1]],
        ),
    ],
    ids=str,
)
def test_what_the_rest_contradicts_is_named(title: str, path: Path, value: Any, tmp_path: File) -> None:
    changed(title, {path: value}).save(tmp_path)
    with pytest.raises(vlmkit.SpecError, match=path[-1]):
        vlmkit.load(tmp_path)
