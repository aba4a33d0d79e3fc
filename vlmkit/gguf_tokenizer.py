"""The tokenizer of a GGUF file: words of bytes, pairs that are merged, and what kind of word each is, as llama.cpp reads them.

llama.cpp knows by a name, `tokenizer.ggml.pre`, how a text is cut before pairs are merged; here that of Qwen2 is known.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from vlmkit.spec import SpecError
from vlmkit.tiktoken_files import QWEN, byte_level

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

KEY = "tokenizer.ggml."
PATTERNS = {"qwen2": QWEN.pattern}
"""Where a text is cut, by the name of it."""
NORMAL, CONTROL, USER_DEFINED, UNUSED = 1, 3, 4, 5
"""Kinds of words; an unused one only keeps a row of the embedding."""
ROLES = {"bos_token": "bos_token_id", "eos_token": "eos_token_id", "pad_token": "padding_token_id"}
"""Of a tokenizer of transformers -> fields of a file."""


def read_tokenizer(fields: Mapping[str, Any]) -> PreTrainedTokenizerBase:
    """Of a file's fields. Raises SpecError for what is no byte-level BPE, and for fields that do not fit one another."""
    from tokenizers import AddedToken
    from transformers import PreTrainedTokenizerFast

    model, pre = (fields.get(KEY + name) for name in ("model", "pre"))
    if model != "gpt2" or pre not in PATTERNS:
        raise SpecError(f"{KEY}model is {model!r} and {KEY}pre is {pre!r}; expected 'gpt2' and {' or '.join(map(repr, PATTERNS))}")
    words, merges = _words(fields, "tokens"), _words(fields, "merges")
    kinds = fields.get(f"{KEY}token_type", [NORMAL] * len(words))
    if not isinstance(kinds, list) or len(kinds) != len(words):
        raise SpecError(f"{KEY}token_type: expected {len(words)} kinds, one for each of the tokens, got {str(kinds)[:40]}")
    vocabulary = {word: number for number, (word, kind) in enumerate(zip(words, kinds, strict=True)) if kind != UNUSED}
    if len(vocabulary) != sum(kind != UNUSED for kind in kinds):
        twice = next(word for number, word in enumerate(words) if kinds[number] != UNUSED and vocabulary[word] != number)
        raise SpecError(f"{KEY}tokens: {twice!r} is there twice")
    pairs = [_pair(merge) for merge in merges]
    made = byte_level(vocabulary, pairs, PATTERNS[pre])
    added = {word: kinds[number] for word, number in vocabulary.items() if kinds[number] in (CONTROL, USER_DEFINED)}
    made.add_tokens([AddedToken(word, special=kind == CONTROL, normalized=False) for word, kind in added.items()])
    roles = {role: words[number] for role, field in ROLES.items() if (number := _number(fields, field, len(words))) is not None}
    specials = [word for word, kind in added.items() if kind == CONTROL and word not in roles.values()]
    return PreTrainedTokenizerFast(
        tokenizer_object=made,
        additional_special_tokens=specials,
        clean_up_tokenization_spaces=False,
        model_input_names=["input_ids", "attention_mask"],
        **roles,
    )


def tokenizer_fields(tokenizer: PreTrainedTokenizerBase, rows: int) -> dict[str, Any]:
    """The inverse; rows: of the embedding, for each of which a file has a word. Raises SpecError for a tokenizer that llama.cpp would not
    read as the same."""
    said = json.loads(tokenizer.backend_tokenizer.to_str())
    model, pattern = said["model"], _pattern(said["pre_tokenizer"])
    name = next((name for name, known in PATTERNS.items() if known == pattern), None)
    if model["type"] != "BPE" or name is None or model.get("byte_fallback"):
        raise SpecError(
            f"a GGUF file holds byte-level BPE that cuts texts as {' or '.join(PATTERNS)} does, but the tokenizer does otherwise"
        )
    if not model["merges"]:
        raise SpecError("llama.cpp reads no tokenizer without merges, but this one has none")
    words, kinds = [f"[PAD{row}]" for row in range(rows)], [UNUSED] * rows
    added = {token["content"]: CONTROL if token["special"] else USER_DEFINED for token in said["added_tokens"]}
    for word, number in tokenizer.get_vocab().items():
        if number >= rows:
            raise SpecError(f"the tokenizer's {word!r} is token {number}, beyond the {rows} rows of the embedding")
        words[number], kinds[number] = word, added.get(word, NORMAL)
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]]
    fields: dict[str, Any] = {"model": "gpt2", "pre": name, "tokens": words, "token_type": kinds, "merges": merges}
    ids = {field: getattr(tokenizer, f"{role}_id") for role, field in ROLES.items()}
    fields |= {field: number for field, number in ids.items() if number is not None}
    return {KEY + field: value for field, value in (fields | {"add_bos_token": False}).items()}


def _words(fields: Mapping[str, Any], name: str) -> list[str]:
    found = fields.get(KEY + name)
    if not isinstance(found, list) or not found or not isinstance(found[0], str):
        raise SpecError(f"{KEY}{name}: expected texts, got {str(found)[:40]}")
    return found


def _pair(merge: str) -> tuple[str, str]:
    left, _, right = merge.partition(" ")
    if not left or not right:
        raise SpecError(f"{KEY}merges: expected two words with a space between them, got {merge!r}")
    return left, right


def _number(fields: Mapping[str, Any], name: str, count: int) -> int | None:
    number = fields.get(KEY + name)
    if number is not None and not (isinstance(number, int) and 0 <= number < count):
        raise SpecError(f"{KEY}{name}: expected one of {count} tokens, got {number!r}")
    return number


def _pattern(part: Any) -> str | None:
    """The regular expression of a pre-tokenizer that cuts at it and spells bytes; None for any other."""
    parts = part.get("pretokenizers", []) if isinstance(part, dict) else []
    if [each.get("type") for each in parts] != ["Split", "ByteLevel"] or parts[0].get("behavior") != "Isolated" or parts[0].get("invert"):
        return None
    plain = not parts[1].get("add_prefix_space") and not parts[1].get("use_regex")
    pattern: str | None = parts[0]["pattern"].get("Regex")
    return pattern if plain else None
