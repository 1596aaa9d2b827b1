"""A fitted method that needs no dataset any more: one color image and one organised cloud in, an anomaly map out.

    predictor = load_predictor("mug.safetensors")
    result = predictor.predict(rgb, cloud)

One file holds preparation, extractor, standardization, head and threshold. Letters: H, W pixels of the camera.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from lib.config import ExtractorSpec, check_choice, check_std_floor
from lib.data import RawSample, SampleFiles
from lib.decoding import check_cloud
from lib.errors import InputError
from lib.extractors import Extractor, get_extractor
from lib.features import Features, Standardizer
from lib.grids import unpadded
from lib.heads import build_head
from lib.heads.state import joined, part_of, read_state, write_state
from lib.methods import MethodSettings
from lib.preparation import PREPARATION_DEFAULT, PREPARATION_SEED, PreparationConfig, prepare_sample
from lib.stored_heads import from_json, to_json
from lib.training import device_setup

FORMAT = "predictor 1"
FRESH = "given"  # stands where a file of the sample would be named


@dataclass(frozen=True, eq=False)
class Result:
    """What a predictor says of one scan.

    Attributes:
        anomaly_map: (H, W) float32, higher = more anomalous, 0 off the object.
        image_score: higher = more anomalous.
        is_anomalous: whether the score is above the threshold; None without one.
    """

    anomaly_map: np.ndarray
    image_score: float
    is_anomalous: bool | None


@dataclass(frozen=True, eq=False)
class Predictor:
    """A head with everything that leads to it; made by `fit_predictor` or `load_predictor`.

    Attributes:
        head: fitted.
        variant: which of its predictions counts.
        spec: the extractor.
        preparation: how raw scans are prepared.
        standardizer: of the features, or None.
        threshold: image score above which a scan is called anomalous, or None.
        device: where networks work.
    """

    head: Any
    variant: str
    spec: ExtractorSpec
    preparation: PreparationConfig
    standardizer: Standardizer | None
    threshold: float | None = None
    device: str = "cpu"

    @cached_property
    def extractor(self) -> Extractor:
        """Made when first needed: networks take a second."""
        return get_extractor(self.spec, self.device)

    def predict(self, rgb: np.ndarray, cloud: np.ndarray) -> Result:
        """Map, score and verdict of one scan, on the camera's own pixels.

        Args:
            rgb: (H, W, 3) uint8.
            cloud: (H, W, 3) float32 organised cloud in metres, (0, 0, 0) = no return; see `lib.camera`.

        Raises:
            InputError: other shapes or types, NaN, millimetres, or no object on the plane.
        """
        height, width = check_scan(rgb, cloud)
        features = self._features(raw_scan(rgb, cloud))
        found = self.head.predict(features, (self.variant,))[self.variant]
        score = found.image_score
        anomaly_map = unpadded(found.anomaly_map.numpy(), height, width, self.preparation.pad_multiple)
        return Result(anomaly_map, score, None if self.threshold is None else score > self.threshold)

    def scores(self, scans: Sequence[RawSample]) -> list[float]:
        """Image score of each scan."""
        return [self.predict(scan.rgb, scan.cloud).image_score for scan in scans]

    def _features(self, raw: RawSample) -> Features:
        features = self.extractor(prepare_sample(raw, self.preparation, PREPARATION_SEED))
        return features if self.standardizer is None else self.standardizer.apply(features)

    def with_threshold(self, good_scores: Sequence[float], false_alarm_rate: float) -> Predictor:
        """The same with the threshold that `choose_threshold` gives."""
        return replace(self, threshold=choose_threshold(good_scores, false_alarm_rate))

    def save(self, path: Path | str) -> None:
        """Write all of it as one safetensors file, whole or not at all; `load_predictor` reads it."""
        standardizer = {} if self.standardizer is None else self.standardizer.state
        facts = {
            "format": FORMAT,
            "head": to_json(self.head.config),
            "rgb_dim": self.extractor.rgb_dim,
            "xyz_dim": self.extractor.xyz_dim,
            "variant": self.variant,
            "extractor": to_json(self.spec),
            "preparation": to_json(self.preparation),
            "threshold": self.threshold,
        }
        write_state(path, facts, joined({"head": self.head.state(), "standardizer": standardizer}))


def check_scan(rgb: np.ndarray, cloud: np.ndarray) -> tuple[int, int]:
    """(H, W) of a scan; `InputError` where its arrays are not what `Predictor.predict` takes."""
    if rgb.ndim != 3 or rgb.shape[2] != 3 or rgb.dtype != np.uint8:
        raise InputError(f"rgb: shape {rgb.shape}, {rgb.dtype}; give (H, W, 3) uint8")
    if cloud.shape != rgb.shape or cloud.dtype != np.float32:
        raise InputError(f"cloud: shape {cloud.shape}, {cloud.dtype}; give {rgb.shape} float32 metres, as rgb is")
    check_cloud(cloud, Path("cloud"))
    return rgb.shape[0], rgb.shape[1]


def raw_scan(rgb: np.ndarray, cloud: np.ndarray, name: str = FRESH) -> RawSample:
    """A scan that comes from no file, as the preparation takes it."""
    files = SampleFiles(FRESH, "test", "good", name, Path("rgb"), Path("cloud"), None)
    return RawSample(files, rgb, cloud, np.zeros(rgb.shape[:2], dtype=bool))


def fit_predictor(
    good: Sequence[RawSample],
    config: MethodSettings,
    spec: ExtractorSpec,
    variant: str | None = None,
    preparation: PreparationConfig = PREPARATION_DEFAULT,
    standardize: bool = True,
    seed: int = 0,
    device: str = "cpu",
    progress: bool = False,
    std_floor: float | None = None,
) -> Predictor:
    """A predictor fitted to good scans; it has no threshold yet.

    Args:
        good: raw scans of good parts.
        config: settings of a method that learns from one category and no validation scans.
        spec: the extractor.
        variant: which prediction counts; the method's first unless given.
        preparation: how scans are prepared.
        standardize: the features, on these scans.
        seed: of the fit.
        device: where networks work.
        progress: show bars.
        std_floor: as for `lib.features.Standardizer.fit`.

    Raises:
        InputError: no scans, an unknown variant, a method that needs more than good scans of this part, or settings
            that do not go together.
    """
    if not good:
        raise InputError("fit_predictor: no scans of good parts given; 20 are a start")
    variant = config.variants[0] if variant is None else variant
    check_choice("variant", variant, config.variants)
    if config.needs_validation:
        raise InputError(f"{type(config).__name__} needs validation scans to weigh its parts; choose another method")
    if standardize and config.needs_raw:
        raise InputError(f"{type(config).__name__} cannot read standardized features; give standardize=False")
    check_std_floor("fit_predictor", std_floor, standardize)
    unfitted = Predictor(None, variant, spec, preparation, None, None, device)
    features = [unfitted._features(scan) for scan in good]
    standardizer = Standardizer.fit(features, std_floor) if standardize else None
    features = features if standardizer is None else [standardizer.apply(sample) for sample in features]
    head = build_head(config, unfitted.extractor.rgb_dim, unfitted.extractor.xyz_dim, device)
    head.fit(features, seed, progress, **({"setup": device_setup(device)} if config.trains else {}))
    return replace(unfitted, head=head, standardizer=standardizer)


def choose_threshold(good_scores: Sequence[float], false_alarm_rate: float) -> float:
    """The score that a new good scan exceeds with at most the given chance (split conformal prediction).

    With n held-out scores it is the k-th smallest, k = ceil((n + 1)(1 - rate)): if the new scan is drawn like the
    held-out ones, its rank among all n + 1 is equally likely to be any, so that it is above the k-th with chance at
    most the rate. That is so on average over such draws, and says nothing of how many defects are found. Source: Vovk
    et al., "Algorithmic Learning in a Random World", 2005.

    Args:
        good_scores: n image scores of good scans that the fit has not seen.
        false_alarm_rate: above 0 and below 1.

    Raises:
        InputError: a rate outside, scores that are not finite, or fewer than 1 / rate - 1 of them.
    """
    if not 0 < false_alarm_rate < 1:
        raise InputError(f"false_alarm_rate is {false_alarm_rate}; give a share above 0 and below 1, such as 0.05")
    scores = np.sort(np.asarray(good_scores, dtype=np.float64))
    if not np.isfinite(scores).all():
        raise InputError("good_scores: some are not finite; check the scans they come from")
    rank = math.ceil((len(scores) + 1) * (1 - false_alarm_rate) - 1e-9)
    if rank > len(scores):
        needed = math.ceil(1 / false_alarm_rate - 1e-9) - 1
        raise InputError(
            f"{len(scores)} held-out scans cannot bound false alarms at {false_alarm_rate:g}; scan at least {needed}, "
            "or accept a higher rate"
        )
    return float(scores[rank - 1])


def load_predictor(path: Path | str, device: str = "cpu") -> Predictor:
    """The predictor that `Predictor.save` wrote.

    Args:
        path: of the file.
        device: where networks work.

    Raises:
        InputError: the file is missing, damaged, or no predictor of this version.
    """
    facts, state = read_state(path)
    if facts.get("format") != FORMAT:
        raise InputError(f"{path} is no predictor of this version; fit and save it again")
    try:
        spec, preparation = from_json(facts["extractor"]), from_json(facts["preparation"])
        head = build_head(from_json(facts["head"]), facts["rgb_dim"], facts["xyz_dim"], device)
        head.load_state(part_of(state, "head"))
        statistics = part_of(state, "standardizer")
        standardizer = Standardizer(**statistics) if statistics else None
    except (KeyError, TypeError, RuntimeError, AttributeError, ValueError) as error:
        raise InputError(f"{path} holds no whole predictor ({error}); fit and save it again") from error
    return Predictor(head, facts["variant"], spec, preparation, standardizer, facts["threshold"], device)
