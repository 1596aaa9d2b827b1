"""What adaptation does to features, to be seen: losses, signs of collapse, colors and distances of patches.

Letters: Q patches of one sample, n patches of several, C channels, h w cells, H W pixels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from lib.feature_pictures import OFF_OBJECT, principal_axes, principal_colors
from lib.features import Features
from lib.heads.adaptation import Adaptors
from lib.losses import compactness, cosine_distance
from lib.metrics import image_auroc
from lib.patches import PatchSet
from lib.sampling import pixel_cells

LOSS_TITLES = {
    "la": "LA: local alignment",
    "ga": "GA: global alignment",
    "lc": "LC: local compactness",
    "gc": "GC: global compactness",
}
MODALITY_TEXTS = {"rgb": "RGB", "xyz": "3D"}
WATCHED = {"rank": "effective rank", "scale": "scale (root mean square distance to the mean)"}
GOOD, BESIDE = "good", "beside"  # patches of good samples; patches of defective samples that hold no defect
GROUP_COLORS = ("#BBBBBB", "#D55E00", "#0072B2")
SHOWN_SHARE = 99.5  # percent of the points along each axis of a plane; a few far ones would squeeze the others


def loss_panels(
    history: Mapping[str, Sequence[float]], num_epochs: int, levels: Mapping[str, Mapping[str, float]]
) -> Figure:
    """LSFA's training losses, each on an axis of its own because their scales have nothing in common.

    Args:
        history: of `lib.heads.adaptor_training.train_adaptors`; losses that were not trained are left out.
        num_epochs: where the curves end. A curve with fewer points than another began later.
        levels: by loss, dotted lines by their text.
    """
    names = [name for name in LOSS_TITLES if name in history]
    longest = max(len(history[name]) for name in names)
    figure, axes = plt.subplots(1, len(names), figsize=(2.1 * len(names), 2.1), squeeze=False)
    for axis, name in zip(axes[0], names, strict=True):
        curve = history[name]
        axis.plot(num_epochs * (np.arange(len(curve)) + 1 + longest - len(curve)) / longest, curve, linewidth=1.2)
        draw_levels(axis, num_epochs, levels.get(name, {}))
        axis.margins(y=0.12)
        axis.set(title=LOSS_TITLES[name], xlabel="epoch", xlim=(0, num_epochs))
    return figure


def draw_levels(axis: Axes, right: float, levels: Mapping[str, float]) -> None:
    """Dotted lines, their texts clear of a falling curve: that of the highest on the right, others on the left."""
    for text, level in levels.items():
        is_highest = level == max(levels.values())
        x, shift_pt, across, along = (right, (0, 2), "right", "bottom") if is_highest else (0.0, (3, -2), "left", "top")
        axis.axhline(level, color="black", linestyle=":", linewidth=0.9)
        axis.annotate(text, (x, level), shift_pt, textcoords="offset points", ha=across, va=along, fontsize=7)


def collapse_panels(history: Mapping[str, Sequence[float]]) -> Figure:
    """Effective rank and scale of adapted features of both modalities, before training (epoch 0) and after each epoch.

    Args:
        history: of `lib.heads.adaptor_training.train_adaptors`.
    """
    figure, axes = plt.subplots(1, len(WATCHED), figsize=(7.2, 2.2))
    for axis, (watched, title) in zip(axes, WATCHED.items(), strict=True):
        for modality, text in MODALITY_TEXTS.items():
            axis.plot(history[f"{watched}_{modality}"], label=text)
        axis.set(title=title, xlabel="epoch", ylim=(0, None), xlim=(0, None))
    axes[0].legend(frameon=False)
    return figure


def patch_pictures(patch_sets: Sequence[PatchSet], modality: str) -> list[np.ndarray]:
    """Pictures (H, W, 3) of one modality's patches of several samples, under one projection; white off the object.

    Args:
        patch_sets: of one kind, frozen or adapted; H and W are multiples of h and w.
        modality: "rgb" or "xyz".
    """
    colored = principal_colors([getattr(patch_set, modality) for patch_set in patch_sets])
    pictures = []
    for patch_set, colors in zip(patch_sets, colored, strict=True):
        grid = np.full((*patch_set.cells.shape, 3), OFF_OBJECT)
        grid[patch_set.cells.numpy()] = colors
        rows, columns = (pixels // cells for pixels, cells in zip(patch_set.foreground.shape, grid.shape, strict=False))
        pictures.append(grid.repeat(rows, axis=0).repeat(columns, axis=1))
    return pictures


def defect_cells(gt_mask: Tensor, cells: Tensor) -> Tensor:
    """(Q,) bool, True for the patches whose cell holds at least one defective pixel.

    Args:
        gt_mask: (H, W) bool.
        cells: (h, w) bool, object cells.
    """
    hit = torch.zeros(cells.numel(), dtype=torch.bool)
    hit[pixel_cells(gt_mask.flatten().nonzero()[:, 0], tuple(gt_mask.shape), tuple(cells.shape))] = True
    return hit[cells.flatten()]


def patch_kinds(samples: Sequence[Features], patch_sets: Sequence[PatchSet]) -> np.ndarray:
    """(n,) texts, one a patch of all samples: `GOOD`, the type of the defect that it holds, or `BESIDE` a defect.

    Args:
        samples: test samples.
        patch_sets: theirs.
    """
    kinds = []
    for sample, patch_set in zip(samples, patch_sets, strict=True):
        defect = sample.sample_id.split("/")[1]
        held = defect_cells(sample.gt_mask, patch_set.cells).numpy()
        kinds.append(np.where(held, defect, GOOD if defect == GOOD else BESIDE))
    return np.concatenate(kinds)


def bank_distances(patch_sets: Sequence[PatchSet], modality: str, bank: Tensor) -> Tensor:
    """(n,) float32 Euclidean distance of every patch of all samples to the nearest row of a memory bank.

    Args:
        patch_sets: with the features that the bank holds.
        modality: "rgb" or "xyz".
        bank: (M, C) float32.
    """
    rows = torch.cat([getattr(patch_set, modality) for patch_set in patch_sets])
    return compactness(rows, bank)


def patch_auroc(distances: Tensor, kinds: np.ndarray) -> dict[str, float]:
    """AUROC of patches that hold a defect against all patches of good samples, by defect type.

    Args:
        distances: (n,) float32, larger = more anomalous.
        kinds: (n,) of `patch_kinds`.
    """
    values, found = distances.numpy(), {}
    for kind in sorted(set(kinds) - {GOOD, BESIDE}):
        chosen = (kinds == kind) | (kinds == GOOD)
        found[kind] = image_auroc((kinds[chosen] == kind).astype(int), values[chosen])
    return found


@torch.inference_mode()
def disagreement(adaptors: Adaptors, adapted: PatchSet) -> Tensor:
    """(Q,) float32 in [0, 2]: how far the two modalities of each patch are from the pairs that alignment made [ours].

    1 - cosine of the projected features x', y' of LA. LSFA trains them and scores without them.

    Args:
        adaptors: trained, on the CPU; their projection heads are used.
        adapted: what they gave for one sample.
    """
    return cosine_distance(adaptors.rgb_projection(adapted.rgb), adaptors.xyz_projection(adapted.xyz))


def plane_points(train: Sequence[PatchSet], test: Sequence[PatchSet], modality: str) -> np.ndarray:
    """(n, 2) float64: test patches in the plane in which normal training patches vary most (PCA).

    Args:
        train: normal samples that span the plane.
        test: samples shown in it.
        modality: "rgb" or "xyz".
    """
    normal, shown = (torch.cat([getattr(p, modality) for p in part]).double() for part in (train, test))
    mean = normal.mean(dim=0)
    return ((shown - mean) @ principal_axes(normal - mean, 2)).numpy()


def plane_panels(planes: Mapping[str, np.ndarray], groups: Mapping[str, np.ndarray]) -> Figure:
    """Patches as points of a plane, one panel each kind of features, in colors by group.

    Args:
        planes: (n, 2) by title.
        groups: rows to draw by legend text, at most `len(GROUP_COLORS)` groups; later ones lie on top.
    """
    figure, axes = plt.subplots(1, len(planes), figsize=(2.1 * len(planes), 2.5))
    for axis, (title, points) in zip(axes, planes.items(), strict=True):
        draw_plane(axis, points, groups)
        axis.set_title(title)
    handles, texts = axes[0].get_legend_handles_labels()
    legend: dict[str, Any] = {"loc": "outside lower center", "ncols": len(texts), "frameon": False, "markerscale": 3}
    figure.legend(handles, texts, **legend)
    return figure


def draw_plane(axis: Axes, points: np.ndarray, groups: Mapping[str, np.ndarray]) -> None:
    """Points (n, 2) of each group in its color, on an axis cut to where nearly all of them lie."""
    for (text, rows), color in zip(groups.items(), GROUP_COLORS, strict=False):
        axis.scatter(*points[rows].T, s=2.5, color=color, label=text, linewidths=0, rasterized=True)
    shown = points[np.concatenate(list(groups.values()))]
    low, high = np.percentile(shown, [100 - SHOWN_SHARE, SHOWN_SHARE], axis=0)
    margin = 0.06 * (high - low)
    axis.set(xlim=(low[0] - margin[0], high[0] + margin[0]), ylim=(low[1] - margin[1], high[1] + margin[1]))
    axis.set(xticks=[], yticks=[])
