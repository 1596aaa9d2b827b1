"""UFF, the "unsupervised feature fusion" of M3DM: two small networks taught that patches of one place belong together.

Source: Wang et al., "Multimodal Industrial Anomaly Detection via Hybrid Fusion", CVPR 2023, sec. 3.3 [paper], and its
public code [released]. Letters: Q patches of one sample, C2, C3 channels, D width of the projection.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lib.config import check_choice, check_not_negative, check_positive
from lib.errors import InputError
from lib.heads.adaptor_training import make_optimizer, shuffled_batches, warmup_cosine
from lib.heads.checkpoints import Checkpoint, Curves, Draws
from lib.heads.epochs import Epochs
from lib.losses import crossmodal_contrast
from lib.patches import PatchSet
from lib.seeding import torch_seed
from lib.training import DEFAULT_SETUP, TrainingSetup, take_step


@dataclass(frozen=True)
class UFFConfig:
    """Training of the fusion networks.

    Attributes:
        mlp_ratio: hidden width of each MLP over its dimension, 4 [released].
        projection_dim: width of the linear heads that only the contrast sees, 256 [released].
        temperature: of the contrast, 1 [released].
        pairing: "aligned" = patches of the same cell [paper], or "scrambled" = each RGB patch of a sample beside a 3D
            patch of a random other place [ours, for comparison]: an index slip pairs all but 0.26 % so [released].
        patches_per_image: patches drawn from each image a step [ours]; None = all [released].
        learning_rate: of AdamW with betas .9 and .95, 3e-3 [released].
        weight_decay: 0.01 [ours, the default of AdamW].
        num_epochs: 3 [released: one to three].
        schedule_epochs: epochs that shape the cosine; None = `num_epochs` [released].
        warmup_epochs: of linear warm-up, 1 [released].
        batch_size: images a step whose patches are contrasted with each other, 16 [released].
        accumulate: steps whose gradients are added before the weights move, 16 [released].
        scope: "category" = networks of its own for each category [ours], "all" = one pair for all [released].
    """

    mlp_ratio: int = 4
    projection_dim: int = 256
    temperature: float = 1.0
    pairing: str = "aligned"
    patches_per_image: int | None = None
    learning_rate: float = 3e-3
    weight_decay: float = 0.01
    num_epochs: int = 3
    schedule_epochs: int | None = None
    warmup_epochs: int = 1
    batch_size: int = 16
    accumulate: int = 16
    scope: str = "all"

    def __post_init__(self) -> None:
        check_choice("pairing", self.pairing, ("aligned", "scrambled"))
        check_choice("scope", self.scope, ("category", "all"))
        sizes = ("mlp_ratio", "projection_dim", "patches_per_image", "schedule_epochs", "batch_size", "accumulate")
        check_positive(self, sizes, whole=True)
        check_positive(self, ("temperature", "learning_rate"))
        check_not_negative(self, ("num_epochs", "warmup_epochs"), whole=True)
        check_not_negative(self, ("weight_decay",))


class FeatureFusion(nn.Module):
    """A normalized two-layer MLP for each modality, and the linear heads of the contrast.

    Args:
        config: widths.
        rgb_dim, xyz_dim: channels C2, C3.
        seed: of the first weights.
    """

    def __init__(self, config: UFFConfig, rgb_dim: int, xyz_dim: int, seed: int) -> None:
        super().__init__()
        with torch_seed(seed):
            self.rgb, self.xyz = (fusion_mlp(dim, config.mlp_ratio) for dim in (rgb_dim, xyz_dim))
            self.rgb_projection = nn.Linear(rgb_dim, config.projection_dim)
            self.xyz_projection = nn.Linear(xyz_dim, config.projection_dim)

    def forward(self, rgb: Tensor, xyz: Tensor) -> tuple[Tensor, Tensor]:
        """Unit vectors (Q, D) and (Q, D) of patches (Q, C2) and (Q, C3), for the contrast."""
        projected = self.rgb_projection(self.rgb(rgb)), self.xyz_projection(self.xyz(xyz))
        return F.normalize(projected[0], dim=1), F.normalize(projected[1], dim=1)

    @torch.no_grad()
    def fuse(self, patch_set: PatchSet) -> Tensor:
        """(Q, C3 + C2) float32 fused patches on the CPU: what the two MLPs give, side by side (M3DM eq. 4)."""
        device = self.rgb_projection.weight.device
        return torch.cat([self.xyz(patch_set.xyz.to(device)), self.rgb(patch_set.rgb.to(device))], dim=1).cpu()


def fusion_mlp(dim: int, ratio: int) -> nn.Sequential:
    """LayerNorm, then two linear layers with GELU between them, (..., dim) to (..., dim)."""
    return nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, ratio * dim), nn.GELU(), nn.Linear(ratio * dim, dim))


def train_fusion(
    config: UFFConfig,
    patch_sets: Mapping[str, Sequence[PatchSet]],
    seed: int,
    device: torch.device | str = "cpu",
    progress: bool = False,
    setup: TrainingSetup = DEFAULT_SETUP,
    checkpoint: Checkpoint | None = None,
) -> tuple[FeatureFusion, dict[str, list[float]]]:
    """Fusion networks trained on normal samples, and their history: "uff" = mean contrastive loss of each epoch.

    Args:
        config: settings.
        patch_sets: training samples by category, both modalities on one grid; each is read once an epoch.
        seed: of the first weights, the order of samples and the patches drawn.
        device: where to train.
        progress: show a bar over epochs.
        setup: how it is computed: the two MLPs in its precision, the contrast in float32, whose products "tf32" rounds
            everywhere.
        checkpoint: where the training's state is kept.

    Raises:
        InputError: a loss is not finite.
    """
    samples = [(category, index) for category in sorted(patch_sets) for index in range(len(patch_sets[category]))]
    first = patch_sets[samples[0][0]][0]
    fusion = FeatureFusion(config, first.rgb.shape[1], first.xyz.shape[1], seed).to(device)
    optimizer = make_optimizer(fusion, config)
    steps = -(-len(samples) // config.batch_size)
    scheduler = warmup_cosine(optimizer, config, steps_per_epoch=-(-steps // config.accumulate))
    generator = torch.Generator().manual_seed(seed)
    scaler = setup.scaler(torch.device(device))
    curves = Curves(uff=[])
    parts = {
        "fusion": fusion, "optimizer": optimizer, "scheduler": scheduler, "draws": Draws(generator),
        "curves": curves, "scaler": scaler,
    }  # fmt: skip
    epochs = Epochs("UFF epochs", config.num_epochs, parts, checkpoint, progress)
    with setup.products():
        for epoch in epochs:
            losses = []
            for number, batch in enumerate(shuffled_batches(samples, config.batch_size, generator), start=1):
                read = [patch_sets[category][index] for category, index in batch]
                loss = batch_loss(fusion, read, config, generator, setup)
                losses.append(float(loss.detach()))
                if not torch.isfinite(loss):
                    raise InputError(f"UFF: the loss is not finite in epoch {epoch + 1}; lower learning_rate")
                scaler.scale(loss / config.accumulate).backward()
                if number % config.accumulate == 0 or number == steps:
                    take_step(scaler, optimizer, scheduler)
                    optimizer.zero_grad()
            curves["uff"].append(sum(losses) / len(losses))
            epochs.show(curves)
    return fusion.eval(), dict(curves)


def batch_loss(
    fusion: FeatureFusion,
    batch: Sequence[PatchSet],
    config: UFFConfig,
    generator: torch.Generator,
    setup: TrainingSetup = DEFAULT_SETUP,
) -> Tensor:
    """Contrast of all patches of a batch: those of one cell together, every other pair apart (M3DM eq. 5)."""
    device = fusion.rgb_projection.weight.device
    pairs = [drawn_pairs(patch_set, config, generator) for patch_set in batch]
    rgb, xyz = (torch.cat(tables).to(device) for tables in zip(*pairs, strict=True))
    with setup.autocast(torch.device(device)):
        projected = fusion(rgb, xyz)
    return crossmodal_contrast(*(rows.float() for rows in projected), config.temperature, softmax="rows")


def drawn_pairs(patch_set: PatchSet, config: UFFConfig, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """RGB and 3D patches of one sample that are called pairs: (n, C2) and (n, C3)."""
    num_patches = len(patch_set.rgb)
    rows = torch.arange(num_patches)
    if config.patches_per_image is not None and config.patches_per_image < num_patches:
        rows = torch.randperm(num_patches, generator=generator)[: config.patches_per_image]
    partners = rows
    if config.pairing == "scrambled":
        partners = torch.randint(num_patches, (len(rows),), generator=generator)
    return patch_set.rgb[rows], patch_set.xyz[partners]
