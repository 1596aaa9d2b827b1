"""Scans of your own camera into a dataset that every method of this study reads; one call for each folder of scans.

Examples, each on one line:
  python data_scripts/convert_scans.py depth --color mug/color --scans mug/depth --intrinsics mug/camera.json
      --unit 0.001 --target data/own --part mug --split train
  python data_scripts/convert_scans.py organised --color mug/color --scans mug/pcd
      --target data/own --part mug --split validation
  python data_scripts/convert_scans.py points --color bad/color --scans bad/ply --masks bad/masks
      --intrinsics mug/camera.json --target data/own --part mug --split test --defect crack
The files of one sample have the same stem in every folder. camera.json holds width, height, fx, fy, cx, cy in pixels.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from lib.camera import KINDS, read_intrinsics
from lib.data import GOOD, SPLITS
from lib.errors import run_command_line
from lib.own_scans import FAR_M, ScanFolders, convert_scans


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """Command line: what to read, and which part of which dataset it becomes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=KINDS, help="depth images, organised clouds, or loose points")
    parser.add_argument("--color", type=Path, required=True, help="folder of color images")
    parser.add_argument("--scans", type=Path, required=True, help="folder of depth images or clouds")
    parser.add_argument("--masks", type=Path, help="folder of defect masks, needed for anything but good")
    parser.add_argument("--intrinsics", type=Path, help="JSON file of the color camera; not for organised clouds")
    parser.add_argument("--unit", type=float, default=1.0, help="length of the scans' unit in metres (default: 1)")
    parser.add_argument("--far", type=float, default=FAR_M, help=f"metres beyond which nothing is (default: {FAR_M:g})")
    parser.add_argument("--target", type=Path, required=True, help="folder of the dataset; made if missing")
    parser.add_argument("--part", required=True, help="name of the part, which becomes a category")
    parser.add_argument("--split", required=True, choices=SPLITS)
    parser.add_argument("--defect", default=GOOD, help=f"default: {GOOD}")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="processes (default: all cores)")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> None:
    """Convert one folder of scans and print where they are."""
    chosen = parse_arguments(arguments)
    intrinsics = None if chosen.intrinsics is None else read_intrinsics(chosen.intrinsics)
    folders = ScanFolders(chosen.color, chosen.scans, chosen.kind, chosen.masks, intrinsics, chosen.unit, chosen.far)
    show = sys.stderr.isatty()
    print(convert_scans(folders, chosen.target, chosen.part, chosen.split, chosen.defect, chosen.jobs, show))
    print(f"next: python data_scripts/check_data.py own --folder {chosen.target}")


if __name__ == "__main__":
    sys.exit(run_command_line(main))
