"""A check lists every fault and goes on; a sound dataset has none."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from data_scripts import check_data
from lib.data import list_samples
from lib.dataset_check import check_category, check_raw_eyecandies
from lib.datasets import Counts, find_dataset
from lib.errors import InputError
from lib.preparation import PREPARATION_DEFAULT
from lib.prepared_copy import prepare_category
from tests.fixtures_eyecandies import write_raw_category
from tests.fixtures_mvtec import write_category

KNOWN = replace(
    find_dataset("mvtec3d"), counts={"dome": Counts(3, 1, 2, 4)}, sizes_px={"dome": (120, 100)}
)  # fmt: skip
KNOWN_CANDY = replace(
    find_dataset("eyecandies"), counts={"Confetto": Counts(3, 1, 2, 2)}, sizes_px={"Confetto": (60, 60)}
)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_category(tmp_path / "raw")
    return tmp_path / "raw"


def problems(root: Path, **named) -> str:
    return "\n".join(check_category(root, "dome", **named).problems)


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_sound_category_has_no_fault(root: Path, jobs: int) -> None:
    report = check_category(root, "dome", KNOWN, jobs)
    assert report.problems == []
    assert report.table.loc[[("train", "good")], "samples"].tolist() == [3]
    assert report.table["expected"].tolist()[:2] == [3, 1]
    assert (report.table["size, px"] == "120 x 100").all()
    assert report.table["no return, %"].between(0.5, 1.5).all()


def test_every_fault_is_listed_and_the_rest_is_still_looked_at(root: Path) -> None:
    dome = root / "dome"
    (dome / "train/good/xyz/001.tiff").unlink()
    cloud = tifffile.imread(dome / "train/good/xyz/000.tiff")
    tifffile.imwrite(dome / "train/good/xyz/000.tiff", cloud * 1000, photometric="rgb")
    tifffile.imwrite(dome / "validation/good/xyz/000.tiff", np.zeros_like(cloud), photometric="rgb")
    (dome / "test/hole/rgb/000.png").write_bytes(b"\x89PNG\r\n")
    Image.fromarray(np.zeros((120, 100), dtype=np.uint8)).save(dome / "test/stain/gt/001.png")
    (dome / "test/good/rgb/notes.txt").write_text("mine")
    found = problems(root)
    for words in (
        "unpaired files: no xyz/*.tiff for 001", "if they are millimetres, divide by 1000",
        "every pixel is (0, 0, 0)", "not a readable PNG", "marks no pixel of an anomalous sample",
        "holds 1 files other than *.png, such as notes.txt",
    ):  # fmt: skip
        assert words in found, words
    assert len(found.splitlines()) == 6


def test_wrong_counts_and_sizes_are_told(root: Path) -> None:
    other = replace(KNOWN, counts={"dome": Counts(4, 1, 2, 3)}, sizes_px={"dome": (800, 800)})
    found = problems(root, dataset=other)
    assert "3 samples in train, the authors count 4" in found
    assert "4 samples in test, anomalous, the authors count 3" in found
    assert "images of 120 x 100 pixels, the authors' are 800 x 800" in found


def test_swapped_folders_are_told(root: Path) -> None:
    good = root / "dome" / "train" / "good"
    for a, b in (("rgb", "other"), ("xyz", "rgb"), ("other", "xyz")):
        (good / a).rename(good / b)
    assert "rgb holds TIFFs and xyz PNGs: swap the two folders" in problems(root)


def test_missing_folders_are_told(root: Path) -> None:
    shutil.rmtree(root / "dome" / "validation")
    assert "validation: no such folder" in problems(root, dataset=KNOWN)
    assert problems(root) == ""  # of a part of one's own train alone will do
    assert len(check_category(root, "mug").problems) == 1


def test_clouds_that_were_prepared_in_place_are_told(root: Path) -> None:
    for path in root.rglob("*.tiff"):
        cloud = tifffile.imread(path)
        cloud[:10] = cloud[-10:] = cloud[:, :10] = cloud[:, -10:] = 0
        tifffile.imwrite(path, cloud, photometric="rgb")
    assert "10 of 10 clouds have an empty border" in problems(root)


def test_a_prepared_copy_is_checked_by_its_hashes(root: Path, tmp_path: Path) -> None:
    folder = prepare_category(root, tmp_path / "copy", "dome", PREPARATION_DEFAULT)
    assert problems(tmp_path / "copy", dataset=KNOWN) == ""
    path = list_samples(tmp_path / "copy", "dome", "train")[0].rgb
    Image.fromarray(np.asarray(Image.open(path))[::-1]).save(path)
    (folder / "test/hole/depth/001.tiff").unlink()
    found = problems(tmp_path / "copy", dataset=KNOWN)
    assert "000.png: changed since it was prepared" in found and "depth/001.tiff: missing" in found


def test_raw_eyecandies_are_checked(tmp_path: Path) -> None:
    folder = write_raw_category(tmp_path)
    report = check_raw_eyecandies(tmp_path, "Confetto", KNOWN_CANDY)
    assert report.problems == [] and report.table["samples"].tolist() == [3, 1, 2, 2]
    (folder / "train/data/000_pose.txt").write_text("none")
    (folder / "val/data/000_depth.png").unlink()
    found = "\n".join(check_raw_eyecandies(tmp_path, "Confetto", KNOWN_CANDY).problems)
    assert "000_pose.txt: no numbers" in found and "lacks 000_depth.png" in found
    assert "0 samples in validation, the authors count 1" in found


def test_a_folder_of_something_else_and_a_wrong_category_are_told_once(root: Path) -> None:
    with pytest.raises(InputError, match=r"holds none of bagel, .*; there are: "):
        check_data.main(["mvtec3d", "--folder", str(root)])
    with pytest.raises(InputError, match="category of mvtec3d 'begel' is unknown"):
        check_data.main(["mvtec3d", "--folder", str(root), "--category", "begel"])
