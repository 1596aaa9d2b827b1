"""A training killed on purpose leaves the checkpoint of the epoch it was to die after."""

from __future__ import annotations

import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lib import killed_training
from lib.heads.checkpoints import Checkpoint, Curves
from tests.test_training import NORMAL, TRAINED

PROFILE: Any = SimpleNamespace(
    name="made", device="cpu", precision="float32", memory_gb=None, compiled=False, method=lambda name: name
)


def test_it_dies_by_its_own_hand_after_the_epochs_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class DeadError(Exception):
        pass

    def kill(process: int, number: int) -> None:
        raise DeadError(number)

    monkeypatch.setattr(killed_training, "load_profile", lambda name: PROFILE)
    monkeypatch.setattr(killed_training, "method_features", lambda *given, **named: NORMAL)
    monkeypatch.setattr(killed_training.os, "kill", kill)
    with pytest.raises(DeadError) as died:
        killed_training.fit_and_die("made", "cfm", "cord", 3, TRAINED["cfm"], tmp_path, 2)
    curves = Curves()
    assert died.value.args == (signal.SIGKILL,)
    assert Checkpoint(tmp_path, "cfm").load({"curves": curves}) == 2 and len(curves["rgb_to_xyz"]) == 2


def test_the_signal_that_ended_the_process_comes_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[tuple[Any, ...]] = []

    class Process:
        exitcode = -9

        def __init__(self, target: Any, args: tuple[Any, ...]) -> None:
            started.append((target, *args))

        def start(self) -> None:
            started.append(("started",))

        def join(self) -> None:
            started.append(("joined",))

    monkeypatch.setattr(killed_training.multiprocessing, "get_context", lambda kind: SimpleNamespace(Process=Process))
    found = killed_training.killed_fit(PROFILE, "cfm", "cord", 3, TRAINED["cfm"], tmp_path, 2)
    expected = (killed_training.fit_and_die, "made", "cfm", "cord", 3, TRAINED["cfm"], tmp_path, 2)
    assert found == signal.SIGKILL and started == [expected, ("started",), ("joined",)]
