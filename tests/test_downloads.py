"""Downloads from a server on this machine: resumed, verified, whole or not at all, alone, and quick to give up."""

from __future__ import annotations

import hashlib
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from lib import downloads
from lib.config import project_root
from lib.downloads import download, is_html
from lib.errors import InputError
from tests.file_server import PAGE, FileServer, serving, silent_url

CONTENT = np.random.default_rng(3).bytes(3_000_017)
SHA256 = hashlib.sha256(CONTENT).hexdigest()
HALF = len(CONTENT) // 2
KILLED = "import sys; from lib.downloads import download; download(sys.argv[1:2], sys.argv[2], sys.argv[3])"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FileServer]:
    monkeypatch.setenv("no_proxy", "*")
    with serving(CONTENT) as server:
        yield server


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "new" / "net.pth"


def part_of(path: Path, content: bytes) -> Path:
    """The `.part` file of `path`, as a broken download leaves it."""
    path.parent.mkdir(exist_ok=True)
    part = path.with_name("net.pth.part")
    part.write_bytes(content)
    return part


def line_for(call: Callable[[], object]) -> str:
    """The InputError's text; it is one line whatever happened."""
    with pytest.raises(InputError) as caught:
        call()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def wait_until(holds: Callable[[], bool]) -> None:
    """Return when something holds; at the latest after 20 s."""
    end = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_a_file_arrives_whole_under_its_name_alone(server: FileServer, path: Path) -> None:
    assert download([server.url("whole")], path, SHA256, len(CONTENT)) == path
    assert path.read_bytes() == CONTENT
    assert {file.name for file in path.parent.iterdir()} <= {"net.pth", "net.pth.lock"}


def test_a_file_that_is_there_needs_no_server(path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(CONTENT)
    assert download([silent_url()], path, SHA256) == path
    assert list(path.parent.iterdir()) == [path]


def test_progress_counts_bytes(server: FileServer, path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    download([server.url("whole")], path, SHA256, progress=True)
    shown = capsys.readouterr().err
    assert "net.pth: 100%" in shown and "3.00M/3.00M" in shown


@pytest.mark.parametrize(("kind", "kept"), [("whole", True), ("plain", False)])
def test_a_partial_file_is_gone_on_from_where_the_server_can(
    server: FileServer, path: Path, kind: str, kept: bool
) -> None:
    part = part_of(path, CONTENT[:1_000_003] if kept else b"x" * 1_000_003)
    download([server.url(kind)], path, SHA256, len(CONTENT))
    assert path.read_bytes() == CONTENT and not part.exists()
    assert server.requests == [(kind, "bytes=1000003-")]


@pytest.mark.parametrize(
    "content", [b"x" * 1_000_003, CONTENT + b"more", b"y" * len(CONTENT)], ids=["shorter", "longer", "as long"]
)
def test_a_partial_file_of_something_else_is_thrown_away(server: FileServer, path: Path, content: bytes) -> None:
    part_of(path, content)
    download([server.url("whole")], path, SHA256, len(CONTENT))
    assert path.read_bytes() == CONTENT
    assert server.requests == [("whole", f"bytes={len(content)}-"), ("whole", None)]


def test_a_complete_partial_file_only_gets_its_name(server: FileServer, path: Path) -> None:
    part_of(path, CONTENT)
    download([server.url("whole")], path, SHA256)
    assert path.read_bytes() == CONTENT and server.requests == [("whole", f"bytes={len(CONTENT)}-")]


def test_a_file_that_moved_is_gone_on_from_too(server: FileServer, path: Path) -> None:
    part_of(path, CONTENT[:HALF])
    download([server.url("moved")], path, SHA256, len(CONTENT))
    assert path.read_bytes() == CONTENT
    assert server.requests == [("moved", f"bytes={HALF}-"), ("whole", f"bytes={HALF}-")]


def test_a_broken_connection_leaves_what_came(server: FileServer, path: Path) -> None:
    line = line_for(lambda: download([server.url("half")], path, SHA256))
    assert f"the connection broke off after {HALF} of {len(CONTENT)} bytes" in line
    assert f"try again (which goes on after the {HALF} bytes of net.pth.part)" in line
    assert not path.exists() and path.with_name("net.pth.part").read_bytes() == CONTENT[:HALF]
    download([server.url("whole")], path, SHA256)
    assert path.read_bytes() == CONTENT and server.requests[-1] == ("whole", f"bytes={HALF}-")


def test_a_mirror_goes_on_where_another_broke_off(server: FileServer, path: Path) -> None:
    download([server.url("missing"), server.url("half"), server.url("whole")], path, SHA256)
    assert path.read_bytes() == CONTENT
    assert server.requests == [("missing", None), ("half", None), ("whole", f"bytes={HALF}-")]


def test_a_kill_in_the_middle_is_made_good_by_the_next_run(server: FileServer, path: Path) -> None:
    command = [sys.executable, "-c", KILLED, server.url("slow"), path, SHA256]
    part = path.with_name("net.pth.part")
    process = subprocess.Popen(command, cwd=project_root())
    wait_until(lambda: part.is_file() and part.stat().st_size == HALF)
    process.kill()
    assert process.wait() == -signal.SIGKILL and not path.exists()
    download([server.url("whole")], path, SHA256)
    assert path.read_bytes() == CONTENT and server.requests == [("slow", None), ("whole", f"bytes={HALF}-")]


def test_two_at_once_fetch_it_once(server: FileServer, path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found: list[bytes] = []

    def fetch() -> None:
        found.append(download([server.url("slow")], path, SHA256).read_bytes())

    threads = [threading.Thread(target=fetch) for _ in range(2)]
    threads[0].start()
    wait_until(lambda: bool(server.requests))
    threads[1].start()
    said: list[str] = []

    def second_waits() -> bool:
        said.append(capsys.readouterr().err)
        return "another process downloads it; waiting" in "".join(said)

    wait_until(second_waits)
    server.released.set()
    for thread in threads:
        thread.join()
    assert found == [CONTENT, CONTENT] and server.requests == [("slow", None)]


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("missing", "HTTP 404 Not Found"),
        ("html", "it sends an HTML page, probably a login or error page"),
        ("disguised", "it sends an HTML page, probably a login or error page: checksum"),
        ("other", f"another version: checksum {hashlib.sha256(CONTENT[::-1]).hexdigest()}, expected {SHA256}"),
    ],
)
def test_a_wrong_answer_never_gets_the_name(server: FileServer, path: Path, kind: str, words: str) -> None:
    line = line_for(lambda: download([server.url(kind)], path, SHA256))
    url = server.url(kind)
    assert words in line and line.startswith(f"net.pth could not be downloaded into {path.parent}: {url}: ")
    assert line.endswith(f"; try again, or fetch {url} by hand and save it as {path}")
    assert {file.name for file in path.parent.iterdir()} <= {"net.pth.lock"}
    download([server.url(kind), server.url("whole")], path, SHA256)
    assert path.read_bytes() == CONTENT


def test_a_page_in_between_does_not_cost_what_came(server: FileServer, path: Path) -> None:
    part = part_of(path, CONTENT[:HALF])
    line_for(lambda: download([server.url("html")], path, SHA256))
    assert part.read_bytes() == CONTENT[:HALF]


def test_another_size_is_not_fetched(server: FileServer, path: Path) -> None:
    line = line_for(lambda: download([server.url("longer")], path, SHA256, len(CONTENT)))
    assert f"it offers {len(CONTENT) + 1} bytes, not {len(CONTENT)}" in line
    assert not path.with_name("net.pth.part").exists()


def test_a_wrong_file_stays_until_the_right_one_is_whole(server: FileServer, path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(b"something of mine")
    line_for(lambda: download([server.url("half")], path, SHA256))
    assert path.read_bytes() == b"something of mine"
    download([server.url("whole")], path, SHA256)
    assert path.read_bytes() == CONTENT


def test_without_a_network_the_error_comes_at_once(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "*")
    url = silent_url()
    line = line_for(lambda: download([url, f"{url}2"], path, SHA256))
    assert line.count("Connection refused") == 1  # one host, asked once
    assert line.endswith(f"; try again, or fetch {url} or {url}2 by hand and save it as {path}")


def test_a_server_that_falls_silent_is_given_up(
    server: FileServer, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(downloads, "TIMEOUT_S", 2.0)
    assert "timed out" in line_for(lambda: download([server.url("slow")], path, SHA256))
    assert path.with_name("net.pth.part").stat().st_size == HALF


def test_a_folder_where_the_file_should_come_is_refused(tmp_path: Path) -> None:
    assert "is a folder, where a file should come" in line_for(lambda: download([silent_url()], tmp_path, SHA256))


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    line = line_for(lambda: download([silent_url()], tmp_path / "file" / "net.pth", SHA256))
    assert line.startswith(f"{tmp_path / 'file'} cannot be written (")


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (PAGE, True),
        (b"\xef\xbb\xbf\n  <HTML lang='en'>", True),
        (b"", False),
        (b"PK\x03\x04", False),
        (CONTENT[:99], False),
    ],
    ids=["page", "page with a mark", "empty", "zip", "noise"],
)
def test_pages_are_told_from_weights(tmp_path: Path, content: bytes, expected: bool) -> None:
    (tmp_path / "net.pth").write_bytes(content)
    assert is_html(tmp_path / "net.pth") is expected
