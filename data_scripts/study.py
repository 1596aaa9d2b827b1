"""Run the study from whatever state it is in to a checked site: one run at a time, readable progress, short errors.

    python data_scripts/study.py --profile demo
    python data_scripts/study.py --profile mvtec3d --gpus 4
    python data_scripts/study.py --profile mvtec3d --cluster profiles/slurm

A run killed at any moment goes on where it stood when started again: jobs write whole files only, Snakemake redoes
what it marked as incomplete, the lock is freed by the operating system, and jobs left without their run are stopped,
on a cluster too.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from filelock import FileLock, Timeout

from lib.cluster import cancel_left_jobs, check_cluster, job_prefix
from lib.config import project_root
from lib.errors import InputError, run_command_line
from lib.gpu_slots import visible_gpus
from lib.profiles import Profile, data_root, load_profile

RUN_VARIABLE = "STUDY_RUN_ROOT"  # marks every process of a run, so that a later run finds those left over
EVERYTHING = ("study",)
STOPPED_WITHIN_S = 30
TAIL_LINES = 20
TOTAL = re.compile(r"^total\s+(\d+)")
IDLE = re.compile(r"^study\s+1$")  # the rule that only names all results is no work
STARTED = re.compile(r"^Job \d+: (.*)")
FAILED = re.compile(r"^Error in rule ")
FAILED_LOGS = re.compile(r"^\s+log: (.+?)(?: \(check log|$)")
SLURM_REASON = re.compile(r"^\s+message: (SLURM.+?)\s*(?:Detailed failure|For further|$)")
COLOR = re.compile(r"\x1b\[[0-9;]*m")
IN_FILE = re.compile(r"\bInputError in file ")
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
    while leftovers := [process for process in psutil.process_iter() if is_of_run(process, root)]:
        # again until none is found: a runner that is left over may start a job while we look
        print(f"stopping {len(leftovers)} processes left over from a run that was killed", flush=True)
        for process in leftovers:
            with_still_there(process.kill)
        _, alive = psutil.wait_procs(leftovers, timeout=STOPPED_WITHIN_S)
        # in a container whose first process reaps no children a killed one stays as a zombie, which does nothing
        if alive := [p for p in alive if with_still_there(p.status) not in (None, psutil.STATUS_ZOMBIE)]:
            numbers = ", ".join(str(process.pid) for process in alive)
            raise InputError(f"processes {numbers} of a run that was killed do not end; stop them and start again")


def is_of_run(process: psutil.Process, root: Path) -> bool:
    """True when the process was started by a run of this checkout."""
    return (with_still_there(process.environ) or {}).get(RUN_VARIABLE) == str(root)


def with_still_there(call: Callable[[], Any]) -> Any:
    """Result of a psutil call, or None when the process has ended or is not ours to look at."""
    try:
        return call()
    except (psutil.Error, OSError):
        return None


def snakemake_command(
    profile: str,
    cores: str | None,
    gpus: int | None = None,
    cluster: Path | None = None,
    targets: Sequence[str] = EVERYTHING,
) -> list[str]:
    """Command line of the workflow; the lock is ours because Snakemake's own outlives a kill.

    Args:
        profile: name of the study's profile.
        cores: at most so many at a time, a number or "all"; None only on a cluster, whose profile limits the jobs.
        gpus: at most so many at a time; None for no limit.
        cluster: folder of a Snakemake profile for SLURM; jobs run here where it is None.
        targets: rules or files to make.
    """
    limits = ["--cores", cores] if cores else []
    limits += ["--resources", f"gpu={gpus}"] if gpus else []
    if cluster:
        limits += ["--workflow-profile", str(cluster), "--slurm-jobname-prefix", job_prefix(project_root())]
    return [
        sys.executable, "-m", "snakemake", *targets, "--config", f"profile={profile}", *limits, "--nolock",
        "--rerun-incomplete", "--rerun-triggers", "mtime", "code", "params", "input", "--nocolor", "--keep-going",
    ]  # fmt: skip


def gpu_limit(profile: Profile, given: int | None, on_cluster: bool) -> int | None:
    """How many GPUs the study may use at a time; None for no limit.

    Args:
        profile: its device decides whether jobs take a GPU at all.
        given: what the command line says; without it, all GPUs of this machine, and no limit on a cluster.
        on_cluster: jobs do not run here.

    Raises:
        InputError: a number below 1, or GPUs for a study that uses none.
    """
    if given is not None and profile.device == "cpu":
        raise InputError(f"--gpus {given}: profile {profile.name} has device: cpu and uses no GPU; leave it out")
    if given is not None and given < 1:
        raise InputError(f"--gpus is {given}; give at least 1")
    if given or on_cluster or profile.device == "cpu":
        return given
    return len(visible_gpus()) or 1  # without a GPU each job says so itself


@dataclass(frozen=True)
class Failure:
    """A failed job: its own log, then that of SLURM where it ran there, and what SLURM says of it."""

    logs: tuple[str, ...]
    reason: str = ""


class Progress:
    """Turns Snakemake's output into one line per started job, and remembers the jobs that failed."""

    def __init__(self) -> None:
        self.idle = 0
        self.total = 0
        self.started = 0
        self.failures: list[Failure] = []
        self.in_failure = False
        self.reason = ""

    def read(self, line: str) -> str | None:
        """What to show for a line of Snakemake's output: a progress line, or None."""
        if IDLE.match(line):
            self.idle = 1
        elif match := TOTAL.match(line):
            self.total = int(match[1]) - self.idle
        elif match := STARTED.match(line):
            self.started += 1
            return f"[{self.started}/{self.total}] {match[1]}"
        elif FAILED.match(line):
            self.in_failure, self.reason = True, ""
        elif self.in_failure and (match := SLURM_REASON.match(line)):
            self.reason = match[1]
        elif self.in_failure and (match := FAILED_LOGS.match(line)):
            self.failures.append(Failure(tuple(match[1].split(", ")), self.reason))
            self.in_failure = False
        return None


def run_workflow(root: Path, profile: str, command: Sequence[str]) -> int:
    """Exit status of a Snakemake command line; its own output goes to runs/<profile>/logs/snakemake.log."""
    log = root / "runs" / profile / "logs" / "snakemake.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, RUN_VARIABLE: str(root), "PYTHONHASHSEED": "0"}
    progress = Progress()
    with (
        open(log, "w", encoding="utf-8") as written,
        subprocess.Popen(
            command, cwd=root, env=environment, text=True, errors="replace",
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        ) as process,
    ):  # fmt: skip
        for line in process.stdout:
            written.write(line)
            if shown := progress.read(line):
                print(shown, flush=True)
    if process.returncode:
        explain_failure(root, log, progress.failures)
    return process.returncode


def explain_failure(root: Path, log: Path, failures: list[Failure]) -> None:
    """Print what matters of each failed job's first log that says anything; of Snakemake's where no job failed."""
    for failure in dict.fromkeys(failures) or [Failure((str(log.relative_to(root)),))]:
        texts = {path: log_text(root / path) for path in failure.logs}
        path = next((path for path, text in texts.items() if text), failure.logs[0])
        reason = [failure.reason] if failure.reason else []
        print(f"\nfailed; from {path}:", *reason, *telling_lines(texts[path]), sep="\n  ", file=sys.stderr)
    print("\nmend the cause and run the same command again; what is done stays done", file=sys.stderr)


def log_text(path: Path) -> str:
    """Text of a log; empty where there is none."""
    return path.read_text(encoding="utf-8", errors="replace").strip() if path.is_file() else ""


def telling_lines(text: str) -> list[str]:
    """The lines of a log that name trouble, or its last ones where none does.

    Snakemake names the file and line of an error in its own files first, and what the error says in the line after.
    """
    lines = [line.rstrip() for line in COLOR.sub("", text).splitlines() if line.strip()]
    before = ["", *lines[:-1]]
    telling = [line for line, last in zip(lines, before, strict=True) if TROUBLE.search(line) or IN_FILE.search(last)]
    return telling[:TAIL_LINES] or lines[-TAIL_LINES:]


def main() -> int:
    """Command line: see --help; exit status of the run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--profile", default="demo")
    parser.add_argument("--cores", help="CPU cores at a time: number or all (default: all, on a cluster no limit)")
    parser.add_argument("--gpus", type=int, help="GPUs at a time (default: all of this machine)")
    parser.add_argument("--cluster", type=Path, metavar="FOLDER", help="Snakemake profile: run jobs on its SLURM")
    parser.add_argument("--targets", nargs="+", default=EVERYTHING, help="rules or files to make (default: the book)")
    arguments = parser.parse_args()
    root = project_root()
    profile = load_profile(arguments.profile)  # refuses an unknown or broken one before anything starts
    data_root(profile)  # and a folder that is not there, or every job would say so
    gpus = gpu_limit(profile, arguments.gpus, on_cluster=arguments.cluster is not None)
    if arguments.cluster:
        check_cluster(arguments.cluster)
        arguments.cluster = arguments.cluster.resolve()  # Snakemake starts elsewhere
    cores = arguments.cores or (None if arguments.cluster else "all")
    started = time.monotonic()
    command = snakemake_command(profile.name, cores, gpus, arguments.cluster, arguments.targets)
    with study_lock(root):
        stop_leftovers(root)  # first, or a Snakemake left over would submit more
        cancel_left_jobs(root)
        status = run_workflow(root, profile.name, command)
    if status == 0:
        whole = tuple(arguments.targets) == EVERYTHING
        site = "_build/html" if profile.name == "demo" else f"_build/{profile.name}/html"
        made = f"the book is at {site}/index.html" if whole else "all targets are there"
        print(f"{made} ({time.monotonic() - started:.0f} s)")
    return status


if __name__ == "__main__":
    sys.exit(run_command_line(main))
