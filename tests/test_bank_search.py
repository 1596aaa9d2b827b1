"""Nearest bank rows against double loops over the difference."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from lib import bank_search
from lib.bank_search import k_nearest_rows, nearest_distances, nearest_rows


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def nearest(queries: Tensor, bank: Tensor) -> Tensor:
    return nearest_distances(queries, bank, {"all": slice(None)}, ("all",))["all"]


def looped_rows(queries: Tensor, bank: Tensor) -> list[int]:
    """First of the nearest rows of each query, one difference at a time in float64."""
    return [min(range(len(bank)), key=lambda row: (q - bank[row].double()).square().sum()) for q in queries.double()]


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bank_search, "QUERIES_PER_BLOCK", 7)
    monkeypatch.setattr(bank_search, "BANK_ROWS_PER_BLOCK", 4)


@pytest.mark.usefixtures("small_blocks")
def test_nearest_distance_matches_the_double_loop() -> None:
    generator = torch.Generator().manual_seed(0)
    queries, bank = torch.randn(300, 5, generator=generator), torch.randn(31, 5, generator=generator)
    slow = torch.stack([min((query - row).norm() for row in bank) for query in queries])
    torch.testing.assert_close(nearest(queries, bank), slow)
    parts = {"rgb": slice(0, 2), "xyz": slice(2, 5)}
    found = nearest_distances(queries, bank, parts, ("xyz", "concat"))
    torch.testing.assert_close(found["concat"], slow)
    torch.testing.assert_close(found["xyz"], nearest(queries[:, 2:], bank[:, 2:]))


def test_a_query_in_the_bank_is_at_distance_zero_even_far_from_the_origin() -> None:
    bank = torch.randn(13, 3, generator=torch.Generator().manual_seed(1)) + 1000
    assert nearest(bank, bank).eq(0).all()


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 9, 3), (8, 1, 3), (29, 4, 2), (15, 31, 11)])
def test_rows_match_the_double_loop_whatever_the_blocks(shape: tuple[int, int, int]) -> None:
    num_queries, num_rows, dim = shape
    queries, bank = drawn(num_queries, dim, seed=2), drawn(num_rows, dim, seed=3)
    found = nearest_rows(queries, bank)
    assert found.dtype == torch.int64
    assert found.tolist() == looped_rows(queries, bank)


@pytest.mark.usefixtures("small_blocks")
def test_the_first_of_equally_near_rows_wins_across_blocks() -> None:
    # the mean row is 0, so that no rounding can break a tie
    square = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])
    bank = square.repeat(3, 1)
    queries = torch.tensor([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [-1.0, 0.0], [0.5, -2.0]])
    assert nearest_rows(queries, bank).tolist() == [0, 0, 0, 2, 1]
    assert looped_rows(queries, bank) == [0, 0, 0, 2, 1]


def test_a_view_into_a_larger_tensor_is_searched_to_its_own_end() -> None:
    buffer = torch.full((50, 5), torch.nan)
    buffer[:23] = drawn(23, 5)
    queries = drawn(17, 5, seed=1)
    assert nearest_rows(queries, buffer[:23]).tolist() == looped_rows(queries, buffer[:23])


def test_rows_carry_no_gradient_and_leave_none_behind() -> None:
    queries, bank = drawn(7, 3).requires_grad_(), drawn(5, 3, seed=1).requires_grad_()
    found = nearest_rows(queries, bank)
    assert not found.requires_grad
    assert queries.grad is None and bank.grad is None


def test_memory_does_not_grow_with_the_bank(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []
    original = torch.addmm

    def addmm(*args: Tensor, **keywords: float) -> Tensor:
        table = original(*args, **keywords)
        sizes.append(table.numel())
        return table

    monkeypatch.setattr(torch, "addmm", addmm)
    nearest_rows(drawn(1101, 2), drawn(9001, 2, seed=1))
    assert max(sizes) == bank_search.QUERIES_PER_BLOCK * bank_search.BANK_ROWS_PER_BLOCK
    assert sum(sizes) == 1101 * 9001


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("num", [1, 2, 5, 19, 40])
def test_k_nearest_rows_match_a_sorted_loop(num: int) -> None:
    bank, query = drawn(19, 3), drawn(3, seed=1)
    slow = sorted(range(19), key=lambda row: (float((bank[row].double() - query.double()).norm()), row))
    assert k_nearest_rows(query, bank, num).tolist() == slow[:num]


@pytest.mark.usefixtures("small_blocks")
def test_k_nearest_rows_take_duplicates_in_order() -> None:
    bank = torch.tensor([[3.0], [1.0], [3.0], [0.0], [3.0], [1.0], [5.0]])
    assert k_nearest_rows(torch.tensor([3.0]), bank, 6).tolist() == [0, 2, 4, 1, 5, 6]
