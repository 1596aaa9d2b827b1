"""Figures that compare methods: who beats whom, ranks, and what each costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure

from lib.bootstrap import Interval
from lib.errors import InputError
from lib.figures import BASELINE_STYLE

VERDICT_COLORS = ("#D55E00", "#EEEEEE", "#0072B2")  # worse, no difference shown, better
VERDICT_CODES = {"worse": 0, "no difference shown": 1, "better": 2}
BRIGHTEST_QUANTILE = 0.999  # of a method's own test maps: brighter pixels are drawn alike
MARKERS = "osD^v"
COSTS = {
    "fit_seconds": "training, s",
    "predict_seconds": "scoring the test set, s",
    "peak_memory_mb": "peak memory, MB",
}


def verdict_matrix(values: pd.DataFrame, verdicts: pd.DataFrame) -> Figure:
    """Row minus column for every pair of methods: number and color, gray where no difference is shown.

    Args:
        values, verdicts: from `lib.side_by_side.difference_matrices`.
    """
    codes = verdicts.replace(VERDICT_CODES).to_numpy(dtype=float)
    side = 0.62 * len(values) + 1.6
    figure, axis = plt.subplots(figsize=(side + 0.6, side * 0.72))
    axis.imshow(codes, cmap=ListedColormap(VERDICT_COLORS), vmin=-0.5, vmax=2.5, aspect="auto")
    for row, column in np.argwhere(~np.isnan(codes)):
        color = "black" if codes[row, column] == 1 else "white"
        axis.text(column, row, f"{values.iat[row, column]:+.2f}", ha="center", va="center", color=color, fontsize=8)
    axis.set_xticks(range(len(values)), list(values), rotation=35, ha="left", rotation_mode="anchor")
    axis.set_yticks(range(len(values)), list(values))
    axis.xaxis.tick_top()
    axis.tick_params(length=0)
    axis.spines[:].set_visible(False)
    return figure


def rank_plot(ranks: pd.DataFrame, intervals: Mapping[str, Interval]) -> Figure:
    """Rank of each method in each category as small dots, its mean rank as a large one with its interval.

    Args:
        ranks: from `lib.side_by_side.rank_table`, best first.
        intervals: of the mean ranks, from `lib.side_by_side.rank_intervals`.
    """
    figure, axis = plt.subplots(figsize=(6.2, 0.34 * len(ranks) + 0.9))
    for row, name in enumerate(ranks.index):
        interval = intervals[name]
        axis.plot([interval.low, interval.high], [row, row], color="#0072B2", linewidth=2.2)
        axis.plot(ranks.loc[name].drop("mean"), np.full(ranks.shape[1] - 1, row), "o", color="#999999", markersize=3.5)
        axis.plot(interval.estimate, row, "o", color="#0072B2", markersize=6.5)
    axis.set_yticks(range(len(ranks)), list(ranks.index))
    axis.set(ylim=(len(ranks) - 0.4, -0.6), xlim=(0.7, len(ranks) + 0.3), xlabel="rank in image AUROC, 1 = best")
    axis.xaxis.get_major_locator().set_params(integer=True)
    return figure


def cost_plot(costs: pd.DataFrame) -> Figure:
    """Training time and time of the test samples of each method on log axes, and peak memory on a plain one.

    Args:
        costs: from `lib.tables.cost_table`, by the method's text.
    """
    figure, axes = plt.subplots(1, len(COSTS), sharey=True, figsize=(8.4, 0.3 * len(costs) + 1.0))
    rows = np.arange(len(costs))
    for axis, (column, label) in zip(axes, COSTS.items(), strict=True):
        values = costs[column].to_numpy(dtype=float)
        is_memory = column == "peak_memory_mb"  # within a factor of two: no log axis
        start = 0 if is_memory else values.min() / 2
        axis.hlines(rows, start, values, color="#0072B2", linewidth=1.5)
        axis.plot(values, rows, "o", color="#0072B2", markersize=5)
        for row, value in zip(rows, values, strict=True):
            text = f"{value:,.{0 if value >= 10 else 1 if value >= 1 else 2}f}"
            axis.annotate(text, (value, row), (5, 0), textcoords="offset points", va="center", fontsize=8)
        axis.set(xlabel=label, xlim=(start, values.max() * (1.35 if is_memory else 5)))
        axis.set_xscale("linear" if is_memory else "log")
        axis.grid(axis="x", linewidth=0.3)
    axes[0].set_yticks(rows, list(costs.index))
    axes[0].set_ylim(len(costs) - 0.4, -0.6)
    return figure


def limit_curves(table: pd.DataFrame, marks: Sequence[float] = (), baselines: Sequence[str] = ()) -> Figure:
    """AUPRO of each method against the limit on the false-positive rate, on a log axis.

    Args:
        table: from `lib.side_by_side.aupro_by_limit`.
        marks: limits that papers report, as dotted lines.
        baselines: methods that are levels to beat, drawn gray and dashed.
    """
    figure, axis = plt.subplots(figsize=(6.4, 3.2))
    for name in table:
        style = BASELINE_STYLE if name in baselines else {}
        axis.plot(table.index, table[name], **{"label": name, "linewidth": 1.4, **style})
    for mark in marks:
        axis.axvline(mark, color="black", linewidth=0.7, linestyle=":")
    axis.set_xscale("log")
    axis.xaxis.set_major_formatter(lambda limit, _: f"{100 * limit:g} %")
    axis.set(xlim=(table.index.min(), table.index.max()), ylim=(0, 1), ylabel="AUPRO up to the limit")
    axis.set_xlabel("limit on the false-positive rate")
    axis.legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def convention_dots(panels: Mapping[str, pd.DataFrame]) -> Figure:
    """One metric by several conventions on the same maps: a row a method, a dot a convention, joined by a line.

    A convention looks the same in all panels.

    Args:
        panels: by the panel's title, a table with methods as rows, the same in all, and conventions as columns, five
            different ones at most.
    """
    names = list(dict.fromkeys(name for table in panels.values() for name in table))
    looks = {
        name: {"marker": marker, "color": f"C{i}"} for i, (name, marker) in enumerate(zip(names, MARKERS, strict=False))
    }
    height = 0.32 * len(next(iter(panels.values()))) + 0.9
    figure, axes = plt.subplots(1, len(panels), sharey=True, squeeze=False, figsize=(4.2 * len(panels), height))
    for axis, (title, table) in zip(axes[0], panels.items(), strict=True):
        rows = np.arange(len(table))
        axis.hlines(rows, table.min(axis=1), table.max(axis=1), color="#BBBBBB", linewidth=1.5)
        for name in table:
            axis.plot(table[name], rows, linestyle="", label=name, markersize=6, alpha=0.9, **looks[name])
        axis.set(title=title)
        axis.grid(axis="x", linewidth=0.3)
        axis.set_yticks(rows, list(table.index))
        axis.set_ylim(len(table) - 0.4, -0.6)
    handles = {line.get_label(): line for axis in axes[0] for line in axis.lines}
    figure.legend([handles[name] for name in names], names, loc="outside lower center", ncols=len(names), frameon=False)
    return figure


def scaled_maps(maps: np.ndarray, good: np.ndarray) -> np.ndarray:
    """The maps of one method in [0, 1]: from what it gives a good object to nearly the most it gives at all.

    0 is the median over the objects of good samples, below which half of their pixels lie, and 1 what all but a
    thousandth of all pixels stay under. One scale for all samples of a method, so that a good sample stays dark;
    methods cannot be compared by brightness, since each has its own.

    Args:
        maps: (B, H, W) float32, of one category.
        good: (B,) bool, which samples are good.

    Raises:
        InputError: none is.
    """
    if not good.any():
        raise InputError("scaled_maps: no good sample is marked; one is needed to say what dark means")
    objects = [sample[sample > sample.mean()] for sample in maps[good]]  # the background is low and large
    low = float(np.median(np.concatenate(objects))) if any(map(len, objects)) else float(maps.min())
    high = float(np.quantile(maps, BRIGHTEST_QUANTILE))
    return np.clip((maps - low) / max(high - low, 1e-12), 0, 1)
