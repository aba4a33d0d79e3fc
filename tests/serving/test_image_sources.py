"""Images come from the request, or from hosts that were allowed, and from nowhere else."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from speaking import data_url

from vlmkit.serving.errors import RequestError
from vlmkit.serving.limits import Limits
from vlmkit.serving.sources import image_bytes

LIMITS = Limits(body_bytes=100_000, fetch_seconds=1.0)
PICTURE = b"the bytes of a picture"


class Host(BaseHTTPRequestHandler):
    asked: list[str] = []  # noqa: RUF012 - of all requests

    def do_GET(self) -> None:
        self.asked.append(self.path)
        port = self.server.server_address[1]
        targets = {
            "/moved": f"http://127.0.0.1:{port}/picture",
            "/elsewhere": f"http://localhost:{port}/picture",
            "/file": "file:///etc/passwd",
            "/round": "/round",
        }
        if self.path in targets:
            self.send_response(302)
            self.send_header("Location", targets[self.path])
            self.end_headers()
        elif self.path == "/missing":
            self.send_error(404)
        elif self.path == "/endless":
            self.send_response(200)
            self.end_headers()
            for _ in range(100):
                self.wfile.write(b"x" * 10_000)
        elif self.path == "/trickle":
            self.send_response(200)
            self.end_headers()
            for _ in range(300):
                self.wfile.write(b"x")
                self.wfile.flush()
                time.sleep(0.1)
        else:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(PICTURE)

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Host)
    server.handle_error = lambda *arguments: None  # type: ignore[method-assign] - whoever stops reading
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server.server_address[1]
    server.shutdown()


def fetched(url: str, *hosts: str) -> bytes:
    return image_bytes(url, hosts, LIMITS, "image 0")


def refused(url: str, *hosts: str) -> RequestError:
    with pytest.raises(RequestError) as error:
        fetched(url, *hosts)
    return error.value


def test_data_urls_are_decoded_and_broken_ones_refused() -> None:
    assert fetched(data_url(PICTURE)) == PICTURE
    assert "no valid base64" in refused("data:image/png;base64,a$b").message
    assert "expected data:image/...;base64" in refused("data:image/svg+xml,<svg/>").message


def test_a_host_is_asked_only_where_it_is_allowed(port: int) -> None:
    Host.asked.clear()
    assert "'127.0.0.1:" in refused(f"http://127.0.0.1:{port}/picture").message
    assert "--allow-host" in refused(f"http://127.0.0.1:{port}/picture", "127.0.0.1", "example.org").message
    assert "--allow-host" in refused(f"http://127.0.0.1:{port}@evil.example/picture", f"127.0.0.1:{port}").message
    assert Host.asked == []
    assert fetched(f"http://127.0.0.1:{port}/picture", f"127.0.0.1:{port}") == PICTURE
    assert fetched(f"HTTP://127.0.0.1:{port}/picture", f"127.0.0.1:{port}") == PICTURE


def test_files_and_other_schemes_are_never_read(tmp_path: Path) -> None:
    file = tmp_path / "photo.png"
    file.write_bytes(PICTURE)
    for url in (f"file://{file}", str(file), "ftp://example.org/a", "FILE:///etc/passwd", "//example.org/a", "", "http:/a"):
        assert refused(url, "example.org", "").status == 400, url


def test_a_host_may_send_on_to_itself_alone(port: int) -> None:
    here = f"127.0.0.1:{port}"
    assert fetched(f"http://{here}/moved", here) == PICTURE
    Host.asked.clear()
    assert "sends on to 'http://localhost:" in refused(f"http://{here}/elsewhere", here, f"localhost:{port}").message
    assert Host.asked == ["/elsewhere"]
    assert "answers 302" in refused(f"http://{here}/file", here).message  # urllib itself goes nowhere but to hosts
    assert refused(f"http://{here}/round", here).status == 400


def test_what_a_host_sends_is_bounded_in_bytes_and_time(port: int) -> None:
    here = f"127.0.0.1:{port}"
    assert refused(f"http://{here}/endless", here).status == 413
    begun = time.monotonic()
    assert refused(f"http://{here}/trickle", here).status == 408
    assert time.monotonic() - begun < 20
    assert "answers 404" in refused(f"http://{here}/missing", here).message
    assert "nothing came" in refused("http://127.0.0.1:1/picture", "127.0.0.1:1").message


def test_proxies_of_the_environment_are_not_asked(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    assert fetched(f"http://127.0.0.1:{port}/picture", f"127.0.0.1:{port}") == PICTURE
