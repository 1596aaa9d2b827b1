"""Archives: whole or not at all, never outside their folder, never over what is there."""

from __future__ import annotations

import io
import signal
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest

from lib import archives
from lib.archives import refuse_foreign, unpack
from lib.config import project_root
from lib.errors import InputError

FILES = {"mug/train/good/rgb/000.png": b"one", "mug/license.txt": b"two", "bowl/test/x.bin": bytes(range(256)) * 40}
KILLED = """
import os, signal, sys, tarfile
from pathlib import Path
from lib.archives import unpack
real, taken = tarfile.TarFile.extract, []
def extract(self, member, *given, **named):
    real(self, member, *given, **named)
    taken.append(member)
    if len(taken) == 4:
        os.kill(os.getpid(), signal.SIGKILL)
tarfile.TarFile.extract = extract
unpack(Path(sys.argv[1]), Path(sys.argv[2]), ["mug"])
"""


def make_tar(path: Path, files: dict[str, bytes], mode: str = "w:xz") -> Path:
    with tarfile.open(path, mode) as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


def make_link(path: Path, name: str, kind: bytes, target: str) -> Path:
    with tarfile.open(path, "w") as tar:
        member = tarfile.TarInfo(name)
        member.type, member.linkname = kind, target
        tar.addfile(member)
    return path


def tree(folder: Path) -> dict[str, bytes]:
    """Visible files below a folder."""
    found = (path for path in folder.rglob("*") if path.is_file())
    names = {path: path.relative_to(folder) for path in found}
    return {str(name): path.read_bytes() for path, name in names.items() if not any(p[0] == "." for p in name.parts)}


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
def test_the_expected_folders_arrive_whole(tmp_path: Path, mode: str) -> None:
    archive = make_tar(tmp_path / "data.tar", FILES, mode)
    folder = tmp_path / "new" / "data"
    assert unpack(archive, folder, ["mug", "bowl"]) == [folder / "mug", folder / "bowl"]
    assert tree(folder) == FILES


def test_folders_within_one_folder_and_a_bare_category_are_found(tmp_path: Path) -> None:
    wrapped = make_tar(tmp_path / "wrapped.tar", {f"top/{name}": content for name, content in FILES.items()})
    unpack(wrapped, tmp_path / "a", ["mug", "bowl"])
    assert tree(tmp_path / "a") == FILES
    bare = make_tar(tmp_path / "bare.tar", {"train/data/000_pose.txt": b"1"})
    assert unpack(bare, tmp_path / "b", ["Confetto"]) == [tmp_path / "b" / "Confetto"]
    assert tree(tmp_path / "b") == {"Confetto/train/data/000_pose.txt": b"1"}


def test_a_second_time_costs_nothing_and_a_missing_folder_comes_back(tmp_path: Path) -> None:
    archive, folder = make_tar(tmp_path / "data.tar", FILES), tmp_path / "data"
    unpack(archive, folder, ["mug", "bowl"])
    (folder / "mug" / "license.txt").write_bytes(b"mine")
    unpack(archive, folder, ["mug", "bowl"])
    assert (folder / "mug" / "license.txt").read_bytes() == b"mine"
    (folder / "bowl").rename(tmp_path / "elsewhere")
    unpack(archive, folder, ["mug", "bowl"])
    assert (folder / "bowl" / "test" / "x.bin").is_file() and (folder / "mug" / "license.txt").read_bytes() == b"mine"


def test_what_is_there_is_never_overwritten(tmp_path: Path) -> None:
    archive = make_tar(tmp_path / "data.tar", FILES)
    (tmp_path / "data" / "mug").mkdir(parents=True)
    (tmp_path / "data" / "mug" / "mine.txt").write_bytes(b"mine")
    with pytest.raises(InputError, match="this archive did not put it there"):
        unpack(archive, tmp_path / "data", ["mug", "bowl"])
    assert tree(tmp_path / "data") == {"mug/mine.txt": b"mine"}


@pytest.mark.parametrize("name", ["../evil.txt", "../../evil.txt", "mug/../../../evil.txt"])
def test_no_member_leaves_the_folder(tmp_path: Path, name: str) -> None:
    archive, inside = make_tar(tmp_path / "data.tar", {**FILES, name: b"evil"}), tmp_path / "deep" / "data"
    with pytest.raises(InputError, match="would write outside its folder"):
        unpack(archive, inside, ["mug", "bowl"])
    assert tree(inside) == {} and list(tmp_path.rglob("evil.txt")) == []


def test_an_absolute_name_is_taken_as_one_within_the_folder(tmp_path: Path) -> None:
    archive = make_tar(tmp_path / "data.tar", {**FILES, "/mug/evil.txt": b"evil"})
    unpack(archive, tmp_path / "data", ["mug", "bowl"])
    assert (tmp_path / "data" / "mug" / "evil.txt").is_file() and not Path("/mug").exists()


@pytest.mark.parametrize(
    ("kind", "target"),
    [(tarfile.SYMTYPE, "/etc/passwd"), (tarfile.SYMTYPE, "inside"), (tarfile.LNKTYPE, "../x"), (tarfile.CHRTYPE, "")],
)
def test_links_and_devices_are_refused(tmp_path: Path, kind: bytes, target: str) -> None:
    with pytest.raises(InputError, match="neither a file nor a folder"):
        unpack(make_link(tmp_path / "data.tar", "mug/link", kind, target), tmp_path / "data", ["mug"])
    assert tree(tmp_path / "data") == {}


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:xz"])
@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.8])
def test_half_an_archive_is_told_and_leaves_nothing(tmp_path: Path, mode: str, share: float) -> None:
    noise = np.random.default_rng(0).bytes(200_000)
    archive = make_tar(tmp_path / "data.tar", {**FILES, "mug/noise.bin": noise, "mug/more.bin": noise}, mode)
    whole = archive.read_bytes()
    archive.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(InputError, match="the download is cut off or damaged: fetch it again"):
        unpack(archive, tmp_path / "data", ["mug", "bowl"])
    assert tree(tmp_path / "data") == {} and not list((tmp_path / "data").glob("*unpacking"))


def test_a_plain_tar_cut_between_two_members_is_told(tmp_path: Path) -> None:
    archive = make_tar(tmp_path / "data.tar", FILES, "w")
    archive.write_bytes(archive.read_bytes()[:1024])  # header and content of the first member
    with pytest.raises(InputError, match="it stops without an end mark"):
        unpack(archive, tmp_path / "data", ["mug"])


def test_pages_and_other_datasets_are_told(tmp_path: Path) -> None:
    (tmp_path / "page.tar").write_bytes(b"<!DOCTYPE html><html>log in</html>")
    with pytest.raises(InputError, match="an HTML page"):
        unpack(tmp_path / "page.tar", tmp_path / "data", ["mug"])
    with pytest.raises(InputError, match="holds bowl, mug, not plate; is it the archive of another dataset"):
        unpack(make_tar(tmp_path / "data.tar", FILES), tmp_path / "data", ["plate"])
    with pytest.raises(InputError, match="no such file; download it first"):
        unpack(tmp_path / "none.tar", tmp_path / "data", ["plate"])


def test_too_little_space_is_told_before_anything_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = make_tar(tmp_path / "data.tar", FILES)
    monkeypatch.setattr(archives.shutil, "disk_usage", lambda folder: type("Usage", (), {"free": 10})())
    with pytest.raises(InputError, match="0 MB free"):
        unpack(archive, tmp_path / "data", ["mug"])
    assert tree(tmp_path / "data") == {}


def test_a_kill_in_the_middle_leaves_no_half_category(tmp_path: Path) -> None:
    archive = make_tar(tmp_path / "data.tar", {f"mug/{number}.bin": b"content" for number in range(20)}, "w:gz")
    ended = subprocess.run([sys.executable, "-c", KILLED, archive, tmp_path / "data"], cwd=project_root())
    assert ended.returncode == -signal.SIGKILL
    assert len(list((tmp_path / "data").rglob("*.bin"))) == 4 and not (tmp_path / "data" / "mug").exists()
    unpack(archive, tmp_path / "data", ["mug"])
    assert len(tree(tmp_path / "data")) == 20 and not list((tmp_path / "data").glob("*unpacking"))


def test_folders_of_another_origin_are_told_before_the_download(tmp_path: Path) -> None:
    archive = tmp_path / "later.tar"
    refuse_foreign(archive, tmp_path / "data", ("bagel", "rope"))
    (tmp_path / "data" / "bagel").mkdir(parents=True)
    with pytest.raises(InputError, match="bagel is there, and this archive did not put it there"):
        refuse_foreign(archive, tmp_path / "data", ("bagel", "rope"))
