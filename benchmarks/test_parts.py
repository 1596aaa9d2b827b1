"""Coreset, memory bank and AUPRO beside their references, in one run."""

from __future__ import annotations

import pytest
import torch

from benchmarks.made_up import DIM, PATCHES, PROJECTED_DIM, clustered, masks_and_maps
from benchmarks.references import cached_norm_coreset, sorted_and_labelled
from lib.coreset import greedy_coreset
from lib.heads.patch_bank import bank_distances
from lib.metrics import aupro_many, pro_curve

BANK_ROWS, PICKS = 20_000, 2_000


def rows() -> torch.Tensor:
    return clustered(BANK_ROWS, PROJECTED_DIM, seed=1)


@pytest.fixture(scope="module")
def exact_picks():
    """Picks of the plain loop in float64."""
    return cached_norm_coreset(rows().double(), PICKS)


def test_coreset(benchmark, exact_picks):
    picks = benchmark.pedantic(lambda: greedy_coreset(rows(), PICKS), rounds=3, warmup_rounds=1)
    benchmark.extra_info["same picks as in float64"] = int((picks == exact_picks).sum())
    assert torch.equal(picks, exact_picks)


def test_coreset_cached_norms(benchmark, exact_picks):
    picks = benchmark.pedantic(lambda: cached_norm_coreset(rows(), PICKS), rounds=3, warmup_rounds=1)
    benchmark.extra_info["same picks as in float64"] = int((picks == exact_picks).sum())


def test_bank(benchmark):
    queries, bank = clustered(PATCHES, DIM, seed=2), clustered(BANK_ROWS, DIM, seed=1)
    benchmark.pedantic(lambda: bank_distances(queries, bank), rounds=7, warmup_rounds=1)


def test_bank_faiss(benchmark):
    faiss = pytest.importorskip("faiss", reason="pip install faiss-cpu")
    queries, bank = clustered(PATCHES, DIM, seed=2), clustered(BANK_ROWS, DIM, seed=1)
    index = faiss.IndexFlatL2(DIM)
    index.add(bank.numpy())
    squared, _ = benchmark.pedantic(lambda: index.search(queries.numpy(), 1), rounds=7, warmup_rounds=1)
    exact = torch.cdist(queries.double(), bank.double()).min(dim=1).values
    torch.testing.assert_close(bank_distances(queries, bank)[0].double(), exact, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(torch.from_numpy(squared[:, 0]).sqrt().double(), exact, rtol=1e-3, atol=1e-3)


def test_aupro(benchmark):
    masks, maps = masks_and_maps()
    benchmark.pedantic(lambda: aupro_many(pro_curve(masks, maps)), rounds=5, warmup_rounds=1)


def test_aupro_sort_and_label(benchmark):
    masks, maps = masks_and_maps()
    benchmark.pedantic(lambda: sorted_and_labelled(masks, maps), rounds=5, warmup_rounds=1)
