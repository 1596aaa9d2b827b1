"""The road between extractors and heads: one sample's tokens, where they lie, and how to read them at pixels or cells.

Letters: H, W pixels; h, w token grid; C2, C3 channels of the RGB and 3D tokens; G group centers; N foreground pixels.
Tokens, not dense maps, are kept and cached: both ways to read them are linear, so nothing is lost.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from copy import copy
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from einops import rearrange
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional

from lib.clouds import organised_points, valid_mask
from lib.errors import InputError
from lib.grids import bilinear_resize
from lib.neighbors import expanded_weights, three_nearest
from lib.runtime import atomic_path
from lib.sampling import bilinear_corners, column_statistics, pixel_cells

if TYPE_CHECKING:
    from lib.data import Sample

WEIGHT_TOLERANCE = 1e-4
FLOAT16_MAX = torch.finfo(torch.float16).max


@dataclass(frozen=True, eq=False)
class Features:
    """Tokens of both modalities of one sample and the way from tokens to its foreground pixels.

    Attributes:
        rgb_tokens: (C2, h, w) float32, over the whole image.
        xyz_tokens: (G, C3) float32, one a group center.
        centers: (G, 3) float32, metres.
        neighbors: (N, K) int64, the K = 3 nearest centers of each foreground pixel's point; more after `averaged_xyz`.
        weights: (N, K) float32, their interpolation weights; rows sum to 1.
        pixel_index: (N,) int64, flat row-major positions of the True pixels of `foreground`, ascending.
        foreground: (H, W) bool, object pixels with a return.
        sample_id, label, gt_mask: as in `Sample`; carried along for evaluation, never read by a head.

    Raises:
        InputError: shapes disagree, tokens are not finite, or weights do not sum to 1.
    """

    rgb_tokens: Tensor
    xyz_tokens: Tensor
    centers: Tensor
    neighbors: Tensor
    weights: Tensor
    pixel_index: Tensor
    foreground: Tensor
    sample_id: str
    label: int
    gt_mask: Tensor

    def __post_init__(self) -> None:
        for problem in self._problems():
            raise InputError(f"features of {self.sample_id}: {problem}; check the extractor that made them")

    def _problems(self) -> Iterator[str]:
        num_pixels, num_centers, num_neighbors = len(self.pixel_index), len(self.centers), self.neighbors.shape[-1]
        if self.rgb_tokens.ndim != 3 or self.xyz_tokens.ndim != 2 or self.foreground.ndim != 2:
            yield "rgb_tokens, xyz_tokens, foreground must have 3, 2, 2 axes"
        expected = {
            "xyz_tokens": (num_centers, self.xyz_tokens.shape[-1]),
            "centers": (num_centers, 3),
            "neighbors": (num_pixels, num_neighbors),
            "weights": (num_pixels, num_neighbors),
            "gt_mask": tuple(self.foreground.shape),
        }
        for name, shape in expected.items():
            if tuple(getattr(self, name).shape) != shape:
                yield f"{name} has shape {tuple(getattr(self, name).shape)} instead of {shape}"
        if num_pixels == 0 or not torch.equal(self.pixel_index, self.foreground.flatten().nonzero().flatten()):
            yield "pixel_index does not list the foreground pixels in row-major order, or there are none"
        for name in ("rgb_tokens", "xyz_tokens", "centers", "weights"):
            if not torch.isfinite(getattr(self, name)).all():
                yield f"{name} holds values that are not finite"
        if int(self.neighbors.min()) < 0 or int(self.neighbors.max()) >= num_centers:
            yield f"neighbors point outside the {num_centers} centers"
        if float((self.weights.sum(dim=1) - 1).abs().max()) > WEIGHT_TOLERANCE:
            yield "weights do not sum to 1"

    def at_pixels(self, index: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """RGB (n, C2) and 3D (n, C3) float32 features of foreground pixels.

        RGB: bilinear, `align_corners=False`, the same as `functional.interpolate` to (H, W) read at these pixels, but
        without the dense map (CFM sec. 3.1). 3D: the nearest centers' tokens under their weights (CFM sec. 3.1); their
        mean over 3 x 3 pixels is in `lib.pixel_mean`.

        Args:
            index: (n,) int64 rows of `pixel_index`; None = all N.
        """
        (rgb_table, corners, shares), (xyz_table, neighbors, weights) = self.mixtures(index)
        rgb = functional.embedding_bag(corners, rgb_table, per_sample_weights=shares, mode="sum")
        return rgb, functional.embedding_bag(neighbors, xyz_table, per_sample_weights=weights, mode="sum")

    def mixtures(self, index: Tensor | None = None) -> tuple[tuple[Tensor, Tensor, Tensor], ...]:
        """What `at_pixels` mixes, for RGB and for 3D: table of tokens, rows of it at each pixel, their shares.

        Args:
            index: (n,) int64 rows of `pixel_index`; None = all N.

        Returns:
            (h w, C2) float32, (n, 4) int64, (n, 4) float32; and (G, C3) float32, (n, K) int64, (n, K) float32.
        """
        rows = slice(None) if index is None else index
        image, grid = tuple(self.foreground.shape), tuple(self.rgb_tokens.shape[1:])
        rgb_table = rearrange(self.rgb_tokens, "c h w -> (h w) c").contiguous()
        rgb = (rgb_table, *bilinear_corners(self.pixel_index[rows], image, grid))
        return rgb, (self.xyz_tokens, self.neighbors[rows], self.weights[rows])

    @property
    def tensors(self) -> dict[str, Tensor]:
        """Its tensors by field."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in values.items() if isinstance(value, Tensor)}

    @property
    def nbytes(self) -> int:
        """Memory of its tensors."""
        return sum(tensor.nbytes for tensor in self.tensors.values())

    def to(self, device: torch.device | str) -> Features:
        """The same features on a device; itself where they are there already. Training reads pixels on a GPU so."""
        if self.rgb_tokens.device == torch.device(device):
            return self
        moved = copy(self)  # without the checks of __post_init__, which would wait for the GPU
        for name, tensor in self.tensors.items():
            object.__setattr__(moved, name, tensor.to(device))
        return moved

    def on_grid(self, side: int) -> tuple[Tensor, Tensor, Tensor]:
        """RGB (C2, side, side) and 3D (C3, side, side) float32 maps, and the (side, side) bool object cells.

        RGB tokens are resized bilinearly, and kept as they are where the side is theirs. A 3D cell is the mean over its
        foreground pixels, zero where it has none (ours; M3DM and LSFA average the background's zeros in).

        Args:
            side: cells along each axis; pixel row r belongs to cell row floor(r * side / H), columns likewise.

        Raises:
            InputError: the side is less than 1.
        """
        if side < 1:
            raise InputError(f"on_grid: side is {side}; give a whole number of at least 1")
        same = tuple(self.rgb_tokens.shape[1:]) == (side, side)
        rgb_map = self.rgb_tokens if same else bilinear_resize(self.rgb_tokens, side)
        cells = pixel_cells(self.pixel_index, tuple(self.foreground.shape), (side, side))
        _, xyz = self.at_pixels()
        sums = torch.zeros(side * side, xyz.shape[1]).index_add_(0, cells, xyz)
        counts = torch.bincount(cells, minlength=side * side)
        means = sums / counts.clamp(min=1)[:, None]
        return rgb_map, rearrange(means, "(i j) c -> c i j", i=side), rearrange(counts > 0, "(i j) -> i j", i=side)


def build_features(
    sample: Sample,
    rgb_tokens: Tensor,
    xyz_tokens: Tensor,
    centers: Tensor,
    rule: str = "exact",
    moved_m: float = 0.0,
) -> Features:
    """Features of a sample from its tokens: foreground pixels and their interpolation weights are added.

    Args:
        sample: a prepared sample.
        rgb_tokens: (C2, h, w) float32.
        xyz_tokens: (G, C3) float32.
        centers: (G, 3) float32, metres.
        rule: of the interpolation weights, a word of `lib.config.INTERPOLATIONS`.
        moved_m: metres that points and centers are moved along the view axis before these weights are taken.

    Raises:
        InputError: the sample has no foreground pixel with a return.
    """
    cloud, usable = object_cloud(sample)
    points, pixel_index = organised_points(cloud, usable)
    away = np.float32([0, 0, moved_m])
    neighbors, weights = interpolation(points + away, centers.numpy() + away, rule)
    return Features(
        rgb_tokens=rgb_tokens,
        xyz_tokens=xyz_tokens,
        centers=centers,
        neighbors=torch.from_numpy(neighbors),
        weights=torch.from_numpy(weights),
        pixel_index=torch.from_numpy(pixel_index),
        foreground=torch.from_numpy(usable),
        sample_id=sample.sample_id,
        label=sample.label,
        gt_mask=sample.gt_mask,
    )


def interpolation(points: np.ndarray, centers: np.ndarray, rule: str = "exact") -> tuple[np.ndarray, np.ndarray]:
    """Three centers of each point, (N, 3) int64, and their weights, (N, 3) float32: see `lib.neighbors.three_nearest`.

    Where every point has its own token, as with FPFH, there is nothing to interpolate: it takes that one alone.

    Args:
        points: (N, 3) float32, metres.
        centers: (G, 3) float32, metres.
        rule: "exact", or "expanded" for `lib.neighbors.expanded_weights`.
    """
    if rule == "expanded":
        neighbors, weights = expanded_weights(torch.from_numpy(points), torch.from_numpy(centers))
        return neighbors.numpy(), weights.numpy()
    if not np.array_equal(points, centers):
        return three_nearest(points, centers)
    own = np.repeat(np.arange(len(points))[:, None], 3, axis=1)
    return own, np.tile(np.array([1, 0, 0], dtype=np.float32), (len(points), 1))


def object_cloud(sample: Sample) -> tuple[np.ndarray, np.ndarray]:
    """Organised cloud (H, W, 3) float32 in metres and the (H, W) bool object pixels with a return.

    Raises:
        InputError: there is no such pixel.
    """
    cloud = rearrange(sample.cloud, "c h w -> h w c").contiguous().numpy()
    usable = sample.foreground.numpy() & valid_mask(cloud)
    if not usable.any():
        raise InputError(f"{sample.sample_id}: no foreground pixel has a return; check the cloud and its preparation")
    return cloud, usable


def save_features(path: Path | str, features: Features) -> None:
    """Write features as safetensors, whole or not at all: tokens and weights in float16, one to a few MB a sample.

    Raises:
        InputError: a token is too large for float16.
    """
    for name in ("rgb_tokens", "xyz_tokens"):
        if float(getattr(features, name).abs().max()) > FLOAT16_MAX:
            raise InputError(f"{name} of {features.sample_id} exceed {FLOAT16_MAX:.0f}; rescale the extractor's output")
    stored = {name: getattr(features, name).half().contiguous() for name in ("rgb_tokens", "xyz_tokens", "weights")}
    stored["centers"] = features.centers.contiguous()
    narrow = torch.uint16 if len(features.centers) <= 2**16 else torch.int32
    stored["neighbors"] = features.neighbors.to(narrow).contiguous()
    for name in ("foreground", "gt_mask"):
        stored[name] = torch.from_numpy(np.packbits(getattr(features, name).numpy()))
    sample = {"sample_id": features.sample_id, "label": int(features.label), "size": list(features.foreground.shape)}
    with atomic_path(path) as temporary:
        save_file(stored, temporary, metadata={"sample": json.dumps(sample)})  # one key: safetensors shuffles several


def load_features(path: Path | str) -> Features:
    """Features that `save_features` wrote, tokens back in float32 and weights summing to 1 again.

    Raises:
        InputError: the file is missing or is not whole.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such features file; extract the features first")
    try:
        with safe_open(path, "pt") as stored:
            sample = json.loads(stored.metadata()["sample"])
            names = stored.keys()
            tensors = {name: stored.get_tensor(name) for name in names}
        height, width = sample["size"]
        for name in ("foreground", "gt_mask"):
            bits = np.unpackbits(tensors[name].numpy(), count=height * width).astype(bool)
            tensors[name] = torch.from_numpy(bits.reshape(height, width))
        for name in ("rgb_tokens", "xyz_tokens", "weights"):
            tensors[name] = tensors[name].float()
        tensors["weights"] /= tensors["weights"].sum(dim=1, keepdim=True)
        tensors["neighbors"] = tensors["neighbors"].long()
        tensors["pixel_index"] = tensors["foreground"].flatten().nonzero().flatten()
        return Features(**tensors, sample_id=sample["sample_id"], label=sample["label"])
    except (SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"{path} is not a whole features file ({error}); delete it and extract again") from error


@dataclass(frozen=True, eq=False)
class Standardizer:
    """Per-dimension mean and standard deviation of the training foreground's tokens (ours; the papers do without).

    Hand-made dimensions differ in scale by orders of magnitude, and a cosine loss sees only the largest. Interpolation
    weights sum to 1, so standardizing tokens is the same as standardizing what is read at the pixels.

    Attributes:
        rgb_mean, rgb_std: (C2,) float32 over token cells that hold foreground pixels.
        xyz_mean, xyz_std: (C3,) float32 over all group centers; 1 stands in for the deviation of a constant dimension.
    """

    rgb_mean: Tensor
    rgb_std: Tensor
    xyz_mean: Tensor
    xyz_std: Tensor

    @classmethod
    def fit(cls, samples: Sequence[Features], std_floor: float | None = None) -> Standardizer:
        """Statistics over the given samples, which must be the training set.

        Args:
            samples: features with the same channels; each is read once.
            std_floor: share of a modality's median deviation that no deviation may be less than; None = no floor. A
                dimension that hardly varies in training, such as a histogram's rare bin, is else blown up.

        Raises:
            InputError: there are no samples.
        """
        if not samples:
            raise InputError("Standardizer.fit: no training features; check that the category has training samples")
        rgb, xyz = (object_rgb_tokens(sample) for sample in samples), (sample.xyz_tokens for sample in samples)
        (rgb_mean, rgb_std), (xyz_mean, xyz_std) = column_statistics(rgb), column_statistics(xyz)
        if std_floor is not None:
            rgb_std, xyz_std = (torch.clamp(std, min=std_floor * float(std.median())) for std in (rgb_std, xyz_std))
        return cls(rgb_mean, rgb_std, xyz_mean, xyz_std)

    def apply(self, features: Features) -> Features:
        """The same features with both modalities' tokens standardized.

        Raises:
            InputError: the channels are not those of the training set.
        """
        channels = (features.rgb_tokens.shape[0], features.xyz_tokens.shape[1])
        if channels != (len(self.rgb_mean), len(self.xyz_mean)):
            raise InputError(
                f"features of {features.sample_id} have {channels} channels, the standardizer "
                f"{(len(self.rgb_mean), len(self.xyz_mean))}; use the extractor it was fitted with"
            )
        rgb_tokens = (features.rgb_tokens - self.rgb_mean[:, None, None]) / self.rgb_std[:, None, None]
        return replace(features, rgb_tokens=rgb_tokens, xyz_tokens=(features.xyz_tokens - self.xyz_mean) / self.xyz_std)

    @property
    def state(self) -> dict[str, Tensor]:
        """Tensors by name, from which `Standardizer(**state)` rebuilds it."""
        return {field.name: getattr(self, field.name) for field in fields(self)}


def object_rgb_tokens(features: Features) -> Tensor:
    """(n, C2) float32 RGB tokens of the cells that hold at least one foreground pixel."""
    cells = pixel_cells(features.pixel_index, tuple(features.foreground.shape), tuple(features.rgb_tokens.shape[1:]))
    return rearrange(features.rgb_tokens, "c h w -> (h w) c")[torch.unique(cells)]
