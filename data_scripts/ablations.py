"""Remake the curated ablation records of a profile, or recompute some and compare them with what is stored.

python data_scripts/ablations.py remake            # results/<profile>/ is written anew
python data_scripts/ablations.py check --number 5  # five experiments drawn at random must agree
"""

from __future__ import annotations

import argparse
import sys

import numpy as np
from tqdm.auto import tqdm

from lib.errors import InputError, run_command_line
from lib.experiment import recompute, record_differences, results_root
from lib.profiles import Profile, load_profile
from lib.records import record_path, write_record

TOLERANCE = 2e-3  # other processors sum in another order; on one machine the records agree exactly


def planned_ablations(profile: Profile) -> list[tuple[str, str, int]]:
    """(method, category, seed) of every ablation the profile plans."""
    specs = [spec for spec in profile.methods.values() if spec.ablation]
    return [(spec.name, category, seed) for spec in specs for category in spec.categories for seed in spec.seeds]


def remake(profile: Profile) -> None:
    """Compute every ablation and write its records to `results/`."""
    for method, category, seed in tqdm(planned_ablations(profile), desc="ablations"):
        for variant, record in recompute(profile, method, category, seed).items():
            write_record(record_path(results_root(profile), method, category, variant, seed), record)


def check(profile: Profile, number: int, draw_seed: int | None) -> int:
    """Number of differences between stored records and fresh computations of `number` experiments."""
    planned = planned_ablations(profile)
    if not planned:
        raise InputError(f"profile {profile.name} plans no ablations; there is nothing to check")
    drawn = np.random.default_rng(draw_seed).permutation(len(planned))[:number]
    found = []
    for index in tqdm(drawn, desc="checking records"):
        found += record_differences(profile, *planned[index], tolerance=TOLERANCE)
    print("\n".join(found) if found else f"{len(drawn)} experiments recomputed, all agree within {TOLERANCE}")
    return len(found)


def main() -> int:
    """Command line: remake | check [--number N] [--draw-seed S] [--profile NAME]; exit status 1 on differences."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=("remake", "check"))
    parser.add_argument("--profile", default="demo")
    parser.add_argument("--number", type=int, default=5)
    parser.add_argument("--draw-seed", type=int, default=None)
    arguments = parser.parse_args()
    if arguments.number < 1:
        raise InputError(f"--number {arguments.number} would check nothing; give 1 or more")
    profile = load_profile(arguments.profile)
    if arguments.action == "remake":
        remake(profile)
        return 0
    return 1 if check(profile, arguments.number, arguments.draw_seed) else 0


if __name__ == "__main__":
    sys.exit(run_command_line(main))
