"""Tables from hand-made records, compared with frames written out in full."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd
import pytest
from pandas.testing import assert_frame_equal

from lib import tables
from lib.bootstrap import Interval
from lib.errors import InputError
from lib.instances import named_instance
from lib.methods import CFM_VARIANTS, CFMConfig
from lib.metrics import CFM_NUM_THRESHOLDS
from lib.pixel_metrics import AUPRO_LIMITS
from lib.profiles import load_profile
from lib.tables import documented_attributes, sourced_settings, worst_cases


def made_metrics(start: float) -> dict[str, Any]:
    """Metrics counting up from `start` in steps of 1."""
    names = ("image_auroc", "image_ap", "image_f1max", "pixel_auroc", "pixel_ap", "pixel_f1max")
    metrics: dict[str, Any] = {name: start + step for step, name in enumerate(names)}
    return {**metrics, "aupro": {"exact": {"0.3": start + 6, "0.05": start + 7}, "t99": {"0.3": start + 8}}}


def made_record(category: str, seed: int, start: float, method: str = "cfm", variant: str = "product") -> dict:
    return {
        "key": {"profile": "p", "method": method, "category": category, "variant": variant, "seed": seed},
        "metrics": {**made_metrics(start), "by_defect": {"hole": made_metrics(start + 100)}},
        "run": {"fit_seconds": start, "predict_seconds": 2 * start, "peak_memory_mb": 100.0, "cpu": "x"},
    }


RECORDS = [
    made_record("ring", 0, 10),
    made_record("ring", 1, 20),
    made_record("cord", 0, 30),
    made_record("cord", 1, 50),
    made_record("ring", 0, 1, "nearest_neighbor", "rgb"),
    made_record("cord", 0, 4, "nearest_neighbor", "rgb"),
]


def whole(frame: pd.DataFrame) -> pd.DataFrame:
    return frame[frame["defect"] == "all"]


def test_metrics_on_one_level() -> None:
    assert tables.flat_metrics({**made_metrics(0), "by_defect": {}}) == {
        "I-AUROC": 0, "I-AP": 1, "I-F1max": 2, "P-AUROC": 3, "P-AP": 4, "P-F1max": 5,
        "AUPRO@30%": 6, "AUPRO@5%": 7, "AUPRO@30% (t99)": 8,
    }  # fmt: skip


def test_limits_read_as_whole_percents() -> None:
    metrics = {**made_metrics(0), "aupro": {f"t{CFM_NUM_THRESHOLDS}": {f"{x:g}": 0.5 for x in AUPRO_LIMITS}}}
    found = [name for name in tables.flat_metrics(metrics) if name.startswith("AUPRO")]
    assert found == [f"AUPRO@{percent}% (t99)" for percent in (30, 10, 5, 1)]


def test_long_frame_has_a_row_for_each_record_and_defect() -> None:
    frame = tables.records_frame(RECORDS[:1] + RECORDS[-1:])
    start = pd.DataFrame({
        "method": ["CFM product", "CFM product", "NN RGB alone", "NN RGB alone"],
        "category": ["ring", "ring", "cord", "cord"],
        "seed": [0, 0, 0, 0],
        "defect": ["all", "hole", "all", "hole"],
        "I-AUROC": [10, 110, 4, 104],
        "I-AP": [11, 111, 5, 105],
    })  # fmt: skip
    assert_frame_equal(frame.iloc[:, :6], start)
    assert frame["AUPRO@30% (t99)"].tolist() == [18, 118, 12, 112]


def test_seed_mean_table() -> None:
    table = tables.seed_mean_table(
        whole(tables.records_frame(RECORDS)), "I-AUROC", "category", ["NN RGB alone", "CFM product"]
    )
    expected = pd.DataFrame(
        {"cord": [4.0, 40.0], "ring": [1.0, 15.0], "mean": [2.5, 27.5]},
        index=pd.Index(["NN RGB alone", "CFM product"], name="method"),
    )
    assert_frame_equal(table, expected)


def test_method_without_records_is_a_row_of_gaps() -> None:
    table = tables.seed_mean_table(whole(tables.records_frame(RECORDS)), "I-AP", "category", ["blind", "CFM product"])
    assert table.loc["blind"].isna().all() and table.loc["CFM product", "mean"] == 28.5


def test_seed_spread_is_over_seeds_of_the_mean_over_categories() -> None:
    spread = tables.seed_spread(whole(tables.records_frame(RECORDS)), "I-AUROC")
    expected = pd.DataFrame(
        {
            "mean": [27.5, 2.5],
            "std": [7.5 * math.sqrt(2), math.nan],
            "min": [20.0, 2.5],
            "max": [35.0, 2.5],
            "seeds": [2, 1],
        },
        index=pd.Index(["CFM product", "NN RGB alone"], name="method"),
    )
    assert_frame_equal(spread, expected)


def test_interval_tables() -> None:
    intervals = {"A": Interval(0.2, 0.1, 0.3), "B": Interval(-0.2, -0.3, -0.1), "C": Interval(0.0, -0.1, 0.1)}
    plain = pd.DataFrame(
        {"estimate": [0.2, -0.2, 0.0], "low": [0.1, -0.3, -0.1], "high": [0.3, -0.1, 0.1]}, list("ABC")
    )
    assert_frame_equal(tables.interval_table(intervals), plain)
    with_words = plain.assign(verdict=["better", "worse", "no difference shown"])
    assert_frame_equal(tables.interval_table(intervals, differences=True), with_words)


def test_settings_table_shows_every_field_as_text() -> None:
    table = tables.settings_table(CFMConfig(hidden_dim=None, num_epochs=7))
    assert table.index.name == "setting"
    assert table["value"].to_dict() == {
        "hidden_dim": "None", "learning_rate": "0.001", "num_epochs": "7", "batch_size": "4",
        "pixels_per_image": "None", "schedule": "constant", "task": "crossmodal", "network": "mlp",
        "xyz_mean_px": "None",
    }  # fmt: skip


def test_cost_table_is_by_method_in_order_of_first_sight() -> None:
    expected = pd.DataFrame(
        {
            "fit_seconds": [2.5, 27.5],
            "predict_seconds": [5.0, 55.0],
            "peak_memory_mb": [100.0, 100.0],
            "experiments": [2, 4],
        },
        index=pd.Index(["nearest_neighbor", "cfm"], name="method"),
    )
    assert_frame_equal(tables.cost_table(RECORDS[-2:] + RECORDS[:-2]), expected)


def test_calibration_table_has_a_row_for_each_naive_baseline() -> None:
    numbers = {"color": {"hole": 0.5, "stain": 0.9}, "height": {"hole": 0.8, "stain": 0.5}}
    summary = {name: {"over_categories": part} for name, part in numbers.items()}
    expected = pd.DataFrame(
        {"hole": [0.5, 0.8], "stain": [0.9, 0.5]}, index=["raw color patches", "raw height patches"]
    )
    assert_frame_equal(tables.calibration_table({"summary": summary}), expected)


@pytest.mark.parametrize(
    ("method", "variant", "text"),
    [("cfm", "psi_2d", "CFM psi_2d"), ("nearest_neighbor", "late", "NN late-fused"), ("cfm_x", "sum", "cfm_x sum")],
)
def test_labels(method: str, variant: str, text: str) -> None:
    assert tables.label(made_record("ring", 0, 0, method, variant)) == text


def test_every_method_of_the_demo_has_a_label_of_its_own() -> None:
    basic = [spec for spec in load_profile("demo").methods.values() if not spec.ablation]
    pairs = [(spec.name, variant) for spec in basic for variant in spec.variants]
    assert set(pairs) <= tables.LABELS.keys() and {("cfm", name) for name in CFM_VARIANTS} <= tables.LABELS.keys()
    assert len(set(tables.LABELS.values())) == len(tables.LABELS)


def test_variants_of_one_experiment_share_its_cost_and_records_name_their_source() -> None:
    versions = {"torch": "2", "numpy": "2", "scipy": "1"}
    made = [
        {
            "key": {"method": "cfm", "category": category, "variant": variant, "seed": 0},
            "run": {
                "fit_seconds": seconds, "predict_seconds": 1.0, "peak_memory_mb": 100.0,
                "commit": commit, "cpu": "c", "versions": versions,
            },
        }
        for category, seconds, commit in (("a", 2.0, "x"), ("b", 4.0, "y"))
        for variant in ("product", "sum")
    ]  # fmt: skip
    costs = tables.cost_table(made)
    assert costs.loc["cfm"].to_dict() == {
        "fit_seconds": 3.0, "predict_seconds": 1.0, "peak_memory_mb": 100.0, "experiments": 2,
    }  # fmt: skip
    sources = tables.record_sources(made)
    assert sources.index.tolist() == ["x", "y"] and sources["records"].tolist() == [2, 2]


def test_every_setting_of_every_method_says_where_it_comes_from() -> None:
    for name in ("CFM_PAPER", "LSFA_PAPER", "btf.BTF_PAPER", "m3dm.M3DM_PAPER", "ast.AST_PAPER"):
        table = sourced_settings(named_instance(name))
        assert (table["meaning"].str.len() > 10).all(), name
    table = sourced_settings(named_instance("CFM_PAPER"))
    meaning = 'of Adam, 1e-3 [paper sec. 4]; the peak of a "one_cycle" schedule.'
    assert table.loc["learning_rate"].tolist() == ["0.001", meaning]


def test_attributes_are_read_over_line_ends_and_for_two_names() -> None:
    text = """Settings.

    Attributes:
        first, second: two
            lines.
        third: one.

    Raises:
        InputError: never.
    """
    assert documented_attributes(text) == {"first": "two lines.", "second": "two lines.", "third": "one."}
    assert documented_attributes("Nothing.") == {}


def test_worst_cases_by_hand():
    images = [(0, 0.1), (1, 0.3), (0, 0.5), (1, 0.2), (0, 0.2), (1, 0.9)]
    record = {"per_image": [{"label": label, "score": score} for label, score in images]}
    assert worst_cases(record) == (3, 2, 2)
    with pytest.raises(InputError, match="good and defective"):
        worst_cases({"per_image": record["per_image"][:1]})
