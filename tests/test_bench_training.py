"""The plain loop is the released one, and ours learns the same; the benchmark's numbers are no matter for a test."""

from __future__ import annotations

import argparse
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from data_scripts import bench_training
from data_scripts.bench_training import PlainLoop, parse_arguments, ratios
from lib.errors import InputError
from lib.features import Features
from lib.heads.cfm_training import MappingStep
from lib.heads.mapping_networks import MappingMLP
from lib.heads.mixed_rows import pixel_rows
from lib.training import DEFAULT_SETUP, TrainingSetup
from tests.factories import make_features

SAMPLES = [make_features(seed=s) for s in range(3)]


def networks() -> nn.ModuleDict:
    torch.manual_seed(5)
    return nn.ModuleDict({"rgb_to_xyz": MappingMLP(3, 5, 6), "xyz_to_rgb": MappingMLP(5, 3, 6)})


def stored(sample: Features) -> Features:
    return sample


def test_without_the_smoothing_a_plain_step_is_ours() -> None:
    plain, ours = networks(), networks()
    losses = PlainLoop(stored, plain, batch_size=3, smooth=False).epoch(SAMPLES)
    found = MappingStep(ours, DEFAULT_SETUP).backward(*pixel_rows(SAMPLES, [None] * 3))
    torch.testing.assert_close(torch.tensor(losses[0]), found)
    for theirs, mine in zip(plain.parameters(), ours.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, theirs.grad, rtol=1e-4, atol=1e-6)


def test_the_plain_loop_extracts_anew_sees_every_pixel_and_smooths() -> None:
    seen: list[str] = []
    loop = PlainLoop(lambda sample: seen.append(sample.sample_id) or sample, networks(), batch_size=2)
    for _ in range(2):
        loop.epoch(SAMPLES)
    assert seen == 2 * [sample.sample_id for sample in SAMPLES]
    rgb, xyz = loop.dense(SAMPLES[:2])
    assert rgb.shape == (2, 28 * 28, 3) and xyz.shape == (2, 28 * 28, 5)
    smooth = int((xyz[0].sum(dim=1) != 0).sum())
    assert smooth > int(SAMPLES[0].foreground.sum())  # the mean reaches beyond the object
    assert set(loop.clock.seconds) == {"features", "dense maps", "networks"}


def test_every_benchmark_names_its_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench_training, "training_samples", lambda number: SAMPLES[:number])
    monkeypatch.setattr(bench_training, "get_extractor", lambda spec, device: stored)
    monkeypatch.setattr(bench_training, "RGB_DIM", 3)
    monkeypatch.setattr(bench_training, "XYZ_DIM", 5)
    arguments = argparse.Namespace(device="cpu", samples=3, batch_size=2)
    plain = bench_training.plain_cost(arguments)
    ours = bench_training.our_cost(arguments, "float32")
    assert plain.keys() >= {"epoch_s", "features_s", "dense_maps_s", "networks_s", "peak_gb"}
    assert ours["pixels_per_sample"] == 361 and min(plain["epoch_s"], ours["epoch_s"], ours["inference_ms"]) > 0
    small = SimpleNamespace(**{**vars(arguments)})
    monkeypatch.setattr(bench_training, "LSFA_PAPER", bench_training.LSFA_DEMO)
    assert bench_training.lsfa_cost(small, "float32")["epoch_and_banks_s"] > 0


def test_ratios_are_those_of_an_epoch_and_of_the_whole_training(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench_training, "PAPER_EPOCHS", 10)
    results = {"plain": {"epoch_s": 8.0}, "ours_float32": {"epoch_s": 2.0, "features_once_s": 20.0}}
    assert ratios(results) == {"ours_float32_epoch": 4.0, "ours_float32_training": 2.0}
    assert ratios({"ours_float32": results["ours_float32"]}) == {}


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (["--names", "cat*"], "fits no benchmark"),
        (["--samples", "0"], "--samples is 0"),
        (["--batch-size", "-1"], "--batch-size is -1"),
    ],
)
def test_bad_command_lines_are_told(given: list[str], told: str) -> None:
    with pytest.raises(InputError, match=told):
        parse_arguments(given)


def test_precision_results_are_means_and_the_largest_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    levels = {("cord", "float32"): 0.9, ("sweet", "float32"): 0.7, ("cord", "bf16"): 0.8, ("sweet", "bf16"): 0.8}

    def run_metrics(profile: object, config: object, category: str, setup: TrainingSetup, device: str) -> tuple:
        return levels[category, setup.precision], 0.5

    monkeypatch.setattr(bench_training, "run_metrics", run_metrics)
    found = bench_training.precision_results("precision_lsfa", argparse.Namespace(device="cpu"))
    assert found["runs"] == 2 and found["image_auroc_bf16"] == pytest.approx(0.8)
    assert found["image_auroc_worst_bf16"] == pytest.approx(0.1) and found["aupro_worst_bf16"] == 0.0
