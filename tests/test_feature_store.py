"""Features of a whole category: extracted once, kept, made again when anything behind them changes."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import runpy
import shutil
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import torch

from lib import feature_store
from lib.config import ExtractorSpec, project_root
from lib.data import SPLITS
from lib.errors import InputError
from lib.extractors import get_extractor
from lib.features import Features, Standardizer, load_features
from lib.heads.cfm import CFM
from lib.methods import CFMConfig
from lib.preparation import PREPARATION_DEFAULT, PREPARATION_RELEASED
from lib.synth3d import SYNTH3D_VERSION
from tests.fixture_study import CATEGORY, HANDCRAFTED, FixtureProfile

NUM_SAMPLES = 7


@pytest.fixture
def extracted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Ids of the samples that the extractor is called for."""
    seen: list[str] = []
    real = get_extractor(HANDCRAFTED)

    def extractor(sample: Any) -> Features:
        seen.append(sample.sample_id)
        return real(sample)

    monkeypatch.setattr(feature_store, "get_extractor", lambda spec, device: extractor)
    return seen


def settings_of(study: FixtureProfile) -> dict[str, Any]:
    return feature_store.feature_settings(study, Path(study.data_root), CATEGORY, study.extractor)


def cache_of(study: FixtureProfile) -> Path:
    return feature_store.cache_folder(study, study.extractor, settings_of(study), CATEGORY)


def manifest_of(study: FixtureProfile) -> Path:
    return feature_store.manifest_path(study, study.extractor, CATEGORY)


def feature_files(study: FixtureProfile) -> dict[str, bytes]:
    """Content of every stored features file by sample id."""
    folder = cache_of(study)
    paths = sorted(folder.rglob("*.safetensors"))
    return {path.relative_to(folder).with_suffix("").as_posix(): path.read_bytes() for path in paths}


def same(first: Features, second: Features) -> bool:
    return all(
        torch.equal(a, b) if isinstance(a := getattr(first, f.name), torch.Tensor) else a == b
        for f in dataclasses.fields(Features)
        for b in [getattr(second, f.name)]
    )


def test_every_sample_has_its_features_in_file_order(study: FixtureProfile) -> None:
    assert len(feature_files(study)) == NUM_SAMPLES
    for split in SPLITS:
        files = feature_store.sample_files(study, CATEGORY, split)
        found = feature_store.category_features(study, CATEGORY, split)
        assert [sample.sample_id for sample in found] == [entry.sample_id for entry in files]
        assert [sample.label for sample in found] == [entry.label for entry in files]


def test_ground_truth_comes_in_the_same_order(study: FixtureProfile) -> None:
    masks, defects = feature_store.test_facts(study, CATEGORY)
    assert defects == [entry.defect for entry in feature_store.sample_files(study, CATEGORY, "test")]
    assert masks.dtype == bool and masks.shape == (3, 224, 224)
    assert masks.any(axis=(1, 2)).tolist() == [defect != "good" for defect in defects]


def test_features_are_standardized_on_the_training_set_if_so_set(study: FixtureProfile) -> None:
    plain_study = dataclasses.replace(study, standardize=False)
    plain = {split: feature_store.category_features(plain_study, CATEGORY, split) for split in ("train", "test")}
    standardizer = Standardizer.fit(plain["train"])
    for split, samples in plain.items():
        found = feature_store.category_features(study, CATEGORY, split)
        assert all(same(standardizer.apply(a), b) for a, b in zip(samples, found, strict=True))
    tokens = torch.cat([sample.xyz_tokens for sample in feature_store.category_features(study, CATEGORY, "train")])
    torch.testing.assert_close(tokens.mean(dim=0), torch.zeros(tokens.shape[1]), atol=1e-3, rtol=0)


def test_a_split_too_large_for_memory_is_read_at_each_access(study: FixtureProfile) -> None:
    held = feature_store.category_features(study, CATEGORY, "train")
    lazy = feature_store.category_features(study, CATEGORY, "train", kept_bytes=1)
    assert isinstance(held, list) and not isinstance(lazy, list)
    assert len(lazy) == 3 and lazy[1] is not lazy[1] and held[1] is held[1]
    assert all(same(a, b) for a, b in zip(held, lazy, strict=True))


def test_few_samples_are_standardized_by_themselves(study: FixtureProfile) -> None:
    plain_study = dataclasses.replace(study, standardize=False)
    few = [feature_store.category_features(plain_study, CATEGORY, "train")[index] for index in (0, 2)]
    standardizer = Standardizer.fit(few)
    found = feature_store.category_features(study, CATEGORY, "train", chosen=(0, 2))
    assert all(same(standardizer.apply(a), b) for a, b in zip(few, found, strict=True))
    test = feature_store.category_features(study, CATEGORY, "test", chosen=(0, 2))
    expected = feature_store.category_features(plain_study, CATEGORY, "test")
    assert all(same(standardizer.apply(a), b) for a, b in zip(expected, test, strict=True))


def test_recomputed_features_go_by_the_epoch(study: FixtureProfile, monkeypatch: pytest.MonkeyPatch) -> None:
    visits = []
    monkeypatch.setattr(feature_store.RecomputedFeatures, "set_epoch", lambda self, epoch: visits.append(epoch))
    features = feature_store.RecomputedFeatures(study, CATEGORY, study.extractor, chosen=(2, 0))
    assert len(features) == 2 and features[0].sample_id.endswith("002") and features[0] is not features[0]
    config = CFMConfig(hidden_dim=3, num_epochs=4, pixels_per_image=11)
    CFM(config, *(features[0].rgb_tokens.shape[0], features[0].xyz_tokens.shape[1])).fit(features, 0)
    assert visits == [0, 1, 2, 3]


def test_nothing_is_extracted_twice(study: FixtureProfile, extracted: list[str]) -> None:
    before = feature_files(study)
    manifest = manifest_of(study)
    written = manifest.stat().st_mtime_ns
    feature_store.extract_features(study, CATEGORY)
    assert extracted == [] and feature_files(study) == before
    assert manifest.stat().st_mtime_ns == written


def test_interrupted_extraction_goes_on_with_the_missing_samples(study: FixtureProfile, extracted: list[str]) -> None:
    before = feature_files(study)
    folder = cache_of(study)
    manifest_of(study).unlink()
    missing = ["test/hole/000", "train/good/001"]
    for name in missing:
        (folder / f"{name}.safetensors").unlink()
    feature_store.extract_features(study, CATEGORY)
    assert sorted(extracted) == missing and feature_files(study) == before
    assert manifest_of(study).is_file()


def test_deleted_features_of_a_finished_category_come_back(study: FixtureProfile, extracted: list[str]) -> None:
    before = feature_files(study)
    (cache_of(study) / "train/good/001.safetensors").unlink()
    assert len(feature_store.category_features(study, CATEGORY, "train")) == 3
    assert extracted == ["train/good/001"] and feature_files(study) == before


def test_broken_features_file_is_named_and_its_advice_helps(study: FixtureProfile) -> None:
    path = cache_of(study) / "test/hole/000.safetensors"
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=r"hole/000\.safetensors is not a whole features file .*delete it"):
        feature_store.category_features(study, CATEGORY, "test")
    path.unlink()
    feature_store.category_features(study, CATEGORY, "test")
    assert path.read_bytes() == whole


def test_half_written_file_of_a_killed_writer_is_never_read(study: FixtureProfile) -> None:
    folder = cache_of(study) / "train" / "good"
    (folder / ".000.0badcafe.part.safetensors").write_bytes(b"half")
    shutil.copy(folder / "000.safetensors", folder / ".000.1badcafe.part.safetensors")
    assert len(feature_store.category_features(study, CATEGORY, "train")) == 3


def changed_data(study: FixtureProfile, monkeypatch: pytest.MonkeyPatch) -> FixtureProfile:
    shutil.rmtree(Path(study.data_root) / CATEGORY / "validation" / "good" / "xyz")
    shutil.rmtree(Path(study.data_root) / CATEGORY / "validation" / "good" / "rgb")
    for kind in ("rgb", "xyz"):
        source = Path(study.data_root) / CATEGORY / "train" / "good" / kind
        shutil.copytree(source, Path(study.data_root) / CATEGORY / "validation" / "good" / kind)
    return study


def changed_preparation(study: FixtureProfile, monkeypatch: pytest.MonkeyPatch) -> FixtureProfile:
    return dataclasses.replace(study, preparation="PREPARATION_RELEASED")


def changed_code(study: FixtureProfile, monkeypatch: pytest.MonkeyPatch) -> FixtureProfile:
    monkeypatch.setattr(feature_store, "code_fingerprint", lambda module, root: f"another {module}")
    return study


@pytest.mark.parametrize("change", [changed_data, changed_preparation, changed_code])
def test_everything_is_extracted_again_when_something_behind_it_changes(
    study: FixtureProfile, extracted: list[str], monkeypatch: pytest.MonkeyPatch, change: Any
) -> None:
    settings = settings_of(study)
    study = change(study, monkeypatch)
    after = settings_of(study)
    assert [key for key in settings if settings[key] != after[key]] == [change.__name__.removeprefix("changed_")]
    feature_store.extract_features(study, CATEGORY)
    files = [entry for split in SPLITS for entry in feature_store.sample_files(study, CATEGORY, split)]
    assert sorted(extracted) == sorted(feature_files(study)) == sorted(entry.sample_id for entry in files)


def test_interruption_under_old_settings_leaves_nothing_to_the_new(
    study: FixtureProfile, extracted: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest_of(study).unlink()
    feature_store.extract_features(changed_code(study, monkeypatch), CATEGORY)
    assert len(extracted) == NUM_SAMPLES


def test_failing_sample_leaves_no_manifest_and_loses_no_other(
    study: FixtureProfile, extracted: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    changed_code(study, monkeypatch)
    image = Path(study.data_root) / CATEGORY / "validation" / "good" / "rgb" / "000.png"
    image.write_bytes(bytes(image.stat().st_size))
    with pytest.raises(InputError, match=r"000\.png"):
        feature_store.extract_features(study, CATEGORY)
    assert not manifest_of(study).exists()
    assert sorted(feature_files(study)) == sorted(extracted) == [f"train/good/00{i}" for i in range(3)]


def test_unknown_names_are_one_line_that_lists_the_known(study: FixtureProfile) -> None:
    with pytest.raises(InputError, match=r"category of profile fixture 'bagel' is unknown; choose one of dome$"):
        feature_store.ensure_data(study, "bagel")
    with pytest.raises(InputError, match="preparation of profile fixture 'MINE' is unknown; choose one of PREP"):
        feature_store.preparation_config(dataclasses.replace(study, preparation="MINE"))


def test_preparation_is_the_profiles(study: FixtureProfile) -> None:
    assert feature_store.preparation_config(study) == PREPARATION_DEFAULT
    assert feature_store.preparation_config(changed_preparation(study, None)) == PREPARATION_RELEASED
    (entry,) = feature_store.sample_files(study, CATEGORY, "validation")
    sample = feature_store.prepared(study, entry)
    stored = load_features(cache_of(study) / f"{entry.sample_id}.safetensors")
    assert torch.equal(sample.foreground, stored.foreground)


def test_fingerprint_of_data_is_the_manifests_own_or_over_names_sizes_and_times(tmp_path: Path) -> None:
    folder = tmp_path / CATEGORY
    folder.mkdir()
    (folder / "a.png").write_bytes(b"123")
    os.utime(folder / "a.png", ns=(0, 10**18))
    found = [feature_store.data_fingerprint(tmp_path, CATEGORY)]
    (folder / "a.png").write_bytes(b"1234")
    os.utime(folder / "a.png", ns=(0, 10**18))
    found.append(feature_store.data_fingerprint(tmp_path, CATEGORY))
    (folder / "a.png").rename(folder / "b.png")
    found.append(feature_store.data_fingerprint(tmp_path, CATEGORY))
    assert feature_store.data_fingerprint(tmp_path, CATEGORY) == found[-1]
    os.utime(folder / "b.png", ns=(0, 10**18 + 10**9))
    found.append(feature_store.data_fingerprint(tmp_path, CATEGORY))
    assert len(set(found)) == 4
    (folder / "manifest.json").write_text(json.dumps({"sha256": "abc", "seed": 5, "synth3d_version": "v1"}))
    assert feature_store.data_fingerprint(tmp_path, CATEGORY) == "abc"


def test_data_manifest_tells_what_the_dataset_has(study: FixtureProfile) -> None:
    facts = feature_store.data_manifest(study, CATEGORY)
    assert facts == {"sha256": feature_store.data_fingerprint(Path(study.data_root), CATEGORY)}
    manifest = {"sha256": "abc", "seed": 5, "synth3d_version": "v1", "counts": {}}
    (Path(study.data_root) / CATEGORY / "manifest.json").write_text(json.dumps(manifest))
    assert feature_store.data_manifest(study, CATEGORY) == {"seed": "5", "synth3d_version": "v1", "sha256": "abc"}


def test_dataset_is_named_with_all_that_its_data_depend_on(study: FixtureProfile) -> None:
    assert feature_store.dataset_name(study) == "fixture"
    embedded = dataclasses.replace(study, dataset="synth3d", data_seed=4)
    assert feature_store.dataset_name(embedded) == f"synth3d {SYNTH3D_VERSION}, seed 4"


@pytest.fixture
def other_spec(monkeypatch: pytest.MonkeyPatch) -> ExtractorSpec:
    """A second extractor for the same samples: the handcrafted pair under other settings."""
    settings = feature_store.extractor_settings
    changed = lambda spec: settings(HANDCRAFTED) | {"note": spec.slug}  # noqa: E731
    monkeypatch.setattr(feature_store, "extractor_settings", changed)
    monkeypatch.setattr(feature_store, "get_extractor", lambda spec, device: get_extractor(HANDCRAFTED))
    return ExtractorSpec("handcrafted", "fpfh")


def test_extractors_have_their_own_cache(study: FixtureProfile, other_spec: ExtractorSpec) -> None:
    first = feature_store.extract_features(study, CATEGORY)
    before = {path: path.stat().st_mtime_ns for path in first.rglob("*.safetensors")}
    second = feature_store.extract_features(study, CATEGORY, other_spec)
    assert first != second and len(before) == NUM_SAMPLES
    assert feature_store.extract_features(study, CATEGORY) == first
    assert {path: path.stat().st_mtime_ns for path in first.rglob("*.safetensors")} == before
    assert {slug: number for slug, (number, _) in feature_store.cache_sizes(study).items()} == {
        "handcrafted+handcrafted": 2 * NUM_SAMPLES,  # the fixture's own, and those under the noted settings
        "handcrafted+fpfh": NUM_SAMPLES,
    }


def test_settings_hold_both_sides_of_the_extractor(study: FixtureProfile) -> None:
    settings = settings_of(study)["extractor"]
    assert settings == json.loads(json.dumps(feature_store.extractor_settings(HANDCRAFTED)))
    assert (settings["rgb"]["name"], settings["xyz"]["fpfh_radii_m"]) == ("handcrafted", [0.003, 0.006])


def test_clearing_the_cache_frees_what_it_showed(study: FixtureProfile) -> None:
    (_, size), *others = feature_store.cache_sizes(study).values()
    assert not others and size == sum(len(content) for content in feature_files(study).values()) > 0
    assert feature_store.clear_cache(study) == size
    assert feature_store.cache_sizes(study) == {} and feature_store.clear_cache(study) == 0
    assert len(feature_store.category_features(study, CATEGORY, "train")) == 3


def test_a_second_process_waits_for_the_first_and_reads_all(study: FixtureProfile) -> None:
    """Clearing in the middle of another's extraction waits for it: nobody reads half a training set."""
    slug, started, found = study.extractor.slug, threading.Event(), []
    with feature_store.cache_lock(study, slug, CATEGORY):
        thread = threading.Thread(target=lambda: (started.set(), found.append(feature_store.clear_cache(study))))
        thread.start()
        started.wait()
        thread.join(0.3)
        assert found == [] and len(feature_files(study)) == NUM_SAMPLES
    thread.join()
    assert found and feature_files(study) == {}
    assert not manifest_of(study).exists()


def test_a_missing_sample_is_never_left_out(study: FixtureProfile, monkeypatch: pytest.MonkeyPatch) -> None:
    """What another tool deletes between extraction and reading is an error, not a smaller training set."""
    folder = cache_of(study)
    (folder / "train/good/001.safetensors").unlink()
    with pytest.raises(InputError, match=r"good/001\.safetensors: no such features file"):
        feature_store.read_split(folder, feature_store.sample_files(study, CATEGORY, "train"))


def test_embedded_data_are_made_where_they_are_missing(
    study: FixtureProfile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[tuple] = []
    monkeypatch.setattr(feature_store, "write_category", lambda *given, progress: calls.append(given))
    embedded = dataclasses.replace(study, dataset="synth3d", data_seed=4)
    assert feature_store.ensure_data(embedded, CATEGORY) == tmp_path / "data"
    feature_store.ensure_data(study, CATEGORY)
    assert calls == [(tmp_path / "data", CATEGORY, 4)]


def test_stored_json_is_none_where_it_cannot_be_read(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "a.json"
    assert feature_store.stored_json(path) is None
    feature_store.write_json(path, {"a": [1, None]})
    assert feature_store.stored_json(path) == {"a": [1, None]}
    path.write_text('{"a": [1')
    assert feature_store.stored_json(path) is None


def test_command_line_shows_and_clears(
    study: FixtureProfile, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("lib.profiles.load_profile", lambda name: study)
    script = str(project_root() / "data_scripts" / "feature_cache.py")

    def output(action: str) -> str:
        monkeypatch.setattr(sys, "argv", ["feature_cache", action])
        with pytest.raises(SystemExit) as ended:
            runpy.run_path(script, run_name="__main__")
        assert ended.value.code == 0
        return capsys.readouterr().out

    assert re.search(rf"handcrafted\+handcrafted +{NUM_SAMPLES} samples +\d+ MB", output("show"))
    assert "of features of profile fixture deleted" in output("clear")
    assert feature_files(study) == {} and output("show").startswith("0 MB in all")
