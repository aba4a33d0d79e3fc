"""What the reference makes of a conversation, what vlmkit does, and how the two are held together."""

from __future__ import annotations

import copy
from typing import Any, NamedTuple

from prompts.kinds import Conversation, assistant, user

import vlmkit
from vlmkit.processor import VLMProcessor


class RefusedError(Exception):
    """The reference takes no such conversation."""


def reference_ids(processor: Any, conversation: Conversation, **asks: bool) -> list[int]:
    """Ids of the reference processor. Raises RefusedError with its words, whatever kind of error it has for them."""
    return list(reference_inputs(processor, conversation, **asks)["input_ids"][0].tolist())


def reference_inputs(processor: Any, conversation: Conversation, **asks: bool) -> dict[str, Any]:
    try:
        # It writes into the messages that it is given.
        found = processor.apply_chat_template(copy.deepcopy(conversation), tokenize=True, return_dict=True, return_tensors="pt", **asks)
    except Exception as error:
        raise RefusedError(f"{type(error).__name__}: {error}") from error
    return dict(found)


def own_ids(processor: VLMProcessor, conversation: Conversation, **asks: bool) -> list[int]:
    return list(processor.apply_chat_template(conversation, **asks)["input_ids"][0])


class Compared(NamedTuple):
    """What became of a conversation, and what is wrong with it, in words; nothing where the law holds."""

    outcome: str
    """"same" ids, "refused" by both, or vlmkit's "own" where the reference takes only a part of it."""
    wrong: str = ""


def compared(reference: Any, processor: VLMProcessor, conversation: Conversation, **asks: bool) -> Compared:
    """vlmkit's ids beside the reference's.

    Templates that know lists of items alone write nothing of a message that is a string. vlmkit then writes what the reference writes
    of the same words as an item, or refuses.
    """
    outcome = "same"
    if (items := as_items(conversation)) != conversation and loses(reference, conversation):
        conversation, outcome = items, "own"
    try:
        expected = reference_ids(reference, conversation, **asks)
    except RefusedError as refused:
        return where_refused(refused, reference, processor, conversation, **asks)
    try:
        found = own_ids(processor, conversation, **asks)
    except (vlmkit.LayoutError, vlmkit.SpecError) as error:
        if loses(reference, conversation, **asks) and clear(str(error)):
            return Compared("own")
        return Compared("", f"the reference writes {shown(reference, expected)}, vlmkit refuses: {str(error)[:200]}")
    except Exception as error:
        return Compared("", f"the reference writes {shown(reference, expected)}, vlmkit raises {type(error).__name__}: {str(error)[:200]}")
    if found == expected:
        return Compared(outcome)
    return Compared("", f"the reference writes {shown(reference, expected)}, vlmkit {shown(reference, found)}")


def where_refused(refused: RefusedError, reference: Any, processor: VLMProcessor, conversation: Conversation, **asks: bool) -> Compared:
    """vlmkit refuses as well, unless the template does write it, and its class takes nothing without an image (PaliGemma)."""
    theirs = f"the reference refuses ({str(refused)[:200]}), vlmkit"
    try:
        found = own_ids(processor, conversation, **asks)
    except (vlmkit.LayoutError, vlmkit.SpecError) as error:
        return Compared("refused", "" if clear(str(error)) else f"{theirs} with {str(error)!r}")
    except Exception as error:
        return Compared("", f"{theirs} raises {type(error).__name__}: {str(error)[:200]}")
    if not images_of(conversation) and rendered(reference, conversation, **asks) is not None:
        return Compared("own")
    return Compared("", f"{theirs} writes {shown(reference, found)}")


def rendered(processor: Any, conversation: Conversation, **asks: bool) -> str | None:
    """What the reference's template writes; None where it refuses."""
    try:
        return str(processor.apply_chat_template(copy.deepcopy(conversation), tokenize=False, **asks))
    except Exception:
        return None


def loses(processor: Any, conversation: Conversation, **asks: bool) -> bool:
    """Whether the reference's template leaves a whole text of the conversation out without a word: vlmkit may refuse it then."""
    text = rendered(processor, conversation, **asks) or ""
    return any(words.split()[-1:] and words.split()[-1] not in text for message in conversation for words in texts_of(message))


def texts_of(message: dict[str, Any]) -> list[str]:
    content = message["content"]
    return [content] if isinstance(content, str) else [item["text"] for item in content if item["type"] == "text"]


def as_items(conversation: Conversation) -> Conversation:
    """Every text as an item."""
    return [
        message | {"content": [{"type": "text", "text": text} for text in texts_of(message)]}
        if isinstance(message["content"], str)
        else message
        for message in conversation
    ]


def images_of(conversation: Conversation) -> list[Any]:
    parts = [item for message in conversation if not isinstance(message["content"], str) for item in message["content"]]
    return [item["image"] for item in parts if item["type"] == "image"]


def clear(words: str) -> bool:
    """Whether an error says something, in a line or a few."""
    return len(words) > 20 and words.count("\n") <= 2


def shown(processor: Any, ids: list[int]) -> str:
    return "|".join(processor.tokenizer.convert_ids_to_tokens(ids))


def control(processor: Any) -> set[int]:
    """Ids that no typed text may give: special tokens, and added ones that the template writes around turns. Those around thoughts are
    an answer's own words."""
    added = processor.tokenizer.added_tokens_decoder
    written = rendered(processor, [user("q"), assistant("a"), user("q")]) or ""
    return {number for number, token in added.items() if token.special or token.content in written}
