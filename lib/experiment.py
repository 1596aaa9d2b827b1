"""One experiment from data to record: a method on a category at a seed, computed once and kept.

`run` is the only door: the workflow's jobs and the notebooks both call it. It returns the records that are already
there when data, settings and code agree with them, and computes them under a lock otherwise.
"""

from __future__ import annotations

import dataclasses
import resource
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock
from tqdm.auto import tqdm

from lib.config import check_choice, project_root, stored_settings
from lib.errors import InputError
from lib.feature_store import (
    data_fingerprint,
    dataset_name,
    ensure_data,
    feature_settings,
    lock_path,
)
from lib.features import FLOAT16_MAX, Features
from lib.head_choice import (
    further_training_data,
    head_modules,
    make_head,
    method_features,
    training_features,
    training_setup,
    trains_on_all,
)
from lib.heads import Prediction
from lib.heads.checkpoints import Checkpoint
from lib.methods import CFM_VARIANTS, CFMConfig
from lib.metrics import evaluate, evaluate_by_defect
from lib.profiles import MethodSpec, Profile
from lib.records import MACHINE_INPUTS, SCHEMA, read_record, record_path, write_record
from lib.runtime import atomic_path, cpu_name, git_commit, package_versions
from lib.sources import code_fingerprint
from lib.training import choose_precision

PEAK_MEMORY_UNITS_PER_MB = 2**20 if sys.platform == "darwin" else 2**10  # macOS counts bytes, Linux kilobytes


def run(profile: Profile, method: str, category: str, seed: int, progress: bool = False) -> dict[str, dict[str, Any]]:
    """Records of every variant of a method on a category at a seed.

    Args:
        profile: the study's settings.
        method: name of an experiment in the profile.
        category: one of its categories.
        seed: one of its seeds.
        progress: show bars.

    Returns:
        Record by variant name.

    Raises:
        InputError: the profile does not plan this experiment.
    """
    spec = planned(profile, method, category, seed)
    identity = experiment_identity(profile, spec, ensure_data(profile, category, progress), category)
    if spec.ablation and (
        found := matching_records(results_root(profile), spec, category, seed, identity, curated=True)
    ):
        return found
    with FileLock(lock_path(profile, f"{method}-{category}-s{seed}")):
        found = matching_records(profile.work_dir / "records", spec, category, seed, identity, curated=False)
        if found and (not keeps_maps(spec, seed) or maps_path(profile, method, category, seed).is_file()):
            return found
        return compute(profile, spec, category, seed, identity, progress)


def experiment_records(
    profile: Profile,
    method: str,
    variants: Sequence[str],
    categories: Sequence[str] | None = None,
    progress: bool = False,
) -> list[dict[str, Any]]:
    """Records of some variants of a method on its categories and seeds, category by category.

    Args:
        profile, method, progress: as for `run`.
        variants: which of the method's variants.
        categories: those of the method unless given.
    """
    spec = profile.method(method)
    for variant in variants:
        check_choice(f"variant of method {method}", variant, spec.variants)
    chosen = [(category, seed) for category in categories or spec.categories for seed in spec.seeds]
    found = [run(profile, method, category, seed, progress) for category, seed in chosen]
    return [records[variant] for records in found for variant in variants]


def planned(profile: Profile, method: str, category: str, seed: int) -> MethodSpec:
    """The method's settings, once category and seed are known to be among them."""
    spec = profile.method(method)
    profile.check_category(category)
    if category not in spec.categories or seed not in spec.seeds:
        raise InputError(
            f"profile {profile.name} runs {method} on {', '.join(spec.categories)} at seeds "
            f"{', '.join(map(str, spec.seeds))}, not on {category} at seed {seed}; add them to the profile"
        )
    return spec


def results_root(profile: Profile) -> Path:
    """Folder of the curated, committed records of a profile."""
    return project_root() / "results" / profile.name


def experiment_identity(profile: Profile, spec: MethodSpec, root: Path, category: str) -> dict[str, Any]:
    """`config` and `inputs` of a record: all that its numbers depend on but seed and variant."""
    settings = feature_settings(profile, root, category, spec.extractor)
    data = settings["data"]
    config = {
        "method": {"type": type(spec.config).__name__, **stored_settings(spec.config)},
        "extractor": settings["extractor"],
        "standardize": spec.standardize,
        "preparation": settings["preparation"],
    }
    if spec.shots is not None:
        config["shots"] = {"number": spec.shots, "draw": spec.draw}
    if spec.recompute:
        config["recompute"] = True
    if spec.std_floor is not None:
        config["std_floor"] = spec.std_floor
    if trains_on_all(spec.config):
        config["trained_on"] = list(profile.categories)
        data = {name: data_fingerprint(ensure_data(profile, name), name) for name in profile.categories}
    inputs = {
        "dataset": dataset_name(profile),
        "threads": profile.threads,
        "device": profile.device,
        "data": data,
        "versions": {**settings["versions"], "scikit-learn": package_versions()["scikit-learn"]},
        "code": code_fingerprint(("lib.experiment", *head_modules(spec.config)), project_root()),
    }
    if spec.config.trains and (precision := choose_precision(profile.precision, profile.device)) != "float32":
        inputs["precision"] = precision
    return {"config": config, "inputs": inputs}


def variant_config(identity: dict[str, Any], spec: MethodSpec, variant: str) -> dict[str, Any]:
    """`config` of one variant's record: the experiment's, and what the variant's name stands for."""
    is_cfm = isinstance(getattr(spec.config, "head", spec.config), CFMConfig)
    return {**identity["config"], "variant": dataclasses.asdict(CFM_VARIANTS[variant]) if is_cfm else {"name": variant}}


def matching_records(
    root: Path, spec: MethodSpec, category: str, seed: int, identity: dict[str, Any], curated: bool
) -> dict[str, dict[str, Any]]:
    """Stored records of every variant, or an empty dict unless all are there with the same config and inputs.

    Curated records hold for later code, other versions and other processors, whose rounding changes the data's hash:
    for them those inputs are not compared. `lib.record_check` is their check.
    """
    ignored = MACHINE_INPUTS if curated else ()
    found = {}
    for variant in spec.variants:
        path = record_path(root, spec.name, category, variant, seed)
        if not path.is_file():
            return {}
        record = read_record(path)
        same_inputs = all(record["inputs"].get(k) == v for k, v in identity["inputs"].items() if k not in ignored)
        if record["config"] != variant_config(identity, spec, variant) or not same_inputs:
            return {}
        found[variant] = record
    return found


def compute(
    profile: Profile, spec: MethodSpec, category: str, seed: int, identity: dict[str, Any], progress: bool
) -> dict[str, dict[str, Any]]:
    """Train, predict, measure and store; see `run`."""
    torch.set_num_threads(profile.threads)
    train = training_features(profile, spec, category, progress, seed)
    further = further_training_data(profile, spec, category, progress, seed)
    test = method_features(profile, spec, category, "test", progress, seed)
    checkpoint = Checkpoint(checkpoint_folder(profile, spec.name, category, seed), {**identity, "seed": seed})
    if spec.config.trains:
        further |= {"setup": training_setup(profile), "checkpoint": checkpoint}
    started = time.perf_counter()
    head = make_head(spec.config, train[0], profile.device)
    history = head.fit(train, seed, progress, **further)
    fitted = time.perf_counter()
    bar = tqdm(test, desc=f"{spec.name} {category}", disable=not progress)
    predictions = [head.predict(sample, spec.variants) for sample in bar]
    finished = time.perf_counter()
    fit_seconds = fitted - started + sum(checkpoint.spent_s.values())
    run_facts = {"fit_seconds": fit_seconds, "predict_seconds": finished - fitted, **machine_facts()}
    records = {}
    for variant in spec.variants:
        key = {"profile": profile.name, "method": spec.name, "category": category, "variant": variant, "seed": seed}
        measured = measure(test, [prediction[variant] for prediction in predictions])
        settled = {**identity, "config": variant_config(identity, spec, variant)}
        records[variant] = {"schema": SCHEMA, "key": key, **settled, **measured, "history": history, "run": run_facts}
    maps_file = maps_path(profile, spec.name, category, seed)
    maps_file.unlink(missing_ok=True)  # maps last: old ones never stand beside new records, however a run ends
    for variant, record in records.items():
        write_record(record_path(profile.work_dir / "records", spec.name, category, variant, seed), record)
    if keeps_maps(spec, seed):
        save_maps(maps_file, predictions)
    checkpoint.remove()
    return records


def checkpoint_folder(profile: Profile, method: str, category: str, seed: int) -> Path:
    """Folder of the states of one experiment's trainings while they are under way."""
    return profile.work_dir / "checkpoints" / method / f"{category}-s{seed}"


def measure(test: Sequence[Features], predictions: Sequence[Prediction]) -> dict[str, Any]:
    """`metrics` and `per_image` of a record."""
    labels = np.array([sample.label for sample in test])
    scores = np.array([prediction.image_score for prediction in predictions])
    gt_masks = np.stack([sample.gt_mask.numpy() for sample in test])
    maps = np.stack([prediction.anomaly_map.numpy() for prediction in predictions])
    pixel_scales = np.array([prediction.pixel_scale for prediction in predictions])
    defects = [sample.sample_id.split("/")[1] for sample in test]
    metrics = evaluate(labels, scores, gt_masks, maps, pixel_scales)
    metrics["by_defect"] = evaluate_by_defect(defects, scores, gt_masks, maps, pixel_scales)
    facts = zip(test, defects, scores.tolist(), strict=True)
    per_image = [{"id": s.sample_id, "defect": defect, "label": s.label, "score": value} for s, defect, value in facts]
    return {"metrics": metrics, "per_image": per_image}


def machine_facts() -> dict[str, Any]:
    """What a record says of the machine and the moment; never compared."""
    return {
        "peak_memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / PEAK_MEMORY_UNITS_PER_MB,
        "cpu": cpu_name(),
        "instructions": torch.backends.cpu.get_cpu_capability(),  # vector instructions, which decide the rounding
        "commit": git_commit(project_root()),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": package_versions(),
    }


def keeps_maps(spec: MethodSpec, seed: int) -> bool:
    """Anomaly maps are kept for the first seed of each method that is not an ablation: the pages show those."""
    return not spec.ablation and seed == spec.seeds[0]


def maps_path(profile: Profile, method: str, category: str, seed: int) -> Path:
    """File of the anomaly maps of one experiment."""
    return profile.work_dir / "maps" / method / category / f"s{seed}.npz"


def save_maps(path: Path, predictions: Sequence[dict[str, Prediction]]) -> None:
    """Anomaly maps of every variant as float16 arrays (number of samples, H, W), cut at its largest number."""
    stacks = {
        variant: np.stack([prediction[variant].anomaly_map.clamp(max=FLOAT16_MAX).half() for prediction in predictions])
        for variant in predictions[0]
    }
    with atomic_path(path) as temporary:
        np.savez(temporary, **stacks)


def load_maps(profile: Profile, method: str, category: str, variant: str, seed: int | None = None) -> np.ndarray:
    """Anomaly maps (number of test samples, H, W) float32 of one variant, computed first where they are missing.

    Args:
        profile, method, category: as for `run`.
        variant: one of the method's variants.
        seed: the method's first seed, the only one whose maps are kept, unless given.

    Raises:
        InputError: the profile does not plan this experiment, or its maps are not kept.
    """
    spec = profile.method(method)
    check_choice(f"variant of method {method}", variant, spec.variants)
    seed = spec.seeds[0] if seed is None else seed
    if not keeps_maps(spec, seed):
        raise InputError(
            f"maps of {method} at seed {seed} are not kept; choose a method that is no ablation and its first seed"
        )
    run(profile, method, category, seed)
    with np.load(maps_path(profile, method, category, seed)) as stored:
        return stored[variant].astype(np.float32)


def recompute(profile: Profile, method: str, category: str, seed: int) -> dict[str, dict[str, Any]]:
    """Records computed anew whatever records are stored; see `run` for arguments and errors.

    A training that was killed goes on, and ends as one that ran through would.
    """
    spec = planned(profile, method, category, seed)
    identity = experiment_identity(profile, spec, ensure_data(profile, category), category)
    with FileLock(lock_path(profile, f"{method}-{category}-s{seed}")):
        return compute(profile, spec, category, seed, identity, progress=False)


def is_curated(profile: Profile, method: str, category: str, seed: int, by_this_code: bool = False) -> bool:
    """True when `results/` holds records of every variant that agree with the profile's settings; see `run`.

    Args:
        profile, method, category, seed: as for `run`.
        by_this_code: whether they must also come from the code, data and package versions that are here now.
    """
    spec = planned(profile, method, category, seed)
    identity = experiment_identity(profile, spec, ensure_data(profile, category), category)
    return bool(matching_records(results_root(profile), spec, category, seed, identity, curated=not by_this_code))
