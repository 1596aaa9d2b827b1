"""From a raw sample to the prepared one: plane removal, largest component, square padding, resize to 224.

`preparation_steps` keeps every picture on the way (chapter 02 shows them) and `prepare_sample` is built on
it, so the figures cannot tell another story than the features. Every step is pure and works on copies.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from einops import rearrange

from lib import clouds, grids
from lib.config import ADDED_LATER, check_choice
from lib.data import IMAGENET_MEAN, IMAGENET_STD, RawSample, Sample
from lib.errors import InputError
from lib.runtime import seeded_generator

PREPARATION_SEED = 0  # RANSAC depends on it and on the sample's id, not on the experiment's seed
CHOICES = {
    "valid_rule": clouds.VALID_RULES,
    "component": ("grid", "dbscan"),
    "rgb_padding": tuple(grids.PADDING_MODES),
    "gt_padding": tuple(grids.PADDING_MODES),
    "cloud_nearest_rule": grids.NEAREST_RULES,
    "cloud_resize": ("nearest", "bilinear"),
    "rgb_background": ("kept", "black"),
}


@dataclass(frozen=True)
class PreparationConfig:
    """Settings of the preparation. "Released" is the preprocessing that 3D-ADS, M3DM, CFM and LSFA share."""

    border_px: int = 10  # released: plane points come from the outer 10 rows and columns
    min_border_fraction: float = 0.2  # ours: under this share of valid border pixels there is no plane any more
    plane_fit_threshold_m: float = 0.004  # released: RANSAC inlier distance; the paper only says RANSAC and 0.005
    plane_sample_size: int = 3  # ours: bears an object that reaches into the border; released: 50
    plane_iterations: int = 1000  # released
    plane_removal_threshold_m: float = 0.005  # paper and released: what is nearer to the plane is background
    valid_rule: str = "any"  # ours: any coordinate nonzero; released: all three nonzero
    component: str = "grid"  # ours: the image grid, milliseconds; released: "dbscan", seconds
    grid_gap_px: int = 4  # ours: missing returns bridged by the grid labelling
    dbscan_eps_m: float = 0.006  # released; read by component "dbscan" only
    dbscan_min_points: int = 30  # released; read by component "dbscan" only
    min_foreground_points: int = 100  # ours: fewer pixels at image_size are no object
    pad_multiple: int = 100  # released: sides are rounded up to the next 100
    rgb_padding: str = "edge"  # released CFM loader (SquarePad)
    gt_padding: str = "zeros"  # ours: nothing outside the image is anomalous; released: "edge"
    cloud_nearest_rule: str = "center"  # ours: looks where bicubic looks; released: "corner", torch's `nearest`
    image_size: int = 224  # paper and released
    cloud_resize: str = field(default="nearest", metadata=ADDED_LATER)  # paper, released; anomalib: "bilinear"
    rgb_background: str = field(default="kept", metadata=ADDED_LATER)  # released CFM; M3DM, BTF and LSFA: "black"

    def __post_init__(self) -> None:
        for name, choices in CHOICES.items():
            check_choice(name, getattr(self, name), choices)


PREPARATION_DEFAULT = PreparationConfig()
PREPARATION_RELEASED = PreparationConfig(
    min_border_fraction=0.0,
    plane_sample_size=50,
    valid_rule="all",
    component="dbscan",
    gt_padding="edge",
    cloud_nearest_rule="corner",
)
# For the audit: the default but for one step. A border share above 1 is never reached, so no plane is ever removed.
PREPARATION_SKIPPED = PreparationConfig(min_border_fraction=2.0)
PREPARATION_BLACK = PreparationConfig(rgb_background="black")
PREPARATION_BILINEAR = PreparationConfig(cloud_resize="bilinear")
PREPARATION_EYECANDIES = PreparationConfig(pad_multiple=1)  # 512 pixels stay 512, as in the released code


@dataclass(frozen=True, eq=False)
class PreparationSteps:
    """Every picture between a raw sample (H, W) and the prepared one (S, S); P is the padded side.

    plane is None where nothing was fitted. plane_distance_m (H, W) float64, NaN where there is no return or
    no plane. above_plane and component (H, W) bool. cloud_cleaned (H, W, 3) metres, zero off the component.
    *_padded have side P and *_resized side S; foreground (S, S) bool is where the resized cloud has a point.
    """

    raw: RawSample
    plane: clouds.Plane | None
    plane_distance_m: np.ndarray
    above_plane: np.ndarray
    component: np.ndarray
    cloud_cleaned: np.ndarray
    rgb_padded: np.ndarray
    cloud_padded: np.ndarray
    gt_padded: np.ndarray
    rgb_resized: np.ndarray
    cloud_resized: np.ndarray
    gt_resized: np.ndarray
    foreground: np.ndarray


def find_plane(cloud: np.ndarray, config: PreparationConfig, generator: np.random.Generator) -> clouds.Plane | None:
    """Supporting plane seen in the border, or None where the border shows none.

    None is what makes a second preparation harmless: a prepared cloud has an empty border. The released code
    cannot meet it (Open3D's `segment_plane` throws on an empty set), and on an object that reaches the border
    it fits a plane to the object itself.

    Args:
        cloud: (H, W, 3) float32, metres.
        config: reads border_px, min_border_fraction and the plane_* fields.
        generator: source of RANSAC's draws.
    """
    points = clouds.border_points(cloud, config.border_px, config.valid_rule)
    num_border_pixels = np.count_nonzero(clouds.border_mask(*cloud.shape[:2], config.border_px))
    if len(points) < max(3, config.min_border_fraction * num_border_pixels):
        return None
    return clouds.fit_plane_ransac(
        points, config.plane_fit_threshold_m, config.plane_sample_size, config.plane_iterations, generator
    )


def plane_distance_map(cloud: np.ndarray, plane: clouds.Plane | None, valid: np.ndarray) -> np.ndarray:
    """(H, W) float64 unsigned distance to the plane in metres, NaN where there is no return or no plane.

    Args:
        cloud: (H, W, 3) float32, metres.
        plane: from `find_plane`.
        valid: (H, W) bool.
    """
    if plane is None:
        return np.full(valid.shape, np.nan)
    return np.where(valid, clouds.plane_distance(cloud, plane), np.nan)


def largest_component(mask: np.ndarray, cloud: np.ndarray, config: PreparationConfig) -> np.ndarray:
    """(H, W) bool: the object, chosen among what is above the plane by the configured component rule.

    Args:
        mask: (H, W) bool, candidate pixels.
        cloud: (H, W, 3) float32, metres.
        config: reads component, grid_gap_px and the dbscan_* fields.
    """
    if config.component == "grid":
        return clouds.largest_component_grid(mask, config.grid_gap_px)
    return clouds.largest_component_dbscan(mask, cloud, config.dbscan_eps_m, config.dbscan_min_points)


def _find_object(
    cloud: np.ndarray, config: PreparationConfig, generator: np.random.Generator
) -> tuple[clouds.Plane | None, np.ndarray, np.ndarray, np.ndarray]:
    """Plane, distance map, pixels above the plane, and the largest component among them."""
    valid = clouds.valid_mask(cloud, config.valid_rule)
    plane = find_plane(cloud, config, generator)
    distance_m = plane_distance_map(cloud, plane, valid)
    above_plane = valid & ~(distance_m < config.plane_removal_threshold_m)  # NaN is not below anything
    return plane, distance_m, above_plane, largest_component(above_plane, cloud, config)


def extract_foreground(cloud: np.ndarray, config: PreparationConfig, generator: np.random.Generator) -> np.ndarray:
    """(H, W) bool foreground mask at the cloud's own resolution: plane removed, largest component kept.

    Args:
        cloud: (H, W, 3) float32, metres.
        config: preparation settings.
        generator: source of RANSAC's draws.
    """
    return _find_object(cloud, config, generator)[-1]


def _object_of(
    raw: RawSample, config: PreparationConfig, seed: int
) -> tuple[clouds.Plane | None, np.ndarray, np.ndarray, np.ndarray]:
    """`_find_object` of a raw sample; of a prepared copy every point that is left belongs to the object."""
    if raw.depth is None:
        return _find_object(raw.cloud, config, seeded_generator(seed, raw.files.sample_id))
    if config.min_border_fraction > 1:
        raise InputError("the preparation is to be skipped, and this copy is prepared already; give the raw dataset")
    valid = clouds.valid_mask(raw.cloud, config.valid_rule)
    return None, plane_distance_map(raw.cloud, None, valid), valid, valid


def preparation_steps(raw: RawSample, config: PreparationConfig, seed: int) -> PreparationSteps:
    """Every intermediate of the preparation, for the before/after figures; the raw sample is left as it is.

    Args:
        raw: from `read_sample`.
        config: `PREPARATION_DEFAULT`, `PREPARATION_RELEASED` or another instance.
        seed: with the sample id the only source of randomness (RANSAC).

    Raises:
        InputError: no plane in a full border, or an object of fewer than `min_foreground_points`.
    """
    try:
        found = _object_of(raw, config, seed)
    except InputError as error:
        raise InputError(f"{raw.files.xyz}: {error}") from error
    plane, distance_m, above_plane, component = found
    cleaned = np.where(component[..., None], raw.cloud, np.float32(0))
    rgb = raw.rgb if config.rgb_background == "kept" else np.where(component[..., None], raw.rgb, np.uint8(0))
    rgb_padded = grids.pad_to_square(rgb, config.pad_multiple, config.rgb_padding)
    cloud_padded = grids.pad_to_square(cleaned, config.pad_multiple, "zeros")
    gt_padded = grids.pad_to_square(raw.gt_mask, config.pad_multiple, config.gt_padding)
    cloud_resized = resized_cloud(cloud_padded, config)
    foreground = clouds.valid_mask(cloud_resized, config.valid_rule)
    num_points = np.count_nonzero(foreground)
    if num_points < config.min_foreground_points:
        raise InputError(
            f"{raw.files.xyz}: {num_points} foreground points after plane removal, at least "
            f"{config.min_foreground_points} are needed; check that an object stands on the plane"
        )
    return PreparationSteps(
        raw,
        plane,
        distance_m,
        above_plane,
        component,
        cleaned,
        rgb_padded,
        cloud_padded,
        gt_padded,
        rgb_resized=grids.resize_rgb(rgb_padded, config.image_size),
        cloud_resized=cloud_resized,
        gt_resized=grids.resize_nearest(gt_padded, config.image_size),
        foreground=foreground,
    )


def resized_cloud(cloud: np.ndarray, config: PreparationConfig) -> np.ndarray:
    """(S, S, 3) float32 cloud in metres. Bilinear mixing averages object with missing returns at its border.

    Args:
        cloud: (P, P, 3) float32, metres, zero where there is no return.
        config: reads image_size, cloud_resize and cloud_nearest_rule.
    """
    if config.cloud_resize == "nearest":
        return grids.resize_nearest(cloud, config.image_size, config.cloud_nearest_rule)
    channels = torch.from_numpy(rearrange(cloud, "h w c -> c h w").copy())
    return rearrange(grids.bilinear_resize(channels, config.image_size).numpy(), "c h w -> h w c").copy()


def normalize_rgb(rgb: np.ndarray) -> torch.Tensor:
    """(3, H, W) float32 ImageNet-normalised image.

    Args:
        rgb: (H, W, 3) uint8.
    """
    scaled = (rgb.astype(np.float32) / 255 - np.float32(IMAGENET_MEAN)) / np.float32(IMAGENET_STD)
    return torch.from_numpy(rearrange(scaled, "h w c -> c h w").copy())


def prepare_sample(raw: RawSample, config: PreparationConfig, seed: int) -> Sample:
    """The prepared sample that every extractor takes.

    Args:
        raw: from `read_sample`.
        config: `PREPARATION_DEFAULT`, `PREPARATION_RELEASED` or another instance.
        seed: with the sample id the only source of randomness (RANSAC).

    Raises:
        InputError: see `preparation_steps`.
    """
    steps, files = preparation_steps(raw, config, seed), raw.files
    depth = raw.cloud[..., 2] if raw.depth is None else raw.depth
    depth_padded = grids.pad_to_square(depth, config.pad_multiple, "zeros")
    return Sample(
        files.sample_id,
        files.category,
        files.split,
        files.defect,
        files.label,
        rgb=normalize_rgb(steps.rgb_resized),
        cloud=torch.from_numpy(rearrange(steps.cloud_resized, "h w c -> c h w").copy()),
        foreground=torch.from_numpy(steps.foreground),
        gt_mask=torch.from_numpy(steps.gt_resized),
        depth=torch.from_numpy(grids.resize_nearest(depth_padded, config.image_size, config.cloud_nearest_rule)),
        rgb_padded=steps.rgb_padded,
    )
