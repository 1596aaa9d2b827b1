"""Samples in the MVTec 3D-AD layout: listing and reading, and one clear line for what is missing or unpaired.

Layout: `<root>/<category>/{train,validation,test}/<defect or good>/{rgb/NNN.png, xyz/NNN.tiff, gt/NNN.png}`.
Reading never writes: the released preprocessing overwrites the dataset in place, this one leaves every file
as it is.

A prepared copy (`lib.prepared_copy`) has the same layout, a `manifest.json` in each category that says so, and beside
rgb, xyz and gt a folder `depth`, for the background is gone from its clouds.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lib.config import check_choice
from lib.decoding import read_cloud, read_depth, read_gt_mask, read_rgb
from lib.errors import InputError

SPLITS = ("train", "validation", "test")
GOOD = "good"
SUFFIXES = {"rgb": ".png", "xyz": ".tiff", "gt": ".png"}
PREPARED_SUFFIXES = {**SUFFIXES, "depth": ".tiff"}
MANIFEST = "manifest.json"
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
NAMES_SHOWN = 5


@dataclass(frozen=True)
class SampleFiles:
    """Where one sample lies; `gt` is None where the layout needs no mask (nominal samples), `depth` unless prepared."""

    category: str
    split: str
    defect: str
    stem: str
    rgb: Path
    xyz: Path
    gt: Path | None
    depth: Path | None = None

    @property
    def sample_id(self) -> str:
        """Name of the sample within its category: "<split>/<defect>/<stem>"."""
        return f"{self.split}/{self.defect}/{self.stem}"

    @property
    def label(self) -> int:
        """1 for an anomalous sample, 0 for a nominal one; the folder decides."""
        return int(self.defect != GOOD)


@dataclass(frozen=True, eq=False)
class RawSample:
    """One sample as it lies on disk: rgb (H, W, 3) uint8, cloud (H, W, 3) float32 m, gt_mask (H, W) bool.

    Of a prepared copy the cloud is that of the object alone, and depth (H, W) float32 m is what the camera saw, with
    the background, 0 = no return. None where the sample is as the sensor gave it: its cloud holds both.
    """

    files: SampleFiles
    rgb: np.ndarray
    cloud: np.ndarray
    gt_mask: np.ndarray
    depth: np.ndarray | None = None


@dataclass(frozen=True, eq=False)
class Sample:
    """One prepared sample, S = 224: what every extractor takes.

    rgb (3, S, S) float32 ImageNet-normalised; cloud (3, S, S) float32 metres, (0, 0, 0) off the object;
    foreground and gt_mask (S, S) bool; label 1 = anomalous; depth (S, S) float32 metres as the camera saw it, with
    the background, 0 = no return; rgb_padded (P, P, 3) uint8, the whole image before it was resized to S.
    """

    sample_id: str
    category: str
    split: str
    defect: str
    label: int
    rgb: torch.Tensor
    cloud: torch.Tensor
    foreground: torch.Tensor
    gt_mask: torch.Tensor
    depth: torch.Tensor
    rgb_padded: np.ndarray


def denormalize_rgb(rgb: torch.Tensor) -> torch.Tensor:
    """(..., 3, H, W) float32 colors in [0, 1], for display.

    Args:
        rgb: (..., 3, H, W) float32, ImageNet-normalised.
    """
    mean, std = (rgb.new_tensor(values).view(3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
    return (rgb * std + mean).clamp(0.0, 1.0)


def _names(names: list[str]) -> str:
    """The names, comma-separated, at most `NAMES_SHOWN` of them."""
    more = [f"and {len(names) - NAMES_SHOWN} more"] if len(names) > NAMES_SHOWN else []
    return ", ".join(names[:NAMES_SHOWN] + more) or "nothing"


def _folders(folder: Path) -> list[str]:
    """Sorted names of the visible folders inside one folder."""
    return sorted(path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def _stems(folder: Path, suffix: str) -> set[str]:
    """Stems of the visible files of one kind; none where the folder is missing."""
    if not folder.is_dir():
        return set()
    return {path.stem for path in folder.iterdir() if path.suffix == suffix and not path.name.startswith(".")}


def _split_folder(root: Path, category: str, split: str) -> Path:
    """Folder of one split, or the InputError that says what part of the path is missing and what is there."""
    check_choice("split", split, SPLITS)
    if not root.is_dir():
        raise InputError(f"{root}: no such folder; set data_root to the folder that holds the categories")
    for parent, name in ((root, category), (root / category, split)):
        if not name or name not in _folders(parent):
            there = _names(_folders(parent))
            raise InputError(f"{parent / name}: no such folder; beside it: {there}; check the folder and the category")
    return root / category / split


def stems_by_kind(folder: Path, of_copy: bool = False) -> dict[str, set[str]]:
    """Stems of the files of each kind in one defect folder."""
    suffixes = PREPARED_SUFFIXES if of_copy else SUFFIXES
    return {kind: _stems(folder / kind, suffix) for kind, suffix in suffixes.items()}


def lacking_partners(stems: dict[str, set[str]], defect: str) -> dict[str, list[str]]:
    """Sorted stems that each kind lacks; good samples need no mask where none has one."""
    needed = [kind for kind in stems if kind != "gt" or defect != GOOD or stems["gt"]]
    every_stem = set.union(*stems.values())
    return {kind: sorted(every_stem - stems[kind]) for kind in needed if every_stem - stems[kind]}


def _paired_stems(folder: Path, defect: str, of_copy: bool) -> list[str]:
    """Sorted stems of one defect folder, or the InputError that lists what lacks a partner."""
    stems = stems_by_kind(folder, of_copy)
    every_stem = set.union(*stems.values())
    if not every_stem:
        swapped = _stems(folder / "rgb", ".tiff") and _stems(folder / "xyz", ".png")
        remedy = "rgb holds TIFFs and xyz PNGs: swap the two folders" if swapped else "fetch the data again"
        raise InputError(f"{folder}: no samples; expected rgb/*.png and xyz/*.tiff; {remedy}")
    if lacking := lacking_partners(stems, defect):
        missing = "; ".join(
            f"no {kind}/*{PREPARED_SUFFIXES[kind]} for {_names(found)}" for kind, found in lacking.items()
        )
        raise InputError(f"{folder}: unpaired files: {missing}; add them or remove their partners")
    return sorted(every_stem)


def category_manifest(root: Path | str, category: str) -> dict[str, Any]:
    """What a category that this project wrote says of itself; empty for a dataset as its authors publish it.

    Raises:
        InputError: a manifest that is no JSON mapping.
    """
    path = Path(root) / category / MANIFEST
    if not path.is_file():
        return {}
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: no readable manifest ({error}); make this folder anew") from error
    if not isinstance(manifest, dict):
        raise InputError(f"{path}: holds no mapping; make this folder anew")
    return manifest


def is_prepared(root: Path | str, category: str) -> bool:
    """True for a category of a prepared copy."""
    return "preparation" in category_manifest(root, category)


def splits_of(root: Path | str, category: str) -> tuple[str, ...]:
    """Splits that a dataset of one's own has; "train" in any case, which every method needs."""
    return tuple(split for split in SPLITS if split == "train" or (Path(root) / category / split).is_dir())


def list_samples(root: Path | str, category: str, split: str) -> tuple[SampleFiles, ...]:
    """Files of every sample of one split, sorted by defect and stem (the released loaders leave defects unsorted).

    Args:
        root: folder that holds the categories.
        category: for instance "biscuit" or "bagel".
        split: "train" and "validation" hold only nominal samples, "test" also anomalous ones.

    Raises:
        InputError: a missing folder, unpaired files, anomalous folders outside test, or no samples at all.
    """
    folder, of_copy = _split_folder(Path(root), category, split), is_prepared(root, category)
    defects = _folders(folder)
    if split != "test" and defects not in ([GOOD], []):
        raise InputError(f"{folder}: holds {_names(defects)}; only test may hold more than {GOOD}: move it there")
    samples = tuple(
        SampleFiles(
            category,
            split,
            defect,
            stem,
            rgb=folder / defect / "rgb" / f"{stem}.png",
            xyz=folder / defect / "xyz" / f"{stem}.tiff",
            gt=folder / defect / "gt" / f"{stem}.png" if defect != GOOD else None,
            depth=folder / defect / "depth" / f"{stem}.tiff" if of_copy else None,
        )
        for defect in defects
        for stem in _paired_stems(folder / defect, defect, of_copy)
    )
    if not samples:
        raise InputError(f"{folder}: no samples; expected a folder {GOOD} with rgb and xyz; fetch the data again")
    return samples


def _check_same_size(array: np.ndarray, path: Path, rgb: np.ndarray, rgb_path: Path) -> None:
    """Raises the InputError that names both files when their pixels cannot correspond."""
    if array.shape[:2] != rgb.shape[:2]:
        sizes = f"{array.shape[:2]} but {rgb_path} is {rgb.shape[:2]}"
        raise InputError(f"{path}: height and width {sizes}; export both on the same pixels")


def read_sample(files: SampleFiles) -> RawSample:
    """One sample as it lies on disk, checked; the files are only read.

    Args:
        files: from `list_samples`.

    Raises:
        InputError: sizes that differ, or a file that `lib.decoding` refuses.
    """
    rgb, cloud = read_rgb(files.rgb), read_cloud(files.xyz)
    _check_same_size(cloud, files.xyz, rgb, files.rgb)
    gt_mask, depth = np.zeros(rgb.shape[:2], dtype=bool), None
    if files.gt is not None:
        gt_mask = read_gt_mask(files.gt)
        _check_same_size(gt_mask, files.gt, rgb, files.rgb)
    if files.depth is not None:
        depth = read_depth(files.depth)
        _check_same_size(depth, files.depth, rgb, files.rgb)
    return RawSample(files, rgb, cloud, gt_mask, depth)
