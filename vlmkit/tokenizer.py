"""Tokenizers as layouts need them: plain text stays text, whatever it spells."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from vlmkit.spec import SpecError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

BYTES_SPECIALS = ("<|pad|>", "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|image|>", "<|image_start|>", "<|image_end|>")
"""Special tokens of the byte-level tokenizer, ids 256 and up."""


class PlainTokenizer:
    """A transformers tokenizer that satisfies `vlmkit.layout.base.Tokenizer`."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self.tokenizer = tokenizer
        self.specials: Mapping[str, int] = {
            **tokenizer.get_added_vocab(),
            **dict(zip(tokenizer.all_special_tokens, tokenizer.all_special_ids, strict=True)),
        }
        self._special_ids = frozenset(self.specials.values())
        spellings = sorted(map(re.escape, self.specials), key=len, reverse=True)
        self._spelled = re.compile("|".join(spellings), re.IGNORECASE) if spellings else None

    def encode(self, text: str) -> list[int]:
        """Ids of plain text. A spelled special token is cut in two after its first character, so that no tokenizer,
        whatever it does with added tokens, can take it for the token; ordinary text is encoded whole."""
        ids: list[int] = []
        for piece in self._cut(text):
            found = self._encode(piece)
            if self._special_ids.intersection(found):
                found = [token for character in piece for token in self._encode(character)]
            ids += found
        return ids

    def _cut(self, text: str) -> list[str]:
        cuts = [match.start() + 1 for match in self._spelled.finditer(text)] if self._spelled else []
        return [text[start:end] for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True) if start < end]

    def _encode(self, text: str) -> list[int]:
        return list(self.tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"])


@functools.cache
def _bytes_tokenizer_json() -> str:
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    alphabet = _byte_alphabet()
    tokenizer = Tokenizer(models.BPE(vocab={character: value for value, character in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in BYTES_SPECIALS])
    return str(tokenizer.to_str())


def _byte_alphabet() -> list[str]:
    """The character that stands for each byte in byte-level BPE: Radford et al. 2019 (GPT-2). Printable bytes stand for
    themselves, the others are moved above 255 in order."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    moved = iter(range(256, 512))
    return [chr(value) if value in printable else chr(next(moved)) for value in range(256)]


def bytes_tokenizer() -> PreTrainedTokenizerBase:
    """One token a byte (id = byte) and a few special tokens; built in code, no download."""
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(_bytes_tokenizer_json()),
        pad_token="<|pad|>",
        eos_token="<|endoftext|>",
        additional_special_tokens=list(BYTES_SPECIALS[2:]),
        clean_up_tokenization_spaces=False,
        model_input_names=["input_ids", "attention_mask"],
    )


def load_tokenizer(name: str) -> PreTrainedTokenizerBase:
    """"bytes", a directory or a hub name -> tokenizer. Raises SpecError with the way out where it cannot be had."""
    if name == "bytes":
        return bytes_tokenizer()
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
        raise SpecError(f"the tokenizer has no special token {', '.join(map(repr, missing))}; it has {', '.join(map(repr, tokenizer.specials))}")
    beyond = {token: tokenizer.specials[token] for token in required if tokenizer.specials[token] >= vocabulary}
    if beyond:
        raise SpecError(f"special tokens {beyond} are beyond the language model's vocabulary of {vocabulary}")
    return {token: tokenizer.specials[token] for token in required}
