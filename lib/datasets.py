"""The real datasets as facts: where their archives lie, what they hold, and under which licence they may be used."""

from __future__ import annotations

from dataclasses import dataclass

from lib.config import check_choice


@dataclass(frozen=True)
class Counts:
    """Samples of a category: train, validation, and test, good and anomalous."""

    train: int
    validation: int
    test_good: int
    test_anomalous: int


@dataclass(frozen=True)
class Archive:
    """One file to fetch.

    Attributes:
        filename: its name on disk.
        urls: mirrors, tried in this order.
        checksum: "sha256:..." or "md5:..." where one is known, else "": then the archive's own structure is the check.
        categories: folders that must be there once it is extracted.
    """

    filename: str
    urls: tuple[str, ...]
    checksum: str
    categories: tuple[str, ...]


@dataclass(frozen=True)
class Dataset:
    """What is known of a dataset before it is there.

    Attributes:
        name: as profiles and commands call it.
        title: as its authors call it.
        counts: by category.
        sizes_px: (height, width) of the images by category.
        archives: all there is to fetch.
        license: short name of the licence, or what is known of it.
        license_url: where to read it.
        attribution: to be printed wherever a picture of the data is shown.
        landing_page: of the authors, where the links stand today.
        by_hand: what only a person can do, and what to do with the result.
    """

    name: str
    title: str
    counts: dict[str, Counts]
    sizes_px: dict[str, tuple[int, int]]
    archives: tuple[Archive, ...]
    license: str
    license_url: str
    attribution: str
    landing_page: str
    by_hand: str

    @property
    def categories(self) -> tuple[str, ...]:
        """Names of the category folders."""
        return tuple(self.counts)


MVTEC_COUNTS = {  # train, validation, test good, test anomalous; sums as in CFM sec. 4
    "bagel": Counts(244, 22, 22, 88),
    "cable_gland": Counts(223, 23, 21, 87),
    "carrot": Counts(286, 29, 27, 132),
    "cookie": Counts(210, 22, 28, 103),
    "dowel": Counts(288, 34, 26, 104),
    "foam": Counts(236, 27, 20, 80),
    "peach": Counts(361, 42, 26, 106),
    "potato": Counts(300, 33, 22, 92),
    "rope": Counts(298, 33, 32, 69),
    "tire": Counts(210, 29, 25, 87),
}
MVTEC_SIZES_PX = {
    "bagel": (800, 800),
    "cable_gland": (400, 400),
    "carrot": (800, 800),
    "cookie": (500, 500),
    "dowel": (400, 400),
    "foam": (900, 900),
    "peach": (600, 600),
    "potato": (800, 800),
    "rope": (900, 400),
    "tire": (600, 800),
}
MYDRIVE = "https://www.mydrive.ch/shares/"
MVTEC_ARCHIVE = Archive(
    filename="mvtec_3d_anomaly_detection.tar.xz",
    urls=(
        f"{MYDRIVE}150646/25de33f1276dd418cd856f2f48a84cdb/download/428824485-1643299897/mvtec_3d_anomaly_detection.tar.xz",
        f"{MYDRIVE}45920/dd1eb345346df066c63b5c95676b961b/download/428824485-1643285832/mvtec_3d_anomaly_detection.tar.xz",
    ),
    checksum="md5:d8bb2800fbf3ac88e798da6ae10dc819",  # as anomalib has it
    categories=tuple(MVTEC_COUNTS),
)

EYECANDIES_DRIVE_IDS = {  # from docs/download.md of eyecan-ai/eyecandies
    "CandyCane": "1OI0Jh5tUj98j3ihFXCXf7EW2qSpeaTSY",
    "ChocolateCookie": "1PEvIXZOcxuDMBo4iuCsUVDN63jisg0QN",
    "ChocolatePraline": "1dRlDAS31QJSwROgA6yFcXo85mL0EBh25",
    "Confetto": "10GNPUIQTUheT-qd6EzO76fsUgAwsHfaq",
    "GummyBear": "1OCAKXPmpNrD9s3oUcQ--mhRZTt4HGJ-W",
    "HazelnutTruffle": "1PsKc4hXxsuIjqwyHh7ciPAeS-IxsPikm",
    "LicoriceSandwich": "1dtU_l9gD1zoCN7fIYRksd_9KeyZklaHC",
    "Lollipop": "1DbL91Zjm2I9-AfJewU3M354pW4vnuaNz",
    "Marshmallow": "1pebIU3AegEFilqqoROaVzOZqkSgX-JTo",
    "PeppermintCandy": "1tF_1fPJYaUVaf1AwjlEi-fsGWzgCx6UF",
}
EYECANDIES_SIDE_PX = 512

DATASETS = {
    dataset.name: dataset
    for dataset in (
        Dataset(
            name="mvtec3d",
            title="MVTec 3D-AD",
            counts=MVTEC_COUNTS,
            sizes_px=MVTEC_SIZES_PX,
            archives=(MVTEC_ARCHIVE,),
            license="CC BY-NC-SA 4.0",
            license_url="https://creativecommons.org/licenses/by-nc-sa/4.0/",
            attribution=(
                "Data: MVTec 3D-AD (P. Bergmann, X. Jin, D. Sattlegger, C. Steger: The MVTec 3D-AD Dataset for "
                "Unsupervised 3D Anomaly Detection and Localization, VISAPP 2022), MVTec Software GmbH, licence "
                "CC BY-NC-SA 4.0: not for commercial use; pictures made from it carry the same licence."
            ),
            landing_page="https://www.mvtec.com/company/research/datasets/mvtec-3d-ad",
            by_hand="the links change from time to time; the landing page may ask for a name and an address first",
        ),
        Dataset(
            name="eyecandies",
            title="Eyecandies",
            counts=dict.fromkeys(EYECANDIES_DRIVE_IDS, Counts(1000, 100, 25, 25)),
            sizes_px=dict.fromkeys(EYECANDIES_DRIVE_IDS, (EYECANDIES_SIDE_PX, EYECANDIES_SIDE_PX)),
            archives=tuple(
                Archive(
                    filename=f"{category}.tar",
                    urls=(f"https://drive.usercontent.google.com/download?id={drive_id}&export=download&confirm=t",),
                    checksum="",  # the authors publish none
                    categories=(category,),
                )
                for category, drive_id in EYECANDIES_DRIVE_IDS.items()
            ),
            license="not stated by its authors (their code is GPL-3.0): ask them before you publish pictures",
            license_url="https://github.com/eyecan-ai/eyecandies",
            attribution=(
                "Data: Eyecandies (L. Bonfiglioli, M. Toschi, D. Silvestri, N. Fioraio, D. De Gregorio: The Eyecandies "
                "Dataset for Unsupervised Multimodal Anomaly Detection and Localization, ACCV 2022)."
            ),
            landing_page="https://eyecan-ai.github.io/eyecandies/download",
            by_hand=(
                "Google Drive stops serving a file for a day once many have fetched it; wait, or fetch it in a browser "
                "where you are logged in"
            ),
        ),
    )
}


def find_dataset(name: str) -> Dataset:
    """A dataset by name; `InputError` lists the known ones."""
    check_choice("dataset", name, tuple(DATASETS))
    return DATASETS[name]
