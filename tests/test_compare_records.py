"""Folders of records beside each other: what counts, what does not, and the exit status."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest

from data_scripts.compare_records import compare
from lib.errors import InputError
from lib.records import record_path, write_record

RECORD = {
    "schema": 1,
    "key": {"method": "cfm", "seed": 0},
    "config": {"hidden_dim": 8},
    "inputs": {"threads": 1, "data": "a", "code": "b", "versions": {"torch": "2"}},
    "metrics": {"image_auroc": 0.75},
    "per_image": [{"id": "test/good/000", "score": 0.5}],
    "history": {"loss": [2.0, 1.0]},
    "run": {"fit_seconds": 3.0},
}


def write_folder(folder: Path, *seeds: int) -> Path:
    for seed in seeds:
        write_record(record_path(folder, "cfm", "ring", "product", seed), RECORD)
    return folder


def test_times_and_machines_do_not_count(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, second = write_folder(tmp_path / "a", 0, 1), write_folder(tmp_path / "b", 0, 1)
    other = copy.deepcopy(RECORD) | {"run": {"fit_seconds": 9.0}}
    other["inputs"] |= {"data": "z", "code": "z", "versions": {}}
    write_record(record_path(second, "cfm", "ring", "product", 1), other)
    assert compare(first, second, 0.0) == 0
    assert capsys.readouterr().out == "2 records compared: 2 equal, 0 different\n"


def test_each_difference_is_a_line_and_fails(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, second = write_folder(tmp_path / "a", 0, 1, 2), write_folder(tmp_path / "b", 0, 1)
    other = copy.deepcopy(RECORD)
    other["metrics"]["image_auroc"] = 0.7500001
    other["history"]["loss"][1] = 1.5
    write_record(record_path(second, "cfm", "ring", "product", 1), other)
    assert compare(first, second, 0.0) == 1
    assert capsys.readouterr().out.splitlines() == [
        "cfm/ring/product-s1.json.metrics.image_auroc: 0.75 is not 0.7500001",
        "cfm/ring/product-s1.json.history.loss[1]: 1.0 is not 1.5",
        "2 records compared: 1 equal, 1 different",
        f"1 only in {first}",
    ]
    assert compare(first, second, 0.1) == 1
    assert compare(first, second, 0.6) == 0


def test_nothing_shared_fails(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert compare(write_folder(tmp_path / "a", 0), write_folder(tmp_path / "b", 1), 0.0) == 1
    assert capsys.readouterr().out.startswith("0 records compared")


def test_folder_without_records_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="empty holds no record; give a folder such as"):
        compare(write_folder(tmp_path / "a", 0), tmp_path / "empty", 0.0)
