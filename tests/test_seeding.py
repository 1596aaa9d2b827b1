"""First weights under a seed, and a global generator that notices nothing."""

from __future__ import annotations

import pytest
import torch

from lib.seeding import torch_seed


def test_draws_depend_on_the_seed_alone() -> None:
    drawn = []
    for seed, before in ((3, 0), (3, 5), (4, 0)):
        torch.rand(before)
        with torch_seed(seed):
            drawn.append(torch.rand(7))
    assert torch.equal(drawn[0], drawn[1]) and not torch.equal(drawn[0], drawn[2])
    assert torch.equal(drawn[0], torch.rand(7, generator=torch.Generator().manual_seed(3)))


def test_outside_the_block_nothing_was_drawn() -> None:
    before = torch.random.get_rng_state()
    with torch_seed(1):
        torch.nn.Linear(3, 5)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_the_generator_goes_on_after_an_error_too() -> None:
    before = torch.random.get_rng_state()
    with pytest.raises(ZeroDivisionError), torch_seed(1):
        raise ZeroDivisionError(f"after {torch.rand(1)}")
    assert torch.equal(torch.random.get_rng_state(), before)


def test_blocks_nest() -> None:
    with torch_seed(1):
        first = torch.rand(2)
        with torch_seed(2):
            torch.rand(11)
        second = torch.rand(2)
    with torch_seed(1):
        assert torch.equal(torch.rand(2), first) and torch.equal(torch.rand(2), second)
