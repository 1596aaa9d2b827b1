"""A prepared copy gives exactly what the raw data gives, changes nothing, and is whole or not there."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from lib.config import stored_settings
from lib.data import SPLITS, category_manifest, is_prepared, list_samples, read_sample
from lib.errors import InputError
from lib.preparation import PREPARATION_DEFAULT, PREPARATION_RELEASED, PREPARATION_SEED, prepare_sample
from lib.prepared_copy import (
    SHEET,
    SHEET_CELL_PX,
    PreparedArrays,
    changed_files,
    check_preparation,
    gray_depth,
    prepare_category,
    write_arrays,
)
from tests.fixtures_mvtec import write_category


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    write_category(tmp_path / "raw", train=2, test_each=1)
    return tmp_path / "raw"


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("config", [PREPARATION_DEFAULT, PREPARATION_RELEASED], ids=["default", "released"])
@pytest.mark.parametrize("jobs", [1, 2])
def test_samples_are_those_of_the_raw_data_bit_for_bit(raw: Path, tmp_path: Path, config, jobs: int) -> None:
    before = contents(raw)
    prepare_category(raw, tmp_path / "copy", "dome", config, jobs)
    assert contents(raw) == before
    for split in SPLITS:
        pairs = zip(list_samples(raw, "dome", split), list_samples(tmp_path / "copy", "dome", split), strict=True)
        for ours, theirs in pairs:
            expected, found = (prepare_sample(read_sample(files), config, PREPARATION_SEED) for files in (ours, theirs))
            for field in dataclasses.fields(expected):
                a, b = getattr(expected, field.name), getattr(found, field.name)
                same = torch.equal(a, b) if isinstance(a, torch.Tensor) else np.array_equal(a, b)
                assert same, field.name


def test_a_good_sample_needs_no_folder_of_masks(tmp_path: Path) -> None:
    """Another process may be writing beside it: a folder made and removed again would vanish under that one's hands."""
    in_the_way = tmp_path / "gt"
    in_the_way.touch()
    arrays = PreparedArrays(np.zeros((5, 5, 3), np.uint8), np.zeros((5, 5, 3), np.float32), np.zeros((5, 5)), None)
    assert write_arrays(tmp_path, "000", arrays).keys() == {"rgb", "xyz", "depth"}
    assert in_the_way.exists()


def test_the_manifest_names_settings_and_every_hash(raw: Path, tmp_path: Path) -> None:
    folder = prepare_category(raw, tmp_path / "copy", "dome", PREPARATION_DEFAULT)
    manifest = category_manifest(tmp_path / "copy", "dome")
    assert manifest["preparation"] == stored_settings(PREPARATION_DEFAULT) and len(manifest["sha256"]) == 64
    assert len(manifest["samples"]) == 6
    hole = manifest["samples"]["test/hole/000"]
    assert hole["read"].keys() == {"rgb", "xyz", "gt"} and hole["written"].keys() == {"rgb", "xyz", "gt", "depth"}
    assert manifest["samples"]["train/good/000"]["written"].keys() == {"rgb", "xyz", "depth"}
    assert changed_files(tmp_path / "copy", "dome") == []
    (folder / "test/hole/depth/000.tiff").write_bytes(b"other")
    (folder / "train/good/rgb/001.png").unlink()
    assert [line.split(": ")[1][:7] for line in changed_files(tmp_path / "copy", "dome")] == ["missing", "changed"]
    assert str(raw) not in json.dumps(manifest)


def test_a_second_copy_is_the_same_byte_for_byte(raw: Path, tmp_path: Path) -> None:
    first, second = (prepare_category(raw, tmp_path / name, "dome", PREPARATION_DEFAULT) for name in "ab")
    assert contents(first) == contents(second)


def test_the_contact_sheet_shows_before_and_after(raw: Path, tmp_path: Path) -> None:
    folder = prepare_category(raw, tmp_path / "copy", "dome", PREPARATION_DEFAULT)
    sheet = np.asarray(Image.open(folder / SHEET))
    assert sheet.shape == (6 * SHEET_CELL_PX, 4 * SHEET_CELL_PX, 3)
    before, after = (sheet[:SHEET_CELL_PX, left : left + SHEET_CELL_PX] for left in (160, 320))
    assert ((before == (90, 20, 20)).all(axis=2)).sum() < 0.1 * SHEET_CELL_PX**2
    assert ((after == (90, 20, 20)).all(axis=2)).sum() > 0.3 * SHEET_CELL_PX**2


def test_depth_is_bright_where_it_is_near() -> None:
    picture = gray_depth(np.array([[0.0, 0.5, 0.6]]))
    assert picture[0, 0].tolist() == [90, 20, 20] and picture[0, 1, 0] > 240 and picture[0, 2, 0] < 15
    assert (gray_depth(np.zeros((2, 2))) == (90, 20, 20)).all()


def test_nothing_is_prepared_twice(raw: Path, tmp_path: Path) -> None:
    prepare_category(raw, tmp_path / "copy", "dome", PREPARATION_DEFAULT)
    with pytest.raises(InputError, match="is there already; a second preparation would change nothing"):
        prepare_category(raw, tmp_path / "copy", "dome", PREPARATION_DEFAULT)
    with pytest.raises(InputError, match="is a prepared copy already; prepare the raw data"):
        prepare_category(tmp_path / "copy", tmp_path / "again", "dome", PREPARATION_DEFAULT)


@pytest.mark.parametrize("place", [".", "inside", ".."])
def test_the_copy_never_lies_in_the_raw_data_or_around_it(raw: Path, place: str) -> None:
    before = contents(raw)
    with pytest.raises(InputError, match="give a folder beside it"):
        prepare_category(raw, raw / place, "dome", PREPARATION_DEFAULT)
    assert contents(raw) == before


def test_faulty_samples_are_all_named_and_nothing_is_left(raw: Path, tmp_path: Path) -> None:
    for path in (raw / "dome/train/good/xyz/001.tiff", raw / "dome/test/stain/rgb/000.png"):
        path.write_bytes(b"")
    with pytest.raises(InputError, match="2 of 6 samples cannot be prepared, so nothing was written") as caught:
        prepare_category(raw, tmp_path / "copy", "dome", PREPARATION_DEFAULT)
    assert "good/xyz/001.tiff" in str(caught.value) and "stain/rgb/000.png" in str(caught.value)
    assert not is_prepared(tmp_path / "copy", "dome") and list((tmp_path / "copy").glob("[!.]*")) == []


def test_what_a_kill_left_is_replaced(raw: Path, tmp_path: Path) -> None:
    left = tmp_path / "copy" / ".dome.unfinished" / "train"
    left.mkdir(parents=True)
    (left / "half.tiff").write_bytes(b"half")
    folder = prepare_category(raw, tmp_path / "copy", "dome", PREPARATION_DEFAULT)
    assert not (folder / "train" / "half.tiff").exists() and not left.exists()


def test_other_settings_than_the_profiles_are_told(raw: Path, tmp_path: Path) -> None:
    prepare_category(raw, tmp_path / "copy", "dome", PREPARATION_DEFAULT)
    check_preparation(tmp_path / "copy", "dome", PREPARATION_DEFAULT)
    check_preparation(raw, "dome", PREPARATION_RELEASED)
    with pytest.raises(InputError, match="prepared with another min_border_fraction, plane_sample_size"):
        check_preparation(tmp_path / "copy", "dome", PREPARATION_RELEASED)
    black = dataclasses.replace(PREPARATION_DEFAULT, rgb_background="black")
    check_preparation(tmp_path / "copy", "dome", black, later=("rgb_background",))
    with pytest.raises(InputError, match="prepared with another rgb_background"):
        check_preparation(tmp_path / "copy", "dome", black)


@pytest.mark.parametrize("text", ["{", "[1]", ""])
def test_a_damaged_manifest_is_told(raw: Path, tmp_path: Path, text: str) -> None:
    folder = prepare_category(raw, tmp_path / "copy", "dome", PREPARATION_DEFAULT)
    (folder / "manifest.json").write_text(text)
    with pytest.raises(InputError, match=r"manifest\.json: .*make this folder anew"):
        list_samples(tmp_path / "copy", "dome", "train")
