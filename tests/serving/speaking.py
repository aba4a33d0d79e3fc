"""A small model that says letters, a server around it, and what a client needs to talk to both."""

from __future__ import annotations

import base64
import functools
import io
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import uvicorn
from numpy.typing import NDArray
from PIL import Image

import vlmkit
from tests.tiny import draw, picture
from vlmkit.serving.app import build_app
from vlmkit.serving.limits import Limits

NAME = "tiny"


@functools.cache
def speaker() -> tuple[Any, Any]:
    """Drawn weights, whose likeliest token is a letter, or now and then the end."""
    model, processor = vlmkit.build("univa-vl-tiny", seed=0), vlmkit.build_processor("univa-vl-tiny")
    draw(model)
    with torch.no_grad():
        head = model.get_output_embeddings().weight
        for number in range(len(head)):
            if not (32 <= number < 127 or number in model.stop_ids(processor)):
                head[number] = 0
    return model, processor


def saved(directory: Path) -> Path:
    model, processor = speaker()
    model.save_pretrained(directory)
    processor.save_pretrained(directory)
    return directory


def url(image: NDArray[Any] | Image.Image, form: str = "PNG") -> str:
    file = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(file, form)
    return data_url(file.getvalue())


def data_url(data: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(data).decode()


def asked(question: str, image: str | None = None) -> list[dict[str, Any]]:
    """Messages of OpenAI's form."""
    shown = [] if image is None else [{"type": "image_url", "image_url": {"url": image}}]
    return [{"role": "user", "content": [*shown, {"type": "text", "text": question}]}]


@functools.cache
def question(number: int) -> tuple[str, NDArray[Any] | None]:
    """The words and the picture, or none, of a question of this number: lengths and sizes differ."""
    image = None if number % 5 == 4 else picture(40 + 13 * (number % 6), 50 + 17 * (number % 7), seed=number)
    return f"Question {number}: what is it" + " and what else" * (number % 4) + "?", image


def generated(model: Any, processor: Any, words: str, image: Any, max_tokens: int, **options: Any) -> tuple[str, str]:
    """Text and finish of plain `generate` of one question alone."""
    shown = [] if image is None else [{"type": "image", "image": image}]
    batch = processor([[{"role": "user", "content": [*shown, {"type": "text", "text": words}]}]])
    ends = model.stop_ids(processor)
    ids = model.generate(**batch, **({"max_new_tokens": max_tokens, "do_sample": False, "eos_token_id": ends} | options))
    behind = ids[0, batch["input_ids"].shape[1] :].tolist()
    ended = behind[-1] in ends
    text = processor.decode([token for token in behind if token not in ends], skip_special_tokens=True)
    return text, "stop" if ended else "length"


@contextmanager
def served(limits: Limits | None = None, hosts: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    """The address of a server in this process, and its Server."""
    app = build_app(*speaker(), NAME, limits=limits, hosts=hosts)
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="critical"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    wait_for(lambda: server.started)
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        yield f"http://127.0.0.1:{port}", app.state.server
    finally:
        server.should_exit = True
        thread.join(100)
        assert not thread.is_alive()


def wait_for(condition: Any, seconds: float = 200.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come to be"
        time.sleep(0.01)
