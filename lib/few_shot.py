"""Few-shot results: records of trainings on a few samples as tables and a figure.

Records are of ablations named shots_<method>_<number>_<draw>, such as shots_cfm_5_random.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from lib.ablation_tables import most_trained, stored_records
from lib.errors import InputError
from lib.profiles import Profile
from lib.published import published_numbers
from lib.tables import Record, flat_metrics

METHODS = {  # name in the profile: text, experiment with every sample, variant
    "cfm": ("CFM", "cfm", "product"),
    "nn": ("NN joined", "nearest_neighbor", "concat"),
    "patchcore": ("PatchCore", "patchcore", "plain_average"),
    "btf": ("BTF", "btf", "both"),
    "m3dm": ("M3DM", "m3dm", "triple"),
    "ast": ("AST", "ast", "max"),
}
DRAWS = {"first": "the first files", "random": "drawn at random"}
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#555555")
METRICS = ("I-AUROC", "P-AUROC", "AUPRO@30%")


def shot_numbers(profile: Profile) -> list[int]:
    """Numbers of shots that the profile plans for CFM, ascending; `InputError` where it plans none."""
    numbers = {spec.shots for spec in profile.methods.values() if spec.name.startswith("shots_cfm") and spec.shots}
    if not numbers:
        raise InputError(f"profile {profile.name} plans no experiment shots_cfm_<number>_first; add some to it")
    return sorted(numbers)


def compared_methods(profile: Profile, draw: str) -> list[str]:
    """Keys of `METHODS` whose trainings on few samples the profile plans for a draw, a key of `DRAWS`."""
    planned = {(spec.name.split("_")[1], spec.name.split("_")[-1]) for spec in profile.methods.values() if spec.shots}
    return [method for method in METHODS if (method, draw) in planned]


def few_shot_records(profile: Profile, method: str, categories: Sequence[str], draw: str) -> dict[str, list[Record]]:
    """Records of one method by number of shots as text, "all" last; numbers that are not planned are left out.

    Args:
        profile: plans the experiments.
        method: a key of `METHODS`.
        categories: whose records.
        draw: a key of `DRAWS`.
    """
    _, whole, variant = METHODS[method]
    shots = {str(number): f"shots_{method}_{number}_{draw}" for number in shot_numbers(profile)}
    names = {text: name for text, name in shots.items() if name in profile.methods}
    names["all"] = most_trained(profile, whole)
    return {text: stored_records(profile, name, categories)[variant] for text, name in names.items()}


def seed_levels(records: Sequence[Record], metric: str) -> np.ndarray:
    """Mean over categories of a metric, one value a seed."""
    rows = [{**record["key"], "value": flat_metrics(record["metrics"])[metric]} for record in records]
    return pd.DataFrame(rows).groupby("seed")["value"].mean().to_numpy()


def shot_table(groups: Mapping[str, Mapping[str, Sequence[Record]]], metric: str) -> pd.DataFrame:
    """Mean over categories and seeds, with ± the standard deviation over seeds, by method and number of shots.

    Args:
        groups: from `few_shot_records`, by the row's text.
        metric: a metric of `lib.tables.flat_metrics`.
    """
    rows = {}
    for text, by_number in groups.items():
        levels = {number: seed_levels(records, metric) for number, records in by_number.items()}
        rows[text] = {number: level_text(values) for number, values in levels.items()}
    return pd.DataFrame.from_dict(rows, orient="index").fillna("not run")


def level_text(values: np.ndarray) -> str:
    """A mean, and the deviation where there are several values."""
    spread = f" ± {values.std(ddof=1):.3f}" if len(values) > 1 else ""
    return f"{values.mean():.3f}{spread}"


def published_shots() -> pd.DataFrame:
    """Image AUROC, pixel AUROC and AUPRO@30% that CFM's Table 4 prints, by method and number of shots."""
    rows = published_numbers("CFM", "4")
    rows = rows[rows["metric"].isin(METRICS)]
    table = rows.pivot_table(index="method", columns=["metric", "setting"], values="value", sort=False)
    return table.rename(index={"Ours": "CFM"})


def shot_plot(groups: Mapping[str, Mapping[str, Sequence[Record]]], metric: str) -> Figure:
    """Mean over categories against the number of shots, a line a method, with a dot for each seed's draw.

    Args:
        groups, metric: as for `shot_table`.
    """
    figure, axis = plt.subplots(figsize=(6.4, 3.2))
    numbers = list(max(groups.values(), key=len))
    for (text, by_number), color in zip(groups.items(), COLORS, strict=True):
        levels = {numbers.index(number): seed_levels(records, metric) for number, records in by_number.items()}
        axis.plot(list(levels), [values.mean() for values in levels.values()], color=color, label=text)
        for place, values in levels.items():
            axis.plot([place] * len(values), values, "o", color=color, markersize=3.5)
    axis.set_xticks(range(len(numbers)), numbers)
    axis.set(xlabel="training samples", ylabel=f"{metric}, demo")
    figure.legend(loc="outside right upper", frameon=False)
    return figure
