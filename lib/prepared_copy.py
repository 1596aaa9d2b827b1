"""A prepared copy of a dataset: objects without their background, padded, beside the raw data and never over it.

The released preprocessing overwrites the raw clouds, so that a second run fits planes to objects, and nobody can tell
afterwards what was done. Here the copy lies in a folder of its own; a manifest in each category names every setting and
the hashes of what was read and written. Letters: H, W pixels; P side of the padded square.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from filelock import FileLock
from PIL import Image

from lib import grids
from lib.config import stored_settings
from lib.data import MANIFEST, SPLITS, SampleFiles, category_manifest, is_prepared, list_samples, read_sample
from lib.errors import InputError
from lib.parallel import in_processes
from lib.preparation import PREPARATION_SEED, PreparationConfig, PreparationSteps, preparation_steps
from lib.runtime import file_sha256

MAX_LISTED = 20
SHEET = "contact_sheet.png"
SHEET_SAMPLES = 6
SHEET_CELL_PX = 160


@dataclass(frozen=True, eq=False)
class PreparedArrays:
    """What is written of one sample: rgb (P, P, 3) uint8, xyz (P, P, 3) and depth (P, P) float32 m, gt (P, P) bool."""

    rgb: np.ndarray
    xyz: np.ndarray
    depth: np.ndarray
    gt: np.ndarray | None


@dataclass(frozen=True)
class Job:
    """One sample to prepare: its files, where it goes, and how; whether the contact sheet shows it."""

    files: SampleFiles
    target: Path
    config: PreparationConfig
    shown: bool = False


def prepare_category(
    source: Path,
    target: Path,
    category: str,
    config: PreparationConfig,
    jobs: int = 1,
    progress: bool = False,
    splits: Sequence[str] = SPLITS,
) -> Path:
    """Folder of the prepared copy of a category; the source is only read.

    Args:
        source: folder with the categories as their authors publish them.
        target: folder for the copy.
        category: its folder's name.
        config: settings, written to the manifest.
        jobs: processes.
        progress: show a bar over samples.
        splits: that must be there and are prepared.

    Raises:
        InputError: source and target overlap, the source is a prepared copy itself, the copy is there already, or some
            samples cannot be prepared; then all of them are named, and nothing is left behind.
    """
    check_apart(source, target)
    if is_prepared(source, category):
        raise InputError(
            f"{source / category} is a prepared copy already; prepare the raw data, or use this copy as it is"
        )
    files = [entry for split in splits for entry in list_samples(source, category, split)]
    settings = {"preparation": stored_settings(config), "seed": PREPARATION_SEED}
    return write_copy(
        target / category, settings, lambda folder: [Job(entry, folder, config) for entry in files],
        prepare_one, jobs, progress,
    )  # fmt: skip


def check_apart(source: Path, target: Path) -> None:
    """Raise `InputError` where writing to the target would touch the source."""
    raw, copy = Path(source).resolve(), Path(target).resolve()
    if raw == copy or raw in copy.parents or copy in raw.parents:
        raise InputError(
            f"{target}: lies in {source} or holds it; give a folder beside it, so that the raw data stays as it is"
        )


def write_copy(
    folder: Path,
    settings: Mapping[str, Any],
    plan: Callable[[Path], Sequence[Any]],
    work: Callable[[Any], dict[str, Any]],
    jobs: int,
    progress: bool,
) -> Path:
    """The folder of a category's copy, complete with manifest and contact sheet, or not there at all.

    Args:
        folder: where it comes.
        settings: for the manifest.
        plan: from the folder that samples are written into for now to one job for each.
        work: writes the sample of one job; returns its entry for the manifest, or {"problem": text}.
        jobs, progress: as for `prepare_category`.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.parent / f".{folder.name}.lock"):
        if folder.exists():
            raise InputError(
                f"{folder} is there already; a second preparation would change nothing: use it, or delete it first"
            )
        unfinished = folder.with_name(f".{folder.name}.unfinished")
        shutil.rmtree(unfinished, ignore_errors=True)
        try:
            planned = with_some_shown(plan(unfinished))
            entries = list(in_processes(work, planned, jobs, f"prepare {folder.name}", progress))
            _check_all_well(folder, entries)
            sheet = np.vstack([entry.pop("sheet") for entry in entries if "sheet" in entry])
            Image.fromarray(sheet).save(unfinished / SHEET)
            _write_manifest(unfinished / MANIFEST, settings, entries)
            os.replace(unfinished, folder)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
    return folder


def with_some_shown(jobs: Sequence[Any]) -> list[Any]:
    """The jobs, some of them marked for the contact sheet, evenly spread over all."""
    chosen = set(np.linspace(0, len(jobs) - 1, SHEET_SAMPLES).astype(int).tolist())
    return [dataclasses.replace(job, shown=number in chosen) for number, job in enumerate(jobs)]


def _check_all_well(folder: Path, entries: Sequence[Mapping[str, Any]]) -> None:
    problems = [entry["problem"] for entry in entries if "problem" in entry]
    if problems:
        more = f"; and {len(problems) - MAX_LISTED} more" if len(problems) > MAX_LISTED else ""
        raise InputError(
            f"{folder.name}: {len(problems)} of {len(entries)} samples cannot be prepared, so nothing was written: "
            f"{'; '.join(problems[:MAX_LISTED])}{more}"
        )


def _write_manifest(path: Path, settings: Mapping[str, Any], entries: Sequence[Mapping[str, Any]]) -> None:
    samples = {entry["id"]: {"read": entry["read"], "written": entry["written"]} for entry in entries}
    written = json.dumps({name: sample["written"] for name, sample in samples.items()}, sort_keys=True)
    overall = hashlib.sha256(written.encode()).hexdigest()
    path.write_text(json.dumps({**settings, "sha256": overall, "samples": samples}, indent=1) + "\n", encoding="utf-8")


def prepare_one(job: Job) -> dict[str, Any]:
    """Write one prepared sample; its manifest entry, or the problem with it."""
    try:
        raw = read_sample(job.files)
        steps = preparation_steps(raw, job.config, PREPARATION_SEED)
    except InputError as error:
        return {"problem": str(error)}
    depth = grids.pad_to_square(raw.cloud[..., 2], job.config.pad_multiple, "zeros")
    gt = None if job.files.gt is None else steps.gt_padded
    arrays = PreparedArrays(steps.rgb_padded, steps.cloud_padded, depth, gt)
    written = write_arrays(job.target / job.files.split / job.files.defect, job.files.stem, arrays)
    sources = (job.files.rgb, job.files.xyz, job.files.gt)
    entry = {
        "id": job.files.sample_id,
        "read": {path.parent.name: file_sha256(path) for path in sources if path is not None},
        "written": written,
    }
    return {**entry, "sheet": steps_row(steps)} if job.shown else entry


def write_arrays(folder: Path, stem: str, arrays: PreparedArrays) -> dict[str, str]:
    """SHA-256 by kind of the files written: rgb and gt as PNG, xyz and depth as float32 TIFF in metres."""
    images = {"rgb": arrays.rgb} | ({} if arrays.gt is None else {"gt": arrays.gt.astype(np.uint8) * 255})
    hashes = {}
    for kind in (*images, "xyz", "depth"):
        (folder / kind).mkdir(parents=True, exist_ok=True)
    for kind, pixels in images.items():
        Image.fromarray(pixels).save(path := folder / kind / f"{stem}.png")
        hashes[kind] = file_sha256(path)
    for kind, values in (("xyz", arrays.xyz), ("depth", arrays.depth)):
        photometric = "rgb" if values.ndim == 3 else "minisblack"
        tifffile.imwrite(path := folder / kind / f"{stem}.tiff", values, photometric=photometric, compression="zlib")
        hashes[kind] = file_sha256(path)
    return hashes


def steps_row(steps: PreparationSteps) -> np.ndarray:
    """Row of the contact sheet for one sample."""
    return sheet_row(steps.raw.rgb, steps.raw.cloud[..., 2], steps.cloud_cleaned[..., 2], steps.component)


def sheet_row(rgb: np.ndarray, depth: np.ndarray, object_depth: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """(cell, 4 cells, 3) uint8: RGB and depth before, depth and RGB of the object after.

    Args:
        rgb: (H, W, 3) uint8.
        depth, object_depth: (H, W) metres, 0 = no return.
        mask: (H, W) bool, the object.
    """
    on_object = np.where(mask[..., None], rgb, 255).astype(np.uint8)
    return np.hstack([thumbnail(picture) for picture in (rgb, gray_depth(depth), gray_depth(object_depth), on_object)])


def gray_depth(depth: np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8 picture of a depth image (H, W): near is bright, no return is dark red."""
    seen = depth[depth != 0]
    low, high = np.percentile(seen, (1, 99)) if len(seen) else (0.0, 1.0)
    bright = 255 * np.clip((high - depth) / max(high - low, 1e-9), 0, 1)
    picture = np.repeat(bright[..., None], 3, axis=2).astype(np.uint8)
    picture[depth == 0] = (90, 20, 20)
    return picture


def thumbnail(picture: np.ndarray) -> np.ndarray:
    """(cell, cell, 3) uint8 smaller copy on white."""
    image = Image.fromarray(picture)
    image.thumbnail((SHEET_CELL_PX - 4, SHEET_CELL_PX - 4))
    sheet = Image.new("RGB", (SHEET_CELL_PX, SHEET_CELL_PX), "white")
    sheet.paste(image, ((SHEET_CELL_PX - image.width) // 2, (SHEET_CELL_PX - image.height) // 2))
    return np.asarray(sheet)


def check_preparation(root: Path, category: str, config: PreparationConfig, later: Collection[str] = ()) -> None:
    """Raise `InputError` where a prepared copy was made with other settings than asked for; raw data is never wrong.

    Args:
        root, category: of the data.
        config: asked for.
        later: names of settings that are still applied to a copy.
    """
    made_with = category_manifest(root, category).get("preparation")
    if made_with is None:
        return
    wanted = stored_settings(config)
    different = [name for name in wanted if name not in later and made_with.get(name, ...) != wanted[name]]
    if different:
        raise InputError(
            f"{root / category}: prepared with another {', '.join(different)} than the profile asks for; prepare again "
            "into another folder, or name the other preparation in the profile or its method"
        )


def changed_files(root: Path, category: str, progress: bool = False) -> list[str]:
    """One line for each file of a prepared copy that is missing or not as it was written."""
    samples = category_manifest(root, category)["samples"]
    suffix = {"rgb": ".png", "gt": ".png", "xyz": ".tiff", "depth": ".tiff"}
    found = []
    for sample_id, facts in samples.items():
        folder, stem = (root / category / sample_id).parent, Path(sample_id).name
        for kind, expected in facts["written"].items():
            path = folder / kind / f"{stem}{suffix[kind]}"
            if not path.is_file():
                found.append(f"{path}: missing; prepare this category again")
            elif file_sha256(path) != expected:
                found.append(f"{path}: changed since it was prepared; prepare this category again")
    return found
