"""Tokenizers that are published as a list of byte strings with ranks (github.com/openai/tiktoken), read and written.

A line of such a file is a byte string in base64, and its rank, which is its id. Bytes are merged by the rank of what they become. Here it
is a tokenizer of the tokenizers library, for which every way to cut a byte string into two others is a merge, in the order of ranks:
transformers reads such files in the same way, with tiktoken installed. What comes before, how a text is cut into words and which special
tokens there are, stands in no file but in the code beside it, which is never run: `QWEN` states it.
"""

from __future__ import annotations

import base64
import binascii
import functools
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vlmkit.spec import SpecError

if TYPE_CHECKING:
    import tokenizers
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True, kw_only=True)
class Tiktoken:
    """What the code beside a file of ranks says."""

    file: str
    pattern: str
    """A text is cut into pieces that match; nothing is merged across them."""
    added: tuple[str, ...]
    """Tokens whose ids follow the ranks."""
    words: frozenset[str]
    """Those of them that are no special ones: texts may spell them."""
    end: str
    """The special token that ends a text, and fills rows up."""

    def read(self, directory: str | os.PathLike[str]) -> PreTrainedTokenizerBase:
        """The tokenizer of a directory. Raises SpecError for a file that holds no ranks."""
        from tokenizers import AddedToken
        from transformers import PreTrainedTokenizerFast

        ranks = read_ranks(Path(directory) / self.file)
        letters = letters_of_bytes()
        spelled = {"".join(letters[byte] for byte in word): rank for word, rank in ranks.items()}
        pairs = [(left, right) for word in spelled for left, right in _cuts(word) if left in spelled and right in spelled]
        merges = sorted(pairs, key=lambda pair: (spelled[pair[0] + pair[1]], spelled[pair[0]], spelled[pair[1]]))
        made = byte_level(spelled, merges, self.pattern, ignore_merges=True)
        made.add_tokens([AddedToken(token, special=token not in self.words, normalized=False) for token in self.added])
        return PreTrainedTokenizerFast(
            tokenizer_object=made,
            eos_token=self.end,
            pad_token=self.end,
            additional_special_tokens=[token for token in self.added if token not in {self.end, *self.words}],
            clean_up_tokenization_spaces=False,
            model_input_names=["input_ids", "attention_mask"],
        )

    def write(self, tokenizer: PreTrainedTokenizerBase, directory: str | os.PathLike[str]) -> None:
        """The file of ranks. Raises SpecError for a tokenizer that `read` would not make of it."""
        path = Path(directory) / self.file
        path.write_text(self.lines(tokenizer), encoding="ascii")

    def lines(self, tokenizer: PreTrainedTokenizerBase) -> str:
        """The text of the file. Raises SpecError for a tokenizer that such a file does not tell."""
        said = json.loads(tokenizer.backend_tokenizer.to_str())
        bytes_of = {letter: byte for byte, letter in enumerate(letters_of_bytes())}
        vocabulary = said["model"].get("vocab")
        if not isinstance(vocabulary, dict) or not all(letter in bytes_of for word in vocabulary for letter in word):
            raise SpecError(f"{self.file} holds byte strings, but the tokenizer is a {said['model']['type']} of other words")
        if sorted(vocabulary.values()) != list(range(len(vocabulary))):
            raise SpecError(f"{self.file} numbers its byte strings from 0 on, but the tokenizer's ids have gaps")
        named = {token["content"]: token["id"] for token in said["added_tokens"]}
        expected = {token: len(vocabulary) + number for number, token in enumerate(self.added)}
        if named != expected:
            apart = next(iter(named.items() ^ expected.items()))
            raise SpecError(f"behind {self.file} stand {len(expected)} tokens in an order of their own, but {apart[0]!r} is not so placed")
        words = sorted(vocabulary, key=vocabulary.__getitem__)
        rows = (base64.b64encode(bytes(bytes_of[letter] for letter in word)).decode("ascii") for word in words)
        return "".join(f"{row} {rank}\n" for rank, row in enumerate(rows))


def byte_level(
    vocabulary: dict[str, int], merges: list[tuple[str, str]], pattern: str, *, ignore_merges: bool = False
) -> tokenizers.Tokenizer:
    """A tokenizer over letters of bytes: a text is cut into pieces that match the pattern, and within them pairs are merged. ignore_merges:
    a piece that is a word of the vocabulary is that word, whatever merges make of it. Raises SpecError for merges of other words."""
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

    known = vocabulary.keys()
    if strange := next((pair for pair in merges if not {*pair, "".join(pair)} <= known), None):
        raise SpecError(
            f"the tokenizer merges {strange[0]!r} and {strange[1]!r}, but it has not all of the words {(*strange, ''.join(strange))}"
        )
    made = Tokenizer(models.BPE(vocab=vocabulary, merges=merges, ignore_merges=ignore_merges))
    made.normalizer = normalizers.NFC()
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(pattern), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    made.decoder = decoders.ByteLevel()
    return made


def read_ranks(path: Path) -> dict[bytes, int]:
    """Byte strings and their ranks. Raises SpecError for a file that holds no such thing."""
    found: dict[bytes, int] = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if not line:
            continue
        try:
            word, rank = line.split()
            found[base64.b64decode(word, validate=True)] = int(rank)
        except (ValueError, binascii.Error):
            raise SpecError(f"{path}, line {number}: expected a byte string in base64 and its rank, got {line[:40]!r}") from None
    if sorted(found.values()) != list(range(len(found))) or len(found) < 256:
        raise SpecError(f"{path}: expected 256 or more byte strings, numbered from 0 on, got {len(found)}")
    return found


@functools.cache
def letters_of_bytes() -> tuple[str, ...]:
    """The letter that stands for each byte in a byte-level tokenizer (Radford et al. 2019, GPT-2): printable ones for themselves, the
    others for those from 256 on."""
    printable = {*range(33, 127), *range(161, 173), *range(174, 256)}
    others = iter(range(256, 512))
    return tuple(chr(byte if byte in printable else next(others)) for byte in range(256))


def _cuts(word: str) -> list[tuple[str, str]]:
    return [(word[:place], word[place:]) for place in range(1, len(word))]


QWEN = Tiktoken(
    file="qwen.tiktoken",
    pattern=r"""(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+""",
    added=(
        *("<|endoftext|>", "<|im_start|>", "<|im_end|>"),
        *(f"<|extra_{number}|>" for number in range(205)),
        *("<ref>", "</ref>", "<box>", "</box>", "<quad>", "</quad>", "<img>", "</img>", "<imgpad>"),
    ),
    words=frozenset({"<ref>", "</ref>", "<box>", "</box>", "<quad>", "</quad>"}),
    end="<|endoftext|>",
)
"""tokenization_qwen.py of Qwen/Qwen-VL. References and boxes are words that a question and an answer spell."""

BY_CLASS: dict[Any, Tiktoken] = {"QWenTokenizer": QWEN}
"""`tokenizer_class` of a tokenizer_config.json -> how its file is read; classes that transformers does not have."""
