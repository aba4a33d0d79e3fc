"""Tokenizers as layouts need them: plain text stays text, whatever it spells."""

from __future__ import annotations

import functools
import json
import re
import secrets
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from vlmkit.layout.specials import Specials
from vlmkit.layout.template import MARK
from vlmkit.spec import SpecError

if TYPE_CHECKING:
    import tokenizers
    from transformers import PreTrainedTokenizerBase

BYTES_SPECIALS = ("<|pad|>", "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|image|>", "<|image_start|>", "<|image_end|>")
"""Special tokens of the byte-level tokenizer, ids 256 and up."""


class PlainTokenizer:
    """A transformers tokenizer that satisfies `vlmkit.layout.base.Tokenizer`.

    Special are its added tokens, and the words of its vocabulary that a layout requires and spells <...> or |...|: Fuyu's
    tokenizer has |SPEAKER| beside all other words. Text is encoded by a copy of the tokenizer that has no special tokens at
    all, so whatever a text spells, and whatever a normalizer makes of it, no special id can come out (but the unknown token's,
    where the vocabulary lacks a character).
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, required: Iterable[str] = ()) -> None:
        if not tokenizer.is_fast:
            raise SpecError(
                f"{type(tokenizer).__name__} has no tokenizer.json; use a tokenizer of the tokenizers library, such as AutoTokenizer gives"
            )
        named = dict(zip(tokenizer.all_special_tokens, tokenizer.all_special_ids, strict=True))
        added = {text: token for text, token in tokenizer.get_added_vocab().items() if not _is_ordinary(text)}
        spelled = {text: tokenizer.backend_tokenizer.token_to_id(text) for text in required if MARK.fullmatch(text)}
        words = {text: token for text, token in spelled.items() if token is not None}
        self.specials = Specials(words | added | named)
        self._first, self._following = _without(tokenizer.backend_tokenizer, set(self.specials))

    def encode(self, text: str, *, first: bool = True) -> list[int]:
        """Ids of plain text; ordinary text is encoded as the tokenizer itself would. Tokenizers that put a space before
        the first word of a string do so where `first`."""
        encoder = self._first if first else self._following
        # The call for batches alone leaves out offsets, which takes twice as long as the ids.
        [encoded] = encoder.encode_batch_fast([text], add_special_tokens=False)
        ids: list[int] = encoded.ids
        return ids


_WORDS = re.compile(r"<loc\d{4}>|<seg\d{3}>")
"""Coordinates and codes of masks, which are words of questions and answers: PaliGemma (arXiv:2407.07726)."""


def _is_ordinary(added: str) -> bool:
    """Added tokens that mark nothing: runs of spaces (GPT-NeoX), single characters and places are words like any other."""
    return len(added) == 1 or added.isspace() or _WORDS.fullmatch(added) is not None


def _without(tokenizer: tokenizers.Tokenizer, specials: set[str]) -> tuple[tokenizers.Tokenizer, tokenizers.Tokenizer]:
    """Two copies that cannot give these tokens: for the beginning of a string, and for what follows a special token."""
    from tokenizers import Tokenizer

    data = json.loads(tokenizer.to_str())
    data |= {"post_processor": None, "truncation": None, "padding": None}
    # Every token keeps its place, and with it all ids, under a name that no text can spell.
    names = {word: secrets.token_hex(16) for word in specials}
    for token in data["added_tokens"]:
        token["content"] = names.get(token["content"], token["content"])
    model = data["model"]
    if isinstance(model["vocab"], dict):
        model["vocab"] = {names.get(word, word): token for word, token in model["vocab"].items()}
    else:
        model["vocab"] = [[names.get(word, word), score] for word, score in model["vocab"]]
    if model.get("unk_token") in names:
        model["unk_token"] = names[model["unk_token"]]
    if "merges" in model:
        pairs = (merge if isinstance(merge, list) else merge.split(" ") for merge in model["merges"])
        model["merges"] = [pair for pair in pairs if not specials.intersection((*pair, "".join(pair)))]
    first = Tokenizer.from_str(json.dumps(data))
    data["pre_tokenizer"] = _following(data["pre_tokenizer"])
    return first, Tokenizer.from_str(json.dumps(data))


def _following(part: Any) -> Any:
    """The pre-tokenizer away from the beginning of a string: what is prepended to the first word only is not prepended."""
    if isinstance(part, list):
        return [_following(item) for item in part]
    if isinstance(part, dict):
        part = {name: _following(value) for name, value in part.items()}
        return part | {"prepend_scheme": "never"} if part.get("prepend_scheme") == "first" else part
    return part


@functools.cache
def _bytes_tokenizer_json(specials: tuple[str, ...]) -> str:
    """An ASCII character is one token, any other its bytes in UTF-8. Ids are bytes either way."""
    from tokenizers import AddedToken, Tokenizer, decoders, models

    vocabulary = {chr(value) if value < 128 else f"<0x{value:02X}>": value for value in range(256)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[], byte_fallback=True))
    tokenizer.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse()])
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in specials])
    return str(tokenizer.to_str())


def bytes_tokenizer(more: Iterable[str] = (), **roles: Any) -> PreTrainedTokenizerBase:
    """One token a byte (id = byte), BYTES_SPECIALS from id 256 and `more` special tokens behind them; built in code, no
    download. `roles` go to transformers: bos_token, extra_special_tokens, ..."""
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    specials = tuple(dict.fromkeys((*BYTES_SPECIALS, *more)))
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(_bytes_tokenizer_json(specials)),
        clean_up_tokenization_spaces=False,
        model_input_names=["input_ids", "attention_mask"],
        **({"pad_token": "<|pad|>", "eos_token": "<|endoftext|>", "additional_special_tokens": list(specials[2:])} | roles),
    )


def load_tokenizer(name: str, required: Iterable[str] = ()) -> PreTrainedTokenizerBase:
    """ "bytes" (with the special tokens that are required), a directory or a hub name -> tokenizer. Raises SpecError with
    the way out where it cannot be had."""
    if name == "bytes":
        return bytes_tokenizer(required)
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(name)
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise SpecError(f"tokenizer {name!r} cannot be loaded ({reason}); pass tokenizer= with one that you have") from None


def check_specials(tokenizer: PlainTokenizer, required: tuple[str, ...], vocabulary: int) -> dict[str, Any]:
    """The ids of required special tokens. Raises SpecError naming those that the tokenizer does not have as one token."""
    missing = [token for token in required if token not in tokenizer.specials]
    if missing:
        known = ", ".join(map(repr, tokenizer.specials))
        raise SpecError(f"the tokenizer has no special token {', '.join(map(repr, missing))}; it has {known or 'none'}")
    beyond = {token: tokenizer.specials[token] for token in required if tokenizer.specials[token] >= vocabulary}
    if beyond:
        raise SpecError(f"special tokens {beyond} are beyond the language model's vocabulary of {vocabulary}")
    return {token: tokenizer.specials[token] for token in required}
