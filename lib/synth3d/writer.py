"""Writing one category in the MVTec 3D-AD layout, whole or not at all."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import tifffile
from filelock import FileLock
from PIL import Image
from tqdm import tqdm

from lib.errors import InputError
from lib.runtime import file_sha256, seeded_generator
from lib.synth3d.canvas import canvas_of
from lib.synth3d.defects import DEFECTS
from lib.synth3d.families import family_of
from lib.synth3d.sample import IMAGE_SIZE_PX, RenderedSample, render_sample
from lib.synth3d.sensor import camera_for

SYNTH3D_VERSION = "1.0"
MANIFEST_NAME = "manifest.json"


@dataclass(frozen=True)
class Counts:
    """Number of samples in each part of one category."""

    train: int = 60
    validation: int = 8
    test_good: int = 30
    test_per_defect: int = 15


def sample_keys(counts: Counts) -> Iterator[tuple[str, str, int]]:
    """Split, defect and index of every sample, in writing order."""
    groups = [("train", "good", counts.train), ("validation", "good", counts.validation)]
    groups += [("test", "good", counts.test_good)] + [("test", defect, counts.test_per_defect) for defect in DEFECTS]
    for split, defect, count in groups:
        yield from ((split, defect, index) for index in range(count))


def write_category(root: Path, category: str, seed: int, counts: Counts = Counts(), progress: bool = True) -> Path:
    """Path of the manifest of `<root>/<category>`, written if it is not there already with the same parameters.

    Files and manifest go to a temporary folder beside, which is renamed when complete, so a category that is there is
    whole. Two processes that want the same one wait for each other. Each sample has its own random stream: other
    counts keep the samples.

    Args:
        root: folder of the dataset.
        category: one of the four families.
        seed: data seed.
        counts: number of samples.
        progress: show a progress bar.

    Raises:
        InputError: unknown category, or negative seed or counts.
    """
    family_of(category)
    if seed < 0 or min(asdict(counts).values()) < 0:
        raise InputError(f"seed {seed}, {counts}: synth3d needs numbers of 0 or more")
    folder = Path(root) / category
    description = {"synth3d_version": SYNTH3D_VERSION, "category": category, "seed": seed, "counts": asdict(counts)}
    if _holds(folder, description):
        return folder / MANIFEST_NAME
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_name(f".{category}.lock")):
        if not _holds(folder, description):  # another process may have written it meanwhile
            _replace(folder, description, counts, progress)
    return folder / MANIFEST_NAME


def _replace(folder: Path, description: dict, counts: Counts, progress: bool) -> None:
    """Write the category anew in the place of what is there; the caller holds its lock."""
    temporary, old = (folder.with_name(f".{folder.name}.{kind}.part") for kind in ("new", "old"))
    for leftover in (temporary, old):  # of a run that was killed
        shutil.rmtree(leftover, ignore_errors=True)
    try:
        _write_samples(temporary, description["category"], description["seed"], counts, progress)
        whole = description | {"sha256": folder_sha256(temporary)}
        (temporary / MANIFEST_NAME).write_text(json.dumps(whole, indent=2) + "\n")
        if folder.exists():
            folder.rename(old)
        temporary.rename(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


def _holds(folder: Path, description: dict) -> bool:
    """Whether the folder has a manifest of the same version, category, seed and counts."""
    try:
        found = json.loads((folder / MANIFEST_NAME).read_text())
    except (OSError, json.JSONDecodeError):
        return False
    return {key: found.get(key) for key in description} == description and "sha256" in found


def _write_samples(folder: Path, category: str, seed: int, counts: Counts, progress: bool) -> None:
    camera = asdict(camera_for(canvas_of(IMAGE_SIZE_PX))) | {"pose": np.eye(4).tolist()}
    calibration = folder / "calibration" / "camera_parameters.json"
    calibration.parent.mkdir(parents=True)
    calibration.write_text(json.dumps(camera, indent=2) + "\n")
    keys = list(sample_keys(counts))
    for split, defect, index in tqdm(keys, desc=f"synth3d {category}", unit="sample", disable=not progress):
        sample = render_sample(category, defect, seeded_generator(seed, category, split, defect, index))
        _write_sample(folder / split / defect, f"{index:03d}", sample, with_mask=split == "test")


def _write_sample(folder: Path, stem: str, sample: RenderedSample, with_mask: bool) -> None:
    for part in ("rgb", "xyz", "gt") if with_mask else ("rgb", "xyz"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    Image.fromarray(sample.rgb).save(folder / "rgb" / f"{stem}.png", compress_level=3)
    # Uncompressed and without a time stamp: every reader opens it, and equal samples give equal bytes.
    tifffile.imwrite(folder / "xyz" / f"{stem}.tiff", sample.cloud, photometric="rgb", metadata=None, software=False)
    if with_mask:
        Image.fromarray(sample.gt_mask.astype(np.uint8) * 255).save(folder / "gt" / f"{stem}.png")


def folder_sha256(folder: Path) -> str:
    """One hexadecimal SHA-256 over relative path and content hash of every file but the manifest, sorted by path."""
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file() and path.name != MANIFEST_NAME):
        digest.update(f"{path.relative_to(folder).as_posix()} {file_sha256(path)}\n".encode())
    return digest.hexdigest()
