"""Listing and reading the MVTec layout: what is read, and the one line for missing and unpaired files."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

from lib.data import SampleFiles, denormalize_rgb, list_samples, read_sample
from lib.errors import InputError
from lib.runtime import file_sha256
from tests.fixtures_mvtec import DEFECTS, make_scene, write_category, write_sample


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_category(tmp_path / "data")
    return tmp_path / "data"


@pytest.fixture
def files(tmp_path: Path) -> SampleFiles:
    """One sample of defect type "hole"; a test damages it and reads it."""
    folder = tmp_path / "dome" / "test" / "hole"
    write_sample(folder, "007", make_scene(7, "hole"), with_gt=True)
    return list_samples(tmp_path, "dome", "test")[0]


def line_for(call) -> str:
    """The InputError's text; it is one line whatever happened."""
    with pytest.raises(InputError) as caught:
        call()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_listing_is_sorted_and_labelled_by_folder(root):
    listed = list_samples(root, "dome", "test")
    expected = [f"test/{defect}/{number:03d}" for defect in ("good", *DEFECTS) for number in range(2)]
    assert [files.sample_id for files in listed] == expected
    assert [files.label for files in listed] == [0, 0, 1, 1, 1, 1]
    assert [files.gt is None for files in listed] == [True, True, False, False, False, False]
    assert len(list_samples(str(root), "dome", "train")) == 3
    assert len(list_samples(root, "dome", "validation")) == 1


def test_listing_ignores_hidden_files(root):
    (root / "dome" / "train" / "good" / "rgb" / "._000.png").write_bytes(b"left by a file manager")
    (root / "dome" / "train" / ".cache").mkdir()
    assert len(list_samples(root, "dome", "train")) == 3


def test_reading_gives_back_what_was_written(files):
    scene, raw = make_scene(7, "hole"), read_sample(files)
    np.testing.assert_array_equal(raw.rgb, scene.rgb)
    np.testing.assert_array_equal(raw.cloud, scene.cloud)
    np.testing.assert_array_equal(raw.gt_mask, scene.gt_mask)
    assert (raw.rgb.dtype, raw.cloud.dtype, raw.gt_mask.dtype) == (np.uint8, np.float32, bool)
    assert raw.files is files
    assert raw.gt_mask.any()


def test_nominal_samples_have_an_empty_mask(root):
    assert not read_sample(list_samples(root, "dome", "train")[0]).gt_mask.any()


def test_reading_leaves_every_file_as_it_is(root):
    before = {path: file_sha256(path) for path in root.rglob("*") if path.is_file()}
    for split in ("train", "validation", "test"):
        for files in list_samples(root, "dome", split):
            read_sample(files)
    assert before == {path: file_sha256(path) for path in root.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("category", "split", "words"),
    [
        ("dome", "trial", ["split 'trial' is unknown", "train, validation, test"]),
        ("tent", "train", ["tent: no such folder", "dome, igloo"]),
        ("", "train", ["no such folder", "dome, igloo"]),
        ("igloo", "test", ["igloo/test: no such folder", "beside it: train"]),
        ("igloo", "train", ["igloo/train: no samples", "fetch the data"]),
    ],
)
def test_missing_folders_are_named_with_what_is_there(root, category, split, words):
    (root / "igloo" / "train").mkdir(parents=True)
    line = line_for(lambda: list_samples(root, category, split))
    assert all(word in line for word in words), line


def test_missing_root_says_what_to_set(tmp_path):
    assert "set data_root" in line_for(lambda: list_samples(tmp_path / "nowhere", "dome", "train"))


def test_a_defect_folder_without_files_is_not_passed_over(root):
    shutil.rmtree(root / "dome" / "test" / "hole")
    (root / "dome" / "test" / "hole").mkdir()
    assert "test/hole: no samples" in line_for(lambda: list_samples(root, "dome", "test"))


def test_anomalous_folders_outside_test_are_refused(root):
    shutil.copytree(root / "dome" / "test" / "hole", root / "dome" / "train" / "hole")
    assert "holds good, hole; only test may" in line_for(lambda: list_samples(root, "dome", "train"))


@pytest.mark.parametrize(
    ("split", "defect", "kind", "suffix"),
    [
        ("train", "good", "rgb", "png"),
        ("train", "good", "xyz", "tiff"),
        ("test", "hole", "gt", "png"),
        ("test", "good", "gt", "png"),
    ],
)
def test_unpaired_files_are_listed_by_stem(root, split, defect, kind, suffix):
    (root / "dome" / split / defect / kind / f"001.{suffix}").unlink()
    assert f"no {kind}/*.{suffix} for 001;" in line_for(lambda: list_samples(root, "dome", split))


def test_missing_masks_of_a_defect_are_an_error_and_of_good_ones_are_not(root):
    shutil.rmtree(root / "dome" / "test" / "good" / "gt")
    assert len(list_samples(root, "dome", "test")) == 6
    shutil.rmtree(root / "dome" / "test" / "stain" / "gt")
    line = line_for(lambda: list_samples(root, "dome", "test"))
    assert "test/stain: unpaired files: no gt/*.png for 000, 001" in line


def test_long_lists_of_unpaired_stems_are_cut(root):
    for number in range(20, 40):
        (root / "dome" / "train" / "good" / "rgb" / f"{number:03d}.png").touch()
    assert "020, 021, 022, 023, 024, and 15 more" in line_for(lambda: list_samples(root, "dome", "train"))


def test_sizes_that_differ_name_both_files(files):
    tifffile.imwrite(files.xyz, make_scene(7, height=120, width=101).cloud, photometric="rgb")
    line = line_for(lambda: read_sample(files))
    assert line.startswith(f"{files.xyz}: height and width (120, 101) but {files.rgb} is (120, 100)")


def test_a_mask_of_another_size_names_both_files(files):
    Image.new("L", (100, 119)).save(files.gt)
    line = line_for(lambda: read_sample(files))
    assert line.startswith(f"{files.gt}: height and width (119, 100) but {files.rgb} is (120, 100)")


def test_denormalize_rgb_by_hand():
    normalised = torch.tensor([[0.0, 99.0], [1.0, 0.0], [0.0, -99.0]]).view(1, 3, 1, 2)
    expected = torch.tensor([[0.485, 1.0], [0.456 + 0.224, 0.456], [0.406, 0.0]]).view(1, 3, 1, 2)
    torch.testing.assert_close(denormalize_rgb(normalised), expected)
