"""Remake the curated ablation records of a profile, or recompute some and compare them with what is stored.

python data_scripts/ablations.py remake                                 # results/<profile>/ is written anew
python data_scripts/ablations.py remake --names "lsfa*" --missing       # only what is not there yet
python data_scripts/ablations.py remake --stale                         # what is missing, or made by other code or data
python data_scripts/ablations.py check --number 5                       # five experiments drawn at random must agree
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
from concurrent.futures import ProcessPoolExecutor, as_completed
from fnmatch import fnmatch

import numpy as np
from tqdm.auto import tqdm

from lib.config import project_root
from lib.errors import InputError, run_command_line
from lib.experiment import is_curated, recompute, results_root
from lib.gpu_slots import own_gpu
from lib.parallel import end_with_parent
from lib.profiles import Profile, load_profile
from lib.record_check import check_experiment
from lib.records import record_path, write_record
from lib.runtime import git_commit


def planned_ablations(profile: Profile, pattern: str = "*") -> list[tuple[str, str, int]]:
    """(method, category, seed) of every ablation the profile plans whose method fits the pattern.

    The categories of a seed follow each other: jobs that start together then extract features of different categories
    instead of waiting for each other's.

    Raises:
        InputError: a pattern that no ablation fits.
    """
    specs = [spec for spec in profile.methods.values() if spec.ablation and fnmatch(spec.name, pattern)]
    if not specs and pattern != "*":
        raise InputError(f"profile {profile.name} plans no ablation named {pattern}; see profiles/{profile.name}.yaml")
    return [(spec.name, category, seed) for spec in specs for seed in spec.seeds for category in spec.categories]


def remake_one(profile_name: str, method: str, category: str, seed: int) -> None:
    """Compute one ablation and write its records to `results/`."""
    profile = load_profile(profile_name)
    with own_gpu(profile.device):
        for variant, record in recompute(profile, method, category, seed).items():
            write_record(record_path(results_root(profile), method, category, variant, seed), record)


def start_worker() -> None:
    """Prepare a process: it ends with its parent, and its records name the commit whose code it has loaded."""
    end_with_parent()
    git_commit(project_root())


def left_to_do(profile: Profile, planned: list[tuple[str, str, int]], only: str) -> list[tuple[str, str, int]]:
    """Experiments to remake: "all", those "missing" in `results/`, or the "stale" ones, missing or of other code."""
    if only == "all":
        return planned
    return [entry for entry in planned if not is_curated(profile, *entry, by_this_code=only == "stale")]


def remake(profile: Profile, pattern: str, only: str, num_jobs: int) -> None:
    """Compute ablations, some at a time, each in a process of its own with the profile's number of threads.

    One that its data does not allow keeps none of the others back.

    Args:
        profile: names the ablations.
        pattern: of the names of methods, as for files.
        only: which of them; see `left_to_do`.
        num_jobs: how many at a time.

    Raises:
        InputError: some could not be computed; the line names them, and the others are there.
    """
    planned = left_to_do(profile, planned_ablations(profile, pattern), only)
    os.environ["OMP_NUM_THREADS"] = str(profile.threads)  # read by the processes that start now
    context = multiprocessing.get_context("spawn")
    once = 1 if profile.device == "cuda" else None  # a process stays on the GPU on which CUDA started
    with ProcessPoolExecutor(num_jobs, context, start_worker, max_tasks_per_child=once) as pool:
        futures = {pool.submit(remake_one, profile.name, *entry): entry for entry in planned}
        refused = {}
        try:
            for future in tqdm(as_completed(futures), desc="ablations", total=len(futures)):
                try:
                    future.result()
                except InputError as error:
                    refused[futures[future]] = str(error)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    if refused:
        first = {refused[entry]: " ".join(map(str, entry)) for entry in reversed(planned) if entry in refused}
        told = "; ".join(f"{entry}: {error}" for error, entry in first.items())
        raise InputError(f"{len(refused)} ablations could not be computed, the others are there; {told}")


def check(profile: Profile, number: int, draw_seed: int | None) -> int:
    """Number of experiments, of `number` drawn at random, whose fresh computation differs from the stored records."""
    planned = planned_ablations(profile)
    if not planned:
        raise InputError(f"profile {profile.name} plans no ablations; there is nothing to check")
    drawn = np.random.default_rng(draw_seed).permutation(len(planned))[:number]
    num_different = 0
    for index in tqdm(drawn, desc="checking records"):
        checked = check_experiment(profile, *planned[index])
        num_different += bool(checked.found)
        tqdm.write(checked.report())
    print(f"{len(drawn)} experiments recomputed: {len(drawn) - num_different} agree, {num_different} differ")
    return num_different


def main() -> int:
    """Command line: remake | check, see the options; exit status 1 when a check finds differences."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=("remake", "check"))
    parser.add_argument("--profile", default="demo")
    parser.add_argument("--names", default="*", help="pattern of the methods to remake")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--missing", action="store_true", help="remake only what is not there or has other settings")
    which.add_argument("--stale", action="store_true", help="also what other code, data or versions made")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="experiments at a time")
    parser.add_argument("--number", type=int, default=5)
    parser.add_argument("--draw-seed", type=int, default=None)
    arguments = parser.parse_args()
    if arguments.number < 1:
        raise InputError(f"--number {arguments.number} would check nothing; give 1 or more")
    if arguments.jobs < 1:
        raise InputError(f"--jobs {arguments.jobs} would compute nothing; give 1 or more")
    profile = load_profile(arguments.profile)
    if arguments.action == "remake":
        only = "missing" if arguments.missing else "stale" if arguments.stale else "all"
        remake(profile, arguments.names, only, arguments.jobs)
        return 0
    return 1 if check(profile, arguments.number, arguments.draw_seed) else 0


if __name__ == "__main__":
    sys.exit(run_command_line(main))
