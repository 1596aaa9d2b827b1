"""Ablations of the book: stored records of many settings, set beside each other and beside a paper's rows.

A group is the records of one variant of one method: several categories and training seeds. "Spread" is the standard
deviation over training seeds of the mean over categories.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lib.bootstrap import Interval
from lib.comparisons import auroc_by_category, difference_interval, verdict
from lib.errors import InputError
from lib.experiment import experiment_identity, matching_records, results_root, run
from lib.feature_store import ensure_data
from lib.profiles import MethodSpec, Profile
from lib.published import published_numbers
from lib.tables import Record, flat_metrics, records_frame

METRICS = ("I-AUROC", "AUPRO@30%")  # the two that papers print, AUPRO exact
MODALITIES = {"rgb": "RGB", "xyz": "3D"}
COLORS = {"setting": "#0072B2", "reference": "#D55E00", "unadapted": "#555555"}


def most_trained(profile: Profile, method: str) -> str:
    """`<method>_seeds` where the profile plans several trainings of a method under that name, else the method."""
    several = f"{method}_seeds"
    return several if several in profile.methods else method


def stored_records(profile: Profile, method: str, categories: Sequence[str] | None = None) -> dict[str, list[Record]]:
    """Records of a method by variant, for ablations from `results/` alone: a page must not start hours of training.

    Args:
        profile: the study's settings.
        method: one of its experiments.
        categories: those of the method unless given.

    Raises:
        InputError: a curated record is missing or was made with other settings.
    """
    spec = profile.method(method)
    categories = categories or spec.categories
    read = curated_records if spec.ablation else computed_records
    found = [records for category in categories for records in read(profile, spec, category)]
    return {variant: [records[variant] for records in found] for variant in spec.variants}


def computed_records(profile: Profile, spec: MethodSpec, category: str) -> list[dict[str, Record]]:
    """Records of a basic experiment by variant, one entry a seed; computed where they are missing."""
    return [run(profile, spec.name, category, seed) for seed in spec.seeds]


def curated_records(profile: Profile, spec: MethodSpec, category: str) -> list[dict[str, Record]]:
    """Records of an ablation by variant from `results/`, one entry a seed; see `stored_records` for the error."""
    identity = experiment_identity(profile, spec, ensure_data(profile, category), category)
    root, found = results_root(profile), []
    for seed in spec.seeds:
        records = matching_records(root, spec, category, seed, identity, curated=True)
        if not records:
            raise InputError(
                f"results/{profile.name}/{spec.name} has no records of {category} at seed {seed} that agree with the "
                f"profile; run: make ablations NAMES={spec.name}"
            )
        found.append(records)
    return found


def seed_means(records: Sequence[Record], metrics: Sequence[str] = METRICS) -> pd.DataFrame:
    """Mean over categories of metrics, names of `lib.tables.flat_metrics`, one row a training seed.

    Raises:
        InputError: no records, or a category lacks a seed that another has.
    """
    rows = [{**record["key"], **flat_metrics(record["metrics"])} for record in records]
    frame = pd.DataFrame(rows)
    if not rows or frame.groupby("seed").size().nunique() != 1 or frame.duplicated(["category", "seed"]).any():
        raise InputError("records: give every category once at every seed, of one method and variant")
    return frame.groupby("seed")[list(metrics)].mean()


def ablation_table(groups: Mapping[str, Sequence[Record]]) -> pd.DataFrame:
    """Mean and spread of both metrics and the number of seeds, one row a group; one seed has no spread (NaN)."""
    rows = {}
    for name, records in groups.items():
        by_seed = seed_means(records)
        columns = {metric: by_seed[metric].mean() for metric in METRICS}
        columns |= {f"{metric} spread": by_seed[metric].std() for metric in METRICS}
        rows[name] = {**columns, "seeds": len(by_seed)}
    columns = [*METRICS, *(f"{metric} spread" for metric in METRICS), "seeds"]
    return pd.DataFrame.from_dict(rows, orient="index").reindex(columns=columns).astype({"seeds": int})


def spread_texts(table: pd.DataFrame) -> pd.DataFrame:
    """`ablation_table` as a page prints it: "0.912 ± 0.004", without the second number where there is one seed."""
    texts = {}
    for metric in METRICS:
        pairs = zip(table[metric], table[f"{metric} spread"], strict=True)
        texts[metric] = [f"{mean:.3f}" + ("" if np.isnan(spread) else f" ± {spread:.3f}") for mean, spread in pairs]
    return pd.DataFrame({**texts, "seeds": table["seeds"]}, index=table.index)


def beside_paper(groups: Mapping[str, Sequence[Record]], paper: str, table: str) -> pd.DataFrame:
    """Demo numbers and a paper's own, each in columns of their own that say which they are.

    Args:
        groups: by the paper's name of the setting.
        paper, table: as for `lib.published.published_numbers`.
    """
    printed = published_numbers(paper, table).pivot(index="setting", columns="metric", values="value")
    printed = printed.reindex(list(groups))[list(METRICS)].rename(columns=lambda name: f"{name}, paper")
    ours = spread_texts(ablation_table(groups)).drop(columns="seeds").rename(columns=lambda name: f"{name}, demo")
    return ours.join(printed)


def at_seeds_of(records: Sequence[Record], other: Sequence[Record]) -> list[Record]:
    """`records` cut to the seeds of `other`; all of them where they lack one, as a method without chance does."""
    seeds = {record["key"]["seed"] for record in other}
    cut = [record for record in records if record["key"]["seed"] in seeds]
    return cut if {record["key"]["seed"] for record in cut} == seeds else list(records)


def gain(records: Sequence[Record], reference: Sequence[Record], defect: str | None = None) -> Interval:
    """Image AUROC of a group minus that of its reference, mean over categories and seeds, with its paired interval.

    Args:
        records, reference: the two groups; a reference with more seeds is cut to those of `records`.
        defect: only good images and this defect type; None = all images.
    """
    reference = at_seeds_of(reference, records)
    return difference_interval(auroc_by_category(records, defect), auroc_by_category(reference, defect))


def change_table(pairs: Mapping[str, tuple[Sequence[Record], Sequence[Record]]]) -> pd.DataFrame:
    """What a setting changes, one row a pair of groups.

    Columns: the paired difference in image AUROC with the ends of its interval and its verdict; the difference in
    AUPRO@30%, whose interval would need maps that ablations do not keep; and for both how many training seeds share
    the sign of the mean difference.

    Args:
        pairs: setting and its reference, by text.
    """
    rows = {}
    for name, (records, reference) in pairs.items():
        interval = gain(records, reference)
        aupro, aupro_signs = seed_differences(records, reference, "AUPRO@30%")
        rows[name] = {
            "I-AUROC": interval.estimate,
            "low": interval.low,
            "high": interval.high,
            "verdict": verdict(interval),
            "agree": seed_differences(records, reference, "I-AUROC")[1],
            "AUPRO@30%": aupro,
            "agree, AUPRO": aupro_signs,
        }
    return pd.DataFrame.from_dict(rows, orient="index")


def seed_differences(records: Sequence[Record], reference: Sequence[Record], metric: str) -> tuple[float, str]:
    """Mean over seeds of a metric's difference, and how many seeds share its sign, as "2 of 3"; 0 has none to share."""
    apart = seed_changes(records, reference, metric)
    same = int((apart * apart.mean() > 0).sum())
    return float(apart.mean()), f"{same} of {len(apart)}"


def seed_changes(records: Sequence[Record], reference: Sequence[Record], metric: str) -> pd.Series:
    """A metric's difference by seed, of means over categories.

    Each seed is compared with the reference at the same seed, or with the reference's mean where it lacks the seed.
    """
    groups = records, at_seeds_of(reference, records)
    ours, other = (seed_means(group, (metric,))[metric] for group in groups)
    return ours - other.reindex(ours.index).fillna(other.mean())


def changed_settings(config: Any, reference: Any) -> str:
    """Fields in which settings differ from others of their kind, as "temperature = 0.07"."""
    pairs = [(field.name, getattr(config, field.name)) for field in dataclasses.fields(config)]
    changed = [(name, value) for name, value in pairs if value != getattr(reference, name)]
    return ", ".join(f"{name} = {f'{value:g}' if isinstance(value, float) else value}" for name, value in changed)


def collapse_table(groups: Mapping[str, Sequence[Record]]) -> pd.DataFrame:
    """Effective rank and scale of the adapted features after training over those before it, mean over records.

    Args:
        groups: records of LSFA by text.
    """
    texts = {f"{measure} {text}": (measure, name) for measure in ("rank", "scale") for name, text in MODALITIES.items()}
    rows = {}
    for group, records in groups.items():
        curves = {text: [r["history"][f"{measure}_{name}"] for r in records] for text, (measure, name) in texts.items()}
        rows[group] = {text: np.mean([curve[-1] / curve[0] for curve in found]) for text, found in curves.items()}
    return pd.DataFrame.from_dict(rows, orient="index")


def setting_plot(
    choices: Mapping[str, Mapping[str, Sequence[Record]]],
    reference: Sequence[Record],
    unadapted: Sequence[Record],
    own_unadapted: Mapping[str, Sequence[Record]],
) -> Figure:
    """Both metrics of many settings, one row each, grouped by choice; bars are the spread over seeds.

    Args:
        choices: groups by setting, by choice.
        reference: the group that every setting departs from; a band.
        unadapted: the group without adaptation; a dashed line.
        own_unadapted: by setting, its own group without adaptation where that is another one; hollow.
    """
    places = {
        setting: number + 0.5 * group
        for number, (group, setting) in enumerate(
            (group, setting) for group, settings in enumerate(choices.values()) for setting in settings
        )
    }
    rows = np.array(list(places.values()))
    table = ablation_table({setting: records for settings in choices.values() for setting, records in settings.items()})
    hollow = ablation_table(own_unadapted)
    levels = ablation_table({"reference": reference, "unadapted": unadapted})
    figure, axes = plt.subplots(1, 2, sharey=True, figsize=(8.2, 0.23 * (rows[-1] + 1) + 0.8))
    for axis, metric in zip(axes, METRICS, strict=True):
        draw_levels(axis, levels, metric)
        spread = table[f"{metric} spread"].fillna(0.0)
        style = {"color": COLORS["setting"], "markersize": 4.5, "label": "setting"}
        axis.errorbar(table[metric], rows, xerr=spread, fmt="o", **style)
        own = [places[setting] for setting in own_unadapted]
        style = {"color": COLORS["unadapted"], "markersize": 5.5, "label": "unadapted, this setting"}
        axis.plot(hollow[metric], own, "o", fillstyle="none", **style)
        axis.set(xlabel=f"{metric}, demo")
        axis.locator_params(axis="x", nbins=5)  # numbers of four digits stand apart
        axis.grid(axis="y", linewidth=0.3)
    axes[0].set_yticks(rows, list(places))
    axes[0].set_ylim(rows[-1] + 0.8, -0.8)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper right", ncols=4, frameon=False)
    return figure


def draw_levels(axis: Axes, levels: pd.DataFrame, metric: str) -> None:
    """Band of the reference's mean and spread, and dashed line of the unadapted level."""
    mean, spread = levels.loc["reference", [metric, f"{metric} spread"]].astype(float)
    axis.axvspan(mean - spread, mean + spread, color=COLORS["reference"], alpha=0.25, linewidth=0)
    axis.axvline(mean, color=COLORS["reference"], linewidth=0.8, label="base")
    level = levels.loc["unadapted", metric]
    axis.axvline(level, color=COLORS["unadapted"], linestyle="--", linewidth=0.8, label="unadapted")


def pixels_drawn(records: Sequence[Record]) -> pd.DataFrame:
    """Mean and standard deviation of both metrics over seeds, and mean seconds of training, by pixels of each image.

    Args:
        records: of CFM, of trainings that drew different numbers of pixels; none give an empty table.
    """
    if not records:
        return pd.DataFrame()
    frame = records_frame(records).query("defect == 'all'")
    numbers = [record["config"]["method"]["pixels_per_image"] for record in records]
    frame = frame.assign(pixels=[str(n or "all") for n in numbers], seconds=[r["run"]["fit_seconds"] for r in records])
    grouped = frame.groupby("pixels")
    spread = grouped[list(METRICS)].std().add_suffix(" std")
    order = [str(number or "all") for number in dict.fromkeys(numbers)]
    return grouped[list(METRICS)].mean().join(spread).join(grouped["seconds"].mean()).loc[order]
