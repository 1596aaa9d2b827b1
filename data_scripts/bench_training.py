"""What a training costs at the papers' sizes, ours and as the released loop does it, and whether less precision holds.

    python data_scripts/bench_training.py --samples 4 --batch-size 2          # a processor: some minutes
    python data_scripts/bench_training.py --device cuda --samples 240         # full size, on a GPU
    python data_scripts/bench_training.py --names "precision*"                # only these

The samples are those of synth3d, the networks ViT-B/8 and Point-MAE with random weights: what is measured is speed,
and no number here says anything about detection, except under "precision_...", which trains on the demo's features.
Each benchmark runs in a process of its own. The numbers go to runs/bench/training_<device>.json.
"""

from __future__ import annotations

import argparse
import fnmatch
import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from data_scripts.bench import peak_gb, times, write_results
from lib.config import ExtractorSpec, project_root
from lib.data import Sample
from lib.errors import InputError, run_command_line
from lib.experiment import measure
from lib.extractors import Extractor, get_extractor
from lib.feature_store import category_features, prepared, sample_files
from lib.features import Features
from lib.head_choice import make_head
from lib.heads.cfm import CFM
from lib.heads.cfm_training import MappingMLP, batches, initialize
from lib.heads.lsfa import LSFA
from lib.instances import BANK_STD_FLOOR, CFM_DEMO, CFM_PAPER, LSFA_DEMO, LSFA_PAPER
from lib.losses import cosine_distance
from lib.pixel_mean import averaged_xyz
from lib.profiles import load_profile
from lib.training import AUTOCAST, TrainingSetup, device_setup

DATA = "demo"  # profile whose samples and, for the results of less precision, features are taken
FULL_SIZE = ExtractorSpec("dino_vitb8", "point_mae", weights="random")
RELEASED = replace(FULL_SIZE, mode="released")
RGB_DIM, XYZ_DIM = 768, 1152
EPOCHS = 3  # of our loop: the first pays for memory that the others find
PAPER_EPOCHS = CFM_PAPER.num_epochs
PRECISION_CATEGORIES = ("cord", "sweet")
PRECISION_RUNS = {  # settings and precisions; LSFA in fp16 is far too slow on a processor
    "precision_cfm": (CFM_DEMO, ("float32", *AUTOCAST)),
    "precision_lsfa": (LSFA_DEMO, ("float32", "bf16")),
}
INFERRED = 8  # samples whose inference is timed


def training_samples(number: int) -> list[Sample]:
    """Prepared training samples of synth3d, category after category."""
    profile = load_profile(DATA)
    files = [entry for category in profile.categories for entry in sample_files(profile, category, "train")]
    return [prepared(profile, entry) for entry in files[:number]]


class Clock:
    """Seconds of the named steps of a loop, with what they left running on the device.

    Args:
        device: that is waited for.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.seconds: dict[str, float] = {}

    def __call__(self, name: str, work: Callable[[], Any]) -> Any:
        """What the work gives; its time is added under the name."""
        found = []
        taken = times(lambda: found.append(work()), self.device)
        self.seconds[name] = self.seconds.get(name, 0.0) + taken["seconds"]
        return found.pop()


class PlainLoop:
    """One epoch of CFM as the released code trains it, in our words: recomputed features, dense maps, float32.

    Both networks see every pixel of the image, those off the object included, which the loss then leaves out; 3D
    features are averaged over 3 x 3 pixels after they were laid on the image.

    Args:
        extractor: called for every sample in every epoch.
        networks: "rgb_to_xyz" and "xyz_to_rgb".
        batch_size: images a step.
        smooth: the mean over 3 x 3 pixels; without it the losses are those of our loop.
    """

    def __init__(self, extractor: Extractor, networks: nn.ModuleDict, batch_size: int, smooth: bool = True) -> None:
        self.extractor, self.networks, self.batch_size, self.smooth = extractor, networks, batch_size, smooth
        self.device = next(networks.parameters()).device
        self.clock = Clock(self.device)
        self.optimizer = torch.optim.Adam(networks.parameters(), lr=CFM_PAPER.learning_rate)

    def epoch(self, samples: Sequence[Sample]) -> list[tuple[float, float]]:
        """Losses of each step; "features", "dense maps" and "networks" are timed by `clock`."""
        losses = []
        for start in range(0, len(samples), self.batch_size):
            batch = samples[start : start + self.batch_size]
            features = self.clock("features", lambda batch=batch: [self.extractor(sample) for sample in batch])
            dense = self.clock("dense maps", lambda features=features: self.dense(features))
            losses.append(self.clock("networks", lambda dense=dense: self.step(*dense)))
        return losses

    def dense(self, batch: Sequence[Features]) -> tuple[Tensor, Tensor]:
        """(B, H W, C2) and (B, H W, C3) float32 features of every pixel; 3D is zero off the object."""
        size = tuple(batch[0].foreground.shape)
        rgb = torch.stack([sample.rgb_tokens for sample in batch]).to(self.device)
        rgb = F.interpolate(rgb, size, mode="bilinear", align_corners=False)
        xyz = torch.stack([self.dense_xyz(sample.to(self.device)) for sample in batch])
        if self.smooth:
            xyz = F.adaptive_avg_pool2d(F.avg_pool2d(xyz, 3, stride=1), size)
        return rgb.flatten(2).mT.contiguous(), xyz.flatten(2).mT.contiguous()

    def dense_xyz(self, sample: Features) -> Tensor:
        """(C3, H, W) float32 map of one sample's interpolated 3D tokens."""
        at_points = (sample.xyz_tokens[sample.neighbors] * sample.weights[:, :, None]).sum(dim=1)
        dense = at_points.new_zeros(sample.foreground.numel(), at_points.shape[1])
        dense[sample.pixel_index] = at_points
        return dense.T.unflatten(1, tuple(sample.foreground.shape))

    def step(self, rgb: Tensor, xyz: Tensor) -> tuple[float, float]:
        """Losses of a step, RGB to 3D and 3D to RGB; the weights have moved."""
        seen = xyz.sum(dim=2) != 0
        losses = [
            cosine_distance(self.networks["rgb_to_xyz"](rgb), xyz)[seen].mean(),
            cosine_distance(self.networks["xyz_to_rgb"](xyz), rgb)[seen].mean(),
        ]
        self.optimizer.zero_grad()
        for loss in losses:
            loss.backward()
        self.optimizer.step()
        return float(losses[0].detach()), float(losses[1].detach())


def fresh_networks(device: torch.device) -> nn.ModuleDict:
    """Both mapping networks at the paper's size, as our training starts them."""
    networks = nn.ModuleDict({"rgb_to_xyz": MappingMLP(RGB_DIM, XYZ_DIM), "xyz_to_rgb": MappingMLP(XYZ_DIM, RGB_DIM)})
    initialize(networks, torch.Generator().manual_seed(0))
    return networks.to(device)


def plain_cost(arguments: argparse.Namespace) -> dict[str, float]:
    """Seconds an epoch of the plain loop, by step, and peak memory."""
    device = torch.device(arguments.device)
    samples = training_samples(arguments.samples)
    loop = PlainLoop(get_extractor(RELEASED, arguments.device), fresh_networks(device), arguments.batch_size)
    loop.epoch(samples[: arguments.batch_size])  # pays for memory that the others find
    loop.clock.seconds.clear()
    taken = times(lambda: loop.epoch(samples), device)
    shares = {f"{name.replace(' ', '_')}_s": seconds for name, seconds in loop.clock.seconds.items()}
    return {"samples": len(samples), "epoch_s": taken["seconds"], **shares, "peak_gb": peak_gb(device)}


def our_cost(arguments: argparse.Namespace, precision: str, compiled: bool = False) -> dict[str, float]:
    """Seconds of the features, once, and of an epoch of our loop, by step, and peak memory."""
    device = torch.device(arguments.device)
    extractor = get_extractor(FULL_SIZE, arguments.device)
    samples = training_samples(arguments.samples)
    extractor(samples[0])
    features: list[Features] = []
    made = (averaged_xyz(extractor(sample), CFM_PAPER.xyz_mean_px) for sample in samples)
    once = times(lambda: features.extend(made), device)
    setup = replace(device_setup(arguments.device, precision), compiled=compiled)
    # Averaged above: a training averages once, and each of these short ones would do so again.
    config = replace(CFM_PAPER, batch_size=arguments.batch_size, num_epochs=1, xyz_mean_px=None)
    head = CFM(config, RGB_DIM, XYZ_DIM, arguments.device)
    epochs = [times(lambda: head.fit(features, seed=0, setup=setup), device)["seconds"] for _ in range(EPOCHS)]
    trained_gb = peak_gb(device)
    reading = times(lambda: read_all(features, config, device), device)
    inferred = features[:INFERRED]
    inference = times(lambda: [head.predict(sample) for sample in inferred], device)
    return {
        "samples": len(samples),
        "pixels_per_sample": sum(len(sample.pixel_index) for sample in features) / len(features),
        "features_once_s": once["seconds"],
        "epoch_s": median(epochs[1:]),
        "reading_s": reading["seconds"],
        "inference_ms": 1e3 * inference["seconds"] / len(inferred),
        "peak_gb": trained_gb,
    }


def read_all(features: Sequence[Features], config: Any, device: torch.device) -> None:
    """Read every pixel of an epoch as a step does, and multiply nothing."""
    on_device = [sample.to(device) for sample in features]
    for rgb, xyz in batches(on_device, config, torch.Generator().manual_seed(0)):
        rgb.read(), xyz.read()


def lsfa_cost(arguments: argparse.Namespace, precision: str) -> dict[str, float]:
    """Seconds of an epoch of LSFA's adaptors and of its memory banks, milliseconds of a prediction, peak memory."""
    device = torch.device(arguments.device)
    extractor = get_extractor(FULL_SIZE, arguments.device)
    features = [extractor(sample) for sample in training_samples(arguments.samples)]
    setup = device_setup(arguments.device, precision)
    head = LSFA(replace(LSFA_PAPER, num_epochs=1, batch_size=arguments.batch_size), RGB_DIM, XYZ_DIM, arguments.device)
    held_out = features[-2:]
    adapted = LSFA(replace(head.config, coreset_fraction=1e-3), RGB_DIM, XYZ_DIM, arguments.device)
    epoch = times(lambda: adapted.fit(features, seed=0, validation=held_out, setup=setup), device)
    whole = times(lambda: head.fit(features, seed=0, validation=held_out, setup=setup), device)
    inference = times(lambda: [head.predict(sample) for sample in features[:INFERRED]], device)
    return {
        "samples": len(features),
        "epoch_and_small_banks_s": epoch["seconds"],
        "epoch_and_banks_s": whole["seconds"],
        "inference_ms": 1e3 * inference["seconds"] / min(INFERRED, len(features)),
        "peak_gb": peak_gb(device),
    }


def precision_results(name: str, arguments: argparse.Namespace) -> dict[str, float]:
    """Image AUROC and AUPRO@30% of a method on the demo's features, trained in each precision: means over categories.

    "worst_..." is the largest loss against float32 in any category.

    Args:
        name: a key of `PRECISION_RUNS`.
        arguments: of the command line.
    """
    profile, (config, precisions) = load_profile(DATA), PRECISION_RUNS[name]
    runs = {
        precision: [
            run_metrics(profile, config, category, TrainingSetup(precision), arguments.device)
            for category in PRECISION_CATEGORIES
        ]
        for precision in precisions
    }
    found: dict[str, float] = {"runs": len(PRECISION_CATEGORIES)}
    for number, metric in enumerate(("image_auroc", "aupro")):
        plain = [run[number] for run in runs["float32"]]
        for precision, values in runs.items():
            chosen = [run[number] for run in values]
            found[f"{metric}_{precision}"] = sum(chosen) / len(chosen)
            found[f"{metric}_worst_{precision}"] = max(a - b for a, b in zip(plain, chosen, strict=True))
    return found


def run_metrics(profile: Any, config: Any, category: str, setup: TrainingSetup, device: str) -> tuple[float, float]:
    """Image AUROC and AUPRO@30% of one training on the demo's features at the first seed."""
    floor = None if config is CFM_DEMO else BANK_STD_FLOOR
    train, validation, test = (
        category_features(profile, category, split, std_floor=floor) for split in ("train", "validation", "test")
    )
    head = make_head(config, train[0], device)
    further = {"validation": validation} if config.needs_validation else {}
    head.fit(train, profile.seeds[0], setup=setup, **further)
    variant = "product" if config is CFM_DEMO else "average"
    metrics = measure(test, [head.predict(sample, (variant,))[variant] for sample in test])["metrics"]
    return metrics["image_auroc"], metrics["aupro"]["exact"]["0.3"]


BENCHMARKS: dict[str, Callable[[argparse.Namespace], dict[str, float]]] = {
    "plain": plain_cost,
    "ours_float32": lambda arguments: our_cost(arguments, "float32"),
    "ours_tf32": lambda arguments: our_cost(arguments, "tf32"),
    "ours_bf16": lambda arguments: our_cost(arguments, "bf16"),
    "ours_fp16": lambda arguments: our_cost(arguments, "fp16"),
    "ours_float32_compiled": lambda arguments: our_cost(arguments, "float32", compiled=True),
    "ours_bf16_compiled": lambda arguments: our_cost(arguments, "bf16", compiled=True),
    "lsfa_float32": lambda arguments: lsfa_cost(arguments, "float32"),
    "lsfa_bf16": lambda arguments: lsfa_cost(arguments, "bf16"),
    **{name: lambda arguments, name=name: precision_results(name, arguments) for name in PRECISION_RUNS},
}
ONLY_ON_CUDA = ("ours_tf32", "ours_fp16", "lsfa_float32", "lsfa_bf16")  # hours, or nothing but detours, on a processor


def ratios(results: dict[str, dict[str, float]]) -> dict[str, float]:
    """How many times faster our loop is than the plain one: an epoch, and the paper's whole training."""
    if "plain" not in results:
        return {}
    plain, found = results["plain"]["epoch_s"], {}
    for name, ours in results.items():
        if name.startswith("ours"):
            whole = ours["features_once_s"] + PAPER_EPOCHS * ours["epoch_s"]
            found[f"{name}_epoch"] = plain / ours["epoch_s"]
            found[f"{name}_training"] = PAPER_EPOCHS * plain / whole
    return found


def run_alone(name: str, arguments: argparse.Namespace) -> dict[str, float]:
    """Numbers of one benchmark from a process of its own, so that the peak of its memory belongs to it alone."""
    command = [sys.executable, __file__, "--only", name, "--device", arguments.device]
    command += ["--samples", str(arguments.samples), "--batch-size", str(arguments.batch_size)]
    environment = {**os.environ, "OMP_NUM_THREADS": str(arguments.threads)}
    process = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(process.stdout.splitlines()[-1])


def parse_arguments(given: list[str] | None = None) -> argparse.Namespace:
    """Command line; `InputError` for a number below 1, a pattern that fits nothing, or a device that is not there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"), help="default: cpu")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="of the processor (default: all)")
    parser.add_argument("--samples", type=int, default=4, help="training samples (default: 4)")
    parser.add_argument("--batch-size", type=int, default=CFM_PAPER.batch_size, help="images a step (default: 4)")
    parser.add_argument("--names", default="*", help="pattern of the benchmarks to run (default: all)")
    parser.add_argument("--output", type=Path, help="default: runs/bench/training_<device>.json")
    parser.add_argument("--only", choices=tuple(BENCHMARKS), help="run one here and print its numbers as JSON")
    arguments = parser.parse_args(given)
    if not fnmatch.filter(BENCHMARKS, arguments.names):
        raise InputError(f"--names {arguments.names} fits no benchmark; there are {', '.join(BENCHMARKS)}")
    for name in ("threads", "samples", "batch_size"):
        if getattr(arguments, name) < 1:
            raise InputError(f"--{name.replace('_', '-')} is {getattr(arguments, name)}; give at least 1")
    if arguments.device == "cuda" and not torch.cuda.is_available():
        raise InputError("device cuda: PyTorch finds no CUDA device here; choose cpu")
    return arguments


def main(given: list[str] | None = None) -> None:
    """Run the benchmarks one after the other, print their numbers, and write them."""
    arguments = parse_arguments(given)
    if arguments.only:
        torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", torch.get_num_threads())))
        print(json.dumps(BENCHMARKS[arguments.only](arguments)))
        return
    results: dict[str, dict[str, float]] = {}
    for name in fnmatch.filter(BENCHMARKS, arguments.names):
        if arguments.device == "cuda" or name not in ONLY_ON_CUDA:
            results[name] = run_alone(name, arguments)
            print(name, json.dumps(results[name]), flush=True)
    if found := ratios(results):
        results["times_faster_than_plain"] = found
        print("times faster than plain:", json.dumps(found), flush=True)
    path = project_root() / (arguments.output or Path("runs", "bench", f"training_{arguments.device}.json"))
    write_results(path, arguments, results)
    print(f"written to {path}")


if __name__ == "__main__":
    sys.exit(run_command_line(main))
