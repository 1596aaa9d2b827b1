"""A web server on this machine that serves one file well or badly, as the path asked for says."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

PAGE = b"<!DOCTYPE html><html><body>please log in</body></html>"


class Handler(BaseHTTPRequestHandler):
    """Serves `server.content`.

    Paths: /whole heeds Range; /plain ignores it; /half breaks off in the middle of what is left; /slow stops there
    until `server.released`; /html is a page; /disguised a page that passes for a file; /other another file of the
    same length; /longer has one byte more; /moved points to /whole; anything else is not found.
    """

    server: FileServer

    def do_GET(self) -> None:
        kind = self.path.strip("/")
        asked = self.headers.get("Range")
        self.server.requests.append((kind, asked))
        if kind == "moved":
            self.send_response(302)
            self.send_header("Location", self.server.url("whole"))
            self.end_headers()
            return
        content = self.server.content
        bodies = {"other": content[::-1], "longer": content + b"!", "disguised": PAGE, "html": PAGE}
        whole = bodies.get(kind, content)
        if kind not in {"whole", "plain", "half", "slow", *bodies}:
            self.send_error(404)
            return
        start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked and kind != "plain" else 0
        if start and start >= len(whole):
            self.send_error(416)
            return
        self.send_response(206 if start else 200)
        self.send_header("Content-Type", "text/html; charset=utf-8" if kind == "html" else "application/octet-stream")
        self.send_header("Content-Length", str(len(whole) - start))
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(whole) - 1}/{len(whole)}")
        self.end_headers()
        middle = (start + len(whole)) // 2
        self.wfile.write(whole[start:middle])
        if kind == "slow":
            self.server.released.wait(30)
        if kind != "half":
            self.wfile.write(whole[middle:])

    def log_message(self, *arguments: object) -> None:
        """Say nothing."""


class FileServer(ThreadingHTTPServer):
    """One file at `url(kind)`; `requests` are (kind, Range header), `released` lets /slow go on."""

    daemon_threads = True

    def __init__(self, content: bytes) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.content = content
        self.requests: list[tuple[str, str | None]] = []
        self.released = threading.Event()

    def url(self, kind: str) -> str:
        return f"http://127.0.0.1:{self.server_port}/{kind}"

    def handle_error(self, *arguments: object) -> None:
        """A client that went away is no news."""


@contextmanager
def serving(content: bytes) -> Iterator[FileServer]:
    """The server while it runs."""
    with FileServer(content) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield server
        finally:
            server.released.set()
            server.shutdown()
            thread.join()


def silent_url() -> str:
    """An address of this machine where nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}/whole"
