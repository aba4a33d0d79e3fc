"""Qwen-VL beside what upstream's own code made of a small published directory: ids, features, logits, answers; files in and out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from families import qwen_vl
from families.qwen_vl import CONFIG, IMG, KEPT, PUBLISHED, RANKS, ROW, TABLE
from families.record import record
from families.system import patchify, user
from families.tiny import picture as smooth
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import load_file, save_file
from torchvision.transforms import Compose, InterpolationMode, Normalize, Resize, ToTensor

import vlmkit
from tests.families.trained import assert_it_trains
from tests.tiny import apart, assistant, picture
from vlmkit.checkpoints import export
from vlmkit.model import VLM
from vlmkit.pointing import Box, parse, to_picture, to_view, write
from vlmkit.preprocess import Size
from vlmkit.preprocess.pixels import render
from vlmkit.processor import VLMProcessor
from vlmkit.spec import SpecError
from vlmkit.tiktoken_files import QWEN
from vlmkit.tokenizer import load_tokenizer

Loaded = tuple[VLM, VLMProcessor]


def asked(number: int) -> list[dict[str, Any]]:
    """One picture; two pictures; a second question."""
    one, two = (Image.fromarray(qwen_vl.picture(seed)) for seed in (0, 1))
    first = user("What is it?", one)
    return [[first], [user("What is it?", one, two)], [first, assistant("A cat."), user("And here?")]][number]


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = qwen_vl.write(tmp_path_factory.mktemp("published"))
    torch.save(qwen_vl.weights(), directory / "pytorch_model.bin")
    return directory


@pytest.fixture(scope="module")
def loaded(published: Path) -> Loaded:
    return vlmkit.load(published)


def without_places(ids: list[int]) -> list[int]:
    """Ids without what stands between <img> and </img>, which is <imgpad> alone."""
    kept = [token for token in ids if token != IMG + 2]
    assert len(ids) - len(kept) == 256 * ids.count(IMG)
    return kept


@pytest.mark.parametrize("number", [0, 1, 2])
def test_ids_logits_and_the_greedy_answer_are_upstreams(loaded: Loaded, number: int) -> None:
    """Logits measured 7e-6, of size 3."""
    model, processor = loaded
    kept = KEPT["cases"][number]
    batch = processor([asked(number)], add_generation_prompt=True)
    ids = batch["input_ids"][0].tolist()
    assert without_places(ids) == kept["ids"]
    with torch.no_grad():
        worst = apart(model(**batch).logits[0, -1, ::2], torch.tensor(kept["logits"]))
    assert worst < 1e-4
    assert model.generate(**batch, max_new_tokens=6, do_sample=False)[0, len(ids) :].tolist() == kept["new"]
    record(ROW, layout=True, generates=True, reference="QWenLMHeadModel", **({"logits": worst} if number == 1 else {}))


def test_features_are_upstreams(loaded: Loaded) -> None:
    """Measured 7e-6, of size 4."""
    model, processor = loaded
    batch = processor([asked(1)])
    with torch.no_grad():
        tokens = model.connector(model.encoder(batch["pixel_values"], batch["grids"])).tokens
    assert apart(tokens.view(2, 256, 256)[:, ::64, ::2], torch.tensor(KEPT["features"])) < 1e-4


def test_the_image_moves_the_logits(loaded: Loaded) -> None:
    model, processor = loaded
    one, other = (processor([[user("What?", Image.fromarray(qwen_vl.picture(seed)))]], add_generation_prompt=True) for seed in (3, 4))
    with torch.no_grad():
        assert apart(model(**one).logits, model(**other).logits) > 0.1


def test_pixels_are_those_of_upstreams_transforms() -> None:
    """Within 2 of 255, and a value in 200 differs: PIL, which upstream resizes with, rounds between its two passes as torch does, but
    torch's weights of the filter have 16 bits."""
    arch = vlmkit.architecture("qwen-vl-chat-9.6b")
    encoder, policy = arch.encoder, arch.policy
    theirs = Compose([Resize((448, 448), InterpolationMode.BICUBIC), ToTensor(), Normalize(encoder.mean, encoder.std)])
    std, mean = (torch.tensor(value).repeat_interleave(14 * 14) for value in (encoder.std, encoder.mean))
    worst = share = 0.0

    @settings(max_examples=12, deadline=None)
    @given(st.integers(20, 600), st.integers(20, 600))
    def compare(height: int, width: int) -> None:
        nonlocal worst, share
        photo = smooth(height, width)
        values, _ = render(photo, arch.plan(Size(height, width)), patch=14, resample=policy.resample, antialias=policy.antialias)
        differ = ((values / 255 - mean) / std - patchify(theirs(photo), 14)) * std * 255
        worst = max(worst, float(differ.abs().max()))
        share = max(share, float((differ.abs() > 0.5).float().mean()))

    compare()
    assert worst <= 2.01, worst
    assert share < 0.02, share
    record(ROW, pixels=worst)


def test_published_sizes() -> None:
    for name, counts in ROW.counts.items():
        arch = vlmkit.architecture(name)
        assert arch.parameters() == counts
        assert arch.tokens(Size(480, 640)) == arch.tokens(Size(30, 900)) == 256
    assert counts.total + TABLE == PUBLISHED
    totals = {name: counts.total for name, counts in ROW.counts.items()}
    record(ROW, builds=len(totals), parameters=totals)


def test_the_first_stage_sees_224_pixels_and_no_table_is_resampled() -> None:
    arch = vlmkit.architecture("qwen-vl-9.6b")
    first = arch.replace(policy=arch.policy.replace(size=224)).validate()
    assert first.parameters() == arch.parameters()
    assert first.tokens(Size(480, 640)) == 256
    assert first.encoder.native_grid.rows * first.encoder.patch == 224


def test_what_is_exported_are_the_published_files(published: Path, loaded: Loaded, tmp_path: Path) -> None:
    model, processor = loaded
    export(model, processor, tmp_path)
    said = json.loads((tmp_path / "config.json").read_text())
    assert {name: said[name] for name in CONFIG} == CONFIG
    assert (tmp_path / "qwen.tiktoken").read_text() == RANKS
    written, table = load_file(tmp_path / "model.safetensors"), "transformer.visual.attn_pool.pos_embed"
    there = torch.load(published / "pytorch_model.bin", weights_only=True)
    assert written.keys() - there.keys() == {table}
    assert all(torch.equal(written[name], tensor) for name, tensor in there.items())
    assert written[table].shape == (256, 256)
    again, its_processor = vlmkit.load(tmp_path)
    assert again.config.spec == model.config.spec
    assert its_processor.tokenizer.backend_tokenizer.to_str() == processor.tokenizer.backend_tokenizer.to_str()
    assert all(torch.equal(one, other) for one, other in zip(again.state_dict().values(), model.state_dict().values(), strict=True))
    assert (again.generation_config.do_sample, again.generation_config.top_p) == (True, 0.3)
    assert again.generation_config.eos_token_id == [IMG - 212, IMG - 213]
    record(ROW, loads=True, exports=True)


def test_shards_and_another_dtype_are_read(published: Path, tmp_path: Path) -> None:
    qwen_vl.write(tmp_path, "raw")
    found = {name: tensor.bfloat16() for name, tensor in torch.load(published / "pytorch_model.bin", weights_only=True).items()}
    for number, part in enumerate((list(found)[::2], list(found)[1::2])):
        save_file({name: found[name] for name in part}, tmp_path / f"model-0000{number + 1}-of-00002.safetensors")
    model, processor = vlmkit.load(tmp_path)
    assert model.dtype == torch.bfloat16
    assert torch.equal(model.connector.proj.weight, found["transformer.visual.proj"].T)
    assert model.generation_config.eos_token_id == IMG - 214
    assert vlmkit.load(tmp_path, dtype="float32")[0].dtype == torch.float32
    prompt = processor([[user("Where?", Image.fromarray(qwen_vl.picture(0))), assistant("Here.")]])["input_ids"][0]
    assert processor.decode(prompt) == f"<img>{'<imgpad>' * 256}</img>Where?Here.<|endoftext|>"
    save_file({"lm_head.weight": found["lm_head.weight"]}, tmp_path / "model-00003.safetensors")
    with pytest.raises(SpecError, match=r"model-00003.safetensors: lm_head.weight is in another file as well"):
        vlmkit.load(tmp_path)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"no_bias": False}, r"config\.json\.no_bias: False is not built; expected True"),
        ({"rotary_pct": 0.5}, r"rotary_pct: 0\.5 is not built; expected 1\.0"),
        ({"alibi": True}, r"alibi: True is not built; expected 'no such field'"),
        ({"visual": CONFIG["visual"] | {"width": 256}}, r"visual\.width another number, which is 256"),
        ({"visual": CONFIG["visual"] | {"image_start_id": 7}}, rf"visual\.image_start_id is 7, but <img> is the tokenizer's token {IMG}"),
        ({"visual": {"width": 48}}, r"config\.json states no visual\.heads, visual\.image_size"),
    ],
)
def test_a_config_of_what_is_not_built_is_refused(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    qwen_vl.write(tmp_path, **changes)
    with pytest.raises(SpecError, match=said):
        vlmkit.load(tmp_path)


def test_a_directory_that_is_not_whole_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"has no weights: neither \*\.safetensors nor pytorch_model\*\.bin is there"):
        vlmkit.load(qwen_vl.write(tmp_path))
    weights = qwen_vl.weights()
    weights["transformer.visual.attn_pool.pos_embed"] = torch.zeros(256, 256)
    torch.save(weights, tmp_path / "pytorch_model.bin")
    with pytest.raises(SpecError, match=r"pos_embed: expected the sines and cosines of a 16x16 grid, but a value is 1\.000 apart"):
        vlmkit.load(tmp_path)
    qwen_vl.write(tmp_path, "markdown")
    with pytest.raises(SpecError, match=r"chat_format: expected one of raw, chatml, got 'markdown'"):
        vlmkit.load(tmp_path)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"connector": {"side": 8}}, "of these sizes has the connector .*side=16.*, but this one is .*side=8"),
        ({"encoder": {"activation": "quick_gelu"}}, "of these sizes has the encoder .*, but this one is .*quick_gelu"),
        ({"layout": {"label": ""}}, "writes .*, but the layout is "),
        ({"policy": {"resample": "bilinear"}}, "of these sizes has the policy .*, but this one is .*bilinear"),
        ({"language_model": {"hidden_act": "gelu"}}, "has hidden_act 'silu' in its language model, but here it is 'gelu'"),
    ],
)
def test_what_the_published_class_cannot_express_is_not_written(
    loaded: Loaded, tmp_path: Path, changes: dict[str, dict[str, Any]], said: str
) -> None:
    spec, processor = loaded[0].config.spec, loaded[1]
    for part, fields in changes.items():
        ours = spec.language_model
        part_of = ours.replace(config=ours.config | fields) if part == "language_model" else getattr(spec, part).replace(**fields)
        spec = spec.replace(**{part: part_of})
    model = vlmkit.build(spec, seed=0)
    other = VLMProcessor(processor.tokenizer, architecture=spec.to_dict())
    with pytest.raises(SpecError, match=f"QWenLMHeadModel {said}"):
        export(model, other, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_tokenizer_that_no_list_of_ranks_tells_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"holds byte strings, but the tokenizer is a BPE of other words"):
        QWEN.lines(vlmkit.build_processor("qwen-vl-tiny").tokenizer)
    (tmp_path / "qwen.tiktoken").write_text(RANKS)
    tokenizer = QWEN.read(tmp_path)
    tokenizer.add_tokens(["<new>"])
    with pytest.raises(SpecError, match=r"but '<new>' is not so placed"):
        QWEN.lines(tokenizer)


def test_a_file_that_holds_no_ranks_is_refused(tmp_path: Path) -> None:
    (tmp_path / "qwen.tiktoken").write_text(RANKS + "not base64 at all\n")
    with pytest.raises(SpecError, match=r"line 264: expected a byte string in base64 and its rank, got 'not base64 at all'"):
        QWEN.read(tmp_path)
    (tmp_path / "qwen.tiktoken").write_text("AA== 0\n")
    with pytest.raises(SpecError, match=r"expected 256 or more byte strings, numbered from 0 on, got 1"):
        QWEN.read(tmp_path)


def test_a_directory_names_the_tokenizer_and_no_code_is_run(published: Path) -> None:
    (published / "tokenization_qwen.py").write_text("raise AssertionError")
    tokenizer = load_tokenizer(str(published))
    assert tokenizer("What is it").input_ids == [258, 260, 259, *b"t"], "merged by rank"
    assert tokenizer.decode(tokenizer("猫 naïve 🐈").input_ids) == "猫 naïve 🐈"


def test_boxes_are_tokens_of_their_own_and_an_image_is_none_that_a_text_may_spell(loaded: Loaded) -> None:
    processor = loaded[1]
    ids = processor([[user("<img>a</img> <box>"), assistant("<ref>a</ref><box>(1,2),(3,4)</box>")]])["input_ids"][0].tolist()
    assert not {IMG, IMG + 1, IMG + 2} & set(ids)
    assert [ids.count(IMG + number) for number in (-6, -5, -4, -3)] == [1, 1, 2, 1]
    assert processor.decode(ids).endswith("<|im_start|>assistant\n<ref>a</ref><box>(1,2),(3,4)</box><|im_end|>\n")


COORDINATES = st.lists(st.integers(0, 1000), min_size=2, max_size=2).map(sorted)


@settings(deadline=None)
@given(st.integers(1, 3000), st.integers(1, 3000), COORDINATES, COORDINATES, st.sampled_from(["qwen-vl-9.6b", "qwen-vl-tiny"]))
def test_a_box_in_words_is_the_same_in_the_picture_and_in_what_the_model_sees(
    height: int, width: int, across: list[int], down: list[int], name: str
) -> None:
    arch = vlmkit.architecture(name)
    words = f"<ref>it</ref><box>({across[0]},{down[0]}),({across[1]},{down[1]})</box>"
    plan = arch.plan(Size(height, width))
    (view,) = plan.views
    (box,) = parse(words, "qwen", Size(height, width))
    assert isinstance(box, Box)
    seen = to_view(box, plan)
    assert write([seen], "qwen", view) == write([box], "qwen", Size(height, width)) == words
    back = to_picture(seen, plan)
    assert (back.left, back.top, back.right, back.bottom) == pytest.approx((box.left, box.top, box.right, box.bottom), abs=1e-9)


def test_it_trains_a_step() -> None:
    processor = vlmkit.build_processor("qwen-vl-tiny")
    model = vlmkit.build("qwen-vl-tiny", seed=0)
    batch = processor([[user("What is this?", Image.fromarray(picture(28, 28))), assistant("A picture.")]])
    assert_it_trains(model, batch)
    record(ROW, trains=True)


def test_numbers_of_the_kept_file_are_those_of_the_weights_here() -> None:
    """The first and the last number that is drawn: where numpy drew others, nothing above could be compared."""
    drawn = qwen_vl.weights()
    assert np.allclose(float(drawn["lm_head.weight"][0, 0]), 0.1764052, atol=1e-6)
    assert sum(tensor.numel() for tensor in drawn.values()) == sum(int(np.prod(shape)) for shape in qwen_vl.shapes().values())
