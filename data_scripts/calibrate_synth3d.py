"""Measure synth3d with the two naive baselines that its parameters were chosen by, and with nothing else.

Each baseline is the nearest neighbor on raw patches of one modality: colors, or heights over the supporting plane.
Example: python data_scripts/calibrate_synth3d.py
"""

from __future__ import annotations

import argparse
import json
import sys
from concurrent.futures import ProcessPoolExecutor
from itertools import product
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from scipy.ndimage import distance_transform_edt, zoom
from sklearn.metrics import roc_auc_score

from lib.errors import InputError, run_command_line
from lib.parallel import end_with_parent
from lib.runtime import atomic_path, seeded_generator
from lib.synth3d import CATEGORIES, DEFECTS, SYNTH3D_VERSION, Counts, render_sample, sample_keys

MAX_CALIBRATION_SEED = 999  # larger seeds are kept for reported data
PATCH_PX, STRIDE_PX, SHRINK = 8, 4, 2
FOREGROUND_MM = 5.0
MODALITIES = ("color", "height")


def height_over_plane(cloud: np.ndarray, border_px: int = 10) -> np.ndarray:
    """(H, W) float32 millimetres above the least-squares plane of the border, missing returns filled by the nearest."""
    valid = cloud[..., 2] > 0
    border = np.ones_like(valid)
    border[border_px:-border_px, border_px:-border_px] = False
    points = cloud[border & valid].astype(np.float64)
    center = points.mean(0)
    normal = np.linalg.svd(points - center, full_matrices=False)[2][2]
    height = (cloud - center) @ (normal * -np.sign(normal[2])) * 1000
    nearest = distance_transform_edt(~valid, return_distances=False, return_indices=True)
    return height[tuple(nearest)].astype(np.float32)


def _shrunk(image: np.ndarray) -> np.ndarray:
    rows, columns = image.shape[0] // SHRINK, image.shape[1] // SHRINK
    return image.reshape(rows, SHRINK, columns, SHRINK, -1).mean((1, 3))


def _patches(image: np.ndarray) -> np.ndarray:
    """(rows, columns, PATCH_PX * PATCH_PX * channels) float32 overlapping patches of an (H, W, C) image."""
    windows = np.lib.stride_tricks.sliding_window_view(image, (PATCH_PX, PATCH_PX), axis=(0, 1))
    windows = windows[::STRIDE_PX, ::STRIDE_PX]
    return windows.reshape(*windows.shape[:2], -1).astype(np.float32)


def _described(
    category: str, seed: int, key: tuple[str, str, int]
) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
    """Patches per modality, the patches that lie on the object, and the shrunk mask of one sample."""
    sample = render_sample(category, key[1], seeded_generator(seed, category, *key))
    height = _shrunk(height_over_plane(sample.cloud))
    images = {"color": _shrunk(sample.rgb.astype(np.float32) / 255), "height": height}
    on_object = _patches((height > FOREGROUND_MM).astype(np.float32)).min(-1) > 0
    patches = {name: _patches(image) for name, image in images.items()}
    return patches, on_object, _shrunk(sample.gt_mask.astype(np.float32))[..., 0] >= 0.5


def _nearest_distance(queries: np.ndarray, bank: np.ndarray, chunk: int = 2048) -> np.ndarray:
    """(N,) float32 Euclidean distance of each query to its nearest row of the bank."""
    squares = (bank**2).sum(1)
    found = [
        (squares - 2 * part @ bank.T).min(1) + (part**2).sum(1)
        for part in np.array_split(queries, max(1, len(queries) // chunk))
    ]
    return np.sqrt(np.maximum(np.concatenate(found), 0))


def _pixel_map(scores: np.ndarray, on_object: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """(H, W) float32 anomaly map from one score per patch on the object; 0 elsewhere."""
    grid = np.zeros(on_object.shape, np.float32)
    grid[on_object] = scores
    full = zoom(grid, STRIDE_PX, order=1, grid_mode=True, mode="nearest")
    margin = (PATCH_PX - STRIDE_PX) // 2
    padded = np.zeros(shape, np.float32)
    padded[margin : margin + full.shape[0], margin : margin + full.shape[1]] = full
    return padded


def measure(category: str, seed: int) -> dict:
    """Image AUROC per defect and their mean, and pixel AUROC over all test pixels, of both baselines."""
    described = [(key, *_described(category, seed, key)) for key in sample_keys(Counts()) if key[0] != "validation"]
    result: dict = {"category": category, "seed": seed}
    for modality in MODALITIES:
        bank = np.concatenate([p[modality][on] for key, p, on, _ in described if key[0] == "train"])
        scores: dict[str, list[float]] = {}
        maps, masks = [], []
        for (split, defect, _), patches, on_object, mask in described:
            if split == "train":
                continue
            distances = _nearest_distance(patches[modality][on_object], bank)
            scores.setdefault(defect, []).append(float(distances.max()))
            maps.append(_pixel_map(distances, on_object, mask.shape))
            masks.append(mask)
        by_defect = {defect: _auroc(scores["good"], scores[defect]) for defect in DEFECTS}
        pixel = _rounded(roc_auc_score(np.stack(masks).ravel(), np.stack(maps).ravel()))
        mean = _mean(list(by_defect.values()))
        result[modality] = {"image_auroc": by_defect, "mean_image_auroc": mean, "pixel_auroc": pixel}
    return result


def _auroc(good: list[float], bad: list[float]) -> float:
    return _rounded(roc_auc_score([0] * len(good) + [1] * len(bad), good + bad))


def summarize(measured: list[dict]) -> dict:
    """Mean over seeds of each number, per category, and over categories for each defect."""
    summary: dict = {}
    for modality in MODALITIES:
        rows = {c: [m[modality] for m in measured if m["category"] == c] for c in CATEGORIES}
        rows = {category: found for category, found in rows.items() if found}
        by_category = {
            category: {
                **{d: _mean([row["image_auroc"][d] for row in found]) for d in DEFECTS},
                "mean": _mean([row["mean_image_auroc"] for row in found]),
                "pixel_auroc": _mean([row["pixel_auroc"] for row in found]),
            }
            for category, found in rows.items()
        }
        over_all = {column: _mean([row[column] for row in by_category.values()]) for column in (*DEFECTS, "mean")}
        summary[modality] = {"by_category": by_category, "over_categories": over_all}
    return summary


def _rounded(value: float) -> float:
    return round(float(value), 3)


def _mean(values: list[float]) -> float:
    return _rounded(np.mean(values))


def check_seeds(seeds: list[int]) -> None:
    """Refuse seeds that could be those of reported data.

    Raises:
        InputError: a seed lies outside 0 to `MAX_CALIBRATION_SEED`.
    """
    if max(seeds) > MAX_CALIBRATION_SEED or min(seeds) < 0:
        raise InputError(f"--seeds {seeds}: others are kept for reported data; use 0 to {MAX_CALIBRATION_SEED}")


def main(arguments: list[str] | None = None) -> None:
    """Measure, write the numbers and print their summary; `InputError` for seeds that `check_seeds` refuses."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[101, 102], help="data seeds, all below 1000")
    parser.add_argument("--category", nargs="+", choices=CATEGORIES, default=list(CATEGORIES))
    parser.add_argument("--output", type=Path, default=Path("results/synth3d/calibration.json"))
    parser.add_argument("--workers", type=int, default=2, help="processes (default: 2)")
    chosen = parser.parse_args(arguments)
    check_seeds(chosen.seeds)
    jobs = list(product(chosen.category, chosen.seeds))
    with ProcessPoolExecutor(max(1, chosen.workers), get_context("spawn"), end_with_parent) as pool:
        measured = list(pool.map(measure, *zip(*jobs, strict=True)))
    record = {"synth3d_version": SYNTH3D_VERSION, "seeds": chosen.seeds, "summary": summarize(measured)}
    with atomic_path(chosen.output) as path:
        path.write_text(json.dumps(record | {"measured": measured}, indent=1) + "\n")
    print(json.dumps(record["summary"], indent=1))


if __name__ == "__main__":
    sys.exit(run_command_line(main))
