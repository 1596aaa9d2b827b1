"""A folder of scans becomes a category that the rest of the road reads, whole or not at all."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock, Timeout
from PIL import Image

from lib.camera import Intrinsics
from lib.data import list_samples, read_sample
from lib.errors import InputError
from lib.own_scans import ScanFolders, convert_scans
from lib.preparation import PREPARATION_DEFAULT, prepare_sample
from tests.fixtures_mvtec import make_scene

CAMERA = Intrinsics(100, 120, 500.0, 500.0, 49.5, 59.5)


@pytest.fixture
def folders(tmp_path: Path) -> ScanFolders:
    for name in ("color", "depth", "masks"):
        (tmp_path / name).mkdir()
    for number in range(3):
        scene = make_scene(number, "stain")
        Image.fromarray(scene.rgb).save(tmp_path / "color" / f"s{number}.png")
        tenths_mm = (scene.cloud[..., 2] * 1e4).round().astype(np.uint16)
        Image.fromarray(tenths_mm).save(tmp_path / "depth" / f"s{number}.png")
        Image.fromarray(scene.gt_mask.astype(np.uint8) * 255).save(tmp_path / "masks" / f"s{number}.png")
    return ScanFolders(tmp_path / "color", tmp_path / "depth", "depth", intrinsics=CAMERA, unit_m=1e-4)


@pytest.mark.parametrize("jobs", [1, 2])
def test_scans_come_out_in_the_layout(folders: ScanFolders, tmp_path: Path, jobs: int) -> None:
    target = tmp_path / "own"
    convert_scans(folders, target, "mug", "train", jobs=jobs)
    convert_scans(dataclasses.replace(folders, masks=tmp_path / "masks"), target, "mug", "test", "stain", jobs)
    assert [files.stem for files in list_samples(target, "mug", "train")] == ["s0", "s1", "s2"]
    raw = read_sample(list_samples(target, "mug", "test")[1])
    scene = make_scene(1, "stain")
    assert np.array_equal(raw.rgb, scene.rgb) and np.array_equal(raw.gt_mask, scene.gt_mask)
    np.testing.assert_allclose(raw.cloud[..., 2], scene.cloud[..., 2], atol=6e-5)
    prepared = prepare_sample(raw, PREPARATION_DEFAULT, seed=0)
    assert prepared.foreground.float().mean() == pytest.approx(scene.dome.sum() / 200**2, rel=0.1)


def test_what_cannot_be_used_is_named_and_nothing_is_left(folders: ScanFolders, tmp_path: Path) -> None:
    Image.fromarray(np.zeros((120, 100), dtype=np.uint16)).save(tmp_path / "depth" / "s1.png")
    (tmp_path / "color" / "s2.png").write_bytes(b"")
    with pytest.raises(InputError, match="2 of 3 scans cannot be used") as caught:
        convert_scans(folders, tmp_path / "own", "mug", "train")
    assert "every pixel is (0, 0, 0)" in str(caught.value) and "s2.png: not a readable image" in str(caught.value)
    assert {path.name for path in (tmp_path / "own").rglob("*")} <= {".mug.lock"}


def test_two_conversions_of_one_part_wait_for_each_other(
    folders: ScanFolders, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def held(*given: object) -> list[str]:
        with pytest.raises(Timeout):
            FileLock(tmp_path / "own" / ".mug.lock").acquire(timeout=0)
        raise KeyboardInterrupt

    monkeypatch.setattr("lib.own_scans.in_processes", held)
    with pytest.raises(KeyboardInterrupt):
        convert_scans(folders, tmp_path / "own", "mug", "train")
    FileLock(tmp_path / "own" / ".mug.lock").acquire(timeout=0)


def test_millimetres_are_told(folders: ScanFolders, tmp_path: Path) -> None:
    wrong = dataclasses.replace(folders, unit_m=1.0, far_m=1e6)
    with pytest.raises(InputError, match="if they are millimetres, divide by 1000"):
        convert_scans(wrong, tmp_path / "own", "mug", "train")


def test_a_forgotten_unit_is_told(folders: ScanFolders, tmp_path: Path) -> None:
    wrong = ScanFolders(folders.color, folders.scans, "depth", intrinsics=CAMERA)
    with pytest.raises(InputError, match=r"3 of 3 .* beyond 10 m, the nearest at \d+ m; give .*--unit"):
        convert_scans(wrong, tmp_path / "own", "mug", "train")


def test_partners_must_share_their_stem(folders: ScanFolders, tmp_path: Path) -> None:
    (tmp_path / "depth" / "s1.png").rename(tmp_path / "depth" / "s7.png")
    with pytest.raises(InputError, match="no color image for s7, no scan for s1"):
        convert_scans(folders, tmp_path / "own", "mug", "train")
    Image.fromarray(np.zeros((2, 2, 3), dtype=np.uint8)).save(tmp_path / "color" / "s1.jpg")
    with pytest.raises(InputError, match="two files share a stem"):
        convert_scans(folders, tmp_path / "own", "mug", "train")


def test_wrong_questions_are_refused(folders: ScanFolders, tmp_path: Path) -> None:
    target = tmp_path / "own"
    with pytest.raises(InputError, match="belong into test, and each needs a mask"):
        convert_scans(folders, target, "mug", "test", "stain")
    with pytest.raises(InputError, match="belong into test"):
        convert_scans(dataclasses.replace(folders, masks=tmp_path / "masks"), target, "mug", "train", "stain")
    with pytest.raises(InputError, match="split"):
        convert_scans(folders, target, "mug", "val")
    for part, defect in (("../mug", "good"), ("", "good"), (".mug", "good"), ("mug", "a/b")):
        with pytest.raises(InputError, match="becomes a folder's name"):
            convert_scans(dataclasses.replace(folders, masks=tmp_path / "masks"), target, part, "test", defect)
    with pytest.raises(InputError, match="give numbers above 0"):
        convert_scans(dataclasses.replace(folders, unit_m=0), target, "mug", "train")
    with pytest.raises(InputError, match="no such folder"):
        convert_scans(dataclasses.replace(folders, color=tmp_path / "none"), target, "mug", "train")
    convert_scans(folders, target, "mug", "train")
    with pytest.raises(InputError, match="is there already"):
        convert_scans(folders, target, "mug", "train")
