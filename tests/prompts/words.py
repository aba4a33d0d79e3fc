"""Tiny tokenizers of the kinds that published checkpoints have: their merges are learnt from one paragraph, in code.

Merges reach over the ends of roles, words and blanks, so a text that is cut in the wrong place has other ids.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterable
from typing import Any, Literal

import transformers
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

PARAGRAPH = """USER: What is this? ASSISTANT: A picture of a cat on a red sofa. USER: Who are you? ASSISTANT: I am a model.
user What is in the image? assistant There are two cats. The first one is larger than the second one, and the
second one sleeps.\nsystem You are a helpful assistant. Answer in one word.\n\nUser: Which is larger?\n\nAssistant: The first one.
model It is a cat.\n[INST] What do you see? [/INST] The sea, a boat and the sun. [INST] And now? [/INST] Only the sea.
A chat between a curious person and an assistant. The assistant is polite. ### Instruction:\nDescribe this.\n\n### Response:\nA cat.
 : :\n ?\n .\n\n ? A ? I : A : W . U  . The  two   three    blanks\n\n\n"""
"""What tokenizers are trained on: roles and words of the conversations, with what stands between them."""

Added = str | AddedToken
"""A special token by its spelling, or an added one with its flags."""


def stripping(text: str, *, left: bool = False, right: bool = False) -> AddedToken:
    """A special token that swallows the blanks beside it, as Phi 3's do."""
    return AddedToken(text, special=True, normalized=False, lstrip=left, rstrip=right)


def ordinary(text: str) -> AddedToken:
    """An added token that is not special: one id wherever a text spells it."""
    return AddedToken(text, special=False, normalized=False)


def byte_level(
    *added: Added, begins: str | None = None, splits: Literal["gpt2", "llama3"] = "gpt2", blank: bool = False, **roles: Any
) -> Any:
    """Byte-level BPE (GPT-2; with Llama 3's expression for words). `begins`: the token that the post-processor puts first. `blank`: with
    a blank before every stretch between special tokens, where there is none."""
    tokenizer = Tokenizer.from_str(_byte_level(splits))
    if blank:
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    return _finished(tokenizer, added, begins, roles)


def sentencepiece(
    *added: Added, scheme: Literal["normalizer", "always", "first", "never"], begins: str | None = "<s>", **roles: Any
) -> Any:
    """BPE over `▁` with bytes for what is unknown, as converted from sentencepiece models.

    scheme: where a blank is put before words: by a normalizer before every stretch between special tokens ("normalizer", Llama's
    tokenizer.json of old; "always", `legacy: true`), before the first of the string alone ("first", `legacy: false`), or nowhere
    ("never", Gemma).
    """
    data = json.loads(_sentencepiece())
    tokenizer = Tokenizer.from_str(json.dumps(data))
    strip = [decoders.Strip(content=" ", left=1)] if scheme != "never" else []
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), *strip])
    if scheme == "normalizer":
        tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    elif scheme == "never":
        tokenizer.normalizer = normalizers.Replace(" ", "▁")
        tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme=scheme, split=False)
    return _finished(
        tokenizer, ("<unk>", "<s>", "</s>", *added), begins, {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"} | roles
    )


def unigram(*added: Added, **roles: Any) -> Any:
    """A unigram model over the same words, the longer the likelier, with bytes for what is unknown."""
    words: dict[str, int] = json.loads(_sentencepiece())["model"]["vocab"]
    scores = [(word, 0.0 if place < 3 else -20.0 if place < 259 else -10.0 + len(word) / 4 - place / 1000) for word, place in words.items()]
    tokenizer = Tokenizer(models.Unigram(scores, unk_id=0, byte_fallback=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always")
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(content=" ", left=1)]
    )
    named = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"}
    return _finished(tokenizer, ("<unk>", "<s>", "</s>", *added), "<s>", named | roles)


def llama(*added: Added, legacy: bool, begins: bool = True, **roles: Any) -> Any:
    """transformers' own class for Llama's tokenizers, built again from vocabulary and merges when it is loaded. `begins`: with <s>."""
    model = json.loads(_sentencepiece())["model"]
    merges = [tuple(merge) if isinstance(merge, list) else tuple(merge.split(" ")) for merge in model["merges"]]
    tokenizer = transformers.LlamaTokenizer(vocab=model["vocab"], merges=merges, legacy=legacy, add_bos_token=begins, **roles)
    tokenizer.add_tokens([_special(token) for token in added])
    tokenizer.init_kwargs["legacy"] = legacy  # published files state it
    return tokenizer


def _finished(tokenizer: Tokenizer, added: Iterable[Added], begins: str | None, roles: dict[str, Any]) -> Any:
    tokenizer.add_tokens([_special(token) for token in added])
    if begins is not None:
        first = (begins, tokenizer.token_to_id(begins))
        put = processors.TemplateProcessing(single=f"{begins}:0 $A:0", pair=f"{begins}:0 $A:0 $B:0", special_tokens=[first])
        others = [] if tokenizer.post_processor is None else [tokenizer.post_processor]
        tokenizer.post_processor = processors.Sequence([*others, put]) if others else put
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        clean_up_tokenization_spaces=False,
        model_input_names=["input_ids", "attention_mask"],
        **roles,
    )


def _special(token: Added) -> AddedToken:
    return AddedToken(token, special=True, normalized=False) if isinstance(token, str) else token


@functools.cache
def _byte_level(splits: str) -> str:
    tokenizer = Tokenizer(models.BPE())
    if splits == "gpt2":
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    else:
        words = Regex(
            r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
        )
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.Split(words, "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
        )
    trainer = trainers.BpeTrainer(
        vocab_size=256 + 160, initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()), show_progress=False, min_frequency=1
    )
    tokenizer.train_from_iterator([PARAGRAPH], trainer)
    tokenizer.decoder = decoders.ByteLevel()
    return str(tokenizer.to_str())


@functools.cache
def _sentencepiece() -> str:
    """Vocabulary in Llama's order: <unk>, <s>, </s>, the bytes, then what is learnt."""
    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split("\n", "isolated"), pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="never")]
    )
    trained.train_from_iterator([PARAGRAPH], trainers.BpeTrainer(vocab_size=220, show_progress=False, min_frequency=1))
    learnt = json.loads(trained.to_str())["model"]
    words = [word for word in sorted(learnt["vocab"], key=learnt["vocab"].get) if word != "\n"]
    order = ["<unk>", "<s>", "</s>", *(f"<0x{value:02X}>" for value in range(256)), *words]
    vocabulary = {word: number for number, word in enumerate(order)}
    merges = [tuple(merge) if isinstance(merge, list) else tuple(merge.split(" ")) for merge in learnt["merges"]]
    merges = [merge for merge in merges if "\n" not in "".join(merge)]
    model = models.BPE(vocab=vocabulary, merges=merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    return str(Tokenizer(model).to_str())
