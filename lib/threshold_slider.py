"""A figure with a threshold to move: the predicted mask over one image, and where the detector stands on its curves.

Plain Plotly with one slider step a threshold, so that a page needs no kernel and no network. Each step carries a
small picture of the mask and two points; the curves are drawn once.
"""

from __future__ import annotations

import base64
from io import BytesIO

import numpy as np
import plotly.graph_objects as go
from matplotlib.colors import to_rgb
from PIL import Image

from lib.errors import InputError
from lib.figures import MASK_COLOR
from lib.operating_points import OperatingPoints, operating_points, roc_vertices, thresholds_up_to
from lib.pixel_metrics import RankedPixels

PREDICTED_COLOR = "#D55E00"
PREDICTED_OPACITY = 0.6
CURVE_COLOR = "#0072B2"
CURVE_POINTS = 300  # more cannot be told apart on a panel of this size
PRO_POINT, ROC_POINT = 2, 4  # places among the figure's traces
MASK_IMAGE, TEXT = 1, 0  # places among its layout images and annotations
FONT = {"size": 12}


def threshold_slider(
    pixels: RankedPixels,
    picture: np.ndarray,
    gt_mask: np.ndarray,
    anomaly_map: np.ndarray,
    alt: str,
    num_thresholds: int = 40,
    limit: float = 0.3,
) -> go.Figure:
    """Image with predicted mask and true outline, PRO curve and ROC curve, under one slider.

    Args:
        pixels: ranked pixels of the whole test set; the curves and the points on them are theirs.
        picture: (H, W, 3) float in [0, 1], the sample to show.
        gt_mask: (H, W) bool, its true defect; may be empty.
        anomaly_map: (H, W) float, its map, by the same detector as the test set's.
        alt: text for readers who cannot see the figure.
        num_thresholds: how many positions the slider has at most.
        limit: largest false-positive rate shown.

    Raises:
        InputError: shapes that differ; see also `lib.operating_points.thresholds_up_to`.
    """
    if picture.shape != (*anomaly_map.shape, 3) or gt_mask.shape != anomaly_map.shape:
        shapes = f"picture {picture.shape}, gt_mask {gt_mask.shape} and anomaly_map {anomaly_map.shape}"
        raise InputError(f"{shapes}: give (H, W, 3), (H, W) and (H, W) of one sample")
    points = operating_points(pixels, thresholds_up_to(pixels, num_thresholds, limit))
    masks = [mask_address(anomaly_map > threshold) for threshold in points.thresholds]
    start = len(masks) // 4  # few false positives, where a detector would work
    curve = pixels.pro_curve()
    curves = [(curve.false_positive_rate, curve.per_region_overlap), roc_vertices(pixels)]
    traces, marker = [outline_trace(gt_mask)], {"color": PREDICTED_COLOR, "size": 11}
    for axis, vertices, heights in zip("23", curves, point_heights(points), strict=True):
        x, y = thinned(*vertices, limit)
        shared = {"xaxis": f"x{axis}", "yaxis": f"y{axis}", "hoverinfo": "skip", "showlegend": False}
        traces.append(go.Scatter(x=x, y=y, mode="lines", line={"color": CURVE_COLOR, "width": 2}, **shared))
        place = {"x": points.false_positive_rate[start : start + 1].round(5), "y": heights[start : start + 1].round(4)}
        traces.append(go.Scatter(**place, mode="markers", marker=marker, cliponaxis=False, **shared))
    layout = panels(anomaly_map.shape, limit, alt)
    addresses = {"left": picture_address(picture), "right": masks[start]}
    layout["images"] = [placed(address, anomaly_map.shape, side) for side, address in addresses.items()]
    layout["annotations"] = [{**layout["annotations"][TEXT], "text": point_text(points, start)}]
    layout["sliders"] = [slider_of([slider_step(points, i, mask) for i, mask in enumerate(masks)], start)]
    return go.Figure(traces, go.Layout(**layout))


def point_heights(points: OperatingPoints) -> tuple[np.ndarray, np.ndarray]:
    """Heights (T,) of the points on the PRO and on the ROC curve."""
    return points.per_region_overlap, points.true_positive_rate


def slider_step(points: OperatingPoints, place: int, mask: str) -> dict:
    """What one position of the slider changes: both points, the mask over the image, and the line of numbers."""
    rate = round(float(points.false_positive_rate[place]), 5)
    heights = [[round(float(values[place]), 4)] for values in point_heights(points)]
    data = {"x": [[rate], [rate]], "y": heights}
    layout = {f"images[{MASK_IMAGE}].source": mask, f"annotations[{TEXT}].text": point_text(points, place)}
    return {
        "label": f"{points.thresholds[place]:.3g}",
        "method": "update",
        "args": [data, layout, [PRO_POINT, ROC_POINT]],
    }


def point_text(points: OperatingPoints, place: int) -> str:
    """The operating point in words."""
    parts = {
        "false-positive rate": points.false_positive_rate,
        "per-region overlap": points.per_region_overlap,
        "true-positive rate": points.true_positive_rate,
    }
    return "   ".join(f"{name} <b>{100 * values[place]:.2f} %</b>" for name, values in parts.items())


def thinned(x: np.ndarray, y: np.ndarray, limit: float) -> tuple[np.ndarray, np.ndarray]:
    """Vertices of a curve up to the limit, as many as a panel can show; corners of long steps are kept.

    Args:
        x: (V,) float64, ascending from 0 to 1.
        y: (V,) float64 in [0, 1], ascending.
        limit: right end of the panel.
    """
    inside = min(int(np.searchsorted(x, limit, side="right")) + 1, x.size)  # one beyond, so that the line reaches it
    x, y = x[:inside], y[:inside]
    length = np.cumsum(np.hypot(np.diff(x, prepend=0) / limit, np.diff(y, prepend=0)))
    place = np.floor(length / max(length[-1], 1e-12) * CURVE_POINTS)
    moves = np.append(place[1:] != place[:-1], True)
    kept = moves | np.append(True, moves[:-1])  # both ends of a step
    return x[kept].round(5), y[kept].round(4)


def outline_trace(gt_mask: np.ndarray) -> go.Scatter:
    """The true defect's outline along the edges of its pixels, one short line an edge; nothing for a good sample."""
    mask = np.pad(gt_mask, 1)
    x, y = [], []
    for row, column in np.argwhere(mask[:, 1:] != mask[:, :-1]).tolist():  # left and right edges
        x += [column, column, None]
        y += [row - 1, row, None]
    for row, column in np.argwhere(mask[1:] != mask[:-1]).tolist():  # upper and lower edges
        x += [column - 1, column, None]
        y += [row, row, None]
    style = {"mode": "lines", "line": {"color": MASK_COLOR, "width": 2}, "hoverinfo": "skip", "showlegend": False}
    return go.Scatter(x=x, y=y, **style)


def panels(shape: tuple[int, int], limit: float, alt: str) -> dict:
    """Axes of the image and of both curves, without traces; the annotation is the line of numbers."""
    bare = {"visible": False, "fixedrange": True}
    rate = {"range": [0, limit], "title": {"text": "false-positive rate", "font": FONT}, "fixedrange": True}
    share = {"range": [0, 1.03], "fixedrange": True}
    return {
        "xaxis": {**bare, "range": [0, shape[1]], "domain": [0, 0.34], "constrain": "domain"},
        "yaxis": {**bare, "range": [shape[0], 0], "scaleanchor": "x", "constrain": "domain"},
        "xaxis2": {**rate, "domain": [0.43, 0.68], "anchor": "y2", "nticks": 4},
        "yaxis2": {**share, "anchor": "x2", "title": {"text": "per-region overlap", "font": FONT, "standoff": 4}},
        "xaxis3": {**rate, "domain": [0.77, 1], "anchor": "y3", "nticks": 4},
        "yaxis3": {**share, "anchor": "x3", "title": {"text": "true-positive rate", "font": FONT, "standoff": 4}},
        "annotations": [{"x": 0, "y": 1.16, "xref": "paper", "yref": "paper", "showarrow": False, "xanchor": "left"}],
        "margin": {"l": 4, "r": 24, "t": 46, "b": 30},
        "height": 410,
        "template": "plotly_white",
        "meta": {"alt": alt},
    }


def slider_of(steps: list[dict], start: int) -> dict:
    """The slider under the panels, strict thresholds on the left."""
    return {
        "active": start,
        "steps": steps,
        "currentvalue": {"prefix": "threshold ", "font": FONT},
        "pad": {"t": 44, "b": 16, "l": 4, "r": 4},
        "ticklen": 3,
        "font": {"size": 10},
    }


def placed(address: str, shape: tuple[int, int], side: str) -> dict:
    """A layout image that fills the panel of the image, hung on its left or right edge.

    plotly.js knows layout images by their place and size: two that hang on the same corner would be one.
    """
    height, width = shape
    corner = {"x": 0 if side == "left" else width, "y": 0, "xanchor": side, "yanchor": "top"}
    size = {"sizex": width, "sizey": height, "sizing": "stretch"}
    return {"source": address, "xref": "x", "yref": "y", "layer": "below", **corner, **size}


def mask_address(mask: np.ndarray) -> str:
    """PNG of a mask as a data address: one bit a pixel, see-through where it is False."""
    image = Image.fromarray(mask.astype(np.uint8), mode="L").convert("P")
    image.putpalette([0, 0, 0, *(round(255 * part) for part in to_rgb(PREDICTED_COLOR))])
    return png_address(image, bits=1, transparency=bytes([0, round(255 * PREDICTED_OPACITY)]))


def picture_address(picture: np.ndarray) -> str:
    """PNG of a picture (H, W, 3) float in [0, 1] as a data address."""
    return png_address(Image.fromarray(np.clip(np.rint(picture * 255), 0, 255).astype(np.uint8)))


def png_address(image: Image.Image, **options: object) -> str:
    """An image as the text that stands where a page would name a file."""
    buffer = BytesIO()
    image.save(buffer, format="PNG", optimize=True, **options)
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"
