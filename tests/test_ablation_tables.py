"""Tables of ablations from hand-made records, compared with numbers worked out by hand or by slow loops."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from pandas.testing import assert_frame_equal

from lib import ablation_tables as ablations
from lib import experiment
from lib.errors import InputError
from lib.records import record_path, write_record
from tests.fixture_study import CATEGORY, study_in, write_data

DEFECTS = ["good"] * 7 + ["hole"] * 4 + ["swap"] * 3


def made_record(category: str, seed: int, auroc: float, aupro: float, noise: int = 0, method: str = "m") -> dict:
    """Record whose scores are drawn by `noise`; its metrics are those given and not those of its scores."""
    scores = np.random.default_rng([noise, len(category)]).random(len(DEFECTS)).tolist()
    metrics = dict.fromkeys(("image_ap", "image_f1max", "pixel_auroc", "pixel_ap", "pixel_f1max"), 0.0)
    images = [
        {"id": str(i), "defect": defect, "label": int(defect != "good"), "score": score}
        for i, (defect, score) in enumerate(zip(DEFECTS, scores, strict=True))
    ]
    return {
        "key": {"profile": "p", "method": method, "category": category, "variant": "average", "seed": seed},
        "metrics": {**metrics, "image_auroc": auroc, "aupro": {"exact": {"0.3": aupro}, "t99": {"0.3": 0.0}}},
        "per_image": images,
        "history": {
            "rank_rgb": [8.0, 5.0, 4.0 + seed],
            "rank_xyz": [6.0, 3.0 + auroc],
            "scale_rgb": [2.0, 3.0],
            "scale_xyz": [4.0, 9.0, 1.0],
        },
    }


THREE = [
    made_record(category, seed, auroc, auroc - 0.5, noise=seed)
    for category, values in (("cord", (0.8, 0.9, 0.7)), ("sweets", (0.6, 0.7, 0.7)))
    for seed, auroc in enumerate(values)
]
ONE = [made_record("cord", 0, 0.6, 0.25, noise=11), made_record("sweets", 0, 0.8, 0.15, noise=12)]


def slow_auroc(record: dict[str, Any]) -> float:
    good = [entry["score"] for entry in record["per_image"] if entry["label"] == 0]
    anomalous = [entry["score"] for entry in record["per_image"] if entry["label"] == 1]
    return sum((a > g) + 0.5 * (a == g) for a in anomalous for g in good) / (len(good) * len(anomalous))


def test_seed_means_are_over_categories() -> None:
    expected = pd.DataFrame(
        {"I-AUROC": [0.7, 0.8, 0.7], "AUPRO@30%": [0.2, 0.3, 0.2]}, index=pd.Index([0, 1, 2], name="seed")
    )
    assert_frame_equal(ablations.seed_means(THREE), expected)
    assert_frame_equal(ablations.seed_means(THREE[::-1]), expected)


@pytest.mark.parametrize("records", [[], THREE[:-1], THREE[:2] + THREE[:2]])
def test_records_that_are_no_grid_of_categories_and_seeds_are_refused(records: list[dict]) -> None:
    with pytest.raises(InputError, match="every category once at every seed"):
        ablations.seed_means(records)


def test_table_and_its_texts() -> None:
    table = ablations.ablation_table({"three": THREE, "one": ONE})
    spread = math.sqrt(2 / 3 * 0.1**2 / 2)  # of 0.7, 0.8, 0.7 around 0.7333, divided by 3 - 1
    expected = pd.DataFrame(
        {
            "I-AUROC": [2.2 / 3, 0.7],
            "AUPRO@30%": [0.7 / 3, 0.2],
            "I-AUROC spread": [spread, math.nan],
            "AUPRO@30% spread": [spread, math.nan],
            "seeds": [3, 1],
        },
        index=["three", "one"],
    )
    assert_frame_equal(table, expected)
    texts = ablations.spread_texts(table)
    assert texts.loc["three"].tolist() == ["0.733 ± 0.058", "0.233 ± 0.058", 3]
    assert texts.loc["one"].tolist() == ["0.700", "0.200", 1]


def test_paper_stands_in_columns_of_its_own() -> None:
    found = ablations.beside_paper({"none": ONE, "IFC+CLC": THREE}, "LSFA", "abl_IFC_CLC")
    assert found.columns.tolist() == [
        "I-AUROC, demo",
        "AUPRO@30%, demo",
        "I-AUROC, paper",
        "AUPRO@30%, paper",
    ]
    assert found.loc["none"].tolist() == ["0.700", "0.200", 0.929, 0.953]
    assert found.loc["IFC+CLC"].tolist() == ["0.733 ± 0.058", "0.233 ± 0.058", 0.971, 0.968]


def test_setting_that_the_paper_does_not_print_is_a_gap() -> None:
    assert ablations.beside_paper({"other": ONE}, "LSFA", "abl_LA_GA").iloc[0, 2:].isna().all()


def test_reference_is_cut_to_the_seeds_it_shares() -> None:
    first = [record for record in THREE if record["key"]["seed"] == 0]
    assert ablations.at_seeds_of(THREE, ONE) == first
    assert ablations.at_seeds_of(ONE, THREE) == ONE
    assert ablations.at_seeds_of(THREE, THREE) == THREE


def test_gain_is_the_difference_of_mean_aurocs_and_turns_its_sign() -> None:
    by_hand = np.mean([slow_auroc(record) for record in THREE]) - np.mean([slow_auroc(record) for record in ONE])
    there, back = (
        ablations.gain(THREE, ONE),
        ablations.difference_interval(ablations.auroc_by_category(ONE), ablations.auroc_by_category(THREE)),
    )
    assert there.estimate == pytest.approx(by_hand) and there.low < by_hand < there.high
    assert (back.estimate, back.low, back.high) == pytest.approx((-there.estimate, -there.high, -there.low))


def test_gain_on_one_defect_leaves_the_others_out() -> None:
    def cut(records: list[dict]) -> list[dict]:
        return [{**r, "per_image": [e for e in r["per_image"] if e["defect"] in ("good", "swap")]} for r in records]

    assert ablations.gain(THREE, ONE, "swap") == ablations.gain(cut(THREE), cut(ONE))


def test_gain_over_a_reference_with_more_seeds_takes_the_shared_ones() -> None:
    first = [record for record in THREE if record["key"]["seed"] == 0]
    assert ablations.gain(ONE, THREE) == ablations.gain(ONE, first)


def test_seed_differences_count_the_seeds_with_the_sign_of_their_mean() -> None:
    assert ablations.seed_differences(THREE, ONE, "I-AUROC") == (pytest.approx(0.1 / 3), "1 of 3")
    assert ablations.seed_differences(THREE, THREE, "I-AUROC") == (0.0, "0 of 3")
    assert ablations.seed_differences(ONE, THREE, "AUPRO@30%") == (pytest.approx(0.0, abs=1e-12), "0 of 1")
    higher = [made_record(r["key"]["category"], r["key"]["seed"], 0.9, 0.4) for r in THREE]
    assert ablations.seed_differences(higher, THREE, "AUPRO@30%") == (pytest.approx(0.5 / 3), "3 of 3")


def test_change_table_holds_interval_verdict_and_seeds() -> None:
    table = ablations.change_table({"same": (THREE, THREE), "other": (THREE, ONE)})
    assert table.loc["same"].tolist() == [0.0, 0.0, 0.0, "no difference shown", "0 of 3", 0.0, "0 of 3"]
    interval = ablations.gain(THREE, ONE)
    assert table.loc["other", ["I-AUROC", "low", "high"]].tolist() == [interval.estimate, interval.low, interval.high]
    assert table.loc["other", "AUPRO@30%"] == pytest.approx(0.1 / 3)


@dataclass(frozen=True)
class Settings:
    name: str = "a"
    rate: float = 1.0
    size: int | None = 7


def test_changed_settings_are_named_with_their_values() -> None:
    assert ablations.changed_settings(Settings("b", 0.0003, None), Settings()) == "name = b, rate = 0.0003, size = None"
    assert ablations.changed_settings(Settings(rate=1.0), Settings(rate=2.0)) == "rate = 1"
    assert ablations.changed_settings(Settings(), Settings()) == ""


def test_collapse_table_is_the_last_over_the_first_of_each_curve() -> None:
    table = ablations.collapse_table({"a": THREE, "b": ONE})
    assert table.columns.tolist() == ["rank RGB", "rank 3D", "scale RGB", "scale 3D"]
    assert table.loc["a"].tolist() == pytest.approx([5 / 8, (3 + 2.2 / 3) / 6, 1.5, 0.25])
    assert table.loc["b"].tolist() == pytest.approx([4 / 8, 3.7 / 6, 1.5, 0.25])


class TestSettingPlot:
    choices = {"first": {"a = 1": THREE, "a = 2": ONE}, "second": {"b = 1": THREE}}  # noqa: RUF012

    def draw(self, own: dict[str, list[dict]]):
        figure = ablations.setting_plot(self.choices, THREE, ONE, own)
        plt.close(figure)
        return figure.axes

    def test_rows_are_in_order_with_a_gap_between_choices(self) -> None:
        for axis in self.draw({}):
            assert axis.get_yticks().tolist() == [0.0, 1.0, 2.5]
        left, right = self.draw({})
        assert [text.get_text() for text in left.get_yticklabels()] == ["a = 1", "a = 2", "b = 1"]
        assert (left.get_xlabel(), right.get_xlabel()) == ("I-AUROC, demo", "AUPRO@30%, demo")
        assert left.get_ylim()[0] > left.get_ylim()[1]  # first row on top

    def test_dots_bars_and_hollow_dots_lie_where_the_numbers_say(self) -> None:
        left = self.draw({"b = 1": ONE})[0]
        (container,) = left.containers
        dots, _, (bars,) = container.lines
        assert dots.get_xydata() == pytest.approx(np.array([[2.2 / 3, 0], [0.7, 1], [2.2 / 3, 2.5]]))
        widths = [segment[1, 0] - segment[0, 0] for segment in bars.get_segments()]
        spread = math.sqrt(0.01 / 3)
        assert widths == pytest.approx([2 * spread, 0.0, 2 * spread])
        (hollow,) = [line for line in left.lines if line.get_fillstyle() == "none"]
        assert hollow.get_xydata() == pytest.approx(np.array([[0.7, 2.5]]))


class TestStoredRecords:
    @pytest.fixture(scope="class")
    @staticmethod
    def study(tmp_path_factory: pytest.TempPathFactory):
        folder = tmp_path_factory.mktemp("stored")
        write_data(folder)
        return study_in(folder)

    def test_ablation_without_curated_records_is_refused_and_never_computed(
        self, study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(ablations, "results_root", lambda profile: tmp_path)
        monkeypatch.setattr(experiment, "compute", lambda *arguments: pytest.fail("computed"))
        with pytest.raises(InputError, match=rf"cfm_ablation has no records of {CATEGORY} at seed 0.*NAMES=cfm_abl"):
            ablations.stored_records(study, "cfm_ablation")

    def test_curated_records_are_read(self, study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(ablations, "results_root", lambda profile: tmp_path)
        computed = experiment.recompute(study, "cfm_ablation", CATEGORY, 0)
        for variant, record in computed.items():
            write_record(record_path(tmp_path, "cfm_ablation", CATEGORY, variant, 0), record)
        found = ablations.stored_records(study, "cfm_ablation", [CATEGORY])
        assert {variant: records[0]["metrics"] for variant, records in found.items()} == {
            variant: record["metrics"] for variant, record in computed.items()
        }

    def test_basic_experiments_are_read_at_every_seed_and_variant(self, study) -> None:
        found = ablations.stored_records(study, "cfm")
        assert {v: [r["key"]["seed"] for r in group] for v, group in found.items()} == {
            "product": [0, 1],
            "product-released": [0, 1],
        }


def test_pixels_drawn_by_hand() -> None:
    records = []
    for number, seed, auroc, s in ((64, 0, 0.6, 1.0), (64, 1, 0.8, 3.0), (None, 0, 0.9, 8.0), (None, 1, 0.9, 10.0)):
        record = made_record("cord", seed, auroc, 0.5)
        record["metrics"]["by_defect"] = {}
        records.append(record | {"config": {"method": {"pixels_per_image": number}}, "run": {"fit_seconds": s}})
    table = ablations.pixels_drawn(records)
    assert list(table.index) == ["64", "all"] and table["seconds"].tolist() == [2.0, 9.0]
    assert table["I-AUROC"].tolist() == pytest.approx([0.7, 0.9])
    assert table["I-AUROC std"].tolist() == pytest.approx([0.2 / 2**0.5, 0.0])
    assert ablations.pixels_drawn([]).empty
