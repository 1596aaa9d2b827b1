"""Set up `.venv` with the tested versions of constraints.txt; needs nothing but Python itself."""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / ".venv"
SETTINGS = (ROOT / "pyproject.toml", ROOT / "constraints.txt")
NEEDED = (3, 11)


@contextmanager
def alone() -> Iterator[None]:
    """Block that one process of this checkout at a time runs, where the system has POSIX locks."""
    with (ROOT / ".venv.lock").open("w") as lock:
        try:
            import fcntl
        except ImportError:  # Windows
            yield
            return
        fcntl.flock(lock, fcntl.LOCK_EX)  # freed by the system, however the process ends
        yield


def is_complete() -> bool:
    """True when the environment has been set up since its settings changed."""
    stamp = FOLDER / "complete"
    return stamp.is_file() and all(stamp.stat().st_mtime >= path.stat().st_mtime for path in SETTINGS)


def main() -> int:
    """Exit status: 0 when the environment is complete, with `.venv/complete` as its stamp."""
    argparse.ArgumentParser(description=__doc__).parse_args()  # there are no options; --help installs nothing
    if sys.version_info < NEEDED:
        version = ".".join(map(str, sys.version_info[:2]))
        advice = "install Python 3.11, or name one: make book BOOTSTRAP=/path/to/python3.11"
        print(f"Python {version} ({sys.executable}) is too old: {advice}", file=sys.stderr)
        return 1
    with alone():  # two first commands at once: the second finds what the first has made
        return 0 if is_complete() else install()


def install() -> int:
    """Exit status of setting the environment up anew."""
    unfinished = FOLDER / "unfinished"
    if unfinished.exists():  # a killed pip can leave a package that looks installed and is not whole
        shutil.rmtree(str(FOLDER))
    FOLDER.mkdir(exist_ok=True)
    (FOLDER / "complete").unlink(missing_ok=True)
    unfinished.touch()
    print("installing into .venv (a minute, or as long as 2 GB of downloads take)", flush=True)
    subprocess.run([sys.executable, "-m", "venv", str(FOLDER)], check=True)
    python = FOLDER / ("Scripts" if sys.platform == "win32" else "bin") / "python"
    pip = [str(python), "-m", "pip", "--disable-pip-version-check"]
    command = [*pip, "install", "--quiet", "-c", "constraints.txt", "-e", ".[book,cluster,lab,dev]"]
    if subprocess.run(command, cwd=str(ROOT)).returncode:
        print("the installation stopped; mend the cause above and run the same command again", file=sys.stderr)
        return 1
    subprocess.run([*pip, "check"], cwd=str(ROOT), check=True, stdout=subprocess.DEVNULL)
    unfinished.unlink()
    (FOLDER / "complete").touch()
    return 0


if __name__ == "__main__":
    sys.exit(main())
