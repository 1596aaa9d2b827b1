"""Preparation of samples: foreground, registration, determinism, purity, and running twice."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from lib.data import RawSample, Sample, SampleFiles, denormalize_rgb
from lib.errors import InputError
from lib.grids import pad_to_square, resize_nearest, resize_rgb
from lib.preparation import (
    PREPARATION_DEFAULT,
    PREPARATION_RELEASED,
    PreparationConfig,
    extract_foreground,
    find_plane,
    preparation_steps,
    prepare_sample,
)
from lib.runtime import seeded_generator
from tests.fixtures_mvtec import make_scene

BOTH = pytest.mark.parametrize("config", [PREPARATION_DEFAULT, PREPARATION_RELEASED], ids=["default", "released"])


def raw_scene(defect: str = "good", height: int = 120, width: int = 100, seed: int = 0) -> RawSample:
    scene = make_scene(seed, defect, height, width)
    files = SampleFiles("dome", "test", defect, "003", Path("003.png"), Path("003.tiff"), None)
    return RawSample(files, scene.rgb, scene.cloud, scene.gt_mask)


def assert_same(first: Sample, second: Sample, but: tuple[str, ...] = ()) -> None:
    for name in (field.name for field in dataclasses.fields(Sample) if field.name not in but):
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name), err_msg=name)


@BOTH
def test_prepared_sample_has_the_agreed_shapes(config):
    sample = prepare_sample(raw_scene("hole"), config, seed=1)
    assert (sample.sample_id, sample.category, sample.split, sample.defect, sample.label) == (
        "test/hole/003",
        "dome",
        "test",
        "hole",
        1,
    )
    assert sample.rgb.shape == sample.cloud.shape == (3, 224, 224)
    assert sample.foreground.shape == sample.gt_mask.shape == (224, 224)
    assert sample.rgb.dtype == sample.cloud.dtype == torch.float32
    assert sample.foreground.dtype == sample.gt_mask.dtype == torch.bool
    assert torch.equal(sample.foreground, (sample.cloud != 0).any(0))
    assert sample.gt_mask.any()
    assert sample.rgb.is_contiguous()
    assert sample.cloud.is_contiguous()


@BOTH
@pytest.mark.parametrize("seed", range(3))
def test_foreground_is_the_dome(config, seed):
    scene = make_scene(seed)
    foreground = extract_foreground(scene.cloud, config, np.random.default_rng(0))
    returned = (scene.cloud != 0).any(-1)
    assert not (foreground & ~scene.dome).any()  # neither board nor pebble
    overlap = (foreground & scene.dome).sum() / (scene.dome & returned).sum()
    assert overlap > 0.9  # the lowest 5 mm of the rim go with the plane


def test_both_configurations_agree_on_a_clean_scene():
    first, second = (preparation_steps(raw_scene(), c, 0) for c in (PREPARATION_DEFAULT, PREPARATION_RELEASED))
    disagreement = (first.component != second.component).sum() / first.component.sum()
    assert disagreement < 0.02


def test_plane_is_the_board():
    steps = preparation_steps(raw_scene(), PREPARATION_DEFAULT, 0)
    normal = np.array([0.1, 0.05, -1]) / np.sqrt(1 + 0.1**2 + 0.05**2)
    np.testing.assert_allclose(steps.plane.normal, normal, atol=2e-3)
    board = ~make_scene().dome
    board[10:20, 10:20] = False
    assert np.nanmax(steps.plane_distance_m[board]) < 0.0015
    assert np.isnan(steps.plane_distance_m[(steps.raw.cloud == 0).all(-1)]).all()


def test_steps_follow_from_each_other():
    steps = preparation_steps(raw_scene("stain"), PREPARATION_DEFAULT, 0)
    np.testing.assert_array_equal(steps.above_plane, steps.plane_distance_m >= 0.005)
    assert not (steps.component & ~steps.above_plane).any()
    np.testing.assert_array_equal(steps.cloud_cleaned[steps.component], steps.raw.cloud[steps.component])
    assert not steps.cloud_cleaned[~steps.component].any()
    assert steps.rgb_padded.shape == steps.cloud_padded.shape == (200, 200, 3)
    np.testing.assert_array_equal(steps.cloud_padded, pad_to_square(steps.cloud_cleaned))
    np.testing.assert_array_equal(steps.rgb_resized, resize_rgb(steps.rgb_padded, 224))
    np.testing.assert_array_equal(steps.gt_resized, resize_nearest(steps.gt_padded, 224))


def test_padding_and_resizing_choices_reach_their_step():
    raw = raw_scene()
    raw.gt_mask[:, 0] = True
    steps = {config: preparation_steps(raw, config, 0) for config in (PREPARATION_DEFAULT, PREPARATION_RELEASED)}
    for config, step in steps.items():
        np.testing.assert_array_equal(step.rgb_padded[100, :50], np.tile(raw.rgb[60, 0], (50, 1)))
        assert step.gt_padded[100, :50].all() == (config is PREPARATION_RELEASED)
        expected = resize_nearest(step.cloud_padded, 224, config.cloud_nearest_rule)
        np.testing.assert_array_equal(step.cloud_resized, expected)


@BOTH
def test_every_prepared_point_is_one_of_the_sensor(config):
    raw = raw_scene()
    sample = prepare_sample(raw, config, 0)
    prepared = {tuple(point) for point in sample.cloud[:, sample.foreground].T.tolist()}
    assert prepared <= {tuple(point) for point in raw.cloud.reshape(-1, 3).tolist()}


@pytest.mark.parametrize(("height", "width"), [(256, 200), (120, 100), (97, 131)])
def test_rgb_cloud_and_mask_stay_registered_through_the_whole_preparation(height, width):
    scene = make_scene(2, height=height, width=width)
    middle = (slice(height // 2 - 12, height // 2 + 13), slice(width // 2 - 10, width // 2 + 11))
    rgb, gt_mask, cloud = np.full_like(scene.rgb, 30), np.zeros((height, width), bool), scene.cloud.copy()
    rgb[middle], gt_mask[middle] = 250, True
    cloud[cloud[..., 2] == 0] = (0.001, 0.001, 0.48)  # no holes
    cloud[middle][..., 2] = 0.3  # a tower on the dome
    raw = dataclasses.replace(raw_scene(), rgb=rgb, gt_mask=gt_mask, cloud=cloud)
    sample = prepare_sample(raw, PREPARATION_DEFAULT, 0)
    bright = denormalize_rgb(sample.rgb).mean(0) > 0.55
    tower = sample.foreground & (sample.cloud[2] < 0.4)
    assert torch.equal(tower, sample.gt_mask)
    outline = 2 * (bright.any(0).sum() + bright.any(1).sum())
    assert (bright != sample.gt_mask).sum() <= 0.5 * outline


@BOTH
def test_same_seed_same_sample_whatever_came_before(config):
    first = prepare_sample(raw_scene(), config, 5)
    prepare_sample(raw_scene("hole", seed=9), config, 5)
    torch.manual_seed(3)
    assert_same(first, prepare_sample(raw_scene(), config, 5))


def test_seed_and_sample_id_alone_decide_the_plane():
    raw = raw_scene()
    raw.cloud[..., 2] += np.random.default_rng(0).normal(0, 0.004, raw.cloud.shape[:2]) * (raw.cloud[..., 2] != 0)
    renamed = dataclasses.replace(raw, files=dataclasses.replace(raw.files, stem="004"))
    config = PreparationConfig(plane_iterations=1)  # no second draw that could mend the first
    cases = [(raw, 1), (raw, 1), (raw, 2), (renamed, 1)]
    first, again, other_seed, other_id = (preparation_steps(case, config, seed).plane.offset for case, seed in cases)
    assert first == again
    assert len({first, other_seed, other_id}) == 3


@BOTH
def test_the_raw_sample_is_never_written_to(config):
    raw = raw_scene()
    for array in (raw.rgb, raw.cloud, raw.gt_mask):
        array.flags.writeable = False
    sample = prepare_sample(raw, config, 0)
    sample.cloud.zero_()
    sample.rgb.zero_()
    sample.gt_mask.fill_(True)
    np.testing.assert_array_equal(raw.cloud, raw_scene().cloud)


@BOTH
def test_preparing_twice_changes_nothing(config):
    raw = raw_scene("hole")
    once = preparation_steps(raw, config, 0)
    again = preparation_steps(dataclasses.replace(raw, cloud=once.cloud_cleaned), config, 0)
    assert once.plane is not None
    assert again.plane is None
    np.testing.assert_array_equal(again.component, once.component)
    assert_same(prepare_sample(raw, config, 0), prepare_sample(again.raw, config, 0), but=("depth",))


@BOTH
def test_depth_is_what_the_camera_saw_and_the_padded_image_keeps_every_pixel(config):
    raw = raw_scene("hole")
    sample = prepare_sample(raw, config, 0)
    assert sample.depth.shape == sample.foreground.shape and sample.depth.dtype == torch.float32
    assert torch.equal(sample.depth[sample.foreground], sample.cloud[2][sample.foreground])
    assert (sample.depth[~sample.foreground] > 0).double().mean() > 0.2  # the board, within the padding
    side = sample.rgb_padded.shape[0]
    top, left = (side - raw.rgb.shape[0]) // 2, (side - raw.rgb.shape[1]) // 2
    height, width = raw.rgb.shape[:2]
    np.testing.assert_array_equal(sample.rgb_padded[top : top + height, left : left + width], raw.rgb)


def test_an_object_that_reaches_the_border_survives_a_second_preparation():
    raw = raw_scene()
    bar = np.zeros((120, 100), bool)
    bar[50:60, :] = True  # like a rope from edge to edge
    cloud = np.where(bar[..., None], raw.cloud - np.float32([0, 0, 0.015]), raw.cloud)
    once = preparation_steps(dataclasses.replace(raw, cloud=cloud), PREPARATION_DEFAULT, 0)
    assert once.component[52:58, 0].any()
    assert once.component[52:58, -1].any()
    generator = seeded_generator(0)
    assert find_plane(once.cloud_cleaned, PREPARATION_DEFAULT, generator) is None
    assert find_plane(once.cloud_cleaned, PREPARATION_RELEASED, generator) is not None  # cuts the bar


def test_released_valid_rule_drops_points_on_a_coordinate_plane():
    raw = raw_scene()
    raw.cloud[:, 50, 0] = 0
    kept = [preparation_steps(raw, c, 0).component[:, 50].any() for c in (PREPARATION_DEFAULT, PREPARATION_RELEASED)]
    assert kept == [True, False]


def test_a_board_without_an_object_gets_one_line():
    raw = raw_scene()
    rows, columns = np.mgrid[:120, :100] * 0.001
    raw.cloud[:] = np.stack([columns - 0.05, rows - 0.06, 0.5 + 0.1 * rows], axis=-1)
    with pytest.raises(InputError, match=r"^003.tiff: 0 foreground points after plane removal, at least 100"):
        prepare_sample(raw, PREPARATION_DEFAULT, 0)


def test_a_border_without_a_plane_names_the_file():
    raw = raw_scene()
    raw.cloud[:] = np.arange(1, 12001, dtype=np.float32).reshape(120, 100, 1) * np.float32([1e-5, 2e-5, 4e-5])
    with pytest.raises(InputError, match=r"^003.tiff: points: "):
        prepare_sample(raw, PREPARATION_DEFAULT, 0)


@pytest.mark.parametrize("field", ["valid_rule", "component", "rgb_padding", "gt_padding", "cloud_nearest_rule"])
def test_unknown_choices_are_refused_when_the_configuration_is_made(field):
    with pytest.raises(InputError, match=f"{field} 'perhaps' is unknown; choose one of"):
        PreparationConfig(**{field: "perhaps"})
