"""A predictor says what the road over a dataset says, survives its file, and its threshold keeps its promise."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from lib.config import ExtractorSpec
from lib.data import RawSample
from lib.errors import InputError
from lib.extractors import get_extractor
from lib.features import Standardizer
from lib.heads.ast import ASTConfig
from lib.heads.cfm import CFM
from lib.instances import CFM_TOY
from lib.methods import FusionConfig, LSFAConfig, NearestNeighborConfig
from lib.predictor import Predictor, choose_threshold, fit_predictor, load_predictor, raw_scan
from lib.preparation import PREPARATION_DEFAULT, PREPARATION_SEED, prepare_sample
from lib.stored_heads import save_head
from tests.fixtures_mvtec import make_scene

SPEC = ExtractorSpec("handcrafted", "handcrafted")


def scans(count: int, defect: str = "good", first: int = 0) -> list[RawSample]:
    scenes = [make_scene(seed, defect) for seed in range(first, first + count)]
    return [raw_scan(scene.rgb, scene.cloud) for scene in scenes]


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    return fit_predictor(scans(5), CFM_TOY, SPEC, seed=3)


def test_is_the_road_over_a_dataset(predictor: Predictor) -> None:
    extractor = get_extractor(SPEC)
    prepared = [prepare_sample(scan, PREPARATION_DEFAULT, PREPARATION_SEED) for scan in scans(6)]
    features = [extractor(sample) for sample in prepared]
    standardizer = Standardizer.fit(features[:5])
    features = [standardizer.apply(sample) for sample in features]
    head = CFM(CFM_TOY, extractor.rgb_dim, extractor.xyz_dim)
    head.fit(features[:5], seed=3)
    (expected,) = head.predict(features[5], ("product",)).values()
    found = predictor.predict(scans(6)[5].rgb, scans(6)[5].cloud)
    assert found.image_score == expected.image_score and found.is_anomalous is None
    assert found.anomaly_map.shape == (120, 100) and found.anomaly_map.dtype == np.float32
    enlarged = torch.nn.functional.interpolate(expected.anomaly_map[None, None], size=(200, 200), mode="bilinear")[0, 0]
    np.testing.assert_allclose(found.anomaly_map, enlarged[40:160, 50:150], atol=1e-5)


def test_the_map_points_at_defects_on_the_cameras_own_pixels() -> None:
    predictor = fit_predictor(scans(6), NearestNeighborConfig(), SPEC, "concat")
    for seed in (31, 32, 33):
        scene = make_scene(seed, "stain")
        found = predictor.predict(scene.rgb, scene.cloud).anomaly_map
        assert found[scene.gt_mask].mean() > 2.5 * found[scene.dome & ~scene.gt_mask].mean()


def test_deviations_have_the_floor_that_is_asked_for() -> None:
    plain, floored = (
        fit_predictor(scans(3), NearestNeighborConfig(bank_rows=50), SPEC, std_floor=floor).standardizer
        for floor in (None, 1.0)
    )
    assert torch.equal(floored.xyz_std, plain.xyz_std.clamp(min=float(plain.xyz_std.median())))
    assert not torch.equal(floored.rgb_std, plain.rgb_std)


@pytest.mark.parametrize("config", [CFM_TOY, NearestNeighborConfig(bank_rows=50)], ids=["cfm", "nn"])
@pytest.mark.parametrize("standardize", [True, False])
def test_a_loaded_predictor_says_the_same(tmp_path: Path, config, standardize: bool) -> None:
    fitted = fit_predictor(scans(3), config, SPEC, standardize=standardize).with_threshold(range(19), 0.05)
    fitted.save(tmp_path / "part.safetensors")
    loaded = load_predictor(tmp_path / "part.safetensors")
    scan = scans(1, "hole", first=9)[0]
    ours, theirs = (one.predict(scan.rgb, scan.cloud) for one in (fitted, loaded))
    assert np.array_equal(ours.anomaly_map, theirs.anomaly_map)
    assert (ours.image_score, ours.is_anomalous) == (theirs.image_score, theirs.is_anomalous)
    assert loaded.threshold == 18.0 and ours.is_anomalous is (ours.image_score > 18.0)
    loaded.save(tmp_path / "again.safetensors")
    assert (tmp_path / "again.safetensors").read_bytes() == (tmp_path / "part.safetensors").read_bytes()


def test_wrong_scans_are_told(predictor: Predictor) -> None:
    scan = scans(1)[0]
    for rgb, cloud, words in (
        (scan.rgb.astype(float), scan.cloud, "rgb: shape"),
        (scan.rgb[..., 0], scan.cloud, "rgb: shape"),
        (scan.rgb, scan.cloud[:-1], "cloud: shape"),
        (scan.rgb, scan.cloud.astype(np.float64), "float64"),
        (scan.rgb, scan.cloud * 1000, "millimetres"),
        (scan.rgb, np.zeros_like(scan.cloud), "empty cloud"),
        (scan.rgb, np.where(scan.cloud == 0, np.float32(np.nan), scan.cloud), "NaN or inf"),
    ):
        with pytest.raises(InputError, match=words):
            predictor.predict(rgb, cloud)


def test_methods_that_need_more_are_refused() -> None:
    with pytest.raises(InputError, match="no scans of good parts"):
        fit_predictor([], CFM_TOY, SPEC)
    with pytest.raises(InputError, match="variant"):
        fit_predictor(scans(1), CFM_TOY, SPEC, variant="best")
    with pytest.raises(InputError, match="needs validation scans"):
        fit_predictor(scans(1), FusionConfig(CFM_TOY, LSFAConfig()), SPEC)
    with pytest.raises(InputError, match="no square grid"):
        fit_predictor(scans(1), ASTConfig(), SPEC, standardize=False)
    with pytest.raises(InputError, match="cannot read standardized features"):
        fit_predictor(scans(1), ASTConfig(), SPEC)
    for wrong in (0, -1.0, True):
        with pytest.raises(InputError, match=f"fit_predictor: std_floor is {wrong}; give a positive number"):
            fit_predictor(scans(1), CFM_TOY, SPEC, std_floor=wrong)
    with pytest.raises(InputError, match="std_floor has no effect without standardize"):
        fit_predictor(scans(1), CFM_TOY, SPEC, standardize=False, std_floor=1.0)


@pytest.mark.parametrize("content", [None, b"", b"<html>"])
def test_a_file_that_is_no_predictor_is_named(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "part.safetensors"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=r"part\.safetensors"):
        load_predictor(path)


def test_a_head_alone_is_no_predictor(tmp_path: Path, predictor: Predictor) -> None:
    save_head(tmp_path / "head.safetensors", predictor.head, 3, 5)
    with pytest.raises(InputError, match="is no predictor of this version"):
        load_predictor(tmp_path / "head.safetensors")


def test_threshold_by_hand() -> None:
    scores = [3.0, 1.0, 2.0, 5.0, 4.0, 9.0, 8.0, 7.0, 6.0]
    assert choose_threshold(scores, 0.1) == 9.0  # the tenth of ten ranks may be above
    assert choose_threshold(scores, 0.2) == 8.0
    assert choose_threshold(scores, 0.5) == 5.0
    assert choose_threshold(scores, 0.15) == 9.0


@pytest.mark.parametrize("rate", [0.05, 0.1, 0.3])
@pytest.mark.parametrize("number", [19, 20, 37])
def test_threshold_keeps_its_promise_on_average(rate: float, number: int) -> None:
    generator = np.random.default_rng(0)
    alarms = []
    for _ in range(4000):
        drawn = generator.gamma(2.0, size=number + 1)
        alarms.append(drawn[-1] > choose_threshold(drawn[:-1], rate))
    assert np.mean(alarms) <= rate + 3 * (rate / 4000) ** 0.5
    assert np.mean(alarms) >= rate - 1 / (number + 1) - 3 * (rate / 4000) ** 0.5


def test_too_few_scans_and_wrong_rates_are_told() -> None:
    with pytest.raises(InputError, match=r"18 held-out scans cannot bound false alarms at 0\.05; scan at least 19"):
        choose_threshold(range(18), 0.05)
    for rate in (0.0, 1.0, -0.1):
        with pytest.raises(InputError, match="give a share above 0"):
            choose_threshold(range(18), rate)
    with pytest.raises(InputError, match="not finite"):
        choose_threshold([1.0, float("nan")], 0.5)
