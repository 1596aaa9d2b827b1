"""Costs of the real datasets by hand, from made-up measurements and from those that are kept."""

from __future__ import annotations

from dataclasses import replace

import pytest

from lib.datasets import DATASETS, Counts, find_dataset
from lib.real_costs import bank_hours, disk_table, hours_table, memory_table, read_bench

MEASURED = {
    "extraction": {"rgb_ms": 9.0, "xyz_ms": 91.0, "peak_gb": 1.0},
    "cfm": {"train_ms": 36.0, "peak_gb": 2.0},
    "epoch_of_64_samples": {"seconds": 64.0, "peak_gb": 3.0},
    "every_pick_244": {"seconds": 3600.0, "rows": 31360.0, "peak_gb": 4.0},
}
SMALL = replace(find_dataset("mvtec3d"), counts={"mug": Counts(10, 2, 3, 5)}, sizes_px={"mug": (400, 300)})


def test_disk_by_hand() -> None:
    table = disk_table(SMALL, feature_mb=4.0)
    assert table.loc["mug"].tolist() == pytest.approx([20, 20 * 400 * 400 * 19 / 1e9, 0.08])
    assert table.loc["all"].tolist() == table.loc["mug"].tolist()


def test_hours_by_hand() -> None:
    table = hours_table(SMALL, MEASURED).loc["mug"]
    assert table["features"] == pytest.approx(20 * 0.1 / 3600)
    assert table["CFM"] == pytest.approx(10 * 250 * 0.036 / 3600)
    assert table["PatchCore"] == pytest.approx(2.0)  # 31,360 rows each, as measured
    assert table["LSFA"] == pytest.approx(10 * 20 / 3600 + 2.0)
    assert table["BTF"] == pytest.approx(3 / 16)
    assert bank_hours(15680, MEASURED) == pytest.approx(0.25)


@pytest.mark.parametrize("name", DATASETS)
def test_the_kept_measurements_give_every_number(name: str) -> None:
    measured = read_bench("cuda")["results"]
    hours, disk = hours_table(find_dataset(name), measured), disk_table(find_dataset(name), 4.0)
    assert (hours > 0).all(axis=None) and (disk > 0).all(axis=None) and len(hours) == len(disk) == 11
    assert (memory_table(measured) > 0).all(axis=None)
