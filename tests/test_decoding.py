"""Decoding of single files: what is read, and the one line for everything that can be wrong with one."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from lib.decoding import read_cloud, read_gt_mask, read_rgb
from lib.errors import InputError
from tests.fixtures_mvtec import make_scene, write_sample


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Folder of one sample; a test damages a file of it and reads that file."""
    write_sample(tmp_path, "007", make_scene(7, "hole"), with_gt=True)
    return tmp_path


def line_for(read, path: Path) -> str:
    """The InputError's text; it is one line that begins with the file's name."""
    with pytest.raises(InputError) as caught:
        read(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_big_endian_and_compressed_clouds_are_read_alike(folder):
    cloud = make_scene(7, "hole").cloud
    tifffile.imwrite(folder / "xyz" / "007.tiff", cloud, photometric="rgb", byteorder=">", compression="zlib")
    read = read_cloud(folder / "xyz" / "007.tiff")
    np.testing.assert_array_equal(read, cloud)
    torch.from_numpy(read)  # native byte order


def test_any_nonzero_mask_value_is_anomalous(folder):
    mask = np.zeros((7, 11), np.uint8)
    mask[3, 4] = 1
    Image.fromarray(mask).save(folder / "gt" / "007.png")
    assert np.argwhere(read_gt_mask(folder / "gt" / "007.png")).tolist() == [[3, 4]]


def save_16_bit_rgb(path: Path) -> None:
    """Black PNG of 16 bits per channel, which Pillow reads (as 8 bits) and cannot write."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    header = struct.pack(">IIBBBBB", 100, 120, 16, 2, 0, 0, 0)
    rows = zlib.compress((b"\0" + bytes(100 * 6)) * 120)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b""))


WRONG_RGB = {
    "grey": (lambda path: Image.new("L", (100, 120)).save(path), "mode L, 8 bits"),
    "alpha": (lambda path: Image.new("RGBA", (100, 120)).save(path), "mode RGBA, 8 bits"),
    "palette": (lambda path: Image.new("P", (100, 120)).save(path), "mode P, 1 bits"),
    "grey 16": (lambda path: Image.new("I;16", (100, 120)).save(path), "mode I;16, 16 bits"),
    "color 16": (save_16_bit_rgb, "mode RGB, 16 bits"),
    "jpeg": (lambda path: Image.new("RGB", (100, 120)).save(path, format="JPEG"), "not a readable PNG"),
    "text": (lambda path: path.write_text("<html>not found</html>"), "not a readable PNG"),
    "empty": (lambda path: path.write_bytes(b""), "not a readable PNG"),
    "truncated": (lambda path: path.write_bytes(path.read_bytes()[:2000]), "not a readable PNG"),
    "gone": (lambda path: path.unlink(), "no such file"),
    "a folder": (lambda path: (path.unlink(), path.mkdir()), "not a readable PNG"),
}


@pytest.mark.parametrize("name", WRONG_RGB)
def test_wrong_rgb_gets_one_line_that_names_it(folder, name):
    damage, words = WRONG_RGB[name]
    damage(folder / "rgb" / "007.png")
    line = line_for(read_rgb, folder / "rgb" / "007.png")
    assert words in line
    assert "BytesIO" not in line


WRONG_CLOUD = {
    "depth only": (lambda cloud: cloud[..., 2], "shape (120, 100); expected (H, W, 3)"),
    "pages first": (lambda cloud: cloud.transpose(2, 0, 1).copy(), "shape (3, 120, 100); expected (H, W, 3)"),
    "four channels": (lambda cloud: np.concatenate([cloud, cloud[..., :1]], axis=2), "shape (120, 100, 4)"),
    "float64": (lambda cloud: cloud.astype(np.float64), "dtype float64; expected float32"),
    "uint16": (lambda cloud: (np.abs(cloud) * 1000).astype(np.uint16), "dtype uint16; expected float32"),
    "NaN": (lambda cloud: np.where(np.arange(100)[:, None] < 3, np.nan, cloud), ": 360 pixels hold NaN"),
    "inf": (lambda cloud: np.where(cloud == cloud.max(), np.inf, cloud), ": 1 pixels hold NaN or inf"),
    "all zero": (np.zeros_like, "every pixel is (0, 0, 0)"),
    "few points": (lambda cloud: np.where(np.arange(120)[:, None, None] < 1, cloud, 0), " points, at least"),
    "millimetres": (lambda cloud: cloud * 1000, "m; if they are millimetres, divide by 1000"),
}


@pytest.mark.parametrize("name", WRONG_CLOUD)
def test_wrong_clouds_get_one_line_that_names_them(folder, name):
    damage, words = WRONG_CLOUD[name]
    cloud = make_scene(7).cloud
    wrong = damage(cloud)
    wrong = wrong if name in ("float64", "uint16") else wrong.astype(np.float32)
    photometric = "rgb" if wrong.shape[-1] in (3, 4) else "minisblack"
    tifffile.imwrite(folder / "xyz" / "007.tiff", wrong, photometric=photometric)
    assert words in line_for(read_cloud, folder / "xyz" / "007.tiff")


DAMAGED_TIFF = {
    "empty": lambda path: path.write_bytes(b""),
    "text": lambda path: path.write_text("version https://git-lfs.github.com/spec/v1"),
    "truncated header": lambda path: path.write_bytes(path.read_bytes()[:6]),
    "truncated pixels": lambda path: path.write_bytes(path.read_bytes()[:5000]),
    "a PNG": lambda path: Image.new("RGB", (100, 120)).save(path, format="PNG"),
    "a broken tag": lambda path: path.write_bytes(path.read_bytes()[:12] + b"\0" + path.read_bytes()[13:]),
}


@pytest.mark.parametrize("name", DAMAGED_TIFF)
def test_damaged_tiffs_get_one_line_and_no_log(folder, name, caplog, capfd):
    DAMAGED_TIFF[name](folder / "xyz" / "007.tiff")
    assert ": not a readable TIFF (" in line_for(read_cloud, folder / "xyz" / "007.tiff")
    assert not caplog.records
    assert capfd.readouterr() == ("", "")


def test_a_codec_that_is_not_installed_is_named(folder, monkeypatch):
    def refuse(stream):
        raise ValueError("<COMPRESSION.LZW: 5> requires the 'imagecodecs' package")

    monkeypatch.setattr(tifffile, "imread", refuse)
    assert line_for(read_cloud, folder / "xyz" / "007.tiff").endswith("; install imagecodecs")


def test_wrong_masks_get_one_line(folder):
    path = folder / "gt" / "007.png"
    Image.new("RGB", (100, 120)).save(path)
    assert "mode RGB; a mask has one channel" in line_for(read_gt_mask, path)
    path.write_bytes(b"\x89PNG\r\n\x1a\n")
    assert "not a readable PNG" in line_for(read_gt_mask, path)


@pytest.fixture(scope="module")
def intact(tmp_path_factory) -> Path:
    """Folder of one small sample that the fuzz test copies damaged and leaves alone."""
    folder = tmp_path_factory.mktemp("fuzz")
    write_sample(folder, "000", make_scene(1, height=31, width=37), with_gt=False)
    return folder


@settings(max_examples=300, deadline=None)
@given(data=st.data(), kind=st.sampled_from(["rgb", "xyz"]))
def test_damaged_bytes_are_read_or_refused_but_never_crash(intact, data, kind):
    read, name = {"rgb": (read_rgb, "rgb/000.png"), "xyz": (read_cloud, "xyz/000.tiff")}[kind]
    content = bytearray((intact / name).read_bytes())
    # most damage within the header and directory, where decoders have the most to say
    places = st.one_of(st.integers(0, 400), st.integers(0, len(content) - 1))
    for place, value in data.draw(st.lists(st.tuples(places, st.integers(0, 255)), min_size=1, max_size=4)):
        content[place] = value
    damaged = intact / "damaged"
    damaged.write_bytes(content[: data.draw(st.integers(0, len(content)))] or content)
    complaint = f"{damaged}: none"
    try:
        read(damaged)
    except InputError as error:
        complaint = str(error)
    assert complaint.startswith(f"{damaged}: ")
    assert "\n" not in complaint
