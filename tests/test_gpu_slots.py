"""Each process has one GPU to itself; the GPUs are made up, the locks and the processes are real."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import ModuleType

import pytest
import torch

from data_scripts import extract_features, run_experiment, run_notebook
from lib import gpu_slots
from lib.config import project_root
from lib.gpu_slots import VISIBLE, installed_gpus, own_gpu, slot_name, visible_gpus

HOLD = """import os, sys
from pathlib import Path
from lib.gpu_slots import own_gpu
with own_gpu("cuda", sys.argv[2:], Path(sys.argv[1])):
    print(os.environ["CUDA_VISIBLE_DEVICES"], flush=True)
    sys.stdin.read()
"""
WORKERS = [
    (run_experiment, "run", ["--method", "cfm", "--category", "bagel", "--seed", "0", "--profile", "mvtec3d"]),
    (extract_features, "extract_features", ["--category", "bagel", "--profile", "mvtec3d"]),
    (run_notebook, "run_notebook", ["a.ipynb", "b.ipynb", "-p", "profile", "mvtec3d"]),
]
Holder = Callable[[], subprocess.Popen[str]]


@pytest.fixture
def holder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Holder]:
    """Starts a process that takes one of GPUs 0 and 1, prints which, and holds it until its input ends."""
    monkeypatch.delenv(VISIBLE, raising=False)
    command = [sys.executable, "-c", HOLD, str(tmp_path), "0", "1"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with ExitStack() as stack:

        @contextmanager
        def running() -> Iterator[subprocess.Popen[str]]:
            with subprocess.Popen(command, cwd=project_root(), **pipes) as process:
                try:
                    yield process
                finally:
                    process.kill()

        yield lambda: stack.enter_context(running())


def test_two_processes_have_different_gpus_and_a_third_waits_for_one(holder: Holder) -> None:
    first, second = holder(), holder()
    taken = [process.stdout.readline() for process in (first, second)]
    assert sorted(taken) == ["0\n", "1\n"]
    third = holder()
    assert third.stdout.readline() == "waiting for one of 2 GPUs\n"
    second.stdin.close()  # it ends well
    assert third.stdout.readline() == taken[1]


def test_kill_frees_the_gpu(holder: Holder) -> None:
    first, second = holder(), holder()
    taken = [process.stdout.readline() for process in (first, second)]
    third = holder()
    assert third.stdout.readline() == "waiting for one of 2 GPUs\n"
    first.kill()
    assert third.stdout.readline() == taken[0]


def test_block_sets_the_variable_and_puts_back_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VISIBLE, raising=False)
    with own_gpu("cuda", ["3"], tmp_path) as gpu:
        assert (gpu, os.environ[VISIBLE]) == ("3", "3")
    assert VISIBLE not in os.environ
    monkeypatch.setenv(VISIBLE, "4, 6")
    with own_gpu("cuda", folder=tmp_path) as first, own_gpu("cuda", ["4", "6"], tmp_path) as second:
        assert (first, second, os.environ[VISIBLE]) == ("4", "6", "6")
    assert os.environ[VISIBLE] == "4, 6"


@pytest.mark.parametrize(("device", "variable"), [("cpu", "0,1"), ("cuda", "5"), ("cuda", ""), ("cuda", "-1")])
def test_nothing_is_done_where_there_is_nothing_to_choose(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, device: str, variable: str
) -> None:
    monkeypatch.setenv(VISIBLE, variable)
    with own_gpu(device, folder=tmp_path / "locks") as gpu:
        assert (gpu, os.environ[VISIBLE]) == (None, variable)
    assert not (tmp_path / "locks").exists()


def test_installed_gpus_are_those_of_nvidias_tool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VISIBLE, raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert visible_gpus() == installed_gpus() == []
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\necho GPU-aa\necho GPU-bb\n")
    tool.chmod(0o755)
    assert visible_gpus() == ["GPU-aa", "GPU-bb"]
    tool.write_text("#!/bin/sh\necho no driver\nexit 9\n")
    assert installed_gpus() == []


def test_numbers_mean_other_gpus_in_another_slurm_job_and_uuids_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    names = []
    for job in ("7", "8"):
        monkeypatch.setenv("SLURM_JOB_ID", job)
        names.append((slot_name("0"), slot_name("GPU-ab"), slot_name("MIG-1/2")))
    assert names == [("7-0", "GPU-ab", "MIG-1_2"), ("8-0", "GPU-ab", "MIG-1_2")]
    monkeypatch.delenv("SLURM_JOB_ID")
    assert slot_name("0").endswith("-0") and slot_name("0") not in ("7-0", "8-0")


@pytest.mark.parametrize(("script", "work", "given"), WORKERS, ids=[work for _, work, _ in WORKERS])
def test_scripts_take_a_gpu_before_they_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: ModuleType, work: str, given: list[str]
) -> None:
    seen = []

    def records(*_: object, **__: object) -> dict[str, dict[str, object]]:
        seen.append(os.environ[VISIBLE])
        return {}

    monkeypatch.setenv(VISIBLE, "6,7")
    monkeypatch.setattr(gpu_slots, "project_root", lambda: tmp_path)
    monkeypatch.setattr(script, work, records)
    monkeypatch.setattr(sys, "argv", [script.__name__, *given])
    threads = torch.get_num_threads()
    assert not script.main()
    torch.set_num_threads(threads)
    assert (seen, os.environ[VISIBLE]) == (["6"], "6,7")
