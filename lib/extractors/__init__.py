"""Extractors by name: what turns a prepared sample into `Features`. One for RGB and one for 3D make a pair.

The networks are imported where they are chosen: a study on hand-made features never loads timm.
"""

from __future__ import annotations

import dataclasses
from typing import Any, Protocol

import torch
from torch import Tensor

from lib.config import RGB_EXTRACTORS, XYZ_EXTRACTORS, ExtractorSpec, stored_settings
from lib.data import Sample
from lib.errors import InputError
from lib.extractors.color_patches import ColorPatches, ColorPatchesConfig
from lib.extractors.depth import DEPTH_CONFIGS, DepthExtractor
from lib.extractors.handcrafted import HandcraftedRgb, HandcraftedRgbConfig, HandcraftedXyz, HandcraftedXyzConfig
from lib.extractors.rgb_networks import with_blocks
from lib.features import Features, build_features
from lib.training import inference_dtype

HANDMADE_RGB = {  # by name, settings and the class that takes them
    "handcrafted": (HandcraftedRgbConfig(), HandcraftedRgb),
    "gradients": (HandcraftedRgbConfig(color_windows_cells=()), HandcraftedRgb),
    "color_patches": (ColorPatchesConfig(), ColorPatches),
}


class RgbExtractor(Protocol):
    """One side of a pair: RGB tokens of a prepared sample."""

    config: Any

    @property
    def rgb_dim(self) -> int:
        """Channels of the tokens."""
        ...

    def __call__(self, sample: Sample) -> Tensor:
        """(C2, h, w) float32 tokens of the whole image."""
        ...


class XyzExtractor(Protocol):
    """The other side: 3D tokens of a prepared sample."""

    config: Any

    @property
    def xyz_dim(self) -> int:
        """Channels of the tokens."""
        ...

    def __call__(self, sample: Sample) -> tuple[Tensor, Tensor]:
        """(G, C3) float32 tokens and their (G, 3) float32 centers in metres."""
        ...


class Extractor:
    """A pair of extractors, and how 3D tokens are read between their centers."""

    def __init__(
        self, rgb: RgbExtractor, xyz: XyzExtractor, interpolation: str = "exact", moved_m: float = 0.0
    ) -> None:
        self.rgb, self.xyz = rgb, xyz
        self.interpolation, self.moved_m = interpolation, moved_m

    @property
    def rgb_dim(self) -> int:
        """Channels of the RGB tokens."""
        return self.rgb.rgb_dim

    @property
    def xyz_dim(self) -> int:
        """Channels of the 3D tokens."""
        return self.xyz.xyz_dim

    def set_visit(self, number: int) -> None:
        """Let what is drawn at random be that of another visit to the samples; 0 is the one that is kept in files."""
        if hasattr(self.xyz, "visit"):
            self.xyz.visit = number

    def __call__(self, sample: Sample) -> Features:
        """Features of one prepared sample.

        Raises:
            InputError: an extractor cannot read the sample; the line names it.
        """
        try:
            return build_features(sample, self.rgb(sample), *self.xyz(sample), self.interpolation, self.moved_m)
        except InputError as error:
            if sample.sample_id in str(error):
                raise
            raise InputError(f"{sample.sample_id}: {error}") from error


def get_extractor(spec: ExtractorSpec, device: str = "cpu", precision: str = "float32") -> Extractor:
    """The pair of extractors that `spec` names, ready to be called.

    Args:
        spec: names and settings of both sides.
        device: where networks run, "cpu" or "cuda"; features are on the CPU in any case.
        precision: of the networks, "float32" or "bf16"; features are float32 in any case, and so are all records.

    Raises:
        InputError: weights are missing or wrong, or there is no such device or precision.
    """
    inference_dtype(precision)  # for sides without a network too
    if device != "cpu" and not torch.cuda.is_available():
        raise InputError(f"device {device}: PyTorch finds no CUDA device here; choose cpu (device: cpu in a profile)")
    sides = _rgb_extractor(spec, device, precision), _xyz_extractor(spec, device, precision)
    return Extractor(*sides, spec.interpolation, spec.moved_m)


def extractor_settings(spec: ExtractorSpec) -> dict[str, dict[str, Any]]:
    """Everything but code that a pair's tokens depend on: names, settings and the SHA-256 of weights files.

    The files themselves need not be there: without them records can be read, and `get_extractor` takes no others.
    """
    sides = {"rgb": (spec.rgb, rgb_config(spec)), "xyz": (spec.xyz, xyz_config(spec))}
    settings = {side: {"name": name, **stored_settings(config)} for side, (name, config) in sides.items()}
    for side in settings.values():
        if "weights" in {**RGB_EXTRACTORS, **XYZ_EXTRACTORS}[side["name"]]:
            side["weights"] = weights_of(side["name"], spec)
    if spec.mode == "released" or spec.first_point == "random":
        settings["xyz"]["draw"] = spec.draw
    if spec.interpolation != "exact":
        settings["xyz"]["interpolation"] = spec.interpolation
    if spec.moved_m:
        settings["xyz"]["moved_m"] = spec.moved_m
    return settings


def weights_of(name: str, spec: ExtractorSpec) -> str:
    """SHA-256 of a network's weights file, or which random values stand in for it."""
    from lib.extractors.weights import expected_sha256, registered

    return expected_sha256(registered(name)) if spec.weights == "registry" else f"random, seed {spec.draw}"


def rgb_config(spec: ExtractorSpec) -> Any:
    """Settings of the RGB side."""
    if spec.rgb in HANDMADE_RGB:
        return HANDMADE_RGB[spec.rgb][0]
    return with_blocks(spec.rgb, spec.num_blocks if "num_blocks" in RGB_EXTRACTORS[spec.rgb] else None)


def xyz_config(spec: ExtractorSpec) -> Any:
    """Settings of the 3D side; the presets of the point network with what `spec` changes."""
    if spec.xyz == "handcrafted":
        return HandcraftedXyzConfig()
    if spec.xyz == "fpfh":
        from lib.extractors.point_fpfh import FPFHConfig

        return FPFHConfig()
    if spec.xyz in DEPTH_CONFIGS:
        return DEPTH_CONFIGS[spec.xyz]
    from lib.extractors.point_mae import POINT_MAE_PRESETS

    preset = POINT_MAE_PRESETS[spec.xyz, spec.mode]
    kept = {} if spec.num_blocks is None else {"num_blocks": spec.num_blocks}
    return dataclasses.replace(preset, **kept, first_point=spec.first_point)


def _rgb_extractor(spec: ExtractorSpec, device: str, precision: str) -> RgbExtractor:
    if spec.rgb in HANDMADE_RGB:
        config, extractor = HANDMADE_RGB[spec.rgb]
        return extractor(config)
    from lib.extractors.vit import TimmExtractor

    return TimmExtractor(spec.rgb, rgb_config(spec).num_blocks, spec.weights, spec.draw, device, precision=precision)


def _xyz_extractor(spec: ExtractorSpec, device: str, precision: str) -> XyzExtractor:
    if spec.xyz == "handcrafted":
        return HandcraftedXyz(xyz_config(spec))
    if spec.xyz == "fpfh":
        from lib.extractors.point_fpfh import PointFPFHExtractor

        return PointFPFHExtractor(xyz_config(spec))
    if spec.xyz in DEPTH_CONFIGS:
        return DepthExtractor(xyz_config(spec))
    from lib.extractors.point_mae import PointMAEExtractor

    return PointMAEExtractor(xyz_config(spec), spec.weights, spec.draw, device, precision=precision)
