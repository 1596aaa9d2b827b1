"""Greedy coreset against the textbook loop in float64, index for index, and its projection."""

from __future__ import annotations

from itertools import combinations, pairwise, product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.random_projection import SparseRandomProjection
from torch import Tensor

from lib.coreset import greedy_coreset, project, rough_middle
from lib.errors import InputError


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def textbook(rows: Tensor, num_selected: int, start: int = 0) -> list[int]:
    """All differences in float64; of equally far rows that are not yet selected the first wins."""
    table = (rows.double()[:, None] - rows.double()).norm(dim=2)
    selected = [start]
    while len(selected) < num_selected:
        distances = table[:, selected].min(dim=1).values.tolist()
        free = [index for index in range(len(rows)) if index not in selected]
        selected.append(max(free, key=lambda index: distances[index]))
    return selected


@pytest.mark.parametrize("shape", [(1, 1), (2, 3), (17, 1), (29, 5), (31, 2), (43, 19), (23, 101)])
@pytest.mark.parametrize("offset", [0.0, 100.0])
def test_selection_is_the_textbooks_index_for_index(shape: tuple[int, int], offset: float) -> None:
    rows = drawn(*shape, seed=sum(shape)) + offset
    for start in {0, len(rows) // 3, len(rows) - 1}:
        expected = textbook(rows, len(rows), start)
        assert greedy_coreset(rows, len(rows), start).tolist() == expected
        part = -(-len(rows) // 4)
        assert greedy_coreset(rows, part, start).tolist() == expected[:part]


@pytest.mark.parametrize("offset", [(0, 0, 0), (70, -3, 11)])
def test_ties_on_a_lattice_go_to_the_first_row(offset: tuple[int, int, int]) -> None:
    lattice = torch.tensor(list(product(range(3), range(4), range(3))), dtype=torch.float32)
    rows = lattice[torch.randperm(len(lattice), generator=torch.Generator().manual_seed(3))] + torch.tensor(offset)
    assert greedy_coreset(rows, len(rows), 5).tolist() == textbook(rows, len(rows), 5)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(-2, 2)), min_size=1, max_size=14), st.data())
def test_duplicates_are_each_taken_once_in_the_textbooks_order(points: list, data: st.DataObject) -> None:
    rows = torch.tensor(points, dtype=torch.float32)
    start = data.draw(st.integers(0, len(rows) - 1))
    found = greedy_coreset(rows, len(rows), start).tolist()
    assert sorted(found) == list(range(len(rows)))
    assert found == textbook(rows, len(rows), start)


def test_no_duplicate_is_taken_twice_where_the_expansion_rounds() -> None:
    rows = (drawn(5, 7) * 1e3).repeat(6, 1)
    assert sorted(greedy_coreset(rows, len(rows)).tolist()) == list(range(30))


def cover_radius(rows: torch.Tensor, indices: torch.Tensor) -> float:
    """Largest distance of a row to its nearest selected row."""
    return float(torch.cdist(rows, rows[indices]).min(dim=1).values.max())


def test_cover_radius_never_grows_and_is_at_most_twice_the_best() -> None:
    rows = drawn(13, 3, seed=4)
    selected = greedy_coreset(rows, 13)
    radii = [cover_radius(rows, selected[:number]) for number in range(1, 14)]
    assert all(later <= earlier for earlier, later in pairwise(radii))
    assert radii[-1] == 0
    table = torch.cdist(rows.double(), rows.double())
    for number in (1, 2, 3):
        best = min(float(table[:, list(some)].min(dim=1).values.max()) for some in combinations(range(13), number))
        assert best - 1e-6 <= radii[number - 1] <= 2 * best + 1e-6


def test_cover_radius_by_hand() -> None:
    rows = torch.tensor([[0.0, 0.0], [3.0, 4.0], [0.0, 1.0], [3.0, 5.0]])
    assert cover_radius(rows, torch.tensor([0])) == pytest.approx(34**0.5)
    assert cover_radius(rows, torch.tensor([0, 1])) == 1


def test_middle_is_a_coordinate_that_occurs() -> None:
    rows = drawn(5000, 2) + torch.tensor([10.0, -3.0])
    middle = rough_middle(rows)
    assert all((rows[:, axis] == middle[axis]).any() for axis in range(2))
    torch.testing.assert_close(middle, torch.tensor([10.0, -3.0]), atol=0.2, rtol=0)


@pytest.mark.parametrize(("num_selected", "start"), [(0, 0), (6, 0), (2, 5), (2, -1)])
def test_selection_outside_the_rows_is_refused(num_selected: int, start: int) -> None:
    with pytest.raises(InputError, match="of 5 rows"):
        greedy_coreset(drawn(5, 2), num_selected, start)


def test_rows_of_few_columns_are_not_projected() -> None:
    for rows in (drawn(1, 3), drawn(41, 90)):
        assert torch.equal(project(rows, 0.9, seed=0), rows)


def test_projection_is_scikit_learns_at_the_johnson_lindenstrauss_dimension() -> None:
    rows = drawn(41, 300) + 1
    found = project(rows, 0.9, seed=7)
    expected = SparseRandomProjection(n_components=found.shape[1], random_state=7).fit_transform(rows.numpy())
    torch.testing.assert_close(found, torch.from_numpy(expected), rtol=1e-5, atol=1e-4)
    assert found.dtype == torch.float32
    assert found.shape[1] == 91  # 4 ln 41 / (0.9^2 / 2 - 0.9^3 / 3)
    assert torch.equal(found, project(rows, 0.9, seed=7))
    assert not torch.equal(found, project(rows, 0.9, seed=8))


def test_projection_keeps_distances_within_its_distortion() -> None:
    rows = drawn(41, 300)
    before, after = (torch.pdist(table).square() for table in (rows, project(rows, 0.9, seed=0)))
    assert (after / before).min() > 0.1 and (after / before).max() < 1.9
    assert (after / before).mean() == pytest.approx(1, abs=0.1)
