"""Counts against what PyTorch itself counts, hours and sessions by hand."""

from __future__ import annotations

import pytest
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from lib.datasets import DATASETS
from lib.errors import InputError
from lib.heads.cfm_training import MappingMLP, MappingStep
from lib.heads.mixed_rows import pixel_rows
from lib.training import DEFAULT_SETUP
from lib.training_plan import (
    FRAME_PX,
    FREE_GPU,
    Device,
    Sizes,
    counted_plan,
    image_bytes,
    image_flops,
    image_seconds,
    measured_plan,
    sessions,
)
from tests.factories import make_features

SMALL = Sizes(rgb_dim=3, xyz_dim=5, hidden_dim=4, rgb_tokens=49, xyz_tokens=13)


def test_products_are_those_that_a_step_takes() -> None:
    sample = make_features(seed=1)
    networks = nn.ModuleDict({"rgb_to_xyz": MappingMLP(3, 5), "xyz_to_rgb": MappingMLP(5, 3)})
    with FlopCounterMode(display=False) as counter:
        MappingStep(networks, DEFAULT_SETUP).backward(*pixel_rows([sample], [None]))
    assert counter.get_total_flops() == image_flops(len(sample.pixel_index), SMALL)


def test_bytes_and_seconds_by_hand() -> None:
    assert image_bytes(10, SMALL) == 10 * (42 * 4 + 12 * 8) * 2
    device = Device("by hand", tflops=2e-6, gb_per_s=1e-3, memory_gb=8, reached_tflops=0.5, reached_gb_per_s=1.0)
    assert image_seconds(10, device, SMALL) == pytest.approx(image_flops(10, SMALL) / 1e6 + 5280 / 1e6)


def test_the_study_on_a_free_gpu_grows_with_samples_epochs_and_pixels() -> None:
    table = counted_plan(DATASETS["mvtec3d"], 250, FREE_GPU, (0.25, 0.5))
    hours = table["25% of the frame, h"]
    assert list(table.index) == [*DATASETS["mvtec3d"].counts, "all"] and hours["all"] == pytest.approx(hours[:-1].sum())
    assert hours["peach"] / hours["tire"] == pytest.approx(361 / 210)
    expected = 2656 * 250 * image_seconds(FRAME_PX / 4, FREE_GPU) / 3600
    assert hours["all"] == pytest.approx(expected) and (table["50% of the frame, h"] > hours).all()
    half = counted_plan(DATASETS["mvtec3d"], 125, FREE_GPU, (0.25,))
    assert half.loc["all"].item() == pytest.approx(expected / 2)


def test_measured_plan_by_hand() -> None:
    table = measured_plan({"bagel": 100, "rope": 50}, num_epochs=36, seconds_per_sample=2.0)
    assert table["hours"].tolist() == [2.0, 1.0] and table["done after, h"].tolist() == [2.0, 3.0]


def test_sessions_take_up_what_was_cut_off() -> None:
    table = sessions({"a": 4.0, "b": 5.0, "c": 10.0, "d": 0.5}, limit_h=9.0)
    assert table["from session"].tolist() == [1, 1, 2, 3] and table["to session"].tolist() == [1, 1, 3, 3]
    with pytest.raises(InputError, match="limit is 0"):
        sessions({"a": 1.0}, 0)
