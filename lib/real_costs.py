"""What a real dataset costs before it is run: disk, GPU memory and hours a category, from measured parts.

The parts are in `results/bench`: made-up data at the papers' sizes, measured on one named machine.
Letter: M patches of a bank.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd

from lib.config import project_root
from lib.datasets import Counts, Dataset
from lib.instances import CFM_PAPER, CFM_RELEASED, LSFA_PAPER

BYTES_PER_PREPARED_PIXEL = 3 + 12 + 4  # RGB, three coordinates and depth, before compression
PAD_MULTIPLE_PX = {"mvtec3d": 100, "eyecandies": 1}  # of the preparations of the two profiles
CFM_EPOCHS = {"mvtec3d": CFM_PAPER.num_epochs, "eyecandies": CFM_RELEASED.num_epochs}
MS_PER_HOUR = 3.6e6
S_PER_HOUR = 3600
PATCHES = {"28 x 28": 784, "56 x 56": 3136}


def read_bench(device: str) -> dict[str, Any]:
    """Measured costs on "cpu" or "cuda", with the machine's name: a file of `results/bench`."""
    path: Path = project_root() / "results" / "bench" / f"{device}.json"
    return json.loads(path.read_text(encoding="utf-8"))


def num_samples(counts: Counts) -> int:
    """All samples of a category."""
    return counts.train + counts.validation + counts.test_good + counts.test_anomalous


def disk_table(dataset: Dataset, feature_mb: float) -> pd.DataFrame:
    """Samples, GB of the prepared copy at most, and GB of cached features, by category, with their sum.

    Args:
        dataset: whose samples are counted.
        feature_mb: megabytes of one sample's features, measured.
    """
    rows = {}
    for category, counts in dataset.counts.items():
        multiple = PAD_MULTIPLE_PX[dataset.name]
        side = -(-max(dataset.sizes_px[category]) // multiple) * multiple
        number = num_samples(counts)
        rows[category] = {
            "samples": number,
            "prepared copy, GB": number * side**2 * BYTES_PER_PREPARED_PIXEL / 1e9,
            "features, GB": number * feature_mb / 1e3,
        }
    table = pd.DataFrame.from_dict(rows, orient="index")
    table.loc["all"] = table.sum()
    return table.astype({"samples": int})


def hours_table(dataset: Dataset, measured: dict[str, dict[str, float]]) -> pd.DataFrame:
    """Hours by category of each step whose parts were measured, with their sum.

    CFM: training samples x epochs x the milliseconds of one sample. LSFA: training samples x epochs x the seconds of
    one sample, then two banks of 56 x 56 patches. A bank: a tenth of M picks, each over M rows, so (M / measured M)^2
    times the measured seconds.

    Args:
        dataset: whose samples are counted.
        measured: `results` of `read_bench("cuda")`.
    """
    rows = {}
    for category, counts in dataset.counts.items():
        banks = {grid: bank_hours(counts.train * number, measured) for grid, number in PATCHES.items()}
        lsfa_sample_s = measured["epoch_of_64_samples"]["seconds"] / 64
        both_ms = measured["extraction"]["rgb_ms"] + measured["extraction"]["xyz_ms"]
        rows[category] = {
            "features": num_samples(counts) * both_ms / MS_PER_HOUR,
            "CFM": counts.train * CFM_EPOCHS[dataset.name] * measured["cfm"]["train_ms"] / MS_PER_HOUR,
            "LSFA": counts.train * LSFA_PAPER.num_epochs * lsfa_sample_s / S_PER_HOUR + 2 * banks["56 x 56"],
            "PatchCore": 2 * banks["56 x 56"],
            "BTF": 3 * banks["28 x 28"],
            "M3DM, banks": 2 * banks["56 x 56"] + banks["28 x 28"],
        }
    table = pd.DataFrame.from_dict(rows, orient="index")
    table.loc["all"] = table.sum()
    return table


def bank_hours(num_patches: int, measured: dict[str, dict[str, float]]) -> float:
    """Hours that the selection of a bank takes: picks and the rows each looks at both grow with the patches."""
    whole = measured["every_pick_244"]
    return whole["seconds"] * (num_patches / whole["rows"]) ** 2 / S_PER_HOUR


def memory_table(measured: dict[str, dict[str, float]]) -> pd.DataFrame:
    """Largest GPU memory in GB of each measured step."""
    steps = {
        "extraction": "features, one sample",
        "cfm": f"CFM, batch of {CFM_PAPER.batch_size}",
        "epoch_of_64_samples": f"LSFA, batch of {LSFA_PAPER.batch_size}",
        "every_pick_244": "bank of 244 samples (bagel); more samples take more",
    }
    rows = {text: {"GPU memory, GB": measured[name]["peak_gb"]} for name, text in steps.items()}
    return pd.DataFrame.from_dict(rows, orient="index")
