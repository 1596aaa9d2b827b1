"""Tables and figures of the chapter on full training: what it costs, what it needs, and what less precision does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
import torch
from matplotlib.figure import Figure

from lib.config import project_root
from lib.heads.adaptor_training import memory_needs as adaptor_needs
from lib.heads.cfm_training import mapping_gb
from lib.heads.mapping_networks import MappingMLP
from lib.instances import CFM_PAPER, LSFA_PAPER
from lib.patches import PatchSet
from lib.real_costs import read_bench
from lib.tables import Record, flat_metrics
from lib.training import GPU_PRESETS
from lib.training_plan import FRAME_PX, PAPER_SIZES

PRECISIONS = {"float32": "float32", "bf16": "bf16", "fp16": "fp16, scaled"}
METRICS = {"image_auroc": "I-AUROC", "aupro": "AUPRO@30%"}
LOOPS = {
    "plain": "as released",
    "ours_float32": "ours, float32",
    "ours_tf32": "ours, tf32",
    "ours_bf16": "ours, bf16",
    "ours_fp16": "ours, fp16",
    "ours_float32_compiled": "ours, float32, compiled",
    "ours_bf16_compiled": "ours, bf16, compiled",
}
PARTS = {  # of a sample in an epoch: text and color
    "features": ("features", "#D55E00"),
    "reading": ("dense maps, or reading pixels", "#E69F00"),
    "networks": ("the two networks", "#0072B2"),
}
MS_PER_S = 1e3


def training_benches() -> dict[str, dict[str, Any]]:
    """Recorded costs of the training loops by device, "cpu" or "cuda", as far as they were measured."""
    folder = project_root() / "results" / "bench"
    found = [device for device in ("cpu", "cuda") if (folder / f"training_{device}.json").is_file()]
    return {device: read_bench(f"training_{device}") for device in found}


def full_size_memory() -> pd.DataFrame:
    """GB of GPU memory that CFM and LSFA take at most at the paper's sizes, whole frames, by preset."""
    network = MappingMLP(PAPER_SIZES.rgb_dim, PAPER_SIZES.xyz_dim)
    sample_bytes = 4 * (PAPER_SIZES.rgb_tokens * PAPER_SIZES.rgb_dim + PAPER_SIZES.xyz_tokens * PAPER_SIZES.xyz_dim)
    sample_bytes += FRAME_PX * (3 * 8 + 3 * 4 + 8)  # neighbors, their weights, the pixel's place
    side = LSFA_PAPER.grid_side
    rgb, xyz = torch.zeros(1, PAPER_SIZES.rgb_dim), torch.zeros(1, PAPER_SIZES.xyz_dim)
    patches = PatchSet(rgb, xyz, torch.ones(side, side, dtype=torch.bool), torch.ones(1, 1, dtype=torch.bool), "sample")
    adaptors = adaptor_needs(LSFA_PAPER.adaptors, patches, num_categories=1)
    batch = CFM_PAPER.batch_size
    rows = {}
    for gb, preset in GPU_PRESETS.items():
        cfm = mapping_gb(batch * FRAME_PX, batch * sample_bytes, float("inf"), network, preset)
        needs = {"CFM, GB": cfm, "LSFA, GB": adaptors[gb]}
        rows[f"memory_gb: {gb}"] = {**needs, "pixels at a time": preset.pixels_per_chunk}
    return pd.DataFrame.from_dict(rows, orient="index").astype({"pixels at a time": int})


def sample_parts(name: str, results: Mapping[str, Mapping[str, float]], num_epochs: int) -> dict[str, float]:
    """Milliseconds of one sample in one epoch, by part of the work; features that are made once are spread over epochs.

    Args:
        name: a key of `LOOPS`.
        results: of a record of `training_benches`.
        num_epochs: of a training.
    """
    found = results[name]
    if name == "plain":
        parts = {"features": found["features_s"], "reading": found["dense_maps_s"], "networks": found["networks_s"]}
    else:
        networks = found["epoch_s"] - found["reading_s"]
        once = found["features_once_s"] / num_epochs
        parts = {"features": once, "reading": found["reading_s"], "networks": networks}
    return {part: MS_PER_S * seconds / found["samples"] for part, seconds in parts.items()}


def loop_table(results: Mapping[str, Mapping[str, float]], num_epochs: int) -> pd.DataFrame:
    """Milliseconds of one sample in one epoch by part, their sum, how many times faster than plain, and peak memory."""
    rows = {}
    for name in (name for name in LOOPS if name in results):
        parts = sample_parts(name, results, num_epochs)
        rows[LOOPS[name]] = {**parts, "all": sum(parts.values()), "peak, GB": results[name]["peak_gb"]}
    table = pd.DataFrame.from_dict(rows, orient="index")
    table.insert(len(PARTS) + 1, "times faster", table["all"].iloc[0] / table["all"])
    return table


def loop_bars(results: Mapping[str, Mapping[str, float]], num_epochs: int) -> Figure:
    """Stacked bars of `loop_table`'s milliseconds, one bar a loop."""
    names = [name for name in LOOPS if name in results]
    figure, axis = plt.subplots(figsize=(7.6, 0.36 * len(names) + 1.0))
    left = [0.0] * len(names)
    for part, (text, color) in PARTS.items():
        widths = [sample_parts(name, results, num_epochs)[part] for name in names]
        axis.barh(range(len(names)), widths, left=left, color=color, label=text, height=0.6)
        left = [start + width for start, width in zip(left, widths, strict=True)]
    axis.set_yticks(range(len(names)), [LOOPS[name] for name in names])
    axis.set(ylim=(len(names) - 0.4, -0.6), xlabel="milliseconds of one sample in one epoch")
    figure.legend(loc="outside upper right", ncols=len(PARTS), frameon=False)
    return figure


def precision_table(results: Mapping[str, Mapping[str, float]]) -> pd.DataFrame:
    """Mean metrics of demo trainings by method and precision, and the largest loss against float32 in any run.

    Args:
        results: of a record of `training_benches`.
    """
    rows = {}
    for method, text in (("cfm", "CFM"), ("lsfa", "LSFA")):
        found = results[f"precision_{method}"]
        for precision, shown in PRECISIONS.items():
            if f"image_auroc_{precision}" in found:
                rows[f"{text}, {shown}"] = {
                    name: found[key.format(precision)] for metric, column in METRICS.items()
                    for name, key in ((column, metric + "_{}"), (f"{column}, largest loss", metric + "_worst_{}"))
                }  # fmt: skip
    return pd.DataFrame.from_dict(rows, orient="index")


def training_table(records: Mapping[str, Record], num_epochs: int) -> pd.DataFrame:
    """Seconds of an epoch, last losses and metrics of one experiment a category.

    Args:
        records: by category.
        num_epochs: of each training.
    """
    rows = {}
    for category, record in records.items():
        metrics = flat_metrics(record["metrics"])
        losses = {f"last {name}": curve[-1] for name, curve in record["history"].items()}
        seconds = record["run"]["fit_seconds"] / num_epochs
        rows[category] = {"s an epoch": seconds, **losses, **{name: metrics[name] for name in METRICS.values()}}
    return pd.DataFrame.from_dict(rows, orient="index")


def resumed_curves(
    plain: Mapping[str, Sequence[float]], resumed: Mapping[str, Sequence[float]], killed_after: int
) -> Figure:
    """Losses of a training that ran through, as lines, and of one that was killed and taken up again, as dots."""
    figure, axis = plt.subplots(figsize=(5.6, 2.7))
    for name, color in zip(plain, ("#0072B2", "#D55E00"), strict=False):
        epochs = range(1, len(plain[name]) + 1)
        axis.plot(epochs, plain[name], color=color, label=f"{name}, not interrupted")
        axis.plot(epochs, resumed[name], "o", color=color, markersize=4, label=f"{name}, killed and resumed")
    axis.axvline(killed_after + 0.5, color="#555555", linestyle="--", linewidth=0.8)
    axis.annotate("killed here", (killed_after + 0.5, axis.get_ylim()[1]), (4, -10), textcoords="offset points")
    axis.set(xlabel="epoch", ylabel="mean cosine distance", ylim=(0, None))
    axis.legend(frameon=False, fontsize=8)
    return figure
