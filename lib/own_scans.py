"""A folder of scans into the layout of MVTec 3D-AD: every pair converted and checked, all of them or none."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tifffile
from filelock import FileLock
from PIL import Image

from lib.camera import COLOR_SUFFIXES, SUFFIXES, Intrinsics, read_color, read_scan
from lib.config import check_choice
from lib.data import GOOD, SPLITS
from lib.decoding import check_cloud, read_gt_mask
from lib.errors import InputError
from lib.parallel import in_processes

FOLDER_NAME = re.compile(r"\w[\w-]*")
FAR_M = 10.0  # as far as `lib.decoding` believes a sensor


@dataclass(frozen=True)
class ScanFolders:
    """Where scans lie: files of one sample have the same stem in each folder.

    Attributes:
        color: color images.
        scans: depth images or clouds.
        kind: "depth", "organised" or "points"; see `lib.camera.read_scan`.
        masks: of defects, one-channel PNG, nonzero = defect; None for good samples.
        intrinsics: of the color images.
        unit_m: length of the scans' unit in metres.
        far_m: what is farther counts as not seen.
    """

    color: Path
    scans: Path
    kind: str
    masks: Path | None = None
    intrinsics: Intrinsics | None = None
    unit_m: float = 1.0
    far_m: float = FAR_M


@dataclass(frozen=True)
class Job:
    """One sample to convert and the defect folder that it goes to."""

    folders: ScanFolders
    color: Path
    scan: Path
    mask: Path | None
    target: Path


def convert_scans(
    folders: ScanFolders, target: Path, part: str, split: str, defect: str = GOOD, jobs: int = 1, progress: bool = False
) -> Path:
    """The folder `<target>/<part>/<split>/<defect>` with all scans; nothing is left where one cannot be read.

    Args:
        folders: what to read; it stays as it is.
        target: folder of the dataset; made if missing.
        part: name of the category.
        split: "train" or "validation" for good scans, "test" for any.
        defect: "good" or a name for what is wrong.
        jobs: processes.
        progress: show a bar.

    Raises:
        InputError: files without a partner, an unreadable or empty scan, a defect outside test, defects without masks,
            a folder that is there already, or a name that would leave the dataset's folder.
    """
    check_choice("split", split, SPLITS)
    if defect != GOOD and (split != "test" or folders.masks is None):
        raise InputError(f"{defect}: scans with a defect belong into test, and each needs a mask")
    for name, word in (("part", part), ("defect", defect)):
        if not FOLDER_NAME.fullmatch(word):
            raise InputError(f"{name} {word!r} becomes a folder's name; use letters, digits, - and _")
    if not (folders.unit_m > 0 and folders.far_m > 0):
        raise InputError(f"unit {folders.unit_m} m, farthest {folders.far_m} m: give numbers above 0")
    final = Path(target) / part / split / defect
    Path(target).mkdir(parents=True, exist_ok=True)
    with FileLock(Path(target) / f".{part}.lock"):  # of the part: its folders are removed where they are left empty
        if final.exists():
            raise InputError(f"{final} is there already; give another name, or delete it first")
        unfinished = final.with_name(f".{defect}.unfinished")
        shutil.rmtree(unfinished, ignore_errors=True)
        try:
            planned = paired(folders, unfinished)
            problems = [text for text in in_processes(convert_one, planned, jobs, f"{part} {split}", progress) if text]
            if problems:
                raise InputError(f"{len(problems)} of {len(planned)} scans cannot be used: {'; '.join(problems[:20])}")
            os.replace(unfinished, final)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
            for folder in (final.parent, final.parent.parent):  # an empty split would count as a faulty one
                with suppress(OSError):
                    folder.rmdir()
    return final


def paired(folders: ScanFolders, target: Path) -> list[Job]:
    """One job for each stem; `InputError` lists what lacks a partner."""
    color, scans = _by_stem(folders.color, COLOR_SUFFIXES), _by_stem(folders.scans, SUFFIXES[folders.kind])
    masks = _by_stem(folders.masks, (".png",)) if folders.masks is not None else dict.fromkeys(color)
    every = sorted(color.keys() | scans.keys() | masks.keys())
    kinds = {"color image": color, "scan": scans, "mask": masks}
    lacking = [f"no {name} for {stem}" for name, found in kinds.items() for stem in every if stem not in found]
    if lacking:
        more = f" and {len(lacking) - 5} more" if len(lacking) > 5 else ""
        raise InputError(f"{folders.scans}: {', '.join(lacking[:5])}{more}; files of one sample share their stem")
    return [Job(folders, color[stem], scans[stem], masks[stem], target) for stem in every]


def _by_stem(folder: Path, suffixes: Sequence[str]) -> dict[str, Path]:
    """Files of some kinds by stem; `InputError` where there are none or two share one."""
    if not Path(folder).is_dir():
        raise InputError(f"{folder}: no such folder; give the one with the files")
    files = [p for p in sorted(Path(folder).iterdir()) if p.suffix.lower() in suffixes and not p.name.startswith(".")]
    found = {path.stem: path for path in files}
    if not files or len(found) < len(files):
        what = "two files share a stem" if files else f"no files; expected {', '.join(suffixes)}"
        raise InputError(f"{folder}: {what}")
    return found


def convert_one(job: Job) -> str:
    """Write one sample; what is wrong with it, or nothing."""
    folders = job.folders
    try:
        rgb = read_color(job.color)
        cloud = read_scan(job.scan, folders.kind, folders.intrinsics, folders.unit_m, rgb.shape[:2], folders.far_m)
        check_cloud(cloud, job.scan)
        mask = None if job.mask is None else read_gt_mask(job.mask)
        if mask is not None and mask.shape != rgb.shape[:2]:
            raise InputError(f"{job.mask}: {mask.shape} pixels, the color image has {rgb.shape[:2]}")
    except InputError as error:
        return str(error)
    for kind in ("rgb", "xyz", "gt")[: 2 if mask is None else 3]:
        (job.target / kind).mkdir(parents=True, exist_ok=True)
    Image.fromarray(rgb).save(job.target / "rgb" / f"{job.color.stem}.png")
    tifffile.imwrite(job.target / "xyz" / f"{job.color.stem}.tiff", cloud, photometric="rgb")
    if mask is not None:
        Image.fromarray(mask.astype(np.uint8) * 255).save(job.target / "gt" / f"{job.color.stem}.png")
    return ""
