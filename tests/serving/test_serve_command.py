"""`vlmkit serve` as people run it, and what it refuses before anything heavy is loaded."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import openai
import psutil
import pytest
from speaking import asked, generated, question, saved, speaker, url

from vlmkit.cli import main


@contextmanager
def running(directory: Path, *options: str) -> Iterator[tuple[str, psutil.Process]]:
    """The address that the command tells, and its process. At its end it is interrupted, and has to go."""
    command = [sys.executable, "-m", "vlmkit", "serve", str(directory), "--port", "0", "--device", "cpu", *options]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"}) as process:
        assert process.stderr is not None
        told = ""
        while " answers at " not in told:
            told = process.stderr.readline()
            assert told, "it ended before it listened"
        try:
            yield told.split(" answers at ")[1].split(";")[0], psutil.Process(process.pid)
        finally:
            process.send_signal(signal.SIGINT)
            code = process.wait(200)
            left = process.stderr.read()
    assert code in (0, 130)
    assert "Traceback" not in left, left


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(tmp_path_factory.mktemp("run") / "mine")


def test_the_official_client_streams_from_the_command(directory: Path) -> None:
    with running(directory) as (base, _):
        client = openai.OpenAI(base_url=base, api_key="none", max_retries=0)
        assert [model.id for model in client.models.list()] == ["mine"]
        words, image = question(0)
        options: dict[str, Any] = {"model": "mine", "messages": asked(words, url(image)), "temperature": 0, "max_tokens": 8}
        spoken = [chunk.choices[0].delta.content or "" for chunk in client.chat.completions.create(**options, stream=True)]
    assert ("".join(spoken), "length") == generated(*speaker(), words, image, 8)


def mb(process: psutil.Process) -> float:
    return float(process.memory_info().rss) / 2**20


def ask_all(base: str, numbers: range, at_once: int) -> list[tuple[str, str]]:
    from concurrent.futures import ThreadPoolExecutor

    client = openai.OpenAI(base_url=base, api_key="none", max_retries=0, timeout=300)

    def ask(number: int) -> tuple[str, str]:
        words, image = question(number)
        options = {"model": "mine", "messages": asked(words, None if image is None else url(image)), "temperature": 0}
        reply = client.chat.completions.create(**options, max_tokens=4 + number % 13, stream=number % 2 == 0)
        if number % 2:
            return reply.choices[0].message.content, reply.choices[0].finish_reason
        chunks = list(reply)
        return "".join(chunk.choices[0].delta.content or "" for chunk in chunks), chunks[-1].choices[0].finish_reason

    with ThreadPoolExecutor(at_once) as pool:
        return list(pool.map(ask, numbers))


def nuisances(base: str) -> list[socket.socket]:
    """Clients that nobody would want, beside the others: a picture of 100 megapixels, a broken one, a body that does not come, an answer
    that nobody reads, and connections that are closed."""
    import json

    from test_server import POST, data_url, large, raw

    address = base.removesuffix("/v1")

    def body(image: str | None = None, **options: Any) -> bytes:
        return json.dumps({"model": "mine", "messages": asked("What?", image), "temperature": 0, "max_tokens": 300, **options}).encode()

    held = []
    for sent in (body(data_url(large(10_000, 10_000))), body(data_url(b"no picture")), body(stream=True), body(stream=True), body()):
        held.append(raw(address, POST.format(len(sent)), sent))
    held.append(raw(address, POST.format(1000), b'{"model": '))
    for connection in held[3:5]:
        time.sleep(0.2)
        connection.close()
    return held


@pytest.mark.parametrize("requests", [pytest.param(32, id="short"), pytest.param(200, id="whole", marks=pytest.mark.slow)])
def test_under_load_every_answer_is_that_of_generate_and_memory_stays_flat(directory: Path, requests: int) -> None:
    plain = [generated(*speaker(), *question(number), 4 + number % 13) for number in range(requests)]
    assert len(set(plain)) > requests // 4
    with running(directory, "--max-batch", "8") as (base, process):
        assert ask_all(base, range(16), 16) == plain[:16]  # what the first requests make for good
        before = mb(process)
        held = nuisances(base)
        assert ask_all(base, range(requests), 16) == plain
        after = mb(process)
        for connection in held:
            connection.close()
        print(f"{requests} requests: {before:.0f} MiB before, {after:.0f} MiB after")
        assert after < before + 40  # measured: see docs/serving.md


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["--port", "70000"], "expected a port from 0 to 65535, got '70000'"),
        (["--max-batch", "0"], "expected a whole number above 0, got '0'"),
        (["--max-seconds", "nan"], "expected a number above 0, got 'nan'"),
        (["--allow-host", "http://example.org/"], "expected a host such as example.org"),
        (["--max-batchs", "3"], "did you mean --max-batch"),
    ],
)
def test_wrong_arguments_are_said_in_a_sentence(argv: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", "runs/none", *argv]) == 2
    assert says in capsys.readouterr().err


def test_what_is_not_there_is_said_before_anything_is_loaded(tmp_path: Path, directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", str(tmp_path / "none")]) == 1
    assert "none" in capsys.readouterr().err
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert main(["serve", str(directory), "--port", str(port)]) == 2
        assert f"cannot listen on 127.0.0.1, port {port}" in capsys.readouterr().err
    assert main(["serve", str(directory), "--host", "no.such.host.invalid"]) == 2
    assert "cannot listen on no.such.host.invalid" in capsys.readouterr().err


def test_without_the_extra_the_way_out_is_named(
    directory: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("vlmkit.commands.serve.find_spec", lambda name: None)
    assert main(["serve", str(directory)]) == 2
    assert "fastapi and uvicorn are not installed: pip install 'vlmkit[serve]'" in capsys.readouterr().err
