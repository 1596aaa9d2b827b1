"""What the methods cost on this machine at the papers' sizes, in seconds and memory.

Frozen features of a sample, an epoch of CFM on whole objects, a training step of LSFA, its memory over epochs, the
greedy coreset, and a memory bank of up to 765,000 patches of 1152 channels, which is what the largest category of
MVTec 3D-AD gives.

Examples: python data_scripts/bench.py --threads 2
          python data_scripts/bench.py --device cuda --steps 9
          python data_scripts/bench.py --output results/bench/cpu.json

Features, samples and networks' weights are made up. Each benchmark runs in a process of its own, so that the peak of
its memory belongs to it alone. The numbers go to runs/bench/<device>.json. The exit status is 1 where one of them is
over its limit.
"""

from __future__ import annotations

import argparse
import fnmatch
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

import numpy as np
import torch
from torch import Tensor

from lib.config import ExtractorSpec, project_root
from lib.coreset import greedy_coreset, project_tables
from lib.data import Sample
from lib.errors import InputError, run_command_line
from lib.extraction_cost import extraction_cost
from lib.features import Features, build_features
from lib.heads.adaptation import Adaptors, Banks
from lib.heads.adaptor_training import make_optimizer, train_adaptors, training_step
from lib.heads.cfm import CFM
from lib.heads.patch_bank import bank_distances
from lib.instances import CFM_PAPER, LSFA_PAPER, LSFA_RELEASED
from lib.methods import LSFAConfig
from lib.patches import PatchSet
from lib.preparation import PREPARATION_DEFAULT
from lib.reading import ReadOnAccess
from lib.runtime import atomic_path, cpu_name
from lib.training import device_setup

MAX_STEP_GB = 8.0  # of a training step at the paper's size
MAX_GROWTH_GB = 0.005  # of the peak memory from the few epochs to the many
FEW_EPOCHS, MANY_EPOCHS = 5, 105  # 200 steps more
CORESET_ROWS, CORESET_DIM, CORESET_PICKS = 20_000, 768, 2_000  # about a tenth of a category's patches, a tenth of it
BANK_SAMPLES = (31, 61, 122, 244)  # of 3136 patches: an eighth of the largest category, a quarter, a half, the whole
BANK_SHARE = 0.1  # of the patches that a bank keeps
FEW_PICKS, MANY_PICKS = 2, 102  # whose difference is the cost of a pick: every pick costs the same
MAX_BANK_GB = 4.0  # of the whole: its patches alone, joined, would take 3.5 GB, and twice that while they are joined
BYTES_PER_GB = 1e9
PEAK_UNIT = 1 if sys.platform == "darwin" else 1024  # bytes that one of ru_maxrss is
CATEGORY = "made_up"


@dataclass(frozen=True)
class Size:
    """Cells along each axis of the patch grid, all of them on the object, and channels of the two modalities."""

    side: int
    rgb_dim: int
    xyz_dim: int


PAPER_SIZE = Size(56, 768, 1152)  # DINO ViT-B/8 and Point-MAE on M3DM's grid: 3136 patches a sample
TOKEN_SIZE = Size(28, 768, 1152)  # the same networks' own tokens: 28 x 28 of RGB
NUM_GROUPS = 1024  # of points
OBJECT_SIDE_PX = 112  # an object on a quarter of the image
SMALL_SIZE = Size(13, 48, 72)


def random_patches(size: Size, seed: int) -> PatchSet:
    """Made-up patch features of one sample."""
    generator = torch.Generator().manual_seed(seed)
    number = size.side**2
    return PatchSet(
        rgb=torch.randn(number, size.rgb_dim, generator=generator),
        xyz=torch.randn(number, size.xyz_dim, generator=generator),
        cells=torch.ones(size.side, size.side, dtype=torch.bool),
        foreground=torch.ones(4 * size.side, 4 * size.side, dtype=torch.bool),
        sample_id=f"train/good/{seed:03d}",
    )


def full_banks(config: LSFAConfig, size: Size, device: torch.device) -> Banks:
    """Banks of a category that hold as many made-up rows as fit."""
    banks = Banks(config, size.rgb_dim, size.xyz_dim, device)
    generator = torch.Generator().manual_seed(0)
    for bank in (banks.rgb_local, banks.xyz_local, banks.rgb_global, banks.xyz_global):
        while not bank.is_full:  # by small pieces, lest filling take more memory than the step
            bank.push(torch.randn(min(bank.capacity, 1000), bank.rows.shape[1], generator=generator))
    return banks


def step_times(config: LSFAConfig, size: Size, num_steps: int, device: torch.device) -> dict[str, float]:
    """Median times of a training step with full banks and every loss, as `train_adaptors` takes it."""
    adaptors = Adaptors(config, size.rgb_dim, size.xyz_dim, seed=0).to(device)
    banks = {CATEGORY: full_banks(config, size, device)}
    optimizer = make_optimizer(adaptors, config)
    generator = torch.Generator().manual_seed(0)
    batch = [(CATEGORY, random_patches(size, seed)) for seed in range(config.batch_size)]

    def step() -> None:
        training_step(adaptors, batch, banks, optimizer, config, generator, step=config.ifc_from_step)

    taken = [times(step, device) for _ in range(num_steps)]
    return {name: median(each[name] for each in taken) for name in taken[0]}


def times(work: Callable[[], object], device: torch.device) -> dict[str, float]:
    """Seconds by the clock, and of the processor's cores together, which other work on the machine changes less.

    What the work leaves running on the device is waited for.
    """
    started = time.perf_counter(), time.process_time()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return {"seconds": time.perf_counter() - started[0], "cpu_seconds": time.process_time() - started[1]}


def peak_gb(device: torch.device) -> float:
    """Largest memory that this process had: resident, or on CUDA allocated there."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated() / BYTES_PER_GB
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * PEAK_UNIT / BYTES_PER_GB


def extraction_step(num_samples: int, device: torch.device) -> dict[str, float]:
    """Milliseconds of both networks on one sample, megabytes of its stored features, and peak memory."""
    spec = ExtractorSpec("dino_vitb8", "point_mae", weights="random")
    cost = extraction_cost(spec, [made_up_sample(OBJECT_SIDE_PX, seed) for seed in range(num_samples)], device.type)
    return {"rgb_ms": cost.rgb_ms, "xyz_ms": cost.xyz_ms, "megabytes": cost.megabytes, "peak_gb": peak_gb(device)}


def made_up_sample(object_side_px: int, seed: int) -> Sample:
    """A prepared sample whose object is a wavy square in the middle of the image."""
    generator = torch.Generator().manual_seed(seed)
    side = PREPARATION_DEFAULT.image_size
    foreground = torch.zeros(side, side, dtype=torch.bool)
    first = (side - object_side_px) // 2
    foreground[first : first + object_side_px, first : first + object_side_px] = True
    y, x = torch.meshgrid(*2 * [torch.linspace(-0.1, 0.1, side)], indexing="ij")
    noise_m = 2e-4 * torch.randn(y.shape, generator=generator)
    depth = 0.5 + 0.01 * torch.sin(40 * x) * torch.cos(30 * y) + noise_m
    return Sample(
        sample_id=f"train/good/{seed:03d}",
        category=CATEGORY,
        split="train",
        defect="good",
        label=0,
        rgb=torch.randn(3, *y.shape, generator=generator),
        cloud=torch.stack([x, y, depth]) * foreground,
        foreground=foreground,
        gt_mask=torch.zeros_like(foreground),
        depth=depth,
        rgb_padded=np.zeros((*y.shape, 3), dtype=np.uint8),
    )


def cfm_cost(num_samples: int, size: Size, object_side_px: int, device: torch.device) -> dict[str, float]:
    """Seconds of an epoch and of a prediction of CFM as the paper trains it, per sample, and peak memory."""
    samples = [made_up_features(size, object_side_px, seed) for seed in range(num_samples)]
    head = CFM(replace(CFM_PAPER, num_epochs=1), size.rgb_dim, size.xyz_dim, device.type)
    setup = device_setup(device.type)
    head.fit(samples, seed=0, setup=setup)  # the first epoch pays for memory that the others find
    epoch = times(lambda: head.fit(samples, seed=0, setup=setup), device)
    trained_gb = peak_gb(device)
    predict = times(lambda: [head.predict(sample) for sample in samples], device)
    return {
        "pixels": int(samples[0].foreground.sum()),
        "train_ms": 1e3 * epoch["seconds"] / num_samples,
        "predict_ms": 1e3 * predict["seconds"] / num_samples,
        "peak_gb": trained_gb,
    }


def made_up_features(size: Size, object_side_px: int, seed: int) -> Features:
    """Random tokens on the object of a made-up sample: `size.side` cells of RGB an axis, 1024 groups of points."""
    generator = torch.Generator().manual_seed(seed)
    sample = made_up_sample(object_side_px, seed)
    on_object = sample.cloud[:, sample.foreground].T
    centers = on_object[torch.randperm(len(on_object), generator=generator)[:NUM_GROUPS]]
    rgb_tokens = torch.randn(size.rgb_dim, size.side, size.side, generator=generator)
    return build_features(sample, rgb_tokens, torch.randn(len(centers), size.xyz_dim, generator=generator), centers)


def step_cost(config: LSFAConfig, num_steps: int, device: torch.device) -> dict[str, float]:
    """Times and peak memory of a step of two samples at the paper's size."""
    taken = step_times(replace(config, batch_size=2), PAPER_SIZE, num_steps, device)
    return {**taken, "peak_gb": peak_gb(device)}


def training_cost(
    config: LSFAConfig, size: Size, num_samples: int, num_epochs: int, device: torch.device
) -> dict[str, float]:
    """Times and peak memory of a whole training."""
    config = replace(config, num_epochs=num_epochs)
    patch_sets = {CATEGORY: [random_patches(size, seed) for seed in range(num_samples)]}
    setup = device_setup(device.type)
    taken = times(lambda: train_adaptors(config, patch_sets, seed=0, device=device, setup=setup), device)
    return {**taken, "peak_gb": peak_gb(device)}


def small_training_cost(num_epochs: int, device: torch.device) -> dict[str, float]:
    """That of a training so small that 25 kB kept each step would show; its banks are full after one epoch."""
    config = replace(LSFA_PAPER, num_heads=1, projection_dim=16, local_bank_rows=1000, global_bank_rows=5)
    return training_cost(config, SMALL_SIZE, 12, num_epochs, device)


def coreset_cost(num_rows: int, dim: int, num_picks: int, device: torch.device) -> dict[str, float]:
    """Times of our greedy coreset and of the textbook loop on the same rows, and how far their picks agree.

    Rounding may swap two rows that are almost equally far: "same_picks" counts equal picks in order, "same_rows"
    rows that both have picked at all.
    """
    rows = torch.randn(num_rows, dim, generator=torch.Generator().manual_seed(0)).to(device)
    picks: dict[str, Tensor] = {}
    ours = times(lambda: picks.update(ours=greedy_coreset(rows, num_picks)), device)
    textbook = times(lambda: picks.update(textbook=textbook_coreset(rows, num_picks)), device)
    return {
        **ours,
        **{f"textbook_{name}": value for name, value in textbook.items()},
        "ratio": textbook["seconds"] / ours["seconds"],
        "picks": num_picks,
        "same_picks": int((picks["ours"] == picks["textbook"]).sum()),
        "same_rows": int(torch.isin(picks["ours"], picks["textbook"]).sum()),
    }


def textbook_coreset(rows: Tensor, num_picks: int) -> Tensor:
    """(num_picks,) int64 k-center greedy as M3DM writes it: every step takes all differences from the last pick."""
    picks = [0]
    nearest = torch.linalg.vector_norm(rows - rows[0], dim=1)
    for _ in range(num_picks - 1):
        picks.append(int(nearest.argmax()))
        nearest = torch.minimum(nearest, torch.linalg.vector_norm(rows - rows[picks[-1]], dim=1))
    return torch.tensor(picks, device=rows.device)


def bank_cost(num_samples: int, device: torch.device, size: Size = PAPER_SIZE) -> dict[str, float]:
    """What a memory bank of 3D patches costs, each step as the heads take it: projection, selection, search.

    "pick_seconds" is measured on a few picks; "select_hours" is that times the picks of the whole bank.
    """
    patches = ReadOnAccess(range(num_samples), lambda number: random_patches(size, number).xyz)
    numbers = selection_cost(patches, device)
    num_picks = int(BANK_SHARE * numbers["rows"])
    bank = torch.randn(num_picks, size.xyz_dim, generator=torch.Generator().manual_seed(0)).to(device)
    queries = patches[0].to(device)
    search = times(lambda: bank_distances(queries, bank), device)
    select_hours = numbers["pick_seconds"] * num_picks / 3600
    return {
        **numbers,
        "select_hours": select_hours,
        "search_seconds": search["seconds"],
        "peak_gb": peak_gb(device),
    }


def selection_cost(patches: Sequence[Tensor], device: torch.device) -> dict[str, float]:
    """Rows and columns after the projection, seconds that it takes, and seconds of one pick among all rows."""
    found: list[Tensor] = []
    projection = times(lambda: found.append(project_tables(patches, LSFA_PAPER.projection_eps, 0)), device)
    rows = found.pop().to(device)
    greedy_coreset(rows, FEW_PICKS)  # the first call pays for memory that the others find
    few, many = (times(lambda n=n: greedy_coreset(rows, n), device) for n in (FEW_PICKS, MANY_PICKS))
    return {
        "rows": rows.shape[0],
        "columns": rows.shape[1],
        "project_seconds": projection["seconds"],
        "pick_seconds": (many["seconds"] - few["seconds"]) / (MANY_PICKS - FEW_PICKS),
    }


def every_pick_cost(num_samples: int, device: torch.device, size: Size = PAPER_SIZE) -> dict[str, float]:
    """Every pick of a bank, which `bank_cost` only extrapolates to."""
    patches = ReadOnAccess(range(num_samples), lambda number: random_patches(size, number).xyz)
    rows = project_tables(patches, LSFA_PAPER.projection_eps, 0).to(device)
    num_picks = int(BANK_SHARE * len(rows))
    taken = times(lambda: greedy_coreset(rows, num_picks), device)
    return {**taken, "rows": len(rows), "picks": num_picks, "peak_gb": peak_gb(device)}


# Name -> numbers, from the steps of a median and the device.
BENCHMARKS: dict[str, Callable[[int, torch.device], dict[str, float]]] = {
    "extraction": lambda steps, device: extraction_step(steps, device),
    "cfm": lambda _, device: cfm_cost(8, TOKEN_SIZE, OBJECT_SIDE_PX, device),
    "step_paper": lambda steps, device: step_cost(LSFA_PAPER, steps, device),
    "step_released": lambda steps, device: step_cost(LSFA_RELEASED, steps, device),
    "few_epochs": lambda _, device: small_training_cost(FEW_EPOCHS, device),
    "many_epochs": lambda _, device: small_training_cost(MANY_EPOCHS, device),
    "coreset": lambda _, device: coreset_cost(CORESET_ROWS, CORESET_DIM, CORESET_PICKS, device),
    **{f"bank_{number}": lambda _, device, number=number: bank_cost(number, device) for number in BANK_SAMPLES},
    "every_pick_31": lambda _, device: every_pick_cost(BANK_SAMPLES[0], device),
    "every_pick_244": lambda _, device: every_pick_cost(BANK_SAMPLES[-1], device),
    "epoch_of_64_samples": lambda _, device: training_cost(LSFA_PAPER, PAPER_SIZE, 64, 1, device),
}
ONLY_ON_CUDA = ("every_pick_244", "epoch_of_64_samples")  # hours on a processor


def problems(results: Mapping[str, Mapping[str, float]]) -> list[str]:
    """One line for every number that is over its limit; benchmarks that were not run are passed over."""
    found = []
    for name in ("step_paper", "step_released"):
        peak = results.get(name, {}).get("peak_gb", 0.0)
        if peak > MAX_STEP_GB:
            found.append(f"{name}: peak memory {peak:.2f} GB is over the limit of {MAX_STEP_GB:.0f} GB")
    peak = results.get(f"bank_{BANK_SAMPLES[-1]}", {}).get("peak_gb", 0.0)
    if peak > MAX_BANK_GB:
        found.append(f"bank of the whole category: peak memory {peak:.2f} GB is over the limit of {MAX_BANK_GB:.0f} GB")
    if {"few_epochs", "many_epochs"} <= results.keys():
        growth = results["many_epochs"]["peak_gb"] - results["few_epochs"]["peak_gb"]
        if growth > MAX_GROWTH_GB:
            found.append(f"peak memory grows by {growth:.3f} GB from {FEW_EPOCHS} to {MANY_EPOCHS} epochs; it must not")
    return found


def line(name: str, numbers: Mapping[str, float]) -> str:
    """One line of the table."""
    return f"{name:20}" + "".join(f"  {key} {value:<8.4g}" for key, value in numbers.items()).rstrip()


def run_alone(name: str, arguments: argparse.Namespace) -> dict[str, float]:
    """Numbers of one benchmark from a process of its own.

    On Linux a child's peak counts from what its parent had; this process imports what a child does and no more.
    """
    command = [sys.executable, __file__, "--only", name, "--device", arguments.device, "--steps", str(arguments.steps)]
    environment = {**os.environ, "OMP_NUM_THREADS": str(arguments.threads)}
    process = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(process.stdout)


def write_results(path: Path, arguments: argparse.Namespace, results: Mapping[str, Mapping[str, float]]) -> None:
    """Write the numbers with what they were measured on."""
    machine = torch.cuda.get_device_name() if arguments.device == "cuda" else cpu_name()
    facts = {"machine": machine, "threads": arguments.threads, "torch": torch.__version__.split("+")[0]}
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps({**facts, "results": results}, indent=1) + "\n", encoding="utf-8")


def parse_arguments(given: list[str] | None = None) -> argparse.Namespace:
    """Command line; `InputError` for a number below 1 or a device that is not there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"), help="default: cpu")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="of the processor (default: all)")
    parser.add_argument("--steps", type=int, default=3, help="whose median counts (default: 3)")
    parser.add_argument("--names", default="*", help="pattern of the benchmarks to run (default: all)")
    parser.add_argument("--output", type=Path, help="default: runs/bench/<device>.json")
    parser.add_argument("--only", choices=tuple(BENCHMARKS), help="run one here and print its numbers as JSON")
    arguments = parser.parse_args(given)
    if not fnmatch.filter(BENCHMARKS, arguments.names):
        raise InputError(f"--names {arguments.names} fits no benchmark; there are {', '.join(BENCHMARKS)}")
    for name in ("threads", "steps"):
        if getattr(arguments, name) < 1:
            raise InputError(f"--{name} is {getattr(arguments, name)}; give at least 1")
    if arguments.device == "cuda" and not torch.cuda.is_available():
        raise InputError("device cuda: PyTorch finds no CUDA device here; choose cpu")
    return arguments


def main(given: list[str] | None = None) -> int:
    """Run all benchmarks and print their table; exit status 1 where a number is over its limit."""
    arguments = parse_arguments(given)
    if arguments.only:
        print(json.dumps(BENCHMARKS[arguments.only](arguments.steps, torch.device(arguments.device))))
        return 0
    results = {}
    for name in fnmatch.filter(BENCHMARKS, arguments.names):
        if arguments.device == "cuda" or name not in ONLY_ON_CUDA:
            results[name] = run_alone(name, arguments)
            print(line(name, results[name]), flush=True)
    path = project_root() / (arguments.output or Path("runs", "bench", f"{arguments.device}.json"))
    write_results(path, arguments, results)
    found = problems(results)
    print("\n".join(found) if found else f"all within limits; written to {path}")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(run_command_line(main))
