"""Large files from the network: resumed, verified, and moved into place whole.

What has arrived lies in `<file>.part`. It stays after a broken connection or a kill, and the next run goes on from
there. Only a file whose checksum is right ever gets its final name.
"""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

from filelock import FileLock, Timeout
from tqdm.auto import tqdm

from lib.errors import InputError

TIMEOUT_S = 10.0  # for a connection, and for each next piece of the file
BLOCK_BYTES = 1 << 20
USER_AGENT = "crossmodal-anomaly-book"  # some servers refuse Python's own
HTML = "an HTML page, probably a login or error page"
RANGE_NOT_SATISFIABLE = 416


def is_html(path: Path) -> bool:
    """Whether the file begins as a web page, whatever its name says."""
    with open(path, "rb") as stream:
        start = stream.read(512).removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    return start.startswith((b"<!doctype html", b"<html", b"<head", b"<?xml"))


def download(
    urls: Sequence[str], path: Path | str, checksum: str, size_bytes: int | None = None, progress: bool = False
) -> Path:
    """`path`, which holds the file of that checksum when this returns; at once where it did before.

    A file of another content under that name is replaced when the right one is complete, not earlier.

    Args:
        urls: where the file lies, tried in this order; hosts that cannot be reached are not tried twice.
        path: final name; its folder is made if missing.
        checksum: hexadecimal SHA-256 of the whole file, or its first digits where no more is known, or "" where nothing
            is; "md5:" before it where it is an MD5.
        size_bytes: of the whole file where known; a server that offers another size is left at once.
        progress: show a bar of bytes.

    Raises:
        InputError: no server gave the file; the line says why for each URL and how to fetch the file by hand.
    """
    path = Path(path)
    if path.is_dir():
        raise InputError(f"{path} is a folder, where a file should come; remove it or give another folder")
    if _is_right(path, checksum):
        return path
    with _alone(path):
        if not _is_right(path, checksum):  # another process may have been quicker
            _from_first_that_serves(urls, path, checksum, size_bytes, progress)
    return path


def _is_right(path: Path, checksum: str) -> bool:
    return path.is_file() and found_checksum(path, checksum).startswith(checksum)


def found_checksum(path: Path, expected: str) -> str:
    """Checksum of a file in the form of the expected one."""
    algorithm, colon, _ = expected.rpartition(":")
    with open(path, "rb") as stream:
        return algorithm + colon + hashlib.file_digest(stream, algorithm or "sha256").hexdigest()


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """While this lasts no other process downloads the same file; the lock of a killed process is free."""
    lock = FileLock(path.with_name(f"{path.name}.lock"))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire(blocking=False)
    except Timeout:
        print(f"{path}: another process downloads it; waiting", file=sys.stderr)
        lock.acquire()
    except OSError as error:
        raise InputError(f"{path.parent} cannot be written ({error}); give another folder") from error
    try:
        yield
    finally:
        lock.release()


def _from_first_that_serves(
    urls: Sequence[str], path: Path, checksum: str, size_bytes: int | None, progress: bool
) -> None:
    part = path.with_name(f"{path.name}.part")
    problems, silent_hosts = [], set()
    for url in urls:
        host = urlsplit(url).netloc
        if host in silent_hosts:
            continue
        try:
            _complete(url, part, checksum, size_bytes, progress)
        except HTTPError as error:
            problems.append(f"{url}: HTTP {error.code} {error.reason}")
        except URLError as error:
            silent_hosts.add(host)
            problems.append(f"{url}: {error.reason}")
        except (OSError, HTTPException) as error:
            problems.append(f"{url}: {error}")
        else:
            os.replace(part, path)
            return
    kept = f" (which goes on after the {part.stat().st_size} bytes of {part.name})" if part.is_file() else ""
    raise InputError(
        f"{path.name} could not be downloaded into {path.parent}: {'; '.join(problems)}; "
        f"try again{kept}, or fetch {' or '.join(urls)} by hand and save it as {path}"
    )


def _complete(url: str, part: Path, checksum: str, size_bytes: int | None, progress: bool) -> None:
    """Brings `part` to the whole file and verifies it; an old part of another file is replaced once."""
    start = part.stat().st_size if part.is_file() else 0
    continued = _fetch(url, part, start, size_bytes, progress)
    if continued and not _is_right(part, checksum):
        _fetch(url, part, 0, size_bytes, progress)
    if not _is_right(part, checksum) or is_html(part):
        kind, found = HTML if is_html(part) else "another file or another version", found_checksum(part, checksum)
        part.unlink()
        raise OSError(f"it sends {kind}: checksum {found}, expected {checksum}")


def _fetch(url: str, part: Path, start: int, size_bytes: int | None, progress: bool) -> bool:
    """Appends to `part`, which has `start` bytes, or writes it anew where that is 0 or the server sends all.

    True when it kept what was there. Nothing is thrown away before the server begins to send a file.
    """
    headers = {"User-Agent": USER_AGENT} | ({"Range": f"bytes={start}-"} if start else {})
    try:
        response = urlopen(Request(url, headers=headers), timeout=TIMEOUT_S)
    except HTTPError as error:
        error.close()
        if start and error.code == RANGE_NOT_SATISFIABLE:
            return True  # nothing lies beyond what is there: its checksum decides
        raise
    with response:
        if response.headers.get_content_type() == "text/html":
            raise OSError(f"it sends {HTML}")
        if response.status != 206:
            start = 0  # the server ignores Range and sends the whole file
        length = response.headers["Content-Length"]
        total = None if length is None else start + int(length)
        if size_bytes is not None and total not in (None, size_bytes):
            raise OSError(f"it offers {total} bytes, not {size_bytes}")
        bar = tqdm(desc=part.stem, initial=start, total=total, unit="B", unit_scale=True, disable=not progress)
        with open(part, "ab" if start else "wb") as stream, bar:
            while block := response.read1(BLOCK_BYTES):
                stream.write(block)
                bar.update(len(block))
            stream.flush()
            os.fsync(stream.fileno())
    if total is not None and (arrived := part.stat().st_size) != total:
        raise OSError(f"the connection broke off after {arrived} of {total} bytes")
    return start > 0
