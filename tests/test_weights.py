"""The registry of weights, where files are looked for, and one clear line for each way a file can be wrong."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import pickle
import re
import runpy
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import torch
from safetensors.torch import save, save_file
from torch import Tensor

from lib.config import project_root
from lib.errors import InputError
from lib.extractors import weights
from lib.extractors.weight_registry import FILES, WEIGHTS, WeightFile
from lib.extractors.weights import download_weights, find_weights, load_state, read_tensors, weights_sha256
from tests.file_server import PAGE, FileServer, serving, silent_url

STATE = {"a.weight": torch.arange(35.0).view(7, 5), "a.steps": torch.tensor(3)}
SAFE = save(STATE)
FETCHED = [file for file in FILES if file.urls]
SCRIPT = project_root() / "data_scripts" / "get_weights.py"
HTML_WORDS = "an HTML page, probably a login or error page"


def sha256_of(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def line_for(call: Callable[[], object]) -> str:
    """The InputError's text; it is one line whatever happened."""
    with pytest.raises(InputError) as caught:
        call()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def same(found: dict[str, Tensor]) -> bool:
    return found.keys() == STATE.keys() and all(torch.equal(found[name], STATE[name]) for name in STATE)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FileServer]:
    monkeypatch.setenv("no_proxy", "*")
    with serving(SAFE) as server:
        yield server


@pytest.fixture
def net(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> WeightFile:
    """A registered file that nobody serves; the project's own folder is `tmp_path / "project"`."""
    monkeypatch.delenv(weights.WEIGHTS_VARIABLE, raising=False)
    monkeypatch.setattr(weights, "project_root", lambda: tmp_path / "project")
    return register(monkeypatch, "net.safetensors", SAFE)


def register(patch: pytest.MonkeyPatch, filename: str, content: bytes, **more: object) -> WeightFile:
    """The file as entry "net" of the registry."""
    facts = {"sha256": sha256_of(content), "urls": (silent_url(),)} | more
    file = WeightFile("net", filename, "MIT", "Nobody, Nothing, 2026", "made here", **facts)
    patch.setitem(WEIGHTS, "net", file)
    return file


def put(folder: Path, filename: str, content: bytes) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / filename).write_bytes(content)
    return folder / filename


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_registry_says_all_of_each_file(file: WeightFile) -> None:
    assert all((file.filename, file.license, file.citation, file.source_note))
    assert Path(file.filename).suffix in (".safetensors", ".pth")
    assert (file.sha256 is None) == (not file.urls)  # an embedded file's SHA-256 stands in its card


@pytest.mark.parametrize("file", FETCHED, ids=lambda file: file.name)
def test_every_file_from_elsewhere_is_pinned(file: WeightFile) -> None:
    assert re.fullmatch("[0-9a-f]{64}" if file.name != "efficientnet_b5" else "[0-9a-f]{8}", file.sha256)
    assert len(file.sha256) == 64 or f"-{file.sha256}." in file.filename  # PyTorch's rule for names
    assert all(urlsplit(url).scheme == "https" and urlsplit(url).path for url in file.urls)
    assert file.size_bytes is None or file.size_bytes > 10**6


def test_registry_mixes_up_no_two_files() -> None:
    for facts in (
        [file.name for file in FILES],
        [file.filename for file in FILES],
        [file.sha256 for file in FETCHED],
        [url for file in FETCHED for url in file.urls],
    ):
        assert len(set(facts)) == len(facts)


def test_registry_has_the_networks_of_the_papers() -> None:
    networks = {"dino_vitb8", "dino_vits8", "dinov2_vitb14", "clip_vitb16", "sam_vitb16", "wide_resnet50_2"}
    assert {"point_mae", "efficientnet_b5", "embedded_vit", "embedded_point"} | networks == WEIGHTS.keys()


def test_folders_are_searched_in_order(net: WeightFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(weights.WEIGHTS_VARIABLE, str(tmp_path / "variable"))
    for name in ("project/weights", "variable", "argument"):
        expected = put(tmp_path / name, net.filename, SAFE)
        assert find_weights("net", tmp_path / "argument") == expected
    assert find_weights("net") == tmp_path / "variable" / net.filename


def test_a_variable_may_start_from_the_home_folder(
    net: WeightFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv(weights.WEIGHTS_VARIABLE, "~/nets")
    path = put(tmp_path / "nets", net.filename, SAFE)
    assert find_weights("net", "elsewhere") == path


def test_a_missing_file_is_named_with_folders_url_and_command(net: WeightFile, tmp_path: Path) -> None:
    for call in (find_weights, load_state, weights_sha256):
        line = line_for(lambda call=call: call("net", tmp_path / "mine"))
        assert line.startswith(f"weights net: no file net.safetensors in {tmp_path / 'mine'}, ")
        assert f"{tmp_path / 'project' / 'weights'}; run python data_scripts/get_weights.py net, or fetch " in line
        assert net.urls[0] in line and "$ANOMALY_WEIGHTS" in line


def test_an_unknown_name_lists_those_there_are() -> None:
    for call in (find_weights, load_state, weights_sha256, download_weights):
        assert line_for(lambda call=call: call("dino")).startswith("weights 'dino' is unknown; choose one of point_mae")


def test_a_right_file_gives_its_tensors_and_hash(net: WeightFile, tmp_path: Path) -> None:
    put(tmp_path, net.filename, SAFE)
    assert same(load_state("net", tmp_path)) and weights_sha256("net", tmp_path) == net.sha256


def test_tensors_are_taken_from_inside_a_checkpoint(
    net: WeightFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.save({"base_model": STATE, "epoch": 300, "metrics": {}}, tmp_path / "net.pth")
    register(monkeypatch, "net.pth", (tmp_path / "net.pth").read_bytes(), inside="base_model")
    assert same(load_state("net", tmp_path))
    assert "holds no table of tensors under 'model'" in line_for(lambda: read_tensors(tmp_path / "net.pth", "model"))
    assert "holds no table of tensors; check" in line_for(lambda: read_tensors(tmp_path / "net.pth"))


@pytest.mark.parametrize("write", [save_file, torch.save])
def test_one_network_is_taken_out_of_a_file_of_two(
    net: WeightFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: Callable
) -> None:
    both = {f"visual.{name}": value for name, value in STATE.items()} | {"text.a.weight": torch.ones(2)}
    path = tmp_path / ("net.safetensors" if write is save_file else "net.pth")
    write(both, path)
    register(monkeypatch, path.name, path.read_bytes(), prefix="visual.")
    assert same(load_state("net", tmp_path))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "an empty file"),
        (PAGE, HTML_WORDS),
        (SAFE[:-11], f"truncated: it has {len(SAFE) - 11} of {len(SAFE)} bytes"),
        (SAFE[:20], "truncated: it has 20 bytes and ends within its header"),
        (SAFE[:-1] + b"!", "another file or another version"),
        (save({"b.weight": torch.ones(3)}), "another file or another version"),
        (b"just a few words", "another file or another version"),
    ],
    ids=["empty", "page", "truncated", "truncated header", "one byte", "other network", "words"],
)
def test_each_wrong_file_is_told_apart(net: WeightFile, tmp_path: Path, content: bytes, words: str) -> None:
    path = put(tmp_path, net.filename, content)
    for call in (load_state, weights_sha256):
        line = line_for(lambda call=call: call("net", tmp_path))
        assert line.startswith(f"{path} is not the weights net but {words}: SHA-256 {sha256_of(content)}, expected ")
        assert f"expected {net.sha256}; delete it, then run python data_scripts/get_weights.py net" in line


def test_a_truncated_checkpoint_is_told_apart(net: WeightFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.save(STATE, tmp_path / "net.pth")
    content = (tmp_path / "net.pth").read_bytes()
    register(monkeypatch, "net.pth", content)
    put(tmp_path, "net.pth", content[:-17])
    words = f"truncated: a zip archive of {len(content) - 17} bytes without its end"
    assert f"is not the weights net but {words}: SHA-256" in line_for(lambda: load_state("net", tmp_path))
    assert f"was not loaded: it is {words}" in line_for(lambda: read_tensors(tmp_path / "net.pth"))


def test_a_folder_in_place_of_a_file_is_named(net: WeightFile, tmp_path: Path) -> None:
    (tmp_path / net.filename).mkdir()
    assert f"{tmp_path / net.filename} is a folder, where" in line_for(lambda: load_state("net", tmp_path))
    assert f"{tmp_path / net.filename} is a folder; give" in line_for(lambda: read_tensors(tmp_path / net.filename))


class Trap:
    """Makes a file when a careless reader unpickles it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable, tuple[str, int]]:
        return os.mkdir, (str(self.path), 0o755)


@pytest.mark.parametrize("protocol", [0, 2, 4, 5, "zip", "zip inside"])
def test_a_booby_trapped_pickle_does_not_run(
    net: WeightFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, protocol: int | str
) -> None:
    path, sprung = tmp_path / "net.pth", tmp_path / "sprung"
    content = {"base_model": {**STATE, "trap": Trap(sprung)}} if protocol == "zip inside" else Trap(sprung)
    if isinstance(protocol, str):
        torch.save(content, path)
    else:
        path.write_bytes(pickle.dumps(content, protocol=protocol))
    register(monkeypatch, "net.pth", path.read_bytes())  # not even when its SHA-256 is the registered one
    lines = [line_for(lambda: load_state("net", tmp_path)), line_for(lambda: read_tensors(path))]
    assert not sprung.exists()
    for line in lines:
        assert line.startswith(f"{path} was not loaded: it is ")
        assert "a pickle that asks to run" in line or "no weights that can be read without running code" in line
    with open(path, "rb") as stream:  # the trap works: a careless reader springs it
        if isinstance(protocol, int):
            pickle.load(stream)
        else:
            torch.load(stream, weights_only=False)
    assert sprung.exists()


def test_an_old_checkpoint_without_a_zip_is_read(tmp_path: Path) -> None:
    torch.save(STATE, tmp_path / "net.pth", _use_new_zipfile_serialization=False)
    assert same(read_tensors(tmp_path / "net.pth"))


def test_a_pickle_named_safetensors_is_no_pickle_here(tmp_path: Path) -> None:
    torch.save(Trap(tmp_path / "sprung"), tmp_path / "net.safetensors")
    assert "was not loaded" in line_for(lambda: read_tensors(tmp_path / "net.safetensors"))
    assert not (tmp_path / "sprung").exists()


def test_an_unregistered_file_that_is_missing_is_named(tmp_path: Path) -> None:
    assert line_for(lambda: read_tensors(tmp_path / "x.pth")).startswith(f"{tmp_path / 'x.pth'} is missing")


def test_a_file_is_hashed_once_until_it_changes(
    net: WeightFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, hashed, real = put(tmp_path, net.filename, SAFE), [], weights.file_sha256
    monkeypatch.setattr(weights, "file_sha256", lambda path: hashed.append(path) or real(path))
    for _ in range(3):
        weights_sha256("net", tmp_path)
        load_state("net", tmp_path)
    assert hashed == [path]
    path.write_bytes(SAFE[:-1] + b"!")  # the same size
    os.utime(path, ns=(path.stat().st_atime_ns, path.stat().st_mtime_ns + 1))
    assert "another file or another version" in line_for(lambda: load_state("net", tmp_path))
    assert hashed == [path, path]


@pytest.fixture
def embedded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A folder of embedded files with one net and its card."""
    monkeypatch.setattr(weights, "EMBEDDED_FOLDER", tmp_path / "embedded")
    (tmp_path / "embedded").mkdir()
    save_file(STATE, tmp_path / "embedded" / "net.safetensors")
    register(monkeypatch, "net.safetensors", SAFE, sha256=None, urls=())
    (tmp_path / "embedded" / "net.json").write_text(json.dumps({"sha256": sha256_of(SAFE)}))
    return tmp_path / "embedded"


def test_an_embedded_file_is_checked_against_its_card(embedded: Path) -> None:
    assert same(load_state("net")) and weights_sha256("net") == sha256_of(SAFE)
    assert download_weights("net") == embedded / "net.safetensors"
    (embedded / "net.json").write_text(json.dumps({"sha256": "0" * 64}))
    for call in (load_state, weights_sha256, download_weights):
        line = line_for(lambda call=call: call("net"))
        assert f"expected {'0' * 64}; delete it, then restore it from the repository" in line


@pytest.mark.parametrize("card", [None, "{", "[]", "{}"])
def test_an_embedded_file_without_a_card_is_not_trusted(embedded: Path, card: str | None) -> None:
    (embedded / "net.json").unlink()
    if card is not None:
        (embedded / "net.json").write_text(card)
    assert f"{embedded / 'net.json'} gives no sha256 of net.safetensors" in line_for(lambda: load_state("net"))


def test_a_missing_embedded_file_is_to_be_restored(embedded: Path) -> None:
    (embedded / "net.safetensors").unlink()
    line = line_for(lambda: load_state("net", "elsewhere"))
    assert line == (
        f"weights net: no file net.safetensors in elsewhere, {embedded}; restore it from the repository, which it is "
        "part of"
    )


def test_a_download_goes_to_the_first_folder_unless_another_has_the_file(
    net: WeightFile, server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(WEIGHTS, "net", dataclasses.replace(net, urls=(server.url("missing"), server.url("whole"))))
    first = download_weights("net", tmp_path / "mine")
    assert first == tmp_path / "mine" / net.filename and same(load_state("net", tmp_path / "mine"))
    project = download_weights("net")
    assert project == tmp_path / "project" / "weights" / net.filename and len(server.requests) == 4
    monkeypatch.setenv(weights.WEIGHTS_VARIABLE, str(tmp_path / "variable"))
    assert download_weights("net") == project and len(server.requests) == 4
    project.write_bytes(b"another file")
    assert download_weights("net") == tmp_path / "variable" / net.filename and len(server.requests) == 6


def run_script(patch: pytest.MonkeyPatch, *given: str) -> int:
    """Exit status of the command line."""
    patch.setattr(sys, "argv", ["get_weights", *given])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(SCRIPT), run_name="__main__")
    return ended.value.code


def test_command_fetches_once(
    net: WeightFile,
    server: FileServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setitem(WEIGHTS, "net", dataclasses.replace(net, urls=(server.url("whole"),)))
    for _ in range(2):
        assert run_script(monkeypatch, "net", "--folder", str(tmp_path)) == 0
        expected = f"net: {tmp_path / net.filename}, verified; license MIT; cite Nobody, Nothing, 2026\n"
        assert capsys.readouterr().out == expected
    assert server.requests == [("whole", None)]


def test_command_without_a_network_says_what_to_do(
    net: WeightFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("no_proxy", "*")
    assert run_script(monkeypatch, "net", "--folder", str(tmp_path)) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1
    for word in (net.filename, str(tmp_path), net.urls[0], "by hand"):
        assert word in err


def test_command_lists_without_fetching(
    net: WeightFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = put(tmp_path, net.filename, SAFE)
    assert run_script(monkeypatch, "--list", "--folder", str(tmp_path)) == 0
    listed = capsys.readouterr().out
    assert f"net: net.safetensors, license MIT, {path}\n" in listed
    assert "point_mae: pointmae_pretrain.pth, 348 MB, license MIT, not here\n" in listed
    for file in FILES:
        assert all(fact in listed for fact in (file.name, file.citation, file.sha256 or "", *file.urls))


@pytest.mark.parametrize("given", [("net", "nope"), ()])
def test_command_refuses_before_it_fetches(
    net: WeightFile, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], given: tuple[str, ...]
) -> None:
    assert run_script(monkeypatch, *given) == 2
    line = "weights 'nope' is unknown; choose one of " if given else "no weights named; name one or more of "
    assert capsys.readouterr().err.startswith(f"InputError: {line}point_mae, ")
