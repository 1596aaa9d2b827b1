"""What the trainings of the embedded networks share: optimizer, schedule, curve, how weights and card are stored."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from lib.pretraining.families import FAMILIES
from lib.runtime import atomic_path, cpu_name, file_sha256


def learning_rate_share(step: int, num_steps: int, warmup_steps: int) -> float:
    """Share of the peak learning rate: linear rise, times half a cosine to zero; step counts from 0."""
    return min(1.0, (step + 1) / warmup_steps) * (0.5 + 0.5 * math.cos(math.pi * step / num_steps))


def adamw(parameters: Sequence[nn.Parameter], learning_rate: float, weight_decay: float) -> torch.optim.AdamW:
    """AdamW that decays matrices and filters, and leaves biases, norms and the mask token alone."""
    matrices = [parameter for parameter in parameters if parameter.ndim > 1]
    rest = [parameter for parameter in parameters if parameter.ndim <= 1]
    groups = [{"params": matrices, "weight_decay": weight_decay}, {"params": rest, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=learning_rate, betas=(0.9, 0.95))  # MAE's second beta


def zero_sum_frame(directions: np.ndarray) -> Tensor:
    """(dim, n) float32 with orthonormal columns that sum to zero, as the tokens of a LayerNorm do.

    Args:
        directions: (dim, n) random directions, n < dim.
    """
    columns = np.concatenate([np.ones((len(directions), 1)), directions], axis=1)
    return torch.from_numpy(np.linalg.qr(columns)[0][:, 1:]).float()


def thinned(values: Sequence[float], num_points: int = 200) -> list[float]:
    """At most `num_points` means of equally long stretches of a curve, rounded to 4 digits."""
    stretches = np.array_split(np.asarray(values), min(num_points, len(values)))
    return [round(float(stretch.mean()), 4) for stretch in stretches]


def halved(tensor: Tensor) -> Tensor:
    """The tensor in float16; counters stay whole numbers."""
    return tensor.half().contiguous() if tensor.is_floating_point() else tensor


def store(network: nn.Module, path: Path, facts: Mapping[str, Any], device: str) -> dict[str, Any]:
    """Writes the weights (float16) and their card, which lies beside them as `<stem>.json`; returns the card.

    Args:
        network: whose state is stored whole.
        path: of the weights, `.safetensors`.
        facts: of the training; families, machine, versions, date, SHA-256 and license are added.
        device: where it was trained.
    """
    with atomic_path(path) as temporary:
        save_file({name: halved(value) for name, value in network.state_dict().items()}, temporary)
    card = {
        "name": path.stem,
        **facts,
        "families": list(FAMILIES),
        "machine": torch.cuda.get_device_name() if device.startswith("cuda") else cpu_name(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__.split("+")[0],
        "date": datetime.now(UTC).date().isoformat(),
        "sha256": file_sha256(path),
        "license": "MIT",
    }
    with atomic_path(path.with_suffix(".json")) as temporary:
        temporary.write_text(json.dumps(card, indent=1) + "\n", encoding="utf-8")
    return card
