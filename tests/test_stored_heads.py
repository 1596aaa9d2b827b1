"""Every head comes back from its file with identical predictions; anything else is one clear line."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from lib.errors import InputError
from lib.head_choice import make_head
from lib.heads import Prediction
from lib.heads.btf import BTFConfig
from lib.heads.feature_fusion import UFFConfig
from lib.heads.m3dm import M3DM_RELEASED, M3DMConfig
from lib.instances import INSTANCES
from lib.methods import AdaptedConfig, CFMConfig, FusionConfig, LSFAConfig, NearestNeighborConfig, PatchCoreConfig
from lib.stored_heads import from_json, load_head, save_head, to_json
from tests.factories import make_features

BANKS = PatchCoreConfig(grid_side=5, coreset_fraction=0.3)
LSFA = LSFAConfig(grid_side=5, coreset_fraction=0.3, num_heads=1, projection_dim=4, num_epochs=2)
TINY_CFM = CFMConfig(hidden_dim=5, num_epochs=1)
M3DM = M3DMConfig(
    grid_side=5, rgb_side=4, coreset_fraction=0.3, uff=UFFConfig(projection_dim=4, num_epochs=1, scope="category")
)
CONFIGS = {
    "cfm": TINY_CFM,
    "nearest_neighbor": NearestNeighborConfig(bank_rows=31),
    "patchcore": BANKS,
    "lsfa": LSFA,
    "adapted_cfm": AdaptedConfig(TINY_CFM, LSFA.adaptors, 5),
    "cells_nn": AdaptedConfig(NearestNeighborConfig(), None, 5),
    "cfm_and_lsfa": FusionConfig(TINY_CFM, LSFA),
    "blind": INSTANCES["BLIND"],
    "btf": BTFConfig(grid_side=5, coreset_fraction=0.3),
    "m3dm": M3DM,
    "m3dm_released": dataclasses.replace(M3DM_RELEASED, grid_side=5, rgb_side=5, uff=M3DM.uff),
    "m3dm_on_lsfa": AdaptedConfig(M3DM, LSFA.adaptors, 5),
}


def fitted(config: Any) -> Any:
    """Head fitted on five samples, with two more to validate."""
    samples = [make_features(seed=seed) for seed in range(7)]
    head = make_head(config, samples[0], "cpu")
    head.fit(samples[:5], 3, **({"validation": samples[5:]} if config.needs_validation else {}))
    return head


def same(first: dict[str, Prediction], second: dict[str, Prediction]) -> bool:
    pairs = [(first[name], second[name]) for name in first]
    maps = all(torch.equal(one.anomaly_map, other.anomaly_map) for one, other in pairs)
    return first.keys() == second.keys() and maps and all(a.image_score == b.image_score for a, b in pairs)


@pytest.mark.parametrize("name", CONFIGS)
def test_a_loaded_head_predicts_the_same(name: str, tmp_path: Path) -> None:
    head, sample = fitted(CONFIGS[name]), make_features(seed=9)
    save_head(tmp_path / "head.safetensors", head, 3, 5)
    loaded = load_head(tmp_path / "head.safetensors")
    assert type(loaded) is type(head) and loaded.config == head.config
    assert same(head.predict(sample, head.variants), loaded.predict(sample, loaded.variants))
    save_head(tmp_path / "again.safetensors", loaded, 3, 5)
    assert (tmp_path / "again.safetensors").read_bytes() == (tmp_path / "head.safetensors").read_bytes()


def test_a_bank_of_all_patches_is_saved_without_an_svm(tmp_path: Path) -> None:
    head = fitted(dataclasses.replace(BANKS, coreset_fraction=1.0))
    save_head(tmp_path / "head.safetensors", head, 3, 5)
    loaded = load_head(tmp_path / "head.safetensors")
    assert same(*(h.predict(make_features(seed=9), ("rgb", "average")) for h in (head, loaded)))
    with pytest.raises(InputError, match="no SVM was saved"):
        loaded.predict(make_features(seed=9), ("svm",))


@pytest.mark.parametrize("name", sorted(INSTANCES))
def test_settings_survive_json(name: str) -> None:
    assert from_json(to_json(INSTANCES[name])) == INSTANCES[name]


@pytest.mark.parametrize("content", [None, b"", b"<html>not found</html>"])
def test_a_file_that_is_no_head_is_named(content: bytes | None, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "head.safetensors").write_bytes(content)
    with pytest.raises(InputError, match=r"head\.safetensors is not a saved head"):
        load_head(tmp_path / "head.safetensors")


def test_a_file_of_other_tensors_is_no_head(tmp_path: Path) -> None:
    path = tmp_path / "head.safetensors"
    save_file({"rows": torch.zeros(3)}, path)
    with pytest.raises(InputError, match="is not a saved head"):
        load_head(path)
    save_head(path, fitted(TINY_CFM), 3, 5)
    save_head(tmp_path / "other.safetensors", fitted(BANKS), 3, 5)
    assert not load_file(path).keys() & load_file(tmp_path / "other.safetensors").keys()


@pytest.mark.parametrize("kind", ["pathlib:Path", "lib.runtime:file_sha256", "lib.heads.cfm:CFM"])
def test_a_file_cannot_ask_for_other_classes(kind: str) -> None:
    with pytest.raises(InputError, match="is no settings class"):
        from_json({"class": kind, "fields": {}})
