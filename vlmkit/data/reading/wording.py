"""What the user asks where a data set gives answers only. One rule: one fixed question for each kind of answer.

Questions that a data set brings along are taken as they are. Of several people's answers to one question the most frequent
is the answer, of equally frequent ones the first.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from vlmkit.conversation import Conversation

CAPTION = "Describe the image in one sentence."
DESCRIPTION = "Describe the image in detail."
WORDS = "Read all the words in the image."
POINTS = "Point to: {label}"
COUNT = "How many {label} are there?"
TIME = "What time is it?"
SPOKEN = "Describe the image as you would in speaking."


def ask(question: str, answer: str, images: int = 1) -> Conversation:
    """A question about all images, which stand before it, and its answer."""
    shown = [{"type": "image", "image": number} for number in range(images)]
    return [{"role": "user", "content": [*shown, {"type": "text", "text": question}]}, {"role": "assistant", "content": answer}]


def agreed(answers: Sequence[str]) -> str:
    """The most frequent answer; the first of those where several are."""
    return Counter(answers).most_common(1)[0][0]
