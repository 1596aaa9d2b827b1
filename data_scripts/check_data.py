"""Check a dataset folder: counts, pairs, sizes, types, units, missing returns; every fault has a line.

Examples: python data_scripts/check_data.py mvtec3d --folder data/mvtec3d
          python data_scripts/check_data.py eyecandies --folder data/eyecandies --category Confetto
          python data_scripts/check_data.py own --folder data/own
A prepared copy is checked too, against the hashes in its manifests. The exit status is 1 where anything is wrong.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path

from lib.config import check_choice
from lib.data import is_prepared
from lib.dataset_check import CategoryReport, check_category, check_raw_eyecandies
from lib.datasets import DATASETS, find_dataset
from lib.errors import InputError, run_command_line

OWN = "own"


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """Command line: dataset, folder, categories, number of processes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", choices=(*DATASETS, OWN), help=f"{OWN}: a dataset of your own, without known counts")
    parser.add_argument("--folder", type=Path, required=True, help="folder that holds the categories")
    parser.add_argument("--category", nargs="+", default=[], help="default: all of the dataset, or all that are there")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="processes (default: all cores)")
    return parser.parse_args(arguments)


def categories_in(folder: Path) -> list[str]:
    """Visible folders of a dataset's root."""
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; give the folder that holds the categories")
    found = sorted(path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    if not found:
        raise InputError(f"{folder}: no categories; give the folder that holds them")
    return found


def checker(dataset: str, folder: Path, category: str) -> Callable[..., CategoryReport]:
    """The check for what lies there: raw Eyecandies has a layout of its own."""
    is_raw = dataset == "eyecandies" and not is_prepared(folder, category)
    return check_raw_eyecandies if is_raw else check_category


def main(arguments: list[str] | None = None) -> int:
    """Print a table and the faults of each category; exit status 1 where there are faults."""
    chosen = parse_arguments(arguments)
    there = categories_in(chosen.folder)
    known = None if chosen.dataset == OWN else find_dataset(chosen.dataset)
    for category in chosen.category:
        check_choice(f"category of {chosen.dataset}", category, tuple(there) if known is None else known.categories)
    if known is not None and not set(known.categories) & set(there):
        raise InputError(
            f"{chosen.folder}: holds none of {', '.join(known.categories)}; there are: {', '.join(there[:10])}; "
            "give the folder that holds the categories"
        )
    num_problems = 0
    for category in chosen.category or (there if known is None else known.categories):
        check = checker(chosen.dataset, chosen.folder, category)
        report = check(chosen.folder, category, known, chosen.jobs, sys.stderr.isatty())
        print(f"\n{category}")
        if len(report.table):
            print(report.table.to_string(float_format="{:.1f}".format))
        print(*(f"  wrong: {problem}" for problem in report.problems), sep="\n", end="\n" if report.problems else "")
        num_problems += len(report.problems)
    print(f"\n{num_problems or 'no'} faults in {chosen.folder}")
    return int(num_problems > 0)


if __name__ == "__main__":
    sys.exit(run_command_line(main))
