"""What a dataset folder holds against what it should: counts, pairs, sizes, units, missing returns, and every fault.

Reading stops at the first fault (`lib.data`); a check goes on and lists them all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lib import eyecandies
from lib.clouds import border_mask, valid_mask
from lib.data import (
    GOOD,
    PREPARED_SUFFIXES,
    SPLITS,
    SampleFiles,
    is_prepared,
    lacking_partners,
    list_samples,
    read_sample,
    splits_of,
    stems_by_kind,
)
from lib.datasets import Counts, Dataset
from lib.errors import InputError
from lib.parallel import in_processes
from lib.prepared_copy import changed_files

BORDER_PX = 10  # as the preparation looks at
PREPARED_SHARE = 0.5  # of the raw clouds with an empty border: the objects of MVTec 3D-AD never lack their support


@dataclass(frozen=True)
class SampleFacts:
    """What one sample shows: its size, share of pixels without a return, whether its border is empty; or a problem."""

    split: str
    defect: str
    size_px: tuple[int, int] = (0, 0)
    invalid: float = 0.0
    has_empty_border: bool = False
    problem: str = ""


@dataclass(frozen=True)
class CategoryReport:
    """Everything a check found.

    Attributes:
        category: name.
        table: a row for each split and defect: samples, expected, size, share without a return.
        problems: one line for each fault, empty when all is well.
    """

    category: str
    table: pd.DataFrame
    problems: list[str] = field(default_factory=list)


def check_category(
    root: Path, category: str, dataset: Dataset | None = None, jobs: int = 1, progress: bool = False
) -> CategoryReport:
    """Report on one category in the layout of MVTec 3D-AD, raw or prepared.

    Args:
        root: folder with the categories.
        category: its folder's name.
        dataset: known counts and sizes to compare with; without it there are none, and train alone will do.
        jobs: processes.
        progress: show a bar over samples.
    """
    splits = SPLITS if dataset is not None else splits_of(root, category)
    problems, samples = _listed(Path(root), category, splits)
    found = list(in_processes(inspect, samples, jobs, f"check {category}", progress))
    problems += [facts.problem for facts in found if facts.problem]
    of_copy = is_prepared(root, category)
    if of_copy:
        problems += changed_files(Path(root), category)
    else:
        problems += _prepared_in_place(Path(root) / category, found)
    if dataset is not None:
        problems += _wrong_counts(category, found, dataset.counts[category])
        problems += [] if of_copy else _wrong_sizes(category, found, dataset.sizes_px[category])
    return CategoryReport(category, _table(found, None if dataset is None else dataset.counts[category]), problems)


def check_raw_eyecandies(
    root: Path, category: str, dataset: Dataset | None = None, jobs: int = 1, progress: bool = False
) -> CategoryReport:
    """Report on one category of Eyecandies as its authors publish it; arguments as for `check_category`."""
    problems, samples = [], []
    for split in eyecandies.SPLIT_FOLDERS:
        try:
            samples += eyecandies.find_raw(Path(root), category, split)
        except InputError as error:
            problems.append(str(error))
    found = list(in_processes(inspect_raw_eyecandies, samples, jobs, f"check {category}", progress))
    problems += [facts.problem for facts in found if facts.problem]
    if dataset is not None:
        problems += _wrong_counts(category, found, dataset.counts[category])
        problems += _wrong_sizes(category, found, dataset.sizes_px[category])
    return CategoryReport(category, _table(found, None if dataset is None else dataset.counts[category]), problems)


def _listed(root: Path, category: str, splits: Sequence[str]) -> tuple[list[str], list[SampleFiles]]:
    """Faults in the folders, and all samples that are complete."""
    problems: list[str] = []
    samples: list[SampleFiles] = []
    for split in splits:
        try:
            samples += list_samples(root, category, split)
        except InputError as error:
            problems.append(str(error))
            samples += _complete_samples(root, category, split)
    for split in splits:
        problems += _strange_files(root / category / split)
    return problems, samples


def _complete_samples(root: Path, category: str, split: str) -> list[SampleFiles]:
    """Those samples of a faulty split that have all their files."""
    folder = root / category / split
    if not folder.is_dir():
        return []
    samples = []
    for defect in sorted(path.name for path in folder.iterdir() if path.is_dir()):
        stems = stems_by_kind(folder / defect)
        lacking = {stem for found in lacking_partners(stems, defect).values() for stem in found}
        for stem in sorted(set.union(*stems.values()) - lacking):
            rgb, xyz, gt = (
                folder / defect / kind / f"{stem}{PREPARED_SUFFIXES[kind]}" for kind in ("rgb", "xyz", "gt")
            )
            samples.append(SampleFiles(category, split, defect, stem, rgb, xyz, None if defect == GOOD else gt))
    return samples


def _strange_files(folder: Path) -> list[str]:
    """One line for each folder rgb, xyz, gt or depth that holds files of another kind."""
    found = []
    for place in sorted(path for path in folder.glob("*/*") if path.is_dir() and path.name in PREPARED_SUFFIXES):
        suffix = PREPARED_SUFFIXES[place.name]
        names = sorted(p.name for p in place.iterdir() if not p.name.startswith(".") and p.suffix != suffix)
        if names:
            found.append(f"{place}: holds {len(names)} files other than *{suffix}, such as {names[0]}; remove them")
    return found


def inspect(files: SampleFiles) -> SampleFacts:
    """Facts of one sample in the layout, or its problem."""
    try:
        raw = read_sample(files)
    except InputError as error:
        return SampleFacts(files.split, files.defect, problem=str(error))
    seen = valid_mask(raw.cloud)
    problem = ""
    if files.gt is not None and not raw.gt_mask.any():
        problem = f"{files.gt}: marks no pixel of an anomalous sample; fetch the file again"
    empty = not seen[border_mask(*seen.shape, BORDER_PX)].any()
    return SampleFacts(files.split, files.defect, seen.shape, 1 - float(seen.mean()), empty, problem)


def inspect_raw_eyecandies(files: eyecandies.RawFiles) -> SampleFacts:
    """Facts of one raw sample of Eyecandies, or its problem; without a return is what the conversion drops."""
    try:
        arrays, mask = eyecandies.convert(files)
    except InputError as error:
        return SampleFacts(files.split, GOOD, problem=str(error))
    defect = eyecandies.BAD if arrays.gt is not None and arrays.gt.any() else GOOD
    return SampleFacts(files.split, defect, mask.shape, 1 - float(mask.mean()))


def _prepared_in_place(folder: Path, found: Sequence[SampleFacts]) -> list[str]:
    """The released preprocessing leaves no other trace than clouds without a border."""
    readable = [facts for facts in found if not facts.problem]
    empty = sum(facts.has_empty_border for facts in readable)
    if not readable or empty <= PREPARED_SHARE * len(readable):
        return []
    return [
        f"{folder}: {empty} of {len(readable)} clouds have an empty border, as if the released preprocessing had "
        "written over them; unpack the archive again: a second preparation would take a plane out of the object"
    ]


def _wrong_counts(category: str, found: Sequence[SampleFacts], counts: Counts) -> list[str]:
    return [
        f"{category}: {number} samples in {place}, the authors count {expected}; fetch what is missing"
        for place, number, expected in _counted(found, counts)
        if number != expected
    ]


def _counted(found: Sequence[SampleFacts], counts: Counts) -> list[tuple[str, int, int]]:
    """Where, how many there are, and how many there should be."""

    def number(split: str, *, good: bool) -> int:
        return sum(facts.split == split and (facts.defect == GOOD) == good for facts in found)

    return [
        ("train", number("train", good=True), counts.train),
        ("validation", number("validation", good=True), counts.validation),
        ("test, good", number("test", good=True), counts.test_good),
        ("test, anomalous", number("test", good=False), counts.test_anomalous),
    ]


def _wrong_sizes(category: str, found: Sequence[SampleFacts], size_px: tuple[int, int]) -> list[str]:
    others = sorted({facts.size_px for facts in found if not facts.problem} - {size_px})
    return [f"{category}: images of {a} x {b} pixels, the authors' are {size_px[0]} x {size_px[1]}" for a, b in others]


def _table(found: Sequence[SampleFacts], counts: Counts | None) -> pd.DataFrame:
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    for place in dict.fromkeys((facts.split, facts.defect) for facts in found):
        here = [facts for facts in found if (facts.split, facts.defect) == place]
        well = [facts for facts in here if not facts.problem]
        sizes = sorted({facts.size_px for facts in well})
        rows[place] = {
            "samples": len(here),
            "faulty": len(here) - len(well),
            "size, px": ", ".join(f"{height} x {width}" for height, width in sizes),
            "no return, %": 100 * float(np.mean([facts.invalid for facts in well])) if well else np.nan,
        }
    table = pd.DataFrame.from_dict(rows, orient="index")
    if counts is not None and len(table):
        expected = {("train", GOOD): counts.train, ("validation", GOOD): counts.validation}
        expected |= {("test", GOOD): counts.test_good}
        table.insert(1, "expected", pd.array([expected.get(place) for place in table.index], dtype="Int64"))
    return table
