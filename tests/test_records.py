"""Records: what is written is read back, broken files are named, differences are found."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from lib.errors import InputError
from lib.records import KEYS, SCHEMA, comparable, differences, read_record, record_path, write_record


def made_record() -> dict[str, Any]:
    return {
        "schema": SCHEMA,
        "key": {"profile": "p", "method": "m", "category": "c", "variant": "v", "seed": 3},
        "config": {"method": {"type": "CFMConfig", "hidden_dim": None}},
        "inputs": {"dataset": "d", "threads": 1, "data": "aa", "code": "bb"},
        "metrics": {"image_auroc": 0.1 + 0.2, "aupro": {"exact": {"0.3": 1 / 3}}},
        "per_image": [{"id": "test/good/000", "defect": "good", "label": 0, "score": 1e-17}],
        "history": {"loss": [0.5, 0.25]},
        "run": {"date": "today"},
    }


def test_round_trip_keeps_every_bit_and_the_order(tmp_path: Path) -> None:
    path = record_path(tmp_path, "m", "c", "v", 3)
    assert path == tmp_path / "m" / "c" / "v-s3.json"
    write_record(path, made_record())
    assert read_record(path) == made_record() and list(read_record(path)) == list(KEYS)
    assert [entry.name for entry in path.parent.iterdir()] == ["v-s3.json"]


def test_number_that_is_none_is_not_written(tmp_path: Path) -> None:
    record = made_record()
    write_record(tmp_path / "r.json", record)
    record["metrics"]["image_auroc"] = float("nan")
    with pytest.raises(ValueError, match="JSON compliant"):
        write_record(tmp_path / "r.json", record)
    assert read_record(tmp_path / "r.json") == made_record()


@pytest.mark.parametrize("content", [b"", b"{", b'{"schema": 1, ', b"\xff\xfe\x00"])
def test_half_file_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "r.json").write_bytes(content)
    with pytest.raises(InputError, match=r"r\.json is not JSON .*; delete it and run again"):
        read_record(tmp_path / "r.json")


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"r\.json does not exist"):
        read_record(tmp_path / "r.json")


@pytest.mark.parametrize("key", KEYS)
def test_record_that_lacks_a_key_or_has_another_schema_is_refused(tmp_path: Path, key: str) -> None:
    record = made_record()
    del record[key]
    (tmp_path / "r.json").write_text(json.dumps(record))
    with pytest.raises(InputError, match=r"r\.json is not a record of schema 1; delete it"):
        read_record(tmp_path / "r.json")


@pytest.mark.parametrize("content", [[], 3, {**made_record(), "schema": 2}])
def test_other_json_is_refused(tmp_path: Path, content: Any) -> None:
    (tmp_path / "r.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match="is not a record of schema 1"):
        read_record(tmp_path / "r.json")


def test_comparable_drops_what_may_differ_between_two_runs_and_no_more() -> None:
    record = made_record()
    kept = comparable(record)
    assert kept.keys() == {"key", "config", "inputs", "metrics", "per_image", "history"}
    assert kept["inputs"] == {"dataset": "d", "threads": 1}
    assert record == made_record()


def test_equal_records_have_no_differences() -> None:
    assert differences(made_record(), made_record()) == []


DOCTORED = [
    ("metrics.aupro.exact.0.3", lambda r: r["metrics"]["aupro"]["exact"].__setitem__("0.3", 0.3334)),
    ("per_image[0].score", lambda r: r["per_image"][0].__setitem__("score", 0.5)),
    ("history.loss[1]", lambda r: r["history"]["loss"].__setitem__(1, 0.3)),
    ("history.loss", lambda r: r["history"]["loss"].append(0.1)),
    ("config.method", lambda r: r["config"]["method"].__setitem__("new", 1)),
    ("config.method.hidden_dim", lambda r: r["config"]["method"].__setitem__("hidden_dim", 0)),
    ("key.seed", lambda r: r["key"].__setitem__("seed", "3")),
]


@pytest.mark.parametrize(("where", "doctor"), DOCTORED, ids=[name for name, _ in DOCTORED])
def test_one_doctored_place_is_found_and_named(where: str, doctor: Any) -> None:
    other = copy.deepcopy(made_record())
    doctor(other)
    (line,) = differences(made_record(), other)
    assert line.startswith(f"record.{where}: ") and " is not " in line
    assert len(differences(other, made_record())) == 1


def test_tolerance_is_absolute_and_holds_for_numbers_only() -> None:
    assert differences({"a": [1000.0, 1]}, {"a": [1000.5, 1.5]}, tolerance=0.5) == []
    assert differences({"a": 1000.0}, {"a": 1000.6}, tolerance=0.5, where="x") == ["x.a: 1000.0 is not 1000.6"]
    assert differences(True, 0, tolerance=5) == ["record: True is not 0"]
    assert differences("1", 1, tolerance=5) != [] and differences(None, 0, tolerance=5) != []
