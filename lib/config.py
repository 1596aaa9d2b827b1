"""Words of the study: settings with their sources.

Every field names where its value comes from: [paper] a section of the CFM paper, [released] the public CFM code,
[ours] a choice of this study. Profiles (`lib.profiles`) name an instance and hold overrides only.
"""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lib.errors import InputError

AGGREGATIONS = ("product", "sum", "max", "psi_2d", "psi_3d")
BLURS = ("gaussian", "box", "none")
SCORE_RULES = ("paper", "released")
MODALITIES = ("rgb", "xyz", "late", "concat")
EXTRACTOR_MODES = ("eval", "released")
WEIGHT_SOURCES = ("registry", "random")
TRANSFORMER = ("num_blocks", "weights")
RGB_EXTRACTORS = {  # by name, the settings of an `ExtractorSpec` that it heeds
    "handcrafted": (),
    "dino_vitb8": TRANSFORMER,
    "dino_vits8": TRANSFORMER,
    "dinov2_vitb14": TRANSFORMER,
    "clip_vitb16": TRANSFORMER,
    "sam_vitb16": TRANSFORMER,
    "wide_resnet50_2": ("weights",),
    "embedded_vit": TRANSFORMER,
}
XYZ_EXTRACTORS = {
    "handcrafted": (),
    "fpfh": (),
    "point_mae": (*TRANSFORMER, "mode"),
    "embedded_point": (*TRANSFORMER, "mode"),
}
SHARPNESS_AWARE = re.compile(r"[._]sam(_in1k)?$")


def project_root() -> Path:
    """Folder of the checkout: the one place from which every relative path of the study starts."""
    return Path(__file__).resolve().parent.parent


def check_choice(name: str, value: object, known: tuple[str, ...]) -> None:
    """Raise `InputError` unless `value` is one of `known`."""
    if value not in known:
        raise InputError(f"{name} {value!r} is unknown; choose one of {', '.join(known)}")


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


@dataclass(frozen=True)
class Scoring:
    """How two discrepancy maps become one anomaly map and one image score (CFM sec. 3.3).

    Attributes:
        aggregation: "product" [paper, eq. 5], "sum", "max", "psi_2d", "psi_3d" [paper, Table 6].
        blur: "gaussian" with `blur_sigma_px` [paper sec. 4], "box" = five 5x5 then three 7x7 means [released], "none".
        blur_sigma_px: standard deviation of the Gaussian in pixels, 4 [paper sec. 4].
        score_rule: "paper" = maximum of the blurred map; "released" = three different rescalings of each image
            by its own mean, one for each metric [released].
    """

    aggregation: str = "product"
    blur: str = "gaussian"
    blur_sigma_px: float = 4.0
    score_rule: str = "paper"

    def __post_init__(self) -> None:
        check_choice("aggregation", self.aggregation, AGGREGATIONS)
        check_choice("blur", self.blur, BLURS)
        check_choice("score_rule", self.score_rule, SCORE_RULES)


@dataclass(frozen=True)
class CFMConfig:
    """Training of the two crossmodal mapping networks (CFM sec. 3.2 and 4).

    Attributes:
        hidden_dim: width of the two hidden layers; None = (input + output) / 2 [paper sec. 3.2].
        learning_rate: of Adam, 1e-3 [paper sec. 4]; the peak of a "one_cycle" schedule.
        num_epochs: 250 [paper sec. 4], 50 [released script].
        batch_size: images a step, 4 for MVTec 3D-AD [released].
        pixels_per_image: foreground pixels drawn from each image a step [ours]; None = all of them [paper].
        schedule: "constant" [paper] or "one_cycle" [ours, for short runs].
    """

    hidden_dim: int | None = None
    learning_rate: float = 1e-3
    num_epochs: int = 250
    batch_size: int = 4
    pixels_per_image: int | None = None
    schedule: str = "constant"

    def __post_init__(self) -> None:
        check_choice("schedule", self.schedule, ("constant", "one_cycle"))
        check_positive(self, ("num_epochs", "batch_size", "hidden_dim", "pixels_per_image"), whole=True)
        check_positive(self, ("learning_rate",))


@dataclass(frozen=True)
class NearestNeighborConfig:
    """Nearest normal patch as a baseline on the same features [ours; the scorer of PatchCore without its extras].

    Attributes:
        bank_rows: normal patches kept, drawn at random; None = all of them.
        blur_sigma_px: standard deviation in pixels of the Gaussian on the map, as for CFM.
    """

    bank_rows: int | None = None
    blur_sigma_px: float = 4.0

    def __post_init__(self) -> None:
        check_positive(self, ("bank_rows",), whole=True)
        check_positive(self, ("blur_sigma_px",))


@dataclass(frozen=True)
class BlindConfig:
    """A detector that sees only the outline: constant inside the object, one score for all images [ours]."""


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
            [ours]; the released code draws anew each time it sees a sample.
    """

    rgb: str
    xyz: str
    num_blocks: int | None = None
    mode: str = "eval"
    weights: str = "registry"
    draw: int = 0

    def __post_init__(self) -> None:
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
        heeded = RGB_EXTRACTORS[self.rgb] + XYZ_EXTRACTORS[self.xyz]
        for field in dataclasses.fields(self)[2:]:
            changed = getattr(self, field.name) != field.default
            by_chance = self.mode == "released" or self.weights == "random"
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
        return "-".join(words)


CFM_PAPER = CFMConfig()
CFM_RELEASED = CFMConfig(num_epochs=50)
CFM_DEMO = CFMConfig(hidden_dim=192, num_epochs=30, pixels_per_image=512, schedule="one_cycle")
CFM_TOY = CFMConfig(hidden_dim=32, num_epochs=25, learning_rate=1e-2, pixels_per_image=256, schedule="one_cycle")
NEAREST_NEIGHBOR = NearestNeighborConfig()
BLIND = BlindConfig()
INSTANCES = {
    "CFM_PAPER": CFM_PAPER,
    "CFM_RELEASED": CFM_RELEASED,
    "CFM_DEMO": CFM_DEMO,
    "CFM_TOY": CFM_TOY,
    "NEAREST_NEIGHBOR": NEAREST_NEIGHBOR,
    "BLIND": BLIND,
}
CFM_VARIANTS = {name: Scoring(aggregation=name) for name in AGGREGATIONS} | {
    "product-released": Scoring(blur="box", score_rule="released"),
    "product-box": Scoring(blur="box"),
}
VARIANTS = {CFMConfig: tuple(CFM_VARIANTS), NearestNeighborConfig: MODALITIES, BlindConfig: ("outline",)}


def resolve(instance: str, overrides: dict[str, Any]) -> Any:
    """Settings of a named instance with some fields replaced.

    Args:
        instance: a key of `INSTANCES`.
        overrides: field name to value.

    Raises:
        InputError: the instance or a field is unknown.
    """
    check_choice("settings instance", instance, tuple(INSTANCES))
    base = INSTANCES[instance]
    names = tuple(f.name for f in dataclasses.fields(base))
    for name in overrides:
        check_choice(f"override of {instance}", name, names)
    return dataclasses.replace(base, **overrides)
