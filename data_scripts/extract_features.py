"""Make or find one category's data and extract the features of all its samples."""

from __future__ import annotations

import argparse
import sys

import torch

from lib.config import check_choice
from lib.errors import run_command_line
from lib.feature_store import extract_features
from lib.gpu_slots import own_gpu
from lib.profiles import load_profile


def main() -> None:
    """Command line: --profile NAME --category NAME [--extractor SLUG]."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--profile", default="demo")
    parser.add_argument("--category", required=True)
    parser.add_argument("--extractor", help="slug of one of the profile's extractors; default: the profile's own")
    arguments = parser.parse_args()
    profile = load_profile(arguments.profile)
    torch.set_num_threads(profile.threads)
    slug = arguments.extractor or profile.extractor.slug
    check_choice(f"extractor of profile {profile.name}", slug, tuple(profile.extractors))
    with own_gpu(profile.device):
        extract_features(profile, arguments.category, profile.extractors[slug], progress=True)


if __name__ == "__main__":
    sys.exit(run_command_line(main))
