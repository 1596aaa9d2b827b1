"""Figures of published numbers: speed against accuracy with memory as area, and improvements beside chance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox

from lib.published import NAMES, published_numbers
from lib.side_by_side import category_table
from lib.tables import Record

SPEED, MEMORY = "images per second", "memory, MB"
AREA_PER_MB = 0.55  # square points
COLORS = {"CFM": "#0072B2", "LSFA": "#009E73", "other": "#999999"}
BANDS = ("#D55E00", "#0072B2", "#009E73")
# Points from the center, the nearest first.
LABEL_PLACES = ((0, 6), (0, -13), (38, -4), (-38, -4), (0, 16), (0, -23), (30, 16), (-30, 16), (30, -23), (-30, -23))


def published_costs() -> pd.DataFrame:
    """CFM's Table 5: images per second, memory and four metrics by method, named as the study names them."""
    rows = published_numbers("CFM", "5")
    table = rows.pivot(index="method", columns="metric", values="value").loc[list(rows["method"].unique())]
    table = table.rename(columns={"FPS": SPEED, "Memory_MB": MEMORY})
    ours = {printed: name for name, printed in NAMES.items()}
    return table.rename(index=lambda name: ours.get(name, name.replace("Ours", "CFM"))).rename_axis(index=None)


def demo_costs(groups: Mapping[str, Sequence[Record]], metrics: Sequence[str]) -> pd.DataFrame:
    """The same of our records: means over their experiments.

    Images per second count from the features on, all readings of a method together; memory is the largest that the
    process had held so far, features included.

    Args:
        groups: records by the method's text.
        metrics: such as "I-AUROC"; each averaged over categories and seeds.
    """
    rows = {}
    for name, records in groups.items():
        seconds = [record["run"]["predict_seconds"] for record in records]
        images = [len(record["per_image"]) for record in records]
        memory = np.mean([record["run"]["peak_memory_mb"] for record in records])
        rows[name] = {SPEED: sum(images) / sum(seconds), MEMORY: memory}
    table = pd.DataFrame.from_dict(rows, orient="index")
    return table.assign(**{metric: category_table(groups, metric)["mean"] for metric in metrics})


def bubble_chart(table: pd.DataFrame, metrics: Sequence[str], kind: str) -> Figure:
    """Speed (log axis) against each metric, one panel a metric; the area of a bubble is the memory.

    Args:
        table: from `published_costs` or `demo_costs`.
        metrics: its columns to draw.
        kind: what the numbers are, "published" or "demo"; stands on every axis.
    """
    figure, axes = plt.subplots(1, len(metrics), figsize=(4.6 * len(metrics), 3.6), squeeze=False)
    for axis, metric in zip(axes[0], metrics, strict=True):
        draw_bubbles(axis, table, metric)
        axis.set(xscale="log", xlabel=f"{SPEED}, {kind}", ylabel=f"{metric}, {kind}")
        axis.set_xlim(table[SPEED].min() / 2.4, table[SPEED].max() * 2.4)
        span = max(table[metric].max() - table[metric].min(), 0.01)
        axis.set_ylim(table[metric].min() - 0.25 * span, table[metric].max() + 0.3 * span)
        axis.grid(linewidth=0.3)
    figure.draw_without_rendering()  # labels are placed by where things lie
    for axis, metric in zip(axes[0], metrics, strict=True):
        label_bubbles(axis, table, metric)
    return figure


def draw_bubbles(axis: Axes, table: pd.DataFrame, metric: str) -> None:
    """Bubbles of one panel, the largest first so that none hides another."""
    for name, row in table.sort_values(MEMORY, ascending=False).iterrows():
        color = COLORS["CFM" if str(name).startswith("CFM") else str(name) if name in COLORS else "other"]
        style = {"s": AREA_PER_MB * row[MEMORY], "color": color, "alpha": 0.45, "linewidth": 0}
        axis.scatter(row[SPEED], row[metric], **style)
        axis.plot(row[SPEED], row[metric], ".", color=color, markersize=3)


def label_bubbles(axis: Axes, table: pd.DataFrame, metric: str) -> None:
    """Name and memory beside each bubble, at the first of `LABEL_PLACES` where no other label is."""
    taken: list[Bbox] = []
    for name, row in table.sort_values(metric, ascending=False).iterrows():
        text = f"{name} ({row[MEMORY]:,.0f} MB)"
        style = {"textcoords": "offset points", "ha": "center", "va": "bottom", "fontsize": 7}
        label = axis.annotate(text, (row[SPEED], row[metric]), LABEL_PLACES[0], **style)
        for place in LABEL_PLACES:
            label.set_position(place)
            if not any(label.get_window_extent().overlaps(box) for box in taken):
                break
        taken.append(label.get_window_extent())


def improvements_plot(improvements: pd.DataFrame, bands: Mapping[str, float], metric: str) -> Figure:
    """Published differences as dots, one row each, with bands of what chance alone may make.

    Args:
        improvements: from `lib.published_checks.published_improvements`.
        bands: half width by text, at most three, drawn around zero; the text says whose chance it is.
        metric: text of the axis.
    """
    figure, axis = plt.subplots(figsize=(7.4, 0.24 * len(improvements) + 1.3))
    for (name, width), color in zip(bands.items(), BANDS, strict=False):
        axis.axvspan(-width, width, color=color, alpha=0.18, linewidth=0, label=f"{name} (±{width:.3f})")
        for end in (-width, width):
            axis.axvline(end, color=color, linewidth=0.8, linestyle="--")
    axis.axvline(0, color="black", linewidth=0.6)
    for paper, rows in improvements.groupby("paper", sort=False):
        places = improvements.index.get_indexer(rows.index)
        axis.plot(rows["difference"], places, "o", color=COLORS[paper], markersize=5, label=f"printed by {paper}")
    axis.set_yticks(range(len(improvements)), list(improvements.index))
    axis.set(ylim=(len(improvements) - 0.4, -0.6), xlabel=f"difference in mean {metric}, as printed")
    axis.grid(axis="y", linewidth=0.3)
    figure.legend(loc="outside upper center", ncols=2, frameon=False)
    return figure
