"""Words of the study: what every settings class and every path starts from, and the choice of extractors.

Every field names where its value comes from: [paper] a section of the CFM paper, [released] the public CFM code,
[ours] a choice of this study. Settings of the methods are in `lib.methods`.
"""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lib.errors import InputError

EXTRACTOR_MODES = ("eval", "released")
WEIGHT_SOURCES = ("registry", "random")
PRECISIONS = ("float32", "tf32", "bf16", "fp16")  # of a training: see `lib.training.TrainingSetup`
MEMORY_PRESETS_GB = (8, 16, 24)  # of a GPU: see `lib.training.GPU_PRESETS`
INTERPOLATIONS = ("exact", "expanded")
FIRST_POINTS = ("first", "random")
TRANSFORMER = ("num_blocks", "weights")
RGB_EXTRACTORS = {  # by name, the settings of an `ExtractorSpec` that it heeds
    "handcrafted": (),
    "gradients": (),
    "color_patches": (),
    "dino_vitb8": TRANSFORMER,
    "dino_vits8": TRANSFORMER,
    "dinov2_vitb14": TRANSFORMER,
    "clip_vitb16": TRANSFORMER,
    "sam_vitb16": TRANSFORMER,
    "wide_resnet50_2": ("weights",),
    "efficientnet_b5": ("weights",),
    "embedded_vit": TRANSFORMER,
}
XYZ_EXTRACTORS = {
    "handcrafted": (),
    "fpfh": (),
    "depth": (),
    "depth_corners": (),
    "point_mae": (*TRANSFORMER, "mode", "first_point"),
    "embedded_point": (*TRANSFORMER, "mode", "first_point"),
}
ADDED_LATER = {"added_later": True}  # of a settings field: see `stored_settings`
SHARPNESS_AWARE = re.compile(r"[._]sam(_in1k)?$")


def project_root() -> Path:
    """Folder of the checkout: the one place from which every relative path of the study starts."""
    return Path(__file__).resolve().parent.parent


def check_choice(name: str, value: object, known: tuple[object, ...]) -> None:
    """Raise `InputError` unless `value` is one of `known`."""
    if value not in known:
        raise InputError(f"{name} {value!r} is unknown; choose one of {', '.join(map(str, known))}")


def stored_settings(settings: Any) -> dict[str, Any]:
    """Settings by field, as records and caches keep them.

    A field marked `ADDED_LATER` is left out at its default, so that what was stored before there was such a field
    still says the same.
    """
    return {
        field.name: plain(getattr(settings, field.name))
        for field in dataclasses.fields(settings)
        if not (field.metadata.get("added_later") and getattr(settings, field.name) == field.default)
    }


def plain(value: Any) -> Any:
    """A setting as records keep it: settings within it, alone or in a sequence, through `stored_settings`."""
    if dataclasses.is_dataclass(value):
        return stored_settings(value)
    if isinstance(value, list | tuple):
        return type(value)(plain(entry) for entry in value)
    return value


def check_rgb_name(name: str) -> None:
    """Raise `InputError` for a name that promises Segment Anything and is a classifier.

    timm's `vit_base_patch16_224.sam_in1k` (formerly `.sam` and `_sam`) was trained by sharpness-aware minimization.
    """
    if SHARPNESS_AWARE.search(name):
        raise InputError(
            f"{name}: here sam is sharpness-aware minimization, an ImageNet classifier, and not Segment Anything; "
            "choose sam_vitb16, which is timm's samvit_base_patch16.sa1b"
        )


def check_positive(settings: Any, names: tuple[str, ...], whole: bool = False) -> None:
    """Raise `InputError` unless each named field that is not None is a positive number, whole if so asked.

    YAML reads 1e-3 as text, because its numbers need a point: 1.0e-3.
    """
    for name in names:
        value = getattr(settings, name)
        fits = isinstance(value, int if whole else int | float) and not isinstance(value, bool)
        if value is not None and not (fits and value > 0):
            kind = "whole number of at least 1" if whole else "positive number, in YAML with a point as in 1.0e-3"
            raise InputError(f"{type(settings).__name__}.{name} is {value!r}; give a {kind}")


def check_std_floor(owner: str, std_floor: float | None, standardize: bool) -> None:
    """Raise `InputError` unless a floor of deviations is None, or a positive number where something is standardized."""
    if std_floor is None:
        return
    if isinstance(std_floor, bool) or not (isinstance(std_floor, int | float) and std_floor > 0):
        raise InputError(f"{owner}: std_floor is {std_floor!r}; give a positive number")
    if not standardize:
        raise InputError(f"{owner}: std_floor has no effect without standardize; leave one of them out")


def check_not_negative(settings: Any, names: tuple[str, ...], whole: bool = False) -> None:
    """Raise `InputError` unless each named field is zero or what `check_positive` accepts."""
    check_positive(settings, tuple(name for name in names if getattr(settings, name) != 0), whole)


@dataclass(frozen=True)
class ExtractorSpec:
    """Which networks or hand-made descriptors turn a sample into tokens.

    Attributes:
        rgb, xyz: keys of `RGB_EXTRACTORS` and `XYZ_EXTRACTORS`.
        num_blocks: first blocks kept of each network that has blocks: 8, 4 or 1 [paper sec. 3.4], None = all 12.
        mode: "eval" [ours], or "released": the point network takes each cloud's own batch statistics and drops paths
            at random, because the released CFM and M3DM code never calls `eval()`.
        weights: of each network: "registry" = trained ones by its name, or "random" [ours, a control].
        draw: seed of random weights, and of the paths that "released" drops: one draw a sample, kept in the cache
            [ours]; the released code draws anew each time it sees a sample. Also of a random `first_point`.
        first_point: of the farthest point sample: "first" in row-major order [released], or drawn at "random"
            [anomalib].
        interpolation: squared distances from points to group centers are "exact" [ours], or the "expanded" square in
            float32 [released].
        moved_m: metres that the cloud is moved away from the sensor before interpolation [ours, for the audit].
        preparation: of the samples, a name of `lib.feature_store.PREPARATIONS`; None = the profile's.
    """

    rgb: str
    xyz: str
    num_blocks: int | None = None
    mode: str = "eval"
    weights: str = "registry"
    draw: int = 0
    first_point: str = "first"
    interpolation: str = "exact"
    moved_m: float = 0.0
    preparation: str | None = None

    def __post_init__(self) -> None:
        check_choice("first_point", self.first_point, FIRST_POINTS)
        check_choice("interpolation", self.interpolation, INTERPOLATIONS)
        check_not_negative(self, ("moved_m",))
        check_rgb_name(str(self.rgb))
        check_choice("RGB extractor", self.rgb, tuple(RGB_EXTRACTORS))
        check_choice("3D extractor", self.xyz, tuple(XYZ_EXTRACTORS))
        check_positive(self, ("num_blocks",), whole=True)
        check_choice("extractor mode", self.mode, EXTRACTOR_MODES)
        check_choice("extractor weights", self.weights, WEIGHT_SOURCES)
        if type(self.draw) is not int or self.draw < 0:
            raise InputError(f"ExtractorSpec.draw is {self.draw!r}; give a whole number of at least 0")
        self._check_heeded()

    def _check_heeded(self) -> None:
        """Raise `InputError` for a setting that neither side would heed."""
        heeded = (*RGB_EXTRACTORS[self.rgb], *XYZ_EXTRACTORS[self.xyz], "interpolation", "moved_m", "preparation")
        for field in dataclasses.fields(self)[2:]:
            changed = getattr(self, field.name) != field.default
            by_chance = self.mode == "released" or self.weights == "random" or self.first_point == "random"
            if changed and not (by_chance if field.name == "draw" else field.name in heeded):
                raise InputError(f"extractor {self.rgb} + {self.xyz}: {field.name} has no effect there; leave it out")

    @property
    def slug(self) -> str:
        """One word for file names, different for different settings."""
        words = [f"{self.rgb}+{self.xyz}"]
        words += [f"{self.num_blocks}blocks"] if self.num_blocks is not None else []
        words += [self.mode] if self.mode != "eval" else []
        words += ["random"] if self.weights == "random" else []
        words += [f"draw{self.draw}"] if self.draw else []
        words += ["start"] if self.first_point != "first" else []
        words += [self.interpolation] if self.interpolation != "exact" else []
        words += [f"{self.moved_m:g}m"] if self.moved_m else []
        words += [self.preparation.removeprefix("PREPARATION_").lower()] if self.preparation else []
        return "-".join(words)
