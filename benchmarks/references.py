"""What the fast code is measured against: the same mathematics as plainly as it is written, and floors of arithmetic.

Letters: N foreground pixels, C channels, M rows, B images, H W pixels.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

from data_scripts.bench import times
from lib.extractors.point_network import GroupEncoder
from lib.features import Features
from lib.heads.cfm import CFM, combine
from lib.methods import CFM_VARIANTS
from lib.pixel_metrics import label_regions

BF16_GAIN = 1.5  # of a processor that computes bf16 itself; the others are far slower in it
PROBE_SHAPE, PROBES = (512, 512, 512), 4
RATE_SHAPES = ((2048, 2048, 2048), (784, 768, 3072), (4096, 960, 960))  # a large product, one of the ViT, of a head


@torch.inference_mode()
def plain_tokens(encoder: GroupEncoder, groups: Tensor) -> Tensor:
    """(G, D) float32 tokens as Point-MAE is drawn: the group's maximum is repeated and joined to every point.

    Args:
        encoder: in eval mode, reading its stored statistics.
        groups: (G, K, 3) float32, in the network's units.
    """
    points = groups.transpose(1, 2)  # (G, 3, K)
    local = encoder.first_conv(points)
    joined = torch.cat([local.amax(dim=2, keepdim=True).expand_as(local), local], dim=1)
    return encoder.second_conv(joined).amax(dim=2)


def plain_averages(sample: Features, xyz: Tensor, window_px: int) -> Tensor:
    """(N, C) float32 3D features at object pixels after the papers' mean over a dense map of the whole image.

    Args:
        sample: whose pixels they are.
        xyz: (N, C) float32 3D features at object pixels.
        window_px: side of the windows in pixels.
    """
    size = tuple(sample.foreground.shape)
    dense = torch.zeros(xyz.shape[1], sample.foreground.numel())
    dense[:, sample.pixel_index] = xyz.T
    means = functional.avg_pool2d(dense.view(1, -1, *size), window_px, stride=1)
    return functional.adaptive_avg_pool2d(means, size).flatten(2)[0, :, sample.pixel_index].T


@torch.inference_mode()
def plain_map(head: CFM, sample: Features) -> Tensor:
    """(H, W) float32 product map of CFM from dense features: every object pixel through whole networks, then distances.

    Args:
        head: whose networks count.
        sample: features of one sample.
    """
    rgb, xyz = sample.at_pixels()
    if head.config.xyz_mean_px is not None:
        xyz = plain_averages(sample, xyz, head.config.xyz_mean_px)
    psi = torch.zeros(2, sample.foreground.numel())
    for row, predicted, observed in ((0, head.xyz_to_rgb(xyz), rgb), (1, head.rgb_to_xyz(rgb), xyz)):
        difference = functional.normalize(predicted, dim=1) - functional.normalize(observed, dim=1)
        psi[row, sample.pixel_index] = torch.linalg.vector_norm(difference, dim=1)
    return combine(*psi.view(2, *sample.foreground.shape), CFM_VARIANTS["product"]).anomaly_map


@torch.inference_mode()
def cached_norm_coreset(rows: Tensor, num_selected: int) -> Tensor:
    """(S,) int64 k-center greedy from row 0 by one matrix-vector product a pick, norms kept: the quickest plain form.

    Args:
        rows: (M, C) float32; float64 gives the picks that count as exact.
        num_selected: S, at most M.
    """
    norms = rows.square().sum(dim=1)
    nearest = torch.full_like(norms, torch.inf)
    selected = torch.zeros(num_selected, dtype=torch.int64)
    for rank in range(1, num_selected):
        last = selected[rank - 1]
        distance = torch.addmv(norms, rows, rows[last], alpha=-2).add_(norms[last])
        torch.minimum(nearest, distance, out=nearest)
        selected[rank] = nearest.argmax()
    return selected


def sorted_and_labelled(gt_masks: np.ndarray, anomaly_maps: np.ndarray) -> tuple[np.ndarray, int]:
    """Sorted scores of normal pixels and the number of defect regions: what no exact AUPRO gets around.

    Args:
        gt_masks: (B, H, W) bool.
        anomaly_maps: (B, H, W) float32.
    """
    return np.sort(anomaly_maps[~gt_masks]), label_regions(gt_masks)[1]


def counted_operations(work: Callable[[], object]) -> int:
    """Additions and multiplications of the matrix products, convolutions and attentions that `work` computes."""
    attention = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu

    def of_attention(query: torch.Size, key: torch.Size, value: torch.Size, *_: object, **__: object) -> int:
        return sdpa_flop_count(query, key, value)

    with FlopCounterMode(display=False, custom_mapping={attention: of_attention}) as counter:
        work()
    return counter.get_total_flops()


@cache
def computes_bf16() -> bool:
    """Whether the processor multiplies small matrices clearly faster in bf16, as one that has it does."""
    return product_seconds(torch.float32) > BF16_GAIN * product_seconds(torch.bfloat16)


def best_matrix_rate(dtype: torch.dtype) -> float:
    """Operations a second of the quickest product of `RATE_SHAPES`: what the machine can do at this moment."""
    return max(2 * math.prod(shape) / product_seconds(dtype, shape) for shape in RATE_SHAPES)


def product_seconds(dtype: torch.dtype, shape: tuple[int, int, int] = PROBE_SHAPE) -> float:
    """Shortest of some products of two matrices, the first not counted; shape: rows, inner, columns."""
    rows, inner, columns = shape
    first, second = torch.randn(rows, inner).to(dtype), torch.randn(inner, columns).to(dtype)
    taken = [times(lambda: torch.mm(first, second), torch.device("cpu"))["seconds"] for _ in range(PROBES)]
    return min(taken[1:])
