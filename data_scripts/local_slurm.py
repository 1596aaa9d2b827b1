"""A real SLURM on this one machine, to try a study's way to a cluster before taking it to a real one. Needs root.

    python data_scripts/local_slurm.py start
    make cluster PROFILE=demo CLUSTER=profiles/slurm
    python data_scripts/local_slurm.py stop

Everything it keeps lies in one folder, with a key and ports of its own. Where the machine has a SLURM already, it
refuses to start: that one is to be used.
"""

from __future__ import annotations

import argparse
import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import psutil

from lib.config import project_root
from lib.errors import InputError, run_command_line

COMMANDS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scancel", "sinfo")
PACKAGES = "apt-get install -y --no-install-recommends munge slurmctld slurmd slurm-client"
SYSTEM_CONFIG = Path("/etc/slurm/slurm.conf")
# Where SLURM's commands look when /etc has no configuration. A link there is needed because Snakemake's job steps drop
# the variable SLURM_CONF.
LINK = Path("/run/slurm/conf")
DAEMONS = ("slurmd", "slurmctld", "munged")  # in the order they are stopped
KEPT_MEMORY = 0.9  # what jobs may ask for; the rest is the system's
SECONDS_TO_START = 30
SECONDS_TO_STOP = 30


def slurm_config(folder: Path, host: str, cpus: int, memory_mb: int, num_gpus: int) -> str:
    """Text of slurm.conf: one node, one partition, no accounting database.

    Args:
        folder: absolute, for all state.
        host: this machine's name as `hostname` prints it.
        cpus, memory_mb, num_gpus: what jobs may share.
    """
    gpu_type, gres = ("GresTypes=gpu\n", f" Gres=gpu:{num_gpus}") if num_gpus else ("", "")
    return f"""ClusterName=local
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort=16817
SlurmdPort=16818
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/filetxt
JobCompLoc={folder}/jobs.txt
ReturnToService=2
{gpu_type}NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} RealMemory={memory_mb}{gres} State=UNKNOWN
PartitionName=main Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""


def gpu_config(files: Sequence[str]) -> str:
    """Text of gres.conf: one line for each GPU's device file."""
    return "".join(f"Name=gpu File={file}\n" for file in files)


def gpu_files() -> list[str]:
    """Device files of this machine's NVIDIA GPUs."""
    return sorted(str(path) for path in Path("/dev").glob("nvidia[0-9]*"))


def check_machine(folder: Path) -> None:
    """Raise `InputError` unless the packages are there, we are root, and no other SLURM is."""
    if missing := [name for name in COMMANDS if shutil.which(name) is None]:
        raise InputError(f"{', '.join(missing)}: not installed; on Debian or Ubuntu run: {PACKAGES}")
    if os.geteuid():
        raise InputError("local_slurm start needs root, as SLURM's daemons do; run it with sudo")
    if SYSTEM_CONFIG.exists():
        raise InputError(f"{SYSTEM_CONFIG} is there, so this machine has a SLURM of its own; use that one")
    if LINK.exists() and LINK.resolve() != folder:
        raise InputError(f"{LINK} leads to another SLURM's configuration, {LINK.resolve()}; stop that one first")


def daemon(folder: Path, name: str) -> psutil.Process | None:
    """The running daemon of that name that was started from the folder, or None."""
    try:
        process = psutil.Process(int((folder / f"{name}.pid").read_text()))
        return process if process.name() == name else None
    except (FileNotFoundError, ValueError, psutil.NoSuchProcess):
        return None


def ask(folder: Path, *command: str) -> str:
    """What a SLURM command prints about this SLURM; empty where it does not answer."""
    environment = {**os.environ, "SLURM_CONF": str(folder / "slurm.conf")}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False).stdout.strip()


def write_files(folder: Path, files: Sequence[str]) -> None:
    """Write the key, both configurations and the link; a key that is there stays, as running daemons know it."""
    for name in ("state", "spool"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    key = folder / "munge.key"
    if not key.exists():
        key.touch(mode=0o600)
        key.write_bytes(secrets.token_bytes(128))
    memory_mb = int(KEPT_MEMORY * psutil.virtual_memory().total / 2**20)
    text = slurm_config(folder, socket.gethostname().split(".")[0], os.cpu_count() or 1, memory_mb, len(files))
    (folder / "slurm.conf").write_text(text, encoding="utf-8")
    (folder / "gres.conf").write_text(gpu_config(files), encoding="utf-8")
    LINK.parent.mkdir(exist_ok=True)
    LINK.unlink(missing_ok=True)
    LINK.symlink_to(folder)


def start_daemons(folder: Path) -> None:
    """Start the daemons that do not run yet.

    Raises:
        InputError: one of them does not start.
    """
    places = {"key-file": "munge.key", "seed-file": "munge.seed", "socket": "munge.socket", "pid-file": "munged.pid",
              "log-file": "munged.log"}  # fmt: skip
    munge = [f"--{option}={folder}/{name}" for option, name in places.items()]
    config = ["-f", f"{folder}/slurm.conf"]
    # --force: the folder may belong to another user than root
    for name, options in (("munged", ["--force", *munge]), ("slurmctld", config), ("slurmd", config)):
        if daemon(folder, name) is None:
            started = subprocess.run([shutil.which(name), *options], capture_output=True, text=True, check=False)
            if started.returncode:
                reason = " ".join((started.stderr or started.stdout).split())
                raise InputError(f"{name} does not start ({reason}); see {folder}/{name}.log")


def start(folder: Path, files: Sequence[str]) -> None:
    """Start SLURM in the folder, or what of it does not run, and wait until it takes jobs."""
    check_machine(folder)
    write_files(folder, files)
    start_daemons(folder)
    deadline = time.monotonic() + SECONDS_TO_START
    while ask(folder, "sinfo", "--noheader", "--format=%T") not in ("idle", "mixed", "allocated"):
        if time.monotonic() > deadline:
            raise InputError(f"SLURM takes no jobs yet; see {folder}/slurmctld.log and slurmd.log, then stop it")
        time.sleep(0.5)
    print("SLURM takes jobs: make cluster CLUSTER=profiles/slurm")


def stop(folder: Path) -> None:
    """Cancel all jobs of this SLURM and stop its daemons; its folder stays.

    Raises:
        InputError: a daemon goes on.
    """
    if jobs := ask(folder, "squeue", "--noheader", "--format=%i").split():
        ask(folder, "scancel", *jobs)
        deadline = time.monotonic() + SECONDS_TO_STOP
        while ask(folder, "squeue", "--noheader") and time.monotonic() < deadline:
            time.sleep(0.5)
    running = [process for name in DAEMONS if (process := daemon(folder, name))]
    for process in running:
        process.terminate()
        process.wait(SECONDS_TO_STOP)
    if LINK.resolve() == folder:
        LINK.unlink()
        with suppress(OSError):  # others may have files there
            LINK.parent.rmdir()
    print(f"stopped {len(running)} daemons, canceled {len(jobs)} jobs")


def status(folder: Path) -> int:
    """Exit status: 0 while all daemons run; prints them, the node and the jobs."""
    running = {name: daemon(folder, name) for name in reversed(DAEMONS)}
    print(*(f"{name}: {f'process {process.pid}' if process else 'not running'}" for name, process in running.items()),
          sep="\n")  # fmt: skip
    if all(running.values()):
        print(ask(folder, "sinfo"), ask(folder, "squeue"), sep="\n")
    return int(not all(running.values()))


def main() -> int:
    """Command line: start|stop|status [--folder FOLDER] [--gpu-files FILE...]."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=("start", "stop", "status"))
    parser.add_argument("--folder", type=Path, default=project_root() / "runs" / "slurm", help="(default: runs/slurm)")
    parser.add_argument("--gpu-files", nargs="*", help="device files of GPUs (default: all /dev/nvidia<number>)")
    arguments = parser.parse_args()
    folder = arguments.folder.resolve()
    if arguments.action == "start":
        start(folder, gpu_files() if arguments.gpu_files is None else arguments.gpu_files)
        return 0
    if not (folder / "slurm.conf").is_file():
        raise InputError(f"{arguments.folder}: no SLURM was started there; give the folder that `start` was given")
    return stop(folder) or 0 if arguments.action == "stop" else status(folder)


if __name__ == "__main__":
    sys.exit(run_command_line(main))
