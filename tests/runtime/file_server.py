"""A web server on this machine that serves one file, and can misbehave in the ways that servers do."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Site:
    """What is served under every path, and how.

    Attributes:
        content: the file.
        etag: its tag; None sends none.
        ranges: whether parts can be asked for.
        cut: the first answers end after so many bytes each.
        errors: status codes of the first answers.
        status: of all answers.
        redirect: where every path but /file sends on to.
        kind: the content type.
        length: whether the size is announced.
        requests: what was asked for: (path, the Range header or None).
        sent: bytes of content sent, over all answers.
    """

    content: bytes
    etag: str | None = '"one"'
    ranges: bool = True
    cut: list[int] = field(default_factory=list)
    errors: list[int] = field(default_factory=list)
    status: int = 200
    redirect: str | None = None
    kind: str = "application/octet-stream"
    length: bool = True
    requests: list[tuple[str, str | None]] = field(default_factory=list)
    sent: int = 0
    url: str = ""


@contextmanager
def serving(site: Site) -> Iterator[Site]:
    """Serve the site from a thread; ``site.url`` is the file's address."""

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

        def do_GET(self) -> None:
            _answer(self, site)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    site.url = f"http://127.0.0.1:{server.server_port}/file"
    try:
        yield site
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _answer(handler: BaseHTTPRequestHandler, site: Site) -> None:
    wanted = handler.headers.get("Range")
    site.requests.append((handler.path, wanted))
    if site.redirect is not None and handler.path != "/file":
        _head(handler, 302, {"Location": site.redirect, "Content-Length": "0"})
        return
    if site.errors or site.status != 200:
        _head(handler, site.errors.pop(0) if site.errors else site.status, {"Content-Length": "0"})
        return
    first = 0
    headers = {"Content-Type": site.kind} | ({"ETag": site.etag} if site.etag else {})
    if wanted and site.ranges and handler.headers.get("If-Range", site.etag) == site.etag:
        first = int(wanted.removeprefix("bytes=").rstrip("-"))
        if first >= len(site.content):
            _head(handler, 416, {"Content-Range": f"bytes */{len(site.content)}", "Content-Length": "0"})
            return
        headers["Content-Range"] = f"bytes {first}-{len(site.content) - 1}/{len(site.content)}"
    body = site.content[first:]
    if site.length:
        headers["Content-Length"] = str(len(body))
    _head(handler, 206 if "Content-Range" in headers else 200, headers)
    body = body[: site.cut.pop(0)] if site.cut else body
    site.sent += len(body)
    handler.wfile.write(body)


def _head(handler: BaseHTTPRequestHandler, status: int, headers: dict[str, str]) -> None:
    handler.send_response(status)
    for name, value in headers.items():
        handler.send_header(name, value)
    handler.end_headers()
