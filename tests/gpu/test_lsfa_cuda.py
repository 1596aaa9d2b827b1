"""LSFA agrees between CPU and CUDA: indices exactly, losses to rounding; and the paper's sizes fit."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from data_scripts.bench import CATEGORY, MAX_STEP_GB, PAPER_SIZE, Size, full_banks, peak_gb, random_patches, step_cost
from lib.bank_search import nearest_rows
from lib.coreset import greedy_coreset
from lib.heads.adaptation import Adaptors, training_losses
from lib.heads.adaptor_training import adapt_for_training, train_adaptors
from lib.heads.lsfa import LSFA
from lib.instances import LSFA_PAPER, LSFA_RELEASED
from tests.factories import make_features

pytestmark = pytest.mark.gpu

CUDA = torch.device("cuda")
SIZE = Size(13, 24, 36)
SMALL = {"projection_dim": 11, "local_bank_rows": 307, "global_bank_rows": 5, "batch_size": 2}


def rows_of(number: int, dim: int, seed: int) -> torch.Tensor:
    return torch.randn(number, dim, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("queries", "bank", "dim"), [(1, 1, 3), (311, 1009, 17), (3136, 60_000, 64)])
def test_nearest_rows_are_equally_near(queries, bank, dim) -> None:
    first, second = rows_of(queries, dim, 1) + 3, rows_of(bank, dim, 2) + 3
    ours, theirs = nearest_rows(first, second), nearest_rows(first.cuda(), second.cuda()).cpu()
    near, near_on_cuda = (torch.linalg.vector_norm(first - second[rows], dim=1) for rows in (ours, theirs))
    torch.testing.assert_close(near_on_cuda, near, rtol=1e-5, atol=0)
    assert (ours == theirs).float().mean() > 0.999


def test_nearest_rows_take_little_memory_on_cuda() -> None:
    first, second = rows_of(3136, 768, 1).cuda(), rows_of(60_000, 768, 2).cuda()
    torch.cuda.reset_peak_memory_stats()
    held = torch.cuda.memory_allocated()
    nearest_rows(first, second)
    assert torch.cuda.max_memory_allocated() - held < 1e9


@pytest.mark.parametrize(("rows", "dim", "picks"), [(5, 2, 5), (997, 61, 101), (20_011, 32, 211)])
def test_greedy_picks_are_the_same(rows, dim, picks) -> None:
    features = rows_of(rows, dim, 3) + 2
    assert torch.equal(greedy_coreset(features.cuda(), picks).cpu(), greedy_coreset(features, picks))


def test_greedy_picks_among_duplicates_are_the_same() -> None:
    lattice = torch.cartesian_prod(*[torch.arange(4.0)] * 3).repeat(2, 1)
    assert torch.equal(greedy_coreset(lattice.cuda(), 101).cpu(), greedy_coreset(lattice, 101))


@pytest.mark.parametrize("preset", [LSFA_PAPER, LSFA_RELEASED])
@pytest.mark.parametrize("num_clusters", [1, 3])
def test_losses_and_gradients_of_a_step_agree(preset, num_clusters) -> None:
    config = replace(preset, num_clusters=num_clusters, **SMALL)
    losses, gradients = [], []
    for device in (torch.device("cpu"), CUDA):
        adaptors = Adaptors(config, SIZE.rgb_dim, SIZE.xyz_dim, seed=0).to(device)
        banks, drawn = {CATEGORY: full_banks(config, SIZE, device)}, torch.Generator().manual_seed(0)
        samples = [random_patches(SIZE, seed) for seed in range(config.batch_size)]
        batch = [adapt_for_training(adaptors, CATEGORY, sample, config, drawn) for sample in samples]
        found = training_losses(adaptors, batch, banks, config, step=config.ifc_from_step)
        sum(found.values()).backward()
        losses.append({name: float(loss.detach()) for name, loss in found.items()})
        gradients.append([parameter.grad.cpu() for parameter in adaptors.parameters()])
    assert losses[0].keys() == {"la", "ga", "lc", "gc"}
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)
    for ours, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4)


def test_adaptors_train_alike() -> None:
    config = replace(LSFA_PAPER, num_epochs=3, patches_per_image=101, **SMALL)
    patch_sets = {CATEGORY: [random_patches(SIZE, seed) for seed in range(5)]}
    ours, theirs = (train_adaptors(config, patch_sets, seed=0, device=device)[1] for device in ("cpu", CUDA))
    assert ours.keys() == theirs.keys()
    for name, curve in ours.items():
        assert theirs[name] == pytest.approx(curve, rel=1e-2, abs=1e-6), name


def test_maps_agree() -> None:
    samples = [make_features(seed=seed) for seed in range(4)]
    settings = {"num_heads": 1, "num_epochs": 1, "grid_side": 7, "coreset_fraction": 1.0, "learning_rate": 1e-4}
    config = replace(LSFA_PAPER, **SMALL, **settings)
    found = []
    for device in ("cpu", "cuda"):
        head = LSFA(config, samples[0].rgb_tokens.shape[0], samples[0].xyz_tokens.shape[1], device)
        head.fit(samples, seed=0)
        found.append(head.predict(make_features(seed=9), ("rgb", "xyz", "plain_average")))
    for name, prediction in found[0].items():
        torch.testing.assert_close(found[1][name].anomaly_map, prediction.anomaly_map, rtol=1e-2, atol=1e-3)


@pytest.mark.parametrize("preset", [LSFA_PAPER, LSFA_RELEASED])
def test_a_step_at_the_papers_size_stays_below_the_limit(preset) -> None:
    torch.cuda.reset_peak_memory_stats()
    assert step_cost(preset, 1, CUDA)["peak_gb"] < MAX_STEP_GB


def test_an_epoch_at_the_papers_size_fits_and_runs() -> None:
    torch.cuda.reset_peak_memory_stats()
    patch_sets = {CATEGORY: [random_patches(PAPER_SIZE, seed) for seed in range(24)]}
    _, history = train_adaptors(replace(LSFA_PAPER, num_epochs=1), patch_sets, seed=0, device=CUDA)
    assert len(history["la"]) == 3 and all(torch.isfinite(torch.tensor(curve)).all() for curve in history.values())
    assert peak_gb(CUDA) < 40
