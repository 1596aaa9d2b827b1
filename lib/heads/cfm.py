"""Crossmodal Feature Mapping (Costanzino et al., CVPR 2024), written from the paper.

Letters: N foreground pixels, C channels, H W pixels. "2d" is the RGB side, "3d" the point-cloud side.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy, deepcopy

import torch
from torch import Tensor

from lib.features import Features
from lib.grids import box_blur, gaussian_blur
from lib.heads import Prediction
from lib.heads.cfm_training import train_mappings
from lib.heads.checkpoints import Checkpoint
from lib.heads.mapping_networks import mapping_network
from lib.heads.mixed_rows import pixel_rows
from lib.heads.state import State, joined, part_of
from lib.losses import cosine_distance, unit_distance
from lib.methods import CFM_VARIANTS, CFMConfig, Scoring
from lib.pixel_mean import averaged_xyz
from lib.training import DEFAULT_SETUP, TrainingSetup, inference_dtype

DIRECTIONS = ("rgb_to_xyz", "xyz_to_rgb")
PIXELS_PER_CHUNK = 4096  # rows whose hidden activations stay in the processor's cache


def aggregate(psi_2d: Tensor, psi_3d: Tensor, aggregation: str) -> Tensor:
    """One discrepancy map out of two.

    Args:
        psi_2d: (..., H, W) float32, distance between predicted and observed RGB features.
        psi_3d: (..., H, W) float32, the same for 3D features.
        aggregation: "product" (CFM eq. 5), "sum", "max", "psi_2d" or "psi_3d" (CFM Table 6).

    Returns:
        (..., H, W) float32.
    """
    rules = {
        "product": lambda: psi_2d * psi_3d,
        "sum": lambda: psi_2d + psi_3d,
        "max": lambda: torch.maximum(psi_2d, psi_3d),
        "psi_2d": lambda: psi_2d,
        "psi_3d": lambda: psi_3d,
    }
    return rules[aggregation]()


def blur(anomaly_map: Tensor, scoring: Scoring) -> Tensor:
    """(H, W) map smoothed as `scoring.blur` says: the paper's Gaussian, or the released code's eight box filters."""
    if scoring.blur == "gaussian":
        return gaussian_blur(anomaly_map, scoring.blur_sigma_px)
    if scoring.blur == "box":
        return box_blur(box_blur(anomaly_map, kernel_px=5, repeats=5), kernel_px=7, repeats=3)
    return anomaly_map


def score(anomaly_map: Tensor, rule: str) -> Prediction:
    """Image score and metric maps from a blurred map.

    Args:
        anomaly_map: (H, W) float32, at least 0.
        rule: "paper" = the maximum (CFM sec. 3.3). "released" = the AUPRO map is divided by the mean over nonzero
            pixels, the image score is the maximum over the root of that mean, and the pixel-AUROC map is divided
            by the root of the mean over all pixels [released code].
    """
    if rule == "paper":
        return Prediction(anomaly_map, float(anomaly_map.max()))
    nonzero = anomaly_map[anomaly_map != 0]
    mean_nonzero = nonzero.mean() if len(nonzero) else torch.tensor(1.0)
    mean_all = anomaly_map.mean() if len(nonzero) else torch.tensor(1.0)
    return Prediction(
        anomaly_map / mean_nonzero,
        float(anomaly_map.max() / mean_nonzero.sqrt()),
        pixel_scale=float(mean_nonzero / mean_all.sqrt()),
    )


class CFM:
    """Two mapping networks trained on normal samples, and the maps of their disagreement with what is seen.

    With the intramodal task of Table 7 each network gives back its own modality instead, under the same names.
    """

    variants = tuple(CFM_VARIANTS)

    def __init__(self, config: CFMConfig, rgb_dim: int, xyz_dim: int, device: str = "cpu") -> None:
        self.config = config
        self.device = torch.device(device)
        crossmodal = config.task == "crossmodal"
        self.rgb_to_xyz = mapping_network(config, rgb_dim, xyz_dim if crossmodal else rgb_dim).to(self.device)
        self.xyz_to_rgb = mapping_network(config, xyz_dim, rgb_dim if crossmodal else xyz_dim).to(self.device)

    def losses(self, rgb: Tensor, xyz: Tensor) -> tuple[Tensor, Tensor]:
        """Mean cosine distance of each direction over foreground pixels (CFM eq. 3).

        Args:
            rgb: (N, C2) float32.
            xyz: (N, C3) float32.

        Returns:
            Two scalars: RGB to 3D, 3D to RGB.
        """
        return cosine_distance(self.rgb_to_xyz(rgb), xyz).mean(), cosine_distance(self.xyz_to_rgb(xyz), rgb).mean()

    def fit(
        self,
        features: Sequence[Features],
        seed: int,
        progress: bool = False,
        setup: TrainingSetup = DEFAULT_SETUP,
        checkpoint: Checkpoint | None = None,
    ) -> dict[str, list[float]]:
        """Loss curves of training both networks jointly with Adam; the networks are initialized anew.

        Args:
            features: normal training samples.
            seed: of the initialization, the order of images and the pixels drawn.
            progress: show a bar over epochs.
            setup: how it is computed.
            checkpoint: where the training's state is kept.

        Returns:
            "rgb_to_xyz" and "xyz_to_rgb": mean loss of each epoch.
        """
        networks = self.rgb_to_xyz, self.xyz_to_rgb
        return train_mappings(self.config, *networks, features, seed, progress, setup, checkpoint)

    @torch.inference_mode()
    def discrepancies(self, sample: Features) -> tuple[Tensor, Tensor]:
        """Distance maps between what each modality predicts and what the other shows (CFM eq. 4).

        Args:
            sample: features of one sample.

        Returns:
            psi_2d, psi_3d: (H, W) float32 in [0, 2], zero off the object.
        """
        sample = averaged_xyz(sample, self.config.xyz_mean_px).to(self.device)
        rgb, xyz = pixel_rows([sample], [None])
        psi = torch.zeros(2, sample.foreground.numel(), device=self.device)
        dtype = self.rgb_to_xyz.input.weight.dtype
        hidden_2d = rgb.through(lambda rows: self.rgb_to_xyz.input(rows.to(dtype)).float())
        hidden_3d = xyz.through(lambda rows: self.xyz_to_rgb.input(rows.to(dtype)).float())
        from_2d, from_3d = (self.rgb_to_xyz, hidden_2d), (self.xyz_to_rgb, hidden_3d)
        of_2d, of_3d = (from_3d, from_2d) if self.config.task == "crossmodal" else (from_2d, from_3d)
        at_a_time = PIXELS_PER_CHUNK if self.device.type == "cpu" else len(rgb)
        for start in range(0, len(rgb), at_a_time):
            part = slice(start, start + at_a_time)
            pixels = sample.pixel_index[part]
            for row, (network, hidden), seen in ((0, of_2d, rgb), (1, of_3d, xyz)):
                predicted = network.after_input(hidden.read(part).to(dtype)).float()
                psi[row, pixels] = unit_distance(predicted, seen.read(part))
        psi_2d, psi_3d = psi.cpu().view(2, *sample.foreground.shape)
        return psi_2d, psi_3d

    def at_precision(self, precision: str) -> CFM:
        """A copy that predicts with its networks in another precision; distances and maps stay float32.

        Args:
            precision: a word of `lib.training.INFERENCE_DTYPES`.
        """
        copied = copy(self)
        for name in DIRECTIONS:
            setattr(copied, name, deepcopy(getattr(self, name)).to(inference_dtype(precision)))
        return copied

    def predict(self, sample: Features, variants: Sequence[str] = ("product",)) -> dict[str, Prediction]:
        """Predictions of one sample for several scorings, at the cost of one pass through the networks.

        Args:
            sample: features of one sample.
            variants: keys of `lib.methods.CFM_VARIANTS`.
        """
        psi_2d, psi_3d = self.discrepancies(sample)
        return {name: combine(psi_2d, psi_3d, CFM_VARIANTS[name]) for name in variants}

    def state(self) -> State:
        """Weights of both networks."""
        return joined({name: getattr(self, name).state_dict() for name in DIRECTIONS})

    def load_state(self, state: State) -> None:
        """Take over what `state` gave."""
        for name in DIRECTIONS:
            getattr(self, name).load_state_dict(part_of(state, name))


def combine(psi_2d: Tensor, psi_3d: Tensor, scoring: Scoring) -> Prediction:
    """Aggregated, blurred and scored discrepancies: `aggregate`, then `blur`, then `score`."""
    return score(blur(aggregate(psi_2d, psi_3d, scoring.aggregation), scoring), scoring.score_rule)
