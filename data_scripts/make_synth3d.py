"""Write the embedded dataset synth3d in the MVTec 3D-AD layout.

Example: python data_scripts/make_synth3d.py --root runs/demo/data --seed 7 --category biscuit
"""

from __future__ import annotations

import argparse
import sys
from functools import partial
from pathlib import Path

from lib.errors import run_command_line
from lib.parallel import in_processes
from lib.synth3d import CATEGORIES, write_category


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """Command line: folder, data seed, categories and number of processes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, required=True, help="folder of the dataset; made if missing")
    parser.add_argument("--seed", type=int, required=True, help="data seed, 0 or more")
    parser.add_argument("--category", nargs="+", default=list(CATEGORIES), help="categories (default: all)")
    parser.add_argument("--workers", type=int, default=2, help="processes, one category each (default: 2)")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> None:
    """Write every category and print its manifest; `InputError` for an unknown category or a negative seed."""
    chosen = parse_arguments(arguments)
    write = partial(write_category, chosen.root, seed=chosen.seed, progress=sys.stderr.isatty())
    for manifest in in_processes(write, chosen.category, chosen.workers, "synth3d"):
        print(manifest)


if __name__ == "__main__":
    sys.exit(run_command_line(main))
