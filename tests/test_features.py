import dataclasses

import numpy as np
import pytest
import torch
from torch.nn import functional

from lib.data import Sample
from lib.errors import InputError
from lib.features import Features, Standardizer, build_features, load_features, object_rgb_tokens, save_features

HEIGHT, WIDTH, CENTERS = 13, 11, 17


def made_sample(seed=0, height=HEIGHT, width=WIDTH):
    generator = torch.Generator().manual_seed(seed)
    foreground = torch.zeros(height, width, dtype=torch.bool)
    foreground[2:-3, 3:-1] = torch.rand(height - 5, width - 4, generator=generator) < 0.8
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    relief = 0.4 + 0.002 * torch.rand(height, width, generator=generator)
    cloud = torch.stack([columns * 5e-4, rows * 5e-4, relief]) * foreground
    return Sample(
        sample_id=f"test/hole/{seed:03d}",
        category="thing",
        split="test",
        defect="hole",
        label=1,
        rgb=torch.randn(3, height, width, generator=generator),
        cloud=cloud,
        foreground=foreground,
        gt_mask=torch.rand(height, width, generator=generator) < 0.1,
        depth=cloud[2],
        rgb_padded=np.zeros((height, width, 3), dtype=np.uint8),
    )


def made_features(seed=0, **changes):
    sample = made_sample(seed)
    generator = torch.Generator().manual_seed(seed + 100)
    points = sample.cloud[:, sample.foreground].T.contiguous()
    centers = points[torch.randperm(len(points), generator=generator)[:CENTERS]]
    xyz_tokens = torch.randn(CENTERS, 4, generator=generator)
    rgb_tokens = torch.randn(3, 5, 7, generator=generator)
    return dataclasses.replace(build_features(sample, rgb_tokens, xyz_tokens, centers), **changes)


def test_at_pixels_equals_the_dense_maps_read_at_the_foreground():
    features = made_features()
    dense = functional.interpolate(
        features.rgb_tokens[None], size=(HEIGHT, WIDTH), mode="bilinear", align_corners=False
    )[0]
    rgb, xyz = features.at_pixels()
    torch.testing.assert_close(rgb, dense[:, features.foreground].T, atol=1e-6, rtol=0)
    for row in range(len(xyz)):
        expected = sum(features.weights[row, k] * features.xyz_tokens[features.neighbors[row, k]] for k in range(3))
        torch.testing.assert_close(xyz[row], expected, atol=1e-6, rtol=1e-6)


def test_at_pixels_of_some_rows_keeps_their_order_and_repeats():
    features = made_features()
    index = torch.tensor([5, 0, 5, 31])
    for some, everything in zip(features.at_pixels(index), features.at_pixels(), strict=True):
        torch.testing.assert_close(some, everything[index], atol=0, rtol=0)


def test_build_features_interpolates_from_the_three_nearest_centers():
    sample, features = made_sample(), made_features()
    points = sample.cloud[:, sample.foreground].T.double()
    for row in range(0, len(points), 7):
        squared = ((points[row] - features.centers.double()) ** 2).sum(dim=1)
        nearest = squared.argsort()[:3]
        assert set(features.neighbors[row].tolist()) == set(nearest.tolist())
        weight = 1 / (squared[features.neighbors[row]] + 1e-8)
        torch.testing.assert_close(features.weights[row].double(), weight / weight.sum(), atol=1e-5, rtol=1e-5)


def test_build_features_leaves_out_foreground_pixels_without_a_return():
    sample = made_sample()
    row, column = sample.foreground.nonzero()[9].tolist()
    cloud = sample.cloud.clone()
    cloud[:, row, column] = 0
    centers = sample.cloud[:, sample.foreground].T[:5].contiguous()
    built = build_features(dataclasses.replace(sample, cloud=cloud), torch.zeros(1, 2, 2), torch.zeros(5, 1), centers)
    assert not built.foreground[row, column]
    assert len(built.pixel_index) == int(sample.foreground.sum()) - 1
    assert (built.sample_id, built.label) == (sample.sample_id, sample.label)
    assert torch.equal(built.gt_mask, sample.gt_mask)


@pytest.mark.parametrize("side", [1, 3, 6, 17])
def test_on_grid_averages_the_foreground_pixels_of_each_cell(side):
    features = made_features()
    rgb_map, xyz_map, cells = features.on_grid(side)
    _, xyz = features.at_pixels()
    assert rgb_map.shape == (3, side, side)
    members = {}
    for value, pixel in zip(xyz, features.pixel_index.tolist(), strict=True):
        cell = (pixel // WIDTH * side // HEIGHT, pixel % WIDTH * side // WIDTH)
        members.setdefault(cell, []).append(value)
    for cell in np.ndindex(side, side):
        assert bool(cells[cell]) == (cell in members)
        expected = torch.stack(members[cell]).mean(dim=0) if cell in members else torch.zeros(4)
        torch.testing.assert_close(xyz_map[(slice(None), *cell)], expected, atol=1e-6, rtol=1e-5)


def test_on_grid_leaves_rgb_tokens_alone_at_their_own_side_and_resizes_them_otherwise():
    tokens = torch.randn(2, 6, 6, generator=torch.Generator().manual_seed(4))
    features = made_features(rgb_tokens=tokens)
    assert torch.equal(features.on_grid(6)[0], tokens)
    # half the side, half-pixel centers: the mean of 2 x 2 tokens
    torch.testing.assert_close(features.on_grid(3)[0], functional.avg_pool2d(tokens[None], 2)[0])


def test_on_grid_refuses_a_side_of_zero():
    with pytest.raises(InputError, match="side is 0"):
        made_features().on_grid(0)


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("rgb_tokens", torch.full((3, 5, 7), float("nan")), "rgb_tokens holds values that are not finite"),
        ("xyz_tokens", torch.full((CENTERS, 4), float("inf")), "xyz_tokens holds values that are not finite"),
        ("xyz_tokens", torch.zeros(CENTERS - 1, 4), "xyz_tokens has shape"),
        ("rgb_tokens", torch.zeros(5, 7), "axes"),
        ("gt_mask", torch.zeros(3, 3, dtype=torch.bool), "gt_mask has shape"),
        ("foreground", torch.ones(HEIGHT, WIDTH, dtype=torch.bool), "row-major"),
    ],
)
def test_features_refuse_what_does_not_fit_together(field, value, words):
    with pytest.raises(InputError, match=words) as caught:
        made_features(**{field: value})
    assert "test/hole/000" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_features_refuse_neighbors_outside_and_weights_that_do_not_sum_to_one():
    features = made_features()
    with pytest.raises(InputError, match="outside the 17 centers"):
        dataclasses.replace(features, neighbors=features.neighbors + CENTERS)
    with pytest.raises(InputError, match="do not sum to 1"):
        dataclasses.replace(features, weights=features.weights * 2)


def test_build_features_refuses_a_sample_without_foreground():
    sample = made_sample()
    for empty in (
        dataclasses.replace(sample, foreground=torch.zeros_like(sample.foreground)),
        dataclasses.replace(sample, cloud=torch.zeros_like(sample.cloud)),
    ):
        with pytest.raises(InputError, match="test/hole/000: no foreground pixel has a return"):
            build_features(empty, torch.zeros(1, 2, 2), torch.zeros(5, 1), torch.zeros(5, 3))


def test_a_saved_file_gives_the_features_back_to_half_precision(tmp_path):
    features = made_features()
    path = tmp_path / "test" / "hole" / "000.safetensors"
    save_features(path, features)
    loaded = load_features(path)
    for field in dataclasses.fields(Features):
        before, after = getattr(features, field.name), getattr(loaded, field.name)
        if field.name in ("rgb_tokens", "xyz_tokens", "weights"):
            assert after.dtype == torch.float32
            torch.testing.assert_close(after, before, atol=1e-3, rtol=1e-3)
        elif isinstance(before, torch.Tensor):
            assert after.dtype == before.dtype
            assert torch.equal(after, before)
        else:
            assert after == before
    torch.testing.assert_close(loaded.weights.sum(dim=1), torch.ones(len(loaded.weights)), atol=1e-6, rtol=0)
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


def test_saving_twice_writes_the_same_bytes(tmp_path):
    save_features(tmp_path / "a.safetensors", made_features())
    save_features(tmp_path / "b.safetensors", made_features())
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()


@pytest.mark.parametrize("keep", [0, 5, 100, -7])
def test_a_corrupt_file_is_named_with_what_to_do(tmp_path, keep):
    path = tmp_path / "000.safetensors"
    save_features(path, made_features())
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(InputError, match=r"000\.safetensors is not a whole features file.*delete it") as caught:
        load_features(path)
    assert "\n" not in str(caught.value)


def test_a_foreign_safetensors_file_is_named_too(tmp_path):
    from safetensors.torch import save_file

    save_file({"x": torch.zeros(2)}, tmp_path / "other.safetensors")
    with pytest.raises(InputError, match=r"other\.safetensors is not a whole features file"):
        load_features(tmp_path / "other.safetensors")


def test_a_missing_file_and_tokens_too_large_for_float16_are_errors(tmp_path):
    with pytest.raises(InputError, match="no such features file"):
        load_features(tmp_path / "none.safetensors")
    with pytest.raises(InputError, match="xyz_tokens of test/hole/000 exceed 65504"):
        save_features(tmp_path / "big.safetensors", made_features(xyz_tokens=torch.full((CENTERS, 4), 1e5)))
    assert not list(tmp_path.iterdir())


def test_standardized_training_tokens_have_mean_zero_and_deviation_one():
    training = [made_features(seed) for seed in range(4)]
    constant = [
        dataclasses.replace(f, xyz_tokens=torch.cat([f.xyz_tokens, f.xyz_tokens[:, :1] * 0 + 3], 1)) for f in training
    ]
    standardizer = Standardizer.fit(constant)
    applied = [standardizer.apply(features) for features in constant]
    for table in (
        torch.cat([object_rgb_tokens(f) for f in applied]),
        torch.cat([f.xyz_tokens for f in applied])[:, :4],
    ):
        torch.testing.assert_close(table.mean(dim=0), torch.zeros(table.shape[1]), atol=1e-5, rtol=0)
        torch.testing.assert_close(table.std(dim=0, correction=0), torch.ones(table.shape[1]), atol=1e-5, rtol=0)
    assert (applied[0].xyz_tokens[:, 4] == 0).all()


def test_standardizing_tokens_is_standardizing_what_pixels_read():
    training = [made_features(seed) for seed in range(3)]
    standardizer = Standardizer.fit(training)
    rgb, xyz = training[1].at_pixels()
    rgb_after, xyz_after = standardizer.apply(training[1]).at_pixels()
    torch.testing.assert_close(rgb_after, (rgb - standardizer.rgb_mean) / standardizer.rgb_std, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(xyz_after, (xyz - standardizer.xyz_mean) / standardizer.xyz_std, atol=1e-5, rtol=1e-5)


def test_rgb_statistics_ignore_cells_without_foreground():
    features = made_features()
    far = features.rgb_tokens.clone()
    far[:, :, 0] = 1e3  # the leftmost cells hold pixels 0 and 1, which are background
    expected = Standardizer.fit([features])
    changed = Standardizer.fit([dataclasses.replace(features, rgb_tokens=far)])
    assert torch.equal(expected.rgb_mean, changed.rgb_mean)
    assert torch.equal(expected.rgb_std, changed.rgb_std)


def test_a_standardizer_is_rebuilt_from_its_state_and_refuses_other_channels():
    features = made_features()
    standardizer = Standardizer(**Standardizer.fit([features]).state)
    assert torch.equal(standardizer.apply(features).xyz_tokens, Standardizer.fit([features]).apply(features).xyz_tokens)
    with pytest.raises(InputError, match="use the extractor it was fitted with"):
        standardizer.apply(made_features(rgb_tokens=torch.zeros(4, 5, 7)))
    with pytest.raises(InputError, match="no training features"):
        Standardizer.fit([])


def test_tokens_of_the_points_themselves_are_not_mixed():
    sample = made_sample()
    points = sample.cloud[:, sample.foreground].T.contiguous()
    tokens = torch.randn(len(points), 7, generator=torch.Generator().manual_seed(5))
    rgb_tokens = torch.zeros(2, 4, 4)
    assert torch.equal(build_features(sample, rgb_tokens, tokens, points).at_pixels()[1], tokens)
    moved = build_features(sample, rgb_tokens, tokens, points + 1e-4)
    assert not torch.allclose(moved.at_pixels()[1], tokens, atol=0.05)


def test_standardizer_floor_is_a_share_of_the_median_deviation():
    generator = torch.Generator().manual_seed(3)
    scale = torch.tensor([1.0, 4.0, 1e-3, 2.0])
    samples = [made_features(seed, xyz_tokens=torch.randn(CENTERS, 4, generator=generator) * scale) for seed in (0, 1)]
    plain, floored = Standardizer.fit(samples), Standardizer.fit(samples, std_floor=0.25)
    median = plain.xyz_std.median()
    assert torch.equal(floored.xyz_std[[0, 1, 3]], plain.xyz_std[[0, 1, 3]])
    torch.testing.assert_close(floored.xyz_std[2], 0.25 * median)
    assert torch.equal(floored.xyz_mean, plain.xyz_mean)
