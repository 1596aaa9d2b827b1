"""Settings of the methods with their sources.

Every field names where its value comes from: [paper] a section of the method's paper, [released] its public code,
[summary] a public summary of the LSFA paper, [ours] a choice of this study. Named instances are in
`lib.instances`.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import ClassVar

from lib.config import ADDED_LATER, check_choice, check_not_negative, check_positive
from lib.errors import InputError

AGGREGATIONS = ("product", "sum", "max", "psi_2d", "psi_3d")
BLURS = ("gaussian", "box", "none")
SCORE_RULES = ("paper", "released")
TASKS = ("crossmodal", "intramodal")
NETWORKS = ("mlp", "encoder_decoder", "seven_layers")
MODALITIES = ("rgb", "xyz", "late", "concat")
PATCHCORE_VARIANTS = ("rgb", "xyz", "average", "plain_average", "svm")
FUSION_VARIANTS = ("cfm", "banks", "fusion")


class MethodSettings:
    """What the settings of every method say beside their fields.

    Attributes:
        head_class: "module:class" of the head they choose; it is imported when a head is made (`lib.head_choice`).
        variants: names of the records that one experiment can write.
        needs_validation: True where the head's `fit` takes the validation split too.
        trains: True where it trains networks, and `fit` takes a `TrainingSetup` and a checkpoint.
    """

    head_class: ClassVar[str]
    variants: ClassVar[tuple[str, ...]]
    needs_validation: ClassVar[bool] = False
    trains: ClassVar[bool] = False

    @property
    def needs_raw(self) -> bool:
        """True where the head would misread standardized features."""
        return False


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


CFM_VARIANTS = {name: Scoring(aggregation=name) for name in AGGREGATIONS} | {
    "product-released": Scoring(blur="box", score_rule="released"),
    "product-box": Scoring(blur="box"),
    "product-rescaled": Scoring(score_rule="released"),
}


@dataclass(frozen=True)
class CFMConfig(MethodSettings):
    """Training of the two crossmodal mapping networks (CFM sec. 3.2 and 4).

    Attributes:
        hidden_dim: width of the two hidden layers; None = (input + output) / 2 [paper sec. 3.2].
        learning_rate: of Adam, 1e-3 [paper sec. 4]; the peak of a "one_cycle" schedule.
        num_epochs: 250 [paper sec. 4], 50 [released script].
        batch_size: images a step, 4 for MVTec 3D-AD [released].
        pixels_per_image: foreground pixels drawn from each image a step [ours]; None = all of them [paper].
        schedule: "constant" [paper] or "one_cycle" [ours, for short runs].
        task: "crossmodal" [paper sec. 3.2], or "intramodal" = its own modality is the target [paper, Table 7].
        network: "mlp" of three layers [paper sec. 3.2], "encoder_decoder" of five that narrow and widen again [paper,
            suppl. B], or "seven_layers" of one width [its author on Eyecandies; not in the paper].
        xyz_mean_px: side of the windows over which projected 3D features are averaged, 3 [paper, released]; None = no
            mean.
    """

    head_class = "lib.heads.cfm:CFM"
    trains = True
    variants = tuple(CFM_VARIANTS)

    hidden_dim: int | None = None
    learning_rate: float = 1e-3
    num_epochs: int = 250
    batch_size: int = 4
    pixels_per_image: int | None = None
    schedule: str = "constant"
    task: str = field(default="crossmodal", metadata=ADDED_LATER)
    network: str = field(default="mlp", metadata=ADDED_LATER)
    xyz_mean_px: int | None = field(default=None, metadata=ADDED_LATER)

    def __post_init__(self) -> None:
        check_choice("schedule", self.schedule, ("constant", "one_cycle"))
        check_choice("task", self.task, TASKS)
        check_choice("network", self.network, NETWORKS)
        if self.network == "encoder_decoder" and self.hidden_dim is not None:
            raise InputError("network encoder_decoder has widths of its own; give hidden_dim null")
        sizes = ("num_epochs", "batch_size", "hidden_dim", "pixels_per_image", "xyz_mean_px")
        check_positive(self, sizes, whole=True)
        check_positive(self, ("learning_rate",))


@dataclass(frozen=True)
class NearestNeighborConfig(MethodSettings):
    """Nearest normal patch as a baseline on the same features [ours; the scorer of PatchCore without its extras].

    Attributes:
        bank_rows: normal patches kept, drawn at random; None = all of them.
        blur_sigma_px: standard deviation in pixels of the Gaussian on the map, as for CFM.
    """

    head_class = "lib.heads.memory_bank:NearestNeighbor"
    variants = MODALITIES

    bank_rows: int | None = None
    blur_sigma_px: float = 4.0

    def __post_init__(self) -> None:
        check_positive(self, ("bank_rows",), whole=True)
        check_positive(self, ("blur_sigma_px",))


@dataclass(frozen=True)
class PatchCoreConfig(MethodSettings):
    """Memory banks of normal patches, one a modality (Roth et al., CVPR 2022, in the form of M3DM and LSFA).

    Ours differs from M3DM's: banks hold object cells only and 3D cells average no background in; both banks keep the
    same share (M3DM takes the RGB bank's number of rows from the 3D bank already reduced, about 4 %); the blur is not
    quantized to 8 bits; scores are not divided by 1000 before the SVM.

    Attributes:
        grid_side: cells along each axis of the patch grid, 56 [LSFA; M3DM for 3D, 28 for RGB]; None = the RGB tokens'
            own grid.
        coreset_fraction: share of the patches that greedy selection keeps, 0.1 [M3DM's 3D bank, LSFA released]; 1
            keeps all.
        projection_eps: distortion of the sparse random projection before the selection, 0.9 [M3DM]; None = none.
        image_score: "patch" = largest patch distance, re-weighted [PatchCore sec. 3.3]; "map" = maximum of the blurred
            map, as for CFM [ours].
        reweight_rows: bank rows around the nearest one that re-weight a "patch" score, itself counted, 3 [M3DM];
            None = no re-weighting, the only choice for "map".
        blur_sigma_px: standard deviation of the Gaussian on the map, 4 [PatchCore sec. 4].
    """

    head_class = "lib.heads.memory_bank:PatchCore"
    variants = PATCHCORE_VARIANTS
    needs_validation = True  # its standardized average

    grid_side: int | None = 56
    coreset_fraction: float = 0.1
    projection_eps: float | None = 0.9
    image_score: str = "patch"
    reweight_rows: int | None = 3
    blur_sigma_px: float = 4.0

    def __post_init__(self) -> None:
        check_positive(self, ("grid_side", "reweight_rows"), whole=True)
        check_positive(self, ("coreset_fraction", "projection_eps", "blur_sigma_px"))
        check_choice("image_score", self.image_score, ("patch", "map"))
        if self.coreset_fraction > 1:
            raise InputError(f"coreset_fraction is {self.coreset_fraction}; give a share of at most 1")
        if self.projection_eps is not None and self.projection_eps >= 1:
            raise InputError(f"projection_eps is {self.projection_eps}; give a distortion below 1")
        if self.reweight_rows == 1:
            raise InputError("reweight_rows is 1, which leaves no row but the nearest; give 2 or more, or None")
        if self.image_score == "map" and self.reweight_rows is not None:
            raise InputError("image_score 'map' is not re-weighted; give reweight_rows None")


@dataclass(frozen=True)
class AdaptorConfig:
    """Training of LSFA's two adaptors on normal samples (Tu et al., ECCV 2024).

    [summary] is a public summary of the paper, whose full text we have not read; [released] the authors' code, which
    does not run as published.

    Attributes:
        grid_side: cells along each axis of the patch grid, 56 [summary]; None = the RGB tokens' own grid.
        num_heads: attention heads of each adaptor, 12 [released]; they must divide both feature dimensions.
        mlp_ratio: hidden width of an adaptor's MLP over its dimension, 4 [released].
        projection_dim: width of the linear heads that only the contrast sees, 512 [released].
        normalize: scale projected features to unit length before the inner product [released; the summary prints a
            bare product, which we found no reason to trust more: both are measured].
        softmax: "joint" over all pairs [summary], or "rows" = each row and each column [released].
        negatives: "image" = patches of the same sample [summary], "batch" = of all samples of a step [released].
        temperature: 1 [released; none in the summary].
        num_clusters: k of the k-means that makes instance vectors, RGB's assignment used for both; 1 = the mean
            [released; the summary names k-means and no k].
        patches_per_image: patches drawn from each image for the losses of a step [ours]; None = all.
        weight_la, weight_ga, weight_lc, weight_gc: of the four losses; 1, .1, .9, .36 [released]; not readable in the
            summary, 1 each [ours]. AdamW ignores the scale of the whole sum: only their ratios count.
        reduction: of LC and GC over patches and instances, "sum" [summary] or "mean" [released].
        local_bank_rows: patches in each local bank, 60,000 a category [released].
        global_bank_rows: instance vectors in each global bank, 100 a category [released].
        ifc_from_step: first step at which LC and GC count, 60 [released], 0 [ours].
        ifc_full_bank: they also wait until the category's RGB bank is full [released].
        scope: "category" = a pair of adaptors for each category [ours], "all" = one for all categories with banks of
            their own [released].
        learning_rate: of AdamW with betas .9 and .95 [released]: 2e-3 [summary], 3e-4 [released].
        weight_decay: 0.01 [released, the default of AdamW].
        num_epochs: 2 over all categories [released], about 660 steps; the summary names none; 20 over one category of
            MVTec 3D-AD are about as many [ours].
        schedule_epochs: epochs that shape the cosine, 100 [released]; None = `num_epochs`.
        warmup_epochs: of linear warm-up, 1 [released].
        batch_size: samples a step, 8 [summary].
    """

    grid_side: int | None = 56
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
        check_choice("softmax", self.softmax, ("joint", "rows"))
        check_choice("negatives", self.negatives, ("image", "batch"))
        check_choice("reduction", self.reduction, ("mean", "sum"))
        check_choice("scope", self.scope, ("category", "all"))
        check_choice("normalize", self.normalize, (True, False))
        check_choice("ifc_full_bank", self.ifc_full_bank, (True, False))
        sizes = ("grid_side", "num_heads", "mlp_ratio", "projection_dim", "num_clusters", "patches_per_image")
        check_positive(self, (*sizes, "batch_size"), whole=True)
        check_positive(self, ("local_bank_rows", "global_bank_rows", "schedule_epochs"), whole=True)
        check_positive(self, ("temperature", "learning_rate"))
        check_not_negative(self, ("weight_la", "weight_ga", "weight_lc", "weight_gc", "weight_decay"))
        check_not_negative(self, ("ifc_from_step", "num_epochs", "warmup_epochs"), whole=True)


@dataclass(frozen=True)
class LSFAConfig(AdaptorConfig, PatchCoreConfig):
    """LSFA: the adaptors of `AdaptorConfig`, then the memory banks of `PatchCoreConfig` on what they give."""

    head_class = "lib.heads.lsfa:LSFA"
    trains = True

    def __post_init__(self) -> None:
        AdaptorConfig.__post_init__(self)
        PatchCoreConfig.__post_init__(self)

    @property
    def adaptors(self) -> AdaptorConfig:
        """The settings of the adaptors alone."""
        return AdaptorConfig(**{field.name: getattr(self, field.name) for field in dataclasses.fields(AdaptorConfig)})


@dataclass(frozen=True)
class BlindConfig(MethodSettings):
    """A detector that sees only the outline: constant inside the object, one score for all images [ours]."""

    head_class = "lib.heads.blind:Blind"
    variants = ("outline",)


@dataclass(frozen=True)
class AdaptedConfig(MethodSettings):
    """Another head on LSFA's adapted features [ours], to see whether adaptation helps more than its own method.

    Attributes:
        head: settings of the head.
        adaptors: settings of the adaptors; None = the frozen features read by the same cells, for comparison.
        grid_side: cells along each axis; the same as that of `adaptors`.
        std_floor: least deviation, as a share of the median one, that the features the head reads are divided by, as
            for `lib.features.Standardizer.fit`; None = no floor.
    """

    head_class = "lib.heads.adapted:AdaptedHead"
    trains = True

    head: MethodSettings
    adaptors: AdaptorConfig | None
    grid_side: int | None
    std_floor: float | None = field(default=None, metadata=ADDED_LATER)

    def __post_init__(self) -> None:
        check_positive(self, ("std_floor",))
        if self.adaptors is not None and self.adaptors.grid_side != self.grid_side:
            raise InputError(f"grid_side is {self.grid_side}, that of adaptors {self.adaptors.grid_side}; set both")

    @property
    def variants(self) -> tuple[str, ...]:
        """Those of the inner head."""
        return self.head.variants


@dataclass(frozen=True)
class FusionConfig(MethodSettings):
    """CFM's product and the average of memory banks, standardized and averaged [ours].

    Attributes:
        cfm: settings of the one.
        banks: settings of the other, LSFA or plain PatchCore.
    """

    head_class = "lib.heads.adapted:FusedHead"
    trains = True
    variants = FUSION_VARIANTS
    needs_validation = True  # the scales of its mean

    cfm: CFMConfig
    banks: PatchCoreConfig
