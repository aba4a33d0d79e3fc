"""Ask a trained model about a photo; the answer is printed while it is generated.

Without a question, questions are read from the terminal (or a pipe) line by line until Ctrl-D. Each stands for itself:
the model sees the photo and the one question.
"""

from __future__ import annotations

import sys
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Iterator
from typing import Any

from vlmkit.commands.checkpoint import find_checkpoint
from vlmkit.commands.choice import add_plugin_option, load_plugins
from vlmkit.commands.terminal import say, streamer
from vlmkit.terminal import is_terminal


def configure(parser: ArgumentParser) -> None:
    parser.add_argument("run_directory", metavar="RUN", help="directory of a training run or of a checkpoint, or a hub's owner/name")
    parser.add_argument("photo", metavar="PHOTO", help="a picture file")
    parser.add_argument("question", metavar="QUESTION", nargs="?", help="what to ask; without it, a dialogue")
    parser.add_argument("--max-new-tokens", metavar="N", type=_at_least_one, default=256, help="length of an answer at most (256)")
    parser.add_argument(
        "--temperature", metavar="T", type=_not_negative, default=0.0, help="0 takes the likeliest token (default); more draws"
    )
    parser.add_argument("--seed", metavar="N", type=int, default=0, help="of the draws, set anew for each question (0)")
    parser.add_argument("--device", help="such as cpu or cuda:1; the first GPU without it, where there is one")
    add_plugin_option(parser)


def run(arguments: Namespace) -> None:
    load_plugins(arguments)
    directory = find_checkpoint(arguments.run_directory)

    from vlmkit.preprocess.images import open_image

    photo = open_image(arguments.photo)  # what is wrong with it is said before a large model is loaded

    import torch
    from transformers.utils.logging import disable_progress_bar

    import vlmkit

    if not is_terminal(sys.stderr):
        disable_progress_bar()
    device = arguments.device or ("cuda" if torch.cuda.is_available() else "cpu")
    model, processor = vlmkit.load(directory, device=device)
    options: dict[str, Any] = {"max_new_tokens": arguments.max_new_tokens, "do_sample": arguments.temperature > 0}
    if arguments.temperature > 0:
        options["temperature"] = arguments.temperature
    for question in questions(arguments.question):
        torch.manual_seed(arguments.seed)
        model.chat(processor, photo, question, streamer=streamer(processor.tokenizer), **options)


def questions(given: str | None) -> Iterator[str]:
    """The one that was given, or lines from the terminal or pipe until it ends."""
    if given is not None:
        yield given
        return
    asking = sys.stdin.isatty()
    if asking:
        import contextlib

        with contextlib.suppress(ImportError):
            import readline  # noqa: F401 - gives input() a history and editing keys
        say("Ask about the photo; Ctrl-D ends.", file=sys.stderr)
    while True:
        try:
            question = input("> " if asking else "").strip()
        except EOFError:
            if asking:
                say(file=sys.stderr)
            return
        if question:
            yield question


def _at_least_one(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise ArgumentTypeError(f"expected a whole number from 1 up, got {text!r}")
    return int(text)


def _not_negative(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < float("inf"):
        raise ArgumentTypeError(f"expected a number from 0 up, got {text!r}")
    return value
