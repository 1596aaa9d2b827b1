"""Draw the opening figure of the book: one swap sample, its relief, its mask and its anomaly map."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import matplotlib as mpl
import numpy as np

from lib.errors import run_command_line
from lib.experiment import load_maps
from lib.feature_store import prepared, sample_files
from lib.figures import first_of_each, image_grid, relief_picture, rgb_picture
from lib.notebooks import STYLE
from lib.profiles import load_profile
from lib.runtime import atomic_path

DEFECT = "swap"
TITLES = ("RGB image", "relief of the cloud", "true defect", "CFM anomaly map")
POSITION = 1  # which of the category's swap samples


def main() -> None:
    """Command line: --profile NAME --output FILE.png."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--profile", default="demo")
    parser.add_argument("--output", type=Path, required=True)
    arguments = parser.parse_args()
    mpl.use("Agg")
    mpl.rcParams.update(STYLE)
    profile = load_profile(arguments.profile)
    rows, masks, maps = [], [], []
    for category in profile.categories:
        files = sample_files(profile, category, "test")
        index = first_of_each([entry.defect for entry in files], POSITION)[DEFECT]
        sample = prepared(profile, files[index])
        maps.append(load_maps(profile, "cfm", category, "product")[index])
        masks.append(sample.gt_mask.numpy())
        rows.append([rgb_picture(sample.rgb), relief_picture(sample.cloud, sample.foreground), masks[-1].astype(float)])
    pictures = [[*row, anomaly_map / np.quantile(maps, 0.999)] for row, anomaly_map in zip(rows, maps, strict=True)]
    figure = image_grid(pictures, TITLES, profile.categories, {3: (0.0, 1.0)}, masks, cell_inches=1.6)
    with atomic_path(arguments.output) as temporary:
        figure.savefig(temporary, dpi=110)


if __name__ == "__main__":
    sys.exit(run_command_line(main))
