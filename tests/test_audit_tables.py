"""Tables of the audit: the blur's width against the sum of variances, and interpolation far away against float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lib.audit_tables import effective_sigma_px, far_from_origin, wrong_share
from lib.errors import InputError
from lib.methods import Scoring


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


def test_wrong_share_equals_the_slow_sum_over_all_centers():
    points, centers = (torch.from_numpy(part) + torch.tensor([0, 0, 8.0]) for part in pair())
    from lib.neighbors import expanded_weights, interpolation_weights

    dense = []
    for rows, weights in (interpolation_weights(points, centers), expanded_weights(points, centers)):
        full = torch.zeros(len(points), len(centers))
        for number in range(len(points)):
            for row, weight in zip(rows[number], weights[number], strict=True):
                full[number, row] += weight
        dense.append(full)
    expected = (dense[0] - dense[1]).abs().sum(dim=1) / 2
    torch.testing.assert_close(wrong_share(points, centers), expected, atol=2e-6, rtol=1e-5)
    assert 0 < float(expected.mean()) < 1


def test_the_farther_the_worse():
    table = far_from_origin([pair(), pair(1)], (0.0, 2.0, 20.0))
    assert table["wrong share"].is_monotonic_increasing and table["other nearest center"].is_monotonic_increasing
    assert table["wrong share"].iloc[0] < 0.01 < table["wrong share"].iloc[-1] <= 1
    assert table["distance from the origin, m"].tolist() == pytest.approx([0.086, 2.05, 20.05], abs=0.02)


def test_too_few_centers_are_told():
    with pytest.raises(InputError, match="centers"):
        far_from_origin([(pair()[0], pair()[1][:2])], (0.0,))
