"""The flow against its own inverse and the full Jacobian; the position encoding and the student by hand."""

from __future__ import annotations

import math

import pytest
import torch

from lib.heads.flow import Flow, Student, position_encoding, token_map


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def busy_flow(channels: int, condition_channels: int = 4, kernels: tuple[int, ...] = (3, 1, 5), seed: int = 1) -> Flow:
    """A flow in float64 whose output scales are no longer 0."""
    flow = Flow(channels, condition_channels, 6, list(kernels), clamp=1.9, seed=seed).double()
    for number, coupling in enumerate(flow.couplings):
        coupling.on_first.gamma.data.fill_(0.7 + number)
        coupling.on_second.gamma.data.fill_(-1.3)
    return flow


@pytest.mark.parametrize("channels", [2, 5, 7])
def test_inverse_undoes_forward_and_forward_the_inverse(channels: int) -> None:
    flow, x, condition = busy_flow(channels), 3 * drawn(2, channels, 7, 11), drawn(2, 4, 7, 11, seed=1)
    with torch.no_grad():
        z, _ = flow(x, condition)
        torch.testing.assert_close(flow.inverse(z, condition), x, rtol=0, atol=1e-9)
        torch.testing.assert_close(flow(flow.inverse(x, condition), condition)[0], x, rtol=0, atol=1e-9)
    assert (z - x).abs().max() > 0.5


@pytest.mark.parametrize("channels", [2, 3])
def test_log_determinant_is_that_of_the_full_jacobian(channels: int) -> None:
    flow, condition = busy_flow(channels), drawn(1, 4, 3, 2, seed=1)
    x = drawn(1, channels, 3, 2)
    jacobian = torch.autograd.functional.jacobian(lambda value: flow(value, condition)[0], x)
    expected = torch.linalg.slogdet(jacobian.reshape(x.numel(), x.numel())).logabsdet
    log_det = flow(x, condition)[1].detach()
    assert log_det.shape == (1, 3, 2)
    assert float(log_det.sum()) == pytest.approx(float(expected), abs=1e-9)


def test_it_starts_as_the_permutations_alone() -> None:
    flow, x = Flow(5, 4, 6, [3, 3], clamp=1.9, seed=2), drawn(1, 5, 3, 4).float()
    z, log_det = flow(x, torch.zeros(1, 4, 3, 4))
    assert torch.equal(z, x[:, flow.orders[0]][:, flow.orders[1]]) and log_det.eq(0).all()
    assert all(order.sort().values.tolist() == list(range(5)) for order in flow.orders)


def test_log_scales_stay_within_the_clamp() -> None:
    flow = busy_flow(4)
    for coupling in flow.couplings:
        coupling.on_first.gamma.data.fill_(1e6)
        coupling.on_second.gamma.data.fill_(1e6)
    with torch.no_grad():
        log_det = flow(drawn(1, 4, 5, 3), drawn(1, 4, 5, 3, seed=1))[1]
    assert log_det.abs().max() <= 3 * 4 * 1.9


def test_the_condition_and_the_seed_matter_and_nothing_else() -> None:
    x, condition = drawn(1, 5, 4, 3), drawn(1, 4, 4, 3, seed=1)
    torch.manual_seed(7)
    first, again, other = busy_flow(5), busy_flow(5), busy_flow(5, seed=2)
    with torch.no_grad():
        assert torch.equal(first(x, condition)[0], again(x, condition)[0])
        assert not torch.equal(first(x, condition)[0], other(x, condition)[0])
        assert not torch.equal(first(x, condition)[0], first(x, condition + 1)[0])


def test_positions_are_sines_and_cosines_of_row_and_column() -> None:
    found = position_encoding(3, 5, 8)
    assert found.shape == (8, 3, 5)
    for row in range(3):
        for column in range(5):
            rates = (1.0, 10_000.0 ** (-2 / 4))
            by_row = [wave(row * rate) for wave in (math.sin, math.cos) for rate in rates]
            by_column = [wave(column * rate) for wave in (math.sin, math.cos) for rate in rates]
            assert found[:, row, column].tolist() == pytest.approx([*by_row, *by_column], abs=1e-6)
    places = position_encoding(24, 24, 32).flatten(1).T
    assert len(places.unique(dim=0)) == 24 * 24


def test_the_student_adds_blocks_to_what_comes_in() -> None:
    student = Student(3, 4, 6, 2, seed=1).eval()
    x, condition = torch.randn(2, 3, 5, 4, generator=torch.Generator().manual_seed(0)), torch.zeros(2, 4, 5, 4)
    for block in student.blocks:
        block[-1].weight.data.zero_()
    plain = torch.nn.functional.leaky_relu(student.input(torch.cat([x, condition], dim=1)))
    plain = torch.nn.functional.leaky_relu(torch.nn.functional.leaky_relu(plain))
    torch.testing.assert_close(student(x, condition), student.output(plain))


def test_tokens_lie_row_by_row_on_the_grid() -> None:
    tokens = torch.arange(18).view(9, 2)
    assert token_map(tokens)[:, 1, 2].tolist() == tokens[5].tolist()
