import pytest
import torch
from torch.nn import functional

from lib.sampling import bilinear_corners, column_statistics, pixel_cells


@pytest.mark.parametrize(("image", "grid"), [((7, 11), (3, 5)), ((13, 9), (13, 9)), ((5, 6), (8, 7)), ((9, 4), (1, 2))])
def test_bilinear_corners_read_what_interpolate_gives(image, grid):
    tokens = torch.randn(2, *grid, generator=torch.Generator().manual_seed(1))
    dense = functional.interpolate(tokens[None], size=image, mode="bilinear", align_corners=False)[0].flatten(1)
    pixels = torch.arange(image[0] * image[1])
    corners, shares = bilinear_corners(pixels, image, grid)
    read = (tokens.flatten(1)[:, corners] * shares).sum(dim=2)
    torch.testing.assert_close(read, dense, atol=1e-6, rtol=0)
    torch.testing.assert_close(shares.sum(dim=1), torch.ones(len(pixels)))


def test_pixel_cells_by_hand():
    # 4 x 6 pixels, 2 x 3 cells of 2 x 2 pixels
    cells = pixel_cells(torch.arange(24), (4, 6), (2, 3)).reshape(4, 6)
    assert cells.tolist() == [[0, 0, 1, 1, 2, 2]] * 2 + [[3, 3, 4, 4, 5, 5]] * 2


def test_pixel_cells_cover_every_cell_of_a_coarser_grid_in_order():
    cells = pixel_cells(torch.arange(7 * 11), (7, 11), (3, 4)).reshape(7, 11)
    assert sorted(cells.unique().tolist()) == list(range(12))
    assert (cells.diff(dim=0) >= 0).all()
    assert (cells.diff(dim=1) >= 0).all()


def test_column_statistics_equal_those_of_one_table_despite_a_large_mean():
    table = torch.randn(37, 5, generator=torch.Generator().manual_seed(2)) + 1e4
    table[:, 3] = 7.5
    mean, std = column_statistics(iter(table.split((3, 1, 20, 13))))
    torch.testing.assert_close(mean, table.double().mean(dim=0).float())
    expected = table.double().std(dim=0, correction=0).float()
    assert std[3] == 1  # constant: nothing to divide by
    torch.testing.assert_close(std[[0, 1, 2, 4]], expected[[0, 1, 2, 4]])
