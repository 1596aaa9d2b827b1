"""Training of LSFA's adaptors: batches, schedule, steps, and what is kept of the run.

Letters: as in `lib.heads.adaptation`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch.utils.checkpoint import checkpoint as torch_checkpoint

from lib.bank_search import block_shape
from lib.errors import InputError
from lib.heads.adaptation import Adapted, Adaptors, Banks, instance_vectors, training_losses
from lib.heads.checkpoints import Checkpoint, Curves, Draws
from lib.heads.epochs import Epochs
from lib.heads.training_watch import CollapseWatch, thinned
from lib.methods import AdaptorConfig
from lib.patches import PatchSet
from lib.reading import ReadOnAccess
from lib.training import BYTES_PER_GB, DEFAULT_SETUP, GPU_PRESETS, TrainingSetup, check_memory, free_gpu_gb, take_step

LOSSES = ("la", "ga", "lc", "gc")
BETAS = (0.9, 0.95)  # of AdamW [released]
# What one channel of one patch costs on its way forward and back, in float32 values. The first, rounded up, comes to
# the 6.0 GB that a step of eight samples of 56 x 56 patches took on a GPU (results/bench/cuda.json); the second is a
# count of what stays when the adaptors are computed again.
VALUES_PER_PATCH, VALUES_PER_RECOMPUTED_PATCH = 27, 8


def train_adaptors(
    config: AdaptorConfig,
    patch_sets: Mapping[str, Sequence[PatchSet]],
    seed: int,
    device: torch.device | str = "cpu",
    progress: bool = False,
    setup: TrainingSetup = DEFAULT_SETUP,
    checkpoint: Checkpoint | None = None,
) -> tuple[Adaptors, dict[str, list[float]]]:
    """Adaptors trained on normal samples, and their history.

    On the CPU a second run with the same seed and number of threads is identical. On CUDA the backward pass of the
    attention adds in no fixed order, so that two runs agree to rounding only.

    Args:
        config: settings; 0 epochs give the untrained adaptors.
        patch_sets: training samples by category; each is read once an epoch.
        seed: of the first weights, the order of samples and the patches drawn.
        device: where to train.
        progress: show a bar over epochs.
        setup: how it is computed: the adaptors in its precision, the losses and the banks in float32, whose products
            "tf32" rounds everywhere.
        checkpoint: where the training's state is kept.

    Returns:
        The adaptors, and by name: "la", "ga", "lc", "gc" (means over equal stretches of steps, see
        `lib.heads.training_watch.thinned`; a loss that starts late has fewer), "rank_rgb", "rank_xyz" (effective rank
        of adapted features) and "scale_rgb", "scale_xyz" (root mean square distance to their mean), each before
        training and after every epoch.

    Raises:
        InputError: the GPU's free memory will not do, or a loss is not finite.
    """
    device = torch.device(device)
    samples = [(category, index) for category in sorted(patch_sets) for index in range(len(patch_sets[category]))]
    first = patch_sets[samples[0][0]][0]
    dims = first.rgb.shape[1], first.xyz.shape[1]
    check_memory("LSFA training", memory_needs(config, first, len(patch_sets)), setup.preset, free_gpu_gb(device))
    adaptors = Adaptors(config, *dims, seed).to(device)
    banks = {category: Banks(config, *dims, device) for category in patch_sets}
    optimizer = make_optimizer(adaptors, config)
    steps_per_epoch = -(-len(samples) // config.batch_size)
    scheduler = warmup_cosine(optimizer, config, steps_per_epoch)
    generator = torch.Generator().manual_seed(seed)
    curves = Curves({name: [] for name in LOSSES})
    watch = CollapseWatch(adaptors.adapt, ReadOnAccess(samples, lambda sample: patch_sets[sample[0]][sample[1]], 0))
    scaler = setup.scaler(device)
    parts = {
        "adaptors": adaptors, "optimizer": optimizer, "scheduler": scheduler, "draws": Draws(generator),
        "curves": curves, "watch": watch.history, "scaler": scaler,
        **{f"banks {category}": bank for category, bank in banks.items()},
    }  # fmt: skip
    epochs = Epochs("LSFA epochs", config.num_epochs, parts, checkpoint, progress)
    with setup.products():
        for epoch in epochs:
            for number, batch in enumerate(shuffled_batches(samples, config.batch_size, generator)):
                read = [(category, patch_sets[category][index]) for category, index in batch]
                step = epoch * steps_per_epoch + number
                losses = training_step(
                    adaptors, read, banks, optimizer, config, generator, step, setup, scaler, scheduler
                )
                for name, loss in losses.items():
                    curves[name].append(loss)
            watch.look()
            epochs.show(curves)
    watch.warn()
    num_steps = config.num_epochs * steps_per_epoch
    return adaptors.eval(), {name: thinned(curve, num_steps) for name, curve in curves.items() if curve} | watch.history


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
    setup: TrainingSetup = DEFAULT_SETUP,
    scaler: torch.amp.GradScaler | None = None,
    scheduler: torch.optim.lr_scheduler.LRScheduler | None = None,
) -> dict[str, float]:
    """Losses of one step by name; afterwards the weights are updated and the batch is in the banks.

    Args:
        adaptors, banks, optimizer: changed in place.
        batch: category and patches of each sample.
        config: settings.
        generator: of the patches drawn and the clusters' starts, on the CPU.
        step: counted from 0.
        setup: how it is computed.
        scaler: of the losses, that of the setup; None where it has none.
        scheduler: of the learning rate, which moves on with the weights.

    Raises:
        InputError: a loss is not finite.
    """
    scaler = scaler or setup.scaler(adaptors.rgb_projection.weight.device)
    adapted = [adapt_for_training(adaptors, *entry, config, generator, setup) for entry in batch]
    losses = training_losses(adaptors, adapted, banks, config, step)
    values = {name: float(loss.detach()) for name, loss in losses.items()}
    if broken := [name for name, value in values.items() if not math.isfinite(value)]:
        raise InputError(f"LSFA: {broken[0]} is not finite at step {step}; lower learning_rate or set normalize")
    optimizer.zero_grad()
    if losses:
        scaler.scale(sum(getattr(config, f"weight_{name}") * loss for name, loss in losses.items())).backward()
        take_step(scaler, optimizer, scheduler)
    else:
        take_step(DEFAULT_SETUP.scaler(torch.device("cpu")), optimizer, scheduler)  # only the schedule moves
    for sample in adapted:
        banks[sample.category].push(sample)
    return values


def shuffled_batches(samples: Sequence[Any], batch_size: int, generator: torch.Generator) -> Iterator[list[Any]]:
    """The samples once, in random order, `batch_size` at a time; the last batch may be smaller."""
    order = torch.randperm(len(samples), generator=generator).tolist()
    for start in range(0, len(order), batch_size):
        yield [samples[index] for index in order[start : start + batch_size]]


def adapt_for_training(
    adaptors: Adaptors,
    category: str,
    patch_set: PatchSet,
    config: AdaptorConfig,
    generator: torch.Generator,
    setup: TrainingSetup = DEFAULT_SETUP,
) -> Adapted:
    """Adapted features of one sample with gradients, cut to the patches drawn for the losses."""
    device = adaptors.rgb_projection.weight.device
    tables = patch_set.rgb.to(device), patch_set.xyz.to(device)
    with setup.autocast(device):
        if setup.preset.recompute_adaptors:
            rgb, xyz = torch_checkpoint(adaptors, *tables, use_reentrant=False)
        else:
            rgb, xyz = adaptors(*tables)
    rgb, xyz = rgb.float(), xyz.float()
    instances = instance_vectors(rgb, xyz, config.num_clusters, generator)
    if config.patches_per_image is not None and config.patches_per_image < len(rgb):
        drawn = torch.randperm(len(rgb), generator=generator)[: config.patches_per_image].to(device)
        rgb, xyz = rgb[drawn], xyz[drawn]
    return Adapted(category, rgb, xyz, *instances)


def memory_needs(config: AdaptorConfig, sample: PatchSet, num_categories: int) -> dict[int, float]:
    """GB of GPU memory that training takes at most with each memory preset, by its `gpu_gb`.

    Args:
        config: sizes.
        sample: one of the training samples, for its widths and the cells of its grid.
        num_categories: whose banks are held.
    """
    width, cells = sample.rgb.shape[1] + sample.xyz.shape[1], sample.cells.numel()
    banks = num_categories * (config.local_bank_rows + config.global_bank_rows) * width
    kept = {False: VALUES_PER_PATCH, True: VALUES_PER_RECOMPUTED_PATCH}
    activations = {name: config.batch_size * cells * width * values for name, values in kept.items()}
    at_once = cells * width * VALUES_PER_PATCH + 2 * math.prod(block_shape(torch.device("cuda")))
    weights = 4 * sum(12 * dim**2 for dim in (sample.rgb.shape[1], sample.xyz.shape[1]))
    return {
        gpu_gb: 4 * (banks + activations[preset.recompute_adaptors] + at_once + weights) / BYTES_PER_GB
        for gpu_gb, preset in GPU_PRESETS.items()
    }


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
