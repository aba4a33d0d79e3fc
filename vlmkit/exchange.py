"""Exchanging the language model: the layout follows its tokenizer.

Turns are written as the tokenizer's chat template says, and every special token of the layout becomes one that the tokenizer has: the same
where it is spelled the same, else an unused one (`vlmkit.layout.unused`), which a warning names. What is not to be had is a problem of the
architecture, said before anything is built. A chat template that knows of images says itself what stands for them.
"""

from __future__ import annotations

import dataclasses
import functools
import os
import warnings
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from vlmkit.layout.jinja_template import own_template
from vlmkit.layout.reading import read_template
from vlmkit.layout.template import MARK, Template
from vlmkit.layout.unused import named_for, unused_for
from vlmkit.spec import SpecError

if TYPE_CHECKING:
    from vlmkit.language_model import LanguageModel
    from vlmkit.layout.base import TokenLayout

_SILENT = Template(user=("", ""), assistant=("", ""))
"""With it a layout requires its own special tokens alone."""


def followed(layout: TokenLayout, language_model: LanguageModel) -> TokenLayout:
    """The layout for the tokenizer of another language model; as it is where that tokenizer is not to be had, which `problems` says.

    Raises SpecError for a chat template that cannot be followed.
    """
    try:
        tokenizer, rows = tokenizer_of(language_model), language_model.vocabulary
    except SpecError:
        return layout
    layout = _with_template(layout, tokenizer, language_model)
    added = {spelling: number for spelling, number in tokenizer.get_added_vocab().items() if number < rows}
    fields = special_fields(layout)
    shown = {spelling: added[spelling] for spelling in _shown(tokenizer, added)}
    chosen = {token: found for field, token in fields.items() if (found := named_for(field, shown)) not in (None, token)}
    here = {token for token in fields.values() if (number := _id(tokenizer, token)) is not None and number < rows}
    taken = {*here, *chosen.values(), *layout.template.specials, *_with_roles(tokenizer)}
    for field, token in fields.items():
        if token in here or token in chosen:
            continue
        if (found := unused_for(field, added, taken, str(tokenizer.chat_template or ""))) is not None:
            chosen[token] = found
            taken.add(found)
    if chosen:
        said = ", ".join(f"{chosen[token]!r} as its {field} (was {token!r})" for field, token in fields.items() if token in chosen)
        warnings.warn(f"the layout follows {_named(language_model)} and takes {said}; pass layout= for others", stacklevel=3)
    with_tokens = layout.replace(**{field: chosen[token] for field, token in fields.items() if token in chosen})
    return _with_template(with_tokens, tokenizer, language_model)


def _with_template(layout: TokenLayout, tokenizer: Any, language_model: LanguageModel) -> TokenLayout:
    """The layout with the turns of the tokenizer's chat template, which one that knows of images writes around the layout's tokens."""
    if tokenizer.chat_template is None:
        return layout
    try:
        template, after_image = read_template(tokenizer.chat_template, tokenizer, written=layout.written[0], after_image=layout.after_image)
    except SpecError as error:
        raise SpecError(f"{_named(language_model)}: {error}; pass layout= with a template of your own") from None
    return layout.replace(template=template, after_image=after_image)


def problems(layout: TokenLayout, language_model: LanguageModel) -> Iterator[str]:
    """What keeps a layout from being written in the tokens of a language model, in words with the way out."""
    where = _named(language_model)
    try:
        tokenizer, rows = tokenizer_of(language_model), language_model.vocabulary
    except SpecError as error:
        yield f"{error}; name one in the description: LanguageModel.from_pretrained(...).replace(tokenizer='a directory')"
        return
    if not tokenizer.is_fast:
        yield f"{where} is a {type(tokenizer).__name__} without a tokenizer.json; convert it with the tokenizers library and save it there"
        return
    if tokenizer.vocab_size > rows:
        yield f"{where} has {tokenizer.vocab_size} words, but the language model's embedding {rows} rows; they do not belong together"
    ids = {token: _id(tokenizer, token) for token in layout.required_specials()}
    fields = special_fields(layout)
    turns = [token for token, number in ids.items() if number is None and token not in fields.values()]
    if turns:
        without = "" if tokenizer.chat_template is not None else "; it has no chat template of its own, so the layout kept its turns"
        yield (
            f"{where} has no special token {', '.join(map(repr, turns))}, which the layout's template spells{without}; give it a chat "
            "template (tokenizer.chat_template, saved with it), or pass layout= with a template in its tokens"
        )
    missing = {field: token for field, token in fields.items() if ids[token] is None}
    if missing:
        tokens = list(dict.fromkeys(missing.values()))
        named = ", ".join(f"{token!r} ({field})" for field, token in missing.items())
        yield (
            f"{where} has no special token {named} and no unused one in its place; add it, tokenizer.add_tokens({tokens}, "
            f"special_tokens=True), save the tokenizer there and exchange again: {_rows_for(len(tokenizer), len(tokens), rows)}"
        )
    beyond = {token: number for token, number in ids.items() if number is not None and number >= rows}
    if beyond and max(beyond.values()) >= (readable := _readable(language_model)):
        yield (
            f"{where} has special tokens {beyond} beyond the {readable} rows of the language model's embedding: "
            f"{_rows_for(max(beyond.values()) + 1, 0, readable)}"
        )


def _readable(language_model: LanguageModel) -> int:
    """Rows of its embedding; the vocabulary that it states where it cannot be built."""
    return language_model.vocabulary if any(language_model.problems()) else language_model.readable()


def special_fields(layout: TokenLayout) -> dict[str, str]:
    """The fields of a layout that hold a special token, its template aside."""
    own = set(layout.replace(template=_SILENT).required_specials())
    values = {field.name: getattr(layout, field.name) for field in dataclasses.fields(layout)}
    return {name: value for name, value in values.items() if isinstance(value, str) and value in own}


def tokenizer_of(language_model: LanguageModel) -> Any:
    """Its tokenizer, kept until a file of its directory changes. Raises SpecError."""
    name, _ = language_model.named_tokenizer
    return _load(language_model, _stamps(name) if name is not None and os.path.isdir(name) else ())


@functools.lru_cache(maxsize=2)
def _load(language_model: LanguageModel, stamps: tuple[tuple[str, int, int], ...]) -> Any:
    return language_model.load_tokenizer()


def _stamps(directory: str) -> tuple[tuple[str, int, int], ...]:
    with os.scandir(directory) as files:
        return tuple(sorted((file.name, file.stat().st_mtime_ns, file.stat().st_size) for file in files if file.is_file()))


def _id(tokenizer: Any, token: str) -> int | None:
    """Of a token that a layout may spell (`vlmkit.tokenizer.PlainTokenizer`)."""
    number = tokenizer.get_added_vocab().get(token)
    if number is None and MARK.fullmatch(token):
        number = tokenizer.backend_tokenizer.token_to_id(token)
    return None if number is None else int(number)


def _with_roles(tokenizer: Any) -> set[str]:
    """The tokens that begin, end, pad and so on."""
    return {str(token) for token in tokenizer.special_tokens_map.values() if isinstance(token, str)}


def _shown(tokenizer: Any, added: Mapping[str, int]) -> set[str]:
    """The added tokens that its chat template writes for an image, where it knows of images."""
    if tokenizer.chat_template is None:
        return set()
    texts = []
    for items in ([{"type": "image"}], []):
        message = {"role": "user", "content": [*items, {"type": "text", "text": "?"}]}
        try:
            texts.append(own_template(tokenizer.get_chat_template(), tokenizer).render([message]))
        except Exception:  # whatever a program from elsewhere raises: it reads texts alone
            return set()
    return {spelling for spelling in added if spelling in texts[0] and spelling not in texts[1]}


def _named(language_model: LanguageModel) -> str:
    return f"the tokenizer of {language_model.named_tokenizer[0]!r}"


def _rows_for(tokens: int, more: int, rows: int) -> str:
    """What an embedding needs for so many more tokens."""
    needed = tokens + more
    if needed <= rows:
        return f"the embedding has {rows} rows, of which the tokenizer will name {needed}, so nothing is resized"
    return (
        f"the embedding has {rows} rows and {needed} are needed, so resize the language model that lies there too, "
        f"model.resize_token_embeddings({needed}), and save it"
    )
