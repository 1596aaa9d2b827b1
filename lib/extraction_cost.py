"""What an extractor costs on this machine: parameters, time and the size of what it gives."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lib.config import ExtractorSpec
from lib.data import Sample
from lib.errors import InputError
from lib.extractors import get_extractor
from lib.features import build_features, save_features
from lib.heads import build_head
from lib.heads.state import State
from lib.methods import CFMConfig

BYTES_PER_MB = 1e6
BYTES_PER_WEIGHT = 4  # float32


@dataclass(frozen=True)
class ExtractionCost:
    """Cost of one extractor pair.

    Attributes:
        rgb_parameters, xyz_parameters: of the networks as they are kept; 0 for hand-made features.
        rgb_ms, xyz_ms: median milliseconds a sample, one sample at a time, preparation not included.
        rgb_dim, xyz_dim: channels of a token.
        megabytes: mean size of a sample's features file (tokens in float16, interpolation weights included).
    """

    rgb_parameters: int
    xyz_parameters: int
    rgb_ms: float
    xyz_ms: float
    rgb_dim: int
    xyz_dim: int
    megabytes: float


def extraction_cost(spec: ExtractorSpec, samples: Sequence[Sample], device: str = "cpu") -> ExtractionCost:
    """Measured cost of the pair that `spec` names, with the threads PyTorch uses now; reading at pixels is left out.

    Args:
        spec: random weights cost about what trained ones cost, so a table needs no downloads.
        samples: prepared samples, each extracted once; the first is extracted once more before, to warm up.
        device: where the networks run.

    Raises:
        InputError: no samples; else as for `lib.extractors.get_extractor`.
    """
    if not samples:
        raise InputError("extraction_cost: no samples given; pass at least one prepared sample")
    pair = get_extractor(spec, device)
    rgb, rgb_ms = timed(pair.rgb, samples, device)
    xyz, xyz_ms = timed(pair.xyz, samples, device)
    with tempfile.TemporaryDirectory() as folder:
        sizes = []
        for sample, rgb_tokens, (xyz_tokens, centers) in zip(samples, rgb, xyz, strict=True):
            path = Path(folder) / "features.safetensors"
            save_features(path, build_features(sample, rgb_tokens, xyz_tokens, centers))
            sizes.append(path.stat().st_size)
    return ExtractionCost(
        rgb_parameters=num_parameters(pair.rgb),
        xyz_parameters=num_parameters(pair.xyz),
        rgb_ms=rgb_ms,
        xyz_ms=xyz_ms,
        rgb_dim=pair.rgb_dim,
        xyz_dim=pair.xyz_dim,
        megabytes=float(np.mean(sizes)) / BYTES_PER_MB,
    )


@dataclass(frozen=True)
class PipelineCost:
    """Cost of CFM from a prepared sample to its anomaly map and image score.

    Attributes:
        frames_per_second: one over the median time of a sample, one sample at a time, preparation not included.
        extractor_mb, mapping_mb: float32 weights of the frozen networks and of the two mapping networks.
    """

    frames_per_second: float
    extractor_mb: float
    mapping_mb: float


def pipeline_cost(
    spec: ExtractorSpec, config: CFMConfig, samples: Sequence[Sample], device: str = "cpu"
) -> PipelineCost:
    """Measured cost of an extractor pair and CFM behind it, with untrained mapping networks.

    Args:
        spec, samples, device: as for `extraction_cost`.
        config: of the mapping networks.

    Raises:
        InputError: no samples; else as for `lib.extractors.get_extractor`.
    """
    if not samples:
        raise InputError("pipeline_cost: no samples given; pass at least one prepared sample")
    pair = get_extractor(spec, device)
    head = build_head(config, pair.rgb_dim, pair.xyz_dim, device)
    state: State = head.state()
    _, milliseconds = timed(lambda sample: head.predict(pair(sample)), samples, device)
    networks = num_parameters(pair.rgb) + num_parameters(pair.xyz)
    mapping = sum(value.numel() for value in state.values())
    megabytes = [number * BYTES_PER_WEIGHT / BYTES_PER_MB for number in (networks, mapping)]
    return PipelineCost(1000 / milliseconds, *megabytes)


def timed(extract: Callable[[Sample], Any], samples: Sequence[Sample], device: str) -> tuple[list[Any], float]:
    """Tokens of every sample and the median milliseconds that one took."""
    extract(samples[0])
    tokens, milliseconds = [], []
    for sample in samples:
        started = time.perf_counter()
        tokens.append(extract(sample))
        if device != "cpu":
            torch.cuda.synchronize()
        milliseconds.append(1000 * (time.perf_counter() - started))
    return tokens, float(np.median(milliseconds))


def num_parameters(extractor: Any) -> int:
    """Parameters of an extractor's network; 0 where it has none."""
    network = getattr(extractor, "network", None)
    return 0 if network is None else sum(parameter.numel() for parameter in network.parameters())
