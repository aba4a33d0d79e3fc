"""Which paths there are, what they hold, and which of several counts."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

import vlmkit
from tests.counted import TINY_MODELS
from tests.test_router_loss import EXPERTS, made
from vlmkit.spec import SpecError
from vlmkit.training.optimizers import build_optimizers, claimed_parameters, prepare_parts
from vlmkit.training.paths import Names, parts_of, paths_of, plain, shortened
from vlmkit.training.stage import Source, Stage

DATA = (Source(name="any"),)
TINY = [name for name in vlmkit.list_models() if name.endswith("-tiny")]


def meta(name: str) -> nn.Module:
    return vlmkit.build(name, device="meta")


@pytest.mark.parametrize("name", TINY)
def test_the_paths_with_a_name_hold_every_parameter_and_their_own_alone(name: str) -> None:
    model = meta(name)
    paths, names = paths_of(model), [name for name, _ in model.named_parameters()]
    parts = [path for path in paths if "." not in path]
    assert sorted(name for part in parts for name in paths[part]) == sorted(names)
    for path, members in paths.items():
        assert members == [name for name in paths[path.split(".")[0]] if name in set(members)]
    inside = ("embeddings", "head", "layers", "norm")
    assert {f"language_model.{path}" for path in inside} <= paths.keys()
    held = {name for path in inside for name in paths[f"language_model.{path}"]}
    assert held == set(paths["language_model"])
    numbered = [path for path in paths if path.startswith("language_model.layers.")]
    assert len(numbered) == model.language_model.config.num_hidden_layers
    assert sorted(name for path in numbered for name in paths[path]) == sorted(paths["language_model.layers"])


def test_there_are_this_many_tiny_models_and_paths() -> None:
    assert len(TINY) == TINY_MODELS
    assert sum(len(paths_of(meta(name))) for name in TINY) >= 213


@pytest.mark.parametrize("name", EXPERTS)
def test_routed_experts_shared_ones_and_the_router_are_apart(name: str) -> None:
    built, _ = made(name)
    paths = paths_of(built)
    experts, router = set(paths["language_model.experts"]), set(paths["language_model.router"])
    shared = set(paths.get("language_model.shared_experts", ()))
    mixtures = {name for name in paths["language_model"] if ".mlp." in name}
    assert experts | router | shared == mixtures
    assert all(".mlp.experts." in name for name in experts)
    assert all(name.endswith(".mlp.gate.weight") for name in router)
    assert len(router) == built.language_model.config.num_hidden_layers
    assert bool(shared) == (name == "qwen2_moe")


def test_towers_and_the_children_of_a_fusion_are_paths() -> None:
    two = paths_of(meta("prismatic-tiny"))
    assert two["encoder.0"] + two["encoder.1"] == two["encoder"]
    crossed = paths_of(meta("idefics-tiny"))
    assert crossed["fusion.cross_attention"] == crossed["fusion"]
    assert paths_of(meta("llava-1.6-tiny"))["fusion.learned"] == ["fusion.learned.newline"]


def test_every_beginning_of_a_name_is_a_path_and_layers_lead_on() -> None:
    model = meta("univa-vl-tiny")
    tower, words = Names("encoder", model.encoder), Names("language_model", model.language_model)
    for names in (tower, words):
        for parameter in names.all:
            pieces = f"{names.part}.{parameter}".split(".")
            for length in range(1, len(pieces) + 1):
                assert parameter in names.under(".".join(pieces[:length]))
    assert words.under("language_model.layers.3.mlp") == words.under("language_model.model.layers.3.mlp") != frozenset()
    assert tower.under("encoder.trans") == tower.under("encoder.transformer.") == frozenset()


def test_tied_weights_are_the_embeddings_and_the_head() -> None:
    paths = paths_of(meta("paligemma-tiny"))
    assert paths["language_model.embeddings"] == paths["language_model.head"] == ["language_model.model.embed_tokens.weight"]
    names = Names("language_model", meta("paligemma-tiny").language_model)
    assert names.under("language_model.lm_head") == {"model.embed_tokens.weight"}
    with pytest.raises(SpecError, match=r"claimed by language_model\.embeddings and by language_model\.head, and neither"):
        names.claims(["language_model.embeddings", "language_model.head"])


def test_the_longest_path_wins_and_of_equally_long_ones_the_inner() -> None:
    built, _ = made("qwen2_moe")
    names = Names("language_model", built.language_model)
    paths = ["language_model", "language_model.layers", "language_model.experts", "language_model.layers.1"]
    claims = names.claims(paths)
    assert set(claims) == set(names.all)
    assert claims["model.embed_tokens.weight"] == "language_model"
    assert claims["model.layers.0.mlp.experts.down_proj"] == "language_model.experts"  # inside of layers, which is as long
    assert claims["model.layers.1.mlp.experts.down_proj"] == "language_model.layers.1"
    assert claims["model.layers.0.self_attn.q_proj.weight"] == "language_model.layers"


def test_a_path_that_holds_nothing_is_refused_with_those_that_do() -> None:
    parts = parts_of(meta("univa-vl-tiny"))

    def refused(path: str) -> str:
        with pytest.raises(SpecError) as error:
            prepare_parts(Stage(name="s", steps=1, batch_size=1, learn={path: 1.0}, data=DATA), parts)
        return str(error.value)

    assert "learn['language_model.experts'] holds no parameter of this model" in refused("language_model.experts")
    assert "did you mean 'language_model.norm'" in refused("language_model.norms")
    assert "language_model.layers.0 to .3" in refused("fusion")
    assert "holds no parameter" in refused("head")
    same = {"language_model.layers.1": 1.0, "language_model.model.layers.1": 2.0}
    with pytest.raises(SpecError, match=r"learn\['language_model\.layers\.1'\] claims nothing, for longer paths claim all"):
        prepare_parts(Stage(name="s", steps=1, batch_size=1, learn=same, data=DATA), parts)


def test_the_pieces_that_wrappers_add_do_not_count() -> None:
    assert plain("model.layers.0._checkpoint_wrapped_module.mlp._orig_mod.weight") == "model.layers.0.mlp.weight"
    model = vlmkit.build("llava-1.5-tiny", seed=0)
    before = paths_of(model)
    for number, layer in enumerate(model.language_model.model.layers):
        model.language_model.model.layers[number] = torch.compile(layer)
    after = {path: [plain(name) for name in names] for path, names in paths_of(model).items()}
    assert after == before
    stage = Stage(name="s", steps=1, batch_size=1, learn={"language_model.model.layers.1.mlp": 1.0}, data=DATA)
    prepare_parts(stage, parts_of(model))
    assert {plain(one.name) for one in claimed_parameters(stage, parts_of(model))} == {
        f"model.layers.1.mlp.{name}_proj.weight" for name in ("gate", "up", "down")
    }


def groups(model: nn.Module) -> list[tuple[str, float, list[str]]]:
    stage = Stage(
        name="s",
        steps=1,
        batch_size=1,
        encoder=1e-3,
        learn={"language_model": 1e-4, "language_model.layers.0": 2e-4},
        weight_decay=0.1,
        optimizer="muon",
        data=DATA,
    )
    parts = parts_of(model)
    prepare_parts(stage, parts)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    return [
        (group["path"], group["weight_decay"], [names[id(parameter)] for parameter in group["params"]])
        for optimizer in build_optimizers(stage, parts, fused=False)
        for group in optimizer.param_groups
    ]


def test_parameters_that_an_engine_has_cut_have_the_same_paths_and_groups() -> None:
    """FSDP2's DTensors; and empty vectors with `ds_shape` beside them, as ZeRO-3 leaves them (deepspeed itself: tests/distributed)."""
    from torch.distributed import HashStore, destroy_process_group, init_process_group
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    whole = vlmkit.build("univa-vl-tiny", seed=0)
    expected, expected_paths = groups(whole), paths_of(whole)
    zero = copy.deepcopy(whole)
    for parameter in zero.parameters():
        parameter.ds_shape = parameter.shape
        parameter.data = torch.empty(0)
    assert (groups(zero), paths_of(zero)) == (expected, expected_paths)
    init_process_group("gloo", store=HashStore(), rank=0, world_size=1)
    try:
        mesh = init_device_mesh("cpu", (1,))
        for layer in whole.language_model.model.layers:
            fully_shard(layer, mesh=mesh)
        fully_shard(whole, mesh=mesh)
        assert all(isinstance(parameter, torch.distributed.tensor.DTensor) for parameter in whole.parameters())
        assert (groups(whole), paths_of(whole)) == (expected, expected_paths)
    finally:
        destroy_process_group()


def test_numbered_paths_are_shown_as_one() -> None:
    assert shortened(["encoder", "encoder.0", "encoder.1", "encoder.2", "norm", "x.0"]) == "encoder, encoder.0 to .2, norm, x.0"
