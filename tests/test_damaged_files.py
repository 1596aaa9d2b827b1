"""Five hundred damaged files, seeded: each gives one clear line that names it, and leaves nothing half done.

Damage that no reader can notice is left out: a flipped bit in an uncompressed float is another float. Archives carry
checksums for that, and prepared copies hashes.
"""

from __future__ import annotations

import dataclasses
import io
import json
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lib.archives import unpack
from lib.camera import Intrinsics, read_intrinsics
from lib.errors import InputError
from lib.eyecandies import convert_category
from lib.instances import CFM_TOY
from lib.own_scans import ScanFolders, convert_scans
from lib.predictor import fit_predictor, load_predictor, raw_scan
from lib.preparation import PREPARATION_DEFAULT
from lib.prepared_copy import prepare_category
from tests.fixture_study import HANDCRAFTED
from tests.fixtures_eyecandies import write_raw_category
from tests.fixtures_mvtec import make_scene, write_category
from tests.test_camera import write_pcd, write_ply

ROUNDS = 50  # of each of the ten kinds of input
PAGE = b"<!DOCTYPE html><html><body>quota exceeded</body></html>"


def cut(content: bytes, generator: np.random.Generator) -> bytes:
    """The first part of the file, never more than nine tenths."""
    return content[: int(generator.uniform(0, 0.9) * len(content))]


def empty(content: bytes, generator: np.random.Generator) -> bytes:
    return b""


def noise(content: bytes, generator: np.random.Generator) -> bytes:
    return generator.bytes(len(content))


def page(content: bytes, generator: np.random.Generator) -> bytes:
    return PAGE


def zeros(content: bytes, generator: np.random.Generator) -> bytes:
    """As a disk that was full leaves a file."""
    return bytes(len(content))


def headless(content: bytes, generator: np.random.Generator) -> bytes:
    """The beginning overwritten."""
    return generator.bytes(64) + content[64:]


DAMAGES: tuple[Callable[[bytes, np.random.Generator], bytes], ...] = (cut, empty, noise, page, zeros, headless)


@dataclasses.dataclass(frozen=True)
class Trial:
    """Files that may be damaged, what reads them, and where nothing must be left."""

    files: list[Path]
    read: Callable[[Path], object]
    output: Path


def mvtec_trial(folder: Path, kind: str) -> Trial:
    raw = folder / "raw"
    write_category(raw, train=1, validation=1, test_each=1, height=60, width=50)
    files = sorted(raw.rglob(f"{kind}/*.*"))
    files = [path for path in files if kind != "gt" or path.parts[-3] != "good"]  # masks of good samples are not read
    copy = folder / "copy"
    return Trial(files, lambda path: prepare_category(raw, copy, "dome", PREPARATION_DEFAULT), copy)


def eyecandies_trial(folder: Path, item: str) -> Trial:
    raw = folder / "raw"
    write_raw_category(raw, train=1, good=1, bad=1)
    files = sorted(raw.rglob(f"*_{item}"))
    return Trial(files, lambda path: convert_category(raw, folder / "copy", "Confetto"), folder / "copy")


def archive_trial(folder: Path) -> Trial:
    generator = np.random.default_rng(0)
    for name, mode in (("a.tar.xz", "w:xz"), ("b.tar.gz", "w:gz"), ("c.tar", "w")):
        with tarfile.open(folder / name, mode) as tar:
            for number in range(4):
                member = tarfile.TarInfo(f"mug/train/{number}.bin")
                member.size = 9000
                tar.addfile(member, io.BytesIO(generator.bytes(member.size)))
    return Trial(sorted(folder.glob("*.tar*")), lambda path: unpack(path, folder / "out", ["mug"]), folder / "out")


def scan_trial(folder: Path) -> Trial:
    """Depth images, color images, PLY and PCD of an own camera."""
    camera = Intrinsics(50, 60, 250.0, 250.0, 24.5, 29.5)
    scene = make_scene(0, height=60, width=50)
    for name in ("color", "depth", "ply", "pcd"):
        (folder / name).mkdir()
    Image.fromarray(scene.rgb).save(folder / "color" / "a.png")
    Image.fromarray((scene.cloud[..., 2] * 1000).astype(np.uint16)).save(folder / "depth" / "a.png")
    write_ply(folder / "ply" / "a.ply", scene.cloud.reshape(-1, 3))
    write_pcd(folder / "pcd" / "a.pcd", scene.cloud)
    kinds = dict.fromkeys(("color", "depth"), ("depth", "depth")) | {"ply": ("ply", "points")}
    kinds["pcd"] = ("pcd", "organised")

    def read(path: Path) -> object:
        scans, kind = kinds[path.parent.name]
        unit_m = 0.001 if kind == "depth" else 1.0
        given = ScanFolders(folder / "color", folder / scans, kind, intrinsics=camera, unit_m=unit_m)
        return convert_scans(given, folder / "own", "mug", "train")

    files = [folder / "color/a.png", folder / "depth/a.png", folder / "ply/a.ply", folder / "pcd/a.pcd"]
    return Trial(files, read, folder / "own")


def intrinsics_trial(folder: Path) -> Trial:
    path = folder / "camera.json"
    path.write_text(json.dumps({"width": 50, "height": 60, "fx": 250.0, "fy": 250.0, "cx": 24.5, "cy": 29.5}))
    return Trial([path], read_intrinsics, folder / "none")


def predictor_trial(folder: Path) -> Trial:
    scenes = [make_scene(seed, height=60, width=50) for seed in range(2)]
    scans = [raw_scan(scene.rgb, scene.cloud) for scene in scenes]
    fit_predictor(scans, dataclasses.replace(CFM_TOY, num_epochs=1), HANDCRAFTED).save(folder / "mug.safetensors")
    return Trial([folder / "mug.safetensors"], load_predictor, folder / "none")


TRIALS: dict[str, Callable[[Path], Trial]] = {
    "mvtec rgb": lambda folder: mvtec_trial(folder, "rgb"),
    "mvtec xyz": lambda folder: mvtec_trial(folder, "xyz"),
    "mvtec gt": lambda folder: mvtec_trial(folder, "gt"),
    "eyecandies image": lambda folder: eyecandies_trial(folder, "image_4.png"),
    "eyecandies depth": lambda folder: eyecandies_trial(folder, "depth.png"),
    "eyecandies facts": lambda folder: eyecandies_trial(folder, "info_depth.yaml"),
    "archives": archive_trial,
    "own scans": scan_trial,
    "intrinsics": intrinsics_trial,
    "predictors": predictor_trial,
}


@pytest.mark.parametrize("name", TRIALS)
def test_damage_is_told_and_nothing_is_left(name: str, tmp_path: Path) -> None:
    trial = TRIALS[name](tmp_path)
    generator = np.random.default_rng(list(TRIALS).index(name))
    for number in range(ROUNDS):
        path = trial.files[number % len(trial.files)]
        damage = DAMAGES[generator.integers(len(DAMAGES))]
        whole = path.read_bytes()
        path.write_bytes(damage(whole, generator))
        with pytest.raises(InputError) as caught:
            trial.read(path)
        assert path.name in str(caught.value) and "\n" not in str(caught.value), (damage.__name__, str(caught.value))
        assert not [found for found in trial.output.rglob("*") if found.is_file() and found.name[0] != "."], damage
        path.write_bytes(whole)
    trial.read(trial.files[0])  # and whole again, it is read
    shutil.rmtree(trial.output, ignore_errors=True)
