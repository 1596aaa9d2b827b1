"""Own scans: a camera played by dataset samples, and pictures of scores against a threshold."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from lib.data import SampleFiles, read_sample
from lib.predictor import choose_threshold
from lib.runtime import seeded_generator

UNIT_M = 1e-4  # a tenth of a millimetre: 16 bits reach 6.5 m
JITTER = 0.28  # of the dots of one row, in rows


def play_camera(samples: Sequence[SampleFiles], folder: Path) -> Path:
    """Folder with color/*.png and depth/*.png (16 bits, tenths of a millimetre), masks/*.png and camera.json.

    What a user's own script would write after a session with an RGB-D camera; here the scans are dataset samples whose
    camera is known.

    Args:
        samples: of one category; samples of different defects must not share a stem.
        folder: made if missing; files that are there are written anew.
    """
    for kind in ("color", "depth", "masks"):
        (folder / kind).mkdir(parents=True, exist_ok=True)
    for files in samples:
        raw = read_sample(files)
        Image.fromarray(raw.rgb).save(folder / "color" / f"{files.stem}.png")
        units = np.rint(raw.cloud[..., 2] / UNIT_M).astype(np.uint16)
        Image.fromarray(units).save(folder / "depth" / f"{files.stem}.png")
        Image.fromarray(raw.gt_mask.astype(np.uint8) * 255).save(folder / "masks" / f"{files.stem}.png")
    calibration = samples[0].rgb.parents[3] / "calibration" / "camera_parameters.json"
    camera = json.loads(calibration.read_text(encoding="utf-8"))
    names = ("width", "height", "fx", "fy", "cx", "cy")
    (folder / "camera.json").write_text(json.dumps({name: camera[name] for name in names}), encoding="utf-8")
    return folder


def score_strips(scores: Mapping[str, Sequence[float]], threshold: float, xlabel: str) -> Figure:
    """One row of dots a group, and the threshold as a line; dots beyond it are filled.

    Args:
        scores: image scores by group, drawn from top to bottom.
        threshold: above it a scan is called anomalous.
        xlabel: what the scores are.
    """
    figure, axis = plt.subplots(figsize=(6.4, 0.36 * len(scores) + 0.8))
    for row, (name, values) in enumerate(scores.items()):
        height = row + seeded_generator(name).uniform(-JITTER, JITTER, len(values))
        values = np.asarray(values)
        above = values > threshold
        axis.scatter(values[above], height[above], s=16, color="C1", linewidths=0)
        axis.scatter(values[~above], height[~above], s=16, facecolors="none", edgecolors="C0", linewidths=0.8)
    axis.axvline(threshold, color="black", linewidth=1, linestyle="--")
    axis.set(yticks=range(len(scores)), yticklabels=list(scores), xlabel=xlabel, ylim=(len(scores) - 0.5, -0.5))
    return figure


def with_share(shares: Mapping[str, float], share: float) -> str:
    """All names that have a share, and the share: "bump, hole (100%)".

    Args:
        shares: by name.
        share: one of them, such as the largest.
    """
    return f"{', '.join(name for name, found in shares.items() if found == share)} ({share:.0%})"


def repeated_alarm_rates(
    good_scores: Sequence[float], num_held_out: int, false_alarm_rate: float, num_draws: int, seed: int
) -> np.ndarray:
    """(num_draws,) share of false alarms among good scans when the held-out ones are drawn anew each time.

    Args:
        good_scores: of good scans that the fit has not seen; those not held out count the alarms.
        num_held_out: that choose the threshold.
        false_alarm_rate: wanted.
        num_draws: how often.
        seed: of the draws.
    """
    scores, generator = np.asarray(good_scores), seeded_generator(seed, "held out")
    rates = []
    for _ in range(num_draws):
        order = generator.permutation(len(scores))
        threshold = choose_threshold(scores[order[:num_held_out]], false_alarm_rate)
        rates.append(float(np.mean(scores[order[num_held_out:]] > threshold)))
    return np.array(rates)
