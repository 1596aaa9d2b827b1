"""One GPU for each process: jobs of one machine share its GPUs through locks of the operating system."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from lib.config import project_root

VISIBLE = "CUDA_VISIBLE_DEVICES"
SECONDS_BETWEEN_LOOKS = 0.5


def installed_gpus() -> list[str]:
    """Unique names (UUID) of the GPUs that NVIDIA's driver shows here; empty without a driver.

    PyTorch is not asked, because asking it can start CUDA, which reads CUDA_VISIBLE_DEVICES once and for all.
    """
    if shutil.which("nvidia-smi") is None:
        return []
    command = ["nvidia-smi", "--query-gpu=uuid", "--format=csv,noheader"]
    asked = subprocess.run(command, capture_output=True, text=True, check=False)
    return asked.stdout.split() if asked.returncode == 0 else []


def visible_gpus() -> list[str]:
    """GPUs that this process may use: those of CUDA_VISIBLE_DEVICES where it is set, else all installed ones."""
    if VISIBLE in os.environ:
        return [name for part in os.environ[VISIBLE].split(",") if (name := part.strip()) and name != "-1"]
    return installed_gpus()


def slot_name(gpu: str) -> str:
    """Name of a GPU's lock: its UUID, or a number together with whatever counts it so.

    A SLURM job counts the GPUs it was given from 0, as do its neighbors on the same host.
    """
    owner = "" if gpu.startswith(("GPU-", "MIG-")) else os.environ.get("SLURM_JOB_ID", socket.gethostname()) + "-"
    return re.sub(r"[^\w.-]", "_", owner + gpu)


@contextmanager
def own_gpu(device: str, gpus: Sequence[str] | None = None, folder: Path | None = None) -> Iterator[str | None]:
    """Block that has a GPU to itself, with CUDA_VISIBLE_DEVICES set to it; waits while all are taken.

    Enter it before CUDA starts. A killed process frees its GPU. A CUDA_VISIBLE_DEVICES that names one GPU is left as
    it is: whoever set it, a scheduler or a person, has chosen.

    Args:
        device: "cpu" does nothing.
        gpus: names as CUDA_VISIBLE_DEVICES takes them; `visible_gpus()` unless given.
        folder: of the locks; `runs/gpus` of the project unless given.

    Yields:
        The GPU's name; None where there was nothing to choose.
    """
    if device == "cpu":
        yield None
        return
    before = os.environ.get(VISIBLE)
    choice = visible_gpus() if gpus is None else gpus
    if not choice or (before is not None and len(choice) == 1):
        yield None
        return
    lock, gpu = free_slot(choice, folder or project_root() / "runs" / "gpus")
    os.environ[VISIBLE] = gpu
    try:
        yield gpu
    finally:
        os.environ.pop(VISIBLE) if before is None else os.environ.update({VISIBLE: before})
        lock.release()


def free_slot(gpus: Sequence[str], folder: Path) -> tuple[FileLock, str]:
    """A held lock and the GPU it stands for: the first that is free, waiting for one if need be."""
    folder.mkdir(parents=True, exist_ok=True)
    locks = {gpu: FileLock(folder / f"{slot_name(gpu)}.lock") for gpu in gpus}
    told = False
    while True:
        for gpu, lock in locks.items():
            try:
                lock.acquire(timeout=0)
            except Timeout:
                continue
            return lock, gpu
        if not told:
            print(f"waiting for one of {len(gpus)} GPUs", flush=True)
            told = True
        time.sleep(SECONDS_BETWEEN_LOOKS)
