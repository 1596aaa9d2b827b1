"""Few-shot tables and figure from hand-made records."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from lib import few_shot
from lib.config import project_root
from lib.errors import InputError
from tests.test_ablation_tables import made_record

GROUPS = {
    "5": [made_record(c, seed, 0.5 + 0.1 * seed + 0.2 * (c == "b"), 0.3) for c in "ab" for seed in (0, 1)],
    "all": [made_record(c, 0, 0.9, 0.8) for c in "ab"],
}


def study(*names: str) -> Any:
    methods = {n: SimpleNamespace(name=n, shots=int(n.split("_")[2]) if n.count("_") > 1 else None) for n in names}
    return SimpleNamespace(name="p", methods=methods)


def test_numbers_of_shots_are_those_planned_for_cfm() -> None:
    planned = study("cfm", "shots_cfm_50_first", "shots_cfm_5_first", "shots_cfm_5_random", "shots_btf_7_first")
    assert few_shot.shot_numbers(planned) == [5, 50]
    with pytest.raises(InputError, match="profile p plans no experiment shots_cfm_"):
        few_shot.shot_numbers(study("cfm"))


def test_records_are_those_of_the_draw_and_of_every_sample_last(monkeypatch: pytest.MonkeyPatch) -> None:
    def stored(profile: Any, name: str, categories: Sequence[str]) -> dict[str, str]:
        return {"concat": f"{name} on {'+'.join(categories)}", "rgb": "no"}

    monkeypatch.setattr(few_shot, "stored_records", stored)
    planned = study(*(f"shots_{name}_{number}_random" for name in ("cfm", "nn") for number in (5, 10)))
    found = few_shot.few_shot_records(planned, "nn", ("a", "b"), "random")
    assert found == {
        "5": "shots_nn_5_random on a+b", "10": "shots_nn_10_random on a+b", "all": "nearest_neighbor on a+b",
    }  # fmt: skip


def test_numbers_that_are_not_planned_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(few_shot, "stored_records", lambda profile, name, categories: {"max": name})
    planned = study("cfm", "shots_cfm_5_random", "shots_cfm_10_random", "shots_cfm_10_first", "shots_ast_5_random")
    found = few_shot.few_shot_records(planned, "ast", ("a",), "random")
    assert found == {"5": "shots_ast_5_random", "all": "ast"}
    assert few_shot.compared_methods(planned, "random") == ["cfm", "ast"]
    assert few_shot.compared_methods(planned, "first") == ["cfm"]
    table = few_shot.shot_table({"CFM": {"5": GROUPS["5"], **GROUPS}, "AST": {"all": GROUPS["all"]}}, "I-AUROC")
    assert table.loc["AST"].to_dict() == {"5": "not run", "all": "0.900"}
    shown = {"AST": {"all": GROUPS["all"]}, **dict.fromkeys("vwxyz", GROUPS)}
    axis = few_shot.shot_plot(shown, "I-AUROC").axes[0]
    assert list(axis.lines[0].get_xdata()) == [1] and axis.get_xticklabels()[0].get_text() == "5"


def test_levels_are_means_over_categories_by_seed() -> None:
    assert few_shot.seed_levels(GROUPS["5"], "I-AUROC") == pytest.approx([0.6, 0.7])
    assert few_shot.seed_levels(GROUPS["all"], "AUPRO@30%") == pytest.approx([0.8])


def test_table_has_a_spread_where_there_are_seeds() -> None:
    table = few_shot.shot_table({"CFM": GROUPS}, "I-AUROC")
    assert table.loc["CFM"].to_dict() == {"5": f"0.650 ± {np.std([0.6, 0.7], ddof=1):.3f}", "all": "0.900"}


def test_published_numbers_are_those_of_the_paper() -> None:
    table = few_shot.published_shots()
    path = Path(project_root(), "lib", "published", "cfm_cvpr2024.csv")
    with open(path, encoding="utf-8") as stream:
        rows = [row for row in csv.DictReader(stream) if row["table"] == "4" and row["metric"] in few_shot.METRICS]
    assert len(rows) == table.size and list(table.index) == ["BTF", "AST", "M3DM", "CFM"]
    for row in rows:
        name = "CFM" if row["method"] == "Ours" else row["method"]
        assert table.loc[name, (row["metric"], row["setting"])] == float(row["value"])


def test_figure_has_a_line_for_each_method_and_a_dot_for_each_seed() -> None:
    axis = few_shot.shot_plot({"CFM": GROUPS, "BTF": GROUPS, **dict.fromkeys("wxyz", GROUPS)}, "I-AUROC").axes[0]
    lines = [line for line in axis.lines if line.get_linestyle() == "-"]
    dots = [line for line in axis.lines if line.get_marker() == "o"]
    assert len(lines) == 6 and lines[0].get_ydata() == pytest.approx([0.65, 0.9])
    assert sum(len(line.get_xdata()) for line in dots) == 6 * 3
    assert [text.get_text() for text in axis.get_xticklabels()] == ["5", "all"]
