"""Work on several processes gives what a loop gives, in order, and stops at an error."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from lib.config import project_root
from lib.parallel import in_processes

KILLED = """
import sys
from pathlib import Path
from lib.parallel import in_processes
from tests.test_parallel import stay
list(in_processes(stay, [Path(sys.argv[1]) / name for name in "abcd"], 2, "stay"))
"""


def stay(path: Path) -> None:
    """Name the own process in a file and work on for longer than any test."""
    path.write_text(str(os.getpid()))
    time.sleep(600)


@pytest.mark.parametrize("jobs", [1, 3])
def test_results_come_in_order(jobs: int) -> None:
    assert list(in_processes(math.sqrt, [9.0, 4.0, 1.0, 0.0], jobs, "roots")) == [3, 2, 1, 0]
    assert list(in_processes(math.sqrt, [], jobs, "roots")) == []


@pytest.mark.parametrize("jobs", [1, 2])
def test_an_error_ends_the_rest(jobs: int) -> None:
    with pytest.raises(ValueError, match="math domain"):
        list(in_processes(math.sqrt, [1.0, -1.0, 4.0], jobs, "roots"))


def test_a_bar_counts(capsys: pytest.CaptureFixture[str]) -> None:
    list(in_processes(math.sqrt, [1.0, 4.0], 1, "roots", progress=True))
    assert "roots: 100%" in capsys.readouterr().err


def test_workers_end_when_their_owner_is_killed(tmp_path: Path) -> None:
    owner = subprocess.Popen([sys.executable, "-c", KILLED, tmp_path], cwd=project_root())
    end = time.monotonic() + 120
    while sum(path.stat().st_size > 0 for path in tmp_path.iterdir()) < 2:
        assert time.monotonic() < end and owner.poll() is None
        time.sleep(0.02)
    workers = [psutil.Process(int(path.read_text())) for path in tmp_path.iterdir()]
    owner.send_signal(signal.SIGKILL)
    owner.wait()
    _, alive = psutil.wait_procs(workers, timeout=60)
    alive = [worker for worker in alive if worker.status() != psutil.STATUS_ZOMBIE]  # nobody's children
    for worker in alive:
        worker.kill()
    assert alive == []
