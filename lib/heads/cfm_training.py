"""Training of CFM's two mapping networks: steps on foreground pixels, read from tokens on the device.

Letters: n pixels of a step, T tokens, C channels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor, nn

from lib.errors import InputError
from lib.features import Features
from lib.heads.checkpoints import Checkpoint, Curves, Draws
from lib.heads.epochs import Epochs
from lib.heads.mapping_networks import MappingMLP
from lib.heads.mixed_rows import MixedRows, pixel_rows
from lib.losses import cosine_distance
from lib.methods import CFMConfig
from lib.patches import KEPT_TRAINING_BYTES
from lib.pixel_mean import averaged_xyz
from lib.reading import ReadOnAccess
from lib.training import BYTES_PER_GB, GPU_PRESETS, MemoryPreset, TrainingSetup, check_memory, free_gpu_gb, take_step

# Float32 values kept or made for one pixel on its way forward and back, over the widths of all layers: the 3.5 GB that
# a step of 50,176 pixels took on a GPU (results/bench/cuda.json) come to 9, and the rest is room.
VALUES_PER_PIXEL = 11


def train_mappings(
    config: CFMConfig,
    rgb_to_xyz: MappingMLP,
    xyz_to_rgb: MappingMLP,
    features: Sequence[Features],
    seed: int,
    progress: bool,
    setup: TrainingSetup,
    checkpoint: Checkpoint | None,
) -> dict[str, list[float]]:
    """Loss curves of training both networks anew; see `lib.heads.cfm.CFM.fit`.

    Raises:
        InputError: the GPU's free memory will not do, or a loss is not finite.
    """
    device = rgb_to_xyz.input.weight.device
    averaged = averaged_features(features, config.xyz_mean_px)
    generator = torch.Generator().manual_seed(seed)
    networks = nn.ModuleDict({"rgb_to_xyz": rgb_to_xyz, "xyz_to_rgb": xyz_to_rgb})
    initialize(networks, generator)
    optimizer = torch.optim.Adam(networks.parameters(), lr=config.learning_rate)
    num_steps = -(-len(features) // config.batch_size)
    scheduler = make_scheduler(config, optimizer, config.num_epochs * num_steps)
    step = MappingStep(networks, setup, config.task)
    check_memory("CFM training", memory_needs(averaged, config, rgb_to_xyz), setup.preset, free_gpu_gb(device))
    curves = Curves(rgb_to_xyz=[], xyz_to_rgb=[])
    parts = {
        "networks": networks, "optimizer": optimizer, "scheduler": scheduler, "scaler": step.scaler,
        "draws": Draws(generator), "curves": curves,
    }  # fmt: skip
    epochs = Epochs("CFM epochs", config.num_epochs, parts, checkpoint, progress)
    resident = 0.0 if hasattr(features, "set_epoch") else setup.preset.resident_gb * BYTES_PER_GB
    on_device = ReadOnAccess(averaged, lambda sample: sample.to(device), resident)
    with setup.products():
        for epoch in epochs:
            set_epoch(features, epoch)
            sums = torch.zeros(2, device=device)
            for batch in batches(on_device, config, generator):
                sums += step.backward(*batch)
                take_step(step.scaler, optimizer, scheduler)
                optimizer.zero_grad()
            add_means(curves, (sums / num_steps).tolist(), epoch)
            epochs.show(curves)
    return dict(curves)


def averaged_features(features: Sequence[Features], window_px: int | None) -> Sequence[Features]:
    """Training samples with averaged 3D features, kept as far as memory allows; see `lib.pixel_mean.averaged_xyz`."""
    if window_px is None:
        return features
    kept_bytes = 0.0 if hasattr(features, "set_epoch") else KEPT_TRAINING_BYTES
    return ReadOnAccess(features, lambda sample: averaged_xyz(sample, window_px), kept_bytes)


def initialize(networks: nn.Module, generator: torch.Generator) -> None:
    """Fresh weights by PyTorch's own rule for linear layers, drawn from `generator`."""
    for module in networks.modules():
        if isinstance(module, nn.Linear):
            bound = module.in_features**-0.5
            for parameter in (module.weight, module.bias):
                drawn = torch.empty(parameter.shape).uniform_(-bound, bound, generator=generator)
                parameter.data.copy_(drawn)


def make_scheduler(
    config: CFMConfig, optimizer: torch.optim.Optimizer, num_steps: int
) -> torch.optim.lr_scheduler.LRScheduler:
    """Learning rates of all steps."""
    if config.schedule == "one_cycle":
        return torch.optim.lr_scheduler.OneCycleLR(
            optimizer, config.learning_rate, total_steps=num_steps, cycle_momentum=False
        )
    return torch.optim.lr_scheduler.ConstantLR(optimizer, factor=1.0, total_iters=0)


def set_epoch(features: Sequence[Features], epoch: int) -> None:
    """Tell features that are recomputed every epoch which one it is; stored ones do not care."""
    if hasattr(features, "set_epoch"):
        features.set_epoch(epoch)


def batches(
    features: Sequence[Features], config: CFMConfig, generator: torch.Generator
) -> Iterator[tuple[MixedRows, MixedRows]]:
    """Foreground pixels of one epoch, `batch_size` shuffled images at a time, pooled over the batch."""
    order = torch.randperm(len(features), generator=generator).tolist()
    for start in range(0, len(order), config.batch_size):
        samples = [features[index] for index in order[start : start + config.batch_size]]
        yield pixel_rows(samples, [draw(sample, config, generator) for sample in samples])


def draw(sample: Features, config: CFMConfig, generator: torch.Generator) -> Tensor | None:
    """Rows of the sample's pixels that a step reads; None = all."""
    num_pixels = len(sample.pixel_index)
    if config.pixels_per_image is None or config.pixels_per_image >= num_pixels:
        return None
    drawn = torch.randperm(num_pixels, generator=generator)[: config.pixels_per_image]
    return drawn.to(sample.pixel_index.device)


class MappingStep:
    """Forward and backward pass of a step, chunk by chunk, so that few pixels' activations are held at a time.

    Args:
        networks: "rgb_to_xyz" and "xyz_to_rgb".
        setup: how it is computed.
        task: "crossmodal", or "intramodal" = each network's target is its own source.
    """

    def __init__(self, networks: nn.ModuleDict, setup: TrainingSetup, task: str = "crossmodal") -> None:
        self.networks, self.setup, self.task = networks, setup, task
        self.device = next(networks.parameters()).device
        self.scaler = setup.scaler(self.device)
        self.losses: Callable[..., Tensor] = self._losses
        if setup.compiled:
            self.losses = torch.compile(self._losses, dynamic=True)

    def backward(self, rgb: MixedRows, xyz: MixedRows) -> Tensor:
        """Mean losses (2,) float32 of a step's pixels, RGB to 3D and 3D to RGB; their gradients are in the networks.

        Where the first layers were applied to tokens, gradients gather at the tokens over all chunks first.
        """
        with self.setup.autocast(self.device):
            sources = [rgb.through(self.networks["rgb_to_xyz"].input), xyz.through(self.networks["xyz_to_rgb"].input)]
        leaves = [MixedRows(s.table.detach().float().requires_grad_(), s.rows, s.shares) for s in sources]
        total = torch.zeros(2, device=self.device)
        for start in range(0, len(rgb), self.setup.preset.pixels_per_chunk):
            part = slice(start, start + self.setup.preset.pixels_per_chunk)
            hidden = [leaf.read(part) for leaf in leaves]
            with self.setup.autocast(self.device):
                losses = self.losses(*hidden, rgb.read(part), xyz.read(part)) / len(rgb)
            self.scaler.scale(losses.sum()).backward()
            total += losses.detach()
        torch.autograd.backward(
            [source.table for source in sources],
            [leaf.table.grad.to(source.table.dtype) for leaf, source in zip(leaves, sources, strict=True)],
        )
        return total

    def _losses(self, hidden_2d: Tensor, hidden_3d: Tensor, rgb: Tensor, xyz: Tensor) -> Tensor:
        """(2,) sums over pixels of the cosine distances, from what the first layers gave."""
        hidden = {"rgb_to_xyz": hidden_2d, "xyz_to_rgb": hidden_3d}
        predictions = [self.networks[name].after_input(rows) for name, rows in hidden.items()]
        targets = (xyz, rgb) if self.task == "crossmodal" else (rgb, xyz)
        pairs = zip(predictions, targets, strict=True)
        return torch.stack([cosine_distance(prediction.float(), seen).sum() for prediction, seen in pairs])


def add_means(curves: Curves, means: list[float], epoch: int) -> None:
    """Put an epoch's mean losses into the curves; `InputError` where one is not finite."""
    if not all(map(math.isfinite, means)):
        raise InputError(f"CFM: the loss is not finite in epoch {epoch + 1}; lower learning_rate or use more precision")
    for curve, mean in zip(curves.values(), means, strict=True):
        curve.append(mean)


def memory_needs(features: Sequence[Features], config: CFMConfig, network: MappingMLP) -> dict[int, float]:
    """GB of GPU memory that training takes at most with each memory preset, by its `gpu_gb`.

    Args:
        features: training samples as steps read them, of which the first stands for all.
        config: reads batch_size and pixels_per_image.
        network: one of the two, for its widths.
    """
    sample = features[0]
    pixels = min(config.pixels_per_image or math.inf, sample.foreground.numel()) * config.batch_size
    return {
        gpu_gb: mapping_gb(pixels, config.batch_size * sample.nbytes, len(features) * sample.nbytes, network, preset)
        for gpu_gb, preset in GPU_PRESETS.items()
    }


def mapping_gb(pixels: int, batch_bytes: float, all_bytes: float, network: MappingMLP, preset: MemoryPreset) -> float:
    """GB that a training with one preset takes at most.

    Args:
        pixels: of a step, the whole images at most.
        batch_bytes, all_bytes: of the features of a step's samples and of all samples.
        network: one of the two, for its widths.
        preset: of the memory.
    """
    weights = 2 * sum(parameter.nbytes for parameter in network.parameters()) * 4  # with gradients and Adam's moments
    activations = min(pixels, preset.pixels_per_chunk) * sum(network.widths) * VALUES_PER_PIXEL * 4 / 2
    resident = min(preset.resident_gb * BYTES_PER_GB, all_bytes)
    return (weights + activations + resident + 2 * batch_bytes) / BYTES_PER_GB
