"""A server that misbehaves in every way we know of must never make a wrong or half file appear."""

from __future__ import annotations

import hashlib
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests

from torch_utils.download import download
from torch_utils.errors import UserError

CONTENT = np.random.RandomState(0).bytes(600_001)
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Server(ThreadingHTTPServer):
    """Answers each request by the next word of `script`; the last word goes on for ever. `ranges`: what was asked."""

    def __init__(self, script: str) -> None:
        self.script, self.ranges = script.split(), list[str | None]()
        self.etag, self.stopped = '"one"', False
        super().__init__(("127.0.0.1", 0), Handler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/file.bin"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of a client that went away, as it does where it is told to."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


class Handler(BaseHTTPRequestHandler):
    server: Server

    def log_message(self, format: str, *args: object) -> None:
        pass

    def trickle(self, content: bytes) -> None:
        """Send a byte every few milliseconds."""
        self.close_connection = True
        for at in range(len(content)):
            if self.server.stopped:
                return
            self.wfile.write(content[at : at + 1])
            self.wfile.flush()
            time.sleep(0.005)

    def do_GET(self) -> None:
        script = self.server.script
        word = script.pop(0) if len(script) > 1 else script[0]
        asked = self.headers.get("Range")
        self.server.ranges.append(asked)
        if word == "drip-headers":
            self.trickle(b"HTTP/1.1 200 OK\r\nX: " + b"x" * 100_000)
            return
        if word.startswith("to:"):
            self.send_response(302)
            self.send_header("Location", word[3:])
            self.end_headers()
            return
        if word.isdigit():
            self.send_error(int(word))
            return
        if_range = self.headers.get("If-Range", self.server.etag)
        resumes = asked is not None and word != "ignore-range" and if_range == self.server.etag
        start = int(asked[6:-1]) if asked and resumes else 0
        body = bytes(len(CONTENT)) if word == "wrong" else CONTENT
        if start >= len(body):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(body)}")
            self.end_headers()
            return
        self.send_response(206 if resumes else 200)
        if resumes:
            self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        if word == "endless":
            self.send_header("Transfer-Encoding", "chunked")
        elif word != "no-length":
            self.send_header("Content-Length", "9" * 5000 if word == "absurd" else str(len(body) - start))
        self.send_header("Content-Type", "text/html" if word == "page" else "application/octet-stream")
        self.send_header("ETag", self.server.etag)
        self.end_headers()
        if word == "drip":
            self.trickle(body[start:])
            return
        if word == "endless":
            while not self.server.stopped:
                self.wfile.write(b"10000\r\n" + bytes(1 << 16) + b"\r\n")
        sent = 200_000 if word in ("drop", "no-length") else 0 if word == "silent" else len(body)
        self.wfile.write(body[start : start + sent])
        self.close_connection = True


@pytest.fixture(autouse=True)
def impatience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch_utils.download.PAUSE_S", 0.001)


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr("torch_utils.download.SILENCE_S", 5)
    servers = []

    def start(script: str) -> Server:
        servers.append(Server(script))
        threading.Thread(target=servers[-1].serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        return servers[-1]

    yield start
    for server in servers:
        server.stopped = True
        server.shutdown()
        server.server_close()


def fetch(servers: list[Server], dest: Path, sha256: str = SHA256) -> Path:
    return download([server.url for server in servers], dest, sha256=sha256, progress=False)


def leftovers(dest: Path) -> list[str]:
    return [path.name for path in dest.parent.iterdir() if path != dest]


@pytest.mark.parametrize("checked", [True, False])
@pytest.mark.parametrize(
    "script", ["ok", "drop drop drop ok", "503 503 ok", "drop ignore-range", "drop 503 drop silent drop ok", "429 ok"]
)
def test_whatever_can_be_mended_ends_in_the_right_file(serve, tmp_path: Path, script: str, checked: bool) -> None:
    dest = tmp_path / "deep" / "file.bin"
    assert fetch([serve(script)], dest, SHA256 if checked else "") == dest
    assert dest.read_bytes() == CONTENT
    assert leftovers(dest) == []


def test_a_dropped_connection_is_taken_up_where_it_broke(serve, tmp_path: Path) -> None:
    server = serve("drop ok")
    fetch([server], tmp_path / "f")
    assert server.ranges[0] is None
    assert server.ranges[1] is not None and int(server.ranges[1][6:-1]) >= 100_000


@pytest.mark.parametrize("checked", [True, False])
def test_a_later_call_goes_on_from_the_part(serve, tmp_path: Path, checked: bool) -> None:
    server, dest = serve("drop 404"), tmp_path / "f"
    with pytest.raises(UserError, match="HTTP 404"):
        fetch([server], dest, SHA256 if checked else "")
    assert not dest.exists() and (tmp_path / "f.part").stat().st_size > 0
    server.script = ["ok"]
    fetch([server], dest, SHA256 if checked else "")
    assert server.ranges[-1] is not None
    assert dest.read_bytes() == CONTENT and leftovers(dest) == []


@pytest.mark.parametrize("checked", [True, False])
def test_a_part_of_another_version_is_not_continued(serve, tmp_path: Path, checked: bool) -> None:
    server, dest = serve("drop 404"), tmp_path / "f"
    with pytest.raises(UserError):
        fetch([server], dest, SHA256 if checked else "")
    (tmp_path / "f.part").write_bytes(bytes((tmp_path / "f.part").stat().st_size))
    server.script, server.etag = ["ok"], '"two"'
    fetch([server], dest, SHA256 if checked else "")
    assert dest.read_bytes() == CONTENT


@pytest.mark.parametrize("sha256", [SHA256, ""])
def test_a_foreign_part_without_a_tag_costs_a_retry_at_most(serve, tmp_path: Path, sha256: str) -> None:
    (tmp_path / "f.part").write_bytes(b"x" * 1000)
    fetch([serve("ok")], tmp_path / "f", sha256)
    assert (tmp_path / "f").read_bytes() == CONTENT


def test_a_part_that_is_already_whole_is_taken(serve, tmp_path: Path) -> None:
    (tmp_path / "f.part").write_bytes(CONTENT)
    fetch([serve("ok")], tmp_path / "f")
    assert (tmp_path / "f").read_bytes() == CONTENT


def test_a_part_longer_than_the_file_is_thrown_away(serve, tmp_path: Path) -> None:
    (tmp_path / "f.part").write_bytes(CONTENT + b"more")
    fetch([serve("ok")], tmp_path / "f")
    assert (tmp_path / "f").read_bytes() == CONTENT


@pytest.mark.parametrize("bad", ["404", "503", "wrong", "silent", "403"])
def test_the_next_mirror_is_tried(serve, tmp_path: Path, bad: str) -> None:
    fetch([serve(bad), serve("ok")], tmp_path / "f")
    assert (tmp_path / "f").read_bytes() == CONTENT and leftovers(tmp_path / "f") == []


@pytest.mark.parametrize(
    ("script", "checked", "reason"),
    [
        ("404", True, "HTTP 404"),
        ("503", True, "HTTP 503"),
        ("wrong", True, "wrong sha256"),
        ("silent", True, "connection|closed|broken"),
        ("no-length", True, "wrong sha256"),
        ("no-length", False, "does not say how long"),
        ("page", False, "web page"),
    ],
)
def test_what_cannot_be_mended_is_one_line_and_no_file(
    serve, tmp_path: Path, script: str, checked: bool, reason: str
) -> None:
    with pytest.raises(UserError, match=f"(?i){reason}") as error:
        fetch([serve(script)], tmp_path / "f", SHA256 if checked else "")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "f").exists()


def test_retries_without_progress_are_counted(serve, tmp_path: Path) -> None:
    server = serve("503")
    with pytest.raises(UserError):
        fetch([server], tmp_path / "f")
    assert len(server.ranges) == 4


@pytest.mark.parametrize("there", ["file:///etc/passwd", "ftp://127.0.0.1/x", "gopher:x", "http://[", "/file.bin"])
def test_a_redirect_that_is_not_safe_or_has_no_end_is_refused(serve, tmp_path: Path, there: str) -> None:
    with pytest.raises(UserError, match="leads|address|URL|could not") as error:
        fetch([serve(f"to:{there}")], tmp_path / "f")
    assert str(error.value).isprintable() and not (tmp_path / "f").exists()


def test_a_redirect_is_followed_but_never_out_of_https(serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert fetch([serve("to:/elsewhere ok")], tmp_path / "f").read_bytes() == CONTENT
    calls = []

    def answer(self, url: str, **options: object) -> requests.Response:
        calls.append((url, options.get("verify", self.verify)))
        response = requests.Response()
        response.raw, response._content_consumed = None, True
        response.status_code, response.headers["Location"] = 302, "http://127.0.0.1:9/x"
        return response

    monkeypatch.setattr(requests.Session, "get", answer)
    with pytest.raises(UserError, match="not safe"):
        download(["https://127.0.0.1/f"], tmp_path / "g", progress=False)
    assert calls == [("https://127.0.0.1/f", True)]


def test_more_than_the_limit_is_not_taken(serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch_utils.download.excess", lambda what, size, name: "too much" if size > 300_000 else "")
    for script in ("ok", "absurd"):
        with pytest.raises(UserError, match="too much|does not say|could not"):
            fetch([serve(script)], tmp_path / "f", "")
    assert not (tmp_path / "f").exists()


@pytest.mark.parametrize("script, reason", [
    ("drip", "sends less than 100 kB a second"), ("drip-headers", "no answer within 0.2 seconds"),
    ("drip 503 drip 503", "sends less than 100 kB a second"), ("endless", "the limit is 0; .*weights_gib=1"),
])  # fmt: skip
def test_a_server_without_an_end_is_left(serve, tmp_path, monkeypatch, script: str, reason: str) -> None:
    monkeypatch.setattr("torch_utils.download.WINDOW_S", 0.2)
    monkeypatch.setattr("torch_utils.download.SLOWEST", 100_000)
    monkeypatch.setattr("torch_utils.download.ANSWER_S", 0.2)
    if script == "endless":
        monkeypatch.setenv("STYLEGAN_LIMITS", "weights_gib=0")
    with pytest.raises(UserError, match=reason):
        download([serve(script).url], tmp_path / "f", progress=False, limit="weights_gib")
    assert not (tmp_path / "f").exists() and (script != "endless" or list(tmp_path.iterdir()) == [])


def test_a_download_may_take_only_so_long(serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch_utils.download.LONGEST_S", -1.0)
    with pytest.raises(UserError, match="took more than .* hours; repeat the command to resume it"):
        fetch([serve("ok")], tmp_path / "f")
    monkeypatch.undo()
    assert (tmp_path / "f.part").stat().st_size > 0  # where a later call resumes


def test_the_free_space_is_looked_at_while_it_runs(serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    free = iter([10**9, 10**9, 10**9, 1000])
    monkeypatch.setattr("torch_utils.download.ROOM_EVERY", 1 << 20)
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": next(free)}))
    with pytest.raises(UserError, match="no room in .*free some space"):
        download([serve("endless").url], tmp_path / "f", progress=False)
    assert (tmp_path / "f.part").stat().st_size >= 3 << 20


def test_nobody_listens(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="(?i)refused"):
        download(["http://127.0.0.1:9/f"], tmp_path / "f", sha256=SHA256, progress=False)
    with pytest.raises(UserError, match="could not download"):
        download(["no address at all"], tmp_path / "f", sha256=SHA256, progress=False)


def test_a_right_file_is_not_fetched_again_and_a_wrong_one_is(serve, tmp_path: Path) -> None:
    dest, server = tmp_path / "f", serve("ok")
    dest.write_bytes(CONTENT)
    fetch([server], dest)
    assert server.ranges == []
    dest.write_bytes(CONTENT[:-1])
    fetch([server], dest)
    assert dest.read_bytes() == CONTENT and len(server.ranges) == 1


def test_no_room_on_the_disk(serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 1000}))
    with pytest.raises(UserError, match="no room"):
        fetch([serve("ok")], tmp_path / "f")
    assert not (tmp_path / "f").exists()


def test_a_place_that_cannot_be_written(serve, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write"):
        fetch([serve("ok")], tmp_path / "file" / "f")
