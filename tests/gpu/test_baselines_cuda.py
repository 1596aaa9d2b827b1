"""BTF, M3DM and AST: a head fitted on the CPU predicts alike on CUDA, and each can be fitted there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from lib.head_choice import make_head
from lib.heads.ast import ASTConfig
from lib.heads.btf import BTFConfig
from lib.heads.feature_fusion import UFFConfig
from lib.heads.m3dm import M3DMConfig
from lib.stored_heads import load_head, save_head
from tests.factories import make_features

pytestmark = pytest.mark.gpu

UFF = UFFConfig(projection_dim=4, num_epochs=2, batch_size=2, accumulate=1, scope="category")
CONFIGS = {
    "btf": BTFConfig(grid_side=5, coreset_fraction=0.3),
    "m3dm": M3DMConfig(grid_side=5, rgb_side=4, coreset_fraction=0.3, uff=UFF),
    "ast": ASTConfig(mask="foreground", student_width=8, teacher_epochs=2, student_epochs=2, batch_size=2),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_a_head_fitted_on_the_cpu_predicts_alike_on_cuda(name: str, tmp_path: Path) -> None:
    samples = [make_features(seed=seed, groups=25) for seed in range(5)]
    head = make_head(CONFIGS[name], samples[0], "cpu")
    head.fit(samples[:4], 0)
    save_head(tmp_path / "head.safetensors", head, 3, 5)
    on_cuda = load_head(tmp_path / "head.safetensors", "cuda")
    for variant, expected in head.predict(samples[4]).items():
        found = on_cuda.predict(samples[4])[variant]
        torch.testing.assert_close(found.anomaly_map, expected.anomaly_map, rtol=1e-3, atol=1e-4)
        assert found.image_score == pytest.approx(expected.image_score, rel=1e-3, abs=1e-4)


@pytest.mark.parametrize("name", CONFIGS)
def test_a_head_can_be_fitted_on_cuda(name: str) -> None:
    samples = [make_features(seed=seed, groups=25) for seed in range(5)]
    scores: list[Any] = []
    for device in ("cpu", "cuda"):
        head = make_head(CONFIGS[name], samples[0], device)
        head.fit(samples[:4], 0)
        scores.append([prediction.image_score for prediction in head.predict(samples[4]).values()])
    assert scores[1] == pytest.approx(scores[0], rel=0.05, abs=0.01)
