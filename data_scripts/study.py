"""Run the study from whatever state it is in to a checked site: one run at a time, readable progress, short errors.

    python data_scripts/study.py --profile demo

A run killed at any moment goes on where it stood when started again: jobs write whole files only, Snakemake redoes
what it marked as incomplete, the lock is freed by the operating system, and jobs left without their run are stopped.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
from filelock import FileLock, Timeout

from lib.config import project_root
from lib.errors import run_command_line
from lib.profiles import load_profile

RUN_VARIABLE = "STUDY_RUN_ROOT"  # marks every process of a run, so that a later run finds those left over
TAIL_LINES = 20
TOTAL = re.compile(r"^total\s+(\d+)")
STARTED = re.compile(r"^Job \d+: (.*)")
FAILED = re.compile(r"^Error in rule ")
FAILED_LOG = re.compile(r"^\s+log: (\S+)")
COLOR = re.compile(r"\x1b\[[0-9;]*m")
TROUBLE = re.compile(r"\b(WARNING|ERROR|InputError)\b")


@contextmanager
def study_lock(root: Path) -> Iterator[None]:
    """Block during which no other run of this checkout works; waits, with a line that says so, while one does."""
    (root / "runs").mkdir(exist_ok=True)
    lock = FileLock(root / "runs" / "study.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        print("another run of this study is under way in this folder; waiting for it to end", flush=True)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def stop_leftovers(root: Path) -> None:
    """Stop jobs whose run was killed: they would write beside the new run. Call this while holding the lock."""
    leftovers = [process for process in psutil.process_iter() if is_of_run(process, root)]
    if leftovers:
        print(f"stopping {len(leftovers)} processes left over from a run that was killed", flush=True)
    for process in leftovers:
        with_still_there(process.kill)
    psutil.wait_procs(leftovers, timeout=30)


def is_of_run(process: psutil.Process, root: Path) -> bool:
    """True when the process was started by a run of this checkout."""
    return (with_still_there(process.environ) or {}).get(RUN_VARIABLE) == str(root)


def with_still_there(call: Callable[[], Any]) -> Any:
    """Result of a psutil call, or None when the process has ended or is not ours to look at."""
    try:
        return call()
    except (psutil.Error, OSError):
        return None


def snakemake_command(profile: str, cores: str) -> list[str]:
    """Command line of the workflow; the lock is ours because Snakemake's own outlives a kill."""
    return [
        sys.executable, "-m", "snakemake", "study", "--config", f"profile={profile}", "--cores", cores, "--nolock",
        "--rerun-incomplete", "--rerun-triggers", "mtime", "code", "params", "input", "--nocolor", "--keep-going",
    ]  # fmt: skip


class Progress:
    """Turns Snakemake's output into one line per started job, and remembers the logs of jobs that failed."""

    def __init__(self) -> None:
        self.total = 0
        self.started = 0
        self.failed_logs: list[str] = []
        self.in_failure = False

    def read(self, line: str) -> str | None:
        """What to show for a line of Snakemake's output: a progress line, or None."""
        if match := TOTAL.match(line):
            self.total = int(match[1]) - 1  # the rule that only names all results is no work
        elif match := STARTED.match(line):
            self.started += 1
            return f"[{self.started}/{self.total}] {match[1]}"
        elif FAILED.match(line):
            self.in_failure = True
        elif self.in_failure and (match := FAILED_LOG.match(line)):
            self.failed_logs.append(match[1])
            self.in_failure = False
        return None


def run_workflow(root: Path, profile: str, cores: str) -> int:
    """Exit status of Snakemake; its own output goes to runs/<profile>/logs/snakemake.log."""
    log = root / "runs" / profile / "logs" / "snakemake.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, RUN_VARIABLE: str(root), "PYTHONHASHSEED": "0"}
    progress = Progress()
    with (
        open(log, "w", encoding="utf-8") as written,
        subprocess.Popen(
            snakemake_command(profile, cores), cwd=root, env=environment, text=True, errors="replace",
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        ) as process,
    ):  # fmt: skip
        for line in process.stdout:
            written.write(line)
            if shown := progress.read(line):
                print(shown, flush=True)
    if process.returncode:
        explain_failure(root, log, progress.failed_logs)
    return process.returncode


def explain_failure(root: Path, log: Path, failed_logs: list[str]) -> None:
    """Print what matters of each failed job's log, or of Snakemake's own where no job failed."""
    for path in dict.fromkeys(failed_logs) or [str(log.relative_to(root))]:
        text = (root / path).read_text(encoding="utf-8", errors="replace") if (root / path).is_file() else ""
        print(f"\nfailed; from {path}:", *telling_lines(text), sep="\n  ", file=sys.stderr)
    print("\nmend the cause and run the same command again; what is done stays done", file=sys.stderr)


def telling_lines(text: str) -> list[str]:
    """The lines of a log that name trouble, or its last ones where none does."""
    lines = [line.rstrip() for line in COLOR.sub("", text).splitlines() if line.strip()]
    return [line for line in lines if TROUBLE.search(line)][:TAIL_LINES] or lines[-TAIL_LINES:]


def main() -> int:
    """Command line: --profile NAME --cores N; exit status of the run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--profile", default="demo")
    parser.add_argument("--cores", default="all", help="number of jobs at a time")
    arguments = parser.parse_args()
    root = project_root()
    load_profile(arguments.profile)  # refuses an unknown or broken one before anything starts
    started = time.monotonic()
    with study_lock(root):
        stop_leftovers(root)
        status = run_workflow(root, arguments.profile, arguments.cores)
    if status == 0:
        print(f"the book is at _build/html/index.html ({time.monotonic() - started:.0f} s)")
    return status


if __name__ == "__main__":
    sys.exit(run_command_line(main))
