"""Pictures of features: principal components as colors, and the two token grids over one object.

Letters: N foreground pixels of a sample, C channels, H, W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from lib.features import Features

COLOR_PERCENTILES = (1, 99)  # of each component over all samples: black and full brightness
OFF_OBJECT = 1.0
CENTER_COLOR = "#D55E00"


def principal_colors(tables: Sequence[Tensor]) -> list[np.ndarray]:
    """The first three principal components of standardized features as red, green and blue, each (N, 3) in [0, 1].

    One projection for all tables, so that equal colors mean equal features.

    Args:
        tables: (N_i, C) float32, C >= 3.
    """
    rows = torch.cat(list(tables)).double()
    mean, std = rows.mean(dim=0), rows.std(dim=0)
    centered = (rows - mean) / torch.where(std > 0, std, torch.ones_like(std))
    components = (centered @ principal_axes(centered, 3)).numpy()
    low, high = np.percentile(components, COLOR_PERCENTILES, axis=0)
    colors = np.clip((components - low) / (high - low), 0, 1)
    return np.split(colors, np.cumsum([len(table) for table in tables])[:-1])


def principal_axes(centered: Tensor, number: int) -> Tensor:
    """(C, number) float64 directions along which rows vary most, the first most.

    The sign of a direction is fixed by its largest weight, so that a second run gives the same.

    Args:
        centered: (N, C) float64, rows less their mean.
        number: of directions, at most C.
    """
    _, axes = torch.linalg.eigh(centered.T @ centered)
    axes = axes[:, -number:].flip(1)
    return axes * torch.sign(axes.gather(0, axes.abs().argmax(dim=0, keepdim=True)))


def on_pixels(features: Features, colors: np.ndarray) -> np.ndarray:
    """(H, W, 3) picture of colors (N, 3) of the foreground pixels; white off the object."""
    picture = np.full((features.foreground.numel(), 3), OFF_OBJECT)
    picture[features.pixel_index.numpy()] = colors
    return picture.reshape(*features.foreground.shape, 3)


def feature_pictures(samples: Sequence[Features], modality: str) -> list[np.ndarray]:
    """Pictures (H, W, 3) of one modality's features of several samples, under one projection.

    Args:
        samples: features by one extractor.
        modality: "rgb" or "xyz".
    """
    position = ("rgb", "xyz").index(modality)
    tables = [sample.at_pixels()[position] for sample in samples]
    colored = principal_colors(tables)
    return [on_pixels(sample, colors) for sample, colors in zip(samples, colored, strict=True)]


def center_pixels(features: Features) -> np.ndarray:
    """(G, 2) row and column of the foreground pixel that lies nearest to each group center.

    A center is one of the object's points, so among its own pixel's three nearest centers it has the largest weight:
    that pixel is found from the interpolation table alone.
    """
    weights, centers = features.weights.flatten(), features.neighbors.flatten()
    order = torch.argsort(weights, stable=True)  # the last write of each center is its largest weight
    best = torch.zeros(len(features.centers), dtype=torch.int64)
    best[centers[order]] = features.pixel_index.repeat_interleave(3)[order]
    columns = features.foreground.shape[1]
    return torch.stack([best // columns, best % columns], dim=1).numpy()


def grids_over_object(picture: np.ndarray, features: Features, zoom: tuple[slice, slice]) -> Figure:
    """The RGB tokens' cells and the 3D tokens' centers over one picture, whole and zoomed.

    Args:
        picture: (H, W, 3) in [0, 1], on the pixels of the features.
        features: of the same sample.
        zoom: rows and columns of the second picture.
    """
    height, width = features.foreground.shape
    rows, columns = features.rgb_tokens.shape[1:]
    centers = center_pixels(features)
    figure, axes = plt.subplots(1, 2, figsize=(7.6, 3.8))
    for axis, size in zip(axes, (3, 22), strict=True):
        axis.imshow(picture)
        axis.set_xticks(np.arange(1, columns) * width / columns - 0.5, minor=True)
        axis.set_yticks(np.arange(1, rows) * height / rows - 0.5, minor=True)
        axis.grid(which="minor", color="white", linewidth=0.4)
        axis.scatter(centers[:, 1], centers[:, 0], s=size, color=CENTER_COLOR, edgecolors="white", linewidths=0.3)
        axis.tick_params(which="both", length=0, labelbottom=False, labelleft=False)
    axes[1].set(xlim=(zoom[1].start, zoom[1].stop), ylim=(zoom[0].stop, zoom[0].start))
    return figure
