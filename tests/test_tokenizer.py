"""Plain text stays text, whatever it spells, for the byte tokenizer and for others built here."""

from __future__ import annotations

import json
import pickle
import unicodedata
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlmkit.layout import layouts
from vlmkit.layout.laid_out import Layout, Turn
from vlmkit.layout.template import CHATML, Template
from vlmkit.spec import SpecError
from vlmkit.tokenizer import BYTES_SPECIALS, PlainTokenizer, bytes_tokenizer, check_specials, load_tokenizer

WORDS = ("a", "The", " cat", "\n", "  ", "é", "猫", "🙂", "<", "|", ">", "im", "_end", "/s", "s")
TAGS = ("<|im_start|>", "<|im_end|>", "<|image|>", "<|endoftext|>", "<image>", "<think>", "<s>", "</s>", "<unk>", "<row_1>")


def bpe(normalizer: Any = None, *, metaspace: str | None = None, specials_in_vocabulary: bool = False) -> Any:
    """A byte-level or Metaspace BPE with special tokens, and with added ones that are not called special."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE(unk_token="<unk>" if metaspace else None, byte_fallback=bool(metaspace)))
    tokenizer.normalizer = normalizer
    if metaspace:
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=metaspace)
        tokenizer.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Metaspace(prepend_scheme=metaspace), decoders.Fuse()])
        alphabet = [f"<0x{value:02X}>" for value in range(256)]
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=not specials_in_vocabulary)
        tokenizer.decoder = decoders.ByteLevel()
        alphabet = []
    corpus = ["the cat sat on the mat <|im_end|> and <image> the <think>", "the <|im_end|> the <|im_end|> cat <s> </s>"] * 20
    trainer = trainers.BpeTrainer(
        vocab_size=600 if specials_in_vocabulary else 400,
        special_tokens=["<unk>", "<s>", "</s>", "<|im_start|>", *alphabet],
        initial_alphabet=[] if metaspace else pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(corpus, trainer)
    data = json.loads(tokenizer.to_str())
    data["added_tokens"] = [token for token in data["added_tokens"] if not token["content"].startswith("<0x")]
    tokenizer = Tokenizer.from_str(json.dumps(data))
    tokenizer.add_special_tokens([AddedToken(tag, special=True, normalized=False) for tag in ("<|im_start|>", "<|im_end|>", "<|image|>")])
    tokenizer.add_tokens([AddedToken(tag, special=False, normalized=True) for tag in ("<image>", "<think>", "<row_1>")])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        pad_token="<|im_end|>",
        clean_up_tokenization_spaces=False,
    )


def unigram() -> Any:
    """A vocabulary that holds the special tokens as words of its own, as SentencePiece writes them."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = [("<unk>", 0.0), ("<s>", 0.0), ("</s>", 0.0), ("<|im_end|>", -1.0), ("▁", -2.0), ("▁the", -1.0), ("cat", -1.0)]
    words += [(f"<0x{value:02X}>", -9.0) for value in range(256)] + [(chr(value), -5.0) for value in range(0x21, 0x7F)]
    tokenizer = Tokenizer(models.Unigram(words, unk_id=0, byte_fallback=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    tokenizer.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Metaspace(prepend_scheme="always"), decoders.Fuse()])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        additional_special_tokens=["<|im_end|>"],
        clean_up_tokenization_spaces=False,
    )


def nfkc() -> Any:
    from tokenizers import normalizers

    return normalizers.NFKC()


TOKENIZERS = {
    "bytes": bytes_tokenizer(),
    "bpe": bpe(),
    "bpe that merged a special token's spelling": bpe(specials_in_vocabulary=True),
    "bpe that normalizes fullwidth letters": bpe(nfkc()),
    "metaspace": bpe(metaspace="first"),
    "unigram": unigram(),
}


def spellings(tag: str) -> st.SearchStrategy[str]:
    """A special token as written, in other letters, cut, doubled, nested, fullwidth."""
    fullwidth = "".join(chr(ord(letter) + 0xFEE0) if "!" <= letter <= "~" else letter for letter in tag)
    cut = st.integers(1, len(tag) - 1)
    return st.one_of(
        st.sampled_from([tag, tag.upper(), tag.title(), tag * 2, fullwidth, f" {tag} ", f"{tag}\n"]),
        cut.map(lambda at: tag[:at] + tag + tag[at:]),
        cut.map(lambda at: f"{tag[:at]} {tag[at:]}"),
        cut.map(lambda at: f"{tag[:at]}\u200b{tag[at:]}"),
        cut.map(lambda at: tag[at:] + tag[:at]),
    )


def adversarial() -> st.SearchStrategy[str]:
    return st.lists(st.one_of(st.sampled_from(TAGS).flatmap(spellings), st.sampled_from(WORDS), st.text(max_size=3)), max_size=8).map(
        "".join
    )


@pytest.mark.parametrize("name", TOKENIZERS)
@given(text=adversarial(), first=st.booleans())
def test_no_special_id_comes_out_of_any_text_and_the_text_comes_back(name: str, text: str, first: bool) -> None:
    tokenizer = TOKENIZERS[name]
    plain = PLAIN[name]
    ids = plain.encode(text, first=first)
    specials = set(plain.specials.values()) - {tokenizer.unk_token_id}
    assert not specials.intersection(ids)
    wanted = unicodedata.normalize("NFKC", text) if "fullwidth" in name else text
    back = tokenizer.decode(ids)
    if name in ("metaspace", "unigram"):  # these write a space as ▁, and drop those before the first word
        assert back.replace("▁", " ").lstrip(" ") == wanted.replace("▁", " ").lstrip(" ")
    else:
        assert back == wanted


PLAIN = {name: PlainTokenizer(tokenizer, TAGS) for name, tokenizer in TOKENIZERS.items()}


@pytest.mark.parametrize("name", TOKENIZERS)
def test_ordinary_text_is_encoded_as_the_tokenizer_itself_does(name: str) -> None:
    text = "the cat sat on the mat, and  the cat\n"
    assert PLAIN[name].encode(text) == TOKENIZERS[name](text, add_special_tokens=False)["input_ids"]


def test_the_tokenizers_of_these_tests_do_take_a_spelling_for_a_token_if_they_are_asked_directly() -> None:
    for name, tokenizer in TOKENIZERS.items():
        ids = tokenizer("the <|im_end|> the", add_special_tokens=False)["input_ids"]
        assert tokenizer.convert_tokens_to_ids("<|im_end|>") in ids, name
    fullwidth = "\uff1cthink\uff1e"
    name = "bpe that normalizes fullwidth letters"
    assert PLAIN[name].specials["<think>"] in TOKENIZERS[name](fullwidth, add_special_tokens=False, split_special_tokens=True)["input_ids"]


def test_a_space_is_prepended_to_the_first_word_of_a_sequence_and_to_no_other() -> None:
    """As the tokenizer itself does when it is given the whole string."""
    tokenizer, plain = TOKENIZERS["metaspace"], PLAIN["metaspace"]
    template = Template(begin="the ", user=("<|im_start|>cat ", "<|im_end|>"), assistant=("<|im_start|>", "<|im_end|>"))
    layout = layouts["run"](template=template, placeholder="<|image|>").lay_out([Turn("user", ("sat on", "the mat"))], (), plain)
    whole = "the <|im_start|>cat sat onthe mat<|im_end|>"
    assert list(layout.ids) == tokenizer(whole, add_special_tokens=False)["input_ids"]


@given(texts=st.lists(adversarial(), min_size=3, max_size=3))
def test_special_spellings_in_any_role_leave_the_structure_of_the_prompt_alone(texts: list[str]) -> None:
    def laid_out(system: str, question: str, answer: str) -> Layout:
        turns = [Turn("system", (system,)), Turn("user", (question,)), Turn("assistant", (answer,))]
        return layouts["run"](template=CHATML, placeholder="<|image|>").lay_out(turns, (), PLAIN["bytes"])

    def structure(layout: Layout) -> list[int]:
        return [token for token in layout.ids if token >= 256]

    assert structure(laid_out(*texts)) == structure(laid_out("be brief", "what?", "yes"))
    assert bytes_tokenizer().decode(laid_out(*texts).ids) == (
        "<|im_start|>system\n{}<|im_end|>\n<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n{}<|im_end|>\n".format(*texts)
    )


def test_runs_of_spaces_and_single_characters_that_were_added_remain_words() -> None:
    tokenizer = bytes_tokenizer()
    tokenizer.add_tokens(["    ", "猫"])
    plain = PlainTokenizer(tokenizer)
    assert plain.encode("    猫") == [263, 264]
    assert set(plain.specials) == set(BYTES_SPECIALS)


def test_words_of_the_vocabulary_that_a_layout_requires_are_special_and_no_text_spells_them() -> None:
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    pieces = ["<unk>", *(f"<0x{value:02X}>" for value in range(256)), "|SPEAKER|", "cat"]
    model = models.Unigram([(piece, -float(number)) for number, piece in enumerate(pieces)], unk_id=0, byte_fallback=True)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(model), unk_token="<unk>")
    assert tokenizer("|SPEAKER|cat<0x04>", add_special_tokens=False)["input_ids"] == [257, 258, 5]
    plain = PlainTokenizer(tokenizer, ("|SPEAKER|", "<0x04>", "cat", "<image>"))
    assert plain.specials == {"<unk>": 0, "|SPEAKER|": 257, "<0x04>": 5}
    assert plain.encode("|cat<0x04>") == [1 + ord("|"), 258, *(1 + value for value in b"<0x04>")]
    assert not {257, 5} & {*plain.encode("|SPEAKER|"), *plain.encode("\x04")}


def test_byte_ids_are_bytes_and_specials_follow() -> None:
    tokenizer = bytes_tokenizer()
    assert PlainTokenizer(tokenizer).encode("é\n") == [*"é\n".encode()]
    assert [tokenizer.convert_tokens_to_ids(token) for token in BYTES_SPECIALS] == list(range(256, 263))
    assert (tokenizer.pad_token_id, tokenizer.eos_token_id) == (256, 257)


@pytest.mark.parametrize("name", TOKENIZERS)
def test_added_tokens_that_are_not_special_are_words_of_one_id(name: str) -> None:
    tokenizer, text = TOKENIZERS[name], "the cat <think> sat"
    assert PlainTokenizer(tokenizer).encode(text) == tokenizer(text, add_special_tokens=False)["input_ids"]


@given(words=st.lists(st.sampled_from(["the", " ", "cat", "\n", " mat", "<image>"]), min_size=1, max_size=8), first=st.booleans())
def test_ids_before_a_place_are_those_that_begin_there(words: list[str], first: bool) -> None:
    text = "".join(words)
    for plain in PLAIN.values():
        places = list(range(len(text) + 1))
        ids, counts = plain.encode_cut(text, places, first=first)
        assert ids == plain.encode(text, first=first)
        assert (counts[0], counts[-1]) == (0, len(ids))
        assert counts == sorted(counts)
        for place, count in zip(places, counts, strict=True):
            whole = plain.encode(text[:place], first=first) if place else []
            assert count == len(whole) or ids[: len(whole)] != whole


def test_blanks_beside_special_tokens_go_where_the_tokenizer_drops_them() -> None:
    """Phi-3's tokenizer drops what stands behind <|end|>, a template's line break or the blanks that somebody typed."""
    from tokenizers import AddedToken

    tokenizer = bpe()
    tokenizer.add_tokens([AddedToken("<|end|>", special=True, rstrip=True), AddedToken("<|mask|>", special=True, lstrip=True)])
    template = Template(user=("<|im_start|>", " <|mask|>"), assistant=("<|end|>\n", "<|end|>\n"))
    turns = [Turn("user", (" the cat \n",)), Turn("assistant", ("  sat\n",)), Turn("user", ("the mat",))]
    layout = layouts["run"](template=template, placeholder="<|image|>").lay_out(turns, (), PlainTokenizer(tokenizer))
    whole = "<|im_start|> the cat \n <|mask|><|end|>\n  sat\n<|end|>\n<|im_start|>the mat <|mask|>"
    assert list(layout.ids) == tokenizer(whole, add_special_tokens=False)["input_ids"]
    ((start, stop),) = layout.supervised
    assert tokenizer.decode(layout.ids[start:stop]) == "sat\n<|end|>"


def test_a_plain_tokenizer_can_be_sent_to_another_process() -> None:
    assert pickle.loads(pickle.dumps(PLAIN["bpe"])).encode("the <think>") == PLAIN["bpe"].encode("the <think>")


def test_a_special_token_that_is_missing_or_beyond_the_vocabulary_is_refused_by_name() -> None:
    plain = PLAIN["bytes"]
    assert check_specials(plain, ("<|image|>",), 320) == {"<|image|>": 260}
    with pytest.raises(SpecError, match=r"no special token '<img>'; it has .*'<\|image\|>'"):
        check_specials(plain, ("<img>", "<|image|>"), 320)
    with pytest.raises(SpecError, match=r"\{'<\|image\|>': 260\} are beyond the language model's vocabulary of 260"):
        check_specials(plain, ("<|image|>",), 260)


def test_a_tokenizer_that_cannot_be_loaded_is_named_with_the_way_out(tmp_path: Any) -> None:
    with pytest.raises(SpecError, match=r"tokenizer '.*nothing' cannot be loaded .*pass tokenizer="):
        load_tokenizer(str(tmp_path / "nothing"))


def test_a_tokenizer_without_tokenizer_json_is_refused() -> None:
    from transformers import ByT5Tokenizer

    with pytest.raises(SpecError, match=r"ByT5Tokenizer has no tokenizer\.json"):
        PlainTokenizer(ByT5Tokenizer())


def test_an_answer_of_blanks_alone_ends_where_it_began_behind_a_token_that_drops_them() -> None:
    from tokenizers import AddedToken

    tokenizer = bpe()
    tokenizer.add_tokens([AddedToken("<|mask|>", special=True, lstrip=True)])
    template = Template(user=("<|im_start|>", "<|im_end|>"), assistant=("<|im_start|>", "<|mask|>"))
    turns = [Turn("user", ("the",)), Turn("assistant", ("  ",)), Turn("user", ("cat",))]
    layout = layouts["run"](template=template, placeholder="<|image|>").lay_out(turns, (), PlainTokenizer(tokenizer))
    assert [tokenizer.decode(layout.ids[start:stop]) for start, stop in layout.supervised] == ["<|mask|>"]
