"""Feature colors and token grids: one projection for all, the same colors twice, centers where they lie."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from matplotlib import pyplot as plt

from lib.config import ExtractorSpec
from lib.errors import InputError
from lib.extraction_cost import extraction_cost, num_parameters
from lib.extractors import get_extractor
from lib.feature_pictures import center_pixels, feature_pictures, grids_over_object, principal_colors
from tests.factories import make_features
from tests.fixture_study import HANDCRAFTED
from tests.test_handcrafted import made_sample


@pytest.fixture(autouse=True)
def clean_canvas() -> Iterator[None]:
    plt.switch_backend("agg")
    yield
    plt.close("all")


def tables(seed: int = 0) -> list[torch.Tensor]:
    """Two tables (n, 5) of independent columns."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(n, 5, generator=generator) for n in (301, 211)]


def test_equal_features_have_equal_colors_across_tables() -> None:
    first, second = tables()
    second[7] = first[11]
    colors = principal_colors([first, second])
    assert [part.shape for part in colors] == [(301, 3), (211, 3)]
    np.testing.assert_array_equal(colors[1][7], colors[0][11])
    assert all(part.min() >= 0 and part.max() <= 1 for part in colors)


def test_red_is_the_strongest_component_whatever_the_scale_of_a_column() -> None:
    rows = torch.cat(tables())
    rows[:, 1] = rows[:, 0] + 0.01 * rows[:, 1]
    rows[:, 2] = rows[:, 0] + 0.01 * rows[:, 2]  # three columns say the same: the first component
    (colors,) = principal_colors([rows * torch.tensor([1.0, 1000.0, 0.001, 1.0, 1.0])])
    order = rows[:, 0].argsort()
    inner = colors[order[20:-20], 0]
    assert abs(np.corrcoef(inner, rows[order[20:-20], 0])[0, 1]) > 0.99


def test_colors_do_not_depend_on_the_order_of_rows() -> None:
    rows = torch.cat(tables())
    shuffled = torch.randperm(len(rows), generator=torch.Generator().manual_seed(1))
    (plain,), (mixed,) = principal_colors([rows]), principal_colors([rows[shuffled]])
    np.testing.assert_allclose(mixed, plain[shuffled], atol=1e-9)


def test_constant_columns_are_no_trouble() -> None:
    (colors,) = principal_colors([torch.cat([torch.cat(tables()), torch.ones(512, 2)], dim=1)])
    assert np.isfinite(colors).all()


@pytest.mark.parametrize("modality", ["rgb", "xyz"])
def test_pictures_are_white_off_the_object_and_only_there(modality: str) -> None:
    samples = [make_features(seed) for seed in (1, 2)]
    for sample, picture in zip(samples, feature_pictures(samples, modality), strict=True):
        assert picture.shape == (28, 28, 3)
        assert (picture[~sample.foreground.numpy()] == 1).all()
        assert (picture[sample.foreground.numpy()].min(axis=1) < 1).mean() > 0.9


def test_center_pixels_are_where_the_centers_were_taken() -> None:
    sample = made_sample()
    features = get_extractor(HANDCRAFTED)(sample)
    rows, columns = center_pixels(features).T
    torch.testing.assert_close(sample.cloud[:, rows, columns].T, features.centers, atol=1e-6, rtol=0)


def test_both_grids_are_drawn_over_the_picture() -> None:
    features = get_extractor(HANDCRAFTED)(made_sample())
    height, width = features.foreground.shape
    figure = grids_over_object(np.ones((height, width, 3)), features, (slice(8, 20), slice(4, 16)))
    whole, zoomed = figure.axes
    assert zoomed.get_xlim() == (4, 16) and zoomed.get_ylim() == (20, 8)
    cells = features.rgb_tokens.shape[1]
    assert len(whole.get_xticks(minor=True)) == cells - 1
    assert whole.get_xticks(minor=True)[0] == pytest.approx(width / cells - 0.5)
    assert len(whole.collections[0].get_offsets()) == len(features.centers)


def test_cost_counts_parameters_times_both_sides_and_weighs_the_file() -> None:
    cost = extraction_cost(HANDCRAFTED, [made_sample(), made_sample(3)])
    assert (cost.rgb_parameters, cost.xyz_parameters, cost.rgb_dim, cost.xyz_dim) == (0, 0, 38, 73)
    assert cost.rgb_ms > 0 and cost.xyz_ms > 0
    tokens = 2 * (38 * 11 * 11 + 73 * 100) / 1e6  # half floats; about a hundred cells hold the object
    assert tokens < cost.megabytes < 6 * tokens


def test_cost_of_a_network_is_that_of_its_kept_blocks() -> None:
    full, cut = (
        num_parameters(get_extractor(ExtractorSpec("handcrafted", "embedded_point", n, weights="random")).xyz)
        for n in (None, 4)
    )
    assert 0 < cut < full / 2


def test_cost_needs_samples() -> None:
    with pytest.raises(InputError, match="no samples given"):
        extraction_cost(HANDCRAFTED, [])
