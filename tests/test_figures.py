"""Figures: what is drawn where, that nothing is closed or random, and that odd values are drawn, not refused."""

from __future__ import annotations

from collections.abc import Iterator

import matplotlib as mpl
import numpy as np
import pytest
import torch
from matplotlib import pyplot as plt
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from lib import figures
from lib.bootstrap import Interval
from lib.data import IMAGENET_MEAN, IMAGENET_STD
from lib.pixel_metrics import PROCurve

HEIGHT, WIDTH = 23, 19


@pytest.fixture(autouse=True)
def clean_canvas() -> Iterator[None]:
    """No screen, and no figure left open for the next test."""
    plt.switch_backend("agg")
    yield
    plt.close("all")


def pixels(figure: Figure) -> np.ndarray:
    """(H, W, 4) uint8 picture of a drawn figure."""
    figure.canvas.draw()
    return np.asarray(figure.canvas.buffer_rgba()).copy()


def made_mask() -> np.ndarray:
    mask = np.zeros((HEIGHT, WIDTH), dtype=bool)
    mask[5:11, 6:13] = True
    return mask


def grid_of(generator: np.random.Generator, **options: object) -> Figure:
    """Grid of two samples: a picture and two maps each; the second sample is good."""
    rows = [
        [generator.random((HEIGHT, WIDTH, 3)), *(generator.random((HEIGHT, WIDTH)) for _ in range(2))] for _ in range(2)
    ]
    masks = [made_mask(), np.zeros((HEIGHT, WIDTH), dtype=bool)]
    return figures.image_grid(rows, ["RGB", "map A", "map B"], ["bad", "good"], masks=masks, **options)


class TestImageGrid:
    def test_has_a_picture_in_every_cell_and_its_titles(self) -> None:
        figure = grid_of(np.random.default_rng(0))
        axes = np.array(figure.axes).reshape(2, 3)
        assert all(
            len(axis.images) == 1 and axis.images[0].get_array().shape[:2] == (HEIGHT, WIDTH) for axis in axes.flat
        )
        assert [axis.get_title() for axis in axes.flat] == ["RGB", "map A", "map B", "", "", ""]
        assert [axis.get_ylabel() for axis in axes.flat] == ["bad", "", "", "good", "", ""]
        assert not any(axis.get_xticks().size or axis.get_yticks().size for axis in axes.flat)

    def test_outlines_masks_on_maps_of_defective_samples_only(self) -> None:
        figure = grid_of(np.random.default_rng(0))
        assert [len(axis.collections) for axis in figure.axes] == [0, 1, 1, 0, 0, 0]
        contour = figure.axes[1].collections[0]
        assert to_hex(contour.get_edgecolor()[0]) == figures.MASK_COLOR.lower()
        np.testing.assert_allclose(contour.get_paths()[0].get_extents().bounds, (5.5, 4.5, 7, 6))

    def test_color_limits_are_those_given_with_a_color_bar_or_the_pictures_own(self) -> None:
        figure = grid_of(np.random.default_rng(0), limits={2: (0.0, 2.5)})
        cells = figure.axes[:6]
        bars = [bar for cell in cells for bar in cell.child_axes]
        maps = [axis.images[0] for axis in cells]
        assert bars == cells[5].child_axes and bars[0].get_xlim() == (0.0, 2.5)
        assert maps[2].get_clim() == maps[5].get_clim() == (0.0, 2.5)
        assert maps[1].get_clim() == (maps[1].get_array().min(), maps[1].get_array().max()) != maps[4].get_clim()

    def test_gaps_are_drawn_white(self) -> None:
        picture = np.full((HEIGHT, WIDTH), np.nan)
        picture[:, : WIDTH // 2] = np.linspace(0.2, 1, HEIGHT)[:, None]
        figure = figures.image_grid([[picture]], ["map"], ["x"])
        drawn = pixels(figure)
        row, column = figure.axes[0].transData.transform((WIDTH - 3, HEIGHT / 2))[::-1].astype(int)
        assert drawn[drawn.shape[0] - row, column].tolist() == [255, 255, 255, 255]
        row, column = figure.axes[0].transData.transform((2, HEIGHT / 2))[::-1].astype(int)
        assert drawn[drawn.shape[0] - row, column].tolist() != [255, 255, 255, 255]

    def test_of_nothing_but_gaps_is_drawn(self) -> None:
        pixels(figures.image_grid([[np.full((HEIGHT, WIDTH), np.nan)]], ["map"], ["x"], masks=[made_mask()]))

    def test_titles_must_match_the_columns(self) -> None:
        with pytest.raises(ValueError, match="zip"):
            figures.image_grid([[made_mask() * 1.0]], ["a", "b"], ["x"])

    def test_is_the_same_for_the_same_numbers_and_closes_nothing(self) -> None:
        other = plt.figure()
        first, second = (pixels(grid_of(np.random.default_rng(7))) for _ in range(2))
        np.testing.assert_array_equal(first, second)
        assert (first != pixels(grid_of(np.random.default_rng(8)))).any()
        assert len(plt.get_fignums()) == 4 and plt.fignum_exists(other.number)


def test_first_of_each_puts_good_first_and_the_rest_in_order() -> None:
    names = ["swap", "good", "bump", "good", "swap", "bump"]
    assert list(figures.first_of_each(names).items()) == [("good", 1), ("bump", 2), ("swap", 0)]
    assert list(figures.first_of_each(names, position=1).items()) == [("good", 3), ("bump", 5), ("swap", 4)]


def test_rgb_picture_undoes_the_normalization() -> None:
    original = torch.rand(3, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(0))
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
    picture = figures.rgb_picture((original - mean) / std)
    np.testing.assert_allclose(picture, original.permute(1, 2, 0).numpy(), atol=1e-6)


def made_cloud(slope: float = 0.5) -> tuple[np.ndarray, np.ndarray]:
    """Tilted plane (3, H, W) in metres, zero off the object, and its (H, W) foreground."""
    rows, columns = np.mgrid[:HEIGHT, :WIDTH] * 1e-3
    foreground = np.zeros((HEIGHT, WIDTH), dtype=bool)
    foreground[3:-4, 2:-5] = True
    return (np.stack([columns, rows, 0.5 - slope * columns]) * foreground).astype(np.float32), foreground


class TestReliefPicture:
    def test_is_white_off_the_object_and_colored_on_it(self) -> None:
        cloud, foreground = made_cloud()
        picture = figures.relief_picture(torch.from_numpy(cloud), torch.from_numpy(foreground))
        assert picture.shape == (HEIGHT, WIDTH, 3) and picture.min() >= 0 and picture.max() <= 1
        assert (picture[~foreground] == 1).all() and (picture[foreground] < 0.999).any(axis=1).all()
        np.testing.assert_array_equal(picture, figures.relief_picture(cloud, foreground))

    def test_color_follows_height(self) -> None:
        cloud, foreground = made_cloud()
        picture = figures.relief_picture(cloud, foreground)
        low, high = picture[HEIGHT // 2, 4], picture[HEIGHT // 2, WIDTH - 8]
        assert low[2] > low[0] and high[1] > high[2]  # viridis: blue below, green to yellow above

    def test_does_not_depend_on_what_lies_off_the_object(self) -> None:
        cloud, foreground = made_cloud()
        expected = figures.relief_picture(cloud, foreground)
        np.testing.assert_array_equal(
            figures.relief_picture(np.where(foreground, cloud, np.float32(9)), foreground), expected
        )

    def test_of_a_flat_or_empty_object_is_drawn(self) -> None:
        cloud, foreground = made_cloud(slope=0.0)
        assert np.isfinite(figures.relief_picture(cloud, foreground)).all()
        assert (figures.relief_picture(cloud, np.zeros_like(foreground)) == 1).all()


def test_loss_curves_count_epochs_from_one() -> None:
    history = {"a": [3.0, 2.0, 1.5], "b": [1.0, 0.5, 0.25]}
    figure = figures.loss_curves(history, {"a": "first", "b": "second"})
    (axis,) = figure.axes
    for line, curve in zip(axis.lines, history.values(), strict=True):
        np.testing.assert_array_equal(line.get_xydata(), np.column_stack([[1, 2, 3], curve]))
    assert [text.get_text() for text in axis.get_legend().get_texts()] == ["first", "second"]
    assert axis.get_ylim()[0] == 0


def test_pro_curves_are_drawn_where_asked() -> None:
    rate = np.linspace(0, 1, 11)
    curves = {"exact": PROCurve(rate, np.sqrt(rate)), "few": PROCurve(rate[::5], np.sqrt(rate[::5]))}
    figure, axes = plt.subplots(1, 2)
    assert figures.pro_curves(curves, 0.3, axes[1], markers=("few",)) is axes[1]
    assert len(plt.get_fignums()) == 1 and not axes[0].lines
    assert [line.get_label() for line in axes[1].lines] == ["exact", "few"]
    assert [line.get_marker() for line in axes[1].lines] == ["None", "o"]
    np.testing.assert_array_equal(axes[1].lines[0].get_xydata(), np.column_stack([rate, np.sqrt(rate)]))
    assert axes[1].get_xlim() == (0, 0.3)
    assert {line.get_linestyle() for line in axes[1].lines} == {"-"}
    figures.pro_curves(curves, 0.3, axes[0], baselines=("few",))
    assert [line.get_linestyle() for line in axes[0].lines] == ["-", "--"]
    own = figures.pro_curves(curves, 0.01)
    assert own.figure is not figure and own.get_xlim() == (0, 0.01)


def test_interval_plot_reads_from_top_to_bottom_and_colors_by_verdict() -> None:
    intervals = {"up": Interval(0.2, 0.1, 0.3), "down": Interval(-0.2, -0.3, -0.1), "even": Interval(0.0, -0.1, 0.1)}
    (axis,) = figures.interval_plot(intervals, "difference").axes
    bars, points = axis.lines[:6:2], axis.lines[1:6:2]
    for row, (bar, point, interval) in enumerate(zip(bars, points, intervals.values(), strict=True)):
        assert bar.get_xydata().tolist() == [[interval.low, row], [interval.high, row]]
        assert point.get_xydata().tolist() == [[interval.estimate, row]] and point.get_color() == bar.get_color()
    assert len({bar.get_color() for bar in bars}) == 3
    assert [text.get_text() for text in axis.get_yticklabels()] == list(intervals)
    assert axis.yaxis_inverted() and axis.get_xlabel() == "difference"
    assert list(axis.lines[6].get_xdata()) == [0.0, 0.0]
    (shifted,) = figures.interval_plot(intervals, "AUROC", reference=0.25).axes
    assert [line.get_color() for line in shifted.lines[:6:2]] == [bars[2].get_color(), *[bars[1].get_color()] * 2]


class TestTurnableCloud:
    def test_draws_each_object_point_in_millimetres_without_mirroring(self) -> None:
        cloud, foreground = made_cloud()
        colors = np.random.default_rng(0).random((HEIGHT, WIDTH, 3))
        (trace,) = figures.turnable_cloud(cloud, foreground, colors, "a cloud").data
        drawn = np.stack([trace.x, trace.y, trace.z])
        points = cloud[:, foreground]
        turned = np.stack([points[0], -points[1], -points[2]]) * 1000  # half a turn about x
        np.testing.assert_allclose(drawn - drawn[:, :1], turned - turned[:, :1], atol=1e-3)
        assert min(trace.z) == pytest.approx(0)
        assert len(trace.marker.color) == foreground.sum() and trace.marker.colorbar.title.text is None

    def test_scalars_get_a_color_bar(self) -> None:
        cloud, foreground = made_cloud()
        scores = np.arange(HEIGHT * WIDTH, dtype=np.float32).reshape(HEIGHT, WIDTH)
        (trace,) = figures.turnable_cloud(cloud, foreground, scores, "a cloud", colorbar="score").data
        np.testing.assert_array_equal(trace.marker.color, scores[foreground])
        assert trace.marker.colorbar.title.text == "score" and trace.marker.colorscale is not None

    def test_large_clouds_are_thinned_evenly(self, monkeypatch: pytest.MonkeyPatch) -> None:
        cloud, foreground = made_cloud()
        monkeypatch.setattr(figures, "CLOUD_POINTS", 50)
        scores = np.arange(HEIGHT * WIDTH, dtype=float).reshape(HEIGHT, WIDTH)
        (trace,) = figures.turnable_cloud(cloud, foreground, scores, "a cloud", colorbar="score").data
        assert 25 < len(trace.x) <= 50
        np.testing.assert_array_equal(trace.marker.color, scores[foreground][:: -(-foreground.sum() // 50)])

    def test_is_the_same_for_the_same_numbers(self) -> None:
        cloud, foreground = made_cloud()
        first, second = (
            figures.turnable_cloud(cloud, foreground, cloud[2], "a cloud", "m").to_json() for _ in range(2)
        )
        assert first == second


def test_point_colors() -> None:
    picture = np.array([[[0.0, 0.5, 1.0], [1.2, -0.1, 0.1]], [[1, 1, 1], [0, 0, 0]]])
    assert figures.point_colors(picture, np.array([0, 1, 3])) == ["rgb(0,128,255)", "rgb(255,0,26)", "rgb(0,0,0)"]
    scalars = np.array([[0.123456, 7.0], [1.0, 2.0]], dtype=np.float32)
    np.testing.assert_array_equal(figures.point_colors(scalars, np.array([0, 2])), [0.1235, 1.0])


def test_figures_leave_the_settings_alone() -> None:
    before = dict(mpl.rcParams)
    grid_of(np.random.default_rng(0))
    figures.loss_curves({"a": [1.0, 0.5]}, {"a": "a"})
    assert dict(mpl.rcParams) == before


def test_ring_leaves_the_defect_itself_untouched() -> None:
    picture, mask = np.full((31, 37, 3), 0.5), np.zeros((31, 37), dtype=bool)
    mask[12:17, 14:20] = True
    drawn = figures.ringed(picture, mask)
    changed = (drawn != picture).any(axis=-1)
    assert changed.any()
    assert not changed[10:19, 12:22].any()
    np.testing.assert_array_equal(figures.ringed(picture, np.zeros_like(mask)), picture)
