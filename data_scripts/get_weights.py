"""Fetch trained weights: resumed, verified by their SHA-256, moved into place whole.

Examples: python data_scripts/get_weights.py --list
          python data_scripts/get_weights.py dino_vitb8 point_mae --folder ~/weights
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from lib.errors import InputError, run_command_line
from lib.extractors.weights import WEIGHTS, WeightFile, download_weights, find_weights, registered


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """Command line: names, folder, or the list of all there are."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"one or more of {', '.join(WEIGHTS)}")
    parser.add_argument("--folder", type=Path, help="where to (default: $ANOMALY_WEIGHTS, or weights/ of the project)")
    parser.add_argument("--list", action="store_true", help="print all names, licenses, sources and places, fetch none")
    return parser.parse_args(arguments)


def description(file: WeightFile, folder: Path | None) -> str:
    """What the registry says of a file, and where it lies."""
    try:
        place = str(find_weights(file.name, folder))
    except InputError:
        place = "not here"
    size = "" if file.size_bytes is None else f"{file.size_bytes / 1e6:.0f} MB, "
    facts = [
        f"{file.name}: {file.filename}, {size}license {file.license}, {place}",
        f"cite {file.citation}",
        f"SHA-256 {file.sha256 or 'in its card'} ({file.source_note})",
        *file.urls,
    ]
    return "\n    ".join(facts)


def main(arguments: list[str] | None = None) -> None:
    """Fetch each file that is not there yet and print its path; `InputError` for a name nobody knows, before any."""
    chosen = parse_arguments(arguments)
    if chosen.list:
        print("\n".join(description(file, chosen.folder) for file in WEIGHTS.values()))
        return
    if not chosen.names:
        raise InputError(f"no weights named; name one or more of {', '.join(WEIGHTS)}, or see --list")
    for file in [registered(name) for name in chosen.names]:
        path = download_weights(file.name, chosen.folder, progress=sys.stderr.isatty())
        print(f"{file.name}: {path}, verified; license {file.license}; cite {file.citation}")


if __name__ == "__main__":
    sys.exit(run_command_line(main))
