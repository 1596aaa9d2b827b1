"""The played camera gives back its samples; the strips and the repeated draws say what they should."""

from __future__ import annotations

import json
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest

from lib.camera import read_intrinsics, read_scan
from lib.data import list_samples, read_sample
from lib.part_figures import UNIT_M, play_camera, repeated_alarm_rates, score_strips, with_share
from lib.synth3d import Counts, write_category


def test_the_camera_sees_what_the_sample_shows(tmp_path: Path) -> None:
    write_category(tmp_path, "sweet", seed=3, counts=Counts(1, 0, 0, 0), progress=False)
    (files,) = list_samples(tmp_path, "sweet", "train")
    folder = play_camera([files], tmp_path / "scans")
    intrinsics = read_intrinsics(folder / "camera.json")
    assert json.loads((folder / "camera.json").read_text())["width"] == intrinsics.width
    raw = read_sample(files)
    found = read_scan(folder / "depth" / "000.png", "depth", intrinsics, UNIT_M, raw.rgb.shape[:2], far_m=10)
    np.testing.assert_allclose(found, raw.cloud, atol=6e-5)
    assert np.array_equal(found.any(axis=2), raw.cloud.any(axis=2))


def test_strips_fill_what_lies_above_the_threshold() -> None:
    figure = score_strips({"good": [1.0, 2.0], "defect": [2.5, 9.0, 1.5]}, 2.0, "score")
    (axis,) = figure.axes
    above, below = axis.collections[2], axis.collections[3]
    assert above.get_offsets()[:, 0].tolist() == [2.5, 9.0] and below.get_offsets()[:, 0].tolist() == [1.5]
    assert [label.get_text() for label in axis.get_yticklabels()] == ["good", "defect"]
    plt.close(figure)


def test_ties_are_all_named() -> None:
    shares = {"bump": 1.0, "stain": 4 / 15, "hole": 1.0, "cut": 14 / 15}
    assert with_share(shares, max(shares.values())) == "bump, hole (100%)"
    assert with_share(shares, min(shares.values())) == "stain (27%)"


def test_repeated_draws_keep_the_promise_on_average() -> None:
    scores = np.random.default_rng(0).normal(size=70)
    rates = repeated_alarm_rates(scores, 39, 0.1, 500, seed=1)
    assert rates.shape == (500,) and rates.mean() == pytest.approx(0.1, abs=0.02)
    assert np.array_equal(rates, repeated_alarm_rates(scores, 39, 0.1, 500, seed=1))
