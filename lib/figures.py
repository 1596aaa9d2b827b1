"""Figures of the book: arrays and records in, matplotlib or Plotly figures out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import plotly.graph_objects as go
from matplotlib.axes import Axes
from matplotlib.colors import LightSource, to_rgb
from matplotlib.figure import Figure
from scipy.ndimage import binary_dilation
from torch import Tensor

from lib.bootstrap import Interval
from lib.data import denormalize_rgb
from lib.metrics import PROCurve

ANOMALY_COLORS = "inferno"
HEIGHT_COLORS = "viridis"
MASK_COLOR = "#00E5FF"
RING_PX = 3  # width of the ring around a defect; its gap to the defect is twice that
CAMERA = {"eye": {"x": 0.0, "y": -1.15, "z": 1.35}, "projection": {"type": "orthographic"}}
BASELINE_STYLE = {"color": "#777777", "linestyle": "--"}
CLOUD_POINTS = 9000  # a page stays under a megabyte and a phone can turn it


def image_grid(
    rows: Sequence[Sequence[np.ndarray]],
    column_titles: Sequence[str],
    row_titles: Sequence[str],
    limits: Mapping[int, tuple[float, float]] | None = None,
    masks: Sequence[np.ndarray] | None = None,
    cell_inches: float = 1.25,
) -> Figure:
    """Grid of pictures: one row a sample, one column a kind of picture.

    Args:
        rows: each row's pictures, (H, W, 3) in [0, 1] or (H, W) scalar maps; NaN is drawn white.
        column_titles, row_titles: texts above and beside the grid.
        limits: color range of scalar columns, by column number; such a column gets a color bar. A column without one
            scales each picture by itself.
        masks: (H, W) bool ground truth of each row, outlined on scalar maps.
        cell_inches: side of one picture.
    """
    shape = (len(rows), len(rows[0]))
    limits = limits or {}
    size = (cell_inches * shape[1] + 0.6, cell_inches * shape[0] + (0.75 if limits else 0.3))
    figure, axes = plt.subplots(*shape, figsize=size, squeeze=False)
    for i, row in enumerate(rows):
        for j, picture in enumerate(row):
            low, high = limits.get(j, (None, None))
            axes[i, j].imshow(picture, cmap=ANOMALY_COLORS, vmin=low, vmax=high)
            if masks is not None and picture.ndim == 2 and masks[i].any():
                axes[i, j].contour(masks[i], levels=[0.5], colors=MASK_COLOR, linewidths=0.8)
            axes[i, j].set(xticks=[], yticks=[])
            axes[i, j].spines[:].set_visible(False)
        axes[i, 0].set_ylabel(row_titles[i])
    for axis, title in zip(axes[0], column_titles, strict=True):
        axis.set_title(title)
    for j in limits:
        place = axes[-1, j].inset_axes((0.06, -0.1, 0.88, 0.045))
        bar = figure.colorbar(axes[0, j].images[0], cax=place, orientation="horizontal")
        ends = axes[0, j].images[0].get_clim()
        bar.set_ticks(ends, labels=[f"{end:.3g}" for end in ends])  # more labels would touch
        for label, side in zip(bar.ax.get_xticklabels(), ("left", "right"), strict=True):
            label.set_horizontalalignment(side)
        bar.ax.tick_params(labelsize=7)
        bar.outline.set_visible(False)
    return figure


def ringed(picture: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Copy of a picture with a ring drawn around a mask, clear of the mask itself.

    Args:
        picture: (H, W, 3) float in [0, 1].
        mask: (H, W) bool.
    """
    inner, outer = (binary_dilation(mask, iterations=RING_PX * step) for step in (2, 3))
    ring = outer & ~inner if mask.any() else np.zeros_like(mask)
    return np.where(ring[..., None], to_rgb(MASK_COLOR), picture)


def first_of_each(names: Sequence[str], position: int = 0) -> dict[str, int]:
    """Index of one entry of each name, "good" first: the entry at `position` among those of its name.

    Args:
        names: for instance the defect type of every test sample.
        position: which entry of each name, counted from 0.
    """
    ordered = sorted(set(names), key=lambda name: (name != "good", name))
    return {name: [i for i, other in enumerate(names) if other == name][position] for name in ordered}


def rgb_picture(rgb: Tensor) -> np.ndarray:
    """(H, W, 3) float picture in [0, 1] of an ImageNet-normalized image (3, H, W) float32."""
    return denormalize_rgb(rgb).permute(1, 2, 0).numpy()


def relief_picture(cloud: Tensor | np.ndarray, foreground: Tensor | np.ndarray) -> np.ndarray:
    """Picture of a cloud's relief: height as color, slope as shade, white off the object.

    Args:
        cloud: (3, H, W) float32 metres, z away from the camera.
        foreground: (H, W) bool.

    Returns:
        (H, W, 3) float in [0, 1].
    """
    cloud, foreground = np.asarray(cloud), np.asarray(foreground)
    picture = np.ones((*foreground.shape, 3))
    if not foreground.any():
        return picture
    height = np.where(foreground, -cloud[2], np.nan)
    low, high = np.nanpercentile(height, [1, 99])
    filled = np.where(foreground, np.clip(height, low, high), low)
    light = LightSource(azdeg=315, altdeg=50)
    pitch = np.ptp(cloud[0][foreground]) / max(np.ptp(np.flatnonzero(foreground.any(axis=0))), 1)
    colors = plt.get_cmap(HEIGHT_COLORS)
    shaded = light.shade(filled, cmap=colors, vmin=low, vmax=high, dx=pitch, dy=pitch, blend_mode="soft")[..., :3]
    return np.where(foreground[..., None], shaded, picture)


def loss_curves(
    history: Mapping[str, Sequence[float]],
    labels: Mapping[str, str],
    xlabel: str = "epoch",
    ylabel: str = "mean cosine distance",
    span: float | None = None,
) -> Figure:
    """Training losses against epochs.

    Args:
        history: mean loss of each epoch by name.
        labels: legend text by name.
        xlabel, ylabel: texts at the axes.
        span: where each curve ends on the x axis, for curves of unequal length; None = at its number of epochs.
    """
    figure, axis = plt.subplots(figsize=(5.2, 2.6))
    for name, curve in history.items():
        epochs = np.arange(1, len(curve) + 1)
        axis.plot(epochs if span is None else epochs * span / len(curve), curve, label=labels[name])
    axis.set(xlabel=xlabel, ylabel=ylabel, ylim=(0, None))
    axis.legend(frameon=False)
    return figure


def pro_curves(
    curves: Mapping[str, PROCurve],
    limit: float,
    axis: Axes | None = None,
    markers: Sequence[str] = (),
    baselines: Sequence[str] = (),
) -> Axes:
    """Per-region overlap against false-positive rate up to a limit.

    Args:
        curves: by legend text.
        limit: right end of the axis.
        axis: where to draw; a new one by default.
        markers: names of curves whose points are few enough to be shown one by one.
        baselines: names of curves that are levels to beat, drawn gray and dashed.
    """
    axis = axis or plt.subplots(figsize=(4.2, 3.0))[1]
    for name, curve in curves.items():
        style = {"marker": "o", "markersize": 3, "linewidth": 1} if name in markers else {"linewidth": 1.3}
        style |= BASELINE_STYLE if name in baselines else {}
        axis.plot(curve.false_positive_rate, curve.per_region_overlap, label=name, **style)
    axis.set(xlim=(0, limit), ylim=(0, 1.01), xlabel="false-positive rate", ylabel="per-region overlap")
    axis.locator_params(axis="x", nbins=5)
    return axis


def interval_plot(intervals: Mapping[str, Interval], xlabel: str, reference: float = 0.0) -> Figure:
    """Point estimates with their intervals, one line each, against a reference line.

    Args:
        intervals: by text; see `lib.bootstrap`.
        xlabel: what the numbers are.
        reference: position of the dashed line.
    """
    figure, axis = plt.subplots(figsize=(6.0, 0.32 * len(intervals) + 0.7))
    for row, interval in enumerate(intervals.values()):
        color = "#0072B2" if interval.low > reference else "#D55E00" if interval.high < reference else "#777777"
        axis.plot([interval.low, interval.high], [row, row], color=color, linewidth=2)
        axis.plot(interval.estimate, row, "o", color=color, markersize=5)
    axis.axvline(reference, color="black", linestyle="--", linewidth=0.8)
    axis.set_yticks(range(len(intervals)), list(intervals))
    axis.set_ylim(len(intervals) - 0.4, -0.6)
    axis.set_xlabel(xlabel)
    return figure


def turnable_cloud(
    cloud: np.ndarray, foreground: np.ndarray, colors: np.ndarray, alt: str, colorbar: str | None = None
) -> go.Figure:
    """Point cloud of an object that the reader can turn.

    Args:
        cloud: (3, H, W) float32 metres.
        foreground: (H, W) bool, which pixels to draw.
        colors: (H, W, 3) in [0, 1], or (H, W) scalars drawn with a color bar.
        alt: text for readers who cannot see the figure.
        colorbar: title of the color bar; needed for scalars.
    """
    pixels = np.flatnonzero(foreground)
    pixels = pixels[:: max(1, -(-len(pixels) // CLOUD_POINTS))]
    x, y, z = cloud.reshape(3, -1)[:, pixels] * 1000
    marker = {"size": 2.2, "color": point_colors(colors, pixels)}
    if colorbar is not None:
        marker |= {"colorscale": "Inferno", "colorbar": {"title": colorbar, "thickness": 14, "y": 0.45, "len": 0.8}}
    points = go.Scatter3d(
        x=x - x.mean(), y=y.mean() - y, z=z.max() - z, mode="markers", marker=marker, hoverinfo="skip"
    )
    axes = {"showbackground": False, "showgrid": False, "zeroline": False}
    scene = {name: {**axes, "title": f"{name[0]} (mm)"} for name in ("xaxis", "yaxis")}
    scene["zaxis"] = {**axes, "title": "", "showticklabels": False}  # too short for readable labels
    scene |= {"aspectmode": "data", "camera": CAMERA}
    margin = {"l": 0, "r": 0, "t": 0, "b": 0}
    return go.Figure(points, go.Layout(scene=scene, height=430, margin=margin, meta={"alt": alt}))


def point_colors(colors: np.ndarray, pixels: np.ndarray) -> np.ndarray | list[str]:
    """Plotly marker colors of the chosen pixels: "rgb(r,g,b)" texts for pictures, rounded numbers for scalars."""
    if colors.ndim == 2:
        return np.round(colors.reshape(-1)[pixels].astype(float), 4)
    levels = np.clip(np.round(colors.reshape(-1, 3)[pixels] * 255), 0, 255).astype(int)
    return [f"rgb({r},{g},{b})" for r, g, b in levels]
