"""Pairs of extractors that share a side: its tokens are made once and are the same as made anew."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from typing import Any, NoReturn

import pytest

from lib import feature_store
from lib.config import ExtractorSpec
from lib.extractors.handcrafted import HandcraftedRgb, HandcraftedXyz
from lib.token_sharing import shared_folders
from tests.fixture_study import CATEGORY, FixtureProfile

SAME_XYZ = ExtractorSpec("color_patches", "handcrafted")
SAME_RGB = ExtractorSpec("handcrafted", "depth")


def refuse(*given: Any) -> NoReturn:
    raise AssertionError("these tokens lie in the files of another pair")


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*.safetensors")}


@pytest.fixture
def alone(study: FixtureProfile) -> dict[ExtractorSpec, dict[str, bytes]]:
    """Features files of two pairs, each made where there is no other pair; afterwards only the study's own is left."""
    found = {}
    for spec in (SAME_XYZ, SAME_RGB):
        shutil.rmtree(feature_store.features_root(study), ignore_errors=True)
        found[spec] = files_of(feature_store.extract_features(study, CATEGORY, spec))
    shutil.rmtree(feature_store.features_root(study))
    feature_store.extract_features(study, CATEGORY)
    return found


@pytest.mark.parametrize(("spec", "side"), [(SAME_XYZ, HandcraftedXyz), (SAME_RGB, HandcraftedRgb)])
def test_a_shared_side_is_not_made_again_and_gives_the_same_files(
    study: FixtureProfile, alone: Any, monkeypatch: pytest.MonkeyPatch, spec: ExtractorSpec, side: type
) -> None:
    monkeypatch.setattr(side, "__call__", refuse)
    assert files_of(feature_store.extract_features(study, CATEGORY, spec)) == alone[spec]


def test_a_file_that_is_not_whole_or_gone_is_passed_over(study: FixtureProfile, alone: Any) -> None:
    first, second, *_ = sorted(feature_store.extract_features(study, CATEGORY).rglob("*.safetensors"))
    first.write_bytes(b"torn")
    second.unlink()
    assert files_of(feature_store.extract_features(study, CATEGORY, SAME_XYZ)) == alone[SAME_XYZ]


def test_other_preparations_share_nothing(study: FixtureProfile, alone: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(HandcraftedXyz, "__call__", refuse)
    with pytest.raises(AssertionError, match="another pair"):
        feature_store.extract_features(study, CATEGORY, dataclasses.replace(SAME_XYZ, preparation="PREPARATION_BLACK"))


def test_sides_are_shared_by_all_that_their_tokens_depend_on() -> None:
    def settings(rgb: str, xyz: dict[str, Any], code: str = "c") -> dict[str, Any]:
        return {"extractor": {"rgb": {"name": rgb}, "xyz": xyz}, "code": code}

    point = {"name": "embedded_point"}
    far = {**point, "interpolation": "expanded", "moved_m": 5.0}
    others = {
        Path("far"): settings("a", far),
        Path("drawn"): settings("b", {**point, "draw": 1}),
        Path("old"): settings("b", point, "older"),
        Path("torn"): None,
    }
    assert shared_folders(settings("b", point), others) == {"rgb": [Path("drawn")], "xyz": [Path("far")]}
