"""A study on the small made-up dataset, for every test that runs one from data to record."""

from __future__ import annotations

from pathlib import Path

import hypothesis
import pytest

from lib import feature_store
from lib.profiles import DATA_ROOT_VARIABLE
from tests.fixture_study import CATEGORY, FixtureProfile, copied_study, study_in, write_data

# The same examples on every run: what fails has been changed, and what passes here passes in CI.
hypothesis.settings.register_profile("fixed", derandomize=True, deadline=None)
hypothesis.settings.load_profile("fixed")


@pytest.fixture(scope="session")
def study_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a study with data and features; tests work on copies."""
    folder = tmp_path_factory.mktemp("study")
    write_data(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv(DATA_ROOT_VARIABLE, raising=False)
        feature_store.extract_features(study_in(folder), CATEGORY)
    return folder


@pytest.fixture
def study(study_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FixtureProfile:
    """Profile of a study with data and features under `tmp_path`."""
    monkeypatch.delenv(DATA_ROOT_VARIABLE, raising=False)
    return copied_study(study_base, tmp_path)
