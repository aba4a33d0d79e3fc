"""A language model exchanged by its directory: config, tokenizer, chat template and placeholder follow, and what is missing is said."""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

import vlmkit
from tests.tiny import DECODER, architecture, assistant, draw, part, picture, user
from vlmkit.cli import main
from vlmkit.exchange import special_fields
from vlmkit.layout.template import CHATML, Template
from vlmkit.layout.unused import unused_for
from vlmkit.spec import SpecError
from vlmkit.tokenizer import bytes_tokenizer

CHATML_JINJA = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
RESERVED = tuple(f"<|reserved_special_token_{number}|>" for number in range(8))
SIZES: dict[str, Any] = {**DECODER, "hidden_size": 48, "vocab_size": 288}
"""Another width than that of any small model."""

Saved = Callable[..., Path]


def save(directory: Path, tokenizer: Any, model_type: str = "llama", **config: Any) -> Path:
    """A language model as it lies on a disk, with drawn weights."""
    described = transformers.AutoConfig.for_model(model_type, **(SIZES | config))
    model = transformers.AutoModelForCausalLM.from_config(described)
    draw(model)
    model.save_pretrained(directory)
    if tokenizer is not None:
        tokenizer.save_pretrained(directory)
    return directory


def save_config(directory: Path, tokenizer: Any, model_type: str = "llama", **config: Any) -> Path:
    """The same without weights, which nothing reads before a model is built."""
    values = {"model_type": model_type} | SIZES | config
    directory.mkdir(exist_ok=True)
    (directory / "config.json").write_text(json.dumps(values))
    if tokenizer is not None:
        tokenizer.save_pretrained(directory)
    return directory


def chatting(tokenizer: Any, template: str | None = CHATML_JINJA) -> Any:
    tokenizer.chat_template = template
    return tokenizer


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tmp_path_factory.mktemp("words") / "small-llama", chatting(bytes_tokenizer(RESERVED)))


@pytest.fixture
def quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        yield


def test_a_language_model_is_described_by_its_directory(words: Path) -> None:
    found = vlmkit.LanguageModel.from_pretrained(words)
    assert (found.model_type, found.checkpoint, found.tokenizer, found.revision) == ("llama", str(words), str(words), None)
    assert (found.dim, found.vocabulary) == (48, 288)
    theirs, ours = transformers.AutoConfig.from_pretrained(words).to_dict(), found.transformers_config().to_dict()
    assert {name for name in theirs if theirs[name] != ours[name]} <= {"architectures", "dtype", "_name_or_path"}
    assert vlmkit.LanguageModel.from_json(found.to_json()) == found


def test_the_layout_follows_and_the_choice_is_said(words: Path) -> None:
    before = vlmkit.architecture("llava-1.5-7b")
    with pytest.warns(UserWarning, match=r"takes '<\|image\|>' as its placeholder \(was '<image>'\); pass layout= for others"):
        after = before.replace(language_model=str(words)).validate()
    assert after.layout == before.layout.replace(template=CHATML, placeholder="<|image|>")
    assert json.loads(after.to_json())["layout"]["placeholder"] == "<|image|>"
    assert after.language_model == vlmkit.LanguageModel.from_pretrained(words)
    assert after.parameters().connector == 1024 * 48 + 48 + 48 * 48 + 48
    assert vlmkit.Architecture.from_json(after.to_json()) == after


@pytest.mark.parametrize("given", ["name", "path", "description", "dict"])
def test_it_is_given_as_a_name_a_path_a_description_or_plain_values(words: Path, quiet: None, given: str) -> None:
    described = vlmkit.LanguageModel.from_pretrained(words)
    value = {"name": str(words), "path": words, "description": described, "dict": described.to_dict()}[given]
    assert architecture().replace(language_model=value) == architecture().replace(language_model=str(words))


def test_a_layout_that_is_given_stays_and_so_does_that_of_the_same_tokenizer(words: Path, recwarn: pytest.WarningsRecorder) -> None:
    mine = vlmkit.layouts["run"](template=CHATML, placeholder=RESERVED[3])
    mixed = architecture().replace(language_model=str(words), layout=mine)
    assert mixed.layout == mine
    other = mixed.language_model.replace(config=mixed.language_model.config | {"num_hidden_layers": 3})
    assert mixed.replace(language_model=other).layout == mine
    assert not [each for each in recwarn if each.category is UserWarning]


SPOKEN = "Spelled: " + "".join((*RESERVED, *(token for token in bytes_tokenizer().get_added_vocab())))


@pytest.mark.parametrize("kind", vlmkit.list_layouts())
def test_every_layout_follows(kind: str, words: Path, quiet: None) -> None:
    """Its own special tokens, spelled as no tokenizer spells them, become ids of the new one; ids decode to what the template writes,
    and what a user spells stays text."""
    layout = part(vlmkit.layouts, kind)
    strange = {name: f"<|strange_{name}|>" for name in special_fields(layout)}
    fusion = {(True, False): "splice", (False, True): "cross_attention", (True, True): "hybrid"}[layout.placed, layout.looked_at]
    before = architecture(layout=layout.replace(**strange), fusion=fusion)
    mixed = before.replace(language_model=str(words)).validate()
    chosen = special_fields(mixed.layout)
    assert len(set(chosen.values())) == len(strange)
    processor = vlmkit.build_processor(mixed)
    conversation = [{"role": "system", "content": "Be brief."}, user(picture(), SPOKEN), assistant("No."), user("Why?")]
    ids = processor(conversation)["input_ids"][0].tolist()
    specials = set(processor.plain_tokenizer.specials.values())
    text = processor.tokenizer.decode(
        [token for token in ids if token not in {processor.plain_tokenizer.specials[t] for t in chosen.values()}]
    )
    turns = ("system\nBe brief.", None, "assistant\nNo.", "user\nWhy?")
    first, rest = f"<|im_start|>{turns[0]}<|im_end|>\n<|im_start|>user\n", f"{SPOKEN}<|im_end|>\n<|im_start|>{turns[2]}<|im_end|>\n"
    assert text.startswith(first)
    assert text.endswith(f"{rest}<|im_start|>{turns[3]}<|im_end|>\n<|im_start|>assistant\n")
    plain = processor([user(picture(), "Spelled: "), assistant("No."), user("Why?")])["input_ids"][0].tolist()
    with_system = [
        *processor([{"role": "system", "content": "Be brief."}, user(picture(), ""), assistant("No."), user("Why?")])["input_ids"][0]
    ]
    assert sum(token in specials for token in ids) == sum(int(token) in specials for token in with_system)
    assert sum(token in specials for token in plain) == sum(token in specials for token in ids) - 2


def test_the_published_weights_are_taken(words: Path, quiet: None) -> None:
    """Text alone gives the language model's own logits; with an image they move with it. Measured 0 apart."""
    mixed = architecture(encoder=small_checkpoint()).replace(language_model=str(words))
    model, processor = vlmkit.build(mixed, weights="pretrained", seed=0), vlmkit.build_processor(mixed)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(words).eval()
    batch = processor([user("Only words?")])
    with torch.no_grad():
        expected = theirs(batch["input_ids"]).logits
        assert torch.equal(model(**batch).logits, expected)
        shown = [model(**processor([user(picture(seed=seed), "What?")])).logits[0, -1] for seed in (1, 2)]
    assert (shown[0] - shown[1]).abs().max() > 1e-3


def small_checkpoint() -> Any:
    return part(vlmkit.encoders, "patches")


def test_what_was_built_is_saved_and_loaded_also_without_the_directory_that_it_came_from(tmp_path: Path, quiet: None) -> None:
    source = save(tmp_path / "source", chatting(bytes_tokenizer()))
    model, processor = (make(architecture().replace(language_model=source)) for make in (vlmkit.build, vlmkit.build_processor))
    model.save_pretrained(tmp_path / "saved")
    processor.save_pretrained(tmp_path / "saved")
    for file in source.iterdir():
        if "token" in file.name or "chat" in file.name:
            file.unlink()
    loaded, reader = vlmkit.load(tmp_path / "saved")
    prompt = [user(picture(), "What?")]
    with torch.no_grad():
        assert torch.equal(loaded(**reader(prompt)).logits, model.eval()(**processor(prompt)).logits)


def test_the_language_model_of_an_image_model_is_taken_out_first(tmp_path: Path, quiet: None) -> None:
    """As the refusal says."""
    model, processor = vlmkit.build("llava-1.5-tiny", seed=0), vlmkit.build_processor("llava-1.5-tiny")
    model.save_pretrained(tmp_path / "whole")
    processor.save_pretrained(tmp_path / "whole")
    with pytest.raises(SpecError, match="is a whole model of type 'vlmkit' that sees images; take its language model out first"):
        vlmkit.LanguageModel.from_pretrained(tmp_path / "whole")
    model, processor = vlmkit.load(tmp_path / "whole")
    model.language_model.save_pretrained(tmp_path / "part")
    processor.tokenizer.save_pretrained(tmp_path / "part")
    mixed = architecture(encoder=small_checkpoint()).replace(language_model=tmp_path / "part").validate()
    taken = vlmkit.build(mixed, weights="pretrained").language_model.state_dict()
    assert all(torch.equal(taken[name], value) for name, value in model.language_model.state_dict().items())


@pytest.mark.parametrize("model_type", ["llama", "qwen2", "gemma", "olmo3", "phi3", "mistral", "gpt_neox", "qwen2_vl_text"])
def test_language_models_of_many_types_come_from_a_directory(model_type: str, tmp_path: Path, quiet: None) -> None:
    more: dict[str, Any] = {"gemma": {"head_dim": 8}, "qwen2_vl_text": {"rope_parameters": three(), "hidden_size": 32}}.get(model_type, {})
    source = tmp_path / model_type
    config = SIZES | more
    described = vlmkit.LanguageModel(model_type=model_type, config=vlmkit.Settings(config))
    theirs = described.build(described.transformers_config())
    draw(theirs)
    theirs.save_pretrained(source)
    chatting(bytes_tokenizer()).save_pretrained(source)
    mixed = architecture(encoder=small_checkpoint(), connector="mlp").replace(language_model=source).validate()
    ours = vlmkit.build(mixed, weights="pretrained").language_model.state_dict()
    assert {name: torch.equal(value, ours[name]) for name, value in theirs.state_dict().items()} == dict.fromkeys(ours, True)


def three() -> dict[str, Any]:
    return {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [1, 1, 2]}


REFUSED: dict[str, tuple[dict[str, Any] | None, str]] = {
    "no config": (None, r"no config\.json there; name a directory that save_pretrained of a model wrote"),
    "no type": ({"hidden_size": 4}, r"is of type None, which transformers does not have"),
    "misspelled": ({"model_type": "lama"}, r"is of type 'lama', which transformers does not have; did you mean 'llama'\?"),
    "sees images": (
        {"model_type": "llava", "text_config": {"model_type": "llama"}, "vision_config": {"model_type": "clip_vision_model"}},
        r"is a whole model of type 'llava' that sees images, with a language model of type 'llama' inside; take its language model out",
    ),
    "an encoder": ({"model_type": "vit"}, r"language_model\.model_type: 'vit' is no causal language model in transformers"),
    "nonsense": ({"model_type": "llama", "hidden_size": "wide"}, r"config\.json cannot be read|does not take these settings"),
}


@pytest.mark.parametrize("why", REFUSED)
def test_a_directory_that_is_none_of_a_language_model_is_refused(why: str, tmp_path: Path) -> None:
    config, message = REFUSED[why]
    if config is not None:
        (tmp_path / "config.json").write_text(json.dumps(config))
    for take in (vlmkit.LanguageModel.from_pretrained, lambda name: architecture().replace(language_model=name)):
        with pytest.raises(SpecError, match=message):
            take(tmp_path)


@pytest.mark.parametrize("name", ["nobody/nothing", "/no/such/directory", "./here"])
def test_a_name_that_cannot_be_had_is_refused_with_the_way_out(name: str) -> None:
    with pytest.raises(SpecError, match=r"hf download nobody/nothing|there is no such directory"):
        architecture().replace(language_model=name)


def test_a_hub_name_is_pinned_to_the_commit_that_was_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quiet: None) -> None:
    """In a cache as huggingface_hub lays it out; nothing is asked of a network."""
    commit = "0123456789abcdef0123456789abcdef01234567"
    repository = tmp_path / "models--someone--small"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(commit)
    save(repository / "snapshots" / commit, chatting(bytes_tokenizer()))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    found = vlmkit.LanguageModel.from_pretrained("someone/small")
    assert (found.checkpoint, found.tokenizer, found.revision) == ("someone/small", "someone/small", commit)
    mixed = architecture(encoder=small_checkpoint()).replace(language_model=found).validate()
    assert mixed.layout.template == CHATML
    assert json.loads(mixed.to_json())["language_model"]["revision"] == commit
    model, processor = vlmkit.build(mixed, weights="pretrained"), vlmkit.build_processor(mixed)
    assert model(**processor([user(picture(), "What?")])).logits.shape[-1] == 288


STRANGE = Template(begin="<|begin|>", user=("<|ask|>", ""), assistant=("<|answer|>", "<|over|>"))

PROBLEMS: dict[str, tuple[Callable[[Path], Path], dict[str, Any], tuple[str, ...]]] = {
    "no tokenizer": (
        lambda path: save_config(path, None),
        {},
        (r"tokenizer '.*' cannot be loaded .*LanguageModel\.from_pretrained\(\.\.\.\)\.replace\(tokenizer='a directory'\)",),
    ),
    "nothing unused, but a free row": (
        lambda path: save_config(path, chatting(bytes_tokenizer())),
        {"layout": part(vlmkit.layouts, "fenced", boundary="<fence>")},
        (
            r"no special token '<fence>' \(boundary\) and no unused one in its place; add it, tokenizer\.add_tokens\(\['<fence>'\], "
            r"special_tokens=True\).*the embedding has 288 rows, of which the tokenizer will name 264, so nothing is resized",
        ),
    ),
    "nothing unused, and no row": (
        lambda path: save_config(path, chatting(bytes_tokenizer()), vocab_size=263),
        {"layout": part(vlmkit.layouts, "fenced", boundary="<fence>")},
        (r"has 263 rows and 264 are needed, so resize the language model that lies there too, model\.resize_token_embeddings\(264\)",),
    ),
    "no chat template": (
        lambda path: save_config(path, chatting(bytes_tokenizer(), None)),
        {"layout": part(vlmkit.layouts, "run", template=STRANGE)},
        (
            r"no special token '<\|begin\|>', '<\|ask\|>', '<\|answer\|>', '<\|over\|>', which the layout's template spells; it has no "
            r"chat template of its own.*give it a chat template",
        ),
    ),
    "beyond the vocabulary": (
        lambda path: save_config(path, chatting(bytes_tokenizer()), vocab_size=258),
        {},
        (r"special tokens \{'<\|image\|>': 260, '<\|im_start\|>': 258, '<\|im_end\|>': 259\} beyond the 258 rows .* 261 are needed",),
    ),
    "another model's tokenizer": (
        lambda path: save_config(path, chatting(bytes_tokenizer()), vocab_size=200, pad_token_id=None),
        {},
        (r"has 256 words, but the language model's embedding 200 rows; they do not belong together",),
    ),
    "no positions": (
        lambda path: save_config(path, chatting(bytes_tokenizer()), "mamba"),
        {},
        (r"'mamba' takes no position_ids, by which packed samples are kept apart",),
    ),
    "quantized": (
        lambda path: save_config(path, chatting(bytes_tokenizer()), quantization_config={"quant_method": "gptq", "bits": 4}),
        {},
        (r"the weights are quantized \(gptq\)",),
    ),
    "too few layers for those between them": (
        lambda path: save_config(path, chatting(bytes_tokenizer())),
        {"layout": part(vlmkit.layouts, "seen"), "fusion": vlmkit.fusions["cross_attention"](before=(1, 5))},
        (r"cross_attention\.before: layer 5 of a language model that has 2",),
    ),
    "padding beyond the vocabulary": (
        lambda path: save_config(path, chatting(bytes_tokenizer()), pad_token_id=288),
        {},
        (r"language_model\.config\.pad_token_id: 288 is beyond the vocabulary of 288; name a token of it, or None",),
    ),
    "several at once": (
        lambda path: save_config(path, chatting(bytes_tokenizer(), None), "mamba", vocab_size=263),
        {
            "layout": part(vlmkit.layouts, "fenced", template=STRANGE, boundary="<fence>"),
            "policy": part(vlmkit.policies, "squash", size=57),
        },
        (r"57", r"takes no position_ids", r"'<\|begin\|>'", r"'<fence>' \(boundary\)"),
    ),
}


@pytest.mark.parametrize("what", PROBLEMS)
def test_what_is_missing_is_said_before_anything_is_built(what: str, tmp_path: Path, quiet: None) -> None:
    make, parts, messages = PROBLEMS[what]
    mixed = architecture(**parts).replace(language_model=make(tmp_path))
    said = mixed.problems()
    assert all(any(re.search(message, problem) for problem in said) for message in messages), said
    with pytest.raises(vlmkit.ArchitectureError):
        mixed.validate()
    with pytest.raises(vlmkit.ArchitectureError):
        vlmkit.build(mixed)


def test_the_way_out_of_a_missing_token_is_one(tmp_path: Path, quiet: None) -> None:
    source = save(tmp_path / "source", chatting(bytes_tokenizer()), vocab_size=263)
    before = architecture(layout=part(vlmkit.layouts, "fenced", boundary="<fence>"), encoder=small_checkpoint())
    assert "resize_token_embeddings(264)" in before.replace(language_model=source).problems()[0]
    tokenizer = transformers.AutoTokenizer.from_pretrained(source)
    tokenizer.add_tokens(["<fence>"], special_tokens=True)
    tokenizer.save_pretrained(source)
    model = transformers.AutoModelForCausalLM.from_pretrained(source)
    model.resize_token_embeddings(264)
    model.save_pretrained(source)
    mixed = before.replace(language_model=source).validate()
    assert mixed.layout.boundary == "<fence>"
    built, processor = vlmkit.build(mixed, weights="pretrained"), vlmkit.build_processor(mixed)
    assert built(**processor([user(picture(), "What?")])).logits.shape[-1] == 264


def test_a_chat_template_that_cannot_be_followed_is_refused_unless_a_layout_is_given(tmp_path: Path, quiet: None) -> None:
    silent = chatting(bytes_tokenizer(), "{{ raise_exception('no') }}")
    source = save_config(tmp_path, silent)
    with pytest.raises(SpecError, match=r"chat template .*; pass layout= with a template of your own"):
        architecture().replace(language_model=source)
    architecture().replace(language_model=source, layout=part(vlmkit.layouts, "run")).validate()


def test_a_chat_template_that_knows_of_images_says_what_stands_for_them(tmp_path: Path, quiet: None) -> None:
    """Also where the layout's own token is there too."""
    template = (
        "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' }}{% if m['content'] is string %}{{ m['content'] }}{% else %}"
        "{% for item in m['content'] %}{% if item['type'] == 'image' %}{{ '<|vision_start|><|image_pad|><|vision_end|>' }}{% else %}"
        "{{ item['text'] }}{% endif %}{% endfor %}{% endif %}{{ '<|im_end|>\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
    )
    tokens = ("<image>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>")
    source = save_config(tmp_path, chatting(bytes_tokenizer(tokens), template))
    run = architecture().replace(language_model=source).validate().layout
    assert run.placeholder == "<|image_pad|>"
    bracketed = architecture(layout="bracketed").replace(language_model=source).validate()
    assert special_fields(bracketed.layout) == {"placeholder": "<|image_pad|>", "start": "<|vision_start|>", "end": "<|vision_end|>"}
    for layout in (run, bracketed.layout):
        processor = vlmkit.build_processor(bracketed.replace(layout=layout))
        assert "<|image_pad|>" in processor.tokenizer.decode(processor([user(picture(), "What?")])["input_ids"][0])


def test_the_command_line_exchanges_it_and_says_what_the_layout_takes(words: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tokens", "--size", "640x480", "--model", "llava-1.5-7b", "--language-model", str(words), "--json"]) == 0
    told = capsys.readouterr()
    assert json.loads(told.out)[0]["models"][0]["model"] == "llava-1.5-7b+small-llama"
    assert "takes '<|image|>' as its placeholder (was '<image>')" in told.err
    assert main(["show", "--steps", "--size", "640x480", "--model", "idefics2-8b", "--language-model", str(words)]) == 0
    assert "as its boundary (was '<fake_token_around_image>')" in capsys.readouterr().err
    given = vlmkit.LanguageModel.from_pretrained(words).to_json()
    assert main(["tokens", "--size", "640x480", "--model", "llava-1.5-7b", "--language-model", given]) == 0
    assert "llava-1.5-7b+llama" in capsys.readouterr().out


def test_the_command_line_refuses_what_is_no_language_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tokens", "--size", "640x480", "--model", "llava-1.5-7b", "--language-model", str(tmp_path)]) == 2
    assert "no config.json there; name a directory that save_pretrained of a model wrote" in capsys.readouterr().err


PUBLISHED: dict[str, tuple[tuple[str, ...], dict[str, str | None]]] = {
    "Qwen2.5": (
        (
            "<|im_start|>",
            "<|im_end|>",
            "<|object_ref_start|>",
            "<|vision_start|>",
            "<|vision_end|>",
            "<|vision_pad|>",
            "<|image_pad|>",
            "<|video_pad|>",
        ),
        {
            "placeholder": "<|image_pad|>",
            "video_placeholder": "<|video_pad|>",
            "start": "<|vision_start|>",
            "end": "<|vision_end|>",
            "row_end": None,
        },
    ),
    "Llama 3": (
        ("<|begin_of_text|>", "<|eot_id|>", "<|reserved_special_token_0|>", "<|reserved_special_token_1|>"),
        {"placeholder": "<|reserved_special_token_0|>", "start": "<|reserved_special_token_0|>"},
    ),
    "OLMo": (("<|extra_id_0|>", "<|endoftext|>", "<|fim_prefix|>", "<|extra_id_1|>"), {"placeholder": "<|extra_id_0|>"}),
    "Gemma": (("<pad>", "<bos>", "<unused0>", "<start_of_turn>"), {"placeholder": "<unused0>"}),
    "Gemma 3": (
        ("<unused0>", "<start_of_image>", "<end_of_image>", "<image_soft_token>"),
        {"placeholder": "<image_soft_token>", "start": "<start_of_image>", "end": "<end_of_image>", "boundary": "<unused0>"},
    ),
    "Tekken": (
        ("<unk>", "[INST]", "[IMG]", "[IMG_BREAK]", "[IMG_END]", "<SPECIAL_20>"),
        {"placeholder": "[IMG]", "row_end": "[IMG_BREAK]", "image_end": "[IMG_END]", "start": "<SPECIAL_20>"},
    ),
    "Cohere": (("<PAD>", "<|EXTRA_0_TOKEN|>", "<|START_OF_TURN_TOKEN|>"), {"placeholder": "<|EXTRA_0_TOKEN|>"}),
    "DeepSeek": (("<|place▁holder▁no▁0|>", "<|User|>"), {"placeholder": "<|place▁holder▁no▁0|>"}),
    "Phi 3": (("<|endoftext|>", "<|assistant|>", "<|placeholder1|>"), {"placeholder": "<|placeholder1|>"}),
    "InternVL": (
        ("<img>", "</img>", "<IMG_CONTEXT>", "<quad>"),
        {"placeholder": "<IMG_CONTEXT>", "start": "<img>", "end": "</img>", "boundary": None},
    ),
    "Llama 2": (("<unk>", "<s>", "</s>"), {"placeholder": None}),
    "GPT-2": (("<|endoftext|>",), {"placeholder": None}),
}


@pytest.mark.parametrize("make", PUBLISHED)
def test_unused_tokens_of_published_vocabularies(make: str) -> None:
    spelled, fields = PUBLISHED[make]
    tokens = {spelling: number for number, spelling in enumerate(spelled)}
    assert {field: unused_for(field, tokens, (), "") for field in fields} == fields


def test_a_reserved_token_that_the_chat_template_writes_is_not_unused() -> None:
    tokens = {RESERVED[0]: 0, RESERVED[1]: 1}
    assert unused_for("placeholder", tokens, (), f"...{RESERVED[0]}...") == RESERVED[1]
    assert unused_for("placeholder", tokens, {RESERVED[1]}, f"...{RESERVED[0]}...") is None
