"""Figures of published numbers: what they draw is what the tables hold."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
import pytest

from lib.published import published_numbers
from lib.published_checks import published_improvements
from lib.published_figures import (
    AREA_PER_MB,
    MEMORY,
    SPEED,
    bubble_chart,
    demo_costs,
    improvements_plot,
    published_costs,
)


@pytest.fixture(autouse=True)
def clean_canvas():
    plt.switch_backend("agg")
    yield
    plt.close("all")


def test_published_costs_are_the_cells_of_table_5():
    table, rows = published_costs(), published_numbers("CFM", "5")
    fps = rows[rows["metric"] == "FPS"].set_index("method")["value"]
    assert table.loc["CFM", SPEED] == fps["Ours"] and table.loc["CFM-T", SPEED] == fps["Ours-T"]
    assert table.loc["M3DM", SPEED] == fps["M3DM"] and len(table) == len(fps)


def record(category: str, seconds: float, memory: float, auroc: float) -> dict[str, Any]:
    names = ("image_auroc", "image_ap", "image_f1max", "pixel_auroc", "pixel_ap", "pixel_f1max")
    aupro = {rule: {"0.3": auroc, "0.1": auroc, "0.05": auroc, "0.01": auroc} for rule in ("exact", "t99")}
    return {
        "key": {"category": category, "seed": 0, "variant": "product"},
        "metrics": dict.fromkeys(names, auroc) | {"aupro": aupro},
        "per_image": [{}] * 20,
        "run": {"predict_seconds": seconds, "peak_memory_mb": memory},
    }


def test_demo_costs_by_hand():
    table = demo_costs({"CFM": [record("a", 4.0, 100, 0.8), record("b", 1.0, 300, 0.9)]}, ("I-AUROC",))
    assert table.loc["CFM"].to_dict() == pytest.approx({SPEED: 8.0, MEMORY: 200.0, "I-AUROC": 0.85})


def test_labels_of_bubbles_do_not_overlap():
    figure = bubble_chart(published_costs(), ("I-AUROC", "AUPRO@30%"), "published")
    for axis in figure.axes:
        boxes = [label.get_window_extent() for label in axis.texts]
        assert len(boxes) == len(published_costs())
        assert not any(first.overlaps(second) for first, second in combinations(boxes, 2))


def test_a_bubble_lies_where_its_numbers_say():
    table = pd.DataFrame({SPEED: [1.0, 10.0], MEMORY: [100.0, 900.0], "I-AUROC": [0.9, 0.8]}, index=["CFM", "BTF"])
    axis = bubble_chart(table, ("I-AUROC",), "made up").axes[0]
    drawn = {tuple(found.get_offsets()[0]): found.get_sizes()[0] for found in axis.collections}
    assert drawn == {(1.0, 0.9): AREA_PER_MB * 100, (10.0, 0.8): AREA_PER_MB * 900}
    assert "made up" in axis.get_xlabel() and "made up" in axis.get_ylabel() and axis.get_xscale() == "log"
    assert {text.get_text() for text in axis.texts} == {"CFM (100 MB)", "BTF (900 MB)"}


def test_improvements_are_dots_in_rows():
    improvements = published_improvements("I-AUROC")
    axis = improvements_plot(improvements, {"chance": 0.01}, "image AUROC").axes[0]
    assert [label.get_text() for label in axis.get_yticklabels()] == list(improvements.index)
    dots = sorted(x for line in axis.lines if line.get_marker() == "o" for x in line.get_xdata())
    assert dots == pytest.approx(sorted(improvements["difference"]))
