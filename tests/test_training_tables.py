"""Tables and figures of the chapter on full training, from made-up measurements."""

from __future__ import annotations

from pathlib import Path

import pytest

from lib import training_tables as tables
from lib.training import GPU_PRESETS
from tests.test_ablation_tables import made_record

RESULTS = {
    "plain": {"samples": 2, "epoch_s": 10.0, "features_s": 4.0, "dense_maps_s": 1.0, "networks_s": 5.0, "peak_gb": 8.0},
    "ours_float32": {"samples": 2, "features_once_s": 5.0, "epoch_s": 3.0, "reading_s": 0.5, "peak_gb": 1.0},
}


def test_parts_of_a_sample_by_hand() -> None:
    assert tables.sample_parts("plain", RESULTS, 10) == {"features": 2000.0, "reading": 500.0, "networks": 2500.0}
    ours = tables.sample_parts("ours_float32", RESULTS, 10)
    assert ours == pytest.approx({"features": 250.0, "reading": 250.0, "networks": 1250.0})


def test_table_says_how_many_times_faster() -> None:
    table = tables.loop_table(RESULTS, 10)
    assert table["all"].tolist() == pytest.approx([5000.0, 1750.0])
    assert table["times faster"].tolist() == pytest.approx([1.0, 5000 / 1750])
    assert table["peak, GB"].tolist() == [8.0, 1.0]


def test_bars_add_up_to_the_table() -> None:
    axis = tables.loop_bars(RESULTS, 10).axes[0]
    ends = [max(bar.get_x() + bar.get_width() for bar in axis.patches if round(bar.get_y() + 0.3) == r) for r in (0, 1)]
    assert ends == pytest.approx(tables.loop_table(RESULTS, 10)["all"].tolist())


def test_memory_grows_with_the_preset_and_fits_it() -> None:
    table = tables.full_size_memory()
    assert list(table.index) == [f"memory_gb: {gb}" for gb in GPU_PRESETS]
    assert table["CFM, GB"].is_monotonic_increasing and table["LSFA, GB"].is_monotonic_increasing
    for gb, row in zip(GPU_PRESETS, table.itertuples(), strict=True):
        assert 0.5 < row[1] < gb - 1 and 0.5 < row[2] < gb - 1


def test_precisions_stand_by_method() -> None:
    planned = (("cfm", 0.5, ("float32", "bf16", "fp16")), ("lsfa", 0.25, ("float32", "bf16")))
    found = {
        f"precision_{method}": {
            f"{metric}{worst}_{precision}": value + len(worst)
            for metric in ("image_auroc", "aupro")
            for worst in ("", "_worst")
            for precision in precisions
        }
        for method, value, precisions in planned
    }
    table = tables.precision_table(found)
    assert list(table.index) == ["CFM, float32", "CFM, bf16", "CFM, fp16, scaled", "LSFA, float32", "LSFA, bf16"]
    assert table.shape == (5, 4) and table.loc["LSFA, bf16"].tolist() == [0.25, 6.25, 0.25, 6.25]


def test_trainings_by_category() -> None:
    record = made_record("cord", 0, 0.8, 0.6) | {"run": {"fit_seconds": 12.0}, "history": {"a": [3.0, 1.0]}}
    row = tables.training_table({"cord": record}, 4).loc["cord"]
    assert row.to_dict() == {"s an epoch": 3.0, "last a": 1.0, "I-AUROC": 0.8, "AUPRO@30%": 0.6}


def test_resumed_curves_are_dots_on_lines() -> None:
    curves = {"one": [3.0, 2.0, 1.0], "other": [4.0, 3.0, 2.0]}
    axis = tables.resumed_curves(curves, curves, 1).axes[0]
    assert [line.get_ydata().tolist() for line in axis.lines[:2]] == [[3, 2, 1], [3, 2, 1]]
    assert axis.lines[1].get_marker() == "o" and axis.lines[-1].get_xdata()[0] == 1.5


def test_only_measured_devices_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "results" / "bench").mkdir(parents=True)
    (tmp_path / "results" / "bench" / "training_cpu.json").touch()
    monkeypatch.setattr(tables, "project_root", lambda: tmp_path)
    monkeypatch.setattr(tables, "read_bench", lambda name: {"read": name})
    assert tables.training_benches() == {"cpu": {"read": "training_cpu"}}
