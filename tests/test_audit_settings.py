"""What the audit switches: preparation steps, interpolation, first points, RGB tokens, and what records keep of it."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from lib.config import ADDED_LATER, ExtractorSpec, stored_settings
from lib.errors import InputError
from lib.extractors import extractor_settings, rgb_config
from lib.extractors.color_patches import ColorPatches, ColorPatchesConfig
from lib.extractors.handcrafted import HandcraftedRgb
from lib.extractors.point_mae import POINT_MAE_EMBEDDED, PointMAEExtractor
from lib.feature_store import PREPARATIONS, preparation_config
from lib.features import interpolation
from lib.methods import CFMConfig
from lib.neighbors import expanded_weights, farthest_points, interpolation_weights
from lib.preparation import (
    PREPARATION_BILINEAR,
    PREPARATION_BLACK,
    PREPARATION_DEFAULT,
    PREPARATION_SKIPPED,
    preparation_steps,
)
from lib.profiles import load_profile
from tests.test_preparation import raw_scene


@dataclasses.dataclass(frozen=True)
class Grown:
    old: int = 1
    new: str = dataclasses.field(default="first", metadata=ADDED_LATER)


def test_a_later_field_is_stored_only_where_it_says_something_new():
    assert stored_settings(Grown()) == {"old": 1}
    assert stored_settings(Grown(2, "other")) == {"old": 2, "new": "other"}


def test_settings_within_settings_are_stored_by_the_same_rule():
    @dataclasses.dataclass(frozen=True)
    class Outer:
        head: Grown
        rest: tuple[Grown, ...] = ()

    assert stored_settings(Outer(Grown(), (Grown(3),))) == {"head": {"old": 1}, "rest": ({"old": 3},)}
    assert stored_settings(Outer(Grown(1, "other")))["head"] == {"old": 1, "new": "other"}


def test_records_made_before_the_audit_still_agree():
    assert "task" not in stored_settings(CFMConfig()) and stored_settings(CFMConfig(task="intramodal"))["task"]
    assert "cloud_resize" not in stored_settings(PREPARATION_DEFAULT)
    assert stored_settings(PREPARATION_BLACK)["rgb_background"] == "black"
    settings = extractor_settings(ExtractorSpec("embedded_vit", "embedded_point"))
    assert not {"first_point", "interpolation", "moved_m", "draw"} & set(settings["xyz"])


def test_every_switch_has_settings_and_a_folder_of_its_own():
    base = ExtractorSpec("embedded_vit", "embedded_point")
    changed = [
        dataclasses.replace(base, **change)
        for change in (
            {},
            {"first_point": "random"},
            {"first_point": "random", "draw": 1},
            {"interpolation": "expanded"},
            {"interpolation": "expanded", "moved_m": 5.0},
            {"preparation": "PREPARATION_BLACK"},
            {"preparation": "PREPARATION_SKIPPED"},
        )
    ]
    assert len({spec.slug for spec in changed}) == len(changed)
    without_preparation = [extractor_settings(spec) for spec in changed[:5]]
    assert all(a != b for i, a in enumerate(without_preparation) for b in without_preparation[:i])


@pytest.mark.parametrize(
    ("rgb", "xyz", "changes"),
    [
        ("handcrafted", "handcrafted", {"first_point": "random"}),
        ("handcrafted", "handcrafted", {"first_point": "middle"}),
        ("handcrafted", "handcrafted", {"interpolation": "linear"}),
        ("handcrafted", "handcrafted", {"moved_m": -1.0}),
        ("embedded_vit", "embedded_point", {"draw": 2}),
    ],
)
def test_switches_that_mean_nothing_are_refused(rgb, xyz, changes):
    with pytest.raises(InputError):
        ExtractorSpec(rgb, xyz, **changes)


def test_the_extractor_s_preparation_goes_before_the_profile_s():
    profile = load_profile("demo")
    assert preparation_config(profile) == PREPARATION_DEFAULT
    spec = ExtractorSpec("handcrafted", "handcrafted", preparation="PREPARATION_BLACK")
    assert preparation_config(profile, spec) == PREPARATION_BLACK
    assert "PREPARATION_SEED" not in PREPARATIONS and "PREPARATION_SKIPPED" in PREPARATIONS
    with pytest.raises(InputError, match="choose one of"):
        preparation_config(profile, dataclasses.replace(spec, preparation="PREPARATION_NONE"))


def test_without_preparation_the_support_stays():
    default, skipped = (preparation_steps(raw_scene(), c, 0) for c in (PREPARATION_DEFAULT, PREPARATION_SKIPPED))
    assert skipped.plane is None
    assert default.foreground.sum() < 0.9 * skipped.foreground.sum()
    assert not (default.foreground & ~skipped.foreground).any()


def test_a_black_background_is_black_off_the_object_and_nowhere_else():
    raw = raw_scene()
    kept, black = (preparation_steps(raw, c, 0) for c in (PREPARATION_DEFAULT, PREPARATION_BLACK))
    np.testing.assert_array_equal(kept.foreground, black.foreground)
    padded = np.zeros(black.rgb_padded.shape[:2], dtype=bool)
    top, left = ((side - size) // 2 for side, size in zip(padded.shape, raw.rgb.shape[:2], strict=True))
    inside = (slice(top, top + raw.rgb.shape[0]), slice(left, left + raw.rgb.shape[1]))
    padded[inside] = black.component
    assert black.rgb_padded[inside][~black.component].max() == 0
    np.testing.assert_array_equal(black.rgb_padded[padded], kept.rgb_padded[padded])
    assert raw.rgb[~black.component].max() > 0  # the raw picture is left alone


def test_bilinear_resizing_pulls_border_points_towards_the_origin():
    nearest, bilinear = (preparation_steps(raw_scene(), c, 0) for c in (PREPARATION_DEFAULT, PREPARATION_BILINEAR))
    assert bilinear.foreground.sum() > nearest.foreground.sum()
    on_object = nearest.cloud_resized[nearest.foreground][:, 2]
    mixed = bilinear.cloud_resized[bilinear.foreground][:, 2]
    assert mixed.min() < 0.9 * on_object.min()
    assert np.isclose(np.median(mixed), np.median(on_object), rtol=0.02)


def cloud(number: int, seed: int = 0, away_m: float = 0.0) -> torch.Tensor:
    points = torch.rand(number, 3, generator=torch.Generator().manual_seed(seed)) * 0.1
    return points + torch.tensor([0.0, 0.0, away_m])


def test_expanded_weights_agree_with_exact_ones_near_the_origin():
    points, centers = cloud(50), cloud(11, seed=1)
    (rows, weights), (exact_rows, exact) = expanded_weights(points, centers), interpolation_weights(points, centers)
    assert torch.equal(rows, exact_rows)
    torch.testing.assert_close(weights, exact, rtol=1e-3, atol=1e-4)


def test_expanded_weights_are_wrong_far_away_and_still_finite():
    points, centers = cloud(400, away_m=20.0), cloud(60, seed=1, away_m=20.0)
    rows, weights = expanded_weights(points, centers)
    exact_rows, _ = interpolation_weights(points, centers)
    assert (rows[:, 0] != exact_rows[:, 0]).float().mean() > 0.05
    assert torch.isfinite(weights).all()
    torch.testing.assert_close(weights.sum(dim=1), torch.ones(400))


def test_expanded_weights_by_hand():
    points, centers = torch.zeros(1, 3), torch.tensor([[1.0, 0, 0], [0, 2.0, 0], [0, 0, 4.0], [9.0, 0, 0]])
    rows, weights = expanded_weights(points, centers)
    assert rows.tolist() == [[0, 1, 2]]
    torch.testing.assert_close(weights, torch.tensor([[16.0, 4.0, 1.0]]) / 21)


@pytest.mark.parametrize(("points", "centers"), [(cloud(4), cloud(2)), (cloud(4)[:, :2], cloud(4))])
def test_expanded_weights_of_bad_input(points, centers):
    with pytest.raises(InputError):
        expanded_weights(points, centers)


def test_interpolation_follows_its_rule_even_where_every_point_is_a_center():
    points = cloud(9).numpy()
    assert interpolation(points, points)[1][:, 0].tolist() == [1.0] * 9
    rows, weights = interpolation(points, points, "expanded")
    assert rows[:, 0].tolist() == list(range(9)) and not np.array_equal(weights[:, 0], np.ones(9))


def test_a_farthest_point_sample_starts_where_it_is_told():
    points = cloud(40)
    chosen = farthest_points(points, 7, first=13).tolist()
    expected = [13]
    for _ in range(6):
        nearest = torch.cdist(points.double(), points[expected].double()).min(dim=1).values
        expected.append(int(nearest.argmax()))
    assert chosen == expected and len(set(chosen)) == 7
    for wrong in (-1, 40):
        with pytest.raises(InputError, match="first"):
            farthest_points(points, 7, first=wrong)


def test_a_random_first_point_depends_on_draw_and_sample_alone():
    config = dataclasses.replace(POINT_MAE_EMBEDDED, first_point="random")
    extractors = [PointMAEExtractor(config, "random", seed) for seed in (0, 0, 1)]
    samples = [SimpleNamespace(category="cord", sample_id=f"train/good/{n:03d}") for n in range(6)]
    first, again, other = ([e._first_point(s, 5000) for s in samples] for e in extractors)
    assert first == again and first != other and len(set(first)) > 3
    assert PointMAEExtractor(POINT_MAE_EMBEDDED, "random", 0)._first_point(samples[0], 5000) == 0


def test_color_patches_are_the_pixels_of_each_cell():
    rgb = torch.randn(3, 12, 8, generator=torch.Generator().manual_seed(0))
    extractor = ColorPatches(ColorPatchesConfig(cell_px=4))
    tokens = extractor(SimpleNamespace(rgb=rgb))
    assert tokens.shape == (extractor.rgb_dim, 3, 2) == (48, 3, 2)
    for row in range(3):
        for column in range(2):
            cell = rgb[:, 4 * row : 4 * row + 4, 4 * column : 4 * column + 4]
            assert torch.equal(tokens[:, row, column], cell.reshape(-1))
    with pytest.raises(InputError, match="do not divide"):
        extractor(SimpleNamespace(rgb=torch.zeros(3, 10, 8)))


def test_gradients_are_the_hand_made_tokens_without_colors():
    config = rgb_config(ExtractorSpec("gradients", "handcrafted"))
    rgb = torch.rand(3, 28, 28, generator=torch.Generator().manual_seed(2))
    whole, part = HandcraftedRgb(), HandcraftedRgb(config)
    sample = SimpleNamespace(rgb=rgb)
    assert torch.equal(part(sample), whole(sample)[-part.rgb_dim :])
    assert part.rgb_dim == 20


def test_a_prepared_copy_cannot_be_unprepared():
    raw = dataclasses.replace(raw_scene(), depth=raw_scene().cloud[..., 2])
    with pytest.raises(InputError, match="give the raw dataset"):
        preparation_steps(raw, PREPARATION_SKIPPED, 0)
