"""Reading all cells and the released blur against loops; lazy tables and banks against joined ones."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter

from lib.coreset import greedy_coreset, project, project_tables
from lib.errors import InputError
from lib.grids import bilinear_resize, quantized_blur
from lib.heads import patch_bank
from lib.heads.bank_grid import GridBankConfig, bank_prediction, grid_map, pooled_xyz, read_grid
from lib.heads.patch_bank import coreset_bank, gathered
from lib.methods import PatchCoreConfig
from lib.patches import dense_map, read_patches
from lib.reading import ReadOnAccess
from lib.sampling import table_statistics
from tests.factories import make_features

ALL = GridBankConfig(grid_side=5, cells="all", blur="quantized")


def dense_xyz(sample) -> np.ndarray:
    """(H, W, C3) 3D features pixel by pixel, zeros off the object."""
    dense = np.zeros((*sample.foreground.shape, sample.xyz_tokens.shape[1]))
    for number, (row, column) in enumerate(sample.foreground.nonzero().tolist()):
        tokens = sample.xyz_tokens[sample.neighbors[number]].double().numpy()
        dense[row, column] = sample.weights[number].double().numpy() @ tokens
    return dense


def adaptive_range(cell: int, length: int, side: int) -> slice:
    return slice(cell * length // side, -(-(cell + 1) * length // side))


def test_all_cells_average_the_background_in_after_a_3x3_mean() -> None:
    sample, side = make_features(seed=3), 5
    dense = dense_xyz(sample)
    height, width, _ = dense.shape
    means = np.stack(
        [[dense[r : r + 3, c : c + 3].mean(axis=(0, 1)) for c in range(width - 2)] for r in range(height - 2)]
    )
    found = pooled_xyz(sample, side)
    for row in range(side):
        for column in range(side):
            block = means[adaptive_range(row, height - 2, side), adaptive_range(column, width - 2, side)]
            np.testing.assert_allclose(found[:, row, column], block.mean(axis=(0, 1)), rtol=1e-4, atol=1e-5)


def test_a_grid_finer_than_the_image_repeats_the_mean_of_a_pixel() -> None:
    sample = make_features(seed=3)
    side = 2 * (sample.foreground.shape[0] - 2)
    coarse = pooled_xyz(sample, side // 2)
    torch.testing.assert_close(pooled_xyz(sample, side)[:, ::2, ::2], coarse)


def test_object_cells_are_read_as_for_patchcore_and_all_cells_are_all() -> None:
    sample = make_features(seed=1)
    ours, plain = read_grid(sample, GridBankConfig(grid_side=5), 5), read_patches(sample, 5)
    assert torch.equal(ours.rgb, plain.rgb) and torch.equal(ours.xyz, plain.xyz)
    every = read_grid(sample, ALL, None)
    assert every.cells.all() and every.rgb.shape == (49, 3)
    assert torch.equal(every.rgb[9], sample.rgb_tokens[:, 1, 2])
    twice = read_grid(sample, ALL, 14).rgb.view(14, 14, 3)  # a finer grid repeats tokens
    assert torch.equal(twice[5, 8], sample.rgb_tokens[:, 2, 4])


def test_quantized_blur_is_pillows_on_gray_values_cut_to_whole_numbers() -> None:
    anomaly_map = torch.rand(23, 31, generator=torch.Generator().manual_seed(0)) * 7
    largest = float(anomaly_map.max())
    gray = np.zeros((23, 31), dtype=np.uint8)
    for row in range(23):
        for column in range(31):
            gray[row, column] = int(np.float32(anomaly_map[row, column] / largest) * np.float32(255))
    expected = np.asarray(Image.fromarray(gray).filter(ImageFilter.GaussianBlur(4)), dtype=np.float64) / 255 * largest
    np.testing.assert_allclose(quantized_blur(anomaly_map, 4), expected, rtol=1e-6)
    assert len(quantized_blur(anomaly_map, 4).unique()) <= 256
    assert quantized_blur(torch.zeros(3, 5), 4).eq(0).all()


def test_a_faint_defect_beside_a_strong_one_is_lost_in_the_released_blur() -> None:
    anomaly_map = torch.zeros(64, 64)
    anomaly_map[10, 10], anomaly_map[50:56, 50:56] = 1000.0, 2.0
    assert quantized_blur(anomaly_map, 4)[45:, 45:].eq(0).all()


def test_the_released_map_is_not_cut_to_the_object() -> None:
    sample = make_features(seed=2)
    patch_set = read_grid(sample, ALL, 5)
    distances = torch.rand(25, generator=torch.Generator().manual_seed(1))
    found = grid_map(distances, patch_set, ALL)
    assert torch.equal(found, quantized_blur(bilinear_resize(distances.view(5, 5), 28), 4))
    assert found[~sample.foreground].max() > 0
    ours = read_patches(sample, 5)
    values = distances[: len(ours.rgb)]
    assert torch.equal(grid_map(values, ours, GridBankConfig()), dense_map(values, ours, 4.0))


def test_image_score_of_a_bank_follows_the_settings() -> None:
    sample = make_features(seed=2)
    patch_set = read_patches(sample, 5)
    bank = patch_set.rgb[::2] + 0.1
    by_patch = bank_prediction(patch_set.rgb, bank, patch_set, GridBankConfig(reweight_rows=None))
    assert by_patch.image_score == pytest.approx(
        float(torch.cdist(patch_set.rgb, bank).min(dim=1).values.max()), rel=1e-4
    )
    by_map = bank_prediction(patch_set.rgb, bank, patch_set, GridBankConfig(image_score="map", reweight_rows=None))
    assert by_map.image_score == float(by_map.anomaly_map.max())


@pytest.mark.parametrize("change", [{"cells": "some"}, {"blur": "box"}])
def test_settings_that_cannot_work_are_refused(change: dict) -> None:
    with pytest.raises(InputError, match="is unknown"):
        GridBankConfig(**change)


def drawn_tables(seed: int = 0, columns: int = 700) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(rows, columns, generator=generator) for rows in (7, 1, 13, 5)]


def test_lazy_tables_are_read_anew_but_for_those_that_fit() -> None:
    tables, reads = drawn_tables(), []
    lazy = ReadOnAccess(range(4), lambda number: reads.append(number) or tables[number], kept_bytes=8 * 700 * 4)
    assert len(lazy) == 4
    for _ in range(2):
        assert [len(table) for table in lazy] == [7, 1, 13, 5]
    assert reads == [0, 1, 2, 3, 2, 3]  # the first two, of 8 rows, were kept


def test_rows_are_gathered_without_the_joined_table() -> None:
    tables = drawn_tables()
    indices = torch.tensor([25, 0, 7, 8, 6, 20, 21, 0])
    assert torch.equal(gathered(tables, indices), torch.cat(tables)[indices])


@pytest.mark.parametrize("eps", [0.9, None])
def test_a_bank_of_tables_is_that_of_the_joined_rows(eps: float | None) -> None:
    tables = drawn_tables()
    config = PatchCoreConfig(coreset_fraction=0.4, projection_eps=eps)
    joined = torch.cat(tables)
    projected = joined if eps is None else project(joined, eps, seed=3)
    assert (projected.shape[1] < 700) == (eps is not None)
    torch.testing.assert_close(project_tables(tables, eps, seed=3), projected)
    found = coreset_bank(ReadOnAccess(tables, lambda table: table), config, seed=3)
    assert torch.equal(found, joined[greedy_coreset(projected, 10)])
    assert torch.equal(coreset_bank(tables, dataclasses.replace(config, coreset_fraction=1.0), 3), joined)
    assert len(coreset_bank(tables, config, 3, num_selected=4)) == 4


def test_statistics_of_tables_are_those_of_all_values() -> None:
    tables = drawn_tables()
    values = torch.cat([table.flatten() for table in tables]).double()
    mean, std = table_statistics(tables)
    assert mean == pytest.approx(float(values.mean()), abs=1e-6)
    assert std == pytest.approx(float(values.std(correction=0)), rel=1e-6)
    assert table_statistics([torch.full((2, 3), 4.0)]) == (4.0, 1.0)


def test_a_bank_that_will_not_fit_the_gpu_is_told_with_a_grid_that_would(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patch_bank, "free_gpu_gb", lambda device: 1.0)
    config = PatchCoreConfig(grid_side=56, projection_eps=None)
    patch_bank.check_bank_memory(1000, 20, config, torch.device("cuda"))
    told = r"100,000 patches needs about 1\.3 GB .* 1\.0 GB are free; set grid_side: 49 .* or device: cpu"
    with pytest.raises(InputError, match=told):
        patch_bank.check_bank_memory(100_000, 1000, config, torch.device("cuda"))
    monkeypatch.setattr(patch_bank, "free_gpu_gb", lambda device: 1e-6)
    with pytest.raises(InputError, match="a memory bank of 50 patches"):
        coreset_bank([torch.zeros(10, 7)] * 5, config, seed=0)


def test_the_quantized_blur_takes_no_other_radius() -> None:
    with pytest.raises(InputError, match="radius of its own"):
        GridBankConfig(blur="quantized", blur_sigma_px=2.0)
