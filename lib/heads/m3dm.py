"""M3DM (Wang et al., CVPR 2023): memory banks of RGB, of 3D and of fused patches, joined by one-class SVMs.

[paper] is its text, [released] its public code. Letters: Q patches, M bank rows, C2, C3 channels, H W pixels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from lib.config import check_choice, check_positive
from lib.errors import InputError
from lib.features import Features
from lib.heads import Prediction
from lib.heads.bank_grid import GridBankConfig, bank_prediction, object_patches, read_grid
from lib.heads.checkpoints import Checkpoint
from lib.heads.feature_fusion import FeatureFusion, UFFConfig, train_fusion
from lib.heads.patch_bank import coreset_bank, coreset_size
from lib.heads.score_fusion import OneClassFusion
from lib.heads.state import State, joined, part_of
from lib.instances import BANK_STD_FLOOR, LSFA_DEMO
from lib.methods import AdaptedConfig
from lib.patches import PatchSet, patches_of
from lib.reading import ReadOnAccess
from lib.sampling import table_statistics
from lib.training import DEFAULT_SETUP, TrainingSetup

BANKS = ("rgb", "xyz", "fused")
M3DM_VARIANTS = (*BANKS, "double", "triple")
FUSED_FROM = {"double": ("rgb", "xyz"), "triple": BANKS}
AS_IT_IS = 0.0, 1.0  # mean and deviation that change nothing
TRIPLE_XYZ = "triple_xyz"  # the 3D bank as the released triple mode changes it


@dataclass(frozen=True)
class M3DMConfig(GridBankConfig):
    """Settings of M3DM; those of the banks are in `GridBankConfig`.

    Attributes:
        grid_side: cells along each axis for 3D and fused patches, 56 [released].
        rgb_side: the same for RGB patches, 28 [released].
        uff: training of the fusion networks.
        statistics: by which each bank is shifted and scaled: "own" mean and deviation [paper], or "released" = the 3D
            bank's mean and the RGB bank's deviation for all three.
        sizes: "share" = each bank keeps `coreset_fraction` of its patches [paper], or "released" = the RGB and the
            fused bank keep that share of the number of rows of the 3D bank already reduced.
        triple_xyz: the 3D bank of "triple": "same" as elsewhere [paper], or "released" = without rows that hold a
            zero, and with a row of zeros.
        double_divisor: of the image scores before the SVM of "double": 1 [paper], 1000 [released].
        svm_pixels: that the SVM of the maps learns from: the "object"'s [ours], or "all" [released].
    """

    head_class = "lib.heads.m3dm:M3DM"
    trains = True
    variants = M3DM_VARIANTS

    rgb_side: int | None = 28
    uff: UFFConfig = field(default_factory=UFFConfig)
    statistics: str = "own"
    sizes: str = "share"
    triple_xyz: str = "same"
    double_divisor: float = 1.0
    svm_pixels: str = "object"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(self, ("rgb_side",), whole=True)
        check_positive(self, ("double_divisor",))
        check_choice("statistics", self.statistics, ("own", "released"))
        check_choice("sizes", self.sizes, ("share", "released"))
        check_choice("triple_xyz", self.triple_xyz, ("same", "released"))
        check_choice("svm_pixels", self.svm_pixels, ("object", "all"))

    @property
    def scope(self) -> str:
        """Whose samples the fusion networks learn from; see `UFFConfig`."""
        return self.uff.scope


SLIPS = {"statistics": "released", "sizes": "released", "triple_xyz": "released", "double_divisor": 1000.0}
M3DM_PAPER = M3DMConfig()
M3DM_RELEASED = replace(
    M3DM_PAPER, **SLIPS, svm_pixels="all", cells="all", blur="quantized", uff=UFFConfig(pairing="scrambled")
)
# Chosen on data seed 11, as for PATCHCORE_DEMO.
M3DM_DEMO = M3DMConfig(
    grid_side=28,
    image_score="map",
    reweight_rows=None,
    uff=UFFConfig(patches_per_image=128, num_epochs=20, batch_size=4, accumulate=1, scope="category"),
)
M3DM_ON_CELLS = AdaptedConfig(M3DM_DEMO, None, M3DM_DEMO.grid_side, BANK_STD_FLOOR)
M3DM_ON_LSFA = AdaptedConfig(M3DM_DEMO, LSFA_DEMO.adaptors, M3DM_DEMO.grid_side, BANK_STD_FLOOR)


class M3DM:
    """Three banks, each alone, the first two together, and all three together."""

    variants = M3DM_VARIANTS

    def __init__(self, config: M3DMConfig, rgb_dim: int, xyz_dim: int, device: str = "cpu") -> None:
        self.config = config
        self.device = torch.device(device)
        self.fusion = FeatureFusion(config.uff, rgb_dim, xyz_dim, seed=0).to(self.device)
        self.banks: dict[str, Tensor] = {}
        self.statistics = dict.fromkeys(BANKS, AS_IT_IS)  # mean and deviation of a bank's values
        self.late_fusions: dict[str, OneClassFusion] = {}

    def fit(
        self,
        features: Sequence[Features],
        seed: int,
        progress: bool = False,
        all_categories: Mapping[str, Sequence[Features]] | None = None,
        setup: TrainingSetup = DEFAULT_SETUP,
        checkpoint: Checkpoint | None = None,
    ) -> dict[str, list[float]]:
        """History of the fusion networks; then the banks are filled and the SVMs fitted.

        Args:
            features: normal training samples of the category.
            seed: of the fusion networks' training and the banks' projections.
            progress: show bars over epochs and selections.
            all_categories: training samples of every category by name, for the fusion networks of scope "all".
            setup: how the fusion networks' training is computed.
            checkpoint: where its state is kept.
        """
        if not features:
            raise InputError("M3DM: no training features; check that the category has training samples")
        if (self.config.scope == "all") != (all_categories is not None):
            raise InputError(f"M3DM: scope is {self.config.scope!r}; give all_categories for scope 'all' and it alone")
        learned_from = {"own": features} if all_categories is None else all_categories
        patch_sets = patches_of(learned_from, lambda sample: object_patches(sample, self.config))
        self.fusion, history = train_fusion(self.config.uff, patch_sets, seed, self.device, progress, setup, checkpoint)
        self.statistics = dict.fromkeys(BANKS, AS_IT_IS)
        self.statistics = self._statistics(self._tables(features))
        self._fill_banks(self._tables(features), seed, progress)
        self._fit_late_fusions(features)
        return history

    def _tables(self, features: Sequence[Features]) -> dict[str, ReadOnAccess]:
        """Patches of every sample for each bank, in the units of the statistics as they are now."""
        return {name: ReadOnAccess(features, lambda s, name=name: self.rows(s, name)) for name in BANKS}

    def rows(self, sample: Features, name: str) -> Tensor:
        """(Q, C) float32 patches of one sample as a bank holds them, shifted and scaled, on the CPU."""
        return self._shifted(read_grid(sample, self.config, self._side(name)), name)

    def _shifted(self, patch_set: PatchSet, name: str) -> Tensor:
        values = self.fusion.fuse(patch_set) if name == "fused" else getattr(patch_set, name)
        mean, std = self.statistics[name]
        return (values - mean) / std

    def _side(self, name: str) -> int | None:
        return self.config.rgb_side if name == "rgb" else self.config.grid_side

    def _statistics(self, tables: Mapping[str, Sequence[Tensor]]) -> dict[str, tuple[float, float]]:
        """Mean and deviation of all values of each bank, or those that the released code takes for them."""
        own = {name: table_statistics(rows) for name, rows in tables.items()}
        if self.config.statistics == "own":
            return own
        return dict.fromkeys(BANKS, (own["xyz"][0], own["rgb"][1]))

    def _fill_banks(self, tables: Mapping[str, Sequence[Tensor]], seed: int, progress: bool) -> None:
        fraction, size = self.config.coreset_fraction, None
        self.banks = {}
        for name in ("xyz", "rgb", "fused"):  # the first one's size counts for the others [released]
            self.banks[name] = coreset_bank(tables[name], self.config, seed, self.device, progress, size)
            if self.config.sizes == "released":
                size = coreset_size(len(self.banks["xyz"]), fraction)
        if self.config.triple_xyz == "released":
            kept = self.banks["xyz"][(self.banks["xyz"] != 0).all(dim=1)]
            self.banks[TRIPLE_XYZ] = torch.cat([kept, kept.new_zeros(1, kept.shape[1])])

    def _fit_late_fusions(self, features: Sequence[Features]) -> None:
        """SVMs on training samples scored against the banks that contain them [released].

        Where the banks hold every patch all scores are 0; then there are no SVMs.
        """
        self.late_fusions = {}
        if self.config.coreset_fraction == 1:
            return
        every_pixel = self.config.svm_pixels == "all"
        inside = [torch.ones_like(s.foreground) if every_pixel else s.foreground for s in features]
        found = [{name: self._single(sample, name) for name in self.banks} for sample in features]
        for variant, names in FUSED_FROM.items():
            parts = {name: [predictions[self._bank(name, variant)] for predictions in found] for name in names}
            divisor = self.config.double_divisor if variant == "double" else 1.0
            self.late_fusions[variant] = OneClassFusion.fit(parts, inside, divisor)

    def _bank(self, name: str, variant: str) -> str:
        """Key of the bank that a fused variant takes for a name."""
        return TRIPLE_XYZ if (name, variant) == ("xyz", "triple") and TRIPLE_XYZ in self.banks else name

    def _single(self, sample: Features, bank: str) -> Prediction:
        """Prediction of one bank alone."""
        name = "xyz" if bank == TRIPLE_XYZ else bank
        patch_set = read_grid(sample, self.config, self._side(name))
        return bank_prediction(self._shifted(patch_set, name), self.banks[bank], patch_set, self.config)

    def predict(self, sample: Features, variants: Sequence[str] = M3DM_VARIANTS) -> dict[str, Prediction]:
        """Predictions of one sample by single banks and by their fusions.

        Raises:
            InputError: a variant is unknown, or a fusion is asked for whose banks hold every patch.
        """
        for variant in variants:
            check_choice("M3DM variant", variant, M3DM_VARIANTS)
            if variant in FUSED_FROM and variant not in self.late_fusions:
                raise InputError(f"M3DM {variant!r}: the banks hold every patch; fit with a coreset_fraction below 1")
        needed = {self._bank(name, variant) for variant in variants for name in FUSED_FROM.get(variant, (variant,))}
        found = {bank: self._single(sample, bank) for bank in sorted(needed)}
        return {variant: found[variant] if variant in BANKS else self._fused(variant, found) for variant in variants}

    def _fused(self, variant: str, found: Mapping[str, Prediction]) -> Prediction:
        parts = {name: found[self._bank(name, variant)] for name in FUSED_FROM[variant]}
        return self.late_fusions[variant].combine(parts)

    def state(self) -> State:
        """Fusion networks, banks, their statistics and the SVMs' weights."""
        statistics = {name: torch.tensor(values, dtype=torch.float64) for name, values in self.statistics.items()}
        svms = {f"svm.{variant}": fusion.state() for variant, fusion in self.late_fusions.items()}
        return joined({"uff": self.fusion.state_dict(), "bank": self.banks, "statistics": statistics, **svms})

    def load_state(self, state: State) -> None:
        """Take over what `state` gave."""
        self.fusion.load_state_dict(part_of(state, "uff"))
        self.fusion.eval()
        self.banks = {name: bank.to(self.device) for name, bank in part_of(state, "bank").items()}
        self.statistics = {name: tuple(values.tolist()) for name, values in part_of(state, "statistics").items()}
        svms = {variant: part_of(state, f"svm.{variant}") for variant in FUSED_FROM}
        self.late_fusions = {variant: OneClassFusion.from_state(found) for variant, found in svms.items() if found}
