"""Words of the study: settings with their sources, and profiles that choose among them.

Every field names where its value comes from: [paper] a section of the CFM paper, [released] the public CFM code,
[ours] a choice of this study. Profiles (`profiles/*.yaml`) name an instance and hold overrides only.
"""

from __future__ import annotations

import dataclasses
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from lib.errors import InputError

AGGREGATIONS = ("product", "sum", "max", "psi_2d", "psi_3d")
BLURS = ("gaussian", "box", "none")
SCORE_RULES = ("paper", "released")
MODALITIES = ("rgb", "xyz", "late", "concat")
DATA_ROOT_VARIABLE = "ANOMALY_DATA_ROOT"


def project_root() -> Path:
    """Folder of the checkout: the one place from which every relative path of the study starts."""
    return Path(__file__).resolve().parent.parent


def check_choice(name: str, value: object, known: tuple[str, ...]) -> None:
    """Raise `InputError` unless `value` is one of `known`."""
    if value not in known:
        raise InputError(f"{name} {value!r} is unknown; choose one of {', '.join(known)}")


def check_positive(settings: Any, names: tuple[str, ...], whole: bool = False) -> None:
    """Raise `InputError` unless each named field that is not None is a positive number, whole if so asked.

    YAML reads 1e-3 as text, because its numbers need a point: 1.0e-3.
    """
    for name in names:
        value = getattr(settings, name)
        fits = isinstance(value, int if whole else int | float) and not isinstance(value, bool)
        if value is not None and not (fits and value > 0):
            kind = "whole number of at least 1" if whole else "positive number, in YAML with a point as in 1.0e-3"
            raise InputError(f"{type(settings).__name__}.{name} is {value!r}; give a {kind}")


@dataclass(frozen=True)
class Scoring:
    """How two discrepancy maps become one anomaly map and one image score (CFM sec. 3.3).

    Attributes:
        aggregation: "product" [paper, eq. 5], "sum", "max", "psi_2d", "psi_3d" [paper, Table 6].
        blur: "gaussian" with `blur_sigma_px` [paper sec. 4], "box" = five 5x5 then three 7x7 means [released], "none".
        blur_sigma_px: standard deviation of the Gaussian in pixels, 4 [paper sec. 4].
        score_rule: "paper" = maximum of the blurred map; "released" = three different rescalings of each image
            by its own mean, one for each metric [released].
    """

    aggregation: str = "product"
    blur: str = "gaussian"
    blur_sigma_px: float = 4.0
    score_rule: str = "paper"

    def __post_init__(self) -> None:
        check_choice("aggregation", self.aggregation, AGGREGATIONS)
        check_choice("blur", self.blur, BLURS)
        check_choice("score_rule", self.score_rule, SCORE_RULES)


@dataclass(frozen=True)
class CFMConfig:
    """Training of the two crossmodal mapping networks (CFM sec. 3.2 and 4).

    Attributes:
        hidden_dim: width of the two hidden layers; None = (input + output) / 2 [paper sec. 3.2].
        learning_rate: of Adam, 1e-3 [paper sec. 4]; the peak of a "one_cycle" schedule.
        num_epochs: 250 [paper sec. 4], 50 [released script].
        batch_size: images a step, 4 for MVTec 3D-AD [released].
        pixels_per_image: foreground pixels drawn from each image a step [ours]; None = all of them [paper].
        schedule: "constant" [paper] or "one_cycle" [ours, for short runs].
    """

    hidden_dim: int | None = None
    learning_rate: float = 1e-3
    num_epochs: int = 250
    batch_size: int = 4
    pixels_per_image: int | None = None
    schedule: str = "constant"

    def __post_init__(self) -> None:
        check_choice("schedule", self.schedule, ("constant", "one_cycle"))
        check_positive(self, ("num_epochs", "batch_size", "hidden_dim", "pixels_per_image"), whole=True)
        check_positive(self, ("learning_rate",))


@dataclass(frozen=True)
class NearestNeighborConfig:
    """Nearest normal patch as a baseline on the same features [ours; the scorer of PatchCore without its extras].

    Attributes:
        bank_rows: normal patches kept, drawn at random; None = all of them.
        blur_sigma_px: standard deviation in pixels of the Gaussian on the map, as for CFM.
    """

    bank_rows: int | None = None
    blur_sigma_px: float = 4.0

    def __post_init__(self) -> None:
        check_positive(self, ("bank_rows",), whole=True)
        check_positive(self, ("blur_sigma_px",))


@dataclass(frozen=True)
class BlindConfig:
    """A detector that sees only the outline: constant inside the object, one score for all images [ours]."""


CFM_PAPER = CFMConfig()
CFM_RELEASED = CFMConfig(num_epochs=50)
CFM_DEMO = CFMConfig(hidden_dim=192, num_epochs=30, pixels_per_image=512, schedule="one_cycle")
CFM_TOY = CFMConfig(hidden_dim=32, num_epochs=25, learning_rate=1e-2, pixels_per_image=256, schedule="one_cycle")
NEAREST_NEIGHBOR = NearestNeighborConfig()
BLIND = BlindConfig()
INSTANCES = {
    "CFM_PAPER": CFM_PAPER,
    "CFM_RELEASED": CFM_RELEASED,
    "CFM_DEMO": CFM_DEMO,
    "CFM_TOY": CFM_TOY,
    "NEAREST_NEIGHBOR": NEAREST_NEIGHBOR,
    "BLIND": BLIND,
}
CFM_VARIANTS = {name: Scoring(aggregation=name) for name in AGGREGATIONS} | {
    "product-released": Scoring(blur="box", score_rule="released"),
    "product-box": Scoring(blur="box"),
}
VARIANTS = {CFMConfig: tuple(CFM_VARIANTS), NearestNeighborConfig: MODALITIES, BlindConfig: ("outline",)}


def resolve(instance: str, overrides: dict[str, Any]) -> Any:
    """Settings of a named instance with some fields replaced.

    Args:
        instance: a key of `INSTANCES`.
        overrides: field name to value.

    Raises:
        InputError: the instance or a field is unknown.
    """
    check_choice("settings instance", instance, tuple(INSTANCES))
    base = INSTANCES[instance]
    names = tuple(f.name for f in dataclasses.fields(base))
    for name in overrides:
        check_choice(f"override of {instance}", name, names)
    return dataclasses.replace(base, **overrides)


@dataclass(frozen=True)
class MethodSpec:
    """One line of a profile: which settings run on which categories and seeds.

    Attributes:
        name: the method's name in records and tables.
        config: resolved settings; their type chooses the head.
        categories, seeds: where it runs.
        variants: one record each: scorings of one trained CFM, or modalities of the nearest neighbor.
        ablation: True for experiments whose curated records live in `results/`.
    """

    name: str
    config: Any
    categories: tuple[str, ...]
    seeds: tuple[int, ...]
    variants: tuple[str, ...]
    ablation: bool = False


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
        extractor: name of the feature extractor.
        standardize: per-dimension standardization on the training foreground [ours; the papers do none].
        methods: the experiments, ablations included.
        seeds: seeds of every method that names none.
        threads: CPU threads of one job; results are compared at a fixed number.
        device: "cpu" or "cuda".
        chapters: stems of the notebooks of the book, in order.
    """

    name: str
    dataset: str
    data_root: str
    categories: tuple[str, ...]
    extractor: str
    methods: dict[str, MethodSpec]
    chapters: tuple[str, ...]
    data_seed: int | None = None
    preparation: str = "PREPARATION_DEFAULT"
    standardize: bool = True
    seeds: tuple[int, ...] = (0,)
    threads: int = 1
    device: str = "cpu"

    def __post_init__(self) -> None:
        check_positive(self, ("threads",), whole=True)
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
    known = ("instance", "overrides", "categories", "seeds", "variants")
    for key in entry:
        check_choice(f"key of method {name}", key, known)
    if "instance" not in entry:
        raise InputError(f"method {name} names no instance; add one of {', '.join(INSTANCES)}")
    config = resolve(entry["instance"], entry.get("overrides") or {})
    all_variants = VARIANTS[type(config)]
    variants = as_tuple(f"variants of method {name}", entry.get("variants", all_variants))
    for variant in variants:
        check_choice(f"variant of method {name}", variant, all_variants)
    categories = as_tuple(f"categories of method {name}", entry.get("categories", defaults["categories"]))
    for category in categories:
        check_choice(f"category of method {name}", category, tuple(defaults["categories"]))
    seeds = as_tuple(f"seeds of method {name}", entry.get("seeds", defaults.get("seeds", (0,))), int)
    return MethodSpec(name, config, categories, seeds, variants, ablation)


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
    for key in ("dataset", "data_root", "extractor"):
        if not isinstance(raw[key], str):
            raise InputError(f"{key} of profile {name} is {raw[key]!r}; write a name")
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
