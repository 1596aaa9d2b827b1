"""Geometry and Point-MAE agree between CPU and CUDA: indices exactly, features to rounding."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from lib import neighbors
from lib.extractors.point_mae import POINT_MAE_EMBEDDED, POINT_MAE_EVAL, POINT_MAE_RELEASED, PointMAEExtractor
from tests.test_neighbors import CLOUDS, SHIFT_M, gridded, random_cloud
from tests.test_point_mae import CASE, made_sample, rule_network

pytestmark = pytest.mark.gpu


@pytest.fixture(params=[*CLOUDS, "case", "large"])
def points(request: pytest.FixtureRequest) -> torch.Tensor:
    if request.param == "case":
        return torch.from_numpy(CASE["points"])
    return random_cloud(3, 23_753) if request.param == "large" else CLOUDS[request.param]


def test_indices_are_the_same(points) -> None:
    on_cuda = points.cuda()
    chosen = neighbors.farthest_points(points, 211)
    assert torch.equal(neighbors.farthest_points(on_cuda, 211).cpu(), chosen)
    rows, squared = neighbors.nearest_points(points, points[chosen], 128)
    rows_cuda, squared_cuda = neighbors.nearest_points(on_cuda, on_cuda[chosen], 128)
    assert torch.equal(rows_cuda.cpu(), rows)
    assert torch.equal(squared_cuda.cpu(), squared)
    found, weights = neighbors.interpolation_weights(points, points[chosen])
    found_cuda, weights_cuda = neighbors.interpolation_weights(on_cuda, on_cuda[chosen])
    assert torch.equal(found_cuda.cpu(), found)
    torch.testing.assert_close(weights_cuda.cpu(), weights, rtol=1e-6, atol=0)


def test_a_shift_of_eight_metres_changes_no_group_on_cuda() -> None:
    points = gridded(random_cloud(4, 9_973)).cuda()
    groups, centers = neighbors.group_points(points, 211, 32)
    moved, moved_centers = neighbors.group_points(points + SHIFT_M.cuda(), 211, 32)
    assert torch.equal(groups, moved)
    assert torch.equal(centers + SHIFT_M.cuda(), moved_centers)


@pytest.mark.parametrize("preset", [POINT_MAE_EVAL, POINT_MAE_RELEASED, POINT_MAE_EMBEDDED])
def test_extractor_agrees_between_cpu_and_cuda(preset) -> None:
    config = dataclasses.replace(preset, num_groups=101, group_size=23)
    results = []
    for device in ("cpu", "cuda"):
        extractor = PointMAEExtractor(config, weights="random", device=device)
        extractor.network.load_state_dict(rule_network(config).state_dict())
        tokens, centers = extractor(made_sample())
        assert tokens.device.type == centers.device.type == "cpu"
        results.append((tokens, centers))
    assert torch.equal(results[0][1], results[1][1])
    torch.testing.assert_close(results[0][0], results[1][0], rtol=0, atol=1e-3)
