"""Nearest normal patch: the baseline that every learned head has to beat on the same features.

Letters: M bank rows, Q query patches, C channels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from lib.config import MODALITIES, NearestNeighborConfig
from lib.features import Features
from lib.grids import bilinear_resize, gaussian_blur
from lib.heads import Prediction

QUERIES_PER_BLOCK, BANK_ROWS_PER_BLOCK = 256, 4096  # a block of distances, 4 MB, stays in the processor's cache
HELD_OUT_STEP = 8  # of the training samples that set the scales of the late fusion
WHOLE = "concat"


def nearest_distances(
    queries: Tensor, bank: Tensor, parts: Mapping[str, slice], names: Sequence[str]
) -> dict[str, Tensor]:
    """Euclidean distance of each query to its nearest bank row, by single parts of the columns and by all of them.

    The nearest row is found block by block by the expanded square |q|^2 - 2 q.b + |b|^2 about the bank's mean, which
    is quick, and whose value for all columns is the sum of those of the parts. Its distance is then recomputed from
    the difference, which is exact where the expansion cancels.

    Args:
        queries: (Q, C) float32.
        bank: (M, C) float32, M >= 1.
        parts: columns of each part; together they cover every column once.
        names: which parts to search, and `WHOLE` for all columns.

    Returns:
        (Q,) float32 by name.
    """
    mean = bank.mean(dim=0)
    centered = queries - mean
    best = {name: queries.new_full((len(queries),), torch.inf) for name in names}
    nearest = {name: torch.zeros(len(queries), dtype=torch.int64, device=queries.device) for name in names}
    for start in range(0, len(bank), BANK_ROWS_PER_BLOCK):
        block = bank[start : start + BANK_ROWS_PER_BLOCK] - mean
        columns = {part: block[:, cut].T.contiguous() for part, cut in parts.items()}
        half_norms = {part: values.square().sum(dim=0) / 2 for part, values in columns.items()}
        for rows in torch.arange(len(queries), device=queries.device).split(QUERIES_PER_BLOCK):
            halves = {
                part: torch.addmm(half_norms[part], centered[rows, cut], columns[part], alpha=-1)
                for part, cut in parts.items()
            }
            for name in names:
                values, found = row_minimum(sum(halves.values()) if name == WHOLE else halves[name])
                better = values < best[name][rows]
                best[name][rows[better]] = values[better]
                nearest[name][rows[better]] = found[better] + start
    cuts = {name: parts.get(name, slice(None)) for name in names}
    return {name: torch.linalg.vector_norm((queries - bank[nearest[name]])[:, cuts[name]], dim=1) for name in names}


def row_minimum(values: Tensor) -> tuple[Tensor, Tensor]:
    """Smallest entry of each row and its column; on the CPU by NumPy, which vectorizes the search and torch does not.

    Args:
        values: (Q, M) float32.
    """
    if values.device.type != "cpu":
        return values.min(dim=1)
    columns = torch.from_numpy(values.numpy().argmin(axis=1))
    return values.gather(1, columns[:, None])[:, 0], columns


def patches(sample: Features) -> tuple[Tensor, Tensor]:
    """Patch features on the sample's own RGB grid, one row a foreground cell.

    Returns:
        features: (Q, C2 + C3) float32; each modality is divided by the root of its dimension, so that both weigh
            alike in the concatenation [ours].
        cells: (h, w) bool, True where a row belongs.
    """
    rgb_map, xyz_map, cells = sample.on_grid(sample.rgb_tokens.shape[-1])
    rows = [feature_map[:, cells].T / feature_map.shape[0] ** 0.5 for feature_map in (rgb_map, xyz_map)]
    return torch.cat(rows, dim=1), cells


class NearestNeighbor:
    """Distance to the nearest normal patch: RGB alone, 3D alone, both concatenated, and both fused late."""

    variants = MODALITIES

    def __init__(self, config: NearestNeighborConfig, rgb_dim: int, xyz_dim: int, device: str = "cpu") -> None:
        self.config = config
        self.parts = {"rgb": slice(0, rgb_dim), "xyz": slice(rgb_dim, rgb_dim + xyz_dim)}
        self.device = torch.device(device)
        self.bank = torch.empty(0, rgb_dim + xyz_dim)
        self.late_scale: dict[str, float] = {}

    def fit(self, features: Sequence[Features], seed: int, progress: bool = False) -> dict[str, list[float]]:
        """Fill the bank with normal patches; nothing is learnt, so the history is empty.

        Args:
            features: normal training samples.
            seed: of the draw of `bank_rows` patches.
            progress: accepted for the common road; filling a bank is quick, so no bar is shown.
        """
        generator = torch.Generator().manual_seed(seed)
        by_sample = [patches(sample)[0] for sample in features]
        rows = torch.cat(by_sample)
        if self.config.bank_rows is not None and self.config.bank_rows < len(rows):
            rows = rows[torch.randperm(len(rows), generator=generator)[: self.config.bank_rows]]
        self.bank = rows.to(self.device)
        self._scale_late_fusion(by_sample)
        return {}

    def _scale_late_fusion(self, by_sample: Sequence[Tensor]) -> None:
        """Mean distance of each modality from some training samples to the others, so that the sum weighs both alike.

        Whole samples are held out, every `HELD_OUT_STEP`-th: patches of one image overlap, so an image in the bank
        would lie too near to itself. A single training sample leaves both scales at 1.
        """
        self.late_scale = dict.fromkeys(self.parts, 1.0)
        if len(by_sample) == 1:
            return
        held_out = torch.cat(by_sample[::HELD_OUT_STEP]).to(self.device)
        others = torch.cat([rows for index, rows in enumerate(by_sample) if index % HELD_OUT_STEP]).to(self.device)
        distances = nearest_distances(held_out, others, self.parts, tuple(self.parts))
        self.late_scale = {name: float(values.mean()) for name, values in distances.items()}

    def predict(self, sample: Features, variants: Sequence[str] = MODALITIES) -> dict[str, Prediction]:
        """Predictions of one sample for several modalities; the late fusion adds the two scaled single maps."""
        queries, cells = patches(sample)
        queries = queries.to(self.device)
        needed = [name for name in variants if name != "late"]
        needed += [name for name in self.parts if "late" in variants and name not in needed]
        distances = nearest_distances(queries, self.bank, self.parts, needed)
        if "late" in variants:
            distances["late"] = sum(distances[name] / self.late_scale[name] for name in self.parts) / 2
        return {name: self._prediction(distances[name].cpu(), cells, sample) for name in variants}

    def _prediction(self, distances: Tensor, cells: Tensor, sample: Features) -> Prediction:
        """Cell distances brought to pixels bilinearly, cut to the object, blurred; the image score is the maximum."""
        grid = fill_cells(distances, cells)
        dense = bilinear_resize(grid, len(sample.foreground)) * sample.foreground
        anomaly_map = gaussian_blur(dense, self.config.blur_sigma_px)
        return Prediction(anomaly_map, float(anomaly_map.max()))


def fill_cells(values: Tensor, cells: Tensor) -> Tensor:
    """(h, w) float32 map of cell values; cells off the object take the mean of their object neighbors.

    Without it bilinear resizing would pull the object's rim towards zero.

    Args:
        values: (Q,) float32.
        cells: (h, w) bool with Q True entries.
    """
    grid = torch.zeros(cells.shape)
    grid[cells] = values
    weight = F.avg_pool2d(cells[None, None].float(), 3, stride=1, padding=1)[0, 0]
    mean = F.avg_pool2d(grid[None, None], 3, stride=1, padding=1)[0, 0] / weight.clamp_min(1e-6)
    return torch.where(cells, grid, mean)
