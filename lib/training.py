"""How a training is computed: precision, memory, compilation. Beyond rounding, none of it changes what is computed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch

from lib.config import PRECISIONS, check_choice
from lib.errors import InputError

AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}
INFERENCE_DTYPES = {"float32": torch.float32, "bf16": torch.bfloat16}
BYTES_PER_GB = 1e9
RESERVED_GB = 0.7  # of a GPU's memory for CUDA itself and for what the allocator cannot use [ours]


@dataclass(frozen=True)
class MemoryPreset:
    """What a training holds at a time [ours].

    Attributes:
        gpu_gb: memory of the device it is meant for; 0 = the processor's.
        pixels_per_chunk: pixels whose activations CFM keeps until they have gone backward; gradients add up over the
            chunks of a step, so that the step stays the same.
        resident_gb: samples' tokens that stay on the GPU; the others travel anew each time.
        recompute_adaptors: LSFA's adaptors are computed again in the backward pass instead of kept.
    """

    gpu_gb: int
    pixels_per_chunk: int
    resident_gb: float
    recompute_adaptors: bool


CPU_PRESET = MemoryPreset(gpu_gb=0, pixels_per_chunk=4096, resident_gb=0.0, recompute_adaptors=False)
GPU_PRESETS = {
    8: MemoryPreset(gpu_gb=8, pixels_per_chunk=16_384, resident_gb=2.0, recompute_adaptors=True),
    16: MemoryPreset(gpu_gb=16, pixels_per_chunk=65_536, resident_gb=4.0, recompute_adaptors=False),
    24: MemoryPreset(gpu_gb=24, pixels_per_chunk=131_072, resident_gb=8.0, recompute_adaptors=False),
}


@dataclass(frozen=True)
class TrainingSetup:
    """How a head's training is computed.

    Attributes:
        precision: "float32"; "tf32" = float32 whose products are rounded to 10 bits on GPUs that can; "bf16" or "fp16"
            = the networks' products in half precision, weights and losses in float32, with loss scaling for fp16.
        preset: how much is held at a time.
        compiled: CFM's networks go through `torch.compile` first; the other trainings have no use for it.
    """

    precision: str = "float32"
    preset: MemoryPreset = CPU_PRESET
    compiled: bool = False

    def __post_init__(self) -> None:
        check_choice("precision", self.precision, PRECISIONS)

    def autocast(self, device: torch.device) -> Any:
        """Context of the networks' forward pass."""
        if self.precision not in AUTOCAST:
            return nullcontext()
        return torch.autocast(device.type, AUTOCAST[self.precision])

    def scaler(self, device: torch.device) -> torch.amp.GradScaler:
        """Loss scaling, which does nothing unless the precision is fp16."""
        return torch.amp.GradScaler(device.type, enabled=self.precision == "fp16")

    @contextmanager
    def products(self) -> Iterator[None]:
        """Context of a whole training, in which float32 products are rounded as the precision says."""
        before = torch.get_float32_matmul_precision()
        torch.set_float32_matmul_precision("high" if self.precision == "tf32" else "highest")
        try:
            yield
        finally:
            torch.set_float32_matmul_precision(before)


DEFAULT_SETUP = TrainingSetup()


def take_step(
    scaler: torch.amp.GradScaler,
    optimizer: torch.optim.Optimizer,
    scheduler: torch.optim.lr_scheduler.LRScheduler | None = None,
) -> None:
    """Move the weights along their gradients; where scaled gradients overflow, only the scale moves.

    Args:
        scaler: of the losses whose gradients these are.
        optimizer: of the weights.
        scheduler: moves on with the weights.
    """
    scale = scaler.get_scale()
    scaler.step(optimizer)
    scaler.update()
    if scheduler is not None and scaler.get_scale() >= scale:
        scheduler.step()


def choose_precision(wanted: str, device: str) -> str:
    """The precision itself, or for "auto" the fastest whose results held in our tests: see the chapter on training.

    float32 on a processor; on a GPU bf16, and fp16 on those that compute bf16 only by detours.
    """
    check_choice("precision", wanted, ("auto", *PRECISIONS))
    if wanted != "auto":
        return wanted
    if device == "cpu":
        return "float32"
    return "bf16" if has_bf16() else "fp16"


def inference_dtype(precision: str) -> torch.dtype:
    """Type of a frozen network's weights and activations; `InputError` for a word not in `INFERENCE_DTYPES`."""
    check_choice("precision of inference", precision, tuple(INFERENCE_DTYPES))
    return INFERENCE_DTYPES[precision]


def has_bf16() -> bool:
    """True where there is a GPU that computes bf16 itself."""
    return torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False)


def choose_preset(wanted_gb: int | None, device: str) -> MemoryPreset:
    """Memory preset of a device: the one asked for, or the largest that fits it.

    Args:
        wanted_gb: 8, 16 or 24; None = by the GPU's memory.
        device: "cpu" or "cuda".

    Raises:
        InputError: there is no such preset, or a preset was asked for on a processor.
    """
    if wanted_gb is not None:
        check_choice("memory_gb", wanted_gb, tuple(GPU_PRESETS))
        if device == "cpu":
            raise InputError(f"memory_gb {wanted_gb} has no effect on device cpu; leave it out")
        return GPU_PRESETS[wanted_gb]
    if device == "cpu":
        return CPU_PRESET
    total_gb = torch.cuda.mem_get_info()[1] / BYTES_PER_GB
    fitting = [gb for gb in GPU_PRESETS if gb <= total_gb * 1.1]  # a card of 8 GiB offers a little less
    return GPU_PRESETS[max(fitting, default=min(GPU_PRESETS))]


def device_setup(device: str, precision: str = "float32", memory_gb: int | None = None) -> TrainingSetup:
    """How to train on a device: see `choose_precision` and `choose_preset`."""
    return TrainingSetup(choose_precision(precision, device), choose_preset(memory_gb, device))


def check_memory(what: str, needs_gb: dict[int, float], preset: MemoryPreset, free_gb: float) -> None:
    """Stop before a training that will not fit the GPU's free memory.

    Args:
        what: names the training in the error.
        needs_gb: estimated need with each preset, by its `gpu_gb`.
        preset: the one in force; that of a processor is never refused.
        free_gb: what is free on the GPU now.

    Raises:
        InputError: too little memory; the line names the preset that would fit, or says that none does.
    """
    if preset.gpu_gb == 0 or needs_gb[preset.gpu_gb] + RESERVED_GB <= free_gb:
        return
    fitting = [gb for gb, need in needs_gb.items() if need + RESERVED_GB <= free_gb]
    advice = f"set memory_gb: {max(fitting)} in the profile" if fitting else "free the GPU, or use one with more memory"
    raise InputError(
        f"{what} needs about {needs_gb[preset.gpu_gb] + RESERVED_GB:.1f} GB of GPU memory with memory_gb "
        f"{preset.gpu_gb}, and {free_gb:.1f} GB are free; {advice}"
    )


def free_gpu_gb(device: torch.device) -> float:
    """Free memory of a GPU in GB; unlimited on a processor, where the system pages."""
    return torch.cuda.mem_get_info(device)[0] / BYTES_PER_GB if device.type == "cuda" else float("inf")
