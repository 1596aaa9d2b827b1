"""What adaptation does to features: which patches are defective, how well they stand out, and the figures."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch
from matplotlib import pyplot as plt

from lib import adaptation_pictures as pictures
from lib.features import Features
from lib.heads.adaptation import Adaptors
from lib.methods import LSFAConfig
from lib.patches import PatchSet, read_patches
from tests.factories import make_features

SIDE = 7


@pytest.fixture(autouse=True)
def clean_canvas() -> Iterator[None]:
    plt.switch_backend("agg")
    yield
    plt.close("all")


def defective(seed: int, defect: str, rows: slice, columns: slice) -> Features:
    """A made-up test sample with a rectangular defect."""
    sample = make_features(seed)
    mask = torch.zeros_like(sample.foreground)
    mask[rows, columns] = True
    return replace(sample, sample_id=f"test/{defect}/{seed:03d}", gt_mask=mask, label=1)


def shown_samples() -> tuple[list[Features], list[PatchSet]]:
    samples = [replace(make_features(0), sample_id="test/good/000"), defective(1, "cut", slice(9, 14), slice(8, 10))]
    samples.append(defective(2, "stain", slice(20, 21), slice(21, 22)))
    return samples, [read_patches(sample, SIDE) for sample in samples]


@pytest.mark.parametrize("cells", [(7, 7), (4, 14), (5, 3)])
def test_defect_cells_against_a_loop(cells: tuple[int, int]) -> None:
    generator = torch.Generator().manual_seed(0)
    mask = torch.rand(28, 28, generator=generator) > 0.97
    inside = torch.rand(*cells, generator=generator) > 0.3
    expected = torch.zeros(cells, dtype=torch.bool)
    for row, column in mask.nonzero().tolist():
        expected[row * cells[0] // 28, column * cells[1] // 28] = True
    found = pictures.defect_cells(mask, inside)
    assert found.any()
    assert torch.equal(found, expected[inside])


def test_patch_kinds_tell_good_defect_and_beside() -> None:
    samples, patch_sets = shown_samples()
    kinds = pictures.patch_kinds(samples, patch_sets)
    parts = np.split(kinds, np.cumsum([len(patch_set.rgb) for patch_set in patch_sets])[:-1])
    assert [sorted(set(part)) for part in parts] == [["good"], ["beside", "cut"], ["beside", "stain"]]
    assert [(part == kind).sum() for part, kind in zip(parts[1:], ("cut", "stain"), strict=True)] == [2, 1]


def test_bank_distances_against_all_pairs() -> None:
    _, patch_sets = shown_samples()
    bank = torch.randn(11, 5, generator=torch.Generator().manual_seed(3))
    found = pictures.bank_distances(patch_sets, "xyz", bank)
    rows = torch.cat([patch_set.xyz for patch_set in patch_sets])
    torch.testing.assert_close(found, torch.cdist(rows, bank).min(dim=1).values, rtol=1e-4, atol=1e-5)


def test_patch_auroc_counts_pairs_and_leaves_out_patches_beside_a_defect() -> None:
    kinds = np.array(["good", "cut", "beside", "good", "stain", "cut"])
    distances = torch.tensor([1.0, 2.0, 99.0, 3.0, 0.0, 3.0])
    assert pictures.patch_auroc(distances, kinds) == {"cut": (1 + 0 + 1 + 0.5) / 4, "stain": 0.0}


def test_disagreement_is_the_cosine_distance_of_the_projections() -> None:
    adaptors = Adaptors(LSFAConfig(num_heads=1, projection_dim=4), 3, 5, seed=0).requires_grad_(False)
    patch_set = shown_samples()[1][0]
    found = pictures.disagreement(adaptors, patch_set)
    first = patch_set.rgb @ adaptors.rgb_projection.weight.T + adaptors.rgb_projection.bias
    second = patch_set.xyz @ adaptors.xyz_projection.weight.T + adaptors.xyz_projection.bias
    expected = [1 - float(a @ b / (a.norm() * b.norm())) for a, b in zip(first, second, strict=True)]
    torch.testing.assert_close(found, torch.tensor(expected))


def test_patch_pictures_color_equal_patches_alike_and_leave_the_rest_white() -> None:
    _, patch_sets = shown_samples()
    found = pictures.patch_pictures([*patch_sets, patch_sets[0]], "xyz")
    np.testing.assert_array_equal(found[0], found[-1])
    for patch_set, picture in zip(patch_sets, found, strict=False):
        assert picture.shape == (28, 28, 3)
        off = ~patch_set.cells.numpy().repeat(4, axis=0).repeat(4, axis=1)
        assert (picture[off] == 1).all()


def test_plane_is_that_of_normal_patches_whatever_is_shown() -> None:
    _, patch_sets = shown_samples()
    generator = torch.Generator().manual_seed(4)
    spread = torch.tensor([1.0, 30.0, 0.1, 7.0, 2.0])
    train = [replace(p, xyz=torch.randn(50, 5, generator=generator) * spread + 5) for p in patch_sets]
    points = pictures.plane_points(train, patch_sets, "xyz")
    normal, shown = (torch.cat([p.xyz for p in part]).double().numpy() for part in (train, patch_sets))
    _, _, axes = np.linalg.svd(normal - normal.mean(axis=0), full_matrices=False)
    expected = (shown - normal.mean(axis=0)) @ axes[:2].T
    np.testing.assert_allclose(np.abs(points), np.abs(expected), atol=1e-6)
    np.testing.assert_array_equal(pictures.plane_points(train, patch_sets[:1], "xyz"), points[: len(patch_sets[0].xyz)])


def history() -> dict[str, list[float]]:
    return {
        "la": [3.0, 2.0, 2.0, 1.0],
        "gc": [9.0, 4.0],
        "rank_rgb": [5.0, 4.0],
        "rank_xyz": [6.0, 5.0],
        "scale_rgb": [1.0, 2.0],
        "scale_xyz": [2.0, 3.0],
    }


def test_losses_have_panels_of_their_own_and_end_together() -> None:
    axes = pictures.loss_panels(history(), 8, {"la": {"floor": 0.5}}).axes
    assert [axis.get_title() for axis in axes] == ["LA: local alignment", "GC: global compactness"]
    assert [list(axis.lines[0].get_xdata()) for axis in axes] == [[2, 4, 6, 8], [6, 8]]
    assert [len(axis.lines) for axis in axes] == [2, 1]
    assert [text.get_text() for text in axes[0].texts] == ["floor"]


def test_collapse_panels_show_both_modalities_from_epoch_0() -> None:
    axes = pictures.collapse_panels(history()).axes
    assert [[list(line.get_ydata()) for line in axis.lines] for axis in axes] == [[[5, 4], [6, 5]], [[1, 2], [2, 3]]]
    assert axes[0].lines[0].get_xdata()[0] == 0


def test_plane_panels_draw_every_group_and_cut_far_points_off() -> None:
    points = np.random.default_rng(0).normal(size=(400, 2))
    points[0] = 1000.0
    groups = {"good": np.arange(300), "defect": np.arange(300, 400)}
    axes = pictures.plane_panels({"a": points, "b": 2 * points}, groups).axes
    assert [axis.get_title() for axis in axes] == ["a", "b"]
    assert [len(part.get_offsets()) for part in axes[0].collections] == [300, 100]
    assert axes[0].get_xlim()[1] < 10
