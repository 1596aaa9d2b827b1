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
PATCHCORE_VARIANTS = ("rgb", "xyz", "average", "plain_average", "svm")
FUSION_VARIANTS = ("cfm", "banks", "fusion")
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


def check_not_negative(settings: Any, names: tuple[str, ...], whole: bool = False) -> None:
    """Raise `InputError` unless each named field is zero or what `check_positive` accepts."""
    check_positive(settings, tuple(name for name in names if getattr(settings, name) != 0), whole)


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
class PatchCoreConfig:
    """Memory banks of normal patches, one a modality (Roth et al., CVPR 2022, as M3DM and LSFA use it).

    Attributes:
        grid_side: cells along each axis of the patch grid, 56 [M3DM, LSFA]; None = the RGB tokens' own grid.
        coreset_fraction: share of the patches that greedy selection keeps, 0.1 [M3DM, LSFA released]; 1 keeps all.
        projection_eps: distortion of the sparse random projection before the selection, 0.9 [M3DM]; None = none.
        reweight_rows: bank rows around the nearest one that re-weight the image score, itself counted, 3 [M3DM];
            None = no re-weighting.
        image_score: "patch" = re-weighted largest patch distance [PatchCore sec. 3.3], "map" = maximum of the blurred
            map, as for CFM [ours].
        blur_sigma_px: standard deviation of the Gaussian on the map, 4 [PatchCore sec. 4].
    """

    grid_side: int | None = 56
    coreset_fraction: float = 0.1
    projection_eps: float | None = 0.9
    reweight_rows: int | None = 3
    image_score: str = "patch"
    blur_sigma_px: float = 4.0

    def __post_init__(self) -> None:
        check_positive(self, ("grid_side", "reweight_rows"), whole=True)
        check_positive(self, ("coreset_fraction", "projection_eps", "blur_sigma_px"))
        check_choice("image_score", self.image_score, ("patch", "map"))
        if self.reweight_rows == 1:
            raise InputError("reweight_rows is 1, the nearest row alone; give at least 2, or null for no re-weighting")
        if self.coreset_fraction > 1:
            raise InputError(f"coreset_fraction is {self.coreset_fraction}; give a share of at most 1")
        if self.projection_eps is not None and self.projection_eps >= 1:
            raise InputError(f"projection_eps is {self.projection_eps}; give a distortion below 1")


@dataclass(frozen=True)
class LSFAConfig(PatchCoreConfig):
    """Two adaptors trained on normal samples, then PatchCore on what they give (LSFA, Tu et al., ECCV 2024).

    [summary] is a public summary of the paper, whose full text we have not read; [released] the authors' code.

    Attributes:
        num_heads: attention heads of each adaptor, 12 [released]; they must divide both feature dimensions.
        mlp_ratio: hidden width of an adaptor's MLP over its dimension, 4 [released].
        projection_dim: width of the linear heads that only the contrast sees, 512 [released].
        normalize: scale projected features to unit length before the inner product [released; the summary prints a
            bare product].
        softmax: "joint" over all pairs [summary], or "rows" = each row and each column [released].
        negatives: "image" = patches of the same sample [summary], "batch" = of all samples of a step [released].
        temperature: 1 [released; none in the summary].
        num_clusters: k of the k-means that makes instance vectors, RGB's assignment used for both; 1 = the mean
            [released; the summary names k-means and no k].
        patches_per_image: patches drawn from each image for the losses of a step [ours]; None = all.
        weight_la, weight_ga, weight_lc, weight_gc: of the four losses; 1, .1, .9, .36 [released], not readable in the
            summary.
        reduction: of LC and GC over patches and instances, "sum" [summary] or "mean" [released].
        local_bank_rows: patches in each local bank, 60,000 a category [released].
        global_bank_rows: instance vectors in each global bank, 100 a category [released].
        ifc_from_step: first step at which LC and GC count, 60 [released].
        ifc_full_bank: they also wait until the category's RGB bank is full [released].
        scope: "category" = a pair of adaptors for each category [ours], "all" = one for all categories with banks of
            their own [released].
        learning_rate: of AdamW, 2e-3 [summary], 3e-4 [released].
        weight_decay: 0.01 [released, the default of AdamW].
        num_epochs: 2 over all categories [released], about 660 steps; the summary names none.
        schedule_epochs: epochs that shape the cosine, 100 [released]; None = `num_epochs`.
        warmup_epochs: of linear warm-up, 1 [released].
        batch_size: samples a step, 8 [summary].
    """

    num_heads: int = 12
    mlp_ratio: int = 4
    projection_dim: int = 512
    normalize: bool = True
    softmax: str = "joint"
    negatives: str = "image"
    temperature: float = 1.0
    num_clusters: int = 1
    patches_per_image: int | None = None
    weight_la: float = 1.0
    weight_ga: float = 1.0
    weight_lc: float = 1.0
    weight_gc: float = 1.0
    reduction: str = "mean"
    local_bank_rows: int = 60_000
    global_bank_rows: int = 100
    ifc_from_step: int = 0
    ifc_full_bank: bool = False
    scope: str = "category"
    learning_rate: float = 2e-3
    weight_decay: float = 0.01
    num_epochs: int = 20
    schedule_epochs: int | None = None
    warmup_epochs: int = 1
    batch_size: int = 8

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("softmax", self.softmax, ("joint", "rows"))
        check_choice("negatives", self.negatives, ("image", "batch"))
        check_choice("reduction", self.reduction, ("mean", "sum"))
        check_choice("scope", self.scope, ("category", "all"))
        sizes = ("num_heads", "mlp_ratio", "projection_dim", "num_clusters", "patches_per_image", "batch_size")
        check_positive(self, (*sizes, "local_bank_rows", "global_bank_rows", "schedule_epochs"), whole=True)
        check_positive(self, ("temperature", "learning_rate"))
        check_not_negative(self, ("weight_la", "weight_ga", "weight_lc", "weight_gc", "weight_decay"))
        check_not_negative(self, ("ifc_from_step", "num_epochs", "warmup_epochs"), whole=True)


@dataclass(frozen=True)
class BlindConfig:
    """A detector that sees only the outline: constant inside the object, one score for all images [ours]."""


@dataclass(frozen=True)
class AdaptedConfig:
    """Another head on LSFA's adapted features [ours], to see whether adaptation helps more than its own method.

    Attributes:
        head: settings of the head.
        lsfa: settings of the adaptors; None = the frozen features read by the same cells, for comparison.
        grid_side: cells along each axis; the same as that of `lsfa`.
    """

    head: CFMConfig | NearestNeighborConfig
    lsfa: LSFAConfig | None
    grid_side: int | None

    def __post_init__(self) -> None:
        if self.lsfa is not None and self.lsfa.grid_side != self.grid_side:
            raise InputError(f"grid_side is {self.grid_side}, that of lsfa {self.lsfa.grid_side}; make them equal")


@dataclass(frozen=True)
class FusionConfig:
    """CFM's product and the average of memory banks, standardized and averaged [ours].

    Attributes:
        cfm: settings of the one.
        banks: settings of the other, LSFA or plain PatchCore.
    """

    cfm: CFMConfig
    banks: PatchCoreConfig


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
PATCHCORE = PatchCoreConfig()
BLIND = BlindConfig()
LSFA_PAPER = LSFAConfig()
LSFA_RELEASED = LSFAConfig(
    softmax="rows",
    negatives="batch",
    weight_ga=0.1,
    weight_lc=0.9,
    weight_gc=0.36,
    ifc_from_step=60,
    ifc_full_bank=True,
    scope="all",
    learning_rate=3e-4,
    num_epochs=2,
    schedule_epochs=100,
)
PATCHCORE_DEMO = PatchCoreConfig(grid_side=28, image_score="map")
LSFA_DEMO = LSFAConfig(
    grid_side=28,
    image_score="map",
    num_heads=1,
    projection_dim=64,
    weight_ga=0.1,
    weight_lc=0.01,
    weight_gc=0.01,
    local_bank_rows=6000,
)
DEMO_SIDE = LSFA_DEMO.grid_side
INSTANCES = {
    "CFM_PAPER": CFM_PAPER,
    "CFM_RELEASED": CFM_RELEASED,
    "CFM_DEMO": CFM_DEMO,
    "CFM_TOY": CFM_TOY,
    "NEAREST_NEIGHBOR": NEAREST_NEIGHBOR,
    "PATCHCORE": PATCHCORE,
    "PATCHCORE_DEMO": PATCHCORE_DEMO,
    "LSFA_PAPER": LSFA_PAPER,
    "LSFA_RELEASED": LSFA_RELEASED,
    "LSFA_DEMO": LSFA_DEMO,
    "CELLS_NEAREST_NEIGHBOR": AdaptedConfig(NEAREST_NEIGHBOR, None, DEMO_SIDE),
    "LSFA_NEAREST_NEIGHBOR": AdaptedConfig(NEAREST_NEIGHBOR, LSFA_DEMO, DEMO_SIDE),
    "CELLS_CFM": AdaptedConfig(CFM_DEMO, None, DEMO_SIDE),
    "LSFA_CFM": AdaptedConfig(CFM_DEMO, LSFA_DEMO, DEMO_SIDE),
    "CFM_AND_PATCHCORE": FusionConfig(CFM_DEMO, PATCHCORE_DEMO),
    "CFM_AND_LSFA": FusionConfig(CFM_DEMO, LSFA_DEMO),
    "BLIND": BLIND,
}
CFM_VARIANTS = {name: Scoring(aggregation=name) for name in AGGREGATIONS} | {
    "product-released": Scoring(blur="box", score_rule="released"),
    "product-box": Scoring(blur="box"),
}
VARIANTS = {
    CFMConfig: tuple(CFM_VARIANTS),
    NearestNeighborConfig: MODALITIES,
    PatchCoreConfig: PATCHCORE_VARIANTS,
    LSFAConfig: PATCHCORE_VARIANTS,
    FusionConfig: FUSION_VARIANTS,
    BlindConfig: ("outline",),
}


def variants_of(config: Any) -> tuple[str, ...]:
    """Names of the records that one experiment with these settings can write."""
    return VARIANTS[type(config.head if isinstance(config, AdaptedConfig) else config)]


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
