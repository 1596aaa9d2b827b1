"""What the point network sees and has to say: groups of a scene's cloud in two samplings, and their local shape.

Targets are slope, curvature and surface variation of the surface around each group at several radii, taken from more
points than the network is given, and the depth within the object; a code of them is what a token has to match. Letters:
V samplings; G groups; K points per group; T targets; D token dimension.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from lib.clouds import valid_mask
from lib.extractors.surface import local_shape, sample_surface
from lib.neighbors import farthest_points, group_neighbors, nearest_points
from lib.pretraining.scenes import Scene
from lib.pretraining.training import zero_sum_frame

STRIDE_PX = 2  # 32 neighbors on the full grid of 0.5 mm reach 1.6 mm, less than half way to the next center
NORMAL_RADIUS_M = 0.002
SHAPE_RADII_M = (0.003, 0.006, 0.012)
TILT_RAD = 0.05  # standard deviation; boards tilt by 0.018
NOISE_M = 2e-5  # on top of the sensor's own 0.06 mm
HEIGHT_UNIT_M = 0.003  # about one standard deviation of a scene's heights
TARGET_LIMIT = 3.0  # standard deviations; steep rims would rule the loss
CODE_CONSTANT = 3.0  # about the length of ten targets of deviation 1


@dataclass(frozen=True, eq=False)
class SceneViews:
    """One scene's object in V = 2 samplings: the even rows and columns of the image, and the odd ones.

    Attributes:
        groups: (V, G, K, 3) float32, metres from the group's center.
        centers: (V, G, 3) float32, metres from the object's centroid; row g means the same place in both samplings.
        shape: (G, T) float32 slope (radians), curvature (times the radius) and surface variation at each radius.
    """

    groups: Tensor
    centers: Tensor
    shape: Tensor


def scene_views(scene: Scene, num_groups: int, group_size: int) -> SceneViews:
    """Groups and targets of one scene.

    Args:
        scene: from `render_scene`.
        num_groups: G.
        group_size: K.

    Raises:
        InputError: the object has too few points.
    """
    usable = scene.foreground & valid_mask(scene.cloud)
    surface = sample_surface(scene.cloud, usable, NORMAL_RADIUS_M, STRIDE_PX)
    even = torch.from_numpy(surface.points.astype(np.float32))
    rows = farthest_points(even, num_groups)
    is_odd = np.zeros_like(usable)
    is_odd[1::STRIDE_PX, 1::STRIDE_PX] = usable[1::STRIDE_PX, 1::STRIDE_PX]
    odd = torch.from_numpy((scene.cloud[is_odd] - surface.centroid_m).astype(np.float32))
    centers = torch.stack([even[rows], odd[nearest_points(odd, even[rows], 1)[0][:, 0]]])
    groups = [
        points[group_neighbors(points, middle, group_size)] - middle[:, None]
        for points, middle in zip((even, odd), centers, strict=True)
    ]
    shape = np.concatenate([local_shape(surface, rows.numpy(), radius) for radius in SHAPE_RADII_M], axis=1)
    return SceneViews(torch.stack(groups), centers, torch.from_numpy(shape.astype(np.float32)))


def random_turn(generator: np.random.Generator) -> Tensor:
    """(3, 3) float32 orthogonal matrix for row vectors: any turn about the camera axis, a small tilt, often a flip.

    The shape targets stay as they are.
    """
    angle = generator.uniform(0, 2 * np.pi)
    cosine, sine = np.cos(angle), np.sin(angle)
    mirror = generator.choice([-1.0, 1.0])
    turn = np.array([[mirror * cosine, sine, 0], [-mirror * sine, cosine, 0], [0, 0, 1]])
    for axis, tilt in enumerate(generator.normal(0, TILT_RAD, 2)):
        plane = [axis, 2]
        tilted = np.eye(3)
        tilted[np.ix_(plane, plane)] = [[np.cos(tilt), np.sin(tilt)], [-np.sin(tilt), np.cos(tilt)]]
        turn = turn @ tilted
    return torch.from_numpy(turn.astype(np.float32))


def draw_batch(
    scenes: Sequence[SceneViews], num_tokens: int, crop_sizes: Sequence[int], generator: np.random.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """Crops of random scenes, turned and with noise: groups (B, g, K, 3), centers (B, g, 3), shape (B, g, T).

    A crop is a random group and its nearest ones; its size g is drawn for the whole batch, and B = num_tokens // g.

    Args:
        scenes: from `scene_views`.
        num_tokens: groups of a batch.
        crop_sizes: to draw g from; none exceeds num_tokens or the groups of a scene.
        generator: the only source of randomness.
    """
    size = int(generator.choice(crop_sizes))
    crops = []
    for _ in range(num_tokens // size):
        scene = scenes[int(generator.integers(len(scenes)))]
        view = int(generator.integers(len(scene.groups)))
        centers = scene.centers[view]
        seed = int(generator.integers(len(centers)))
        chosen = torch.linalg.vector_norm(centers - centers[seed], dim=1).argsort(stable=True)[:size]
        turn = random_turn(generator)
        groups = scene.groups[view, chosen]
        noise = generator.normal(0, NOISE_M, tuple(groups.shape)).astype(np.float32)
        crops.append((groups @ turn + torch.from_numpy(noise), centers[chosen] @ turn, scene.shape[chosen]))
    groups, centers, shape = (torch.stack(part) for part in zip(*crops, strict=True))
    return groups, centers, shape


@dataclass(frozen=True, eq=False)
class TargetScale:
    """Mean and standard deviation of each shape target, (T,) float32, over all scenes."""

    mean: Tensor
    std: Tensor

    @classmethod
    def fit(cls, scenes: Sequence[SceneViews]) -> TargetScale:
        """Statistics over all groups of the scenes."""
        shape = torch.cat([scene.shape for scene in scenes])
        return cls(shape.mean(dim=0), shape.std(dim=0))

    def targets(self, shape: Tensor, centers: Tensor) -> Tensor:
        """(B, G, T + 1) float32: scaled shape, and depth under the crop's mean in `HEIGHT_UNIT_M`; both limited."""
        depth = centers[..., 2:] - centers[..., 2:].mean(dim=1, keepdim=True)
        columns = torch.cat([(shape - self.mean) / self.std, depth / HEIGHT_UNIT_M], dim=-1)
        return columns.clamp(-TARGET_LIMIT, TARGET_LIMIT)


def code_axes(num_axes: int, dim: int, generator: np.random.Generator) -> Tensor:
    """(num_axes, dim) float32 random orthonormal rows whose entries sum to zero, as a normalized token's do.

    Args:
        num_axes: less than dim.
        dim: of a token.
        generator: source of randomness.
    """
    return zero_sum_frame(generator.standard_normal((dim, num_axes))).T


def shape_codes(targets: Tensor, axes: Tensor) -> Tensor:
    """(..., D) float32 of mean 0 and deviation 1: where a token of these targets should lie.

    A norm leaves a token's direction only, so a constant is put beside the targets: directions about it are nearly
    linear in them. What the targets do not say has no place in a code, and is unlearnt.

    Args:
        targets: (..., T) float32.
        axes: (T + 1, D) float32 from `code_axes`.
    """
    constant = torch.full_like(targets[..., :1], CODE_CONSTANT)
    return functional.normalize(torch.cat([targets, constant], dim=-1), dim=-1) @ axes * axes.shape[1] ** 0.5
