"""Tables of a speed record from a small made-up one, and the bars that `make bench` draws from measurements."""

from __future__ import annotations

import sys
from typing import Any

import matplotlib.pyplot as plt
import pytest
import torch

from benchmarks import growth, run
from benchmarks.references import plain_map
from lib import speed_tables
from lib.errors import InputError
from lib.heads.cfm import CFM
from lib.methods import CFMConfig
from tests.factories import make_features


def timed(seconds: float, operations: float = 0.0, **further: Any) -> dict[str, Any]:
    return {"median": seconds, "q1": 0.9 * seconds, "q3": 1.2 * seconds, "operations": operations, **further}


PARTS = {
    **{name: timed(0.1 * (i + 1), operations=1e9 * i) for i, name in enumerate(speed_tables.STAGES)},
    "heads_plain": timed(3.0, difference=2e-7),
    "matrix_product[float32-2x2x2]": timed(0.5, operations=2e9),
    "matrix_product[float32-2x3x4]": timed(1.0, operations=3e9),
    "attention[float32]": timed(0.2),
    "whole_sample": timed(6.0, operations=20e9),
    "read": timed(0.01),
    "prepare": timed(0.02),
    "from_files": timed(0.5),
    "coreset": timed(1.1),
    "coreset_cached_norms": timed(1.0),
    "aupro": timed(0.5),
    "aupro_sort_and_label": timed(0.1),
    "bank": timed(0.1),
}
SAMPLES = {
    "full": {"seconds": [2.0, 4.0, 3.0], "matrix_rate": [4e9, 8e9, 8e9], "peak_mb": 900.0},
    "M": {"seconds": [1.5, 3.5, 2.5], "peak_mb": 800.0},
    "S": {"seconds": [1.0, 2.0, 2.0], "peak_mb": 700.0},
    "T": {"seconds": [1.5, 1.0, 3.0], "peak_mb": 600.0},
    "anomalib": {"seconds": [6.0, 16.0, 9.0], "peak_mb": 1000.0, "anomalib": "2.7.0"},
}
GROWTH = {
    "rows": {"values": [10, 20, 40], "seconds": [1.0, 2.0, 8.0], "power": 2.0},
    "pixels": {"values": [5, 10], "seconds": [2.0, 2.0], "power": 0.0},
}
RECORD = {"parts": PARTS, "samples": SAMPLES, "growth": GROWTH}


def test_bars_are_the_ratios_of_what_was_measured() -> None:
    found = {bar.name: bar for bar in run.bars(PARTS, SAMPLES)}
    floor = found["whole sample, seconds over the arithmetic floor"]
    assert floor.ratio == pytest.approx(24 / 20) and floor.is_met
    gain = found["whole sample, anomalib's seconds over ours"]
    assert gain.ratio == 3.0 and gain.at_least and gain.is_met  # of 3, 4 and 3: turn by turn
    assert not found["whole sample, our peak memory over anomalib's"].is_met
    assert found["CFM T over S, seconds"].ratio == 1.5 and not found["CFM T over S, seconds"].is_met
    assert found["CFM M over full, seconds"].ratio == 2.5 / 3
    assert found["greedy coreset, exact picks, over the loop with cached norms"].is_met
    assert not found["exact AUPRO at four limits over sorting and labelling"].is_met
    assert "nearest bank rows over faiss's flat index" not in found  # faiss was not there
    assert len(found) == 8


def test_bars_without_the_other_program_are_fewer() -> None:
    ours = {name: entry for name, entry in SAMPLES.items() if name != "anomalib"}
    assert not any("anomalib" in bar.name for bar in run.bars(PARTS, ours))


def test_bar_in_bf16_where_it_was_measured() -> None:
    names = [bar.name for bar in run.bars(PARTS, {**SAMPLES, "bf16": {"seconds": [1, 1, 1], "peak_mb": 1.0}})]
    assert "whole sample, anomalib's seconds over ours in bf16" in names


@pytest.mark.parametrize(("at_least", "met"), [(True, "met"), (False, "MISSED")])
def test_line_says_which_side_counts(at_least: bool, met: str) -> None:
    bar = run.Bar("a", 2.5, 2.0, at_least)
    assert bar.line.endswith(met) and ("at least" in bar.line) == at_least


def test_merged_turns_keep_each_median_and_the_largest_peak() -> None:
    turns = [{"seconds": [1.0, 9.0, 2.0], "peak_mb": 5.0, "torch": "x"}, {"seconds": [4.0], "peak_mb": 7.0}]
    assert run.merged(turns) == {"seconds": [2.0, 4.0], "matrix_rate": [], "peak_mb": 7.0, "torch": "x"}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--threads", "0"], "--threads is 0; give at least 1"),
        (["--anomalib", "nowhere/python"], "nowhere/python is not there; `make anomalib` installs"),
    ],
)
def test_wrong_arguments_are_told(given: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        run.parse_arguments(given)


def test_failed_program_shows_the_end_of_its_report() -> None:
    with pytest.raises(InputError, match=r"failed; the end of its report:\n(?s:.*)ZeroDivisionError"):
        run.run_program([sys.executable, "-c", "print('x' * 5000); 1 / 0"], threads=1)


def test_program_runs_with_the_threads_asked_for() -> None:
    code = "import json, os; print('bar'); print(json.dumps(os.environ['OMP_NUM_THREADS']))"
    assert run.run_json([sys.executable, "-c", code], threads=3) == "3"


def test_power_of_growth_fits_all_values() -> None:
    assert growth.growth((1, 10, 20), [2.0, 2e3, 1.6e4]) == pytest.approx(3.0)
    assert growth.growth((1, 2, 4), [1.0, 8.0, 4.0]) == pytest.approx(1.0)


def test_stage_table_sums_and_shares() -> None:
    table = speed_tables.stage_table(RECORD)
    assert speed_tables.matrix_rate(PARTS) == 4e9
    heads = table.loc["both heads, distances"]
    assert heads["ms"] == pytest.approx(600) and heads["plain, ms"] == 3000 and heads["difference"] == "2.0e-07"
    assert heads["share of rate"] == pytest.approx(5e9 / 0.6 / 4e9)
    assert heads["quartiles, ms"] == "540 to 720"
    total = table.loc["sum of stages"]
    assert total["ms"] == pytest.approx(2800) and total["operations, 10^9"] == pytest.approx(21)
    assert total["share of rate"] == pytest.approx(21e9 / 2.8 / 4e9)


def test_sample_table_names_those_measured_in_order() -> None:
    table = speed_tables.sample_table(RECORD)
    assert list(table.index) == [speed_tables.PROGRAMS[name] for name in ("full", "anomalib", "M", "S", "T")]
    assert table.loc["ours", "seconds"] == 3.0 and table.loc["ours", "turns"] == "2.0 to 4.0"
    assert table.loc["anomalib's CFM", "images per second"] == 1 / 9


def test_precision_table_has_bf16_only_where_it_was_measured() -> None:
    row = speed_tables.precision_table(RECORD).loc["float32"].tolist()
    assert row[:-1] == pytest.approx([8.0, 3.0, 1.2, 200.0]) and row[-1] == ""
    parts = PARTS | {"attention[bf16]": timed(0.1), "map_in_bf16": timed(0.3, difference=0.02)}
    samples = SAMPLES | {"bf16": {"seconds": [5.0], "matrix_rate": [8e9], "peak_mb": 1.0}}
    row = speed_tables.precision_table({"parts": parts, "samples": samples}).loc["bf16"].tolist()
    assert row[:-1] == pytest.approx([8.0, 5.0, 2.0, 100.0]) and row[-1] == "2.0e-02"


def test_bars_table_says_yes_or_no() -> None:
    bars = [{"name": "a", "ratio": 1.0, "limit": 1.4, "at_least": False, "is_met": True}]
    bars.append({"name": "b", "ratio": 1.0, "limit": 8.0, "at_least": True, "is_met": False})
    table = speed_tables.bars_table({"bars": bars})
    assert table["bar"].tolist() == ["at most 1.4", "at least 8"] and table["met"].tolist() == ["yes", "no"]


def test_file_and_growth_tables() -> None:
    assert speed_tables.file_table(RECORD)["ms"].tolist() == pytest.approx([10, 20, 500])
    row = speed_tables.growth_table(RECORD).loc["rows"]
    assert row.tolist() == ["10, 20, 40", 1.0, 8.0, 2.0]


def test_figures_show_every_stage_and_study() -> None:
    axis = speed_tables.stage_bars(RECORD).axes[0]
    assert [text.get_text() for text in axis.get_yticklabels()] == list(speed_tables.STAGES.values())
    lines = speed_tables.growth_plot(RECORD).axes[0].get_lines()
    assert list(lines[0].get_ydata()) == [1, 2, 8] and list(lines[0].get_xdata()) == [1, 2, 4]
    plt.close("all")


@pytest.mark.parametrize("window_px", [None, 3])
def test_the_plain_form_of_cfm_is_what_its_fast_form_gives(window_px: int | None) -> None:
    """On small features; `make bench` asks the same at the papers' size, and takes too long to be asked often."""
    torch.manual_seed(0)
    features, head = make_features(5, height=29, width=31), CFM(CFMConfig(16, xyz_mean_px=window_px), 3, 5)
    fast = head.predict(features)["product"].anomaly_map
    torch.testing.assert_close(plain_map(head, features), fast, rtol=1e-4, atol=1e-5)
    if window_px is not None:
        plain = CFM(CFMConfig(16), 3, 5)
        plain.load_state(head.state())
        assert not torch.allclose(plain.predict(features)["product"].anomaly_map, fast, rtol=1e-3)
