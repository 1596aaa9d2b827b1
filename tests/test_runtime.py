"""Seeds, atomic files, hashes and what is said of the machine."""

from __future__ import annotations

import hashlib
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from lib import runtime
from lib.config import project_root
from lib.runtime import atomic_path, cpu_name, file_sha256, git_commit, package_versions, seeded_generator

KILLED_WRITER = """
import os, signal, sys
from lib.runtime import atomic_path
with atomic_path(sys.argv[1]) as temporary:
    with open(temporary, "w") as stream:
        stream.write("half of the")
        stream.flush()
        os.kill(os.getpid(), signal.SIGKILL)
"""


def test_seeded_generator_is_the_same_on_every_machine() -> None:
    assert seeded_generator(7, "test/hole/003").integers(10**9, size=3).tolist() == [567679231, 138030880, 898122560]


def test_seeded_generator_depends_on_every_word() -> None:
    words = [(0,), (1,), (0, "a"), (0, "b"), ("a", 0), (0, "a", "b"), ("0a",), (0, "ab")]
    draws = np.stack([seeded_generator(*w).standard_normal(2000) for w in words])
    correlations = np.corrcoef(draws) - np.eye(len(words))
    assert np.abs(correlations).max() < 0.1
    np.testing.assert_array_equal(seeded_generator(0, "b").standard_normal(2000), draws[3])


def test_atomic_path_moves_a_finished_file_and_makes_its_folder(tmp_path: Path) -> None:
    target = tmp_path / "new" / "deep" / "numbers.npz"
    with atomic_path(target) as temporary:
        assert temporary.parent == target.parent and temporary.suffix == ".npz" and temporary.name.startswith(".")
        np.savez(temporary, a=np.arange(3))
        assert not target.exists()
    assert [path.name for path in target.parent.iterdir()] == ["numbers.npz"]
    with np.load(target) as stored:
        assert stored["a"].tolist() == [0, 1, 2]


def write_half(path: Path) -> None:
    """Write something, then fail."""
    with open(path, "w") as stream:
        stream.write("half")
        stream.write(None)


@pytest.mark.parametrize("old", [None, "old"])
def test_exception_leaves_the_target_as_it_was(tmp_path: Path, old: str | None) -> None:
    target = tmp_path / "text.txt"
    if old is not None:
        target.write_text(old)
    with pytest.raises(TypeError, match="must be str"), atomic_path(target) as temporary:
        write_half(temporary)
    assert [path.read_text() for path in tmp_path.iterdir()] == ([] if old is None else [old])


@pytest.mark.parametrize("old", [None, "old"])
def test_killed_writer_never_leaves_a_half_file(tmp_path: Path, old: str | None) -> None:
    target = tmp_path / "text.txt"
    if old is not None:
        target.write_text(old)
    process = subprocess.run([sys.executable, "-c", KILLED_WRITER, target], cwd=project_root(), check=False)
    assert process.returncode == -signal.SIGKILL
    assert target.exists() == (old is not None)
    assert old is None or target.read_text() == old
    leftovers = [path.name for path in tmp_path.iterdir() if path != target]
    assert len(leftovers) == 1 and leftovers[0].startswith(".") and ".part" in leftovers[0]
    with atomic_path(target) as temporary:
        temporary.write_text("whole")
    assert target.read_text() == "whole"


def test_two_writers_of_one_target_do_not_share_a_temporary_file(tmp_path: Path) -> None:
    with atomic_path(tmp_path / "a.txt") as first, atomic_path(tmp_path / "a.txt") as second:
        assert first != second
        first.write_text("first")
        second.write_text("second")
    assert (tmp_path / "a.txt").read_text() == "first"  # the outer block ends last


def test_file_hash_is_that_of_its_bytes(tmp_path: Path) -> None:
    content = bytes(range(256)) * 1021
    (tmp_path / "file").write_bytes(content)
    assert file_sha256(tmp_path / "file") == hashlib.sha256(content).hexdigest()


def test_commit_is_unknown_outside_git_and_without_git(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert git_commit(tmp_path) == "unknown"
    git_commit.cache_clear()
    monkeypatch.setattr(runtime.subprocess, "run", raises(FileNotFoundError("git")))
    assert git_commit(tmp_path) == "unknown"


def test_commit_is_dirty_by_changed_code_and_not_by_changed_records(tmp_path: Path) -> None:
    def git(*words: str) -> str:
        author = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
        return subprocess.run(
            ["git", "-C", str(tmp_path), *author, *words], check=True, capture_output=True, text=True
        ).stdout.strip()

    for name in ("lib.py", "results/record.json"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("one")
    git("init", "-q")
    git("add", ".")
    git("commit", "-q", "-m", "first")
    commit = git("rev-parse", "HEAD")[:12]
    found = []
    for name in ("untracked.txt", "results/record.json", "lib.py"):
        (tmp_path / name).write_text("two")
        git_commit.cache_clear()
        found.append(git_commit(tmp_path))
    assert found == [commit, commit, f"{commit}-dirty"]
    git("checkout", "lib.py")
    assert git_commit(tmp_path) == f"{commit}-dirty"  # of the process, whose code has been loaded


def raises(error: Exception) -> Callable[..., None]:
    def call(*_: object, **__: object) -> None:
        raise error

    return call


def test_machine_is_described_in_one_line_without_build_labels() -> None:
    assert cpu_name() and "\n" not in cpu_name()
    versions = package_versions()
    assert versions.keys() == set(runtime.REPORTED_PACKAGES)
    assert all("+" not in version and version[0].isdigit() for version in versions.values())
