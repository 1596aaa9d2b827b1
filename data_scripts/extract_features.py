"""Make or find one category's data and extract the features of all its samples."""

from __future__ import annotations

import argparse
import sys

import torch

from lib.config import load_profile
from lib.errors import run_command_line
from lib.feature_store import extract_features


def main() -> None:
    """Command line: --profile NAME --category NAME."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--profile", default="demo")
    parser.add_argument("--category", required=True)
    arguments = parser.parse_args()
    profile = load_profile(arguments.profile)
    torch.set_num_threads(profile.threads)
    extract_features(profile, arguments.category, progress=True)


if __name__ == "__main__":
    sys.exit(run_command_line(main))
