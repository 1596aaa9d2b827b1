"""Verdicts: every rule gives every status it can, on records made by hand; the claims are whole."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pandas as pd
import pytest

from lib import verdicts
from lib.ablation_tables import seed_changes
from lib.bootstrap import Interval
from lib.errors import InputError
from lib.metrics import image_auroc
from lib.profiles import load_profile
from lib.verdicts import (
    CONFIRMED,
    CONSISTENT,
    CONTRADICTED,
    NOT_RUN,
    OPEN,
    STATUSES,
    at_hand,
    interval_verdict,
    judge,
    map_gains,
    read_claims,
    speed_verdict,
    verdict_table,
)

DEMO, REAL = load_profile("demo"), load_profile("mvtec3d")
CLAIMS = {claim.id: claim for claim in read_claims()}


def records(
    lift: float, method: str = "cfm", seconds: float = 1.0, number: int = 40, shifts: tuple[float, ...] = (0.0, 0.01)
) -> list[dict[str, Any]]:
    """Records of two categories: defective images score `lift` higher than good ones, in units of their spread.

    There is one for each of `shifts`, training seeds whose image AUROC is moved by so much.
    """
    made = []
    for place, category in enumerate(("cord", "sweet")):
        generator = np.random.default_rng([place, 7])
        noise = generator.standard_normal(2 * number)
        images = [
            {"id": f"{i}", "defect": defect, "label": label, "score": float(noise[i] + lift * label)}
            for i, (defect, label) in enumerate([("good", 0), ("cut", 1)] * number)
        ]
        auroc = image_auroc([image["label"] for image in images], [image["score"] for image in images])
        for seed, shift in enumerate(shifts):
            key = {"profile": "demo", "method": method, "category": category, "variant": "product", "seed": seed}
            run = {"predict_seconds": seconds * 2 * number}
            made.append({"key": key, "metrics": flat(auroc + shift), "per_image": images, "run": run})
    return made


def flat(value: float) -> dict[str, Any]:
    """Metrics of a record that all have one value."""
    names = ("image_auroc", "image_ap", "image_f1max", "pixel_auroc", "pixel_ap", "pixel_f1max")
    limits = dict.fromkeys(("0.3", "0.1", "0.05", "0.01"), value)
    return dict.fromkeys(names, value) | {"aupro": {"exact": limits, "t99": limits}, "by_defect": {}}


@pytest.fixture
def stored(monkeypatch):
    """Put made records in the place of stored ones, by method."""
    groups: dict[str, Any] = {}

    def read(profile, method, categories):
        method = method.removesuffix("_seeds")  # the same method, trained several times
        if method not in groups:
            raise InputError(f"no records of {method}; run: make ablations")
        return dict.fromkeys(("product", "sum", "average", "triple", "both", "max"), groups[method])

    monkeypatch.setattr(verdicts, "stored_records", read)
    return groups


@pytest.mark.parametrize(
    ("ours", "other", "profile", "status"),
    [
        (3.0, 0.0, DEMO, CONSISTENT),
        (0.0, 3.0, DEMO, CONTRADICTED),
        (1.0, 1.0, DEMO, OPEN),
        (3.0, 0.0, REAL, CONFIRMED),
        (0.0, 3.0, REAL, CONTRADICTED),
    ],
)
def test_better_has_every_status(stored, ours, other, profile, status):
    stored |= {"cfm": records(ours), "m3dm": records(other, "m3dm")}
    found = judge(CLAIMS["C1"], profile)
    assert found.status == status and profile.name in found.evidence


@pytest.mark.parametrize(
    ("low", "high", "margin", "status"),
    [(0.01, 0.2, 0, CONSISTENT), (-0.01, 0.01, 0, OPEN), (-0.2, -0.1, 0, CONTRADICTED),
     (-0.01, 0.01, 0.02, CONSISTENT), (-0.03, 0.01, 0.02, OPEN), (-0.2, -0.03, 0.02, CONTRADICTED)],
)  # fmt: skip
def test_a_margin_moves_the_line(low, high, margin, status):
    middle = (low + high) / 2
    intervals = {"": Interval(middle, low, high)}
    assert interval_verdict(intervals, pd.Series([middle]), margin, "I-AUROC", DEMO).status == status


def test_seeds_that_disagree_show_no_difference():
    intervals = {"": Interval(0.1, 0.05, 0.15)}
    assert interval_verdict(intervals, pd.Series([0.2, 0.1]), 0, "I-AUROC", DEMO).status == CONSISTENT
    found = interval_verdict(intervals, pd.Series([0.3, -0.1]), 0, "I-AUROC", DEMO)
    assert found.status == OPEN and "seeds 1 of 2" in found.evidence


@pytest.mark.parametrize("metric", sorted({claim.metric for claim in CLAIMS.values() if claim.kind == "better"}))
def test_every_metric_of_a_claim_has_its_change_at_every_seed(metric):
    assert len(seed_changes(records(1.0), records(0.0), metric)) == 2


def test_one_training_confirms_nothing():
    intervals = {"": Interval(0.1, 0.05, 0.15)}
    assert interval_verdict(intervals, pd.Series([0.1]), 0, "I-AUROC", REAL).status == OPEN
    assert interval_verdict(intervals, pd.Series([0.1, 0.1]), 0, "I-AUROC", REAL).status == CONFIRMED


def test_one_training_on_real_data_contradicts_nothing_either():
    intervals = {"": Interval(-0.1, -0.15, -0.05)}
    assert interval_verdict(intervals, pd.Series([-0.1]), 0, "I-AUROC", REAL).status == OPEN
    assert interval_verdict(intervals, pd.Series([-0.1, -0.1]), 0, "I-AUROC", REAL).status == CONTRADICTED
    assert interval_verdict(intervals, pd.Series([-0.1]), 0, "I-AUROC", DEMO).status == CONTRADICTED


def test_maps_are_compared_with_and_without_swap(monkeypatch):
    """Ours finds the swapped image's defect alone; where that image is left out, both find everything."""
    masks = np.zeros((3, 8, 9), dtype=bool)
    masks[1:, 2:5, 2:6] = True
    found, missed = masks.astype(np.float32), masks.astype(np.float32)
    missed[2] = 0
    maps = {"cfm": found, "m3dm": missed}
    monkeypatch.setattr(verdicts, "test_facts", lambda profile, category: (masks, ["good", "cut", "swap"]))
    monkeypatch.setattr(verdicts, "load_maps", lambda profile, method, category, variant: maps[method])
    gains = map_gains(CLAIMS["C4"], DEMO)
    assert gains[""].estimate > 0.2 and gains["without swap"] == Interval(0.0, 0.0, 0.0)
    assert list(map_gains(CLAIMS["C4"], REAL)) == [""]


def test_a_lead_that_needs_swap_shows_no_difference(stored):
    stored |= {"cfm": records(3.0), "m3dm": records(0.0, "m3dm")}
    for record in stored["cfm"] + stored["m3dm"]:
        for place, image in enumerate(record["per_image"]):
            if image["label"] and place % 4 == 1:
                image["defect"] = "swap"
            elif image["label"]:
                image["score"] = 0.5  # the same for both methods
    found = judge(CLAIMS["C1"], DEMO)
    assert found.status == OPEN and "without swap" in found.evidence


def test_speed_is_told_and_judges_nothing():
    found = speed_verdict(records(1, seconds=1.0), records(1, seconds=3.0), DEMO)
    assert found.status == NOT_RUN and "3.0 times as fast" in found.evidence


def test_what_is_not_there_was_not_run(stored):
    assert judge(CLAIMS["C18"], DEMO).status == NOT_RUN  # real extractors, which the demo does not have
    assert "not in profile demo" in judge(CLAIMS["C18"], DEMO).evidence
    assert judge(CLAIMS["C1"], DEMO).status == NOT_RUN  # planned, without records
    assert judge(CLAIMS["C23"], REAL).status == NOT_RUN


def test_without_real_records_nothing_is_confirmed(stored):
    assert not any(judge(claim, REAL).status == CONFIRMED for claim in CLAIMS.values() if claim.kind != "ceiling")


def test_a_table_can_contradict_and_never_confirms():
    for claim in CLAIMS.values():
        if claim.kind == "table":
            assert judge(claim, DEMO).status in (CONTRADICTED, NOT_RUN)
    assert "0.026" not in judge(CLAIMS["L3"], DEMO).evidence and "0.034" in judge(CLAIMS["L3"], DEMO).evidence
    assert judge(CLAIMS["L3"], DEMO).status == judge(CLAIMS["C21"], DEMO).status == CONTRADICTED


def test_the_claims_are_many_and_name_chapters_of_the_book():
    assert len(CLAIMS) >= 20 and {claim.paper for claim in CLAIMS.values()} == {"CFM", "LSFA"}
    chapters = {claim.chapter for claim in CLAIMS.values()}
    assert chapters <= set(DEMO.chapters)
    for claim in CLAIMS.values():
        for name, variant in ((claim.method, claim.variant), (claim.reference, claim.reference_variant)):
            if claim.kind in ("better", "as good", "faster"):
                plans = [profile.methods.get(at_hand(name, profile)) for profile in (DEMO, REAL)]
                assert any(plans), claim.id
                assert all(variant in plan.variants for plan in plans if plan), claim.id


def test_networks_are_compared_after_as_many_epochs_on_real_data():
    for name in ("C12", "C13", "C14", "C15", "C16", "C17", "C18", "C19"):
        claim = CLAIMS[name]
        plans = [REAL.method(at_hand(side, REAL)) for side in (claim.method, claim.reference)]
        assert len({plan.config.num_epochs for plan in plans}) == 1, name


def test_the_table_has_a_row_a_claim_and_known_statuses(stored):
    some = [CLAIMS[name] for name in ("C1", "C18", "C21", "L12")]
    table = verdict_table(some, DEMO)
    assert list(table.index) == ["C1", "C18", "C21", "L12"]
    assert set(table["status"]) <= set(STATUSES) and table.notna().all(axis=None)
    assert table.loc["C1", "chapter"] == '<a href="10_side_by_side.html">10_side_by_side</a>'
    assert verdict_table([CLAIMS["C18"]], REAL).loc["C18", "chapter"] == "15_extractor_ablation"


@pytest.mark.parametrize("changes", [{"kind": "proved"}, {"kind": "as good"}, {"margin": "0.1"}])
def test_claims_that_make_no_sense_are_refused(changes):
    with pytest.raises(InputError):
        dataclasses.replace(CLAIMS["C1"], **changes)


def test_a_damaged_file_is_told(tmp_path):
    (tmp_path / "a.csv").write_text("id,claim\n1,x\n")
    with pytest.raises(InputError, match="columns are id, claim"):
        read_claims(tmp_path / "a.csv")
    lines = (verdicts.Path(verdicts.lib.published.__file__).parent / "claims.csv").read_text().splitlines()
    (tmp_path / "b.csv").write_text("\n".join([*lines[:2], lines[1]]))
    with pytest.raises(InputError, match="twice"):
        read_claims(tmp_path / "b.csv")
