"""How much of a difference may be chance of training: spread over seeds, beside differences that papers print."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from scipy.stats import t as student

from lib.ablation_tables import seed_means
from lib.errors import InputError
from lib.tables import Record, flat_metrics

CONFIDENCE = 0.95  # that two trainings of one setting lie no farther apart


def category_spreads(records: Sequence[Record], metric: str) -> pd.Series:
    """Standard deviation of a metric over training seeds, by category.

    Args:
        records: of one method and variant, at two seeds or more.
        metric: a name of `lib.tables.flat_metrics`.
    """
    rows = [{**record["key"], "value": flat_metrics(record["metrics"])[metric]} for record in records]
    return pd.DataFrame(rows).groupby("category", sort=False)["value"].std()


def spread_table(groups: Mapping[str, Sequence[Record]], metric: str, out_of: int) -> pd.DataFrame:
    """Chance of training in a metric, one row a group.

    Columns: "mean"; "std of the mean" over categories; "farthest", the difference of the two seeds that lie farthest
    apart; "two runs", how far the means of two trainings over as many categories as a paper has may lie apart by chance
    at 95 %; "std of a category", the median of the categories, and the largest one with its name; "categories";
    "seeds". All standard deviations are over seeds. "two runs" pools the variances of the categories and takes
    Student's t at the pooled degrees of freedom: as if trainings of two categories shared nothing, though they share
    their seed and so their first weights. "std of the mean" does not assume that.

    Args:
        groups: records of one method and variant each, at two seeds or more, by text.
        metric: "I-AUROC" or "AUPRO@30%".
        out_of: categories of the paper's mean.

    Raises:
        InputError: a group has one seed alone, or lacks a category at some seed.
    """
    rows = {}
    for name, records in groups.items():
        by_seed, by_category = _several_seeds(name, records, metric), category_spreads(records, metric)
        degrees = (len(by_seed) - 1) * len(by_category)
        of_difference = np.sqrt(2 * by_category.pow(2).mean() / out_of)
        rows[name] = {
            "mean": by_seed.mean(),
            "std of the mean": by_seed.std(),
            "farthest": by_seed.max() - by_seed.min(),
            "two runs": student.ppf((1 + CONFIDENCE) / 2, degrees) * of_difference,
            "std of a category": by_category.median(),
            "largest std": by_category.max(),
            "of": by_category.idxmax(),
            "categories": len(by_category),
            "seeds": len(by_seed),
        }
    return pd.DataFrame.from_dict(rows, orient="index")


def _several_seeds(name: str, records: Sequence[Record], metric: str) -> pd.Series:
    by_seed = seed_means(records)[metric]
    if len(by_seed) < 2:
        raise InputError(f"{name}: its records are of one seed, which has no spread; give two seeds or more")
    return by_seed


def improvements_in_bands(
    improvements: pd.DataFrame, printed: float, trained: Mapping[str, float], kind: str
) -> pd.DataFrame:
    """Differences, each with whether it is no larger than what chance of training may make.

    Columns added: "within prints" and "within <kind>"; the second is missing for a paper whose method has no spread.

    Args:
        improvements: from `lib.published_checks.published_improvements`.
        printed: how far apart one paper prints one setting.
        trained: how far apart trainings of one setting lie, by paper.
        kind: what those trainings are of, such as "demo".
    """
    size = improvements["difference"].abs().round(6)
    widths = improvements["paper"].map(trained)
    inside = (size <= widths.round(6)).astype(object).where(widths.notna(), None)
    return improvements.assign(**{"within prints": size <= round(printed, 6), f"within {kind}": inside})
