"""Downloads that are whole or absent: resumed after a cut, checked by size and SHA-256, then renamed.

Only the standard library is used; proxies are taken from the environment as ``urllib`` does. While it grows, a file
is ``<name>.part``, with ``<name>.part.json`` beside it, which says which content on the server it is part of.
"""

from __future__ import annotations

import contextlib
import fcntl
import http.client
import json
import os
import re
import shutil
import ssl
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from email.message import Message
from pathlib import Path
from typing import IO, Any

from disback_cli.errors import UserError
from disback_cli.files import write_json
from disback_cli.runtime.byte_progress import ByteProgress, megabytes, sha256_with_progress

_CHUNK = 1 << 18
_SPARE_BYTES = 16 << 20  # left free on the disk
_LONGEST_WAIT = 30.0  # seconds between two attempts, unless the server asks for more patience
_LOCAL_HOSTS = ("localhost", "127.0.0.1", "::1")
_TRY_AGAIN = (408, 425, 429, 500, 502, 503, 504)
_CONTENT_RANGE = re.compile(r"bytes (?:(\d+)-\d+|\*)/(\d+|\*)")
_CONNECTION_FAILED = (http.client.HTTPException, OSError)


class _Dropped(Exception):
    """The connection failed; another attempt may succeed. ``wait``: seconds the server asked for."""

    def __init__(self, reason: str, wait: float = 0.0) -> None:
        super().__init__(reason)
        self.wait = wait


@dataclass(frozen=True)
class Wanted:
    """A file to download.

    Attributes:
        url: https; http for this machine only, unless ``allow_http``.
        target: where it goes.
        bytes: expected size, None if unknown.
        sha256: expected, None if unknown.
        allow_http: whether plain http to other machines is accepted.
    """

    url: str
    target: Path
    bytes: int | None = None
    sha256: str | None = None
    allow_http: bool = False

    @property
    def part(self) -> Path:
        """The unfinished file."""
        return self.target.with_name(f"{self.target.name}.part")

    @property
    def identity(self) -> Path:
        """What the unfinished file is part of."""
        return self.target.with_name(f"{self.target.name}.part.json")


def download(wanted: Wanted, *, retries: int = 5, timeout: float = 60.0) -> str:
    """Download a file; nothing is left under its final name unless it is whole and has the expected content.

    Args:
        wanted: what, from where, to where.
        retries: attempts after failures in a row; a connection that brought something starts the count anew.
        timeout: seconds without an answer or data after which a connection counts as dropped.

    Returns:
        The file's SHA-256, 64 hexadecimal digits.

    Raises:
        UserError: refused address, no such file, no connection, too little disk, another size or hash than expected.
            What has arrived so far is kept and used by the next call, unless it has turned out wrong.
    """
    require_safe(wanted.url, wanted.allow_http)
    wanted.target.parent.mkdir(parents=True, exist_ok=True)
    with _locked(wanted.part) as file:
        failures = 0
        while True:
            before = file.tell()
            try:
                _transfer(wanted, file, timeout)
                break
            except _Dropped as error:
                failures = 1 if file.tell() > before else failures + 1
                if failures > retries:
                    if file.tell() == 0:
                        wanted.part.unlink(missing_ok=True)  # nothing came that another call could go on from
                    raise UserError(_given_up(wanted, file.tell(), error)) from error
                wait = max(error.wait, min(2.0 ** (failures - 1), _LONGEST_WAIT))
                _say(f"{wanted.target.name}: {error}; trying again in {wait:.0f} s at {megabytes(file.tell())}")
                _pause(wait)
            except OSError as error:
                raise UserError(f"could not write {wanted.part}: {error}; free some space, check the rights") from error
        os.fsync(file.fileno())
        digest = _verified(wanted)
        os.replace(wanted.part, wanted.target)
    wanted.identity.unlink(missing_ok=True)
    return digest


def require_safe(url: str, allow_http: bool = False) -> None:
    """Refuse addresses that are not https; http is accepted for this machine, or where it was asked for.

    Raises:
        UserError: the scheme is refused, or there is no host.
    """
    parts = urllib.parse.urlsplit(url)
    if parts.scheme == "https" and parts.hostname:
        return
    if parts.scheme == "http" and parts.hostname and (allow_http or parts.hostname in _LOCAL_HOSTS):
        return
    if parts.scheme == "http" and parts.hostname:
        raise UserError(f"{url}: plain http can be changed on its way; use https, or accept it with allow_http=true")
    raise UserError(f"{url}: only https:// addresses are downloaded")


class _CarefulRedirects(urllib.request.HTTPRedirectHandler):
    """Follows a server to another address only where that address could have been given in the first place."""

    def __init__(self, allow_http: bool) -> None:
        self.allow_http = allow_http

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        """Check the new address."""
        try:
            require_safe(newurl, self.allow_http)
        except UserError as error:
            raise UserError(f"{req.full_url} sends us on to a refused address: {error}") from error
        return super().redirect_request(req, fp, code, msg, headers, newurl)


@contextlib.contextmanager
def _locked(part: Path) -> Iterator[IO[bytes]]:
    """The unfinished file, at its end, for this process alone."""
    try:
        file = open(part, "ab")  # noqa: SIM115
    except OSError as error:
        raise UserError(f"could not write {part}: {error}") from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"{part} is being downloaded by another process; wait for it, or stop it") from None
        if not part.exists() or not os.path.samestat(os.fstat(file.fileno()), part.stat()):
            raise UserError(f"{part} was just completed by another process; give the same command again")
        yield file


def _transfer(wanted: Wanted, file: IO[bytes], timeout: float) -> None:
    """Append what is missing; _Dropped where another attempt may bring more."""
    start = file.tell()
    request = urllib.request.Request(wanted.url, headers={"User-Agent": "disback", "Accept-Encoding": "identity"})
    if start:
        identity = _identity(wanted)
        if identity is None:
            start = _empty(file)
        else:
            request.add_header("Range", f"bytes={start}-")
            request.add_header("If-Range", identity)
    opener = urllib.request.build_opener(_CarefulRedirects(wanted.allow_http))
    try:
        response = opener.open(request, timeout=timeout)
    except urllib.error.HTTPError as error:
        with error:
            _answer_to_error(wanted, file, error)
        return
    except _CONNECTION_FAILED as error:
        if isinstance(getattr(error, "reason", None), ssl.SSLCertVerificationError):
            raise UserError(
                f"{wanted.url}: the server cannot prove who it is ({error}); nothing was downloaded"
            ) from error
        raise _Dropped(_reason(error)) from error
    with response:
        total = _begin(wanted, file, response.status, response.headers)
        _copy(wanted, file, response, total)


def _identity(wanted: Wanted) -> str | None:
    """The validator under which the unfinished file may be continued, None where it may not."""
    try:
        content = json.loads(wanted.identity.read_text(encoding="utf-8"))
        return str(content["validator"]) if content["url"] == wanted.url and content["validator"] else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _empty(file: IO[bytes]) -> int:
    """Start over."""
    file.truncate(0)
    return file.seek(0)


def _begin(wanted: Wanted, file: IO[bytes], status: int, headers: Message) -> int | None:
    """Bring the unfinished file to where the answer starts; returns the size of the whole, None if it is not said."""
    total: int | None = None
    if status == 206:
        match = _CONTENT_RANGE.fullmatch((headers.get("Content-Range") or "").strip())
        changed = headers.get("ETag", "").startswith('"') and headers["ETag"] != _identity(wanted)
        if match is None or match[1] is None or int(match[1]) != file.tell() or changed:
            wanted.identity.unlink(missing_ok=True)
            _empty(file)
            raise _Dropped("the server sent another part than it was asked for")
        total = int(match[2]) if match[2] != "*" else None
    else:
        if file.tell():
            _say(f"{wanted.target.name}: the server cannot continue, or its file has changed; starting over")
        _empty(file)
        if headers.get_content_type() == "text/html" and wanted.target.suffix not in (".html", ".htm"):
            raise UserError(
                f"{wanted.url} answers with a web page instead of a file: the publisher may want you to log in or to "
                f"accept a licence. Download the file by hand and put it at {wanted.target}"
            )
        total = _content_length(headers)
        _note_identity(wanted, headers)
    if total is not None and wanted.bytes is not None and total != wanted.bytes:
        raise UserError(
            f"{wanted.url} is a file of {total:,} bytes, expected are {wanted.bytes:,}: it is another file, or the "
            "publisher has replaced it; nothing was downloaded"
        )
    _require_space(wanted.target.parent, None if total is None else total - file.tell())
    return total


def _content_length(headers: Message) -> int | None:
    text = headers.get("Content-Length", "")
    return int(text) if text.isdigit() else None


def _note_identity(wanted: Wanted, headers: Message) -> None:
    """Remember a strong ETag, else the time of the last change: without either the file cannot be continued."""
    tag = headers.get("ETag", "")
    validator = tag if tag.startswith('"') else headers.get("Last-Modified", "")
    write_json(wanted.identity, {"url": wanted.url, "validator": validator})


def _require_space(folder: Path, missing: int | None) -> None:
    free = shutil.disk_usage(folder).free
    if missing is not None and missing + _SPARE_BYTES > free:
        raise UserError(
            f"{folder} has {megabytes(free)} free, the download needs {megabytes(missing)} more: free some space, or "
            "choose a folder on another disk"
        )


def _copy(wanted: Wanted, file: IO[bytes], response: http.client.HTTPResponse, total: int | None) -> None:
    with ByteProgress(wanted.target.name, total, file.tell()) as progress:
        while True:
            try:
                chunk = response.read(_CHUNK)
            except _CONNECTION_FAILED as error:
                file.flush()
                raise _Dropped(_reason(error)) from error
            if not chunk:
                break
            file.write(chunk)
            progress.advance(len(chunk))
    file.flush()
    if total is not None and file.tell() < total:
        raise _Dropped("the connection ended early")
    if total is not None and file.tell() > total:
        _empty(file)
        raise _Dropped("the server sent more than it announced")


def _answer_to_error(wanted: Wanted, file: IO[bytes], error: urllib.error.HTTPError) -> None:
    """Return if the unfinished file is whole already; else _Dropped or UserError."""
    if error.code == 416 and file.tell():
        match = _CONTENT_RANGE.fullmatch((error.headers.get("Content-Range") or "").strip())
        if match is not None and match[2] == str(file.tell()):
            return
        wanted.identity.unlink(missing_ok=True)
        _empty(file)
        raise _Dropped("what was downloaded before does not fit the server's file; starting over")
    if error.code in _TRY_AGAIN:
        after = error.headers.get("Retry-After", "")
        raise _Dropped(f"the server answers {error.code} {error.reason}", float(after) if after.isdigit() else 0.0)
    if 300 <= error.code < 400:
        raise UserError(f"{wanted.url} sends us on to a refused address, or in a circle: {error.reason}")
    if error.code in (404, 410):
        hint = "there is no such file (any more); look for its new place"
    elif error.code in (401, 403, 407):
        hint = "access is refused: the publisher may want you to log in or to accept a licence; download it by hand"
    else:
        hint = "download it by hand"
    if file.tell() == 0:
        wanted.part.unlink(missing_ok=True)
        wanted.identity.unlink(missing_ok=True)
    raise UserError(f"{error.url}: {error.code} {error.reason}: {hint} and put it at {wanted.target}")


def _verified(wanted: Wanted) -> str:
    """The hash of the downloaded file; a file that is not the expected one is removed, since it can never become it."""
    size = wanted.part.stat().st_size
    digest = sha256_with_progress(wanted.part)
    problem = None
    if size == 0:
        problem = "is empty"
    elif wanted.bytes is not None and size != wanted.bytes:
        problem = f"has {size:,} bytes, expected are {wanted.bytes:,}"
    elif wanted.sha256 is not None and digest != wanted.sha256:
        problem = f"has the sha256\n  {digest}, expected is\n  {wanted.sha256}"
    if problem is None:
        return digest
    wanted.part.unlink(missing_ok=True)
    wanted.identity.unlink(missing_ok=True)
    raise UserError(
        f"what {wanted.url} gave {problem}\nIt was damaged on its way or is another file, and has been removed. Try "
        "again; if it stays so, the publisher has replaced the file"
    )


def _given_up(wanted: Wanted, size: int, error: Exception) -> str:
    kept = f"{wanted.part} keeps {megabytes(size)}; the same command continues there" if size else "nothing arrived"
    return (
        f"{wanted.url} cannot be downloaded: {error}. {kept}. Behind a proxy, set https_proxy; or download the file "
        f"by hand and put it at {wanted.target}"
    )


def _reason(error: BaseException) -> str:
    cause = error.reason if isinstance(error, urllib.error.URLError) else error
    if isinstance(cause, TimeoutError):
        return "no answer in time"
    return f"the connection failed ({cause or type(error).__name__})"


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _pause(seconds: float) -> None:
    time.sleep(seconds)
