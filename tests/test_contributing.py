"""The method that CONTRIBUTING.md prints as an example, taken from there and run as a contributor would."""

from __future__ import annotations

import dataclasses
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

import lib.heads
from lib import experiment
from lib.config import project_root
from lib.head_choice import make_head
from lib.heads.memory_bank import joint_rows
from lib.patches import dense_map, read_patches
from lib.profiles import MethodSpec, read_method
from lib.stored_heads import load_head, save_head
from tests.factories import make_features
from tests.fixture_study import CATEGORY, HANDCRAFTED, FixtureProfile

TEXT = (project_root() / "CONTRIBUTING.md").read_text(encoding="utf-8")
TRAIN = [make_features(seed=seed) for seed in range(4)]


def block(language: str) -> str:
    (found,) = re.findall(rf"```{language}\n(.*?)```", TEXT, re.DOTALL)
    return found


@pytest.fixture
def spec(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[MethodSpec]:
    """The method by its profile line, with its file beside the other heads."""
    (tmp_path / "more_heads").mkdir()
    (tmp_path / "more_heads" / "mahalanobis.py").write_text(block("python"), encoding="utf-8")
    monkeypatch.setattr(lib.heads, "__path__", [*lib.heads.__path__, str(tmp_path / "more_heads")])
    ((name, entry),) = yaml.safe_load(block("yaml")).items()
    yield read_method(name, entry, {"categories": [CATEGORY], "extractor": HANDCRAFTED}, ablation=False)
    sys.modules.pop("lib.heads.mahalanobis", None)


def test_one_file_and_one_line_are_enough_to_get_records_and_maps(study: FixtureProfile, spec: MethodSpec) -> None:
    profile = dataclasses.replace(study, methods={**study.methods, spec.name: spec})
    (record,) = experiment.run(profile, spec.name, CATEGORY, 0).values()
    assert record["config"]["method"] == {"type": "MahalanobisConfig", "shrinkage": 0.01}
    assert 0 <= record["metrics"]["image_auroc"] <= 1
    assert experiment.load_maps(profile, spec.name, CATEGORY, "map").shape == (3, 224, 224)


def test_it_computes_what_it_says_and_survives_a_file(spec: MethodSpec, tmp_path: Path) -> None:
    head, sample = make_head(spec.config, TRAIN[0], "cpu"), make_features(seed=9)
    head.fit(TRAIN, 0)
    rows = torch.cat([joint_rows(read_patches(normal)) for normal in TRAIN]).double().numpy()
    covariance = np.cov(rows.T)
    covariance += np.eye(len(covariance)) * 0.01 * np.diag(covariance).mean()
    apart = joint_rows(read_patches(sample)).double().numpy() - rows.mean(axis=0)
    distances = [np.sqrt(row @ np.linalg.solve(covariance, row)) for row in apart]
    expected = dense_map(torch.tensor(distances, dtype=torch.float32), read_patches(sample), 4.0)
    found = head.predict(sample)["map"]
    torch.testing.assert_close(found.anomaly_map, expected, rtol=1e-3, atol=1e-4)
    save_head(tmp_path / "head.safetensors", head, 3, 5)
    loaded = load_head(tmp_path / "head.safetensors").predict(sample)["map"]
    assert torch.equal(loaded.anomaly_map, found.anomaly_map) and loaded.image_score == found.image_score
