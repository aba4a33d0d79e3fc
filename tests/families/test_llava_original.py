"""Directories of LLaVA's own layout beside what upstream's own code made of them: ids, logits, answers, pixels; files in and out."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from families import llava_v1, yi_vl
from families.llava_upstream import CASES, KEPT, PICTURES, VIT, asked, patches, same, seen
from families.record import record
from families.system import System, user
from safetensors.torch import load_file

import vlmkit
from tests.tiny import apart
from vlmkit.checkpoints import export
from vlmkit.model import VLM
from vlmkit.processor import VLMProcessor

Loaded = tuple[VLM, VLMProcessor]
every_case = pytest.mark.parametrize("case", CASES)
ROWS: dict[str, System] = {"llava_v1": llava_v1.ROW, "yi_vl": yi_vl.ROW}
"""Whose row a case is."""


@every_case
@pytest.mark.parametrize("number", [0, 1, 2])
def test_ids_logits_and_the_greedy_answer_are_upstreams(llava_loaded: Callable[[str], Loaded], case: str, number: int) -> None:
    """Over pixels that PIL made as upstream's do, which are compared with upstream's below. Logits measured 5e-6, what was kept."""
    model, processor = llava_loaded(case)
    kept = KEPT[case]["cases"][number]
    batch = processor([asked(number)], add_generation_prompt=True)
    ids = batch["input_ids"][0].tolist()
    assert len(ids) == kept["length"]
    place = processor.plain_tokenizer.specials[processor.spec.layout.placeholder]
    assert [token for token in ids if token != place] == [token for token in kept["ids"] if token != -200]
    batch["pixel_values"] = patches(case, asked(number))
    with torch.no_grad():
        logits = model(**batch).logits[0]
    assert apart(logits[-1, ::4], torch.tensor(kept["logits"])) < 1e-4
    assert apart(logits[len(ids) // 2, ::16], torch.tensor(kept["middle"])) < 1e-4
    assert model.generate(**batch, max_new_tokens=6, do_sample=False)[0, len(ids) :].tolist() == kept["new"]


@every_case
@pytest.mark.parametrize("number", [0, 1])
def test_pixels_are_upstreams(llava_loaded: Callable[[str], Loaded], case: str, number: int) -> None:
    """vlmkit's within 2 of 255: PIL, which upstream resizes with, rounds to whole numbers between its two passes."""
    model, processor = llava_loaded(case)
    kept = KEPT[case]["cases"][number]["pixels"]
    images = PICTURES[:1] if number == 0 else PICTURES[1:]
    ours = torch.cat([seen(case, image).flatten() for image in images])
    assert len(ours) == kept[0]
    assert apart(ours[::397], torch.tensor(kept[1:])) < 1e-4
    encoder = model.config.spec.encoder
    std = torch.tensor(encoder.std).repeat_interleave(encoder.values // 3)
    batch = processor([asked(number)])
    assert apart(model.encoder.normalise(batch["pixel_values"]) * std * 255, patches(case, asked(number)) * std * 255) <= 2.01


@every_case
def test_the_image_moves_the_logits(llava_loaded: Callable[[str], Loaded], case: str) -> None:
    model, processor = llava_loaded(case)
    one, other = (processor([[user("What?", image)]], add_generation_prompt=True) for image in (PICTURES[0], PICTURES[0].rotate(180)))
    with torch.no_grad():
        assert apart(model(**one).logits, model(**other).logits) > 1e-2


NOT_OURS = {"_flash_attn_2_enabled", "tokenizer_model_max_length", "tokenizer_padding_side", "transformers_version"}
"""Fields of config.json that say how it was trained and by which library."""
OF_LIBRARY = {"transformers_version", "image_processor_type", "projection_dim"}
"""And those of a tower's; a projection has no weights there."""


@every_case
def test_what_is_exported_are_the_published_files(
    llava_directory: Callable[[str], Path], llava_loaded: Callable[[str], Loaded], case: str, tmp_path: Path
) -> None:
    model, processor = llava_loaded(case)
    export(model, processor, tmp_path, "llava_original")
    said, kept = json.loads((tmp_path / "config.json").read_text()), KEPT[case]["config"]
    written = load_file(tmp_path / "model.safetensors")
    tower = load_file(tmp_path / VIT / "model.safetensors")
    theirs = load_file(llava_directory(case) / "model.safetensors")
    inside = {name: value for name, value in theirs.items() if "vision_tower" in name}
    expected = {name.removeprefix("model.vision_tower.vision_tower."): value for name, value in inside.items()}
    expected = expected or load_file(llava_directory(case) / VIT / "model.safetensors")
    same(tower, expected)
    same(written, {name: value for name, value in theirs.items() if name not in inside})
    differs = {name for name in said.keys() | kept.keys() if said.get(name) != kept.get(name)} - NOT_OURS
    assert differs == ({"unfreeze_mm_vision_tower"} if inside else set())
    for file, there in (("config.json", "config"), ("preprocessor_config.json", "preprocessor")):
        told = json.loads((tmp_path / VIT / file).read_text())
        assert all(told[name] == value for name, value in KEPT[case]["tower"][there].items() if name in told and name not in OF_LIBRARY)
    again, its_processor = vlmkit.load(tmp_path)
    ours = model.config.spec
    assert again.config.spec.replace(encoder=ours.encoder) == ours
    same(dict(again.state_dict()), dict(model.state_dict()))
    batch, other = (each([asked(1)]) for each in (processor, its_processor))
    assert batch["input_ids"].equal(other["input_ids"])
    if case in ROWS:
        record(ROWS[case], loads=True, exports=True)
