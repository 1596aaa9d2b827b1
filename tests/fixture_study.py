"""A whole study on the small dataset of `fixtures_mvtec`, kept inside one folder."""

from __future__ import annotations

import shutil
from pathlib import Path

from lib.config import ExtractorSpec
from lib.instances import BLIND
from lib.methods import CFMConfig
from lib.profiles import MethodSpec, Profile
from tests.fixtures_mvtec import write_category

CATEGORY = "dome"
HANDCRAFTED = ExtractorSpec("handcrafted", "handcrafted")
TINY_CFM = CFMConfig(hidden_dim=8, num_epochs=2, batch_size=2, pixels_per_image=61)
VARIANTS = ("product", "product-released")
METHODS = {
    "cfm": MethodSpec("cfm", TINY_CFM, (CATEGORY,), (0, 1), VARIANTS, HANDCRAFTED),
    "blind": MethodSpec("blind", BLIND, (CATEGORY,), (0,), ("outline",), HANDCRAFTED),
    "cfm_ablation": MethodSpec("cfm_ablation", TINY_CFM, (CATEGORY,), (0,), ("product",), HANDCRAFTED, ablation=True),
}


class FixtureProfile(Profile):
    """Profile whose working folder lies beside its data, so that a test touches nothing of the project."""

    @property
    def work_dir(self) -> Path:
        return Path(self.data_root).parent / "runs"


def study_in(folder: Path | str) -> FixtureProfile:
    """Profile of a study whose data lie in `<folder>/data` and whose results go to `<folder>/runs`."""
    return FixtureProfile(
        name="fixture",
        dataset="fixture",
        data_root=str(Path(folder) / "data"),
        categories=(CATEGORY,),
        extractor=HANDCRAFTED,
        methods=METHODS,
        chapters=(),
    )


def write_data(folder: Path) -> None:
    """3 train, 1 validation, 1 good and 2 defective test samples."""
    write_category(folder / "data", CATEGORY, test_each=1)


def copied_study(base: Path, folder: Path) -> FixtureProfile:
    """Profile of a copy of the study in `base`, with whatever was computed there."""
    shutil.copytree(base, folder, dirs_exist_ok=True)
    return study_in(folder)
