"""First-in-first-out banks against a deque, and their constant memory."""

from __future__ import annotations

from collections import deque

import numpy as np
import pytest
import torch

from lib.errors import InputError
from lib.fifo import FIFOBank


@pytest.mark.parametrize("capacity", [1, 2, 7, 20])
@pytest.mark.parametrize("largest_batch", [1, 3, 45])
def test_rows_are_those_of_a_deque(capacity: int, largest_batch: int) -> None:
    bank, queue = FIFOBank(capacity, dim=3), deque(maxlen=capacity)
    draw = np.random.default_rng([capacity, largest_batch])
    for start in range(0, 3000, 100):
        size = int(draw.integers(largest_batch + 1))
        rows = torch.arange(start, start + size).float()[:, None].expand(-1, 3) + torch.tensor([0.0, 0.1, 0.2])
        bank.push(rows)
        queue.extend(tuple(row) for row in rows.tolist())
        assert [tuple(row) for row in bank.oldest_first().tolist()] == list(queue)
        assert sorted(map(tuple, bank.rows.tolist())) == sorted(queue)
        assert bank.is_full == (len(queue) == capacity) and bank.capacity == capacity


def test_an_empty_bank_holds_nothing() -> None:
    bank = FIFOBank(5, dim=3)
    assert bank.rows.shape == bank.oldest_first().shape == (0, 3) and not bank.is_full


def test_of_more_rows_than_fit_the_last_are_kept() -> None:
    bank = FIFOBank(3, dim=1)
    bank.push(torch.tensor([[9.0]]))
    bank.push(torch.arange(5.0)[:, None])
    assert bank.oldest_first().flatten().tolist() == [2.0, 3.0, 4.0]
    bank.push(torch.tensor([[7.0]]))
    assert bank.oldest_first().flatten().tolist() == [3.0, 4.0, 7.0]


def test_memory_is_that_of_the_first_day() -> None:
    bank = FIFOBank(7, dim=3)
    storage = bank.rows.untyped_storage()
    place = storage.data_ptr()
    for seed in range(9):
        bank.push(torch.randn(4, 3, generator=torch.Generator().manual_seed(seed)))
        assert bank.rows.data_ptr() == place and bank.rows.untyped_storage().nbytes() == 7 * 3 * 4
    assert len(bank.rows) == 7


def test_rows_are_a_view_and_the_copy_is_not() -> None:
    bank = FIFOBank(2, dim=1)
    bank.push(torch.tensor([[1.0], [2.0]]))
    view, copy = bank.rows, bank.oldest_first()
    bank.push(torch.tensor([[3.0]]))
    assert sorted(view.flatten().tolist()) == [2.0, 3.0] and copy.flatten().tolist() == [1.0, 2.0]
    part = FIFOBank(5, dim=1)
    part.push(torch.tensor([[1.0]]))
    copy = part.oldest_first()
    part.rows.zero_()
    assert copy.tolist() == [[1.0]]


def test_rows_carry_no_gradient_and_keep_none_alive() -> None:
    bank, rows = FIFOBank(3, dim=2), torch.ones(2, 2, requires_grad=True)
    bank.push(rows * 2)
    assert not bank.rows.requires_grad and not bank.oldest_first().requires_grad
    bank.rows.add_(1)
    assert rows.eq(1).all()


@pytest.mark.parametrize("capacity", [0, -3])
def test_a_bank_without_room_is_refused(capacity: int) -> None:
    with pytest.raises(InputError, match=f"FIFOBank: capacity is {capacity}; give a whole number of at least 1"):
        FIFOBank(capacity, dim=2)
