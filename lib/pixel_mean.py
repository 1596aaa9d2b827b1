"""The mean over 3 x 3 pixels that the papers take of projected 3D features, as shares of tokens instead of dense maps.

3D-ADS, M3DM, LSFA and CFM project 3D features to the image, zeros off the object, average them over 3 x 3 pixels
without a margin, which makes the map two pixels smaller, and bring it back to the wanted side by adaptive pooling
[released; CFM's paper speaks of 3 x 3 smoothing]. All of it is linear in the tokens. Letters: H, W pixels; N foreground
pixels; G tokens.
"""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

import numpy as np
import torch
from scipy.sparse import csr_array, kron
from torch import Tensor
from torch.nn import functional as F

from lib.features import Features

LEAST_SHARE = 1e-6  # of a token in a pixel: what rounding leaves


def axis_means(length: int, side: int, window_px: int = 3) -> Tensor:
    """(length, side) float32, the share of each pixel along one axis in each cell after both means.

    Args:
        length: of the axis in pixels.
        side: cells along it, the pixels themselves where it is the length.
        window_px: of the first mean.
    """
    return F.adaptive_avg_pool1d(F.avg_pool1d(torch.eye(length), window_px, stride=1), side)


@lru_cache(maxsize=2)
def image_means(height: int, width: int, window_px: int) -> csr_array:
    """(H W, H W) float32 sparse shares: row p holds how much of each pixel the averaged pixel p is."""
    axes = (csr_array(axis_means(length, length, window_px).numpy().T) for length in (height, width))
    return csr_array(kron(*axes))


def averaged_xyz(sample: Features, window_px: int | None) -> Features:
    """The sample with its 3D features averaged over square windows of pixels; itself where the window is None.

    A zero token joins the table, last, for what lies off the object: so the shares of a pixel still sum to 1. Where
    features were standardized that is the training mean. Averaged pixels off the object, up to two pixels wide around
    it, are left out [ours]; the released code keeps them.

    Args:
        sample: on any device; the result is on the same.
        window_px: side of the windows in pixels.

    Returns:
        Features with G + 1 tokens and as many neighbors a pixel as the busiest one needs.
    """
    if window_px is None:
        return sample
    mixed = token_shares(sample, window_px)
    counts = np.diff(mixed.indptr)
    row = np.repeat(np.arange(len(counts)), counts)
    column = np.arange(mixed.nnz) - np.repeat(mixed.indptr[:-1], counts)
    num_tokens, most = len(sample.xyz_tokens), int(counts.max(initial=0))
    neighbors = np.full((len(counts), most + 1), num_tokens)
    weights = np.zeros(neighbors.shape, dtype=np.float32)
    neighbors[row, column], weights[row, column] = mixed.indices, mixed.data
    weights[:, most] = 1 - weights.sum(axis=1)
    return replace(
        sample,
        xyz_tokens=torch.cat([sample.xyz_tokens, sample.xyz_tokens.new_zeros(1, sample.xyz_tokens.shape[1])]),
        centers=torch.cat([sample.centers, sample.centers.new_zeros(1, 3)]),
        neighbors=torch.from_numpy(neighbors).to(sample.neighbors.device),
        weights=torch.from_numpy(weights).to(sample.weights.device),
    )


def token_shares(sample: Features, window_px: int) -> csr_array:
    """(N, G) float32 sparse shares of the tokens in each averaged foreground pixel; what is missing to 1 is zeros."""
    num_pixels, num_neighbors = sample.neighbors.shape
    ends = np.arange(num_pixels + 1) * num_neighbors
    shape = num_pixels, len(sample.xyz_tokens)
    weights, neighbors, pixels = (t.cpu().numpy() for t in (sample.weights, sample.neighbors, sample.pixel_index))
    own = csr_array((weights.ravel(), neighbors.ravel(), ends), shape=shape)
    mixed = csr_array(image_means(*sample.foreground.shape, window_px)[pixels][:, pixels] @ own)
    mixed.data[mixed.data < LEAST_SHARE] = 0
    mixed.eliminate_zeros()
    return mixed
