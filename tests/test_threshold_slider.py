"""Every position of the slider shows the mask and the points that its threshold gives."""

from __future__ import annotations

import base64
import re
from io import BytesIO

import numpy as np
import plotly.graph_objects as go
import pytest
from PIL import Image

from lib.errors import InputError
from lib.notebooks import BookRenderer
from lib.pixel_metrics import RankedPixels
from lib.threshold_slider import MASK_IMAGE, PREDICTED_OPACITY, outline_trace, thinned, threshold_slider

HEIGHT, WIDTH = 11, 17


def made_set() -> tuple[np.ndarray, np.ndarray]:
    """Masks and maps (5, HEIGHT, WIDTH); images 1 to 4 have a defect, the second of them two."""
    generator = np.random.default_rng(5)
    masks = np.zeros((5, HEIGHT, WIDTH), dtype=bool)
    masks[1:, 3:6, 4:9], masks[2, 8:10, 12:14] = True, True
    return masks, generator.random(masks.shape) + 0.5 * masks


def made_slider(sample: int = 2, **options: object) -> tuple[go.Figure, np.ndarray, np.ndarray]:
    masks, maps = made_set()
    picture = np.random.default_rng(1).random((HEIGHT, WIDTH, 3))
    pixels = RankedPixels.from_maps(masks, maps)
    return threshold_slider(pixels, picture, masks[sample], maps[sample], "a slider", **options), masks, maps


def decoded(address: str) -> np.ndarray:
    """(H, W, 4) uint8 pixels of a data address."""
    kind, text = address.split(",")
    assert kind == "data:image/png;base64"
    return np.array(Image.open(BytesIO(base64.b64decode(text))).convert("RGBA"))


def test_every_step_shows_what_its_threshold_gives() -> None:
    figure, masks, maps = made_slider(num_thresholds=12)
    (slider,) = figure.layout.sliders
    assert len(slider.steps) == 12 and all(step.method == "update" for step in slider.steps)
    for step in slider.steps:
        data, layout, traces = step.args
        ((rate,), (again,)), ((overlap,), (recall,)) = data["x"], data["y"]
        alpha = decoded(layout[f"images[{MASK_IMAGE}].source"])[..., 3]
        assert set(np.unique(alpha)) <= {0, round(255 * PREDICTED_OPACITY)}
        # the threshold lies between the highest score left out and the lowest one shown
        shown, out = maps[2][alpha > 0], maps[2][alpha == 0]
        assert not shown.size or out.max() < shown.min()
        label = float(step.label)
        assert out.max() <= label + 0.01 and (not shown.size or shown.min() > label - 0.01)
        exact = maps[~masks].copy()
        exact.sort()
        threshold = exact[-1 - round(rate * exact.size)]  # no two of the scores are equal
        assert rate == again == pytest.approx((maps[~masks] > threshold).mean(), abs=1e-5)
        assert recall == pytest.approx((maps[masks] > threshold).mean(), abs=1e-4)
        regions = [maps[i, 3:6, 4:9] for i in range(1, 5)] + [maps[2, 8:10, 12:14]]
        assert overlap == pytest.approx(np.mean([(region > threshold).mean() for region in regions]), abs=1e-4)
        assert [figure.data[trace].mode for trace in traces] == ["markers", "markers"]
        numbers = re.findall(r"<b>([\d.]+) %</b>", layout["annotations[0].text"])
        assert [float(n) for n in numbers] == pytest.approx([100 * rate, 100 * overlap, 100 * recall], abs=0.01)


def test_the_page_opens_at_the_sliders_position() -> None:
    figure, _, _ = made_slider(num_thresholds=12)
    (slider,) = figure.layout.sliders
    data, layout, traces = slider.steps[slider.active].args
    assert figure.layout.images[MASK_IMAGE].source == layout[f"images[{MASK_IMAGE}].source"]
    assert figure.layout.annotations[0].text == layout["annotations[0].text"]
    for x, y, trace in zip(data["x"], data["y"], traces, strict=True):
        assert (list(figure.data[trace].x), list(figure.data[trace].y)) == (x, y)


def test_points_lie_on_the_drawn_curves() -> None:
    figure, _, _ = made_slider(num_thresholds=30)
    for step in figure.layout.sliders[0].steps:
        data, _, traces = step.args
        for (x,), (y,), trace in zip(data["x"], data["y"], traces, strict=True):
            curve = figure.data[trace - 1]
            assert curve.mode == "lines" and curve.xaxis == figure.data[trace].xaxis
            low = max(height for rate, height in zip(curve.x, curve.y, strict=True) if rate <= x + 1e-5)
            assert y <= low + 2e-4
            before = [height for rate, height in zip(curve.x, curve.y, strict=True) if rate < x - 1e-5]
            assert y >= max(before, default=0) - 2e-4


def test_the_picture_lies_under_the_mask_and_plotly_can_tell_them_apart() -> None:
    figure, _, _ = made_slider()
    picture, mask = figure.layout.images
    expected = np.rint(np.random.default_rng(1).random((HEIGHT, WIDTH, 3)) * 255)
    np.testing.assert_array_equal(decoded(picture.source)[..., :3], expected)
    places = [(image.x, image.y, image.sizex, image.sizey) for image in (picture, mask)]
    assert places[0] != places[1] and places[0][2:] == places[1][2:] == (WIDTH, HEIGHT)
    left = [image.x - image.sizex * (image.xanchor == "right") for image in (picture, mask)]
    assert left == [0, 0]


def test_outline_goes_along_the_edges_of_the_defect() -> None:
    mask = np.zeros((4, 5), dtype=bool)
    mask[1, 2:4] = True
    trace = outline_trace(mask)
    lines = {frozenset([(trace.x[i], trace.y[i]), (trace.x[i + 1], trace.y[i + 1])]) for i in range(0, len(trace.x), 3)}
    corners = [(2, 1), (3, 1), (4, 1), (4, 2), (3, 2), (2, 2)]
    assert lines == {frozenset(pair) for pair in zip(corners, corners[1:] + corners[:1], strict=True)}
    assert set(trace.x[2::3]) == {None}
    whole = outline_trace(np.ones((2, 2), dtype=bool))  # a defect at the border has an outline too
    assert len(whole.x) == 3 * 8 and not outline_trace(np.zeros((4, 5), dtype=bool)).x


def test_thinning_keeps_corners_and_ends() -> None:
    x = np.concatenate([np.zeros(5000), np.linspace(0, 1, 5000)])
    y = np.concatenate([np.linspace(0, 0.8, 5000), np.full(5000, 0.8)])
    drawn = thinned(x, y, 0.3)
    assert len(drawn[0]) < 1300 and drawn[0][-1] >= 0.3 and (drawn[0][0], drawn[1][0]) == (0, 0)
    inside = x <= 0.3
    found = np.interp(x[inside & (x > 0)], *drawn)
    np.testing.assert_allclose(found, 0.8, atol=3e-3)  # half a step of the thinning
    few = thinned(np.array([0, 0.1, 0.1, 1.0]), np.array([0, 0, 1.0, 1.0]), 0.3)
    assert few[0].tolist() == [0, 0.1, 0.1, 1] and few[1].tolist() == [0, 0, 1, 1]


def test_the_book_gets_a_small_figure_with_its_text() -> None:
    figure, _, _ = made_slider()
    html = BookRenderer().to_mimebundle(figure.to_dict())["text/html"]
    assert 'aria-label="a slider"' in html and len(html) < 200_000


def test_a_good_sample_and_a_map_of_two_values_are_shown() -> None:
    figure, _, _ = made_slider(sample=0)
    assert not figure.data[0].x
    masks = made_set()[0]
    maps = np.zeros(masks.shape)
    maps[:, 2:7, 2:12] = 1.0
    picture = np.zeros((HEIGHT, WIDTH, 3))
    blind = threshold_slider(RankedPixels.from_maps(masks, maps), picture, masks[1], maps[1], "blind")
    assert [step.label for step in blind.layout.sliders[0].steps] == ["1", "0"]


def test_bad_input_is_one_line() -> None:
    masks, maps = made_set()
    pixels = RankedPixels.from_maps(masks, maps)
    with pytest.raises(InputError, match=r"picture \(11, 17\), gt_mask \(11, 17\) and anomaly_map \(11, 17\): give"):
        threshold_slider(pixels, maps[0], masks[0], maps[0], "text")
    with pytest.raises(InputError, match="num_thresholds 1"):
        made_slider(num_thresholds=1)
    with pytest.raises(InputError, match="limit 0: the false positive rate limit"):
        made_slider(limit=0)
