"""Answer OpenAI's chat completions with a trained model, for trying it out.

    vlmkit serve runs/mine                       # http://127.0.0.1:8000/v1
    vlmkit serve runs/mine --port 0 --max-batch 16

Questions that wait are answered together. Images come in the request (base64); a host's are fetched where --allow-host names it.
For throughput, write the model with 'vlmkit export' and serve that with vLLM.
"""

from __future__ import annotations

import os
import socket
import sys
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from importlib.util import find_spec
from pathlib import Path

from vlmkit.commands import UsageError
from vlmkit.commands.checkpoint import find_checkpoint
from vlmkit.commands.choice import add_plugin_option, load_plugins
from vlmkit.commands.terminal import say
from vlmkit.serving.limits import Limits
from vlmkit.terminal import is_terminal

USUAL = Limits()


def configure(parser: ArgumentParser) -> None:
    parser.add_argument("run_directory", metavar="RUN", help="directory of a training run or of a checkpoint, or a hub's owner/name")
    parser.add_argument("--model", metavar="NAME", help="what requests call the model; the last part of RUN unless given")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (%(default)s: this machine alone)")
    parser.add_argument("--port", type=_port, default=8000, help="port to listen on; 0: any that is free (%(default)s)")
    parser.add_argument("--device", help="such as cpu or cuda:1; the first GPU without it, where there is one")
    parser.add_argument("--dtype", help="such as bfloat16; the saved one without")
    for option, field, what in _NUMBERS:
        usual = getattr(USUAL, field)
        metavar = "N" if isinstance(usual, int) else "S"
        parser.add_argument(option, metavar=metavar, dest=field, type=_number(type(usual)), default=usual, help=f"{what} (%(default)s)")
    parser.add_argument(
        "--allow-host",
        metavar="HOST",
        action="append",
        default=[],
        type=_host,
        help="fetch images of this host, such as example.org or example.org:8080, where requests name them by URL; repeatable",
    )
    add_plugin_option(parser)


_NUMBERS = (
    ("--max-batch", "batch", "questions that are answered together, at most"),
    ("--max-waiting", "waiting", "questions that may wait beside them"),
    ("--max-tokens", "answer_tokens", "tokens of an answer, at most"),
    ("--max-pixels", "image_pixels", "pixels of an image, at most"),
    ("--max-images", "images", "images of a request, at most"),
    ("--max-bytes", "body_bytes", "bytes of a request, at most"),
    ("--max-seconds", "seconds", "time until a request is answered, at most"),
)
"""Option, the limit that it sets, and its help."""


def run(arguments: Namespace) -> None:
    if missing := [name for name in ("fastapi", "uvicorn") if find_spec(name) is None]:
        raise UsageError(f"{' and '.join(missing)} {'are' if len(missing) > 1 else 'is'} not installed: pip install 'vlmkit[serve]'")
    load_plugins(arguments)
    directory = find_checkpoint(arguments.run_directory)
    name = arguments.model or Path(os.path.normpath(arguments.run_directory)).name or directory.name
    listening = listen(arguments.host, arguments.port)  # a port that is taken is said before a large model is loaded
    try:
        serve(arguments, directory, name, listening)
    finally:
        listening.close()


def listen(host: str, port: int) -> socket.socket:
    """Raises UsageError where that is not to be had."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family, backlog=256)
    except OSError as error:
        raise UsageError(f"cannot listen on {host}, port {port}: {error.strerror or error}; choose others by --host and --port") from None


def serve(arguments: Namespace, directory: Path, name: str, listening: socket.socket) -> None:
    import torch
    import uvicorn
    from transformers.utils.logging import disable_progress_bar

    import vlmkit
    from vlmkit.serving.app import build_app

    if not is_terminal(sys.stderr):
        disable_progress_bar()
    device = arguments.device or ("cuda" if torch.cuda.is_available() else "cpu")
    model, processor = vlmkit.load(directory, device=device, dtype=arguments.dtype)
    limits = Limits(**{field: getattr(arguments, field) for _, field, _ in _NUMBERS})
    app = build_app(model, processor, name, limits=limits, hosts=tuple(arguments.allow_host))
    host, port = listening.getsockname()[:2]
    config = uvicorn.Config(app, log_level="warning", access_log=False, timeout_graceful_shutdown=5)
    say(f"{name} answers at http://{f'[{host}]' if ':' in host else host}:{port}/v1; Ctrl-C ends.", file=sys.stderr, flush=True)
    uvicorn.Server(config).run(sockets=[listening])


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > 65535:
        raise ArgumentTypeError(f"expected a port from 0 to 65535, got {text!r}")
    return int(text)


def _host(text: str) -> str:
    if not text or "/" in text or "*" in text or "@" in text:
        raise ArgumentTypeError(f"expected a host such as example.org or example.org:8080, got {text!r}")
    return text.lower()


def _number(kind: type[int] | type[float]) -> type[int] | type[float]:
    """A reader for argparse of numbers above 0."""

    def read(text: str) -> float:
        try:
            value = kind(text)
        except ValueError:
            value = kind(0)
        if not 0 < value < float("inf"):
            raise ArgumentTypeError(f"expected a {'whole number' if kind is int else 'number'} above 0, got {text!r}")
        return value

    return read  # type: ignore[return-value]
