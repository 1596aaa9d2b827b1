"""BTF ("Back to the Feature", Horwitz and Hoshen, CVPRW 2023): one memory bank of RGB and FPFH features side by side.

The code of its authors (3D-ADS) is [released]. The name of the features is their extractor's: WideResNet-50-2 and FPFH
in the paper; any pair of extractors will do.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lib.config import check_choice
from lib.errors import InputError
from lib.features import Features
from lib.heads import Prediction
from lib.heads.bank_grid import GridBankConfig, bank_prediction, read_grid
from lib.heads.memory_bank import joint_rows
from lib.heads.patch_bank import coreset_bank
from lib.heads.state import State, joined, part_of
from lib.patches import PatchSet
from lib.reading import ReadOnAccess

BTF_VARIANTS = ("both", "rgb", "xyz")


@dataclass(frozen=True)
class BTFConfig(GridBankConfig):
    """Settings of BTF; those of the banks are in `GridBankConfig`.

    Attributes:
        grid_side: 28 [released].
        scaling: of the two features side by side: "none" [paper, released], or "balanced" = each divided by the root
            of its dimension [ours], for features that were standardized before.
    """

    head_class = "lib.heads.btf:BTF"
    variants = BTF_VARIANTS

    grid_side: int | None = 28
    scaling: str = "none"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("scaling", self.scaling, ("none", "balanced"))


BTF_PAPER = BTFConfig()
BTF_RELEASED = BTFConfig(cells="all", blur="quantized")
# Chosen on data seed 11, as for PATCHCORE_DEMO: the maximum of the map instead of the largest single patch distance.
BTF_DEMO = BTFConfig(scaling="balanced", image_score="map", reweight_rows=None)


class BTF:
    """One bank of joined features ("both"), and one for each modality alone."""

    variants = BTF_VARIANTS

    def __init__(self, config: BTFConfig, rgb_dim: int, xyz_dim: int, device: str = "cpu") -> None:
        self.config = config
        self.device = torch.device(device)
        dims = {"both": rgb_dim + xyz_dim, "rgb": rgb_dim, "xyz": xyz_dim}
        self.banks = {name: torch.empty(0, dim) for name, dim in dims.items()}

    def fit(self, features: Sequence[Features], seed: int, progress: bool = False) -> dict[str, list[float]]:
        """Fill the banks; nothing is learnt, so the history is empty.

        Args:
            features: normal training samples.
            seed: of the projection before the selection.
            progress: show a bar over selections.
        """
        if not features:
            raise InputError("BTF: no training features; check that the category has training samples")
        for name in self.variants:
            tables = ReadOnAccess(features, lambda sample, name=name: self._rows(self._read(sample), name))
            self.banks[name] = coreset_bank(tables, self.config, seed, self.device, progress)
        return {}

    def _read(self, sample: Features) -> PatchSet:
        return read_grid(sample, self.config, self.config.grid_side)

    def _rows(self, patch_set: PatchSet, name: str) -> Tensor:
        """(Q, C) float32 patches that a bank holds."""
        if name != "both":
            return getattr(patch_set, name)
        if self.config.scaling == "balanced":
            return joint_rows(patch_set)
        return torch.cat([patch_set.rgb, patch_set.xyz], dim=1)

    def predict(self, sample: Features, variants: Sequence[str] = BTF_VARIANTS) -> dict[str, Prediction]:
        """Predictions of one sample by each bank asked for."""
        for name in variants:
            check_choice("BTF variant", name, BTF_VARIANTS)
        patch_set = self._read(sample)
        return {
            name: bank_prediction(self._rows(patch_set, name), self.banks[name], patch_set, self.config)
            for name in variants
        }

    def state(self) -> State:
        """The banks."""
        return joined({"bank": self.banks})

    def load_state(self, state: State) -> None:
        """Take over what `state` gave."""
        self.banks = {name: bank.to(self.device) for name, bank in part_of(state, "bank").items()}
