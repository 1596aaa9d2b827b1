"""The SLURM of one machine: its configuration, what it refuses, and whose processes it stops."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from data_scripts import local_slurm
from data_scripts.local_slurm import COMMANDS, check_machine, daemon, gpu_config, slurm_config
from lib.errors import InputError


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that stands for a machine with all packages, run by root, without another SLURM."""
    for name in COMMANDS:
        (tmp_path / name).write_text("#!/bin/sh\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(local_slurm, "SYSTEM_CONFIG", tmp_path / "etc.conf")
    monkeypatch.setattr(local_slurm, "LINK", tmp_path / "link")
    return tmp_path


@pytest.fixture
def slurmd(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process named slurmd."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "slurmd").symlink_to("/bin/sleep")
    with subprocess.Popen([tmp_path / "bin" / "slurmd", "60"]) as process:
        yield process
        process.kill()


def settings(text: str) -> dict[str, str]:
    """First setting of each line."""
    return dict(line.split(" ")[0].split("=", 1) for line in text.splitlines())


def test_all_state_lies_in_the_folder_and_memory_is_shared_out() -> None:
    text = slurm_config(Path("/a/slurm"), "box", cpus=6, memory_mb=5000, num_gpus=0)
    found = settings(text)
    assert {value for value in found.values() if "/slurm" in value and "/" not in value[0]} <= {
        "socket=/a/slurm/munge.socket", "proctrack/linuxproc",
    }  # fmt: skip
    places = [value for key, value in found.items() if key.endswith(("Location", "Dir", "File", "Loc"))]
    assert len(places) == 7 and all(place.startswith("/a/slurm/") for place in places)
    assert found["SelectTypeParameters"] == "CR_Core_Memory"
    assert "NodeName=box NodeAddr=127.0.0.1 CPUs=6 RealMemory=5000 State=UNKNOWN\n" in text
    assert "gpu" not in text


def test_gpus_are_announced_one_by_one() -> None:
    assert gpu_config(["/dev/nvidia0", "/dev/nvidia1"]) == "Name=gpu File=/dev/nvidia0\nName=gpu File=/dev/nvidia1\n"
    text = slurm_config(Path("/a"), "box", cpus=6, memory_mb=5000, num_gpus=2)
    assert "GresTypes=gpu\n" in text and "RealMemory=5000 Gres=gpu:2 State=UNKNOWN\n" in text


def test_missing_packages_are_named_with_the_line_that_installs_them(machine: Path) -> None:
    (machine / "munged").unlink()
    (machine / "sinfo").unlink()
    with pytest.raises(InputError, match="munged, sinfo: not installed; on Debian or Ubuntu run: apt-get install -y"):
        check_machine(machine)


def test_another_user_than_root_is_refused(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check_machine(machine)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(InputError, match="needs root"):
        check_machine(machine)


def test_machine_with_a_slurm_of_its_own_is_left_alone(machine: Path) -> None:
    (machine / "link").symlink_to(machine / "mine")
    (machine / "mine").mkdir()
    (machine / "other").mkdir()
    check_machine(machine / "mine")
    with pytest.raises(InputError, match=r"another SLURM's configuration, .*mine; stop that one first"):
        check_machine(machine / "other")
    (machine / "etc.conf").write_text("")
    with pytest.raises(InputError, match="has a SLURM of its own; use that one"):
        check_machine(machine / "mine")


def test_configuration_is_written_with_a_private_key_that_stays(machine: Path) -> None:
    folder = machine / "slurm"
    local_slurm.write_files(folder, [])
    key = (folder / "munge.key").read_bytes()
    local_slurm.write_files(folder, ["/dev/nvidia0"])
    assert (folder / "munge.key").read_bytes() == key and len(key) == 128
    assert (folder / "munge.key").stat().st_mode & 0o777 == 0o600
    assert (folder / "gres.conf").read_text() == "Name=gpu File=/dev/nvidia0\n"
    assert (machine / "link").resolve() == folder


def test_daemon_is_the_process_of_that_name_and_no_other(tmp_path: Path, slurmd: subprocess.Popen[bytes]) -> None:
    assert daemon(tmp_path, "slurmd") is None
    (tmp_path / "slurmd.pid").write_text(f"{slurmd.pid}\n")
    assert daemon(tmp_path, "slurmd") == psutil.Process(slurmd.pid)
    (tmp_path / "slurmctld.pid").write_text(f"{slurmd.pid}\n")  # a number that was given to another process since
    assert daemon(tmp_path, "slurmctld") is None
    slurmd.kill()
    slurmd.wait()
    assert daemon(tmp_path, "slurmd") is None


def test_stop_ends_what_was_started_there(
    machine: Path, tmp_path: Path, slurmd: subprocess.Popen[bytes], capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "slurmd.pid").write_text(str(slurmd.pid))
    (machine / "link").symlink_to(tmp_path)
    local_slurm.stop(tmp_path)
    assert not psutil.pid_exists(slurmd.pid)
    assert capsys.readouterr().out == "stopped 1 daemons, canceled 0 jobs\n"
    assert not (machine / "link").is_symlink()
