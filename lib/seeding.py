"""PyTorch's own random numbers under a seed, for layers that draw their first weights from the global generator."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def torch_seed(seed: int) -> Iterator[None]:
    """Within the block PyTorch's CPU generator starts from `seed`; afterwards it goes on as if nothing had been drawn.

    CUDA's generators are left alone: weights are drawn on the CPU and moved, so that every device starts alike.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would seed CUDA too
        yield
