"""CFM stage by stage at the papers' size, and its plain forms, with how far both results lie apart."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from benchmarks.made_up import object_points, sample, spec
from benchmarks.references import RATE_SHAPES, computes_bf16, counted_operations, plain_map, plain_tokens
from lib.extractors import get_extractor
from lib.features import build_features
from lib.heads.cfm import combine
from lib.methods import CFM_VARIANTS
from lib.neighbors import group_points
from lib.training import INFERENCE_DTYPES

ROUNDS = 5
ATTENTION_SHAPE = (1, 12, 785, 64)  # images, heads, tokens, channels of a head: one block of the ViT
LARGEST_DIFFERENCE = 1e-4  # of the fast path from the plain one, as a share of the largest value


def share(fast: torch.Tensor, plain: torch.Tensor) -> float:
    """Largest difference as a share of the largest value."""
    return float((fast - plain).abs().max() / plain.abs().max())


def timed(benchmark, work, rounds: int = ROUNDS):
    """What `work` gives, its rounds in the report with the operations it counts."""
    benchmark.extra_info["operations"] = counted_operations(work)
    return benchmark.pedantic(work, rounds=rounds, warmup_rounds=1)


@pytest.fixture(scope="module")
def groups(pair):
    config = pair.xyz.config
    return group_points(object_points(), config.num_groups, config.group_size)


def test_rgb_network(benchmark, pair):
    timed(benchmark, lambda: pair.rgb(sample()))


def test_groups(benchmark, pair):
    points, config = object_points(), pair.xyz.config
    timed(benchmark, lambda: group_points(points, config.num_groups, config.group_size))


@torch.inference_mode()
def test_group_tokens(benchmark, pair, groups):
    timed(benchmark, lambda: pair.xyz.network.embed(groups[0][None]))


def test_group_tokens_plain(benchmark, pair, groups):
    encoder, scaled = pair.xyz.network.encoder, groups[0] / pair.xyz.config.unit_m
    plain = timed(benchmark, lambda: plain_tokens(encoder, scaled), rounds=3)
    with torch.inference_mode():
        difference = share(pair.xyz.network.embed(groups[0][None])[0], plain)
    benchmark.extra_info["difference"] = difference
    assert difference < LARGEST_DIFFERENCE


@torch.inference_mode()
def test_point_blocks(benchmark, pair, groups):
    network = pair.xyz.network
    tokens, positions = network.embed(groups[0][None]), network.embed_positions(groups[1][None])
    timed(benchmark, lambda: network.block_tokens(tokens, positions))


def test_interpolation_weights(benchmark, features):
    timed(benchmark, lambda: build_features(sample(), features.rgb_tokens, features.xyz_tokens, features.centers))


def test_heads(benchmark, head, features):
    timed(benchmark, lambda: head.discrepancies(features))


def test_heads_plain(benchmark, head, features):
    plain = timed(benchmark, lambda: plain_map(head, features), rounds=3)
    difference = share(head.predict(features)["product"].anomaly_map, plain)
    benchmark.extra_info["difference"] = difference
    assert difference < LARGEST_DIFFERENCE


def test_map_and_score(benchmark, head, features):
    psi = head.discrepancies(features)
    timed(benchmark, lambda: combine(*psi, CFM_VARIANTS["product"]))


def check_bf16() -> None:
    if not computes_bf16():
        pytest.skip("this processor does not compute bf16 itself")


@pytest.fixture(params=tuple(INFERENCE_DTYPES))
def dtype(request) -> torch.dtype:
    if request.param == "bf16":
        check_bf16()
    return INFERENCE_DTYPES[request.param]


@pytest.mark.parametrize("shape", RATE_SHAPES, ids=lambda shape: "x".join(map(str, shape)))
def test_matrix_product(benchmark, dtype, shape):
    rows, inner, columns = shape
    first, second = torch.randn(rows, inner).to(dtype), torch.randn(inner, columns).to(dtype)
    timed(benchmark, lambda: torch.mm(first, second), rounds=15)


def test_attention(benchmark, dtype):
    query, key, value = torch.randn(3, *ATTENTION_SHAPE).to(dtype)
    timed(benchmark, lambda: functional.scaled_dot_product_attention(query, key, value), rounds=15)


def test_whole_sample(benchmark, pair, head):
    timed(benchmark, lambda: head.predict(pair(sample())))


def test_map_in_bf16(benchmark, pair, head):
    check_bf16()
    exact = head.predict(pair(sample()))["product"].anomaly_map
    pair_bf16, head_bf16 = get_extractor(spec("full"), precision="bf16"), head.at_precision("bf16")
    rounded = benchmark.pedantic(lambda: head_bf16.predict(pair_bf16(sample())), rounds=1)["product"].anomaly_map
    benchmark.extra_info["difference"] = share(rounded, exact)
