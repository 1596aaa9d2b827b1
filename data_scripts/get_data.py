"""Fetch a real dataset and unpack it: resumed, verified, nothing outside its folder, nothing overwritten.

Examples: python data_scripts/get_data.py mvtec3d --folder data/mvtec3d --accept-license
          python data_scripts/get_data.py eyecandies --folder data/eyecandies --category Confetto --accept-license
          python data_scripts/get_data.py mvtec3d --folder data/mvtec3d --accept-license --archive ~/fetched.tar.xz
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from lib.archives import refuse_foreign, unpack
from lib.config import check_choice
from lib.datasets import DATASETS, Archive, Dataset, find_dataset
from lib.downloads import download
from lib.errors import InputError, run_command_line


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """Command line: dataset, folder, categories, and an archive that is there already."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", choices=tuple(DATASETS))
    parser.add_argument("--folder", type=Path, required=True, help="where the categories come; made if missing")
    parser.add_argument("--category", nargs="+", default=[], help="only archives that hold these (default: all)")
    parser.add_argument("--archive", type=Path, help="unpack this file, fetched by hand, and download nothing")
    parser.add_argument("--accept-license", action="store_true", help="you have read the licence and agree to it")
    parser.add_argument("--keep-archive", action="store_true", help="do not delete archives once they are unpacked")
    return parser.parse_args(arguments)


def license_text(dataset: Dataset) -> str:
    """What a user must know before any byte is fetched."""
    return (
        f"{dataset.title}: licence {dataset.license} ({dataset.license_url}). {dataset.attribution} "
        f"Its home is {dataset.landing_page}; {dataset.by_hand}."
    )


def wanted_archives(dataset: Dataset, categories: list[str], given: Path | None) -> list[Archive]:
    """The archives that hold the categories asked for; `InputError` where an archive by hand leaves a choice open."""
    for category in categories:
        check_choice(f"category of {dataset.name}", category, dataset.categories)
    chosen = [archive for archive in dataset.archives if not categories or set(categories) & set(archive.categories)]
    if given is not None and len(chosen) > 1:
        raise InputError(f"--archive is one file of {len(chosen)}; say with --category which one it is")
    return chosen


def main(arguments: list[str] | None = None) -> None:
    """Fetch and unpack; print each category's folder and what to run next."""
    chosen = parse_arguments(arguments)
    dataset = find_dataset(chosen.dataset)
    archives = wanted_archives(dataset, chosen.category, chosen.archive)
    print(license_text(dataset))
    if not chosen.accept_license:
        raise InputError("nothing fetched: read the licence, and give --accept-license if you agree to it")
    progress = sys.stderr.isatty()
    for archive in archives:
        path = chosen.archive or chosen.folder / archive.filename
        folders = [chosen.folder / category for category in archive.categories]
        if chosen.archive is None and not all(folder.is_dir() for folder in folders):
            refuse_foreign(path, chosen.folder, archive.categories)  # before hours of download
            download(archive.urls, path, archive.checksum, progress=progress)
        if path.is_file() or chosen.archive is not None:
            folders = unpack(path, chosen.folder, archive.categories, progress)
            if chosen.archive is None and not chosen.keep_archive:
                path.unlink()
        for folder in folders:
            print(folder)
    print(f"next: python data_scripts/check_data.py {dataset.name} --folder {chosen.folder}")


if __name__ == "__main__":
    sys.exit(run_command_line(main))
