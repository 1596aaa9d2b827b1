"""Which ablations `make ablations` plans, and in which order."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from data_scripts import ablations
from data_scripts.ablations import planned_ablations
from lib.errors import InputError
from lib.profiles import Profile, load_profile


def test_jobs_that_start_together_take_different_categories() -> None:
    demo = load_profile("demo")
    planned = planned_ablations(demo, "lsfa_seeds")
    assert planned[: len(demo.categories)] == [("lsfa_seeds", category, 0) for category in demo.categories]
    assert {seed for _, _, seed in planned} == {0, 1, 2} and len(set(planned)) == len(planned)


def test_a_pattern_that_fits_nothing_is_an_error() -> None:
    with pytest.raises(InputError, match="profile demo plans no ablation named lfsa"):
        planned_ablations(load_profile("demo"), "lfsa*")


def test_what_is_left_to_do_after_an_interruption(monkeypatch: pytest.MonkeyPatch) -> None:
    """Missing or of other settings is one thing, made by other code another: results/ is full from the start."""
    states = {"cord": "of this code", "ring": "of other code", "sweet": "not there"}

    def is_curated(profile: Profile, method: str, category: str, seed: int, by_this_code: bool) -> bool:
        return states[category] == "of this code" or (states[category] == "of other code" and not by_this_code)

    monkeypatch.setattr(ablations, "is_curated", is_curated)
    planned = [("made", category, 0) for category in states]
    left = {only: ablations.left_to_do(load_profile("demo"), planned, only) for only in ("all", "missing", "stale")}
    assert left == {"all": planned, "missing": planned[2:], "stale": planned[1:]}


def test_every_ablation_but_that_of_pixels_takes_two_categories_or_more() -> None:
    specs = [spec for spec in load_profile("demo").methods.values() if spec.ablation]
    assert {spec.name for spec in specs if len(spec.categories) < 2} == {
        "cfm_pixels_64", "cfm_pixels_512", "cfm_pixels_all",
    }  # fmt: skip


def test_an_ablation_that_its_data_refuses_keeps_none_of_the_others_back(monkeypatch: pytest.MonkeyPatch) -> None:
    done = []

    def remake_one(profile: str, method: str, category: str, seed: int) -> None:
        if method == "audit_unprepared":
            raise InputError("give the raw dataset")
        done.append((method, category, seed))

    monkeypatch.setattr(ablations, "remake_one", remake_one)
    monkeypatch.setattr(ablations, "ProcessPoolExecutor", lambda num_jobs, *_, **named: ThreadPoolExecutor(num_jobs))
    demo = load_profile("demo")
    with pytest.raises(InputError, match=r"^6 ablations .* are there; audit_unprepared cord 0: give the raw dataset$"):
        ablations.remake(demo, "audit_*", only="all", num_jobs=1)
    assert done == [entry for entry in planned_ablations(demo, "audit_*") if entry[0] != "audit_unprepared"]
