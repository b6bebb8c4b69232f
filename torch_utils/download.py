"""Download a file from the first mirror that has it, with resuming, retries, digests and size limits.

Not pooch: it starts an interrupted download from the beginning, and has neither mirrors nor If-Range, size limits or
checks of redirects. With these added, its downloader would be as long as this file.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from queue import Empty, SimpleQueue
from urllib.parse import urljoin

import requests
import urllib3

from torch_utils.errors import UserError, in_words
from torch_utils.files import put_in_place
from torch_utils.progress import Progress
from torch_utils.text import printable
from torch_utils.untrusted import excess

BLOCK = 1 << 16
RETRYABLE = frozenset({408, 425, 429, 500, 502, 503, 504})
SILENCE_S = 30.0  # without any data, until an attempt fails
RETRIES = 4  # attempts in a row without new data, after which the next address is tried
PAUSE_S, LONGEST_PAUSE_S = 0.5, 8.0  # between attempts; each pause is twice as long as the one before
MAX_REDIRECTS = 8
ANSWER_S = 90.0  # until the answer begins, however slowly its first lines come
SLOWEST, WINDOW_S = 1000, 60.0  # bytes a second, on average over so long, pauses included
LONGEST_S = 24 * 3600.0  # for one file; a later call resumes it
RESERVE = 256 << 20  # bytes that stay free on the disk while the length is unknown
ROOM_EVERY = 16 << 20  # bytes, after which the free space is looked at again


class _Interrupted(Exception):
    """This attempt failed, but another one at the same address may succeed."""


class _Refused(Exception):
    """This address does not serve the file."""


class _TooLarge(_Refused):
    """The file is larger than its limit; what has come of it is useless."""


def _fault(path: Path, sha256: str) -> str:
    """What is wrong with a complete file, by its digest; "" if it is correct, or `sha256` is empty."""
    found = digest_of(path, "sha256") if sha256 else ""
    return "" if found == sha256 else f"wrong sha256 ({found[:12]}..., expected {sha256[:12]}...)"


def digest_of(path: Path, kind: str) -> str:
    """Digest of a file, read block by block. kind: a name of `hashlib`, such as "sha256"."""
    digest = hashlib.new(kind)
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


class _Part:
    """The partial file, and the server's tag for it, so that two versions of a file are never joined.

    It keeps its name between calls, unlike the scratch files of `atomic_write`, so that a later call can resume.
    """

    def __init__(self, dest: Path) -> None:
        self.path = dest.with_name(dest.name + ".part")
        self._tag_path = dest.with_name(dest.name + ".part.tag")

    @property
    def size(self) -> int:
        return self.path.stat().st_size if self.path.exists() else 0

    @property
    def tag(self) -> str:
        return self._tag_path.read_text("utf-8") if self._tag_path.exists() else ""

    def start(self, tag: str) -> None:
        self.discard()
        self.path.touch()
        if tag:
            self._tag_path.write_text(tag, "utf-8")

    def discard(self) -> None:
        self.path.unlink(missing_ok=True)
        self._tag_path.unlink(missing_ok=True)

    def finish(self, dest: Path) -> None:
        put_in_place(self.path, dest)
        self._tag_path.unlink(missing_ok=True)


class _Pace:
    """How fast bytes arrive, over all attempts at one address."""

    def __init__(self) -> None:
        self._began = self._window = time.monotonic()
        self._arrived = 0

    def advance(self, count: int) -> None:
        """Count bytes. Raises _Refused if they come too slowly, or it takes too long."""
        self._arrived += count
        if fault := self.fault():
            raise _Refused(fault)

    def fault(self) -> str:
        """Why no more is waited for; "" if more is. Begins the next window when one is over."""
        now = time.monotonic()
        if now - self._began > LONGEST_S:
            return f"it took more than {LONGEST_S / 3600:g} hours; repeat the command to resume it"
        if now - self._window < WINDOW_S:
            return ""
        if self._arrived < SLOWEST * WINDOW_S:
            return f"it sends less than {SLOWEST / 1000:g} kB a second"
        self._window, self._arrived = now, 0
        return ""


def download(
    urls: Sequence[str], dest: Path, *, sha256: str = "", progress: bool = True, limit: str = "download_gib"
) -> Path:
    """Download `dest` from the first of `urls` that serves it completely, unless it exists and is correct. Returns it.

    A partial file stays in `dest`.part, where a later call resumes. sha256: of the complete file; not checked if empty.
    limit: the name of the limit for its size (see `untrusted.Limits`)
    Raises UserError, with the reason for every address, if none serves the file.
    """
    part, sha256 = _Part(dest), sha256.lower()
    failures = []
    try:
        if dest.is_file() and not _fault(dest, sha256):
            return dest
        dest.parent.mkdir(parents=True, exist_ok=True)
        with requests.Session() as session, Progress(dest.name, unit="B", quiet=not progress) as bar:
            for url in urls:
                try:
                    _persist(session, url, part, sha256, limit, bar)
                    part.finish(dest)
                    return dest
                except _Refused as reason:
                    if isinstance(reason, _TooLarge):
                        part.discard()
                    failures.append(f"{url}: {reason}")
    except OSError as error:
        raise UserError(f"cannot write {dest}: {in_words(error)}") from error
    raise UserError(f"could not download {dest.name}; tried " + "; ".join(failures))


def _ask(session: requests.Session, url: str, part: _Part) -> requests.Response:
    """Request what is missing of `part`. Raises _Interrupted or _Refused."""
    headers = {"Accept-Encoding": "identity"}  # so that lengths are those of the file itself
    if part.size:
        headers["Range"] = f"bytes={part.size}-"
        if part.tag:
            headers["If-Range"] = part.tag
    try:
        return _follow(session, url, headers)
    except (requests.exceptions.ConnectionError, requests.exceptions.Timeout) as error:
        raise _Interrupted(_cause(error)) from error
    except (requests.exceptions.RequestException, ValueError) as error:  # not a valid address
        raise _Refused(_cause(error)) from error


def _follow(session: requests.Session, url: str, headers: dict[str, str]) -> requests.Response:
    """Follow a few redirects, none of them from https to http, to the response. Raises _Refused."""
    for _ in range(MAX_REDIRECTS):
        response = _answer(session, url, headers)
        if not response.is_redirect:
            return response
        response.close()
        there = urljoin(url, response.headers["Location"])
        if not re.match(r"https?://", there) or (url.startswith("https:") and not there.startswith("https:")):
            raise _Refused(f"it redirects to {there[:80]}, which is not safe")
        url = there
    raise _Refused(f"it redirects more than {MAX_REDIRECTS} times")


def _answer(session: requests.Session, url: str, headers: dict[str, str]) -> requests.Response:
    """The response without its body. Raises _Interrupted if it does not begin in time, and what requests raises.

    In a thread, because requests only limits the time between two bytes, and a server may send one a minute.
    """
    found: SimpleQueue[requests.Response | Exception] = SimpleQueue()

    def ask() -> None:
        try:
            found.put(session.get(url, headers=headers, stream=True, timeout=SILENCE_S, allow_redirects=False))
        except (requests.exceptions.RequestException, ValueError) as error:
            found.put(error)

    threading.Thread(target=ask, daemon=True).start()
    try:
        answer = found.get(timeout=ANSWER_S)
    except Empty:
        raise _Interrupted(f"no answer within {ANSWER_S:g} seconds") from None
    if isinstance(answer, Exception):
        raise answer
    return answer


def _persist(
    session: requests.Session, url: str, part: _Part, sha256: str, limit: str, bar: Progress
) -> None:  # fmt: skip
    """Download until the part is complete and correct, or raise _Refused. Counts attempts without new data."""
    begun_before, pace = part.size > 0, _Pace()
    furthest, strikes = part.size, 0
    while True:
        try:
            _attempt(session, url, part, bool(sha256), limit, pace, bar)
            break
        except _Interrupted as reason:
            strikes = 0 if part.size > furthest else strikes + 1
            furthest = max(furthest, part.size)
            if strikes >= RETRIES or pace.fault():
                raise _Refused(str(reason)) from reason
            time.sleep(min(PAUSE_S * 2 ** max(strikes - 1, 0), LONGEST_PAUSE_S))
    fault = _fault(part.path, sha256)
    if fault:
        part.discard()
        if not begun_before:
            raise _Refused(fault)
        _persist(session, url, part, sha256, limit, bar)  # the error may be in the part from an earlier call


def _attempt(
    session: requests.Session, url: str, part: _Part, checked: bool, limit: str, pace: _Pace, bar: Progress
) -> None:
    """Make one request. Returns when the part has its full length."""
    if part.size and not (checked or part.tag):
        part.discard()  # nothing could show that the rest belongs to this part
    with _ask(session, url, part) as response:
        if response.status_code == 416:
            if _total(response) == part.size:
                return
            part.discard()
            raise _Interrupted("the partial file on disk belongs to another file")
        total = _place(response, part, checked)
        fault = excess("it", total or 0, limit)
        if fault:
            raise _TooLarge(fault)
        bar.move_to(part.size, total)
        _receive(response, part, total, limit, pace, bar)
    if total is not None and part.size != total:
        reason = f"connection closed after {part.size} of {total} bytes"
        if part.size > total:
            part.discard()
        raise _Interrupted(reason)


def _place(response: requests.Response, part: _Part, checked: bool) -> int | None:
    """Continue or restart the part, as the response requires. Returns the full length, None if unknown."""
    status, tag = response.status_code, _tag(response)
    if status in RETRYABLE:
        raise _Interrupted(f"HTTP {status}")
    if status not in (200, 206):
        raise _Refused(f"HTTP {status}")
    if status == 206:
        first = re.match(r"bytes ([0-9]{1,18})-", response.headers.get("Content-Range", ""))
        if first is None or int(first[1]) != part.size or (part.tag and tag and tag != part.tag):
            part.discard()
            raise _Interrupted("the server continued at another position")
        return _total(response)
    if not checked and response.headers.get("Content-Type", "").startswith("text/html"):
        raise _Refused("the server sent a web page instead of the file")
    total = _total(response)
    if total is None and not checked and response.headers.get("Transfer-Encoding", "") != "chunked":
        raise _Refused("the server does not say how long the file is, and no digest is known")
    part.start(tag)
    return total


def _receive(
    response: requests.Response, part: _Part, total: int | None, limit: str, pace: _Pace, bar: Progress
) -> None:
    """Append the body to the part. Not with iter_content, which waits for whole blocks however slowly bytes come."""
    looked = -ROOM_EVERY
    with open(part.path, "ab") as file:
        try:
            while block := response.raw.read1(BLOCK, decode_content=True):
                if file.tell() - looked >= ROOM_EVERY:
                    looked = file.tell()
                    _require_room(part.path.parent, RESERVE if total is None else total - looked)
                file.write(block)
                fault = excess("it", file.tell(), limit)
                if fault:
                    raise _TooLarge(fault)
                pace.advance(len(block))
                bar.advance(len(block))
        except urllib3.exceptions.HTTPError as error:
            raise _Interrupted(_cause(error)) from error
        finally:
            file.flush()
            os.fsync(file.fileno())


def _require_room(folder: Path, needed: int) -> None:
    """Raises UserError unless the disk has room for so many bytes."""
    if needed > shutil.disk_usage(folder).free:
        raise UserError(f"no room in {folder}: the download needs another {needed / 1e6:.0f} MB; free some space")


def _total(response: requests.Response) -> int | None:
    """Length of the complete file, from the header that contains it; None if no header does."""
    whole = re.search(r"/([0-9]{1,18})$", response.headers.get("Content-Range", ""))
    if whole:
        return int(whole[1])
    length = re.fullmatch("[0-9]{1,18}", response.headers.get("Content-Length", ""))
    plain = response.headers.get("Content-Encoding", "identity") == "identity"
    return int(length[0]) if response.status_code == 200 and plain and length else None


def _tag(response: requests.Response) -> str:
    """Value for If-Range: a strong ETag, otherwise the date of the last change."""
    etag = response.headers.get("ETag", "")
    return etag if etag and not etag.startswith("W/") else response.headers.get("Last-Modified", "")


def _cause(error: Exception) -> str:
    """The innermost reason, without what requests and urllib3 add to it."""
    text = str(error)
    reason = re.search(r"\[Errno -?\d+\] [^'\")]+|timed out|Connection broken", text) or re.match(r".{1,120}", text)
    return printable(reason[0]) if reason else type(error).__name__
