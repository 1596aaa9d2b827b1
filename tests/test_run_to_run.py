"""Spread over seeds, by hand, and improvements held against it."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pytest

from lib.errors import InputError
from lib.run_to_run import category_spreads, improvements_in_bands, spread_table

AUROCS = {"cord": (0.80, 0.84, 0.82), "sweet": (0.90, 0.90, 0.96)}


def records(seeds: int = 3) -> list[dict[str, Any]]:
    names = ("image_auroc", "image_ap", "image_f1max", "pixel_auroc", "pixel_ap", "pixel_f1max")
    made = []
    for category, values in AUROCS.items():
        for seed, value in enumerate(values[:seeds]):
            aupro = {rule: {"0.3": value, "0.1": value, "0.05": value, "0.01": value} for rule in ("exact", "t99")}
            metrics = dict.fromkeys(names, value) | {"aupro": aupro}
            made.append({"key": {"category": category, "seed": seed, "variant": "product"}, "metrics": metrics})
    return made


def test_spread_of_each_category_by_hand():
    found = category_spreads(records(), "I-AUROC")
    assert found.to_dict() == pytest.approx({"cord": 0.02, "sweet": 0.034641}, abs=1e-5)


def test_spread_table_by_hand():
    row = spread_table({"made": records()}, "I-AUROC", out_of=5).loc["made"]
    means = [0.85, 0.87, 0.89]  # over categories, by seed
    assert row["mean"] == pytest.approx(0.87) and row["std of the mean"] == pytest.approx(0.02)
    assert row["farthest"] == pytest.approx(max(means) - min(means))
    variance = (0.02**2 + 0.034641**2) / 2
    assert row["two runs"] == pytest.approx(2.776445 * (2 * variance / 5) ** 0.5, rel=1e-4)  # t, four degrees
    assert (row["of"], row["categories"], row["seeds"]) == ("sweet", 2, 3)


def test_one_seed_has_no_spread():
    with pytest.raises(InputError, match="give two seeds"):
        spread_table({"made": records(seeds=1)}, "I-AUROC", out_of=5)


def test_improvements_are_inside_or_outside_each_band():
    differences = {"paper": ["CFM", "CFM", "LSFA"], "difference": [0.005, -0.02, 0.03]}
    improvements = pd.DataFrame(differences, index=list("abc"))
    found = improvements_in_bands(improvements, 0.005, {"CFM": 0.02}, "demo")
    assert found["within prints"].tolist() == [True, False, False]
    assert found["within demo"].tolist() == [True, True, None]
