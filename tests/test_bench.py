"""The benchmark's parts on tiny sizes; its numbers are no matter for a test."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

from data_scripts import bench
from data_scripts.bench import MAX_GROWTH_GB, MAX_STEP_GB, Size
from lib.errors import InputError
from lib.extraction_cost import ExtractionCost
from lib.instances import LSFA_PAPER, LSFA_RELEASED

CPU = torch.device("cpu")
TINY = Size(5, 6, 9)
SMALL_BANKS = {"num_heads": 3, "projection_dim": 4, "local_bank_rows": 37, "global_bank_rows": 3, "batch_size": 2}


def peaks(step: float = 1.0, few: float = 1.0, many: float = 1.0) -> dict[str, dict[str, float]]:
    names = ("step_paper", "step_released", "few_epochs", "many_epochs")
    return {name: {"peak_gb": peak} for name, peak in zip(names, (1.0, step, few, many), strict=True)}


def test_random_patches_fill_the_grid_and_follow_the_seed():
    patch_set = bench.random_patches(TINY, 3)
    assert patch_set.rgb.shape == (25, 6) and patch_set.xyz.shape == (25, 9)
    assert patch_set.cells.shape == (5, 5) and patch_set.cells.all() and patch_set.foreground.all()
    assert torch.equal(patch_set.rgb, bench.random_patches(TINY, 3).rgb)
    assert not torch.equal(patch_set.rgb, bench.random_patches(TINY, 4).rgb)


def test_banks_are_full_before_the_first_step():
    banks = bench.full_banks(replace(LSFA_PAPER, local_bank_rows=2003, global_bank_rows=7), TINY, CPU)
    assert banks.rgb_local.rows.shape == (2003, 6) and banks.xyz_global.rows.shape == (7, 9)
    assert all(bank.is_full and bank.rows.any(dim=1).all() for bank in (banks.xyz_local, banks.rgb_global))


@pytest.mark.parametrize("config", [LSFA_PAPER, LSFA_RELEASED])
def test_a_timed_step_takes_every_loss(config, monkeypatch):
    taken = []

    def watched(*arguments, **named):
        taken.append(losses(*arguments, **named))
        return taken[-1]

    losses = bench.training_step
    monkeypatch.setattr(bench, "training_step", watched)
    times = bench.step_times(replace(config, **SMALL_BANKS), TINY, 3, CPU)
    assert times.keys() == {"seconds", "cpu_seconds"} and min(times.values()) > 0
    assert [step.keys() for step in taken] == [{"la", "ga", "lc", "gc"}] * 3
    assert taken[0]["la"] != taken[1]["la"]


def test_made_up_objects_are_squares_in_the_middle():
    sample = bench.made_up_sample(10, 3)
    assert sample.foreground.sum() == 100 and sample.foreground[107:117, 107:117].all()
    assert torch.equal(sample.cloud.any(dim=0), sample.foreground)
    assert torch.equal(sample.depth, bench.made_up_sample(10, 3).depth)
    features = bench.made_up_features(TINY, 10, 3)
    assert features.rgb_tokens.shape == (6, 5, 5) and features.xyz_tokens.shape == (100, 9)


def test_cfm_cost_is_that_of_an_epoch_and_of_predictions():
    numbers = bench.cfm_cost(2, TINY, 10, CPU)
    assert numbers["pixels"] == 100 and min(numbers["train_ms"], numbers["predict_ms"], numbers["peak_gb"]) > 0


def test_extraction_measures_both_networks(monkeypatch):
    cost = ExtractionCost(1, 2, 3.0, 4.0, 5, 6, 0.5)
    monkeypatch.setattr(bench, "extraction_cost", lambda spec, samples, device: cost)
    numbers = bench.extraction_step(2, CPU)
    assert (numbers["rgb_ms"], numbers["xyz_ms"], numbers["megabytes"]) == (3.0, 4.0, 0.5)


def test_training_cost_is_that_of_a_whole_training():
    numbers = bench.training_cost(replace(LSFA_PAPER, **SMALL_BANKS), TINY, 3, 1, CPU)
    assert numbers.keys() == {"seconds", "cpu_seconds", "peak_gb"}
    assert min(numbers.values()) > 0 and 0.01 < numbers["peak_gb"] < 100


def test_coreset_is_compared_with_the_textbook():
    numbers = bench.coreset_cost(211, 13, 29, CPU)
    assert (numbers["picks"], numbers["same_picks"], numbers["same_rows"]) == (29, 29, 29)
    assert numbers["ratio"] == pytest.approx(numbers["textbook_seconds"] / numbers["seconds"])


def test_bank_cost_is_that_of_every_step_and_of_all_its_picks(monkeypatch):
    monkeypatch.setattr(bench, "MANY_PICKS", 5)
    numbers = bench.bank_cost(3, CPU, Size(5, 6, 700))
    assert (numbers["rows"], numbers["columns"]) == (75, 106)  # the Johnson-Lindenstrauss dimension of 75 rows
    assert numbers["select_hours"] == pytest.approx(numbers["pick_seconds"] * 7 / 3600)
    assert min(numbers["project_seconds"], numbers["search_seconds"], numbers["peak_gb"]) > 0


def test_every_pick_of_a_bank_is_taken():
    numbers = bench.every_pick_cost(3, CPU, Size(5, 6, 700))
    assert (numbers["rows"], numbers["picks"]) == (75, 7) and numbers["seconds"] > 0


def test_textbook_picks_the_farthest_row_each_time():
    rows = torch.tensor([[0.0], [1.0], [10.0], [4.0]])
    assert bench.textbook_coreset(rows, 3).tolist() == [0, 2, 3]


def test_problems_name_what_is_over_its_limit():
    assert bench.problems(peaks()) == bench.problems({}) == bench.problems({"few_epochs": {"peak_gb": 1.0}}) == []
    assert bench.problems(peaks(step=MAX_STEP_GB, many=1 + MAX_GROWTH_GB / 2)) == []
    assert bench.problems(peaks(step=8.75)) == ["step_released: peak memory 8.75 GB is over the limit of 8 GB"]
    whole = {f"bank_{bench.BANK_SAMPLES[-1]}": {"peak_gb": 7.0}}
    assert bench.problems(whole) == ["bank of the whole category: peak memory 7.00 GB is over the limit of 4 GB"]
    grown = bench.problems(peaks(few=2.0, many=3.0))
    assert grown == ["peak memory grows by 1.000 GB from 5 to 105 epochs; it must not"]


@pytest.mark.parametrize(("step_gb", "status"), [(2.0, 0), (9.0, 1)])
def test_main_prints_a_table_writes_the_numbers_and_says_what_is_over(monkeypatch, tmp_path, capsys, step_gb, status):
    monkeypatch.setattr(bench, "project_root", lambda: tmp_path)
    monkeypatch.setattr(bench, "run_alone", lambda name, arguments: peaks(step=step_gb).get(name, {"picks": 2000}))
    assert bench.main(["--threads", "2"]) == status
    lines = capsys.readouterr().out.splitlines()
    assert f"step_released         peak_gb {step_gb:.0f}" in lines and "coreset               picks 2000" in lines
    assert len(lines) == len(bench.BENCHMARKS) - len(bench.ONLY_ON_CUDA) + 1
    assert ("over the limit" in lines[-1]) == bool(status)
    written = json.loads((tmp_path / "runs" / "bench" / "cpu.json").read_text())
    assert written["threads"] == 2 and written["results"]["step_released"] == {"peak_gb": step_gb}
    assert set(bench.BENCHMARKS) - set(written["results"]) == set(bench.ONLY_ON_CUDA)


def test_some_benchmarks_go_to_a_file_of_their_own(monkeypatch, tmp_path):
    monkeypatch.setattr(bench, "run_alone", lambda name, arguments: {"rows": 7})
    assert bench.main(["--names", "bank_*", "--output", str(tmp_path / "banks.json")]) == 0
    written = json.loads((tmp_path / "banks.json").read_text())["results"]
    assert list(written) == [f"bank_{number}" for number in bench.BANK_SAMPLES]


def test_one_benchmark_alone_is_one_line_of_json(monkeypatch, capsys):
    monkeypatch.setitem(bench.BENCHMARKS, "coreset", lambda steps, device: {"steps": steps, "device": device.type})
    assert bench.main(["--only", "coreset", "--steps", "7"]) == 0
    assert json.loads(capsys.readouterr().out) == {"steps": 7, "device": "cpu"}


def test_bad_arguments_are_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for given, message in (
        (["--names", "x*"], "fits no benchmark"),
        (["--steps", "0"], "--steps is 0"),
        (["--device", "cuda"], "no CUDA device"),
    ):
        with pytest.raises(InputError, match=message):
            bench.parse_arguments(given)
