"""The papers' claims as data, and what this study's records say of each, by rules that nobody can bend afterwards.

A claim is one row of `published/claims.csv`. Its kind chooses the rule:

- "better": the paired difference of method and reference, with its 95 % interval over test images, and its side at
  every training seed; on the embedded dataset with and without its defect that no single modality can see. Intervals
  of AUPRO are those of the first seed's maps;
- "as good": the same against a margin that stands in the claim;
- "faster": evidence only, since records time what jobs side by side took from the features on;
- "table": the paper's own table, see `lib.published_checks.claims_against_tables`;
- "ceiling": evidence only, what a nearly perfect detector gets by the papers' rule and exactly;
- "not here": nothing in this study can answer it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np
import pandas as pd

import lib.published
from lib.ablation_tables import gain, seed_changes, stored_records
from lib.bootstrap import Interval
from lib.comparisons import aupro_by_category, difference_interval
from lib.config import check_choice
from lib.errors import InputError
from lib.experiment import load_maps
from lib.feature_store import test_facts
from lib.metrics import CFM_NUM_THRESHOLDS, aupro, pro_curve
from lib.profiles import Profile
from lib.published_checks import claims_against_tables
from lib.runtime import seeded_generator
from lib.tables import Record
from lib.toy import nearly_perfect_maps

CONFIRMED = "confirmed on real data"
CONSISTENT = "consistent on demo data"
CONTRADICTED = "contradicted"
OPEN = "no difference shown"
NOT_RUN = "not run here"
STATUSES = (CONFIRMED, CONSISTENT, OPEN, CONTRADICTED, NOT_RUN)
KINDS = ("better", "as good", "faster", "table", "ceiling", "not here")
ONLY_CROSSMODAL = "swap"  # the embedded defect made for methods that compare modalities; real parts need have none


@dataclass(frozen=True)
class Claim:
    """One claim of a paper, in our words.

    Attributes:
        id: a letter for the paper and a number.
        paper: "CFM" or "LSFA".
        claim, where: what is said, and in which table or section.
        chapter: notebook of the book that looks into it.
        kind: see the module's text.
        method, variant, reference, reference_variant: experiments of a profile, `a|b` = `b` in a profile without `a`;
            for "table" `method` is a part of the text of the claim there.
        metric: "I-AUROC", or AUPRO at a limit, exact.
        margin: of "as good", the loss that still counts as none [ours].
        confirm: what would have to be run on the real data.
    """

    id: str
    paper: str
    claim: str
    where: str
    chapter: str
    kind: str
    method: str
    variant: str
    reference: str
    reference_variant: str
    metric: str
    margin: str
    confirm: str

    def __post_init__(self) -> None:
        check_choice(f"kind of claim {self.id}", self.kind, KINDS)
        if (self.kind == "as good") != bool(self.margin):
            raise InputError(f"claim {self.id}: kind {self.kind} and margin {self.margin!r} do not go together")


@dataclass(frozen=True)
class Verdict:
    """A status of `STATUSES`, and the evidence for it in a few words and numbers."""

    status: str
    evidence: str


def read_claims(path: Path | None = None) -> list[Claim]:
    """All claims in file order.

    Args:
        path: CSV with the fields of `Claim` as columns; the package's own unless given.

    Raises:
        InputError: other columns, an unknown kind, or an id given twice.
    """
    path = path or Path(lib.published.__file__).parent / "claims.csv"
    rows = pd.read_csv(path, dtype=str, keep_default_na=False)
    names = [field.name for field in fields(Claim)]
    if list(rows.columns) != names:
        raise InputError(f"{path}: columns are {', '.join(rows.columns)}; give {', '.join(names)}")
    if rows["id"].duplicated().any():
        raise InputError(f"{path}: an id stands twice; give every claim its own")
    return [Claim(**row) for row in rows.to_dict("records")]


def judge(claim: Claim, profile: Profile) -> Verdict:
    """What the profile's records say of a claim.

    Only records of a real dataset can confirm one; those of the embedded dataset are at best consistent with it.
    """
    if claim.kind == "not here":
        return Verdict(NOT_RUN, "nothing of this study answers it")
    if claim.kind == "table":
        return table_verdict(claim)
    if claim.kind == "ceiling":
        return ceiling_verdict(profile)
    claim = replace(claim, **{name: at_hand(getattr(claim, name), profile) for name in ("method", "reference")})
    if missing := [name for name in (claim.method, claim.reference) if name not in profile.methods]:
        return Verdict(NOT_RUN, f"{', '.join(missing)} is not in profile {profile.name}")
    try:
        pair = paired_records(claim, profile)
        if claim.kind == "faster":
            return speed_verdict(*pair, profile)
        intervals = image_gains(*pair, profile) if claim.metric == "I-AUROC" else map_gains(claim, profile)
        changes = seed_changes(*pair, claim.metric)
    except InputError as error:
        return Verdict(NOT_RUN, str(error).split(";")[0])
    return interval_verdict(intervals, changes, float(claim.margin or 0.0), claim.metric, profile)


def at_hand(names: str, profile: Profile) -> str:
    """The first of names with bars between them that is a method of the profile; the first of all where none is."""
    listed = names.split("|")
    return next((name for name in listed if name in profile.methods), listed[0])


def image_gains(records: Sequence[Record], reference: Sequence[Record], profile: Profile) -> dict[str, Interval]:
    """Paired differences in image AUROC by a word for the test images: all, and on the demo those without `swap`."""
    gains = {"": gain(records, reference)}
    if profile.dataset == "synth3d":
        gains[f"without {ONLY_CROSSMODAL}"] = gain(*(without_defect(found) for found in (records, reference)))
    return gains


def without_defect(records: Sequence[Record]) -> list[Record]:
    """The records as if `swap` had not been among the test images; what they say of single images alone is cut."""
    return [{**r, "per_image": [e for e in r["per_image"] if e["defect"] != ONLY_CROSSMODAL]} for r in records]


def interval_verdict(
    intervals: Mapping[str, Interval], changes: pd.Series, margin: float, metric: str, profile: Profile
) -> Verdict:
    """Status by where a difference lies: above minus the margin, below it, or on both sides.

    It lies on a side when every interval does and the difference at every training seed too. On real data one training
    decides nothing, neither way.

    Args:
        intervals: method minus reference, by a word for the test images, "" for all.
        changes: the same by training seed.
        margin: 0 for "better".
        metric: for the text.
        profile: whose records; on the embedded dataset the demo's words.
    """
    above = int((changes > -margin).sum())
    numbers = [f"{i.estimate:+.3f} [{i.low:+.3f}, {i.high:+.3f}] {word}".strip() for word, i in intervals.items()]
    seeds = f"seeds {above} of {len(changes)}"
    evidence = f"{metric} {', '.join(numbers)}, {seeds}, {profile.name}" + (f", margin {margin:g}" if margin else "")
    embedded = profile.dataset == "synth3d"
    if len(changes) == 1 and not embedded:
        return Verdict(OPEN, evidence)
    if above == len(changes) and all(interval.low > -margin for interval in intervals.values()):
        return Verdict(CONSISTENT if embedded else CONFIRMED, evidence)
    below = above == 0 and all(interval.high < -margin for interval in intervals.values())
    return Verdict(CONTRADICTED if below else OPEN, evidence)


def paired_records(claim: Claim, profile: Profile) -> tuple[list[Record], list[Record]]:
    """Records of method and reference on the categories that both ran on; `InputError` where there are none."""
    specs = [profile.method(name) for name in (claim.method, claim.reference)]
    common = [name for name in specs[0].categories if name in specs[1].categories]
    wanted = ((claim.method, claim.variant), (claim.reference, claim.reference_variant))
    first, second = (stored_records(profile, method, common)[variant] for method, variant in wanted)
    return first, second


def map_gains(claim: Claim, profile: Profile) -> dict[str, Interval]:
    """Paired differences in AUPRO, exact, from maps of the first seed, by a word for the test images.

    They are the same as for `image_gains`. `InputError` for ablations, which keep no maps.
    """
    limit = float(claim.metric.removeprefix("AUPRO@").removesuffix("%")) / 100
    facts = {category: test_facts(profile, category) for category in profile.categories}
    masks, defects = ({category: fact[place] for category, fact in facts.items()} for place in (0, 1))
    wanted = ((claim.method, claim.variant), (claim.reference, claim.reference_variant))
    maps = [{category: load_maps(profile, name, category, variant) for category in facts} for name, variant in wanted]
    every = {category: np.ones(len(names), dtype=bool) for category, names in defects.items()}
    chosen = {"": every}
    if profile.dataset == "synth3d":
        others = {category: np.array(names) != ONLY_CROSSMODAL for category, names in defects.items()}
        chosen[f"without {ONLY_CROSSMODAL}"] = others
    return {word: aupro_gain(masks, maps, defects, kept, limit) for word, kept in chosen.items()}


def aupro_gain(
    masks: Mapping[str, np.ndarray],
    maps: Sequence[Mapping[str, np.ndarray]],
    defects: Mapping[str, Sequence[str]],
    kept: Mapping[str, np.ndarray],
    limit: float,
) -> Interval:
    """Paired difference in AUPRO of two methods' maps on the images that are kept.

    Args:
        masks, defects: ground truth and defect type of the test images by category.
        maps: of the method and of its reference, by category.
        kept: (number of images,) bool by category.
        limit: on the false-positive rate.
    """
    masks = {category: found[kept[category]] for category, found in masks.items()}
    defects = {category: np.array(found)[kept[category]].tolist() for category, found in defects.items()}
    cut = [{category: found[kept[category]] for category, found in of_method.items()} for of_method in maps]
    return difference_interval(*(aupro_by_category(masks, of_method, defects, limit) for of_method in cut))


def speed_verdict(records: Sequence[Record], reference: Sequence[Record], profile: Profile) -> Verdict:
    """Seconds of prediction for each image as evidence: from the features on, all readings of a method together.

    No status follows. The jobs ran side by side, and the claim is about the whole way from the image.
    """
    times = [seconds_by_category(found) for found in (records, reference)]
    ratios = (times[1] / times[0]).to_numpy()
    ratio = f"{np.median(ratios):.1f} times as fast from the features on"
    return Verdict(NOT_RUN, f"{ratio}, median of {len(ratios)} categories, {profile.name}; no timing of the whole way")


def seconds_by_category(records: Sequence[Record]) -> pd.Series:
    """Mean seconds of prediction for each image, by category."""
    rows = [(r["key"]["category"], r["run"]["predict_seconds"] / len(r["per_image"])) for r in records]
    return pd.DataFrame(rows, columns=["category", "seconds"]).groupby("category")["seconds"].mean()


def table_verdict(claim: Claim) -> Verdict:
    """Status by the paper's own table: it can contradict a sentence; agreeing with it confirms nothing."""
    rows = claims_against_tables()
    fits = (rows["paper"] == claim.paper) & rows["claim"].str.contains(claim.method, regex=False)
    found = rows[fits & rows["claim"].str.contains(claim.metric, regex=False)]
    if len(found) != 1:
        raise InputError(f"claim {claim.id}: {len(found)} rows of claims_in_text.csv hold {claim.method!r}; name one")
    row = found.iloc[0]
    asked = "" if pd.isna(row["claimed"]) else f", {row['claimed']:g} claimed"
    evidence = f"its own table {row['table']}: {row['own']:g}, {row['rival']} {row['rival number']:g}{asked}"
    return Verdict(CONTRADICTED if row["outcome"] == "does not hold" else NOT_RUN, evidence)


def ceiling_verdict(profile: Profile) -> Verdict:
    """What one hot pixel takes from a perfect detector by the papers' rule, as evidence on "far from saturated"."""
    category = profile.categories[0]
    masks, _ = test_facts(profile, category)
    maps = nearly_perfect_maps(masks, seeded_generator("06", category))
    exact, coarse = (aupro(pro_curve(masks, maps, rule), 0.01) for rule in (None, CFM_NUM_THRESHOLDS))
    found = f"{coarse:.3f} by {CFM_NUM_THRESHOLDS} thresholds, {exact:.3f} exactly"
    return Verdict(NOT_RUN, f"one hot pixel leaves a perfect detector {found}")


def linked_chapter(chapter: str, profile: Profile) -> str:
    """A chapter's name as a link to its page of the same folder, or bare where the profile's edition lacks it."""
    return f'<a href="{chapter}.html">{chapter}</a>' if chapter in profile.chapters else chapter


def verdict_table(claims: Sequence[Claim], profile: Profile) -> pd.DataFrame:
    """One row a claim by its id: claim, where, our evidence, status, what would confirm it, chapter as a link."""
    rows = {}
    for claim in claims:
        verdict = judge(claim, profile)
        rows[claim.id] = {
            "claim": claim.claim,
            "where": claim.where,
            "our evidence": verdict.evidence,
            "status": verdict.status,
            "would confirm it": claim.confirm,
            "chapter": linked_chapter(claim.chapter, profile),
        }
    return pd.DataFrame.from_dict(rows, orient="index")
