"""Tokenizers as layouts need them: plain text stays text, whatever it spells."""

from __future__ import annotations

import functools
import importlib.util
import json
import os
import secrets
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vlmkit.checkpoint_files import look_at_texts
from vlmkit.hub import refuse_unreachable
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

    Special are the tokens that it calls special, and those that a layout requires: added ones, and words of its vocabulary that are
    spelled <...> or |...| (Fuyu's tokenizer has |SPEAKER| beside all other words). Other added tokens are words like any other. Text is
    encoded by a copy of the tokenizer that has no special tokens at all, so whatever a text spells, and whatever a normalizer makes of
    it, no special id can come out (but the unknown token's, where the vocabulary lacks a character).
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, required: Iterable[str] = ()) -> None:
        if not tokenizer.is_fast:
            raise SpecError(
                f"{type(tokenizer).__name__} has no tokenizer.json; use a tokenizer of the tokenizers library, such as AutoTokenizer gives"
            )
        required = set(required)
        added = {token.content: (number, token) for number, token in tokenizer.added_tokens_decoder.items()}
        marks = {text: number for text, (number, token) in added.items() if token.special or text in required}
        named = dict(zip(tokenizer.all_special_tokens, tokenizer.all_special_ids, strict=True))
        spelled = {text: tokenizer.backend_tokenizer.token_to_id(text) for text in required if MARK.fullmatch(text)}
        words = {text: token for text, token in spelled.items() if token is not None}
        self.specials = Specials(
            words | marks | named,
            trim_before=(number for number, token in added.values() if token.lstrip and token.content in marks),
            trim_behind=(number for number, token in added.values() if token.rstrip and token.content in marks),
        )
        self._first, self._following = _without(tokenizer.backend_tokenizer, set(self.specials))
        self._heads: dict[tuple[str, bool], list[int]] = {}

    def encode(self, text: str, *, first: bool = True) -> list[int]:
        """Ids of plain text; ordinary text is encoded as the tokenizer itself would. Tokenizers that put a space before
        the first word of a string do so where `first`."""
        return self._encode(text, first)

    @property
    def sets_off_first(self) -> bool:
        """Whether the first word of a string is encoded otherwise than one behind a special token."""
        return self.encode("a") != self.encode("a", first=False)

    def encode_cut(self, text: str, places: Sequence[int], *, first: bool = True) -> tuple[list[int], list[int]]:
        """The same ids, and for each place in the text how many of them begin before it."""
        ids = self._encode(text, first)
        return ids, [self._count(text, place, first, ids) for place in places]

    def _count(self, text: str, place: int, first: bool, ids: list[int]) -> int:
        """How many ids stand before a place. Mostly the text up to there is encoded alike by itself."""
        before = text[:place]
        head = self._heads.get((before, first))
        if head is None:
            head = self._encode(before, first) if before else []
            if len(before) <= 32 and len(self._heads) < 1024:  # a role, which stands before every answer
                self._heads[before, first] = head
        if ids[: len(head)] == head:
            return len(head)
        encoder = self._first if first else self._following
        return sum(start < place for start, _ in encoder.encode(text, add_special_tokens=False).offsets)

    def _encode(self, text: str, first: bool) -> list[int]:
        encoder = self._first if first else self._following
        # The call for batches alone leaves out offsets, which takes twice as long as the ids.
        [encoded] = encoder.encode_batch_fast([text], add_special_tokens=False)
        ids: list[int] = encoded.ids
        return ids


def _without(tokenizer: tokenizers.Tokenizer, specials: set[str]) -> tuple[tokenizers.Tokenizer, tokenizers.Tokenizer]:
    """Copies that cannot give these tokens: for the beginning of a string, and for what follows a special token; mostly one for both."""
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
    following = _following(data["pre_tokenizer"])
    if following == data["pre_tokenizer"]:
        return first, first
    return first, Tokenizer.from_str(json.dumps(data | {"pre_tokenizer": following}))


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


def load_tokenizer(name: str, required: Iterable[str] = (), *, revision: str | None = None, **options: Any) -> PreTrainedTokenizerBase:
    """ "bytes" (with the special tokens that are required), a directory or a hub name, there of a revision -> tokenizer. options: as
    AutoTokenizer takes them. Raises SpecError with the way out where it cannot be had."""
    if name == "bytes":
        return bytes_tokenizer(required)
    from transformers import AutoTokenizer

    at = {} if revision is None else {"revision": revision}
    if os.path.isdir(name):
        look_at_texts(Path(name))
    try:
        refuse_unreachable(name, "tokenizer_config.json", revision)
        if (ranked := _of_ranks(name, at)) is not None:
            return ranked
        found = AutoTokenizer.from_pretrained(name, trust_remote_code=False, **at, **options)
        if getattr(found, "is_fast", False):
            return found
        # Where mistral-common is installed, transformers prefers it over tokenizer.json.
        return AutoTokenizer.from_pretrained(name, mistral_format=False, trust_remote_code=False, **at, **options)
    except Exception as error:  # of whichever library reads it; tokenizers has none of its own but Exception
        if _is_of_sentencepiece(name) and importlib.util.find_spec("sentencepiece") is None:
            raise SpecError(
                f"tokenizer {name!r} is a sentencepiece model alone (tokenizer.model), which another package reads: pip install "
                "'vlmkit[sentencepiece]'"
            ) from None
        raise SpecError(f"tokenizer {name!r} cannot be loaded ({first_line(error)}); pass tokenizer= with one that you have") from None


def _is_of_sentencepiece(name: str) -> bool:
    return os.path.isfile(os.path.join(name, "tokenizer.model")) and not os.path.exists(os.path.join(name, "tokenizer.json"))


def _of_ranks(name: str, at: dict[str, str]) -> PreTrainedTokenizerBase | None:
    """The tokenizer of a directory or hub name whose class only code beside it has; None where transformers has the class."""
    from transformers.models.auto.tokenization_auto import get_tokenizer_config
    from transformers.utils import cached_file

    from vlmkit.tiktoken_files import BY_CLASS

    published = BY_CLASS.get(get_tokenizer_config(name, **at).get("tokenizer_class"))
    if published is None:
        return None
    return published.read(os.path.dirname(str(cached_file(name, published.file, **at))))


def first_line(error: Exception) -> str:
    """What an error says, in one line; its type where it says nothing."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def with_all_told(tokenizer: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
    """The tokenizer such that what is saved of it is what it is: one that was read itself forgets `legacy`, by which Llama's sets off every
    word behind a special token or only the first of a string (transformers 5.24)."""
    legacy = getattr(tokenizer, "legacy", None)
    if legacy is not None:
        tokenizer.init_kwargs["legacy"] = legacy
    return tokenizer


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
