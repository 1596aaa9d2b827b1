"""Training of LSFA's adaptors: batches, schedule, steps, and what is kept of the run.

Letters: as in `lib.heads.adaptation`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

import torch
from tqdm.auto import tqdm

from lib.errors import InputError
from lib.heads.adaptation import Adapted, Adaptors, Banks, instance_vectors, training_losses
from lib.heads.training_watch import CollapseWatch, thinned
from lib.methods import AdaptorConfig
from lib.patches import PatchSet

LOSSES = ("la", "ga", "lc", "gc")
BETAS = (0.9, 0.95)  # of AdamW [released]


def train_adaptors(
    config: AdaptorConfig,
    patch_sets: Mapping[str, Sequence[PatchSet]],
    seed: int,
    device: torch.device | str = "cpu",
    progress: bool = False,
) -> tuple[Adaptors, dict[str, list[float]]]:
    """Adaptors trained on normal samples, and their history.

    On the CPU a second run with the same seed and number of threads is identical. On CUDA the backward pass of the
    attention adds in no fixed order, so that two runs agree to rounding only.

    Args:
        config: settings; 0 epochs give the untrained adaptors.
        patch_sets: training samples by category.
        seed: of the first weights, the order of samples and the patches drawn.
        device: where to train.
        progress: show a bar over epochs.

    Returns:
        The adaptors, and by name: "la", "ga", "lc", "gc" (means over equal stretches of steps, see
        `lib.heads.training_watch.thinned`; a loss that starts late has fewer), "rank_rgb", "rank_xyz" (effective rank
        of adapted features) and "scale_rgb", "scale_xyz" (root mean square distance to their mean), each before
        training and after every epoch.
    """
    device = torch.device(device)
    samples = [(category, patch_set) for category in sorted(patch_sets) for patch_set in patch_sets[category]]
    rgb_dim, xyz_dim = samples[0][1].rgb.shape[1], samples[0][1].xyz.shape[1]
    adaptors = Adaptors(config, rgb_dim, xyz_dim, seed).to(device)
    banks = {category: Banks(config, rgb_dim, xyz_dim, device) for category in patch_sets}
    optimizer = make_optimizer(adaptors, config)
    scheduler = warmup_cosine(optimizer, config, steps_per_epoch=-(-len(samples) // config.batch_size))
    generator = torch.Generator().manual_seed(seed)
    curves: dict[str, list[float]] = {name: [] for name in LOSSES}
    watch = CollapseWatch(adaptors.adapt, [patch_set for _, patch_set in samples])
    step = 0
    bar = tqdm(range(config.num_epochs), desc="LSFA epochs", disable=not progress)
    for _ in bar:
        for batch in shuffled_batches(samples, config.batch_size, generator):
            losses = training_step(adaptors, batch, banks, optimizer, config, generator, step)
            scheduler.step()
            for name, loss in losses.items():
                curves[name].append(loss)
            step += 1
        watch.look()
        bar.set_postfix({name: f"{curve[-1]:.3f}" for name, curve in curves.items() if curve})
    watch.warn()
    return adaptors.eval(), {name: thinned(curve, step) for name, curve in curves.items() if curve} | watch.history


def make_optimizer(adaptors: Adaptors, config: AdaptorConfig) -> torch.optim.Optimizer:
    """AdamW over adaptors and projection heads."""
    return torch.optim.AdamW(
        adaptors.parameters(), lr=config.learning_rate, betas=BETAS, weight_decay=config.weight_decay
    )


def training_step(
    adaptors: Adaptors,
    batch: Sequence[tuple[str, PatchSet]],
    banks: Mapping[str, Banks],
    optimizer: torch.optim.Optimizer,
    config: AdaptorConfig,
    generator: torch.Generator,
    step: int,
) -> dict[str, float]:
    """Losses of one step by name; afterwards the weights are updated and the batch is in the banks.

    Args:
        adaptors, banks, optimizer: changed in place.
        batch: category and patches of each sample.
        config: settings.
        generator: of the patches drawn and the clusters' starts, on the CPU.
        step: counted from 0.

    Raises:
        InputError: a loss is not finite.
    """
    adapted = [adapt_for_training(adaptors, *entry, config, generator) for entry in batch]
    losses = training_losses(adaptors, adapted, banks, config, step)
    values = {name: float(loss.detach()) for name, loss in losses.items()}
    if broken := [name for name, value in values.items() if not math.isfinite(value)]:
        raise InputError(f"LSFA: {broken[0]} is not finite at step {step}; lower learning_rate or set normalize")
    optimizer.zero_grad()
    if losses:
        sum(getattr(config, f"weight_{name}") * loss for name, loss in losses.items()).backward()
    optimizer.step()  # without gradients it changes nothing
    for sample in adapted:
        banks[sample.category].push(sample)
    return values


def shuffled_batches(
    samples: Sequence[tuple[str, PatchSet]], batch_size: int, generator: torch.Generator
) -> Iterator[list[tuple[str, PatchSet]]]:
    """The samples once, in random order, `batch_size` at a time; the last batch may be smaller."""
    order = torch.randperm(len(samples), generator=generator).tolist()
    for start in range(0, len(order), batch_size):
        yield [samples[index] for index in order[start : start + batch_size]]


def adapt_for_training(
    adaptors: Adaptors, category: str, patch_set: PatchSet, config: AdaptorConfig, generator: torch.Generator
) -> Adapted:
    """Adapted features of one sample with gradients, cut to the patches drawn for the losses."""
    device = adaptors.rgb_projection.weight.device
    rgb, xyz = adaptors(patch_set.rgb.to(device), patch_set.xyz.to(device))
    instances = instance_vectors(rgb, xyz, config.num_clusters, generator)
    if config.patches_per_image is not None and config.patches_per_image < len(rgb):
        drawn = torch.randperm(len(rgb), generator=generator)[: config.patches_per_image].to(device)
        rgb, xyz = rgb[drawn], xyz[drawn]
    return Adapted(category, rgb, xyz, *instances)


def warmup_cosine(
    optimizer: torch.optim.Optimizer, config: AdaptorConfig, steps_per_epoch: int
) -> torch.optim.lr_scheduler.LambdaLR:
    """Learning rate rising linearly over the warm-up, then falling along half a cosine to 0 at `schedule_epochs`."""
    warmup = config.warmup_epochs * steps_per_epoch
    total = max((config.schedule_epochs or config.num_epochs) * steps_per_epoch, warmup + 1)

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        return 0.5 * (1 + math.cos(math.pi * min(1, (step - warmup) / (total - warmup))))

    return torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
