"""Adaptors of LSFA: one transformer layer a modality, trained by crossmodal contrast and intramodal compactness.

Source: Tu et al., "Self-supervised Feature Adaptation for 3D Industrial Anomaly Detection", ECCV 2024, from a public
summary of it [summary] and the authors' code [released]. Letters: Q patches of one sample; C2, C3 channels of the RGB
and 3D features; D width of the projection; k instance vectors a sample.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from sklearn.cluster import KMeans
from threadpoolctl import threadpool_limits
from torch import Tensor, nn
from torch.nn import functional as F

from lib.errors import InputError
from lib.extractors.point_network import Block
from lib.fifo import FIFOBank
from lib.losses import compactness, crossmodal_contrast
from lib.methods import AdaptorConfig
from lib.patches import PatchSet
from lib.seeding import torch_seed

KMEANS_ROUNDS = 10  # [ours]
BANK_NAMES = ("rgb_local", "rgb_global", "xyz_local", "xyz_global")


class Adaptors(nn.Module):
    """One transformer layer and one linear projection head for each modality.

    Args:
        config: sizes and heads.
        rgb_dim, xyz_dim: channels C2, C3.
        seed: of the first weights.

    Raises:
        InputError: the attention heads do not divide a dimension.
    """

    def __init__(self, config: AdaptorConfig, rgb_dim: int, xyz_dim: int, seed: int) -> None:
        super().__init__()
        if rgb_dim % config.num_heads or xyz_dim % config.num_heads:
            raise InputError(
                f"num_heads is {config.num_heads}, which does not divide the feature dimensions {rgb_dim} and "
                f"{xyz_dim}; choose another number of heads, 1 fits all"
            )
        with torch_seed(seed):
            self.rgb_adaptor = Block(rgb_dim, config.num_heads, config.mlp_ratio, rate=0.0)
            self.xyz_adaptor = Block(xyz_dim, config.num_heads, config.mlp_ratio, rate=0.0)
            self.rgb_projection = nn.Linear(rgb_dim, config.projection_dim)
            self.xyz_projection = nn.Linear(xyz_dim, config.projection_dim)

    def forward(self, rgb: Tensor, xyz: Tensor) -> tuple[Tensor, Tensor]:
        """Adapted patch features of one sample, F in the paper: (Q, C2) and (Q, C3) from the same shapes."""
        return self.rgb_adaptor(rgb[None])[0], self.xyz_adaptor(xyz[None])[0]

    @torch.no_grad()
    def adapt(self, patch_set: PatchSet) -> PatchSet:
        """The same patches with adapted features, on the CPU."""
        device = self.rgb_projection.weight.device
        rgb, xyz = self(patch_set.rgb.to(device), patch_set.xyz.to(device))
        return replace(patch_set, rgb=rgb.cpu(), xyz=xyz.cpu())


@dataclass(frozen=True, eq=False)
class Adapted:
    """Adapted features of one sample within a training step.

    Attributes:
        category: whose banks they meet.
        rgb, xyz: (Q, C2) and (Q, C3) float32 patches, F in the paper.
        rgb_instances, xyz_instances: (k, C2) and (k, C3) float32 instance vectors, G in the paper.
    """

    category: str
    rgb: Tensor
    xyz: Tensor
    rgb_instances: Tensor
    xyz_instances: Tensor


class Banks:
    """Local and global first-in-first-out banks of one category, for both modalities."""

    def __init__(self, config: AdaptorConfig, rgb_dim: int, xyz_dim: int, device: torch.device) -> None:
        self.config = config
        sizes = (config.local_bank_rows, config.global_bank_rows)
        self.rgb_local, self.rgb_global = (FIFOBank(size, rgb_dim, device) for size in sizes)
        self.xyz_local, self.xyz_global = (FIFOBank(size, xyz_dim, device) for size in sizes)

    def are_ready(self, step: int) -> bool:
        """True when LC and GC count at a step (counted from 0)."""
        filled = self.rgb_local.is_full if self.config.ifc_full_bank else len(self.rgb_local.rows) > 0
        return step >= self.config.ifc_from_step and filled

    def state_dict(self) -> dict[str, Any]:
        """The rows of all four."""
        return {name: getattr(self, name).state_dict() for name in BANK_NAMES}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what `state_dict` gave."""
        for name in BANK_NAMES:
            getattr(self, name).load_state_dict(state[name])

    def push(self, sample: Adapted) -> None:
        """Put a sample's patches and instance vectors in."""
        self.rgb_local.push(sample.rgb)
        self.xyz_local.push(sample.xyz)
        self.rgb_global.push(sample.rgb_instances)
        self.xyz_global.push(sample.xyz_instances)


def instance_vectors(rgb: Tensor, xyz: Tensor, num_clusters: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Instance vectors (k, C2) and (k, C3): means over the clusters of a sample's RGB patches (LSFA, GA).

    Args:
        rgb, xyz: (Q, C2) and (Q, C3) float32, rows of the same patches. Gradients flow through the means, not through
            the assignment.
        num_clusters: k; 1 is the mean over all patches.
        generator: of the clusters' starts, on the CPU; k = 1 draws nothing.
    """
    if num_clusters == 1:
        return rgb.mean(dim=0, keepdim=True), xyz.mean(dim=0, keepdim=True)
    seed = int(torch.randint(2**31 - 1, (1,), generator=generator))
    kmeans = KMeans(min(num_clusters, len(rgb)), n_init=1, max_iter=KMEANS_ROUNDS, random_state=seed)
    with threadpool_limits(torch.get_num_threads()):  # scikit-learn has threads of its own
        cluster = torch.from_numpy(kmeans.fit_predict(rgb.detach().cpu().numpy())).long()
    member = F.one_hot(cluster).to(rgb)  # (Q, k)
    shares = member / member.sum(dim=0)
    return shares.T @ rgb, shares.T @ xyz


def training_losses(
    adaptors: Adaptors, batch: Sequence[Adapted], banks: Mapping[str, Banks], config: AdaptorConfig, step: int
) -> dict[str, Tensor]:
    """The losses of one step by name; those of weight 0 and those whose banks are not ready are left out.

    Args:
        adaptors: for their projection heads.
        batch: adapted samples.
        banks: by category.
        config: forms and weights.
        step: counted from 0.
    """
    losses = {}
    if config.weight_la > 0:
        losses["la"] = local_alignment(adaptors, batch, config)
    if config.weight_ga > 0:
        rgb, xyz = (torch.cat([getattr(s, name) for s in batch]) for name in ("rgb_instances", "xyz_instances"))
        losses["ga"] = projected_contrast(adaptors, rgb, xyz, config)
    ready = [sample for sample in batch if banks[sample.category].are_ready(step)]
    if ready and config.weight_lc > 0:
        losses["lc"] = mean_compactness(ready, banks, ("rgb", "xyz"), "local", config.reduction)
    if ready and config.weight_gc > 0:
        losses["gc"] = mean_compactness(ready, banks, ("rgb_instances", "xyz_instances"), "global", config.reduction)
    return losses


def local_alignment(adaptors: Adaptors, batch: Sequence[Adapted], config: AdaptorConfig) -> Tensor:
    """LA: contrast between the patches of the two modalities, within each sample or over the whole batch."""
    if config.negatives == "batch":
        rgb, xyz = torch.cat([sample.rgb for sample in batch]), torch.cat([sample.xyz for sample in batch])
        return projected_contrast(adaptors, rgb, xyz, config)
    return torch.stack([projected_contrast(adaptors, sample.rgb, sample.xyz, config) for sample in batch]).mean()


def projected_contrast(adaptors: Adaptors, rgb: Tensor, xyz: Tensor, config: AdaptorConfig) -> Tensor:
    """Contrast of paired rows (N, C2) and (N, C3) after the projection heads, F' and G' in the paper."""
    first, second = adaptors.rgb_projection(rgb), adaptors.xyz_projection(xyz)
    if config.normalize:
        first, second = F.normalize(first, dim=1), F.normalize(second, dim=1)
    return crossmodal_contrast(first, second, config.temperature, config.softmax)


def mean_compactness(
    batch: Sequence[Adapted], banks: Mapping[str, Banks], fields: tuple[str, str], level: str, reduction: str
) -> Tensor:
    """LC or GC: distances of both modalities' rows to their category's banks, added over the two modalities.

    Args:
        batch: adapted samples.
        banks: by category.
        fields: fields of `Adapted` with the rows of RGB and of 3D.
        level: "local" or "global".
        reduction: over rows, "mean" or "sum".
    """
    total = batch[0].rgb.new_zeros(())
    for modality, field in zip(("rgb", "xyz"), fields, strict=True):
        distances = []
        for category in dict.fromkeys(sample.category for sample in batch):
            rows = torch.cat([getattr(sample, field) for sample in batch if sample.category == category])
            distances.append(compactness(rows, getattr(banks[category], f"{modality}_{level}").rows))
        pooled = torch.cat(distances)
        total = total + (pooled.mean() if reduction == "mean" else pooled.sum())
    return total
