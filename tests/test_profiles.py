"""Profiles: the demo profile, and one clear line for every word that is not known."""

from __future__ import annotations

import copy
import dataclasses
from pathlib import Path
from typing import Any

import pytest
import yaml

from lib import profiles
from lib.config import ExtractorSpec, project_root
from lib.errors import InputError
from lib.heads.m3dm import M3DMConfig
from lib.instances import BANK_STD_FLOOR, BLIND, CFM_DEMO
from lib.methods import (
    CFM_VARIANTS,
    AdaptedConfig,
    CFMConfig,
    FusionConfig,
    NearestNeighborConfig,
    PatchCoreConfig,
)
from lib.profiles import Profile, data_root, load_profile, parse_profile
from tests.fixture_study import study_in

RAW = {
    "dataset": "fixture",
    "data_root": "data",
    "categories": ["dome", "rope"],
    "extractor": {"rgb": "handcrafted", "xyz": "fpfh"},
    "seeds": [3, 5],
    "methods": {"cfm": {"instance": "CFM_DEMO"}, "blind": {"instance": "BLIND", "seeds": [0]}},
    "chapters": ["01_first"],
}


def changed(path: str, value: Any) -> dict[str, Any]:
    """`RAW` with one entry replaced or added; the path's words are separated by dots."""
    raw = copy.deepcopy(RAW)
    *parents, last = path.split(".")
    place = raw
    for word in parents:
        place = place[word]
    place[last] = value
    return raw


def one_line(raised: pytest.ExceptionInfo[InputError]) -> str:
    """The message, which must be a single line."""
    assert "\n" not in str(raised.value)
    return str(raised.value)


@pytest.mark.parametrize("name", profiles.profile_names())
def test_every_profile_of_the_project_parses(name: str) -> None:
    profile = load_profile(name)
    assert profile.name == name
    for spec in profile.methods.values():
        assert set(spec.categories) <= set(profile.categories) and spec.seeds and spec.variants


def test_demo_profile() -> None:
    demo = load_profile("demo")
    assert (demo.dataset, demo.threads, demo.device) == ("synth3d", 1, "cpu")
    assert demo.categories == ("biscuit", "ring", "cord", "sweet")
    assert demo.method("cfm").config == CFM_DEMO and demo.method("cfm").seeds == demo.seeds
    assert demo.method("cfm").variants == tuple(CFM_VARIANTS)
    assert demo.method("nearest_neighbor").variants == ("rgb", "xyz", "late", "concat")
    assert demo.method("cfm_pixels_all").config == dataclasses.replace(CFM_DEMO, pixels_per_image=None)
    assert {name for name, spec in demo.methods.items() if spec.ablation} >= {"cfm_pixels_64", "cfm_pixels_all"}
    assert demo.work_dir == project_root() / "runs" / "demo"


def test_demo_gives_banks_of_hand_crafted_features_a_floor_and_cfm_none() -> None:
    asked = {name: spec for name, spec in load_profile("demo").methods.items() if "floor" not in name}
    plain = [s for s in asked.values() if (s.extractor.rgb, s.extractor.xyz) == ("handcrafted",) * 2 and s.standardize]
    banks = [s for s in plain if isinstance(s.config, NearestNeighborConfig | PatchCoreConfig | M3DMConfig)]
    assert len(banks) > 20 and {spec.std_floor for spec in banks} == {BANK_STD_FLOOR}
    assert {spec.std_floor for spec in plain if isinstance(spec.config, CFMConfig)} == {None}
    mixed = [spec for spec in plain if isinstance(spec.config, AdaptedConfig | FusionConfig)]
    read_twice = {spec.config.std_floor for spec in mixed if isinstance(spec.config, AdaptedConfig)}
    assert len(mixed) > 3 and read_twice == {None, BANK_STD_FLOOR}
    without = {spec.name for spec in mixed if spec.std_floor != BANK_STD_FLOOR}
    assert without == {"cells_cfm"}  # its CFM standardizes the cells again


def test_methods_take_what_they_do_not_name_from_the_profile() -> None:
    profile = parse_profile("made", RAW)
    assert profile.method("cfm").categories == ("dome", "rope") and profile.method("cfm").seeds == (3, 5)
    assert profile.method("blind").seeds == (0,) and profile.method("blind").config == BLIND
    assert profile.standardize and profile.threads == 1 and profile.data_seed is None
    assert profile.method("cfm").standardize


def test_a_method_may_read_features_as_they_are() -> None:
    raw = {**RAW, "methods": {"cfm": {"instance": "CFM_DEMO", "standardize": False}, "blind": {"instance": "BLIND"}}}
    profile = parse_profile("made", raw)
    assert not profile.method("cfm").standardize and profile.method("blind").standardize
    assert not parse_profile("made", {**RAW, "standardize": False}).method("cfm").standardize


def test_method_can_have_its_own_extractor() -> None:
    raw = changed("methods.blind.extractor", {"rgb": "dino_vitb8", "xyz": "point_mae", "num_blocks": 4})
    profile = parse_profile("made", raw)
    assert profile.method("cfm").extractor == profile.extractor == ExtractorSpec("handcrafted", "fpfh")
    assert profile.method("blind").extractor == ExtractorSpec("dino_vitb8", "point_mae", 4)
    assert list(profile.extractors) == ["handcrafted+fpfh", "dino_vitb8+point_mae-4blocks"]


def test_method_can_narrow_and_override() -> None:
    entry = {"instance": "CFM_DEMO", "overrides": {"pixels_per_image": None, "num_epochs": 7}}
    entry |= {"categories": ["rope"], "seeds": [9], "variants": ["psi_2d"]}
    spec = parse_profile("made", {**RAW, "ablations": {"short": entry}}).method("short")
    assert spec.config == dataclasses.replace(CFM_DEMO, pixels_per_image=None, num_epochs=7)
    assert (spec.categories, spec.seeds, spec.variants, spec.ablation) == (("rope",), (9,), ("psi_2d",), True)


BAD_PROFILES = [
    ("datset", "x", r"key of profile made 'datset' is unknown; choose one of dataset, data_root, categories"),
    ("methods.cfm.sed", [0], r"key of method cfm 'sed' is unknown; choose one of instance, overrides"),
    ("methods.cfm.instance", "CFM_DEM", r"settings instance 'CFM_DEM' is unknown; choose one of CFM_PAPER, CFM_REL"),
    ("methods.cfm.overrides", {"epochs": 3}, r"override of CFM_DEMO 'epochs' is unknown; choose one of hidden_dim"),
    ("methods.cfm.overrides", {"num_epochs": 0}, r"num_epochs is 0; give a whole number of at least 1"),
    ("methods.cfm.overrides", {"schedule": "cosine"}, r"schedule 'cosine' is unknown; choose one of constant"),
    ("methods.cfm.variants", ["rgb"], r"variant of method cfm 'rgb' is unknown; choose one of product, sum"),
    ("methods.cfm.categories", ["bagel"], r"category of method cfm 'bagel' is unknown; choose one of dome, rope"),
    ("methods.cfm", {"seeds": [1]}, r"method cfm names no instance; add one of CFM_PAPER"),
    ("ablations", {"cfm": {"instance": "CFM_DEMO"}}, r"has cfm under both methods and ablations; rename one"),
    (
        "categories",
        "dome",
        r"categories of profile made is 'dome'; write a list with at least one entry, such as \[dome\]$",
    ),
    ("seeds", 4, r"seeds of profile made is 4; write a list with at least one entry, such as \[4\]$"),
    ("methods.cfm.variants", "product", r"variants of method cfm is 'product'; write a list"),
    ("extractor", "handcrafted", r"extractor of profile made is 'handcrafted'; write a mapping such as {rgb: "),
    ("extractor", {"rgb": "handcrafted"}, r"extractor of profile made lacks xyz; name both sides$"),
    ("methods.cfm.extractor", {"rgb": "a", "xyz": "b", "block": 1}, r"extractor key of method cfm 'block' is unknown"),
    ("methods.cfm.std_floor", 0, r"std_floor is 0; give a positive number"),
    ("methods.cfm", {"instance": "CFM_DEMO", "standardize": False, "std_floor": 0.1}, r"std_floor has no effect"),
    ("methods.cfm", {"instance": "ast.AST_PAPER"}, r"method cfm cannot read standardized features; write sta"),
]


BAD_VALUES = [
    ("methods", None, r"methods of profile made is None; write one `name: "),
    ("methods.cfm", None, r"method cfm is None; write a mapping such as {instance: CFM_DEMO}$"),
    ("ablations", {"short": None}, r"method short is None; write a mapping"),
    (
        "methods.cfm.overrides",
        {"num_epochs": "30"},
        r"CFMConfig\.num_epochs is '30'; give a whole number of at least 1",
    ),
    ("methods.cfm.overrides", {"num_epochs": 2.5}, r"num_epochs is 2\.5; give a whole number of at least 1"),
    ("methods.cfm.overrides", {"num_epochs": True}, r"num_epochs is True; give a whole number of at least 1"),
    ("methods.cfm.overrides", {"batch_size": -1}, r"batch_size is -1; give a whole number of at least 1"),
    ("methods.cfm.overrides", {"hidden_dim": 0}, r"hidden_dim is 0; give a whole number of at least 1"),
    ("methods.cfm.overrides", {"pixels_per_image": -1}, r"pixels_per_image is -1; give a whole number of at least 1"),
    ("methods.cfm.overrides", yaml.safe_load("learning_rate: 1e-3"), r"learning_rate is '1e-3'; .* with a point as in"),
    ("methods.cfm.overrides", {"learning_rate": -1}, r"learning_rate is -1; give a positive number"),
    ("methods.near", {"instance": "NEAREST_NEIGHBOR", "overrides": {"bank_rows": 0}}, r"bank_rows is 0; give a whole"),
    (
        "methods.near",
        {"instance": "NEAREST_NEIGHBOR", "overrides": {"blur_sigma_px": 0}},
        r"blur_sigma_px is 0; give a",
    ),
    ("threads", 0, r"threads is 0; give a whole number of at least 1"),
    ("threads", "two", r"threads is 'two'; give a whole number of at least 1"),
    ("device", "gpu", r"device of profile made 'gpu' is unknown; choose one of cpu, cuda$"),
    ("standardize", "false", r"standardize of profile made is 'false'; write true or false$"),
    ("methods.cfm.standardize", "false", r"standardize of method cfm is 'false'; write true or false$"),
    ("methods.cfm.instance", "no_such_file.NAME", r"no_such_file.NAME: there is no lib/heads/no_such_file\.py"),
    ("methods.cfm.instance", "cfm.NAME", r"instance of lib/heads/cfm\.py 'NAME' is unknown; choose one of"),
    ("seeds", [], r"seeds of profile made is \[\]; write a list with at least one entry"),
    ("methods.cfm.seeds", [], r"seeds of method cfm is \[\]; write a list with at least one entry"),
    ("methods.cfm.variants", [], r"variants of method cfm is \[\]; write a list with at least one entry"),
    ("methods.cfm.categories", None, r"categories of method cfm is None; write a list with at least one entry"),
    ("dataset", "synth3d", r"data_seed of profile made is None; synth3d needs a whole number$"),
]


@pytest.mark.parametrize(("path", "value", "message"), BAD_PROFILES + BAD_VALUES)
def test_unknown_words_of_a_profile_are_one_line_that_lists_the_known(path: str, value: Any, message: str) -> None:
    with pytest.raises(InputError, match=message) as raised:
        parse_profile("made", changed(path, value))
    one_line(raised)


@pytest.mark.parametrize("data_seed", [-1, 1.5, "7"])
def test_embedded_dataset_needs_a_whole_seed(data_seed: Any) -> None:
    with pytest.raises(InputError, match=f"data_seed of profile made is {data_seed!r}; synth3d needs a whole number"):
        parse_profile("made", {**RAW, "dataset": "synth3d", "data_seed": data_seed})


def test_missing_keys_are_named() -> None:
    raw = {key: value for key, value in RAW.items() if key not in ("dataset", "chapters")}
    with pytest.raises(InputError, match=r"profile made lacks dataset, chapters; add them to profiles/made\.yaml"):
        parse_profile("made", raw)


def test_unknown_profile_lists_the_files() -> None:
    with pytest.raises(InputError, match=r"profile 'dmeo' is unknown; choose one of .*demo") as raised:
        load_profile("dmeo")
    one_line(raised)


@pytest.mark.parametrize(("text", "message"), [("a: [1", "is not YAML"), ("", "holds no settings"), ("word", "holds")])
def test_broken_profile_file_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, message: str
) -> None:
    (tmp_path / "profiles").mkdir()
    (tmp_path / "profiles" / "mine.yaml").write_text(text)
    monkeypatch.setattr(profiles, "project_root", lambda: tmp_path)
    with pytest.raises(InputError, match=rf"mine\.yaml {message}") as raised:
        load_profile("mine")
    one_line(raised)


def test_unknown_method_and_category_list_the_known() -> None:
    profile = parse_profile("made", RAW)
    with pytest.raises(InputError, match=r"method of profile made 'patchcore' is unknown; choose one of cfm, blind$"):
        profile.method("patchcore")
    with pytest.raises(InputError, match=r"category of profile made 'bagel' is unknown; choose one of dome, rope$"):
        profile.check_category("bagel")
    assert profile.check_category("rope") == "rope"


@pytest.fixture
def roots(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Path]:
    """Three existing dataset folders; the variable is unset."""
    monkeypatch.delenv(profiles.DATA_ROOT_VARIABLE, raising=False)
    made = {name: tmp_path / name for name in ("argument", "variable", "data")}
    for path in made.values():
        path.mkdir()
    return made


def test_data_root_is_argument_then_variable_then_profile(
    roots: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    profile = study_in(tmp_path)
    assert data_root(profile) == roots["data"]
    monkeypatch.setenv(profiles.DATA_ROOT_VARIABLE, str(roots["variable"]))
    assert data_root(profile) == roots["variable"]
    assert data_root(profile, roots["argument"]) == roots["argument"]


def test_relative_data_root_starts_at_the_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(profiles.DATA_ROOT_VARIABLE, raising=False)
    monkeypatch.setattr(profiles, "project_root", lambda: tmp_path)
    (tmp_path / "data").mkdir()
    assert data_root(parse_profile("made", RAW)) == tmp_path / "data"


def test_missing_dataset_names_all_three_remedies(roots: dict[str, Path], tmp_path: Path) -> None:
    profile = dataclasses.replace(study_in(tmp_path), data_root=str(tmp_path / "nowhere"))
    with pytest.raises(InputError) as raised:
        data_root(profile)
    line = one_line(raised)
    for part in (str(tmp_path / "nowhere"), "give data_root", profiles.DATA_ROOT_VARIABLE, "profiles/fixture.yaml"):
        assert part in line


def test_embedded_dataset_needs_no_folder_and_ignores_the_variable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(profiles.DATA_ROOT_VARIABLE, str(tmp_path))
    made: Profile = parse_profile("made", {**RAW, "dataset": "synth3d", "data_seed": 0, "data_root": "runs/made/data"})
    assert data_root(made) == project_root() / "runs" / "made" / "data"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seeds": ["a"]}, "seeds of profile made holds 'a'; write whole numbers"),
        ({"seeds": [-1]}, "holds -1; write whole numbers"),
        ({"seeds": [1.5]}, "holds 1.5; write whole numbers"),
        ({"categories": [1]}, "categories of profile made holds 1; write names"),
        ({"extractor": None}, "extractor of profile made is None; write a mapping"),
        ({"data_root": None}, "data_root of profile made is None; write a name"),
        ({"ablations": ["a"]}, "ablations of profile made is \\['a'\\]; write one"),
    ],
)
def test_entries_of_the_wrong_kind_are_one_line(change: dict, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        parse_profile("made", RAW | change)
    assert "\n" not in str(caught.value)
