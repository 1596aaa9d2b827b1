"""Run one experiment of a profile (a method on a category at a seed) and keep its records."""

from __future__ import annotations

import argparse
import sys

from lib.errors import run_command_line
from lib.experiment import run
from lib.gpu_slots import own_gpu
from lib.profiles import load_profile


def main() -> None:
    """Command line: --profile NAME --method NAME --category NAME --seed N."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--profile", default="demo")
    parser.add_argument("--method", required=True)
    parser.add_argument("--category", required=True)
    parser.add_argument("--seed", type=int, required=True)
    arguments = parser.parse_args()
    profile = load_profile(arguments.profile)
    with own_gpu(profile.device):
        records = run(profile, arguments.method, arguments.category, arguments.seed, progress=True)
    for variant, record in records.items():
        metrics = record["metrics"]
        print(f"{variant:18s} I-AUROC {metrics['image_auroc']:.3f}  AUPRO@30% {metrics['aupro']['exact']['0.3']:.3f}")


if __name__ == "__main__":
    sys.exit(run_command_line(main))
