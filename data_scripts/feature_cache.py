"""Show how much space a profile's cached features take, extractor by extractor, or delete them all.

python data_scripts/feature_cache.py show    # samples and megabytes of each extractor
python data_scripts/feature_cache.py clear   # records, maps and results stay; features are made again when needed
"""

from __future__ import annotations

import argparse
import sys

from lib.errors import run_command_line
from lib.feature_store import cache_sizes, clear_cache
from lib.profiles import load_profile

MB = 1e6


def main() -> None:
    """Command line: show | clear [--profile NAME]."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=("show", "clear"))
    parser.add_argument("--profile", default="demo")
    arguments = parser.parse_args()
    profile = load_profile(arguments.profile)
    if arguments.action == "clear":
        print(f"{clear_cache(profile) / MB:.0f} MB of features of profile {profile.name} deleted")
        return
    sizes = cache_sizes(profile)
    for slug, (number, size) in sizes.items():
        print(f"{slug:50} {number:6} samples {size / MB:8.0f} MB {size / MB / max(number, 1):8.2f} MB each")
    print(f"{sum(size for _, size in sizes.values()) / MB:.0f} MB in all; `make clear-features` deletes them")


if __name__ == "__main__":
    sys.exit(run_command_line(main))
