"""From data to record: computed once, kept, recomputed when anything behind it changes, whole after every kill."""

from __future__ import annotations

import copy
import dataclasses
import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lib import experiment, feature_store
from lib.config import project_root, stored_settings
from lib.errors import InputError
from lib.extractors import extractor_settings
from lib.feature_store import COMPUTING_PACKAGES, category_features, extract_features
from lib.heads import Prediction
from lib.heads.blind import Blind
from lib.heads.cfm import CFM, combine
from lib.heads.checkpoints import Checkpoint
from lib.heads.memory_bank import NearestNeighbor
from lib.instances import BLIND
from lib.methods import CFM_VARIANTS, CFMConfig, NearestNeighborConfig, Scoring
from lib.metrics import evaluate
from lib.pixel_metrics import aupro, pixel_auroc, pro_curve
from lib.profiles import DATA_ROOT_VARIABLE
from lib.records import comparable, differences, read_record, record_path, write_record
from tests.factories import make_features
from tests.fixture_study import CATEGORY, HANDCRAFTED, METHODS, VARIANTS, FixtureProfile, copied_study

Records = dict[str, dict[str, Any]]

KILLED_IN_FEATURES = """
import os, signal, sys
from lib import experiment, features
from tests.fixture_study import study_in
real, calls = features.save_file, []
def save_file(stored, path, metadata):
    calls.append(path)
    if len(calls) == 4:
        path.write_bytes(b"half")
        os.kill(os.getpid(), signal.SIGKILL)
    real(stored, path, metadata=metadata)
features.save_file = save_file
experiment.run(study_in(sys.argv[1]), "cfm", "dome", 0)
"""
KILLED_IN_RECORDS = """
import os, signal, sys
from lib import experiment, records
from lib.runtime import atomic_path
from tests.fixture_study import study_in
def write_record(path, record):
    if "released" not in path.name:
        return records.write_record(path, record)
    with atomic_path(path) as temporary:
        temporary.write_text('{"schema": 1, ')
        os.kill(os.getpid(), signal.SIGKILL)
experiment.write_record = write_record
experiment.run(study_in(sys.argv[1]), "cfm", "dome", 0)
"""
KILLED_IN_TRAINING = """
import os, signal, sys
from lib import experiment
from lib.heads.checkpoints import Checkpoint
from tests.fixture_study import study_in
real = Checkpoint.save
def save(self, epochs_done, parts):
    real(self, epochs_done, parts)
    os.kill(os.getpid(), signal.SIGKILL)
Checkpoint.save, Checkpoint.is_due = save, lambda self: True
experiment.run(study_in(sys.argv[1]), "cfm", "dome", 0)
"""
ONE_OF_TWO = """
import json, sys, time
from pathlib import Path
from lib import experiment, feature_store
from tests.fixture_study import study_in
folder, name = Path(sys.argv[1]), sys.argv[2]
real, computed = experiment.compute, []
def compute(*given):
    computed.append(name)
    time.sleep(0.5)
    return real(*given)
experiment.compute = compute
(folder / f"{name}.ready").touch()
while len(list(folder.glob("*.ready"))) < 2:
    time.sleep(0.02)
print(json.dumps([computed, experiment.run(study_in(folder), "cfm", "dome", 0)]))
"""


@pytest.fixture(scope="module")
def finished_base(study_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a study in which CFM has run at seed 0."""
    study = copied_study(study_base, tmp_path_factory.mktemp("finished"))
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv(DATA_ROOT_VARIABLE, raising=False)
        experiment.run(study, "cfm", CATEGORY, 0)
    return Path(study.data_root).parent


@pytest.fixture
def finished(study: FixtureProfile, finished_base: Path, tmp_path: Path) -> FixtureProfile:
    """The study of `finished_base`, copied."""
    return copied_study(finished_base, tmp_path)


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Methods that were computed, in order."""
    names: list[str] = []
    real = experiment.compute

    def compute(profile: Any, spec: Any, *rest: Any, **named: Any) -> Records:
        names.append(spec.name)
        return real(profile, spec, *rest, **named)

    monkeypatch.setattr(experiment, "compute", compute)
    return names


def stored(study: FixtureProfile) -> Records:
    """Records of CFM at seed 0 as they lie on disk."""
    root = study.work_dir / "records"
    return {variant: read_record(record_path(root, "cfm", CATEGORY, variant, 0)) for variant in VARIANTS}


def without_run(records: Records) -> Records:
    return {name: {key: part for key, part in record.items() if key != "run"} for name, record in records.items()}


def with_method(study: FixtureProfile, name: str, **changes: Any) -> FixtureProfile:
    """The study with some fields of a method's settings replaced."""
    return with_spec(study, name, config=dataclasses.replace(study.method(name).config, **changes))


def with_spec(study: FixtureProfile, name: str, **changes: Any) -> FixtureProfile:
    """The study with some fields of what it says of a method replaced."""
    spec = dataclasses.replace(study.method(name), **changes)
    return dataclasses.replace(study, methods={**study.methods, name: spec})


class TestRecord:
    def test_says_what_was_run_on_what(self, finished: FixtureProfile) -> None:
        record = stored(finished)["product"]
        assert record["key"] == {
            "profile": "fixture", "method": "cfm", "category": CATEGORY, "variant": "product", "seed": 0,
        }  # fmt: skip
        assert record["config"]["method"] == {"type": "CFMConfig", **stored_settings(METHODS["cfm"].config)}
        assert record["config"]["extractor"] == json.loads(json.dumps(extractor_settings(HANDCRAFTED)))
        assert record["config"]["standardize"] is True
        assert record["config"]["variant"] == {
            "aggregation": "product", "blur": "gaussian", "blur_sigma_px": 4.0, "score_rule": "paper",
        }  # fmt: skip
        assert record["config"]["preparation"]["image_size"] == 224
        assert record["inputs"].keys() == {"dataset", "threads", "device", "data", "versions", "code"}
        assert (record["inputs"]["dataset"], record["inputs"]["device"]) == ("fixture", "cpu")
        assert record["inputs"]["versions"].keys() == {*COMPUTING_PACKAGES, "scikit-learn"}
        assert {name: len(curve) for name, curve in record["history"].items()} == {"rgb_to_xyz": 2, "xyz_to_rgb": 2}
        assert record["run"].keys() >= {"fit_seconds", "predict_seconds", "peak_memory_mb", "cpu", "date", "versions"}

    def test_spells_out_the_variant_of_each(self, finished: FixtureProfile) -> None:
        variants = {name: record["config"]["variant"] for name, record in stored(finished).items()}
        assert variants == {name: dataclasses.asdict(CFM_VARIANTS[name]) for name in VARIANTS}
        (blind,) = experiment.run(finished, "blind", CATEGORY, 0).values()
        assert blind["config"]["variant"] == {"name": "outline"}

    def test_holds_no_machine_path(self, finished: FixtureProfile) -> None:
        text = json.dumps(stored(finished))
        assert str(project_root()) not in text and str(finished.work_dir) not in text

    def test_lists_every_test_image_with_its_score(self, finished: FixtureProfile) -> None:
        head = experiment.make_head(METHODS["cfm"].config, category_features(finished, CATEGORY, "train")[0], "cpu")
        head.fit(category_features(finished, CATEGORY, "train"), seed=0)
        test = category_features(finished, CATEGORY, "test")
        for variant, record in stored(finished).items():
            scores = [head.predict(sample, (variant,))[variant].image_score for sample in test]
            assert [image["score"] for image in record["per_image"]] == scores
            assert [image["id"] for image in record["per_image"]] == [sample.sample_id for sample in test]
            assert [image["defect"] for image in record["per_image"]] == ["good", "hole", "stain"]
            assert record["metrics"]["by_defect"].keys() == {"hole", "stain"}

    def test_of_two_runs_differs_in_run_only(self, finished: FixtureProfile, computed: list[str]) -> None:
        first = stored(finished)
        shutil.rmtree(finished.work_dir)
        second = experiment.run(finished, "cfm", CATEGORY, 0)
        assert computed == ["cfm"] and without_run(second) == without_run(first)
        assert without_run(stored(finished)) == without_run(first)

    def test_of_another_seed_differs(self, finished: FixtureProfile) -> None:
        other = experiment.run(finished, "cfm", CATEGORY, 1)
        assert other["product"]["history"] != stored(finished)["product"]["history"]


class TestKeeping:
    def test_second_call_reads(self, finished: FixtureProfile, computed: list[str]) -> None:
        assert experiment.run(finished, "cfm", CATEGORY, 0) == stored(finished)
        assert computed == []

    @pytest.mark.parametrize(
        "change",
        [
            lambda study: with_method(study, "cfm", num_epochs=1),
            lambda study: with_spec(study, "cfm", standardize=False),
            lambda study: dataclasses.replace(study, threads=2),
            lambda study: dataclasses.replace(study, device="cuda"),
            lambda study: dataclasses.replace(study, dataset="another"),
        ],
        ids=["settings", "standardize", "threads", "device", "dataset"],
    )
    def test_changed_settings_compute_again(
        self, finished: FixtureProfile, monkeypatch: pytest.MonkeyPatch, change: Any
    ) -> None:
        assert asks_to_compute(change(finished), monkeypatch)
        assert not asks_to_compute(finished, monkeypatch)

    def test_changed_code_computes_again(self, finished: FixtureProfile, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(experiment, "code_fingerprint", lambda module, root: "another")
        assert asks_to_compute(finished, monkeypatch)

    def test_changed_versions_compute_again(self, finished: FixtureProfile, monkeypatch: pytest.MonkeyPatch) -> None:
        versions = feature_store.package_versions()
        monkeypatch.setattr(feature_store, "package_versions", lambda: {**versions, "torch": "0.0"})
        assert asks_to_compute(finished, monkeypatch)

    def test_changed_meaning_of_a_variant_computes_again(
        self, finished: FixtureProfile, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(CFM_VARIANTS, "product", Scoring(blur_sigma_px=3.0))
        assert asks_to_compute(finished, monkeypatch)

    def test_changed_data_compute_again(self, finished: FixtureProfile, monkeypatch: pytest.MonkeyPatch) -> None:
        for path in (Path(finished.data_root) / CATEGORY / "test" / "stain").rglob("000.*"):
            path.unlink()
        assert asks_to_compute(finished, monkeypatch)

    @pytest.mark.parametrize("lost", [f"records/cfm/{CATEGORY}/product-s0.json", f"maps/cfm/{CATEGORY}/s0.npz"])
    def test_lost_file_computes_again(
        self, finished: FixtureProfile, monkeypatch: pytest.MonkeyPatch, lost: str
    ) -> None:
        (finished.work_dir / lost).unlink()
        assert asks_to_compute(finished, monkeypatch)

    def test_half_record_is_named(self, finished: FixtureProfile) -> None:
        path = record_path(finished.work_dir / "records", "cfm", CATEGORY, "product", 0)
        path.write_text(path.read_text()[:100])
        with pytest.raises(InputError, match=r"product-s0\.json is not JSON .*; delete it and run again"):
            experiment.run(finished, "cfm", CATEGORY, 0)


def asks_to_compute(study: FixtureProfile, monkeypatch: pytest.MonkeyPatch) -> bool:
    """True when a run does not find records that it may take."""
    with monkeypatch.context() as patch:
        patch.setattr(experiment, "compute", lambda *given: "computed")
        return experiment.run(study, "cfm", CATEGORY, 0) == "computed"


@pytest.mark.parametrize(
    ("script", "left"),
    [(KILLED_IN_FEATURES, ".part.safetensors"), (KILLED_IN_RECORDS, ".part.json")],
    ids=["features", "records"],
)
def test_killed_run_goes_on_to_the_same_record(finished: FixtureProfile, script: str, left: str) -> None:
    expected = stored(finished)
    shutil.rmtree(finished.work_dir)
    folder = Path(finished.data_root).parent
    process = subprocess.run([sys.executable, "-c", script, folder], cwd=project_root(), check=False)
    assert process.returncode == -signal.SIGKILL
    assert len([path for path in finished.work_dir.rglob(".*") if path.name.endswith(left)]) == 1
    records = experiment.run(finished, "cfm", CATEGORY, 0)
    assert without_run(records) == without_run(expected) == without_run(stored(finished))
    features = extract_features(finished, CATEGORY)
    assert len([path for path in features.rglob("*.safetensors") if not path.name.startswith(".")]) == 7


def test_run_killed_in_training_goes_on_from_its_checkpoint(
    finished: FixtureProfile, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = stored(finished)
    shutil.rmtree(finished.work_dir / "records")
    folder = Path(finished.data_root).parent
    process = subprocess.run([sys.executable, "-c", KILLED_IN_TRAINING, folder], cwd=project_root(), check=False)
    kept = experiment.checkpoint_folder(finished, "cfm", CATEGORY, 0)
    assert process.returncode == -signal.SIGKILL and len(list(kept.iterdir())) == 1
    epochs, real = [], Checkpoint.load
    monkeypatch.setattr(Checkpoint, "load", lambda self, parts: epochs.append(real(self, parts)) or epochs[-1])
    records = experiment.run(finished, "cfm", CATEGORY, 0)
    assert epochs == [1] and without_run(records) == without_run(expected) and not kept.exists()


def test_the_time_of_a_training_counts_what_an_earlier_process_did(
    finished: FixtureProfile, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(self: Checkpoint, parts: object) -> int:
        self.spent_s["training"] = 1000.0
        return 0

    monkeypatch.setattr(Checkpoint, "load", load)
    [record] = [experiment.recompute(finished, "cfm", CATEGORY, 0)["product"]]
    assert 1000 < record["run"]["fit_seconds"] < 1900


def test_curated_records_may_be_those_of_other_code(finished: FixtureProfile, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def matching(*given: object, curated: bool) -> dict:
        asked.append(curated)
        return {}

    monkeypatch.setattr(experiment, "matching_records", matching)
    assert not experiment.is_curated(finished, "cfm", CATEGORY, 0)
    assert not experiment.is_curated(finished, "cfm", CATEGORY, 0, by_this_code=True)
    assert asked == [True, False]


def test_a_checkpoint_of_other_settings_is_not_taken(finished: FixtureProfile, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = Path(finished.data_root).parent
    shutil.rmtree(finished.work_dir / "records")
    subprocess.run([sys.executable, "-c", KILLED_IN_TRAINING, folder], cwd=project_root(), check=False)
    epochs, real = [], Checkpoint.load
    monkeypatch.setattr(Checkpoint, "load", lambda self, parts: epochs.append(real(self, parts)) or epochs[-1])
    experiment.run(with_method(finished, "cfm", learning_rate=3e-3), "cfm", CATEGORY, 0)
    assert epochs == [0]


def test_shots_stand_in_the_record_and_change_it(finished: FixtureProfile) -> None:
    few = with_spec(finished, "cfm", shots=2, draw="random")
    identity = experiment.experiment_identity(few, few.method("cfm"), Path(finished.data_root), CATEGORY)
    assert identity["config"]["shots"] == {"number": 2, "draw": "random"}
    before = stored(finished)["product"]
    record = experiment.run(few, "cfm", CATEGORY, 0)["product"]
    assert record["config"]["shots"]["number"] == 2 and record["history"] != before["history"]


def test_precision_stands_in_the_record_of_a_trained_method_unless_plain(finished: FixtureProfile) -> None:
    half = dataclasses.replace(finished, precision="bf16")
    inputs = {
        (study.precision, name): experiment.experiment_identity(
            study, study.method(name), Path(finished.data_root), CATEGORY
        )["inputs"]
        for study in (finished, half)
        for name in ("cfm", "blind")
    }
    assert inputs["bf16", "cfm"].pop("precision") == "bf16" and inputs["bf16", "cfm"] == inputs["float32", "cfm"]
    assert inputs["bf16", "blind"] == inputs["float32", "blind"]


def test_recomputed_features_train_as_stored_ones_where_nothing_is_random(finished: FixtureProfile) -> None:
    spec = dataclasses.replace(finished.method("cfm"), standardize=False)
    plain, anew = (dataclasses.replace(spec, recompute=recompute) for recompute in (False, True))
    histories = []
    for chosen in (plain, anew):
        study = dataclasses.replace(finished, methods={"cfm": chosen})
        histories.append(experiment.run(study, "cfm", CATEGORY, 0)["product"]["history"])
    assert histories[0].keys() == histories[1].keys()
    for name, curve in histories[0].items():  # stored tokens were rounded to float16
        assert histories[1][name] == pytest.approx(curve, rel=1e-2)


def test_two_processes_at_once_compute_once_and_agree(study: FixtureProfile, tmp_path: Path) -> None:
    commands = [[sys.executable, "-c", ONE_OF_TWO, tmp_path, name] for name in ("first", "second")]
    running = [subprocess.Popen(c, cwd=project_root(), stdout=subprocess.PIPE, text=True) for c in commands]
    try:
        answers = [json.loads(process.communicate(timeout=120)[0]) for process in running]
    finally:
        for process in running:  # one that waits for a partner that failed would wait for ever
            process.kill()
    assert sorted(len(computed) for computed, _ in answers) == [0, 1]
    assert answers[0][1] == answers[1][1] == stored(study)


class TestMaps:
    def test_are_kept_as_half_floats(self, finished: FixtureProfile) -> None:
        with np.load(finished.work_dir / "maps" / "cfm" / CATEGORY / "s0.npz") as maps:
            assert {name: (maps[name].shape, maps[name].dtype) for name in maps.files} == {
                name: ((3, 224, 224), np.dtype(np.float16)) for name in VARIANTS
            }

    def test_come_back_in_the_order_of_the_test_set(self, finished: FixtureProfile, computed: list[str]) -> None:
        maps = experiment.load_maps(finished, "cfm", CATEGORY, "product")
        assert maps.dtype == np.float32 and maps.shape == (3, 224, 224) and computed == []
        scores = [image["score"] for image in stored(finished)["product"]["per_image"]]
        np.testing.assert_allclose(maps.max(axis=(1, 2)), scores, rtol=1e-3)

    def test_are_computed_where_they_are_missing(self, study: FixtureProfile, computed: list[str]) -> None:
        maps = experiment.load_maps(study, "blind", CATEGORY, "outline")
        foreground = [sample.foreground.numpy() for sample in category_features(study, CATEGORY, "test")]
        np.testing.assert_array_equal(maps, np.stack(foreground))
        assert computed == ["blind"]

    def test_that_are_not_kept_are_refused_in_one_line(self, study: FixtureProfile) -> None:
        for given in (("cfm", CATEGORY, "product", 1), ("cfm_ablation", CATEGORY, "product")):
            with pytest.raises(InputError, match=rf"maps of {given[0]} at seed \d are not kept; choose"):
                experiment.load_maps(study, *given)


class TestCurated:
    @pytest.fixture
    def curated(self, study: FixtureProfile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Records:
        """A curated record as another machine wrote it; nothing else is stored."""
        monkeypatch.setattr(experiment, "results_root", lambda profile: tmp_path / "results" / profile.name)
        records = experiment.recompute(study, "cfm_ablation", CATEGORY, 0)
        shutil.rmtree(study.work_dir / "records")
        for record in records.values():
            record["inputs"] |= {"data": "another machine's", "code": "older", "versions": {"torch": "0.0"}}
        self.store(study, records)
        return records

    def store(self, study: FixtureProfile, records: Records) -> None:
        for variant, record in records.items():
            write_record(record_path(experiment.results_root(study), "cfm_ablation", CATEGORY, variant, 0), record)

    def test_record_stands_for_the_experiment(
        self, study: FixtureProfile, curated: Records, computed: list[str]
    ) -> None:
        assert experiment.run(study, "cfm_ablation", CATEGORY, 0) == curated
        assert computed == []

    def test_record_of_other_settings_does_not(
        self, study: FixtureProfile, curated: Records, computed: list[str]
    ) -> None:
        found = experiment.run(with_method(study, "cfm_ablation", num_epochs=1), "cfm_ablation", CATEGORY, 0)
        assert len(found["product"]["history"]["rgb_to_xyz"]) == 1
        experiment.run(dataclasses.replace(study, dataset="another"), "cfm_ablation", CATEGORY, 0)
        assert computed == ["cfm_ablation"] * 2

    def test_record_never_stands_for_a_method_that_is_no_ablation(
        self, study: FixtureProfile, curated: Records, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for variant in VARIANTS:
            path = record_path(experiment.results_root(study), "cfm", CATEGORY, variant, 0)
            write_record(path, curated["product"])
        assert asks_to_compute(study, monkeypatch)


def test_recompute_ignores_what_is_stored(finished: FixtureProfile, computed: list[str]) -> None:
    records = experiment.recompute(finished, "cfm", CATEGORY, 0)
    assert computed == ["cfm"]
    assert all(differences(comparable(stored(finished)[name]), comparable(records[name])) == [] for name in VARIANTS)


UNPLANNED = [
    (("patchcore", CATEGORY, 0), "method of profile fixture 'patchcore' is unknown; choose one of cfm, blind"),
    (("cfm", "bagel", 0), "category of profile fixture 'bagel' is unknown; choose one of dome"),
    (("cfm", CATEGORY, 7), "runs cfm on dome at seeds 0, 1, not on dome at seed 7; add them to the profile"),
]


@pytest.mark.parametrize(("given", "message"), UNPLANNED)
def test_unplanned_experiment_is_one_line_that_lists_the_planned(
    study: FixtureProfile, given: tuple, message: str
) -> None:
    with pytest.raises(InputError, match=message) as raised:
        experiment.run(study, *given)
    assert "\n" not in str(raised.value)


def test_unknown_variant_lists_the_known(study: FixtureProfile) -> None:
    message = r"variant of method cfm 'prodct' is unknown; choose one of product, product-released$"
    with pytest.raises(InputError, match=message):
        experiment.experiment_records(study, "cfm", ("prodct",))
    with pytest.raises(InputError, match=message):
        experiment.load_maps(study, "cfm", CATEGORY, "prodct")


def test_records_come_category_by_category_and_seed_by_seed(
    study: FixtureProfile, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(profile: Any, method: str, category: str, seed: int, progress: bool) -> Any:
        return {variant: (method, category, seed, variant) for variant in VARIANTS}

    monkeypatch.setattr(experiment, "run", run)
    assert experiment.experiment_records(study, "cfm", VARIANTS) == [
        ("cfm", CATEGORY, seed, variant) for seed in (0, 1) for variant in VARIANTS
    ]


def test_settings_choose_the_head() -> None:
    sample = make_features(seed=0)
    kinds = {CFMConfig(hidden_dim=2): CFM, NearestNeighborConfig(): NearestNeighbor, BLIND: Blind}
    for config, kind in kinds.items():
        head = experiment.make_head(config, sample, "cpu")
        assert type(head) is kind and head.config == config
    head = experiment.make_head(CFMConfig(hidden_dim=2), sample, "cpu")
    assert (head.rgb_to_xyz.input.in_features, head.rgb_to_xyz.output.out_features) == (3, 5)


def defective(seed: int, label: int) -> Any:
    """Made-up test sample, with a defect of random shape if anomalous."""
    sample = make_features(seed=seed)
    gt_mask = torch.zeros_like(sample.gt_mask)
    gt_mask[8 : 12 + seed, 9:17] = bool(label)
    name = f"test/{'hole' if label else 'good'}/{seed:03d}"
    return dataclasses.replace(sample, sample_id=name, label=label, gt_mask=gt_mask)


def test_released_scoring_is_measured_with_its_own_scale_for_each_metric() -> None:
    test = [defective(seed, label) for seed, label in enumerate((0, 0, 1, 1))]
    generator = torch.Generator().manual_seed(5)
    psi = [torch.rand(2, 28, 28, generator=generator) * (1 + i) * sample.foreground for i, sample in enumerate(test)]
    scoring = CFM_VARIANTS["product-released"]
    predictions = [combine(*pair, scoring) for pair in psi]
    assert len({prediction.pixel_scale for prediction in predictions} | {1.0}) == 5
    found = experiment.measure(test, predictions)["metrics"]
    masks = np.stack([sample.gt_mask.numpy() for sample in test])
    maps = np.stack([prediction.anomaly_map.numpy() for prediction in predictions])
    scaled = np.stack([(p.anomaly_map * p.pixel_scale).numpy() for p in predictions])
    assert found["pixel_auroc"] == pytest.approx(pixel_auroc(masks, scaled), abs=1e-12)
    assert found["aupro"]["exact"]["0.3"] == pytest.approx(aupro(pro_curve(masks, maps), 0.3), abs=1e-12)
    assert pixel_auroc(masks, scaled) != pytest.approx(pixel_auroc(masks, maps), abs=1e-4)


def test_measure_by_hand() -> None:
    test = [defective(seed, label) for seed, label in enumerate((0, 1, 1))]
    predictions = [
        Prediction(sample.gt_mask.float(), score) for sample, score in zip(test, (0.5, 0.25, 1.0), strict=True)
    ]
    before = copy.deepcopy(predictions)
    found = experiment.measure(test, predictions)
    assert found["per_image"] == [
        {"id": "test/good/000", "defect": "good", "label": 0, "score": 0.5},
        {"id": "test/hole/001", "defect": "hole", "label": 1, "score": 0.25},
        {"id": "test/hole/002", "defect": "hole", "label": 1, "score": 1.0},
    ]
    assert found["metrics"]["image_auroc"] == 0.5 and found["metrics"]["pixel_auroc"] == 1.0
    assert found["metrics"].keys() - {"by_defect"} == evaluate_keys()
    assert found["metrics"]["by_defect"]["hole"]["image_auroc"] == 0.5
    assert all(torch.equal(a.anomaly_map, b.anomaly_map) for a, b in zip(before, predictions, strict=True))


def evaluate_keys() -> set[str]:
    masks = np.zeros((2, 3, 3), dtype=bool)
    masks[1, 1, 1] = True
    return set(evaluate(np.array([0, 1]), np.array([0.0, 1.0]), masks, masks.astype(np.float32)))
