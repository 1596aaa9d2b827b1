"""Compare the experiment records of two folders, for instance of a run on a cluster and of one on this machine.

    python data_scripts/compare_records.py runs/demo/records ../other/runs/demo/records

Times, machines, versions and hashes of code and data are not compared; all settings, metrics, scores and curves are.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from lib.errors import InputError, run_command_line
from lib.records import comparable, differences, read_record


def record_files(folder: Path) -> dict[str, Path]:
    """Records under a folder by their path within it, in order.

    Raises:
        InputError: no such folder, or no record in it.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; give one with records, such as runs/demo/records")
    found = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*.json"))}
    if not found:
        raise InputError(f"{folder} holds no record; give a folder such as runs/demo/records, or run experiments first")
    return found


def compare(first: Path, second: Path, tolerance: float) -> int:
    """Exit status: 0 when the folders share records and all shared ones agree; prints differences and counts.

    Args:
        first, second: folders of records.
        tolerance: largest absolute difference of two numbers that still agree.
    """
    here, there = record_files(first), record_files(second)
    shared = [name for name in here if name in there]
    num_different = 0
    for name in shared:
        records = (comparable(read_record(path)) for path in (here[name], there[name]))
        lines = differences(*records, tolerance, name)
        num_different += bool(lines)
        print(*lines, sep="\n", end="\n" if lines else "")
    print(f"{len(shared)} records compared: {len(shared) - num_different} equal, {num_different} different")
    for folder, names, others in ((first, here, there), (second, there, here)):
        if alone := len(names.keys() - others.keys()):
            print(f"{alone} only in {folder}")
    return int(num_different > 0 or not shared)


def main() -> int:
    """Command line: FOLDER FOLDER [--tolerance X]; exit status 1 on differences or where nothing is shared."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("first", type=Path)
    parser.add_argument("second", type=Path)
    parser.add_argument("--tolerance", type=float, default=0.0, help="numbers may differ by so much (default: 0)")
    arguments = parser.parse_args()
    return compare(arguments.first, arguments.second, arguments.tolerance)


if __name__ == "__main__":
    sys.exit(run_command_line(main))
