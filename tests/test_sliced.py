"""Weights in runs: every run of every source is that part of what build has."""

from __future__ import annotations

import json
import math
import re
import shutil
import struct
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import vlmkit
from tests.counted import TINY_MODELS
from tests.test_skeleton import DECODERS
from tests.tiny import CONVERSATIONS, DECODER, architecture, draw, language_model, model, part
from vlmkit.architecture import Architecture
from vlmkit.skeleton import skeleton
from vlmkit.sliced import PublishedWeights, RandomWeights, SavedWeights, fill, weights_of
from vlmkit.spec import SpecError
from vlmkit.stored import Stored
from vlmkit.weight_source import HeldWeights, WeightSource

TINY = [name for name in vlmkit.list_models() if name.endswith("-tiny")]


def test_there_are_this_many_tiny_models() -> None:
    assert len(TINY) == TINY_MODELS


def filled(arch: str | Architecture, source: WeightSource, dtype: str = "float32") -> vlmkit.VLM:
    found = skeleton(arch, dtype=dtype)
    fill(found, source)
    return found


def same(one: nn.Module, other: nn.Module) -> bool:
    """Every parameter and buffer, bit for bit; tied where the other is."""
    pairs = [(dict(each.named_parameters()) | dict(each.named_buffers())) for each in (one, other)]
    alike = [(pairs[0][name], value) for name, value in pairs[1].items() if name in pairs[0]]
    return pairs[0].keys() == pairs[1].keys() and all(a.dtype == b.dtype and torch.equal(a, b) for a, b in alike)


@pytest.mark.parametrize("name", TINY)
def test_a_filled_skeleton_is_what_build_draws_and_what_was_saved(name: str, tmp_path: Path) -> None:
    built = vlmkit.build(name, seed=3)
    found = filled(name, RandomWeights(name, seed=3))
    assert same(found, built)
    batch = vlmkit.build_processor(name)(CONVERSATIONS[:1])
    with torch.no_grad():
        assert torch.equal(found(**batch).logits, built(**batch).logits)
    draw(built)
    built.save_pretrained(tmp_path, max_shard_size="100KB")
    assert len([*tmp_path.glob("*.safetensors")]) > 1
    assert same(filled(name, SavedWeights(tmp_path)), built)


def test_weights_are_drawn_in_the_dtype_that_is_asked_for() -> None:
    built = vlmkit.build("univa-vl-tiny", seed=0, dtype="bfloat16")
    assert same(filled("univa-vl-tiny", weights_of("univa-vl-tiny", None, seed=0, dtype="bfloat16"), "bfloat16"), built)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> tuple[SavedWeights, dict[str, Tensor]]:
    """A tied model in several files, in half precision, and its tensors."""
    directory = tmp_path_factory.mktemp("saved")
    built = vlmkit.build("paligemma-tiny", seed=0, dtype="bfloat16")
    built.save_pretrained(directory, max_shard_size="50KB")
    return SavedWeights(directory), built.state_dict()


@given(st.data())
def test_every_run_is_that_part_of_the_tensor(saved: tuple[SavedWeights, dict[str, Tensor]], data: st.DataObject) -> None:
    source, tensors = saved
    assert source.names() == tuple(tensors)
    name = data.draw(st.sampled_from(source.names()))
    flat = tensors[name].reshape(-1)
    assert source.shape(name) == tuple(tensors[name].shape)
    start = data.draw(st.integers(0, len(flat)))
    length = data.draw(st.integers(0, len(flat) - start))
    run = source.read(name, start, length)
    assert run.dtype == torch.bfloat16
    assert torch.equal(run, flat[start : start + length])
    assert torch.equal(HeldWeights(tensors).read(name, start, length), run)


@pytest.mark.parametrize(("start", "length"), [(-1, 2), (0, -1), (0, 47_105), (47_104, 1)])
def test_a_run_outside_of_a_tensor_is_refused_with_its_numbers(
    saved: tuple[SavedWeights, dict[str, Tensor]], start: int, length: int
) -> None:
    source, tensors = saved
    asked = re.escape(f"[{start:,}, {start + length:,})")
    for each in (source, HeldWeights(tensors)):
        with pytest.raises(IndexError, match=rf"lm_head\.weight \(1472, 32\) has 47,104 values, but {asked} were asked for"):
            each.read("language_model.lm_head.weight", start, length)


def test_a_run_of_a_file_larger_than_any_disk_is_read_at_once(tmp_path: Path) -> None:
    """A TiB of holes: who reads more of it than a run does not come back."""
    shape, at = (2**20, 2**19), 2**39 - 1000
    header = json.dumps({"weight": {"dtype": "BF16", "shape": shape, "data_offsets": [0, 2 * math.prod(shape)]}}).encode()
    values = torch.arange(1000, dtype=torch.bfloat16)
    with (tmp_path / "model.safetensors").open("wb") as file:
        file.write(struct.pack("<Q", len(header)) + header)
        file.seek(2 * at, 1)
        file.write(values.view(torch.uint8).numpy().data)
        file.truncate()
    stored = Stored([tmp_path / "model.safetensors"])
    before = bytes_read()
    assert torch.equal(stored.read("weight", at, 1000), values)
    assert not stored.read("weight", at - 5000, 1000).any()
    after = bytes_read()
    assert before is None or after is None or after - before < 100_000


def bytes_read() -> int | None:
    """By this process, from files: cached ones too. None where the system does not count."""
    count = Path("/proc/self/io")
    return int(count.read_text().split("rchar: ")[1].split()[0]) if count.is_file() else None


def test_a_file_that_is_cut_or_none_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    save_file({"weight": torch.ones(100)}, file)
    whole = file.read_bytes()
    for content, message in (
        (whole[:-1], r"does not hold all of weight \(100,\)"),
        (whole[:5], "is no whole safetensors file"),
        (b"PK\x03\x04" + bytes(50), "is no whole safetensors file|is no safetensors file"),
        (struct.pack("<Q", 4) + b"abcd", "its header is not JSON"),
    ):
        file.write_bytes(content)
        with pytest.raises(SpecError, match=message):
            Stored([file])


def test_a_directory_of_before_learned_embeddings_were_the_fusions_is_read(tmp_path: Path) -> None:
    built = vlmkit.build("llava-1.6-tiny", seed=0)
    built.save_pretrained(tmp_path)
    names = load_file(tmp_path / "model.safetensors")
    save_file({name.replace("fusion.learned.", "learned."): value for name, value in names.items()}, tmp_path / "model.safetensors")
    assert "learned.newline" in Stored([tmp_path / "model.safetensors"]).names()
    assert same(filled("llava-1.6-tiny", SavedWeights(tmp_path)), built)


def rewrite(change: Callable[[dict[str, Tensor]], Any]) -> Callable[[Path], None]:
    def changed(directory: Path) -> None:
        tensors = load_file(directory / "model.safetensors")
        change(tensors)
        save_file(tensors, directory / "model.safetensors")

    return changed


REFUSED: dict[str, tuple[Callable[[Path], Any], type[Exception], str]] = {
    "a weight is missing": (
        rewrite(lambda tensors: tensors.pop("encoder.conv1.weight")),
        SpecError,
        r"missing keys: encoder\.conv1\.weight$",
    ),
    "one too many": (
        rewrite(lambda tensors: tensors.update(strange=torch.ones(1))),
        SpecError,
        r"unexpected keys: strange$",
    ),
    "another shape": (
        rewrite(lambda tensors: tensors.update({"language_model.model.norm.weight": torch.ones(5)})),
        SpecError,
        r"mismatched keys: language_model\.model\.norm\.weight \(5,\), expected \(128,\)$",
    ),
    "no config": (lambda directory: (directory / "config.json").unlink(), FileNotFoundError, r"holds no checkpoint \(no config\.json\)"),
    "no weights": (lambda directory: (directory / "model.safetensors").unlink(), FileNotFoundError, r"holds no model\.safetensors"),
    "another model": (
        lambda directory: (directory / "config.json").write_text('{"model_type": "llama"}'),
        SpecError,
        "holds a model of type 'llama', not one that vlmkit saved",
    ),
    "a file of several is not there": (
        lambda directory: (
            (directory / "model.safetensors")
            .rename(directory / "model.safetensors.index.json")
            .write_text('{"weight_map": {"a": "model-00001.safetensors"}}')
        ),
        FileNotFoundError,
        r"lists model-00001\.safetensors, which is not there",
    ),
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("whole")
    vlmkit.build("univa-vl-tiny", seed=0).save_pretrained(directory)
    return directory


@pytest.mark.parametrize("why", REFUSED)
def test_a_directory_that_does_not_fit_is_refused_naming_what(why: str, whole: Path, tmp_path: Path) -> None:
    change, error, message = REFUSED[why]
    shutil.copytree(whole, tmp_path / "copy")
    change(tmp_path / "copy")
    with pytest.raises(error, match=message):
        SavedWeights(tmp_path / "copy")


def test_a_directory_of_other_parts_and_a_source_of_another_model_are_refused(whole: Path) -> None:
    assert isinstance(weights_of("univa-vl-tiny", whole, seed=0), SavedWeights)
    with pytest.raises(SpecError, match="with other parts: connector is conv_patch_merger there, mlp here"):
        weights_of(vlmkit.architecture("univa-vl-tiny").replace(connector="mlp"), whole, seed=0)
    with pytest.raises(
        SpecError, match=r"the weights of SavedWeights do not fit VLM: missing keys: .*unexpected keys: .*mismatched keys: "
    ):
        fill(skeleton("llava-1.5-tiny", dtype="float32"), SavedWeights(whole))


def test_a_model_that_does_not_fit_is_not_drawn() -> None:
    words = vlmkit.architecture("univa-vl").language_model
    large = words.replace(config=words.config | {"intermediate_size": 2**27})
    source = RandomWeights(vlmkit.architecture("univa-vl").replace(language_model=large), seed=0)
    assert source.shape("language_model.model.layers.0.mlp.up_proj.weight") == (2**27, 5120)
    with pytest.raises(MemoryError, match=r"univa-vl needs .* GiB for its weights in float32, but cpu has"):
        source.read("connector.norm.weight", 0, 1)


# The published ones.


def drawn(described: vlmkit.LanguageModel, directory: Path, **options: Any) -> Any:
    """A language model with drawn weights, saved by transformers."""
    theirs = described.build(described.transformers_config())
    draw(theirs, seed=5)
    theirs.save_pretrained(directory, **options)
    return theirs


def published(described: vlmkit.LanguageModel, directory: Path, **parts: Any) -> Architecture:
    """An architecture whose language model is in a directory, and whose tower has no weights."""
    there = described.replace(checkpoint=str(directory), tokenizer="bytes")
    return architecture(**({"encoder": part(vlmkit.encoders, "patches")} | parts), language=there)


FAMILIES = {
    **dict.fromkeys(("llama", "olmo3", "qwen2", "gemma", "qwen2_vl_text")),
    **DECODERS,
    "qwen3_moe": {"num_experts": 4, "moe_intermediate_size": 16, "head_dim": 8},
}
CONVERTED = {"mixtral", "deepseek_v3", "qwen3_moe"}
"""One tensor an expert in files, all of them in one in memory."""


def family(name: str) -> vlmkit.LanguageModel:
    further = FAMILIES[name]
    if further is None:
        return language_model(name)
    return vlmkit.LanguageModel(model_type=name, config=vlmkit.Settings(DECODER | further))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", FAMILIES)
def test_published_weights_are_those_that_transformers_loads(name: str, dtype: str, tmp_path: Path) -> None:
    drawn(family(name), tmp_path, max_shard_size="20KB")
    assert len([*tmp_path.glob("*.safetensors")]) > 1
    arch = published(family(name), tmp_path)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        source = PublishedWeights(arch, seed=1, dtype=dtype)
    assert any("of tensors that are cut otherwise" in str(each.message) for each in said) == (name in CONVERTED)
    assert same(filled(arch, source, dtype), vlmkit.build(arch, weights="pretrained", seed=1, dtype=dtype))


@pytest.mark.parametrize("name", sorted(CONVERTED))
def test_what_transformers_makes_of_several_tensors_is_read_in_runs_also_from_a_saved_model(name: str, tmp_path: Path) -> None:
    arch = architecture(encoder=part(vlmkit.encoders, "patches"), language=family(name).replace(tokenizer="bytes"))
    built = model(arch)
    built.save_pretrained(tmp_path, max_shard_size="20KB")
    source = SavedWeights(tmp_path)
    assert source.converted
    for weight in source.converted:
        expected = built.state_dict()[weight].reshape(-1)
        assert torch.equal(source.read(weight, 7, len(expected) - 9), expected[7:-2])
        with pytest.raises(IndexError, match="were asked for"):
            source.read(weight, 1, len(expected))
    assert same(filled(arch, source), built)


@pytest.mark.parametrize("fusion", ["splice", "cross_attention"])
def test_what_has_no_checkpoint_is_drawn_as_build_draws_it(fusion: str, tmp_path: Path) -> None:
    """Behind a tower of a checkpoint: connector, learned embeddings, cross-attention."""
    name = "llava-1.6-tiny" if fusion == "splice" else "llama-3.2-vision-tiny"
    named = vlmkit.architecture(name)
    drawn(named.language_model, tmp_path / "words")
    config = named.encoder.model_class().config_class if fusion == "splice" else transformers.models.mllama.MllamaVisionConfig
    tower = (transformers.CLIPVisionModel if fusion == "splice" else transformers.MllamaVisionModel)(config(**named.encoder.numbers()))
    tower.save_pretrained(tmp_path / "tower")
    arch = named.replace(
        encoder=named.encoder.replace(checkpoint=str(tmp_path / "tower")),
        language_model=named.language_model.replace(checkpoint=str(tmp_path / "words")),
    )
    assert arch.fusion.kind == fusion
    before = torch.get_rng_state()
    found = filled(arch, weights_of(arch, "pretrained", seed=4))
    assert torch.equal(torch.get_rng_state(), before)
    assert same(found, vlmkit.build(arch, weights="pretrained", seed=4))
    assert not same(found.connector, vlmkit.build(arch, weights="pretrained", seed=5).connector)


def read_into(source: Any) -> torch.nn.Module:
    """The module whose names the files' weights are read under, below what adds experts and unspoken rows to them."""
    while not hasattr(source, "model"):
        source = source._weights
    return source.model


def test_all_but_the_language_model_is_held_until_it_is_released(tmp_path: Path) -> None:
    drawn(language_model("llama"), tmp_path)
    source = PublishedWeights(published(language_model("llama"), tmp_path), seed=0)
    held = source.hold()
    assert {*source.names()} - {*held.names()} == {name for name in source.names() if name.startswith("language_model.")}
    assert all(value.is_meta for value in read_into(source.language_model).parameters())
    assert source.hold() is held
    source.release()
    again = source.hold()
    assert again is not held
    assert all(torch.equal(value, again.tensors[name]) for name, value in held.tensors.items())


def test_parameters_are_made_in_the_dtype_that_is_asked_for_and_frozen_ones_stay_frozen() -> None:
    name = "llava-1.5-tiny"
    found = skeleton(name, dtype="float32")
    found.encoder.requires_grad_(False)
    fill(found, RandomWeights(name, seed=0), dtype=torch.bfloat16)
    assert {value.dtype for value in found.parameters()} == {torch.bfloat16}
    assert {value.requires_grad for value in found.encoder.parameters()} == {False}
    assert {value.requires_grad for value in found.connector.parameters()} == {True}
    rounded = vlmkit.build(name, seed=0).state_dict()
    assert all(torch.equal(value, rounded[key].bfloat16()) for key, value in found.named_parameters())
    assert dict(found.named_buffers())["language_model.model.rotary_emb.inv_freq"].dtype == torch.float32


def test_a_checkpoint_of_the_decoder_alone_is_read_with_its_head_tied(tmp_path: Path) -> None:
    """Without the prefix that names have in a causal model."""
    theirs = drawn(language_model("llama"), tmp_path / "causal")
    theirs.model.save_pretrained(tmp_path / "bare")
    assert "layers.0.mlp.up_proj.weight" in load_file(tmp_path / "bare" / "model.safetensors")
    arch = published(language_model("llama"), tmp_path / "bare")
    found = filled(arch, PublishedWeights(arch, seed=0))
    assert same(found, vlmkit.build(arch, weights="pretrained", seed=0))
    assert found.language_model.lm_head.weight is found.language_model.model.embed_tokens.weight


def test_a_tied_head_that_is_stored_has_to_be_the_embeddings(tmp_path: Path) -> None:
    drawn(language_model("llama"), tmp_path)
    arch = published(language_model("llama"), tmp_path)
    embeddings = load_file(tmp_path / "model.safetensors")["model.embed_tokens.weight"]
    rewrite(lambda tensors: tensors.update({"lm_head.weight": embeddings.clone()}))(tmp_path)
    assert same(filled(arch, PublishedWeights(arch, seed=0)), vlmkit.build(arch, weights="pretrained", seed=0))
    rewrite(lambda tensors: tensors.update({"lm_head.weight": embeddings + 1}))(tmp_path)
    with pytest.raises(SpecError, match=r"are tied in the config, but stored with different values; set tie_word_embeddings=False"):
        PublishedWeights(arch, seed=0)


def test_files_that_are_not_safetensors_are_loaded_whole_and_it_is_said(tmp_path: Path) -> None:
    theirs = drawn(language_model("qwen2"), tmp_path)
    (tmp_path / "model.safetensors").unlink()
    torch.save(theirs.state_dict(), tmp_path / "pytorch_model.bin")
    arch = published(language_model("qwen2"), tmp_path)
    with pytest.warns(UserWarning, match="has no safetensors files: every process loads it whole; convert it"):
        source = PublishedWeights(arch, seed=0)
    assert same(filled(arch, source), vlmkit.build(arch, weights="pretrained", seed=0))


def test_a_checkpoint_of_another_language_model_is_refused(tmp_path: Path) -> None:
    drawn(language_model("olmo3"), tmp_path)
    arch = published(language_model("olmo3", num_hidden_layers=5), tmp_path)
    with pytest.raises(SpecError, match=r"missing keys: model\.layers\.4\."):
        PublishedWeights(arch, seed=0)
    with pytest.raises(SpecError, match="univa-vl-tiny: the language model names no published checkpoint"):
        PublishedWeights("univa-vl-tiny", seed=0)


def test_a_repository_of_a_hub_is_read_where_it_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a cache as huggingface_hub lays it out; nothing is asked of a network."""
    commit = "0123456789abcdef0123456789abcdef01234567"
    repository = tmp_path / "models--someone--small"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(commit)
    drawn(language_model("qwen2"), repository / "snapshots" / commit)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    arch = published(language_model("qwen2").replace(revision=commit), Path("someone/small"))
    assert same(filled(arch, PublishedWeights(arch, seed=0)), vlmkit.build(arch, weights="pretrained", seed=0))
