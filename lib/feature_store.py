"""From a category's name to the features of its samples: data made or found, features extracted once and kept."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock
from tqdm.auto import tqdm

from lib import preparation
from lib.config import ExtractorSpec, check_choice, project_root, stored_settings
from lib.data import SPLITS, Sample, SampleFiles, list_samples, read_sample
from lib.extractors import extractor_settings, get_extractor
from lib.features import Features, Standardizer, load_features, save_features
from lib.prepared_copy import check_preparation
from lib.profiles import Profile, data_root
from lib.reading import ReadOnAccess
from lib.runtime import atomic_path, package_versions
from lib.sources import code_fingerprint
from lib.synth3d import SYNTH3D_VERSION, write_category
from lib.token_sharing import shared_folders, with_shared_tokens

PREPARATIONS = tuple(name for name in vars(preparation) if re.fullmatch(r"PREPARATION_(?!SEED)[A-Z]+", name))
APPLIED_LATER = ("rgb_background", "cloud_resize", "min_border_fraction")  # to prepared copies too, or refused there
KEPT_FEATURE_BYTES = 4e9  # of one split: about 500 samples at the papers' sizes
BYTES_PER_STORED_BYTE = 2.2  # tokens are float16 in files and float32 in memory
COMPUTING_PACKAGES = ("torch", "torchvision", "timm", "numpy", "scipy")  # results may change with their versions


def ensure_data(profile: Profile, category: str, progress: bool = False) -> Path:
    """Dataset folder that holds `category`; the embedded dataset is generated first where it is missing.

    Raises:
        InputError: the profile has no such category, or a real dataset is not where it should be.
    """
    profile.check_category(category)
    root = data_root(profile)
    if profile.dataset == "synth3d":
        write_category(root, category, profile.data_seed, progress=progress)
    else:
        check_preparation(root, category, preparation_config(profile))
    return root


def lock_path(profile: Profile, name: str) -> Path:
    """Lock file of one piece of work; the operating system frees the lock when its holder dies."""
    folder = profile.work_dir / "locks"
    folder.mkdir(parents=True, exist_ok=True)
    return folder / f"{name}.lock"


def data_fingerprint(root: Path, category: str) -> str:
    """SHA-256 of the category's data: its manifest's own, else over names, sizes and times of change."""
    manifest = root / category / "manifest.json"
    if manifest.is_file():
        return json.loads(manifest.read_text(encoding="utf-8"))["sha256"]
    files = sorted(path for path in (root / category).rglob("*") if path.is_file())
    facts = [(path.relative_to(root), path.stat()) for path in files]
    listing = "\n".join(f"{name} {stat.st_size} {stat.st_mtime_ns}" for name, stat in facts)
    return hashlib.sha256(listing.encode()).hexdigest()


def dataset_name(profile: Profile) -> str:
    """The dataset as records name it; the embedded one with its version and seed."""
    if profile.dataset != "synth3d":
        return profile.dataset
    return f"synth3d {SYNTH3D_VERSION}, seed {profile.data_seed}"


def preparation_config(profile: Profile, spec: ExtractorSpec | None = None) -> preparation.PreparationConfig:
    """Preparation settings of the extractor, else of the profile; `InputError` when they name none that exists."""
    name = (spec and spec.preparation) or profile.preparation
    check_choice(f"preparation of profile {profile.name}", name, PREPARATIONS)
    return getattr(preparation, name)


def feature_settings(profile: Profile, root: Path, category: str, spec: ExtractorSpec) -> dict[str, Any]:
    """Everything the features of a category depend on, in the types that JSON gives back.

    Raises:
        InputError: the data is a copy prepared with other settings than the extractor's.
    """
    config = preparation_config(profile, spec)
    check_preparation(root, category, config, APPLIED_LATER)
    settings = {
        "data": data_fingerprint(root, category),
        "extractor": extractor_settings(spec),
        "preparation": stored_settings(config),
        "device": profile.device,
        "versions": {name: package_versions()[name] for name in COMPUTING_PACKAGES},
        "code": code_fingerprint(("lib.feature_store",), project_root()),
    }
    return json.loads(json.dumps(settings))


def features_root(profile: Profile) -> Path:
    """Folder of the cached features of every extractor, category and preparation of a profile."""
    return profile.work_dir / "features"


def cache_folder(profile: Profile, spec: ExtractorSpec, settings: dict[str, Any], category: str) -> Path:
    """Folder of one category's features, apart for each extractor, weights file and preparation.

    Changed data, code, device or libraries make what is there stale instead: its `settings.json` tells.
    """
    keyed = json.dumps([settings["extractor"], settings["preparation"]], sort_keys=True)
    return features_root(profile) / spec.slug / hashlib.sha256(keyed.encode()).hexdigest()[:12] / category


def manifest_path(profile: Profile, spec: ExtractorSpec, category: str) -> Path:
    """File that says that a category's features are complete, and with which settings."""
    return features_root(profile) / spec.slug / f"{category}.json"


def extract_features(
    profile: Profile, category: str, spec: ExtractorSpec | None = None, progress: bool = False
) -> Path:
    """Folder with the features of every sample of a category; what is there and current is kept.

    Safe beside a second process, which waits, and after a kill: every file is whole or absent.

    Args:
        profile: names data and preparation.
        category: one of the profile's categories.
        spec: the extractor; the profile's unless given.
        progress: show a bar over samples.
    """
    with extracted(profile, category, spec or profile.extractor, progress) as folder:
        return folder


@contextmanager
def extracted(profile: Profile, category: str, spec: ExtractorSpec, progress: bool) -> Iterator[Path]:
    """The folder of `extract_features`, complete, and not touched by another process within the block."""
    root = ensure_data(profile, category, progress)
    settings = feature_settings(profile, root, category, spec)
    folder, manifest = cache_folder(profile, spec, settings, category), manifest_path(profile, spec, category)
    with cache_lock(profile, spec.slug, category):
        if stored_json(folder / "settings.json") != settings:
            remove_folder(folder)
            write_json(folder / "settings.json", settings)
        files = [entry for split in SPLITS for entry in list_samples(root, category, split)]
        missing = [entry for entry in files if not features_path(folder, entry).is_file()]
        if missing:
            manifest.unlink(missing_ok=True)  # it speaks of complete features only
            extractor = get_extractor(spec, profile.device)
            others = features_root(profile).glob(f"*/*/{category}/settings.json")
            stored = {path.parent: stored_json(path) for path in others if path.parent != folder}
            if any((shared := shared_folders(settings, stored)).values()):
                extractor = with_shared_tokens(extractor, shared)
            for entry in tqdm(missing, desc=f"features {category} {spec.slug}", disable=not progress):
                save_features(features_path(folder, entry), extractor(prepared(profile, entry, spec)))
        if missing or stored_json(manifest) != settings:
            write_json(manifest, settings)
        yield folder


def cache_lock(profile: Profile, slug: str, category: str) -> FileLock:
    """Lock on the features of one extractor and category: writing, reading and clearing them wait for each other."""
    return FileLock(lock_path(profile, f"features-{slug}-{category}"))


def remove_folder(folder: Path) -> None:
    """Delete a folder and all in it, if it is there; what cannot be deleted is an error and not left as if current."""
    if folder.exists():
        shutil.rmtree(folder)


def cache_sizes(profile: Profile) -> dict[str, tuple[int, int]]:
    """Number of samples and bytes on disk of each extractor's cached features, by the extractor's slug."""
    sizes = {}
    for folder in sorted(path for path in features_root(profile).glob("*") if path.is_dir()):
        files = [path for path in folder.rglob("*.safetensors") if not path.name.startswith(".")]
        sizes[folder.name] = (len(files), sum(path.stat().st_size for path in files))
    return sizes


def clear_cache(profile: Profile) -> int:
    """Delete every cached feature of a profile; bytes freed. Records and maps stay."""
    freed = 0
    for slug, (_, size) in cache_sizes(profile).items():
        with ExitStack() as locks:
            for category in profile.categories:
                locks.enter_context(cache_lock(profile, slug, category))
            for category in profile.categories:
                (features_root(profile) / slug / f"{category}.json").unlink(missing_ok=True)
            remove_folder(features_root(profile) / slug)
        freed += size
    return freed


def features_path(folder: Path, files: SampleFiles) -> Path:
    """File of one sample's features."""
    return folder / f"{files.sample_id}.safetensors"


def stored_json(path: Path) -> Any:
    """Content of a JSON file, or None where there is no readable one."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def write_json(path: Path, content: Any) -> None:
    """Write JSON, whole or not at all."""
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def category_features(
    profile: Profile,
    category: str,
    split: str,
    spec: ExtractorSpec | None = None,
    progress: bool = False,
    standardize: bool | None = None,
    chosen: Sequence[int] | None = None,
    kept_bytes: float = KEPT_FEATURE_BYTES,
    std_floor: float | None = None,
) -> Sequence[Features]:
    """Features of every sample of a split in file order, standardized on the training foreground if so set.

    Args:
        profile, category, spec, progress: as for `extract_features`.
        split: "train", "validation" or "test".
        standardize: whether to; as the profile says unless given.
        chosen: the training samples that there are, by their place in the split; None = all. Statistics are theirs.
        kept_bytes: a split that takes more in memory is read again at each access instead of held.
        std_floor: as for `lib.features.Standardizer.fit`.
    """
    standardize = profile.standardize if standardize is None else standardize
    with extracted(profile, category, spec or profile.extractor, progress) as folder:
        paths = {name: split_paths(profile, category, name, folder, chosen) for name in ("train", split)}
        train = ReadOnAccess(paths["train"], load_features, 0)
        standardizer = Standardizer.fit(train, std_floor) if standardize else None
        whole = sum(path.stat().st_size for path in paths[split]) * BYTES_PER_STORED_BYTE
        features = ReadOnAccess(paths[split], lambda path: standardized(load_features(path), standardizer), 0)
        return list(features) if whole <= kept_bytes else features


def split_paths(profile: Profile, category: str, split: str, folder: Path, chosen: Sequence[int] | None) -> list[Path]:
    """Files of a split's features in file order; of the training split those that are chosen."""
    paths = [features_path(folder, entry) for entry in sample_files(profile, category, split)]
    return paths if chosen is None or split != "train" else [paths[index] for index in chosen]


def standardized(features: Features, standardizer: Standardizer | None) -> Features:
    """The features as a method reads them."""
    return features if standardizer is None else standardizer.apply(features)


class RecomputedFeatures(Sequence[Features]):
    """Training features extracted anew at each access, as the released code of CFM does.

    With an extractor in "released" mode they differ from epoch to epoch. The draws depend on the epoch and the sample,
    so that a training that was killed goes on with the same ones.

    Args:
        profile, category: whose training split.
        spec: the extractor.
        chosen: the training samples that there are, by their place in the split; None = all.
        standardizer: of the tokens; None = they stay as they are.
    """

    def __init__(
        self,
        profile: Profile,
        category: str,
        spec: ExtractorSpec,
        chosen: Sequence[int] | None = None,
        standardizer: Standardizer | None = None,
    ) -> None:
        files = sample_files(profile, category, "train")
        self.files = files if chosen is None else [files[index] for index in chosen]
        self.profile, self.spec, self.standardizer = profile, spec, standardizer
        self.extractor = get_extractor(spec, profile.device)

    def set_epoch(self, epoch: int) -> None:
        """From now on draw as in this epoch, counted from 0."""
        self.extractor.set_visit(epoch)

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Features:
        return standardized(self.extractor(prepared(self.profile, self.files[index], self.spec)), self.standardizer)


def read_split(folder: Path, files: Sequence[SampleFiles]) -> list[Features]:
    """Stored features of a split in file order; `InputError` names one that is missing or broken."""
    return [load_features(features_path(folder, entry)) for entry in files]


def sample_files(profile: Profile, category: str, split: str) -> tuple[SampleFiles, ...]:
    """Files of a split in the order of `category_features` and of the anomaly maps."""
    return list_samples(ensure_data(profile, category), category, split)


def prepared(profile: Profile, files: SampleFiles, spec: ExtractorSpec | None = None) -> Sample:
    """One sample as an extractor sees it, the profile's own unless given."""
    config = preparation_config(profile, spec)
    return preparation.prepare_sample(read_sample(files), config, preparation.PREPARATION_SEED)


def test_facts(profile: Profile, category: str) -> tuple[np.ndarray, list[str]]:
    """Ground-truth masks (B, H, W) bool and defect types of the test split, in the order of the anomaly maps."""
    with extracted(profile, category, profile.extractor, progress=False) as folder:
        test = read_split(folder, sample_files(profile, category, "test"))
    return np.stack([sample.gt_mask.numpy() for sample in test]), [sample.sample_id.split("/")[1] for sample in test]


def data_manifest(profile: Profile, category: str) -> dict[str, str]:
    """Seed, generator version and fingerprint of a category's data, as far as the dataset has them."""
    root = ensure_data(profile, category)
    manifest = stored_json(root / category / "manifest.json") or {}
    facts = {key: str(manifest[key]) for key in ("seed", "synth3d_version") if key in manifest}
    return {**facts, "sha256": data_fingerprint(root, category)}
