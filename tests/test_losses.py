"""LSFA's losses against loops in float64 and tensors by hand; CFM's two distances are tested in test_cfm.py."""

from __future__ import annotations

import math
from itertools import permutations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from lib import losses
from lib.losses import compactness, crossmodal_contrast, effective_rank, row_logsumexp

FORMS = ["joint", "rows"]


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def looped_contrast(first: Tensor, second: Tensor, temperature: float, softmax: str) -> Tensor:
    """The contrast pair by pair, in float64."""
    number = len(first)
    raised = [[(first[i] @ second[j] / temperature).exp() for j in range(number)] for i in range(number)]
    total = torch.zeros((), dtype=torch.float64)
    for i in range(number):
        if softmax == "joint":
            total -= torch.log(raised[i][i] / sum(raised[t][k] for t in range(number) for k in range(number)))
        else:
            total -= 2 * temperature * torch.log(raised[i][i] / sum(raised[i][k] for k in range(number)))
            total -= 2 * temperature * torch.log(raised[i][i] / sum(raised[t][i] for t in range(number)))
    return total / number


@pytest.mark.parametrize("rows_per_block", [1, 3, 2048])
@pytest.mark.parametrize("temperature", [0.07, 0.5, 1.0, 4.0])
@pytest.mark.parametrize("softmax", FORMS)
def test_contrast_and_its_gradient_match_the_loop(
    monkeypatch: pytest.MonkeyPatch, softmax: str, temperature: float, rows_per_block: int
) -> None:
    monkeypatch.setattr(losses, "ROWS_PER_BLOCK", rows_per_block)
    pair = [F.normalize(drawn(7, 3, seed=seed), dim=1).requires_grad_() for seed in (1, 2)]
    slow_pair = [rows.detach().double().requires_grad_() for rows in pair]
    found = crossmodal_contrast(*pair, temperature, softmax)
    expected = looped_contrast(*slow_pair, temperature, softmax)
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-5)
    found.backward()
    expected.backward()
    for rows, slow_rows in zip(pair, slow_pair, strict=True):
        torch.testing.assert_close(rows.grad.double(), slow_rows.grad, rtol=1e-4, atol=1e-5)


def test_tables_of_logits_are_kept_no_larger_than_a_block(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(losses, "ROWS_PER_BLOCK", 4)
    seen, real = [], losses.checkpoint

    def recorded(block: object, rows: Tensor, **settings: bool) -> Tensor:
        seen.append(len(rows))
        return real(block, rows, **settings)

    monkeypatch.setattr(losses, "checkpoint", recorded)
    row_logsumexp(drawn(4, 3), drawn(11, 3), 1.0)
    assert seen == []
    row_logsumexp(drawn(11, 3), drawn(5, 3), 1.0)
    assert seen == [4, 4, 3]


def test_row_logsumexp_survives_what_the_exponential_does_not() -> None:
    found = row_logsumexp(torch.tensor([[1000.0], [-1000.0]]), torch.tensor([[1.0], [2.0], [2.0]]), temperature=0.5)
    torch.testing.assert_close(found, torch.tensor([4000 + math.log(2), -2000.0]))


@pytest.mark.parametrize(("softmax", "factor"), [("joint", 1.0), ("rows", 4 * 0.5)])
def test_contrast_by_hand(softmax: str, factor: float) -> None:
    # Inner products 1 and 0 over a temperature of 1/2 are 2 and 0.
    expected = {"joint": math.log(2 * math.exp(2) + 2) - 2, "rows": math.log(math.exp(2) + 1) - 2}[softmax]
    found = crossmodal_contrast(torch.eye(2), torch.eye(2), 0.5, softmax)
    assert float(found) == pytest.approx(factor * expected, rel=1e-6)
    swapped = crossmodal_contrast(torch.eye(2), torch.eye(2).flip(0), 0.5, softmax)
    assert float(swapped) == pytest.approx(factor * (expected + 2), rel=1e-6)


@pytest.mark.parametrize("noise", [0.0, 0.05])
@pytest.mark.parametrize("softmax", FORMS)
def test_of_all_permutations_of_locations_the_identity_has_the_lowest_contrast(softmax: str, noise: float) -> None:
    first = F.normalize(drawn(5, 4, seed=3), dim=1)
    second = F.normalize(first + noise * drawn(5, 4, seed=4), dim=1)
    orders = map(list, permutations(range(5)))
    identity, *others = (float(crossmodal_contrast(first, second[order], 0.3, softmax)) for order in orders)
    assert len(others) == 119 and identity < min(others) - 1e-3


@pytest.mark.parametrize("softmax", FORMS)
def test_contrast_is_the_same_whichever_modality_and_row_comes_first(softmax: str) -> None:
    first, second = drawn(7, 3, seed=1), drawn(7, 3, seed=2)
    order = torch.randperm(7, generator=torch.Generator().manual_seed(5))
    expected = crossmodal_contrast(first, second, 0.7, softmax)
    torch.testing.assert_close(crossmodal_contrast(second, first, 0.7, softmax), expected)
    torch.testing.assert_close(crossmodal_contrast(first[order], second[order], 0.7, softmax), expected)


@pytest.mark.parametrize(("softmax", "lowest"), [("joint", math.log(11)), ("rows", 0.0)])
def test_contrast_of_well_separated_pairs_is_the_lowest_there_is(softmax: str, lowest: float) -> None:
    apart = crossmodal_contrast(torch.eye(11), torch.eye(11), 0.02, softmax)
    assert float(apart) == pytest.approx(lowest, abs=1e-5)
    for seed in range(20):
        first, second = drawn(11, 5, seed=seed), drawn(11, 5, seed=seed + 100)
        for temperature in (0.1, 1.0, 10.0):
            assert float(crossmodal_contrast(first, second, temperature, softmax)) > lowest


@pytest.mark.parametrize("softmax", FORMS)
def test_contrast_of_a_single_pair_is_zero(softmax: str) -> None:
    assert float(crossmodal_contrast(drawn(1, 3), drawn(1, 3, seed=1), 0.5, softmax)) == 0


def test_compactness_and_its_gradient_match_the_double_loop() -> None:
    features, bank = drawn(23, 5, seed=1).requires_grad_(), drawn(31, 5, seed=2)
    found = compactness(features, bank)
    gaps = [min((query.double() - row.double() for row in bank), key=torch.Tensor.norm) for query in features.detach()]
    torch.testing.assert_close(found.double(), torch.stack([gap.norm() for gap in gaps]))
    found.sum().backward()
    torch.testing.assert_close(features.grad.double(), torch.stack([gap / gap.norm() for gap in gaps]))


@pytest.mark.parametrize("shift", [0.0, 300.0])
def test_a_bank_that_holds_the_queries_gives_zero_and_no_pull(shift: float) -> None:
    features = (drawn(7, 5) + shift).requires_grad_()
    found = compactness(features, torch.cat([drawn(4, 5, seed=1) + shift, features.detach().flip(0)]))
    assert found.eq(0).all()
    found.mean().backward()
    assert features.grad.eq(0).all()


def test_the_bank_gets_no_gradient() -> None:
    features, bank = drawn(7, 5).requires_grad_(), drawn(3, 5, seed=1).requires_grad_()
    compactness(features, bank).sum().backward()
    assert bank.grad is None and features.grad.ne(0).any()


def test_compactness_to_a_single_row_is_the_distance_to_it() -> None:
    found = compactness(torch.tensor([[3.0, 4.0], [0.0, 1.0]]), torch.tensor([[0.0, 0.0]]))
    assert found.tolist() == [5.0, 1.0]


def rotation(size: int) -> Tensor:
    return torch.linalg.qr(drawn(size, size, seed=9))[0]


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e4])
@pytest.mark.parametrize(
    ("stretch", "rank"),
    [
        ([1.0, 1.0, 1.0, 1.0, 1.0], 5.0),
        ([1.0, 0.0, 0.0, 0.0, 0.0], 1.0),
        ([0.0, 1.0, 0.0, 1.0, 1.0], 3.0),
        ([3.0, 1.0, 0.0, 0.0, 0.0], 4 / 3**0.75),  # shares 3/4 and 1/4 of the singular values
    ],
)
def test_effective_rank_by_hand(stretch: list[float], rank: float, scale: float) -> None:
    axes = torch.diag(torch.tensor(stretch))
    rows = torch.cat([axes, -axes]) @ rotation(5) * scale
    assert effective_rank(rows) == pytest.approx(rank, rel=1e-4)
    assert effective_rank(rows + 7 * scale) == pytest.approx(rank, rel=1e-3)


@pytest.mark.parametrize("value", [0.0, 0.1, 1 / 3, -12345.678])
@pytest.mark.parametrize("number", [2, 7, 1000])
def test_effective_rank_of_equal_rows_is_zero(value: float, number: int) -> None:
    assert effective_rank(torch.full((number, 5), value) * torch.arange(1, 6)) == 0.0


def test_effective_rank_matches_singular_values() -> None:
    rows = drawn(37, 7, seed=6) @ drawn(7, 7, seed=7) + drawn(7, seed=8)
    values = torch.linalg.svdvals((rows - rows.mean(dim=0)).double())
    shares = (values / values.sum()).tolist()
    assert effective_rank(rows) == pytest.approx(math.exp(-sum(p * math.log(p) for p in shares)), rel=1e-5)


def test_effective_rank_of_two_rows_is_that_of_a_line() -> None:
    assert effective_rank(drawn(2, 300)) == pytest.approx(1.0, abs=1e-3)
