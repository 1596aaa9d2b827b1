"""Seeds, atomic files, hashes and provenance: what every floor above needs from the machine."""

from __future__ import annotations

import hashlib
import os
import platform
import subprocess
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib import metadata
from pathlib import Path

import numpy as np

REPORTED_PACKAGES = (
    "torch",
    "torchvision",
    "timm",
    "numpy",
    "scipy",
    "scikit-learn",
    "pandas",
    "matplotlib",
    "plotly",
    "papermill",
    "jupyter-book",
    "snakemake",
)


def seeded_generator(*words: int | str) -> np.random.Generator:
    """NumPy generator that depends on every word given and on nothing else.

    Args:
        *words: integers or strings, for instance a seed and a sample id. Words that print differently give
            independent streams; the same words give the same stream on every machine.
    """
    digest = hashlib.sha256("\x1f".join(str(word) for word in words).encode()).digest()
    return np.random.default_rng(np.frombuffer(digest, dtype=np.uint32).tolist())


@contextmanager
def atomic_path(path: Path | str) -> Iterator[Path]:
    """Temporary path beside `path`, moved onto it when the block ends well and removed when it does not.

    A reader never sees a half-written file: `os.replace` is atomic within a folder. The temporary name keeps the
    suffix, because writers such as NumPy and Pillow choose the format by it.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}.{uuid.uuid4().hex[:8]}.part{path.suffix}")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def file_sha256(path: Path | str) -> str:
    """Hexadecimal SHA-256 of a file's bytes."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def cpu_name() -> str:
    """Processor model as the operating system prints it, or the architecture where it does not say."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text(errors="replace").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


@cache
def git_commit(root: Path) -> str:
    """Commit hash of the checkout at `root`, with "-dirty" when tracked files differ, or "unknown" outside git.

    Read once a process, whose code stays the one it has loaded. `results/` is left out: records being remade are what
    code gives, and no other code.
    """
    git = ["git", "--no-optional-locks", "-C", str(root)]
    describe = [*git, "describe", "--always", "--abbrev=12", "--exclude=*"]
    changed = [*git, "status", "--porcelain", "--untracked-files=no", "--", ".", ":!results"]
    try:
        commit, changes = (
            subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
            for command in (describe, changed)
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return f"{commit}-dirty" if changes else commit


def package_versions() -> dict[str, str]:
    """Installed version of each package named in `REPORTED_PACKAGES`, local build labels dropped."""
    return {name: installed_version(name) for name in REPORTED_PACKAGES}


@cache
def installed_version(name: str) -> str:
    """Version of an installed package without its local build label; read once, since a page asks hundreds of times."""
    return metadata.version(name).split("+")[0]
