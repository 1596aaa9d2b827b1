"""Profiles: one YAML file is one way to run the whole study; unknown keys and values are errors."""

from __future__ import annotations

import dataclasses
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from lib.config import (
    MEMORY_PRESETS_GB,
    PRECISIONS,
    ExtractorSpec,
    check_choice,
    check_positive,
    check_std_floor,
    project_root,
)
from lib.errors import InputError
from lib.instances import INSTANCES, resolve
from lib.methods import CFMConfig

DATA_ROOT_VARIABLE = "ANOMALY_DATA_ROOT"
PROFILE_PRECISIONS = ("auto", *PRECISIONS)


@dataclass(frozen=True)
class MethodSpec:
    """One line of a profile: which settings run on which categories and seeds.

    Attributes:
        name: the method's name in records and tables.
        config: resolved settings; their type chooses the head.
        categories, seeds: where it runs.
        variants: one record each: scorings of one trained CFM, or modalities of the nearest neighbor.
        extractor: what makes its features; the profile's unless the method names another.
        ablation: True for experiments whose curated records live in `results/`.
        standardize: whether its features are standardized; as the profile says unless the method says otherwise.
        shots: training samples that it learns from; None = all.
        draw: which ones: "first" of the files [CFM's authors, in an issue of their repository], or "random" by the
            experiment's seed and category, fewer shots being the first of more [ours].
        recompute: extract the training features anew in every epoch [released CFM] instead of once; CFM alone.
        std_floor: least deviation that standardization divides by, as a share of the median one; None = no floor.
    """

    name: str
    config: Any
    categories: tuple[str, ...]
    seeds: tuple[int, ...]
    variants: tuple[str, ...]
    extractor: ExtractorSpec
    ablation: bool = False
    standardize: bool = True
    shots: int | None = None
    draw: str = "first"
    recompute: bool = False
    std_floor: float | None = None

    def __post_init__(self) -> None:
        check_positive(self, ("shots",), whole=True)
        check_choice(f"draw of method {self.name}", self.draw, ("first", "random"))
        check_choice(f"recompute of method {self.name}", self.recompute, (True, False))
        if self.draw != "first" and self.shots is None:
            raise InputError(f"method {self.name}: draw has no effect without shots; add shots or leave it out")
        check_std_floor(f"method {self.name}", self.std_floor, self.standardize)
        if self.recompute and not isinstance(self.config, CFMConfig):
            raise InputError(f"method {self.name}: only CFM can recompute its features; leave recompute out")


@dataclass(frozen=True)
class Profile:
    """One way to run the whole study (a file of `profiles/`).

    Attributes:
        name: stem of the profile's file.
        dataset: "synth3d" is generated on the spot; any other name is read from `data_root`.
        data_root: folder that holds the categories, relative to the project unless absolute.
        data_seed: seed of the embedded dataset; None for real data.
        categories: names of category folders.
        preparation: "PREPARATION_DEFAULT" or "PREPARATION_RELEASED" (`lib.preparation`).
        extractor: what makes the features of every method that names no other.
        standardize: per-dimension standardization on the training foreground [ours; the papers do none].
        methods: the experiments, ablations included.
        seeds: seeds of every method that names none.
        threads: CPU threads of one job; results are compared at a fixed number.
        device: "cpu" or "cuda".
        precision: of trainings, one of `lib.config.PRECISIONS`, or "auto" = by the device.
        memory_gb: preset of GPU memory, 8, 16 or 24; None = the largest that fits.
        compiled: CFM compiles its networks before it trains them.
        chapters: stems of the notebooks of the book, in order.
    """

    name: str
    dataset: str
    data_root: str
    categories: tuple[str, ...]
    extractor: ExtractorSpec
    methods: dict[str, MethodSpec]
    chapters: tuple[str, ...]
    data_seed: int | None = None
    preparation: str = "PREPARATION_DEFAULT"
    standardize: bool = True
    seeds: tuple[int, ...] = (0,)
    threads: int = 1
    device: str = "cpu"
    precision: str = "float32"
    memory_gb: int | None = None
    compiled: bool = False

    def __post_init__(self) -> None:
        check_positive(self, ("threads",), whole=True)
        check_choice(f"precision of profile {self.name}", self.precision, PROFILE_PRECISIONS)
        check_choice(f"memory_gb of profile {self.name}", self.memory_gb, (None, *MEMORY_PRESETS_GB))
        check_choice(f"compiled of profile {self.name}", self.compiled, (True, False))
        if self.device == "cpu" and self.memory_gb is not None:
            raise InputError(f"memory_gb of profile {self.name} has no effect on device cpu; leave it out")
        check_choice(f"device of profile {self.name}", self.device, ("cpu", "cuda"))
        if not isinstance(self.standardize, bool):
            raise InputError(f"standardize of profile {self.name} is {self.standardize!r}; write true or false")
        if self.dataset == "synth3d" and (not isinstance(self.data_seed, int) or self.data_seed < 0):
            raise InputError(f"data_seed of profile {self.name} is {self.data_seed!r}; synth3d needs a whole number")

    @property
    def work_dir(self) -> Path:
        """Git-ignored working folder of this profile."""
        return project_root() / "runs" / self.name

    def method(self, name: str) -> MethodSpec:
        """The named experiment; `InputError` when the profile has none of that name."""
        check_choice(f"method of profile {self.name}", name, tuple(self.methods))
        return self.methods[name]

    @property
    def extractors(self) -> dict[str, ExtractorSpec]:
        """Every extractor that the study uses, by its slug."""
        specs = (self.extractor, *(spec.extractor for spec in self.methods.values()))
        return {spec.slug: spec for spec in specs}

    def check_category(self, category: str) -> str:
        """`category` itself, or an `InputError` that lists the profile's categories."""
        check_choice(f"category of profile {self.name}", category, self.categories)
        return category


def as_tuple(name: str, value: Any, kind: type = str) -> tuple[Any, ...]:
    """The entries of a YAML list; `InputError` for an empty one, or a bare word, whose letters would pass for them."""
    if not isinstance(value, list | tuple) or not value:
        raise InputError(f"{name} is {value!r}; write a list with at least one entry, such as [{value or 'entry'}]")
    if wrong := [entry for entry in value if type(entry) is not kind or (kind is int and entry < 0)]:
        asked = "whole numbers of 0 or more" if kind is int else "names"
        raise InputError(f"{name} holds {wrong[0]!r}; write {asked}")
    return tuple(value)


def read_method(name: str, entry: dict[str, Any], defaults: dict[str, Any], ablation: bool) -> MethodSpec:
    """One `MethodSpec` from its YAML mapping; unknown keys, instances, fields and variants are errors."""
    if not isinstance(entry, dict):
        raise InputError(f"method {name} is {entry!r}; write a mapping such as {{instance: CFM_DEMO}}")
    plain = ("shots", "draw", "recompute", "std_floor")
    known = ("instance", "overrides", "categories", "seeds", "variants", "extractor", "standardize", *plain)
    for key in entry:
        check_choice(f"key of method {name}", key, known)
    if "instance" not in entry:
        raise InputError(
            f"method {name} names no instance; add one of {', '.join(INSTANCES)}, or <file of lib/heads>.<NAME>"
        )
    config = resolve(entry["instance"], entry.get("overrides") or {})
    all_variants = config.variants
    variants = as_tuple(f"variants of method {name}", entry.get("variants", all_variants))
    for variant in variants:
        check_choice(f"variant of method {name}", variant, all_variants)
    categories = as_tuple(f"categories of method {name}", entry.get("categories", defaults["categories"]))
    for category in categories:
        check_choice(f"category of method {name}", category, tuple(defaults["categories"]))
    seeds = as_tuple(f"seeds of method {name}", entry.get("seeds", defaults.get("seeds", (0,))), int)
    own = entry.get("extractor")
    extractor = defaults["extractor"] if own is None else read_extractor(f"method {name}", own)
    standardize = entry.get("standardize", defaults.get("standardize", True))
    if "standardize" in entry and not isinstance(standardize, bool):
        raise InputError(f"standardize of method {name} is {standardize!r}; write true or false")
    if standardize and config.needs_raw:
        raise InputError(f"method {name} cannot read standardized features; write standardize: false")
    further = {key: entry[key] for key in plain if key in entry}
    return MethodSpec(name, config, categories, seeds, variants, extractor, ablation, standardize, **further)


def read_extractor(owner: str, entry: Any) -> ExtractorSpec:
    """`ExtractorSpec` from its YAML mapping; `InputError` for anything that is not one."""
    if not isinstance(entry, dict):
        raise InputError(f"extractor of {owner} is {entry!r}; write a mapping such as {{rgb: handcrafted, xyz: fpfh}}")
    names = tuple(field.name for field in dataclasses.fields(ExtractorSpec))
    for key in entry:
        check_choice(f"extractor key of {owner}", key, names)
    if missing := [name for name in ("rgb", "xyz") if name not in entry]:
        raise InputError(f"extractor of {owner} lacks {', '.join(missing)}; name both sides")
    return ExtractorSpec(**entry)


def profile_names() -> tuple[str, ...]:
    """Stems of the files in `profiles/`, sorted."""
    return tuple(sorted(path.stem for path in (project_root() / "profiles").glob("*.yaml")))


def load_profile(name: str) -> Profile:
    """The profile `profiles/<name>.yaml`.

    Raises:
        InputError: no such profile, no YAML mapping, a key that is not a field, a missing field, or an unknown method
            setting.
    """
    check_choice("profile", name, profile_names())
    path = project_root() / "profiles" / f"{name}.yaml"
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 text ({error.reason}); save it as UTF-8") from error
    except yaml.YAMLError as error:
        raise InputError(f"{path} is not YAML ({' '.join(str(error).split())}); mend it") from error
    if not isinstance(raw, dict):
        raise InputError(f"{path} holds no settings; write `key: value` lines as in the other profiles")
    return parse_profile(name, raw)


def parse_profile(name: str, raw: dict[str, Any]) -> Profile:
    """Profile from the mapping its file holds; see `load_profile` for the errors."""
    fields = {f.name: f for f in dataclasses.fields(Profile) if f.name != "name"}
    for key in raw:
        check_choice(f"key of profile {name}", key, (*fields, "ablations"))
    required = [key for key, f in fields.items() if f.default is dataclasses.MISSING]
    if missing := [key for key in required if key not in raw]:
        raise InputError(f"profile {name} lacks {', '.join(missing)}; add them to profiles/{name}.yaml")
    for key in ("categories", "chapters", "seeds"):
        if key in raw:
            as_tuple(f"{key} of profile {name}", raw[key], int if key == "seeds" else str)
    for key in ("methods", "ablations"):
        if not isinstance(raw.get(key) or {}, dict) or (key == "methods" and not raw[key]):
            raise InputError(f"{key} of profile {name} is {raw[key]!r}; write one `name: {{instance: ...}}` a line")
    for key in ("dataset", "data_root"):
        if not isinstance(raw[key], str):
            raise InputError(f"{key} of profile {name} is {raw[key]!r}; write a name")
    raw = {**raw, "extractor": read_extractor(f"profile {name}", raw["extractor"])}
    methods = {key: read_method(key, entry, raw, ablation=False) for key, entry in raw["methods"].items()}
    for key, entry in (raw.get("ablations") or {}).items():
        if key in methods:
            raise InputError(f"profile {name} has {key} under both methods and ablations; rename one")
        methods[key] = read_method(key, entry, raw, ablation=True)
    values = {key: tuple(value) if isinstance(value, list) else value for key, value in raw.items() if key in fields}
    return Profile(name=name, **(values | {"methods": methods}))


def data_root(profile: Profile, given: str | Path | None = None) -> Path:
    """Folder with the dataset's categories: the argument, else the environment variable, else the profile.

    Raises:
        InputError: the folder does not exist (real data only: the embedded dataset is made where it is missing).
    """
    chosen = (
        given or (os.environ.get(DATA_ROOT_VARIABLE) if profile.dataset != "synth3d" else None) or profile.data_root
    )
    root = Path(chosen)
    root = root if root.is_absolute() else project_root() / root
    if profile.dataset != "synth3d" and not root.is_dir():
        raise InputError(
            f"dataset folder {root} does not exist; give data_root, set {DATA_ROOT_VARIABLE}, "
            f"or mend data_root in profiles/{profile.name}.yaml"
        )
    return root
