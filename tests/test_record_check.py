"""Curated records against fresh computations: number by number on a like processor, by the spread elsewhere."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lib import experiment, record_check
from lib.errors import InputError
from lib.record_check import NUM_NAMED, SPREADS, TOLERANCE, RecordCheck, allowed_differences, check_experiment
from lib.records import record_path, write_record
from tests.fixture_study import CATEGORY, FixtureProfile

NAME = "cfm_ablation"
Records = dict[str, dict[str, Any]]


@pytest.fixture
def curated(study: FixtureProfile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Records:
    """Curated records of one experiment, as a later commit finds them; nothing else is stored."""
    monkeypatch.setattr(record_check, "results_root", lambda profile: tmp_path / "results" / profile.name)
    records = experiment.recompute(study, NAME, CATEGORY, 0)
    shutil.rmtree(study.work_dir / "records")
    for record in records.values():
        record["inputs"] |= {"data": "another machine's", "code": "older", "versions": {"torch": "0.0"}}
    store(study, records)
    return records


def store(study: FixtureProfile, records: Records, seed: int = 0) -> None:
    for variant, record in records.items():
        write_record(record_path(record_check.results_root(study), NAME, CATEGORY, variant, seed), record)


def test_like_processors_must_agree_in_every_number(study: FixtureProfile, curated: Records) -> None:
    checked = check_experiment(study, NAME, CATEGORY, 0)
    assert checked.same_processor and checked.found == ()
    assert checked.report() == f"{NAME}/{CATEGORY}/s0: agrees (number by number)"
    curated["product"]["metrics"]["by_defect"]["hole"]["pixel_auroc"] += 2 * TOLERANCE
    curated["product"]["metrics"]["pixel_auroc"] += TOLERANCE / 2
    store(study, curated)
    (line,) = check_experiment(study, NAME, CATEGORY, 0).found
    assert line.startswith("product.json.metrics.by_defect.hole.pixel_auroc: ")


@pytest.mark.parametrize(("fact", "value"), [("cpu", "another"), ("instructions", "another"), ("instructions", None)])
def test_other_processors_must_agree_as_closely_as_seeds(
    study: FixtureProfile, curated: Records, monkeypatch: pytest.MonkeyPatch, fact: str, value: str | None
) -> None:
    monkeypatch.setattr(record_check, "allowed_differences", lambda *given: {"I-AUROC": 0.02, "AUPRO@30%": 0.03})
    run, metrics = curated["product"]["run"], curated["product"]["metrics"]
    run[fact] = value
    if value is None:
        del run[fact]
    metrics["by_defect"]["hole"]["pixel_auroc"] += 0.5
    metrics["image_auroc"] -= 0.019
    metrics["aupro"]["exact"]["0.3"] += 0.029
    store(study, curated)
    checked = check_experiment(study, NAME, CATEGORY, 0)
    assert not checked.same_processor and checked.found == ()
    metrics["aupro"]["exact"]["0.3"] += 0.002
    curated["product"]["config"]["method"]["num_epochs"] += 1
    store(study, curated)
    settings, metric = check_experiment(study, NAME, CATEGORY, 0).found
    assert settings.startswith("product.json.config.method.num_epochs: ")
    assert metric.startswith("product.json AUPRO@30%: stored ") and metric.endswith("allowed 0.0300")


def test_metric_that_is_no_number_differs(curated: Records) -> None:
    record = curated["product"]
    broken = {**record, "metrics": {**record["metrics"], "image_auroc": float("nan")}}
    (line,) = record_check.loose_differences(record, broken, {"I-AUROC": 1.0}, "product.json")
    assert "now nan" in line


def test_allowance_is_the_spread_over_seeds_pooled_over_groups(
    study: FixtureProfile, curated: Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    groups = {"a": [0.5, 0.6, 0.9], "b": [0.7, 0.7], "c": [0.2]}
    made = []
    for values in groups.values():
        records = [dict(curated["product"], metrics=dict(curated["product"]["metrics"])) for _ in values]
        for record, value in zip(records, values, strict=True):
            record["metrics"]["image_auroc"] = value
        made.append(records)
    monkeypatch.setattr(record_check, "curated_groups", lambda *given: made)
    allowed = allowed_differences(study, study.method(NAME), "product")
    squares = sum((value - np.mean(values)) ** 2 for values in groups.values() for value in values)
    assert allowed["I-AUROC"] == pytest.approx(SPREADS * (squares / 3) ** 0.5)
    assert allowed["AUPRO@30%"] == TOLERANCE  # the same in all
    monkeypatch.setattr(record_check, "curated_groups", lambda *given: [])
    assert set(allowed_differences(study, study.method(NAME), "product").values()) == {TOLERANCE}


def test_groups_are_ablations_of_the_same_kind_with_the_variant(study: FixtureProfile, curated: Records) -> None:
    spec = study.method(NAME)
    two_seeds = dataclasses.replace(study, methods={**study.methods, NAME: dataclasses.replace(spec, seeds=(0, 5))})
    store(study, curated, seed=5)
    (group,) = record_check.curated_groups(two_seeds, type(spec.config), "product")
    assert group == [curated["product"], curated["product"]]
    assert record_check.curated_groups(two_seeds, type(spec.config), "rgb") == []
    assert record_check.curated_groups(two_seeds, type(study.method("blind").config), "product") == []


def test_missing_record_is_named(study: FixtureProfile, curated: Records) -> None:
    shutil.rmtree(record_check.results_root(study))
    with pytest.raises(InputError, match=r"product-s0\.json does not exist"):
        check_experiment(study, NAME, CATEGORY, 0)


def test_report_names_the_first_differences_and_counts_the_rest() -> None:
    lines = tuple(f"difference {number}" for number in range(NUM_NAMED + 2))
    report = RecordCheck("m/c/s0", False, lines).report().splitlines()
    assert report[0] == "m/c/s0: DIFFERS (by spread over seeds, another processor)"
    assert report[1:] == [*(f"  {line}" for line in lines[:NUM_NAMED]), "  and 2 more"]
    assert RecordCheck("m/c/s0", True, lines[:1]).report().splitlines()[1:] == ["  difference 0"]
