"""CPU and CUDA agree. Run by `make test-gpu` on a machine with a CUDA device; `make test` leaves these out."""

from __future__ import annotations

import pytest
import torch

from lib.heads.cfm import CFM
from lib.heads.memory_bank import NearestNeighbor
from lib.methods import CFMConfig, NearestNeighborConfig
from lib.stored_heads import load_head, save_head
from tests.factories import make_features

pytestmark = pytest.mark.gpu


def test_cfm_maps_agree_between_cpu_and_cuda(tmp_path) -> None:
    samples = [make_features(seed=s) for s in range(3)]
    head = CFM(CFMConfig(hidden_dim=8, num_epochs=2), samples[0].rgb_tokens.shape[0], samples[0].xyz_tokens.shape[1])
    head.fit(samples, seed=0)
    sizes = samples[0].rgb_tokens.shape[0], samples[0].xyz_tokens.shape[1]
    save_head(tmp_path / "head.safetensors", head, *sizes)
    on_cuda = load_head(tmp_path / "head.safetensors", device="cuda")
    for ours, theirs in zip(head.discrepancies(samples[0]), on_cuda.discrepancies(samples[0]), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_cfm_trains_alike_on_cpu_and_cuda() -> None:
    samples = [make_features(seed=s) for s in range(3)]
    sizes = samples[0].rgb_tokens.shape[0], samples[0].xyz_tokens.shape[1]
    config = CFMConfig(hidden_dim=8, num_epochs=5, pixels_per_image=31)
    curves = [CFM(config, *sizes, device=device).fit(samples, seed=0)["rgb_to_xyz"] for device in ("cpu", "cuda")]
    assert curves[1] == pytest.approx(curves[0], rel=1e-3)


def test_nearest_neighbor_agrees_between_cpu_and_cuda() -> None:
    samples = [make_features(seed=s) for s in range(3)]
    sizes = samples[0].rgb_tokens.shape[0], samples[0].xyz_tokens.shape[1]
    maps = []
    for device in ("cpu", "cuda"):
        head = NearestNeighbor(NearestNeighborConfig(bank_rows=29), *sizes, device=device)
        head.fit(samples, seed=0)
        maps.append(head.predict(make_features(seed=9))["concat"].anomaly_map)
    torch.testing.assert_close(*maps, rtol=1e-4, atol=1e-4)
