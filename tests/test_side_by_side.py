"""Comparisons of methods on made-up records whose answers are known."""

from __future__ import annotations

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from lib import side_by_side
from lib.bootstrap import BootstrapConfig, Interval
from lib.comparisons import auroc_by_category, difference_interval
from lib.errors import InputError
from lib.pixel_metrics import PROCurve
from lib.profiles import Profile, load_profile
from lib.published import PUBLISHED_ONLY
from lib.side_by_side import (
    MAIN_VARIANTS,
    aupro_by_limit,
    beside_published,
    category_table,
    difference_matrices,
    family_config,
    limits_table,
    pairwise_differences,
    rank_agreement,
    rank_intervals,
    rank_table,
    swapped_pairs,
    wins_table,
    with_interval,
)
from lib.side_figures import convention_dots, cost_plot, limit_curves, rank_plot, scaled_maps, verdict_matrix

CATEGORIES = ("bagel", "rope")


def record(method: str, category: str, seed: int, shift: float, image_auroc: float) -> dict[str, Any]:
    """A record of 12 good and 12 defective images; a larger shift tells them apart more clearly."""
    generator = np.random.default_rng([seed, len(category)])
    noise = generator.normal(size=24)
    images = [
        {
            "id": str(i),
            "defect": "hole" if i >= 12 else "good",
            "label": int(i >= 12),
            "score": noise[i] + shift * (i >= 12),
        }
        for i in range(24)
    ]
    aupro = {name: dict.fromkeys(("0.3", "0.1", "0.05", "0.01"), image_auroc / 2) for name in ("exact", "t99")}
    metrics = dict.fromkeys(("image_ap", "image_f1max", "pixel_auroc", "pixel_ap", "pixel_f1max"), 0.5)
    return {
        "key": {"method": method, "variant": "map", "category": category, "seed": seed},
        "metrics": {"image_auroc": image_auroc, **metrics, "aupro": aupro},
        "per_image": images,
    }


def group(method: str, shift: float, levels: tuple[float, float], seeds: tuple[int, ...] = (0,)) -> list[dict]:
    return [record(method, c, s, shift, level) for c, level in zip(CATEGORIES, levels, strict=True) for s in seeds]


GROUPS = {
    "strong": group("a", 4.0, (0.9, 0.8)),
    "weak": group("b", 0.0, (0.6, 0.5)),
    "twin": group("c", 0.0, (0.6, 0.9), seeds=(0, 0)),
}


def test_tables_are_means_over_seeds_and_categories() -> None:
    table = category_table({"two seeds": [record("a", "rope", s, 0, v) for s, v in ((0, 0.5), (1, 0.7))]}, "I-AUROC")
    assert table.loc["two seeds"].tolist() == pytest.approx([0.6, 0.6])
    assert category_table(GROUPS, "I-AUROC").loc["strong"].tolist() == pytest.approx([0.9, 0.8, 0.85])
    assert list(category_table(GROUPS, "I-AUROC")) == ["bagel", "rope", "mean"]


def test_methods_of_other_categories_are_refused() -> None:
    with pytest.raises(InputError, match="different categories"):
        category_table({"a": GROUPS["weak"], "b": GROUPS["weak"][:1]}, "I-AUROC")


def test_intervals_stand_beside_the_mean_and_hold_the_bootstraps_own_estimate() -> None:
    table = with_interval(GROUPS)
    assert list(table) == ["bagel", "rope", "mean", "low", "high"] and (table["low"] <= table["high"]).all()
    assert table.loc["strong", "low"] > table.loc["weak", "high"]


def test_limits_come_from_wide_to_narrow_each_exact_and_by_thresholds() -> None:
    table = limits_table(GROUPS)
    assert list(table)[:3] == ["AUPRO@30%", "AUPRO@30% (t99)", "AUPRO@10%"] and list(table)[-1] == "AUPRO@1% (t99)"
    assert table.loc["strong", "AUPRO@5%"] == pytest.approx(0.425)


def test_a_demo_number_never_stands_beside_a_papers() -> None:
    assert list(beside_published(GROUPS, "synth3d", "I-AUROC")) == ["ours"]
    table = beside_published({"BTF": GROUPS["strong"], "M3DM": GROUPS["weak"]}, "mvtec3d", "I-AUROC")
    assert table.loc["BTF", "ours"] == pytest.approx(0.85) and table.loc["BTF", "published"] == 0.865
    assert table.loc["BTF", "difference"] == pytest.approx(0.85 - 0.865)
    assert set(PUBLISHED_ONLY) <= set(table.index) and table.loc[list(PUBLISHED_ONLY), "ours"].isna().all()
    assert list(table.index[:2]) == ["BTF", "M3DM"]


def test_pairs_are_told_apart_only_where_they_differ() -> None:
    metrics = {name: auroc_by_category(records) for name, records in GROUPS.items()}
    differences = pairwise_differences(metrics)
    assert list(differences) == [("strong", "weak"), ("strong", "twin"), ("weak", "twin")]
    values, verdicts = difference_matrices(differences)
    assert verdicts.loc["strong", "weak"] == "better" and verdicts.loc["weak", "strong"] == "worse"
    assert verdicts.loc["weak", "twin"] == "no difference shown" and values.loc["weak", "twin"] == 0
    assert values.loc["weak", "strong"] == -values.loc["strong", "weak"]
    assert np.isnan(values.loc["weak", "weak"]) and pd.isna(verdicts.loc["weak", "weak"])
    assert wins_table(differences).loc["strong"].tolist() == [2, 0] and wins_table(differences).index[0] == "strong"


def test_a_pairs_interval_is_that_of_the_paired_bootstrap() -> None:
    metrics = {name: auroc_by_category(GROUPS[name]) for name in ("strong", "weak")}
    found = pairwise_differences(metrics)["strong", "weak"]
    expected = difference_interval(metrics["strong"], metrics["weak"])
    assert found.estimate == pytest.approx(expected.estimate)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=0.02)


def test_methods_on_other_images_are_refused() -> None:
    whole = auroc_by_category(GROUPS["weak"])
    with pytest.raises(InputError, match="different numbers of categories"):
        pairwise_differences({"a": whole, "b": whole[:1]})
    fewer = [{**r, "per_image": r["per_image"][1:]} for r in GROUPS["weak"]]
    with pytest.raises(InputError, match="different images"):
        pairwise_differences({"a": whole, "b": auroc_by_category(fewer)})


def test_more_pairs_ask_for_wider_intervals_and_more_resamples() -> None:
    assert family_config(1) == BootstrapConfig(2000, 0.95)
    wide = family_config(28)
    assert wide.confidence == pytest.approx(1 - 0.05 / 28) and wide.num_resamples == 22_400
    metrics = {name: auroc_by_category(GROUPS[name]) for name in ("strong", "weak")}
    alone = pairwise_differences(metrics)["strong", "weak"]
    among = pairwise_differences(metrics | {str(i): metrics["weak"] for i in range(4)})["strong", "weak"]
    assert alone.estimate == among.estimate and among.high - among.low > alone.high - alone.low


def test_ranks_by_hand_and_shared_by_equals() -> None:
    table = rank_table(GROUPS, "I-AUROC")
    assert table.loc["strong"].tolist() == [1, 2, 1.5] and table.loc["twin"].tolist() == [2.5, 1, 1.75]
    assert table.loc["weak"].tolist() == [2.5, 3, 2.75] and list(table.index) == ["strong", "twin", "weak"]


def test_mean_ranks_hold_their_estimate_and_equal_methods_have_equal_ones() -> None:
    found = rank_intervals(GROUPS, BootstrapConfig(300, 0.9))
    assert found["strong"].estimate == 1 and found["strong"].high == 1
    assert found["weak"] == found["twin"] and found["weak"].estimate == 2.5


def test_figures_show_every_method() -> None:
    metrics = {name: auroc_by_category(records) for name, records in GROUPS.items()}
    matrix = verdict_matrix(*difference_matrices(pairwise_differences(metrics)))
    assert len(matrix.axes[0].texts) == 6
    ranks = rank_plot(rank_table(GROUPS, "I-AUROC"), rank_intervals(GROUPS, BootstrapConfig(50)))
    assert [text.get_text() for text in ranks.axes[0].get_yticklabels()] == ["strong", "twin", "weak"]
    costs = pd.DataFrame(
        {"fit_seconds": [0.1, 90.0], "predict_seconds": [3.0, 4.0], "peak_memory_mb": [600.0, 1500.0]}, index=["a", "b"]
    )
    assert len(cost_plot(costs).axes) == 3
    plt.close("all")


def test_one_scale_for_all_maps_of_a_method() -> None:
    maps = np.zeros((3, 50, 40), dtype=np.float32)
    maps[:, 10:30, 10:30] = 4.0  # objects
    maps[0, 10:20, 10:30] = 3.9  # half of the good one
    maps[1, 12:18, 12:18], maps[2, 11, 11] = 6.0, 50.0
    good = np.array([True, False, False])
    found = scaled_maps(maps, good)
    assert found.min() == 0 and found[1, 14, 14] == found[2, 11, 11] == 1
    assert found[0].max() < 0.03 and not found[:, 0, 0].any()
    np.testing.assert_allclose(scaled_maps(maps - 7, good), found, atol=1e-5)
    assert not scaled_maps(np.zeros((2, 3, 4), dtype=np.float32), good[:2]).any()
    with pytest.raises(InputError, match="no good sample"):
        scaled_maps(maps, ~np.ones(3, dtype=bool))


def test_intervals_of_one_resample_are_points() -> None:
    assert isinstance(rank_intervals(GROUPS, BootstrapConfig(1))["weak"], Interval)


@pytest.mark.parametrize("name", ["demo", "mvtec3d", "eyecandies"])
def test_every_profile_plans_the_main_variants_and_they_are_all_its_methods(name: str) -> None:
    profile = load_profile(name)
    for method, variant in MAIN_VARIANTS.values():
        assert variant in profile.method(method).variants
    methods = [spec.name for spec in profile.methods.values() if not spec.ablation]
    assert sorted(method for method, _ in MAIN_VARIANTS.values()) == sorted(methods)


def test_methods_trained_several_times_stand_with_all_their_trainings(monkeypatch: pytest.MonkeyPatch) -> None:
    def stored(profile: Profile, method: str) -> dict[str, list[Any]]:
        return {variant: [method, variant] for variant in profile.method(method).variants}

    def computed(profile: Profile, method: str, variants: tuple[str, ...], progress: bool) -> list[Any]:
        return [method, *variants]

    monkeypatch.setattr(side_by_side, "stored_records", stored)
    monkeypatch.setattr(side_by_side, "experiment_records", computed)
    found = side_by_side.main_groups(load_profile("demo"))
    assert list(found) == list(MAIN_VARIANTS)
    assert found["LSFA"] == ["lsfa_seeds", "plain_average"] and found["AST"] == ["ast_seeds", "max"]
    assert found["BTF"] == ["btf", "both"] and found["CFM"] == ["cfm", "product"]
    assert side_by_side.main_groups(load_profile("mvtec3d"))["LSFA"] == ["lsfa", "plain_average"]


def test_agreement_of_orders_by_hand() -> None:
    wide, swapped = [0.9, 0.8, 0.7, 0.6], [0.4, 0.5, 0.3, 0.2]  # one of six pairs turned round
    table = pd.DataFrame({"wide": wide, "swapped": swapped, "reversed": wide[::-1]}, index=list("abcd"))
    taus = rank_agreement(table)
    assert taus.loc["wide"].tolist() == pytest.approx([1, (5 - 1) / 6, -1])
    assert taus.loc["swapped", "wide"] == taus.loc["wide", "swapped"]
    assert swapped_pairs(table["wide"], table["swapped"]) == [("a", "b")]
    assert swapped_pairs(table["swapped"], table["wide"]) == [("b", "a")]
    assert len(swapped_pairs(table["wide"], table["reversed"])) == 6


def test_aupro_by_limit_is_a_mean_over_categories_and_is_drawn() -> None:
    step = PROCurve(np.array([0, 0.1, 0.1, 1]), np.array([0, 0, 1.0, 1]))  # nothing up to 10 %, then everything
    slope = PROCurve(np.array([0, 1.0]), np.array([0, 1.0]))
    table = aupro_by_limit({"two": [step, slope], "slope": [slope, slope]}, (0.1, 0.2, 1.0))
    assert table["slope"].tolist() == pytest.approx([0.05, 0.1, 0.5])
    assert table["two"].tolist() == pytest.approx([(0 + 0.05) / 2, (0.5 + 0.1) / 2, (0.9 + 0.5) / 2])
    (axis,) = limit_curves(table, marks=(0.2,), baselines=("slope",)).axes
    assert [line.get_linestyle() for line in axis.lines] == ["-", "--", ":"]
    np.testing.assert_allclose(axis.lines[0].get_xydata(), np.column_stack([table.index, table["two"]]))
    assert axis.get_xscale() == "log"
    plt.close("all")
    with pytest.raises(InputError, match=r"^limit 1\.5"):
        aupro_by_limit({"slope": [slope]}, (1.5,))


def test_equal_and_missing_numbers_have_no_order() -> None:
    first = pd.Series({"a": 0.5, "b": 0.5, "c": np.nan})
    assert swapped_pairs(first, pd.Series({"a": 0.1, "b": 0.9, "c": 1.0})) == []
    with pytest.raises(InputError, match="every method needs a number"):
        rank_agreement(pd.DataFrame({"x": first, "y": first}))
    with pytest.raises(InputError, match="two methods"):
        rank_agreement(pd.DataFrame({"x": first[:1], "y": first[:1]}))


def test_conventions_stand_in_the_row_of_their_method() -> None:
    table = pd.DataFrame({"exact": [0.9, 0.8], "coarse": [0.7, np.nan]}, index=["a", "b"])
    figure = convention_dots({"AUPRO": table, "F1": table[["coarse"]]})
    first, second = figure.axes
    assert [axis.get_title() for axis in (first, second)] == ["AUPRO", "F1"]
    assert [line.get_label() for line in first.lines] == ["exact", "coarse"] and len(second.lines) == 1
    np.testing.assert_array_equal(first.lines[1].get_xydata(), [[0.7, 0], [np.nan, 1]])
    assert [text.get_text() for text in first.get_yticklabels()] == ["a", "b"] and first.yaxis_inverted()
    assert second.lines[0].get_color() == first.lines[1].get_color() != first.lines[0].get_color()
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["exact", "coarse"]
    assert [[x for x, _ in part] for part in first.collections[0].get_segments()] == [[0.7, 0.9], [0.8, 0.8]]
    plt.close("all")
