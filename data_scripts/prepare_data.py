"""Write a prepared copy of a real dataset: background removed, padded, one layout; the raw data is only read.

Examples: python data_scripts/prepare_data.py mvtec3d --source data/mvtec3d --target data/mvtec3d_prepared
          python data_scripts/prepare_data.py eyecandies --source data/eyecandies --target data/eyecandies_prepared
Each category of the copy has a manifest of settings and hashes, and contact_sheet.png: before on the left, after on the
right. A category that is there already is left as it is.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from lib import preparation
from lib.data import SPLITS, is_prepared, splits_of
from lib.datasets import DATASETS, find_dataset
from lib.errors import InputError, run_command_line
from lib.eyecandies import convert_category
from lib.prepared_copy import check_preparation, prepare_category

PREPARATIONS = {"default": preparation.PREPARATION_DEFAULT, "released": preparation.PREPARATION_RELEASED}
OWN = "own"


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """Command line: dataset, folders, categories, preparation, number of processes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", choices=(*DATASETS, OWN), help=f"{OWN}: a dataset of your own in MVTec's layout")
    parser.add_argument("--source", type=Path, required=True, help="folder with the raw categories")
    parser.add_argument("--target", type=Path, required=True, help="folder for the copy; made if missing")
    parser.add_argument("--category", nargs="+", default=[], help="default: all of the dataset")
    parser.add_argument(
        "--preparation", default="default", choices=tuple(PREPARATIONS), help="not for eyecandies (default: default)"
    )
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="processes (default: all cores)")
    return parser.parse_args(arguments)


def categories_of(dataset: str, source: Path) -> list[str]:
    """All categories of a known dataset, or all folders of an own one."""
    if dataset != OWN:
        return list(find_dataset(dataset).categories)
    if not source.is_dir():
        raise InputError(f"{source}: no such folder; give the folder that holds the categories")
    return sorted(path.name for path in source.iterdir() if path.is_dir() and not path.name.startswith("."))


def main(arguments: list[str] | None = None) -> None:
    """Prepare each category that is not there yet and print its folder."""
    chosen = parse_arguments(arguments)
    if chosen.dataset == "eyecandies" and chosen.preparation != "default":
        raise InputError(f"--preparation {chosen.preparation}: eyecandies has one of its own; leave it out")
    progress = sys.stderr.isatty()
    for category in chosen.category or categories_of(chosen.dataset, chosen.source):
        if is_prepared(chosen.target, category):
            if chosen.dataset != "eyecandies":
                check_preparation(chosen.target, category, PREPARATIONS[chosen.preparation])
            print(f"{chosen.target / category}: prepared before; left as it is")
        elif chosen.dataset == "eyecandies":
            print(convert_category(chosen.source, chosen.target, category, chosen.jobs, progress))
        else:
            config = PREPARATIONS[chosen.preparation]
            splits = splits_of(chosen.source, category) if chosen.dataset == OWN else SPLITS
            print(prepare_category(chosen.source, chosen.target, category, config, chosen.jobs, progress, splits))
    if chosen.dataset == OWN:
        print(f"next: a profile with dataset: own and data_root: {chosen.target.resolve()}; chapter 20 shows one")
    else:
        print(
            f"next: ANOMALY_DATA_ROOT={chosen.target.resolve()} python data_scripts/results_table.py "
            f"--profile {chosen.dataset}"
        )


if __name__ == "__main__":
    sys.exit(run_command_line(main))
