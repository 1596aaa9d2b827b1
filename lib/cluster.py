"""Jobs of a study on a SLURM cluster: what must be there to start them, and what a killed run has left."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import time
from pathlib import Path

from lib.errors import InputError

PROFILE_FILES = ("config.yaml", "profile.yaml")
SECONDS_TO_ANSWER = 60
SECONDS_TO_END = 60


def check_cluster(folder: Path) -> None:
    """Raise `InputError` unless the folder holds a Snakemake profile and this machine can submit SLURM jobs."""
    if not any((folder / name).is_file() for name in PROFILE_FILES):
        raise InputError(f"{folder} holds no config.yaml of Snakemake; give profiles/slurm, or a folder made like it")
    if shutil.which("sbatch") is None:
        raise InputError(
            "sbatch is not found, so this machine submits to no SLURM cluster; run on a cluster's login node, "
            "or try data_scripts/local_slurm.py"
        )


def job_prefix(root: Path) -> str:
    """What the names of all SLURM jobs of this checkout begin with."""
    return f"study-{hashlib.sha256(str(root).encode()).hexdigest()[:12]}"


def own_jobs(root: Path) -> list[str]:
    """Numbers of this checkout's SLURM jobs that wait or run; empty where no SLURM answers."""
    if shutil.which("squeue") is None:
        return []
    command = ["squeue", "--me", "--noheader", "--format=%i %j"]
    try:
        asked = subprocess.run(command, capture_output=True, text=True, check=False, timeout=SECONDS_TO_ANSWER)
    except subprocess.TimeoutExpired:
        return []
    named = [line.partition(" ") for line in asked.stdout.splitlines()]
    return [number for number, _, name in named if name.startswith(job_prefix(root))]


def cancel_left_jobs(root: Path) -> None:
    """Cancel SLURM jobs whose run was killed, and wait until they are gone. Call this while holding the study's lock.

    Snakemake deletes what they wrote and submits them anew, because it did not see them end. Left alone, they would
    write beside the new ones.
    """
    if left := own_jobs(root):
        print(f"canceling {len(left)} SLURM jobs left over from a run that was killed", flush=True)
        subprocess.run(["scancel", *left], check=False)
    deadline = time.monotonic() + SECONDS_TO_END
    while left and (left := own_jobs(root)):
        if time.monotonic() > deadline:
            raise InputError(f"SLURM jobs {', '.join(left)} do not end; cancel them with scancel, then run again")
        time.sleep(1)
