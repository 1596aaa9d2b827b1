"""Adaptors of LSFA: one transformer layer a modality, trained by crossmodal contrast and intramodal compactness.

Source: Tu et al., "Self-supervised Feature Adaptation for 3D Industrial Anomaly Detection", ECCV 2024, from a public
summary of it [summary] and the authors' code [released]. Letters: Q patches of one sample; C2, C3 channels of the RGB
and 3D features; D width of the projection; k instance vectors a sample.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from sklearn.cluster import KMeans
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm.auto import tqdm

from lib.config import LSFAConfig
from lib.errors import InputError
from lib.extractors.point_network import Block
from lib.fifo import FIFOBank
from lib.losses import compactness, crossmodal_contrast, effective_rank
from lib.patches import PatchSet
from lib.seeding import torch_seed

LOSSES = ("la", "ga", "lc", "gc")
KMEANS_ROUNDS = 10
CURVE_POINTS = 60  # of a loss curve in a record: means over equal stretches of steps
PROBES = 4  # training samples whose adapted features are watched for collapse
COLLAPSE_SHARE = 0.5  # of the effective rank before training, under which a warning is due


class Adaptors(nn.Module):
    """One transformer layer and one linear projection head for each modality.

    Args:
        config: sizes and heads.
        rgb_dim, xyz_dim: channels C2, C3.
        seed: of the first weights.

    Raises:
        InputError: the attention heads do not divide a dimension.
    """

    def __init__(self, config: LSFAConfig, rgb_dim: int, xyz_dim: int, seed: int) -> None:
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

    @torch.inference_mode()
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

    def __init__(self, config: LSFAConfig, rgb_dim: int, xyz_dim: int, device: torch.device) -> None:
        self.config = config
        sizes = (config.local_bank_rows, config.global_bank_rows)
        self.rgb_local, self.rgb_global = (FIFOBank(size, rgb_dim, device) for size in sizes)
        self.xyz_local, self.xyz_global = (FIFOBank(size, xyz_dim, device) for size in sizes)

    def are_ready(self, step: int) -> bool:
        """True when LC and GC count at a step (counted from 0)."""
        filled = self.rgb_local.is_full if self.config.ifc_full_bank else len(self.rgb_local.rows) > 0
        return step >= self.config.ifc_from_step and filled

    def push(self, sample: Adapted) -> None:
        """Put a sample's patches and instance vectors in."""
        self.rgb_local.push(sample.rgb)
        self.xyz_local.push(sample.xyz)
        self.rgb_global.push(sample.rgb_instances)
        self.xyz_global.push(sample.xyz_instances)


def instance_vectors(rgb: Tensor, xyz: Tensor, num_clusters: int) -> tuple[Tensor, Tensor]:
    """Instance vectors (k, C2) and (k, C3): means over the clusters of a sample's RGB patches (LSFA, GA).

    Args:
        rgb, xyz: (Q, C2) and (Q, C3) float32, rows of the same patches. Gradients flow through the means, not through
            the assignment.
        num_clusters: k; 1 is the mean over all patches.
    """
    if num_clusters == 1:
        return rgb.mean(dim=0, keepdim=True), xyz.mean(dim=0, keepdim=True)
    kmeans = KMeans(min(num_clusters, len(rgb)), n_init=1, max_iter=KMEANS_ROUNDS, random_state=0)
    member = F.one_hot(torch.from_numpy(kmeans.fit_predict(rgb.detach().cpu().numpy())).long()).to(rgb)  # (Q, k)
    shares = member / member.sum(dim=0)
    return shares.T @ rgb, shares.T @ xyz


def training_losses(
    adaptors: Adaptors, batch: Sequence[Adapted], banks: Mapping[str, Banks], config: LSFAConfig, step: int
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


def local_alignment(adaptors: Adaptors, batch: Sequence[Adapted], config: LSFAConfig) -> Tensor:
    """LA: contrast between the patches of the two modalities, within each sample or over the whole batch."""
    if config.negatives == "batch":
        rgb, xyz = torch.cat([sample.rgb for sample in batch]), torch.cat([sample.xyz for sample in batch])
        return projected_contrast(adaptors, rgb, xyz, config)
    return torch.stack([projected_contrast(adaptors, sample.rgb, sample.xyz, config) for sample in batch]).mean()


def projected_contrast(adaptors: Adaptors, rgb: Tensor, xyz: Tensor, config: LSFAConfig) -> Tensor:
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
        by_sample = [
            compactness(getattr(s, field), getattr(banks[s.category], f"{modality}_{level}").rows) for s in batch
        ]
        distances = torch.cat(by_sample)
        total = total + (distances.mean() if reduction == "mean" else distances.sum())
    return total


def train_adaptors(
    config: LSFAConfig,
    patch_sets: Mapping[str, Sequence[PatchSet]],
    seed: int,
    device: torch.device | str = "cpu",
    progress: bool = False,
) -> tuple[Adaptors, dict[str, list[float]]]:
    """Adaptors trained on normal samples, and their history.

    Args:
        config: settings; 0 epochs give the untrained adaptors.
        patch_sets: training samples by category.
        seed: of the first weights, the order of samples and the patches drawn.
        device: where to train.
        progress: show a bar over epochs.

    Returns:
        The adaptors, and by name: "la", "ga", "lc", "gc" (means over equal stretches of steps, at most `CURVE_POINTS`;
        a loss that starts late has fewer), "rank_rgb", "rank_xyz" (effective rank of adapted features) and
        "scale_rgb", "scale_xyz" (root mean square distance to their mean), each before training and after every epoch.
    """
    device = torch.device(device)
    samples = [(category, patch_set) for category in sorted(patch_sets) for patch_set in patch_sets[category]]
    rgb_dim, xyz_dim = samples[0][1].rgb.shape[1], samples[0][1].xyz.shape[1]
    adaptors = Adaptors(config, rgb_dim, xyz_dim, seed).to(device)
    banks = {category: Banks(config, rgb_dim, xyz_dim, device) for category in patch_sets}
    optimizer = torch.optim.AdamW(
        adaptors.parameters(), lr=config.learning_rate, betas=(0.9, 0.95), weight_decay=config.weight_decay
    )
    scheduler = warmup_cosine(optimizer, config, steps_per_epoch=-(-len(samples) // config.batch_size))
    generator = torch.Generator().manual_seed(seed)
    curves: dict[str, list[float]] = {name: [] for name in LOSSES}
    watch = CollapseWatch(adaptors, [patch_set for _, patch_set in samples])
    step = 0
    bar = tqdm(range(config.num_epochs), desc="LSFA epochs", disable=not progress)
    for _ in bar:
        for batch in shuffled_batches(samples, config.batch_size, generator):
            adapted = [adapt_for_training(adaptors, *entry, config, generator) for entry in batch]
            losses = training_losses(adaptors, adapted, banks, config, step)
            optimizer.zero_grad()
            if losses:
                sum(getattr(config, f"weight_{name}") * loss for name, loss in losses.items()).backward()
            optimizer.step()  # moves nothing where there is no gradient; the schedule goes on all the same
            scheduler.step()
            for sample in adapted:
                banks[sample.category].push(sample)
            for name, loss in losses.items():
                curves[name].append(float(loss.detach()))
            step += 1
        watch.look(adaptors)
        bar.set_postfix({name: f"{curve[-1]:.3f}" for name, curve in curves.items() if curve})
    watch.warn()
    return adaptors.eval(), {name: thinned(curve, step) for name, curve in curves.items() if curve} | watch.history


def shuffled_batches(
    samples: Sequence[tuple[str, PatchSet]], batch_size: int, generator: torch.Generator
) -> Iterator[list[tuple[str, PatchSet]]]:
    """The samples once, in random order, `batch_size` at a time; the last batch may be smaller."""
    order = torch.randperm(len(samples), generator=generator).tolist()
    for start in range(0, len(order), batch_size):
        yield [samples[index] for index in order[start : start + batch_size]]


def adapt_for_training(
    adaptors: Adaptors, category: str, patch_set: PatchSet, config: LSFAConfig, generator: torch.Generator
) -> Adapted:
    """Adapted features of one sample with gradients, cut to the patches drawn for the losses."""
    device = adaptors.rgb_projection.weight.device
    rgb, xyz = adaptors(patch_set.rgb.to(device), patch_set.xyz.to(device))
    instances = instance_vectors(rgb, xyz, config.num_clusters)
    if config.patches_per_image is not None and config.patches_per_image < len(rgb):
        drawn = torch.randperm(len(rgb), generator=generator)[: config.patches_per_image].to(device)
        rgb, xyz = rgb[drawn], xyz[drawn]
    return Adapted(category, rgb, xyz, *instances)


def warmup_cosine(
    optimizer: torch.optim.Optimizer, config: LSFAConfig, steps_per_epoch: int
) -> torch.optim.lr_scheduler.LambdaLR:
    """Learning rate rising linearly over the warm-up, then falling along half a cosine to 0 at `schedule_epochs`."""
    warmup = config.warmup_epochs * steps_per_epoch
    total = max((config.schedule_epochs or config.num_epochs) * steps_per_epoch, warmup + 1)

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        return 0.5 * (1 + math.cos(math.pi * min(1, (step - warmup) / (total - warmup))))

    return torch.optim.lr_scheduler.LambdaLR(optimizer, factor)


def thinned(curve: Sequence[float], num_steps: int) -> list[float]:
    """Means over stretches of steps, so that a whole run has at most `CURVE_POINTS` of them.

    Args:
        curve: one value a step, for the last `len(curve)` steps of the run.
        num_steps: of the run.
    """
    stretch = -(-num_steps // CURVE_POINTS)
    return [sum(part) / len(part) for part in (curve[i : i + stretch] for i in range(0, len(curve), stretch))]


class CollapseWatch:
    """Effective rank and scale of the adapted features of a few training samples, epoch by epoch.

    LC and GC alone are smallest where all features are equal; contrast alone does not care how large they are.
    """

    def __init__(self, adaptors: Adaptors, patch_sets: Sequence[PatchSet]) -> None:
        self._probes = patch_sets[:: -(-len(patch_sets) // PROBES)]
        self.history: dict[str, list[float]] = {}
        self.look(adaptors)

    def look(self, adaptors: Adaptors) -> None:
        """Add the present rank and scale of both modalities to the history."""
        adapted = [adaptors.adapt(patch_set) for patch_set in self._probes]
        for modality in ("rgb", "xyz"):
            rows = torch.cat([getattr(patch_set, modality) for patch_set in adapted])
            scale = float((rows - rows.mean(dim=0)).square().sum(dim=1).mean().sqrt())
            self.history.setdefault(f"rank_{modality}", []).append(effective_rank(rows))
            self.history.setdefault(f"scale_{modality}", []).append(scale)

    def warn(self) -> None:
        """Warn of features that have collapsed onto few directions since training began."""
        for modality in ("rgb", "xyz"):
            ranks = self.history[f"rank_{modality}"]
            first, last = ranks[0], ranks[-1]
            if last < COLLAPSE_SHARE * first:
                warnings.warn(
                    f"LSFA: the effective rank of the adapted {modality} features fell from {first:.1f} to {last:.1f}; "
                    "they may have collapsed: lower weight_lc and weight_gc, or raise weight_la",
                    RuntimeWarning,
                    stacklevel=3,
                )
