"""The real road on small archives in the raw formats: get, check, prepare, fit, table, by the scripts a reader runs."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import shutil
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from data_scripts import check_data, get_data, prepare_data, results_table
from lib import datasets
from lib.data import list_samples
from lib.datasets import Archive, Counts, find_dataset
from lib.errors import InputError
from lib.heads.btf import BTFConfig
from lib.profiles import MethodSpec, load_profile
from tests.file_server import FileServer, serving
from tests.fixture_study import HANDCRAFTED, TINY_CFM, FixtureProfile
from tests.fixtures_eyecandies import write_raw_category
from tests.fixtures_mvtec import write_category

CATEGORY = {"mvtec3d": "bagel", "eyecandies": "Confetto"}
COUNTS = {"mvtec3d": Counts(3, 1, 2, 4), "eyecandies": Counts(3, 1, 2, 2)}
SIZES_PX = {"mvtec3d": (120, 100), "eyecandies": (60, 60)}
PREPARED_WITH = {"mvtec3d": "PREPARATION_DEFAULT", "eyecandies": "PREPARATION_EYECANDIES"}


def made_archive(name: str, folder: Path) -> bytes:
    """A dataset of one category, packed as its authors pack theirs: MVTec's flat and by xz."""
    if name == "mvtec3d":
        write_category(folder, CATEGORY[name])
    else:
        write_raw_category(folder, CATEGORY[name])
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:xz" if name == "mvtec3d" else "w") as tar:
        tar.add(folder / CATEGORY[name], CATEGORY[name])
    return stream.getvalue()


@pytest.fixture(params=list(CATEGORY))
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def server(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FileServer]:
    """Serves the archive; the registry knows its address, counts and sizes."""
    monkeypatch.setenv("no_proxy", "*")
    content = made_archive(name, tmp_path / "made")
    with serving(content) as server:
        checksum = f"md5:{hashlib.md5(content).hexdigest()}" if name == "mvtec3d" else ""
        archive = Archive("data.tar", (server.url("missing"), server.url("whole")), checksum, (CATEGORY[name],))
        small = dataclasses.replace(
            find_dataset(name),
            counts={CATEGORY[name]: COUNTS[name]},
            sizes_px={CATEGORY[name]: SIZES_PX[name]},
            archives=(archive,),
        )
        monkeypatch.setitem(datasets.DATASETS, name, small)
        yield server


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def small_profile(name: str, root: Path) -> FixtureProfile:
    """The profile of a dataset with tiny methods on the prepared copy."""
    category = (CATEGORY[name],)
    btf = BTFConfig(grid_side=7, coreset_fraction=0.5)
    return FixtureProfile(
        name=name,
        dataset=name,
        data_root=str(root),
        categories=category,
        extractor=HANDCRAFTED,
        methods={
            "cfm": MethodSpec("cfm", TINY_CFM, category, (0,), ("product",), HANDCRAFTED),
            "btf": MethodSpec("btf", btf, category, (0,), ("both",), HANDCRAFTED, standardize=False),
        },
        chapters=(),
        preparation=PREPARED_WITH[name],
    )


@pytest.mark.usefixtures("server")
def test_from_an_archive_to_a_table(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    raw, copy = tmp_path / "raw", tmp_path / "copy" / "data"
    get_data.main([name, "--folder", str(raw), "--accept-license"])
    assert contents(raw / CATEGORY[name]) == contents(tmp_path / "made" / CATEGORY[name])
    assert not (raw / "data.tar").exists()
    assert check_data.main([name, "--folder", str(raw), "--jobs", "1"]) == 0
    before = contents(raw / CATEGORY[name])
    prepare_data.main([name, "--source", str(raw), "--target", str(copy), "--jobs", "1"])
    assert contents(raw / CATEGORY[name]) == before
    assert check_data.main([name, "--folder", str(copy), "--jobs", "1"]) == 0
    monkeypatch.setattr(results_table, "load_profile", lambda asked: small_profile(asked, copy))
    capsys.readouterr()
    results_table.main(["--profile", name])
    shown = capsys.readouterr().out
    for words in ("I-AUROC", "AUPRO@1% (t99)", "BTF ", "CFM, published", find_dataset(name).attribution):
        assert words in shown
    assert ("BTF, published" in shown) == (name == "mvtec3d")  # nobody prints it on Eyecandies
    assert contents(raw / CATEGORY[name]) == before


@pytest.mark.usefixtures("server")
def test_every_step_can_be_taken_twice(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    raw, copy = tmp_path / "raw", tmp_path / "copy"
    for _ in range(2):
        get_data.main([name, "--folder", str(raw), "--accept-license", "--keep-archive"])
        prepare_data.main([name, "--source", str(raw), "--target", str(copy), "--jobs", "1"])
    assert "prepared before; left as it is" in capsys.readouterr().out


def test_nothing_is_fetched_without_the_licence(
    name: str, server: FileServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(InputError, match="nothing fetched: read the licence"):
        get_data.main([name, "--folder", str(tmp_path / "raw")])
    assert server.requests == [] and not (tmp_path / "raw").exists()
    assert find_dataset(name).license_url in capsys.readouterr().out


def test_an_archive_fetched_by_hand_is_unpacked(name: str, server: FileServer, tmp_path: Path) -> None:
    (tmp_path / "mine.tar").write_bytes(server.content)
    arguments = [name, "--folder", str(tmp_path / "raw"), "--accept-license", "--archive", str(tmp_path / "mine.tar")]
    get_data.main(arguments)
    assert (tmp_path / "raw" / CATEGORY[name]).is_dir() and (tmp_path / "mine.tar").is_file() and server.requests == []


def test_half_an_archive_by_hand_is_told(name: str, server: FileServer, tmp_path: Path) -> None:
    (tmp_path / "mine.tar").write_bytes(server.content[: len(server.content) // 2])
    arguments = [name, "--folder", str(tmp_path / "raw"), "--accept-license", "--archive", str(tmp_path / "mine.tar")]
    with pytest.raises(InputError, match="fetch it again"):
        get_data.main(arguments)
    assert list((tmp_path / "raw").glob("[!.]*")) == []


def test_one_archive_of_many_must_be_named(tmp_path: Path) -> None:
    given = ["eyecandies", "--folder", str(tmp_path), "--accept-license", "--archive", str(tmp_path / "x.tar")]
    with pytest.raises(InputError, match="one file of 10; say with --category"):
        get_data.main(given)
    with pytest.raises(InputError, match="category of eyecandies"):
        get_data.main([*given, "--category", "Bagel"])
    with pytest.raises(InputError, match=r"x\.tar: no such file"):
        get_data.main([*given, "--category", "Lollipop"])


def test_faults_are_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_category(tmp_path / "own", "mug")
    assert check_data.main(["own", "--folder", str(tmp_path / "own"), "--jobs", "1"]) == 0
    (tmp_path / "own/mug/train/good/rgb/000.png").unlink()
    assert check_data.main(["own", "--folder", str(tmp_path / "own"), "--jobs", "1"]) == 1
    shown = capsys.readouterr().out
    assert "no faults in" in shown and "wrong: " in shown and "1 faults in" in shown
    for folder, words in (("none", "no such folder"), ("own/mug/train/good/gt", "no such folder")):
        with pytest.raises(InputError, match=words):
            check_data.main(["own", "--folder", str(tmp_path / folder)])


def test_an_own_dataset_is_prepared_too(tmp_path: Path) -> None:
    write_category(tmp_path / "own", "mug")
    prepare_data.main(["own", "--source", str(tmp_path / "own"), "--target", str(tmp_path / "copy"), "--jobs", "1"])
    assert (tmp_path / "copy" / "mug" / "contact_sheet.png").is_file()
    shutil.rmtree(tmp_path / "own" / "mug" / "test")
    prepare_data.main(["own", "--source", str(tmp_path / "own"), "--target", str(tmp_path / "part"), "--jobs", "1"])
    assert [files.stem for files in list_samples(tmp_path / "part", "mug", "train")] == ["000", "001", "002"]
    with pytest.raises(InputError, match="no such folder"):
        prepare_data.main(["own", "--source", str(tmp_path / "none"), "--target", str(tmp_path / "copy")])


@pytest.mark.parametrize("profile", ["mvtec3d", "eyecandies"])
def test_the_profiles_are_those_of_the_datasets(profile: str) -> None:
    study = load_profile(profile)
    assert study.categories == find_dataset(profile).categories
    assert {"cfm", "lsfa", "btf", "m3dm", "ast"} <= study.methods.keys()
    assert study.preparation == PREPARED_WITH[profile] and not study.standardize
