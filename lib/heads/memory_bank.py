"""Nearest normal patch: the baseline that every learned head has to beat on the same features, and PatchCore.

Letters: M bank rows, Q query patches, C channels.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lib.bank_search import nearest_distances
from lib.config import check_choice
from lib.errors import InputError
from lib.features import Features
from lib.heads import Prediction
from lib.heads.patch_bank import coreset_bank, patch_score
from lib.heads.score_fusion import OneClassFusion, Standardization, average
from lib.heads.state import State, joined, part_of
from lib.methods import MODALITIES, PATCHCORE_VARIANTS, NearestNeighborConfig, PatchCoreConfig
from lib.patches import PatchSet, dense_map, read_patches
from lib.reading import ReadOnAccess

HELD_OUT_STEP = 8  # of the training samples that set the scales of the late fusion
SINGLES = ("rgb", "xyz")


def joint_rows(patch_set: PatchSet) -> Tensor:
    """(Q, C2 + C3) float32 patch features side by side.

    Each modality is divided by the root of its dimension, so that both weigh alike in the concatenation [ours].
    """
    return torch.cat([rows / rows.shape[1] ** 0.5 for rows in (patch_set.rgb, patch_set.xyz)], dim=1)


class NearestNeighbor:
    """Distance to the nearest normal patch: RGB alone, 3D alone, both concatenated, and both fused late."""

    variants = MODALITIES

    def __init__(self, config: NearestNeighborConfig, rgb_dim: int, xyz_dim: int, device: str = "cpu") -> None:
        self.config = config
        self.parts = {"rgb": slice(0, rgb_dim), "xyz": slice(rgb_dim, rgb_dim + xyz_dim)}
        self.device = torch.device(device)
        self.bank = torch.empty(0, rgb_dim + xyz_dim)
        self.late_scale: dict[str, float] = {}

    def fit(self, features: Sequence[Features], seed: int, progress: bool = False) -> dict[str, list[float]]:
        """Fill the bank with normal patches; nothing is learnt, so the history is empty.

        Args:
            features: normal training samples.
            seed: of the draw of `bank_rows` patches.
            progress: accepted for the common road; filling a bank is quick, so no bar is shown.
        """
        generator = torch.Generator().manual_seed(seed)
        by_sample = [joint_rows(read_patches(sample)) for sample in features]
        rows = torch.cat(by_sample)
        if self.config.bank_rows is not None and self.config.bank_rows < len(rows):
            rows = rows[torch.randperm(len(rows), generator=generator)[: self.config.bank_rows]]
        self.bank = rows.to(self.device)
        self._scale_late_fusion(by_sample)
        return {}

    def _scale_late_fusion(self, by_sample: Sequence[Tensor]) -> None:
        """Mean distance of each modality from some training samples to the others, so that the sum weighs both alike.

        Whole samples are held out, every `HELD_OUT_STEP`-th: patches of one image overlap, so an image in the bank
        would lie too near to itself. A single training sample leaves both scales at 1.
        """
        self.late_scale = dict.fromkeys(self.parts, 1.0)
        if len(by_sample) == 1:
            return
        held_out = torch.cat(by_sample[::HELD_OUT_STEP]).to(self.device)
        others = torch.cat([rows for index, rows in enumerate(by_sample) if index % HELD_OUT_STEP]).to(self.device)
        distances = nearest_distances(held_out, others, self.parts, tuple(self.parts))
        self.late_scale = {name: float(values.mean()) for name, values in distances.items()}

    def predict(self, sample: Features, variants: Sequence[str] = MODALITIES) -> dict[str, Prediction]:
        """Predictions of one sample for several modalities; the late fusion adds the two scaled single maps."""
        patch_set = read_patches(sample)
        queries = joint_rows(patch_set).to(self.device)
        needed = [name for name in variants if name != "late"]
        needed += [name for name in self.parts if "late" in variants and name not in needed]
        distances = nearest_distances(queries, self.bank, self.parts, needed)
        if "late" in variants:
            distances["late"] = sum(distances[name] / self.late_scale[name] for name in self.parts) / 2
        sigma_px = self.config.blur_sigma_px
        maps = {name: dense_map(distances[name].cpu(), patch_set, sigma_px) for name in variants}
        return {name: Prediction(anomaly_map, float(anomaly_map.max())) for name, anomaly_map in maps.items()}

    def state(self) -> State:
        """The bank and the scales of the late fusion."""
        scales = torch.tensor([self.late_scale[name] for name in SINGLES], dtype=torch.float64)
        return joined({"bank": {"rows": self.bank}, "late": {"scales": scales}})

    def load_state(self, state: State) -> None:
        """Take over what `state` gave."""
        self.bank = state["bank.rows"].to(self.device)
        self.late_scale = dict(zip(SINGLES, state["late.scales"].tolist(), strict=True))


class PatchCore:
    """One memory bank a modality, each a greedy coreset of the normal patches, and three fusions of their scores.

    Variants: "rgb" and "xyz" alone; "plain_average" of the two [LSFA]; "average" after standardizing both by validation
    samples [ours]; "svm" = the one-class SVM late fusion of M3DM, fitted when first asked for.
    """

    variants = PATCHCORE_VARIANTS

    def __init__(self, config: PatchCoreConfig, rgb_dim: int, xyz_dim: int, device: str = "cpu") -> None:
        self.config = config
        self.device = torch.device(device)
        self.banks = {"rgb": torch.empty(0, rgb_dim), "xyz": torch.empty(0, xyz_dim)}
        self._train: Sequence[PatchSet] = ()
        self._standardizations: dict[str, Standardization] = {}
        self._one_class: OneClassFusion | None = None

    def fit(
        self, features: Sequence[Features], seed: int, progress: bool = False, validation: Sequence[Features] = ()
    ) -> dict[str, list[float]]:
        """Fill the banks; nothing is learnt, so the history is empty.

        Args:
            features: normal training samples.
            seed: of the projection before the selection, the only chance here: the selection starts at row 0 [M3DM].
            progress: show a bar over selections.
            validation: normal samples that set the scales of "average"; without them that variant is not there.
        """
        read, held_out = (
            ReadOnAccess(samples, lambda sample: read_patches(sample, self.config.grid_side))
            for samples in (features, validation)
        )
        self.fit_patches(read, seed, progress, held_out)
        return {}

    def fit_patches(
        self,
        patch_sets: Sequence[PatchSet],
        seed: int,
        progress: bool = False,
        validation: Sequence[PatchSet] = (),
    ) -> None:
        """`fit` on patches that are already read.

        Args:
            patch_sets: normal training samples; they are kept for the fit of "svm".
            seed, progress: as for `fit`.
            validation: as for `fit`.
        """
        if not patch_sets:
            raise InputError("PatchCore: no training features; check that the category has training samples")
        for name in SINGLES:
            tables = ReadOnAccess(patch_sets, lambda patch_set, name=name: getattr(patch_set, name), kept_bytes=0)
            self.banks[name] = coreset_bank(tables, self.config, seed, self.device, progress)
        self._train, self._one_class, self._standardizations = patch_sets, None, {}
        if validation:
            foregrounds = [patch_set.foreground for patch_set in validation]
            for name in SINGLES:
                found = [self._single(name, patch_set) for patch_set in validation]
                self._standardizations[name] = Standardization.fit(found, foregrounds)

    def predict(self, sample: Features, variants: Sequence[str] = PATCHCORE_VARIANTS) -> dict[str, Prediction]:
        """Predictions of one sample by modality and fusion; see `predict_patches`."""
        return self.predict_patches(read_patches(sample, self.config.grid_side), variants)

    def predict_patches(
        self, patch_set: PatchSet, variants: Sequence[str] = PATCHCORE_VARIANTS
    ) -> dict[str, Prediction]:
        """Predictions of one sample, whose patches are already read, by modality and fusion.

        Args:
            patch_set: on the grid of the training samples.
            variants: some of `PATCHCORE_VARIANTS`.

        Raises:
            InputError: a variant is unknown, "average" was fitted without validation samples, or "svm" with a bank
                that holds every patch.
        """
        for variant in variants:
            check_choice("PatchCore variant", variant, PATCHCORE_VARIANTS)
        needed = SINGLES if set(variants) - set(SINGLES) else variants
        found = {name: self._single(name, patch_set) for name in needed}
        return {name: found[name] if name in SINGLES else self._fused(name, **found) for name in variants}

    def _single(self, name: str, patch_set: PatchSet) -> Prediction:
        """Prediction of one modality alone."""
        queries = getattr(patch_set, name).to(self.device)
        distances, score = patch_score(queries, self.banks[name], self.config.reweight_rows)
        anomaly_map = dense_map(distances.cpu(), patch_set, self.config.blur_sigma_px)
        return Prediction(anomaly_map, float(anomaly_map.max()) if self.config.image_score == "map" else score)

    def _fused(self, variant: str, rgb: Prediction, xyz: Prediction) -> Prediction:
        """Prediction of both modalities together."""
        if variant == "plain_average":
            return average(rgb, xyz)
        if variant == "svm":
            return self._fitted_one_class().combine({"rgb": rgb, "xyz": xyz})
        if not self._standardizations:
            raise InputError("PatchCore 'average' needs validation samples; give some to fit, or ask for plain_average")
        return average(self._standardizations["rgb"].apply(rgb), self._standardizations["xyz"].apply(xyz))

    def _fitted_one_class(self) -> OneClassFusion:
        """The SVM fusion, fitted once, on training samples scored against the banks that contain them [M3DM]."""
        if self._one_class is None:
            if not self._train:
                raise InputError("PatchCore: no SVM was saved with this head; fit it with a coreset_fraction below 1")
            parts = {name: [self._single(name, patch_set) for patch_set in self._train] for name in SINGLES}
            self._one_class = OneClassFusion.fit(parts, [patch_set.foreground for patch_set in self._train])
        return self._one_class

    def state(self) -> State:
        """Banks, scales of "average" and weights of "svm", each as far as there are any."""
        if self._train and any(len(bank) < self._num_patches(name) for name, bank in self.banks.items()):
            self._fitted_one_class()
        parts = {f"standardization.{name}": found.state() for name, found in self._standardizations.items()}
        parts |= {"one_class": self._one_class.state()} if self._one_class is not None else {}
        return joined({"bank": self.banks, **parts})

    def _num_patches(self, name: str) -> int:
        """Training patches of a modality; a bank of all of them leaves nothing for an SVM to learn."""
        return sum(len(getattr(patch_set, name)) for patch_set in self._train)

    def load_state(self, state: State) -> None:
        """Take over what `state` gave; the training samples are not in it."""
        self._train = ()
        self.banks = {name: part_of(state, "bank")[name].to(self.device) for name in SINGLES}
        scales = {name: part_of(state, f"standardization.{name}") for name in SINGLES}
        self._standardizations = {name: Standardization.from_state(found) for name, found in scales.items() if found}
        one_class = part_of(state, "one_class")
        self._one_class = OneClassFusion.from_state(one_class) if one_class else None
