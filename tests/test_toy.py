"""The toy world: its law, the four cases that keep or break it, and the maps that make a point about thresholds."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lib import toy
from lib.errors import InputError
from lib.heads.cfm import CFM
from lib.instances import CFM_TOY
from lib.pixel_metrics import aupro, pro_curve
from lib.toy import COLORS, DEFECT_TILE, RELIEFS, SECOND_COLORS, SIDE, TILE, toy_board

SEEDS = range(12)
MEAN_TOLERANCE = 0.03  # six standard errors of the mean of one tile


def tile_means(board: toy.Features) -> tuple[np.ndarray, np.ndarray]:
    """Mean color and relief code (3, 3, 3) of each tile."""
    relief = board.xyz_tokens.T.reshape(3, SIDE, SIDE)
    both = [t.reshape(3, 3, TILE, 3, TILE).mean(dim=(2, 4)).permute(1, 2, 0) for t in (board.rgb_tokens, relief)]
    return both[0].numpy(), both[1].numpy()


def kinds(tiles: np.ndarray, palette: np.ndarray) -> np.ndarray:
    """(3, 3) index of each tile in the palette, -1 where it is none of them."""
    far = np.abs(tiles[..., None, :] - palette).max(axis=-1)
    return np.where(far.min(axis=-1) < MEAN_TOLERANCE, far.argmin(axis=-1), -1)


def board_kinds(seed: int, case: str = "nominal", two_colors: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Kinds of a board's tiles by color, 3 for orange, and by relief."""
    colors, reliefs = tile_means(toy_board(np.random.default_rng(seed), case, two_colors))
    return kinds(colors, np.concatenate([COLORS, SECOND_COLORS[:1]])), kinds(reliefs, RELIEFS)


def off_the_middle(values: np.ndarray) -> np.ndarray:
    """The eight tiles that no case changes."""
    kept = np.ones((3, 3), dtype=bool)
    kept[DEFECT_TILE] = False
    return values[kept]


@pytest.mark.parametrize("seed", SEEDS)
def test_nominal_boards_obey_the_law(seed: int) -> None:
    colors, reliefs = board_kinds(seed)
    np.testing.assert_array_equal(colors, reliefs)
    assert (colors >= 0).all()


@pytest.mark.parametrize("case", toy.CASES[1:])
@pytest.mark.parametrize("seed", SEEDS)
def test_only_the_middle_tile_breaks_the_law(seed: int, case: str) -> None:
    colors, reliefs = board_kinds(seed, case)
    np.testing.assert_array_equal(off_the_middle(colors), off_the_middle(reliefs))
    color, relief = colors[DEFECT_TILE], reliefs[DEFECT_TILE]
    assert (color == -1) == (case == "color anomaly")
    assert (relief == -1) == (case == "shape anomaly")
    if case == "wrong co-occurrence":
        assert {color, relief} == {1, 2}  # each of them nominal, the pair never seen


def test_two_colors_law_is_one_to_many_for_domes_only() -> None:
    found = [board_kinds(seed, two_colors=True) for seed in range(30)]
    colors, reliefs = (np.concatenate([pair[i].ravel() for pair in found]) for i in (0, 1))
    assert set(colors[reliefs == 0]) == {0, 3}
    assert 0.3 < np.mean(colors[reliefs == 0] == 3) < 0.7
    np.testing.assert_array_equal(colors[reliefs > 0], reliefs[reliefs > 0])


def test_boards_are_whole_samples() -> None:
    board = toy_board(np.random.default_rng(3), "shape anomaly")
    assert board.label == 1 and board.sample_id == "toy/shape anomaly/000"
    assert board.gt_mask.sum() == TILE**2 and board.gt_mask[TILE : 2 * TILE, TILE : 2 * TILE].all()
    rgb, xyz = board.at_pixels()
    torch.testing.assert_close(rgb, board.rgb_tokens.flatten(1).T)
    torch.testing.assert_close(xyz, board.xyz_tokens)
    nominal = toy_board(np.random.default_rng(3))
    assert nominal.label == 0 and not nominal.gt_mask.any()


def test_boards_depend_on_the_generator_alone() -> None:
    first, again, other = (toy.toy_training_set(np.random.default_rng(seed), 2) for seed in (1, 1, 2))
    assert all(torch.equal(a.rgb_tokens, b.rgb_tokens) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first[0].rgb_tokens, first[1].rgb_tokens)
    assert not torch.equal(first[0].rgb_tokens, other[0].rgb_tokens)


def test_unknown_case_and_kind_list_the_known() -> None:
    with pytest.raises(InputError, match="toy case 'dent' is unknown; choose one of nominal, color anomaly"):
        toy_board(np.random.default_rng(0), "dent")
    board = toy_board(np.random.default_rng(0))
    with pytest.raises(InputError, match="kind of tiles 'corner' is unknown; choose one of middle, domes"):
        toy.toy_tile_means(board, torch.zeros(SIDE, SIDE), torch.zeros(SIDE, SIDE), "corner")


def test_pictures_show_both_modalities_in_range() -> None:
    board = toy_board(np.random.default_rng(0))
    color_picture, relief_picture = toy.toy_pictures(board)
    for picture in (color_picture, relief_picture):
        assert picture.shape == (SIDE, SIDE, 3) and picture.min() >= 0 and picture.max() <= 1
    pixel = board.rgb_tokens[:, 5, 7].numpy()
    np.testing.assert_allclose(color_picture[5, 7], np.clip(0.5 + 0.45 * pixel, 0, 1), rtol=1e-6)
    np.testing.assert_allclose(relief_picture[5, 7], 0.15 + 0.7 * board.xyz_tokens[5 * SIDE + 7].numpy(), rtol=1e-6)


def test_tile_means_by_hand() -> None:
    board = toy_board(np.random.default_rng(4), "color anomaly")
    psi_2d, psi_3d = board.gt_mask * 2.0, torch.full((SIDE, SIDE), 0.5)
    assert toy.toy_tile_means(board, psi_2d, psi_3d) == {"psi_2d": 2.0, "psi_3d": 0.5, "product": 1.0}
    domes = toy.toy_tile_means(board, psi_2d, psi_3d, "domes")
    assert domes == {"psi_2d": 0.0, "psi_3d": 0.5, "product": 0.0}  # the changed tile is never a dome


def test_cfm_learns_the_law_and_sees_what_breaks_it() -> None:
    head = CFM(CFM_TOY, rgb_dim=3, xyz_dim=3)
    head.fit(toy.toy_training_set(np.random.default_rng(0), 12), seed=0)
    means = {case: [] for case in toy.CASES}
    for case in toy.CASES:
        for seed in range(100, 104):
            board = toy_board(np.random.default_rng(seed), case)
            means[case].append(toy.toy_tile_means(board, *head.discrepancies(board))["product"])
    assert min(min(values) for case, values in means.items() if case != "nominal") > 5 * max(means["nominal"])


def test_nearly_perfect_maps_show_what_99_thresholds_cost() -> None:
    generator = np.random.default_rng(0)
    gt_masks = np.zeros((7, 41, 37), dtype=bool)
    gt_masks[1::2, 10:19, 12:23] = True
    maps = toy.nearly_perfect_maps(gt_masks, generator)
    assert maps.dtype == np.float32 and maps.shape == gt_masks.shape
    hot = (maps >= maps[gt_masks].min()) & ~gt_masks
    assert hot.sum() == 1 and hot[0].any()
    assert aupro(pro_curve(gt_masks, maps), 0.01) > 0.98
    assert aupro(pro_curve(gt_masks, maps, 99), 0.01) == pytest.approx(0.49, abs=0.02)
    assert aupro(pro_curve(gt_masks, maps, 99), 0.3) > 0.95
