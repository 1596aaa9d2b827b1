"""How cost grows with one size while all others stay: samples, bank rows, image side, groups of points.

    python -m benchmarks.growth

It prints one line of JSON: for each size its values, the seconds at each, and the power of growth between the last two.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from statistics import linear_regression, median

import torch

from benchmarks.made_up import DIM, OBJECT_SIDE_PX, PATCHES, PROJECTED_DIM, clustered, object_points
from data_scripts.bench import TOKEN_SIZE, made_up_features, times
from lib.coreset import greedy_coreset
from lib.extractors.point_mae import POINT_MAE_EVAL, random_point_mae
from lib.extractors.rgb_networks import with_blocks
from lib.extractors.vit import build_network, grid_tokens
from lib.heads.cfm import CFM
from lib.heads.patch_bank import bank_distances
from lib.instances import CFM_PAPER
from lib.neighbors import group_points

ROUNDS = 3
BANK_SHARE = 0.1  # of the patches that a bank keeps
PIXELS_A_STEP = 2048  # of each sample, so that an epoch takes seconds on a processor


def training_epoch(num_samples: int) -> Callable[[], object]:
    """One epoch of CFM's networks at full size."""
    samples = [made_up_features(TOKEN_SIZE, OBJECT_SIDE_PX, seed) for seed in range(num_samples)]
    config = replace(CFM_PAPER, num_epochs=1, pixels_per_image=PIXELS_A_STEP)
    head = CFM(config, TOKEN_SIZE.rgb_dim, TOKEN_SIZE.xyz_dim)
    return lambda: head.fit(samples, seed=0)


def bank_building(num_samples: int) -> Callable[[], object]:
    """Greedy coreset of a category's projected patches."""
    rows = clustered(num_samples * PATCHES, PROJECTED_DIM, seed=1)
    return lambda: greedy_coreset(rows, round(BANK_SHARE * len(rows)))


def bank_search(num_rows: int) -> Callable[[], object]:
    """Nearest bank rows of one image's patches."""
    queries, bank = clustered(PATCHES, DIM, seed=2), clustered(num_rows, DIM, seed=1)
    return lambda: bank_distances(queries, bank)


def rgb_network(side_px: int) -> Callable[[], object]:
    """ViT-B/8 on one image."""
    config = replace(with_blocks("dino_vitb8", 12), input_px=side_px)
    network, image = build_network(config), torch.randn(1, 3, side_px, side_px)
    return torch.inference_mode()(lambda: grid_tokens(network, config, image))


def point_network(num_groups: int) -> Callable[[], object]:
    """Grouping and Point-MAE on one object."""
    config = replace(POINT_MAE_EVAL, num_groups=num_groups)
    network, points = random_point_mae(config, seed=0), object_points()

    @torch.inference_mode()
    def work() -> object:
        groups, centers = group_points(points, num_groups, config.group_size)
        return network(groups[None], centers[None])

    return work


STUDIES = {
    "training samples, an epoch of CFM": (training_epoch, (2, 4, 8)),
    "training samples, greedy coreset": (bank_building, (20, 28, 40)),
    "bank rows, search": (bank_search, (5_000, 10_000, 20_000, 40_000, 80_000)),
    "image side in px, ViT-B/8": (rgb_network, (112, 168, 224, 280)),
    "groups of points, Point-MAE": (point_network, (256, 512, 1024, 2048)),
}


def seconds_of(work: Callable[[], object]) -> float:
    """Median of `ROUNDS` after an untimed one."""
    work()
    return median(times(work, torch.device("cpu"))["seconds"] for _ in range(ROUNDS))


def growth(values: tuple[int, ...], seconds: list[float]) -> float:
    """Power p that fits all values best: 1 = seconds grow in proportion, 2 = with the square."""
    return linear_regression([math.log(value) for value in values], [math.log(s) for s in seconds]).slope


def main() -> None:
    """Measure all and print."""
    found = {}
    for name, (make, values) in STUDIES.items():
        seconds = [seconds_of(make(value)) for value in values]
        found[name] = {"values": values, "seconds": seconds, "power": growth(values, seconds)}
    print(json.dumps(found))


if __name__ == "__main__":
    main()
