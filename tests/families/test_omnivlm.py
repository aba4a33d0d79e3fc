"""OmniVLM beside its published scripts and runner: pairs of GGUF files in and out (tests/golden/omnivlm/README.md)."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from families.omnivlm import ROW
from families.omnivlm_pair import FOLDER, MERGES, TINY, built, picture, runner, tokenizer
from families.record import record
from families.system import user
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import vlmkit
from vlmkit.checkpoints import export
from vlmkit.checkpoints.omnivlm_names import HEAD
from vlmkit.gguf_files import GgufFile, write_gguf
from vlmkit.gguf_tokenizer import read_tokenizer, tokenizer_fields
from vlmkit.model import VLM
from vlmkit.preprocess.policies.pad_square import PadSquare
from vlmkit.processor import VLMProcessor
from vlmkit.spec import SpecError

PUBLISHED = {"projector": FOLDER / "mmproj-omni-vlm-f16.gguf", "language": FOLDER / "Nano-Llm-494M-F16.gguf"}


@cache
def loaded(dtype: str | None = None) -> tuple[VLM, VLMProcessor]:
    """What vlmkit reads of the published pair."""
    with pytest.warns(UserWarning, match=r"v\.head \(8,512 values\) are not read"):
        return vlmkit.load(FOLDER, dtype=dtype)


@pytest.fixture
def pair(tmp_path: Path) -> Path:
    """The published pair, to be changed."""
    for path in PUBLISHED.values():
        shutil.copy(path, tmp_path)
    return tmp_path


def changed(path: Path, fields: dict[str, Any], tensors: dict[str, Tensor | None] | None = None) -> None:
    """A file with other fields and tensors; None takes one away."""
    file = GgufFile(path)
    said = {name: value for name, value in (file.fields | fields).items() if value is not None and name != "general.architecture"}
    held = {name: file.read(name) for name in file.tensors} | (tensors or {})
    write_gguf(path, file.fields["general.architecture"], said, {name: value for name, value in held.items() if value is not None})


def apart(model: VLM, processor: VLMProcessor, kind: str) -> tuple[float, float]:
    """How far embeddings and logits are from the runner's, whose ids and greedy answer are the same."""
    batch = processor([[user("What is this?", picture())]], add_generation_prompt=True)
    ids = batch["input_ids"][0]
    assert torch.where(batch["visual_index"][0] < 0, ids, -1).tolist() == runner("ids").tolist()
    with torch.no_grad():
        embeddings = model.connector(model.encoder(batch["pixel_values"], batch["grids"])).tokens
        logits = model(**batch).logits[0, ::2, ::4]
    found = model.generate(**batch, max_new_tokens=8, do_sample=False)[0, len(ids) :]
    assert found.tolist() == runner(f"{kind}-answer").tolist()
    pairs = ((embeddings, runner(f"{kind}-embeddings")), (logits, runner(f"{kind}-logits")))
    away = [float((ours.float() - torch.from_numpy(theirs)).abs().max()) for ours, theirs in pairs]
    return away[0], away[1]


def test_logits_and_the_greedy_answer_are_the_runners() -> None:
    """The runner without its table of GELU. Measured 1.7e-6 for embeddings of up to 7 and 1.5e-6 for logits of up to 4."""
    embeddings, logits = apart(*built(), "f32")
    assert embeddings < 5e-5
    assert logits < 5e-5
    record(ROW, logits=logits, generates=True, layout=True, reference="omni-vlm-cli")


def test_with_the_runners_table_the_answer_is_the_same() -> None:
    """As it is built, it looks GELU up for inputs rounded to float16: embeddings are 1.9e-3 away, logits 1.3e-3."""
    embeddings, logits = apart(*built(), "table")
    assert embeddings < 1e-2
    assert logits < 5e-3


def test_a_published_pair_is_the_model_that_it_was_written_of() -> None:
    model, processor = loaded("float32")
    spec, own = model.config.spec, built()[0].state_dict()
    tower = TINY.encoder.replace(checkpoint=None)
    assert spec.replace(name="", encoder=tower, language_model=TINY.language_model) == TINY.replace(name="", encoder=tower)
    assert spec.encoder == tower
    theirs, wanted = (each.language_model.transformers_config().to_diff_dict() for each in (spec, TINY))
    assert theirs == wanted
    for name, value in model.state_dict().items():
        assert torch.equal(value, own[name] if value.ndim == 1 else own[name].half().float()), name
    assert processor.tokenizer.get_vocab() == tokenizer().get_vocab()
    embeddings, logits = apart(model, processor, "published")
    assert embeddings < 5e-3, "measured 2.3e-3: the runner multiplies in float16 where a matrix is"
    assert logits < 5e-3


def test_a_pair_is_written_as_the_published_scripts_write_it(tmp_path: Path) -> None:
    model, processor = loaded()
    assert model.dtype == torch.float16
    export(model, processor, tmp_path)
    names = {"projector": "mmproj-omni-vlm-f16.gguf", "language": "language-model-f16.gguf"}
    for part, published in PUBLISHED.items():
        theirs, ours = GgufFile(published), GgufFile(tmp_path / names[part])
        assert ours.tensors.keys() == theirs.tensors.keys()
        for name, stored in theirs.tensors.items():
            assert ours.tensors[name][:2] == stored[:2], name
            if not name.startswith(HEAD):
                assert torch.equal(ours.read(name).half(), theirs.read(name).half()), name
        kept = {name: value for name, value in theirs.fields.items() if not name.startswith("general.") or name == "general.file_type"}
        assert {name: ours.fields.get(name) for name in kept} == kept
    again, _ = quietly(tmp_path)
    for name, value in model.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name
    record(ROW, loads=True, exports=True)


def quietly(directory: Path, **options: Any) -> tuple[VLM, VLMProcessor]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return vlmkit.load(directory, **options)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_a_type_stays_what_it_is(dtype: torch.dtype, tmp_path: Path) -> None:
    model, processor = built(dtype)
    export(model, processor, tmp_path)
    again, reader = quietly(tmp_path)
    assert {parameter.dtype for parameter in again.parameters()} == {dtype}
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in model.state_dict().items())
    if dtype == torch.bfloat16:
        embeddings = embeddings_apart(again.float(), reader)
        assert embeddings < 0.05, "measured 1.8e-2: the runner rounds to bfloat16 what it multiplies"


def embeddings_apart(model: VLM, processor: VLMProcessor) -> float:
    """Of bfloat16, whose greedy answer hangs on its rounding."""
    batch = processor([[user("What is this?", picture())]], add_generation_prompt=True)
    with torch.no_grad():
        embeddings = model.connector(model.encoder(batch["pixel_values"], batch["grids"])).tokens
    return float((embeddings - torch.from_numpy(runner("bf16-embeddings"))).abs().max())


@pytest.mark.parametrize("kind", ["Q8_0", "Q4_0", "Q5_1"])
def test_blocks_of_few_bits_are_what_the_gguf_package_makes_of_them(kind: str, pair: Path) -> None:
    import gguf

    file, quantised = GgufFile(PUBLISHED["language"]), gguf.GGMLQuantizationType[kind]
    writer = gguf.GGUFWriter(pair / PUBLISHED["language"].name, "qwen2")
    fields = gguf.GGUFReader(PUBLISHED["language"]).fields
    for name, value in file.fields.items():
        if name != "general.architecture":
            types = fields[name].types
            writer.add_key_value(name, value, types[0], sub_type=types[1] if len(types) > 1 else None)
    wanted = {}
    for name in file.tensors:
        values = file.read(name).float().numpy()
        if values.ndim == 2:
            blocks = gguf.quantize(values, quantised)
            writer.add_tensor(name, blocks, raw_dtype=quantised)
            wanted[name] = gguf.dequantize(blocks, quantised)
        else:
            writer.add_tensor(name, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    model, _ = quietly(pair)
    assert model.dtype == torch.float32
    embedding = model.get_input_embeddings().weight.detach().numpy()
    assert np.array_equal(embedding, wanted["token_embd.weight"])
    assert 0 < np.abs(embedding - file.read("token_embd.weight").float().numpy()).max() < 0.1


def test_missing_and_unexpected_tensors_are_listed(pair: Path) -> None:
    changed(pair / PUBLISHED["projector"].name, {}, {"v.blk.0.ffn_up.bias": None, "v.stranger": torch.zeros(2)})
    with pytest.raises(SpecError, match=r"missing encoder\.encoder\.layers\.0\.mlp\.fc2\.bias.*unexpected v\.stranger"):
        quietly(pair)


@pytest.mark.parametrize(
    ("part", "fields", "words"),
    [
        ("language", {"qwen2.rope.scaling.type": "yarn"}, "qwen2.rope.scaling.type = 'yarn', which is not built"),
        ("language", {"qwen2.block_count": 1001}, "expected a whole number of 1 to 1,000, got 1001"),
        ("language", {"qwen2.attention.layer_norm_rms_epsilon": None}, "expected a number above 0, got None"),
        ("language", {"split.count": 2}, "llama-gguf-split --merge"),
        ("language", {"tokenizer.ggml.pre": "llama-bpe"}, "tokenizer.ggml.pre is 'llama-bpe'"),
        ("language", {"tokenizer.ggml.merges": ["t h", "th x"]}, "merges 'th' and 'x'"),
        ("language", {"tokenizer.ggml.eos_token_id": 320}, "expected one of 320 tokens, got 320"),
        ("projector", {"siglip.has_omni_vlm_projector": False}, "is of architecture 'siglip'"),
        ("projector", {"siglip.vision.image_mean": [0.5, 0.5]}, "expected three numbers, got [0.5, 0.5]"),
        ("projector", {"siglip.vision.image_size": 56}, "v.position_embd.weight has 81 rows, but there are 196 patches"),
        ("projector", {"siglip.vision.patch_size": 40}, "images of 38 pixels have patches of 40"),
        ("projector", {"siglip.vision.embedding_length": 31}, "takes 288 channels of a tower of 31"),
        ("projector", {"siglip.vision.feed_forward_length": 1 << 30}, "expected (1073741824, 32)"),
        ("projector", {"siglip.vision.block_count": 900}, "missing encoder.encoder.layers."),
    ],
)
def test_what_is_not_built_or_does_not_fit_is_named(part: str, fields: dict[str, Any], words: str, pair: Path) -> None:
    changed(pair / PUBLISHED[part].name, fields)
    with pytest.raises((SpecError, OSError)) as error:
        quietly(pair)
    assert words in str(error.value)
    assert str(pair) in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("part", PUBLISHED)
def test_half_a_pair_and_more_than_one_are_told_apart(part: str, pair: Path) -> None:
    path = pair / PUBLISHED[part].name
    shutil.copy(path, pair / "second.gguf")
    with pytest.raises(SpecError, match=r"expected one GGUF file of architecture '\w+', got .*second\.gguf"):
        quietly(pair)
    (pair / "second.gguf").unlink()
    path.unlink()
    with pytest.raises(SpecError, match=r"expected one GGUF file of architecture '\w+', got none"):
        quietly(pair)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda: TINY.replace(policy=PadSquare(size=38, view=36)), "has 'squash', 'siglip' and 'sequence_fold', not 'pad_square'"),
        (lambda: TINY.replace(connector=TINY.connector.replace(fold=3)), "no other fold, but the connector folds 3"),  # type: ignore[attr-defined]
        (lambda: TINY.replace(layout=TINY.layout.replace(after_image="\n")), "has the layout"),
        (lambda: TINY, "reads no tokenizer without merges|byte-level BPE"),
    ],
)
def test_what_no_pair_expresses_is_refused_and_nothing_is_written(change: Callable[[], Any], words: str, tmp_path: Path) -> None:
    spec = change()
    own = None if spec is TINY else tokenizer()
    with pytest.raises(SpecError, match=words):
        export(vlmkit.build(spec, seed=0), vlmkit.build_processor(spec, tokenizer=own), tmp_path)
    assert not [*tmp_path.iterdir()]


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=40))
def test_a_tokenizer_comes_back_of_its_fields(text: str) -> None:
    own = tokenizer()
    again = read_tokenizer(tokenizer_fields(own, 320))
    for special in (True, False):
        text = text + "the thin<|im_end|> tin" if special else text
        assert again(text)["input_ids"] == own(text)["input_ids"]
    assert again.decode(own(text)["input_ids"]) == own.decode(own(text)["input_ids"])
    assert len(MERGES) == len(tokenizer_fields(own, 320)["tokenizer.ggml.merges"])
