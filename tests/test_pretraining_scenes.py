"""Pretraining scenes: every family draws, nothing of synth3d's objects or defects is in them, geometry is right."""

from __future__ import annotations

import ast
import warnings

import numpy as np
import pytest

import lib.pretraining
from lib.config import project_root
from lib.errors import InputError
from lib.pretraining.families import FAMILIES
from lib.pretraining.paint import PATTERNS, palette, pattern
from lib.pretraining.scenes import HIGHEST_MM, LOWEST_MM, Scene, render_scene, sample_family
from lib.pretraining.shapes import box_depth, cells, per_cell, pile, polygon_depth, rise, scatter, segment_distance
from lib.synth3d import CATEGORIES, DEFECTS
from lib.synth3d.canvas import FIELD_MM, canvas_of

SIZE = 77
FOLDER = project_root() / "lib" / "pretraining"
DRAWING = sorted(path for path in FOLDER.glob("*.py") if path.stem in
                 {"scenes", "families", "shapes", "paint", "machined", "grown", "soft"})  # fmt: skip


def scene_of(family: str | None, seed: int = 3, size: int = SIZE) -> Scene:
    return render_scene(np.random.default_rng(seed), size, family)


def height_over_board(scene: Scene) -> np.ndarray:
    """(N,) millimetres of the object's measured points above the plane through the board's."""
    measured = scene.cloud[..., 2] > 0
    board = scene.cloud[measured & ~scene.foreground].astype(np.float64) * 1000
    middle = board.mean(0)
    normal = np.linalg.svd(board - middle, full_matrices=False)[2][2]
    points = scene.cloud[measured & scene.foreground].astype(np.float64) * 1000
    return (points - middle) @ (normal * -np.sign(normal[2]))


class TestDisjointFromSynth3d:
    def test_names(self):
        words = {word for name in FAMILIES for word in name.split("_")}
        assert not words & {*CATEGORIES, *DEFECTS, "tire", "braid", "candy", "cookie"}
        assert len(FAMILIES) >= 10

    @pytest.mark.parametrize("path", DRAWING, ids=lambda path: path.stem)
    def test_no_module_imports_what_draws_synth3ds_objects_or_defects(self, path):
        allowed = {"canvas", "layers", "render", "sensor", "supports"}
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                assert not [alias for alias in node.names if alias.name.startswith("lib.synth3d")]
            elif isinstance(node, ast.ImportFrom) and str(node.module).startswith("lib.synth3d"):
                assert str(node.module).removeprefix("lib.synth3d.") in allowed, ast.unparse(node)

    def test_the_check_sees_every_family(self):
        homes = {family.__module__ for family in FAMILIES.values()}
        assert {home.rsplit(".", 1)[1] for home in homes} <= {path.stem for path in DRAWING}
        assert all(home.startswith(lib.pretraining.__name__) for home in homes)


@pytest.mark.parametrize("family", FAMILIES)
class TestEveryFamily:
    def test_renders(self, family):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            scene = scene_of(family)
        assert scene.family == family
        assert scene.rgb.shape == scene.cloud.shape == (SIZE, SIZE, 3)
        assert (scene.rgb.dtype, scene.cloud.dtype, scene.foreground.dtype) == (np.uint8, np.float32, bool)
        assert np.isfinite(scene.cloud).all()
        assert scene.foreground.shape == (SIZE, SIZE)
        assert 0.015 < scene.foreground.mean() <= 1
        assert scene.rgb[scene.foreground].std() > 1

    def test_a_missing_return_is_the_origin_and_the_rest_is_in_reach(self, family):
        cloud = scene_of(family).cloud
        missing = cloud[..., 2] == 0
        assert (cloud[missing] == 0).all()
        assert missing.mean() < 0.2
        assert ((cloud[~missing][:, 2] > 0.36) & (cloud[~missing][:, 2] < 0.42)).all()

    def test_is_the_same_scene_at_every_size(self, family):
        coarse, fine = scene_of(family, size=71), scene_of(family, size=213)
        assert (coarse.foreground == fine.foreground[1::3, 1::3]).mean() > 0.95

    def test_colors_and_shapes_differ_between_seeds(self, family):
        first, second = scene_of(family, 1), scene_of(family, 2)
        assert np.abs(first.rgb.astype(int) - second.rgb).mean() > 5
        assert not np.array_equal(first.cloud, second.cloud)


class TestScene:
    def test_equal_generators_give_equal_scenes(self):
        first, second = scene_of(None, 11), scene_of(None, 11)
        np.testing.assert_array_equal(first.rgb, second.rgb)
        np.testing.assert_array_equal(first.cloud, second.cloud)
        np.testing.assert_array_equal(first.foreground, second.foreground)
        assert first.family == second.family

    def test_one_generator_goes_on_to_other_scenes(self):
        generator = np.random.default_rng(5)
        first, second = render_scene(generator, SIZE, "tile"), render_scene(generator, SIZE, "tile")
        assert not np.array_equal(first.rgb, second.rgb)

    def test_every_family_is_drawn(self):
        generator = np.random.default_rng(0)
        drawn = [sample_family(generator) for _ in range(900)]
        assert set(drawn) == FAMILIES.keys()
        assert 0.15 < drawn.count("freeform") / len(drawn) < 0.25

    @pytest.mark.parametrize("family", ["medal", "plate", "leaf", "petals", "circuit"])
    def test_the_object_lies_on_the_board(self, family):
        height = height_over_board(scene_of(family, 8))
        assert np.percentile(height, 1) > LOWEST_MM - 0.5  # the sensor's noise
        assert 2 < np.percentile(height, 99) < HIGHEST_MM + 0.5

    def test_refuses_an_unknown_family(self):
        with pytest.raises(InputError, match=r"'teapot'.*brick.*freeform"):
            scene_of("teapot")

    def test_refuses_a_tiny_picture(self):
        with pytest.raises(InputError, match=r"63.*64 or more"):
            scene_of("medal", size=63)


class TestShapes:
    x, y = canvas_of(67).x_mm, canvas_of(67).y_mm

    def test_segment_distance_is_that_to_the_nearest_of_many_points_on_it(self):
        start, end = np.array([-11.0, 4.0]), np.array([23.0, 17.5])
        points = start + np.linspace(0, 1, 2001)[:, None] * (end - start)
        slow = np.hypot(self.x[..., None] - points[:, 0], self.y[..., None] - points[:, 1]).min(-1)
        np.testing.assert_allclose(segment_distance(self.x, self.y, start, end), slow, atol=0.01)

    def test_a_box_with_sharp_corners_holds_what_lies_between_its_sides(self):
        depth = box_depth(self.x, self.y, 21.3, 9.7, 0.0)
        np.testing.assert_array_equal(depth > 0, (np.abs(self.x) < 21.3) & (np.abs(self.y) < 9.7))
        assert depth.max() == pytest.approx(9.7, abs=FIELD_MM / 67)

    def test_a_rounded_box_as_wide_as_its_corners_is_a_disc(self):
        np.testing.assert_allclose(
            box_depth(self.x, self.y, 13.0, 13.0, 13.0), 13.0 - np.hypot(self.x, self.y), atol=1e-4
        )

    def test_a_polygon_of_four_sides_is_a_square(self):
        np.testing.assert_allclose(
            polygon_depth(self.x, self.y, 4, 15.0), 15.0 - np.maximum(np.abs(self.x), np.abs(self.y)), atol=1e-4
        )

    @pytest.mark.parametrize("kind", range(4))
    def test_an_edge_rises_from_0_to_1_and_never_falls(self, kind):
        values = rise(np.linspace(-2, 5, 141, dtype=np.float32), 3.0, kind)
        assert (values[0], values[-1]) == (0, 1)
        assert (np.diff(values) >= 0).all()

    def test_cells_put_every_pixel_back_where_it_was(self):
        u, v, row, column = cells(self.x, self.y, 7.0, 5.0, 0.5)
        assert np.abs(u).max() <= 3.501
        assert np.abs(v).max() <= 2.501
        np.testing.assert_allclose((row + 0.5) * 5 + v, self.y, atol=1e-4)
        np.testing.assert_allclose((column + 0.5 - 0.5 * (row % 2)) * 7 + u, self.x, atol=1e-4)

    def test_a_cell_has_one_number(self):
        _, _, row, column = cells(self.x, self.y, 7.0, 5.0)
        chance = per_cell(np.random.default_rng(2), row, column)
        assert np.unique(np.stack([row.ravel(), column.ravel()]), axis=1).shape[1] == len(np.unique(chance))

    def test_a_pile_shows_the_highest_of_its_domes(self):
        canvas, centers = canvas_of(67), scatter(np.random.default_rng(4), 17.0)
        alone = [pile(np.random.default_rng(9), canvas, center[None], (9, 9), (3, 3), 1.0)[0] for center in centers]
        height, index = pile(np.random.default_rng(9), canvas, centers, (9, 9), (3, 3), 1.0)
        np.testing.assert_allclose(height, np.max(alone, 0), atol=1e-5)
        np.testing.assert_array_equal(index >= 0, height > 0)


class TestPaint:
    @pytest.mark.parametrize("draw", PATTERNS, ids=lambda draw: draw.__name__.strip("_"))
    def test_patterns_stay_between_0_and_1_and_are_not_flat(self, draw):
        field = draw(np.random.default_rng(6), canvas_of(SIZE))
        assert field.shape == (SIZE, SIZE)
        assert field.min() >= -1e-6
        assert field.max() <= 1 + 1e-6
        assert field.std() > 0.05

    def test_pattern_is_drawn_from_all(self):
        generator = np.random.default_rng(0)
        assert len({pattern(generator, canvas_of(SIZE)).std().round(6) for _ in range(20)}) == 20

    def test_colors_cover_all_hues(self):
        generator = np.random.default_rng(1)
        colors = np.concatenate([palette(generator, 5) for _ in range(80)])
        assert colors.shape == (400, 3)
        assert colors.min() > 0
        assert colors.max() < 0.95
        assert set(np.unique(colors.argmax(1))) == {0, 1, 2}
