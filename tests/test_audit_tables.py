"""Tables of the audit: the blur's width against the sum of variances, and mixtures far away against slow sums."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lib.audit_tables import effective_sigma_px, far_from_origin, mixture_error
from lib.errors import InputError
from lib.methods import Scoring
from lib.neighbors import expanded_weights, interpolation_weights


@pytest.mark.parametrize("sigma", [2.0, 4.0])
def test_a_gaussian_has_its_own_sigma(sigma):
    assert effective_sigma_px(Scoring(blur_sigma_px=sigma)) == pytest.approx(sigma, rel=2e-3)


def test_variances_of_boxes_add_up():
    variance = 5 * (5**2 - 1) / 12 + 3 * (7**2 - 1) / 12  # of a discrete box of n pixels: (n^2 - 1) / 12
    assert effective_sigma_px(Scoring(blur="box")) == pytest.approx(variance**0.5, rel=1e-4)


def test_no_blur_has_no_width():
    assert effective_sigma_px(Scoring(blur="none")) == 0


def pair(seed: int = 0, points: int = 300, centers: int = 40) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    return tuple((generator.random((n, 3)) * 0.1).astype(np.float32) for n in (points, centers))


@pytest.mark.parametrize("away_m", [0.0, 3.0, 30.0])
def test_mixture_error_equals_the_slow_sum_over_all_centers(away_m):
    points, centers = (torch.from_numpy(part) + torch.tensor([0, 0, away_m]) for part in pair())
    dense = []
    for rows, weights in (interpolation_weights(points, centers), expanded_weights(points, centers)):
        full = torch.zeros(len(points), len(centers))
        for number in range(len(points)):
            for row, weight in zip(rows[number], weights[number], strict=True):
                full[number, row] += weight
        dense.append(full)
    errors, negative = mixture_error(points, centers)
    torch.testing.assert_close(errors, (dense[0] - dense[1]).abs().sum(dim=1) / 2, atol=2e-6, rtol=1e-5)
    assert torch.equal(negative, (dense[1] < 0).any(dim=1))
    assert bool(negative.any()) == (away_m == 30)
    assert float(errors[~negative].max()) <= 1 + 1e-5


def test_the_farther_the_worse():
    table = far_from_origin([pair(), pair(1)], (0.0, 2.0, 50.0))
    assert table.index.tolist() == ["moved by 0 m", "moved by 2 m", "moved by 50 m"]
    worsening = ["median error of the mixture", "other nearest center"]
    assert all(table[name].is_monotonic_increasing for name in worsening)
    assert table["median error of the mixture"].iloc[0] < 0.01 < table["median error of the mixture"].iloc[-1]
    assert table["negative weight"].iloc[0] == 0 < table["negative weight"].iloc[-1] < 1
    assert table["distance from the origin, m"].tolist() == pytest.approx([0.086, 2.05, 50.05], abs=0.02)


def test_too_few_centers_are_told():
    with pytest.raises(InputError, match="centers"):
        far_from_origin([(pair()[0], pair()[1][:2])], (0.0,))
