"""Methods side by side: tables by category, at every limit, beside published numbers, ranks, and every pair compared.

A group is the records of one variant of one method, over categories and training seeds; groups go by a text.
Letters: M methods, K categories, B images, R resamples.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import kendalltau, rankdata

from lib.ablation_tables import most_trained, stored_records
from lib.bootstrap import BootstrapConfig, Interval, Resampled, resample_counts
from lib.comparisons import auroc_by_category, mean_interval, verdict
from lib.errors import InputError
from lib.experiment import experiment_records
from lib.pixel_metrics import PROCurve, aupro
from lib.profiles import Profile
from lib.published import CFM_TABLES, published_table
from lib.runtime import seeded_generator
from lib.tables import flat_metrics

Record = dict[str, Any]
Groups = Mapping[str, Sequence[Record]]
# What pages compare, by the text they print: experiment and variant, the reading of its paper that needs no samples
# beside the training set. LSFA's and PatchCore's "average" would need validation samples, which no other method sees.
MAIN_VARIANTS = {
    "CFM": ("cfm", "product"),
    "LSFA": ("lsfa", "plain_average"),
    "BTF": ("btf", "both"),
    "M3DM": ("m3dm", "triple"),
    "AST": ("ast", "max"),
    "PatchCore": ("patchcore", "plain_average"),
    "NN joined": ("nearest_neighbor", "concat"),
    "outline": ("blind", "outline"),
}
FAMILY_CONFIDENCE = 0.95  # that all intervals of all pairs hold at once
RESAMPLES_PER_TAIL = 20  # left in each tail of the widened intervals, so that their ends are not chance


def main_groups(profile: Profile, progress: bool = False) -> dict[str, list[Record]]:
    """Records of `MAIN_VARIANTS` by text: of several trainings where the profile plans them, as `<method>_seeds`.

    Args:
        profile: the study's settings.
        progress: show bars where a basic experiment is computed.
    """
    groups = {}
    for text, (method, variant) in MAIN_VARIANTS.items():
        several = most_trained(profile, method)
        if several != method:
            groups[text] = stored_records(profile, several)[variant]
        else:
            groups[text] = experiment_records(profile, method, (variant,), progress=progress)
    return groups


def category_table(groups: Groups, metric: str) -> pd.DataFrame:
    """A metric by method (rows) and category (columns), averaged over seeds, with the mean over categories.

    Args:
        groups: by row text.
        metric: a name of `lib.tables.flat_metrics`, such as "I-AUROC".

    Raises:
        InputError: the groups do not cover the same categories.
    """
    rows = {name: _by_category(records, metric) for name, records in groups.items()}
    if len({tuple(sorted(row)) for row in rows.values()}) > 1:
        raise InputError("groups: the methods cover different categories; give the same ones for each")
    table = pd.DataFrame.from_dict(rows, orient="index")
    return table.assign(mean=table.mean(axis=1))


def _by_category(records: Sequence[Record], metric: str) -> dict[str, float]:
    categories = dict.fromkeys(record["key"]["category"] for record in records)
    return {
        category: float(
            np.mean([flat_metrics(r["metrics"])[metric] for r in records if r["key"]["category"] == category])
        )
        for category in categories
    }


def with_interval(groups: Groups) -> pd.DataFrame:
    """`category_table` of the image AUROC, with the 95 % interval of its mean over test images in "low" and "high"."""
    table = category_table(groups, "I-AUROC")
    intervals = {name: mean_interval(auroc_by_category(records)) for name, records in groups.items()}
    ends = {end: [getattr(intervals[name], end) for name in table.index] for end in ("low", "high")}
    return table.assign(**ends)


def limits_table(groups: Groups) -> pd.DataFrame:
    """AUPRO at every limit, exact and by the papers' 99 thresholds (t99), means over categories and seeds."""
    sample = flat_metrics(next(iter(groups.values()))[0]["metrics"])
    names = [name for name in sample if name.startswith("AUPRO")]
    table = pd.DataFrame({name: category_table(groups, name)["mean"] for name in names})
    return table[sorted(names, key=lambda name: (-_limit(name), name))]


def aupro_by_limit(curves: Mapping[str, Sequence[PROCurve]], limits: Sequence[float]) -> pd.DataFrame:
    """AUPRO by limit on the false-positive rate (rows) and method (columns), means over categories.

    Args:
        curves: of each method one curve a category.
        limits: each in (0, 1].

    Raises:
        InputError: a limit outside (0, 1].
    """
    rows = [{name: np.mean([aupro(c, limit) for c in found]) for name, found in curves.items()} for limit in limits]
    return pd.DataFrame(rows, index=pd.Index(limits, name="limit"))


def _limit(name: str) -> float:
    return float(name.removeprefix("AUPRO@").split("%")[0])


def beside_published(groups: Groups, dataset: str, metric: str) -> pd.DataFrame:
    """Our means, and on a real dataset the printed mean and its difference; on the embedded one ours alone.

    A number of the embedded dataset never stands beside a paper's. Methods that only a paper has come last, without a
    number of ours.

    Args:
        groups: by the study's name of the method, such as "M3DM".
        dataset: of the profile.
        metric: such as "I-AUROC"; AUPRO by the papers' convention, as they print it.
    """
    ours = category_table(groups, f"{metric} (t99)" if metric.startswith("AUPRO") else metric)["mean"].rename("ours")
    if (dataset, metric) not in CFM_TABLES:
        return ours.to_frame()
    printed = published_table(dataset, metric)[["mean", "source", "kind"]].rename(columns={"mean": "published"})
    names = [*ours.index, *(name for name in printed.index if name not in ours.index)]
    table = pd.concat([ours.reindex(names), printed.reindex(names)], axis=1)
    table.insert(2, "difference", table["ours"] - table["published"])
    return table


def pairwise_differences(by_category: Mapping[str, Sequence[Resampled]]) -> dict[tuple[str, str], Interval]:
    """Mean over categories of the first minus the second method of every pair, with intervals that hold all at once.

    With 21 pairs about one would be called different by chance alone. So each interval is widened to the confidence
    1 - 0.05 / number of pairs (Bonferroni), and the resamples are as many as such narrow tails need.

    Args:
        by_category: of each method one metric a category, on the same images; see `lib.comparisons`.
    """
    pairs = list(combinations(by_category, 2))
    config = family_config(len(pairs))
    as_it_is, resampled = shared_resamples(by_category, config)
    means = {name: (as_it_is[name].mean(), resampled[name].mean(axis=0)) for name in by_category}
    tail = (1 - config.confidence) / 2
    found = {}
    for first, second in pairs:
        low, high = np.quantile(means[first][1] - means[second][1], [tail, 1 - tail])
        found[first, second] = Interval(float(means[first][0] - means[second][0]), float(low), float(high))
    return found


def shared_resamples(
    by_category: Mapping[str, Sequence[Resampled]], config: BootstrapConfig
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Each method's metric (K,) on the test images as they are, and (K, R) on resamples that all methods share.

    Args:
        by_category: of each method one metric a category.
        config: number of resamples.

    Raises:
        InputError: the methods do not have the same categories and images.
    """
    generator = seeded_generator("side by side")
    as_it_is: dict[str, list[float]] = {name: [] for name in by_category}
    resampled: dict[str, list[np.ndarray]] = {name: [] for name in by_category}
    if len({len(metrics) for metrics in by_category.values()}) != 1:
        raise InputError("by_category: the methods have different numbers of categories; give the same ones")
    for of_category in zip(*by_category.values(), strict=True):
        strata = of_category[0].strata
        if not all(np.array_equal(metric.strata, strata) for metric in of_category):
            raise InputError("by_category: the methods were measured on different images; give the same ones")
        counts = resample_counts(strata, config.num_resamples, generator)
        for name, metric in zip(by_category, of_category, strict=True):
            as_it_is[name].append(metric.at_counts(np.ones((1, len(strata)), dtype=np.int64))[0])
            resampled[name].append(metric.at_counts(counts))
    return tuple({name: np.array(values) for name, values in found.items()} for found in (as_it_is, resampled))


def family_config(num_pairs: int) -> BootstrapConfig:
    """Confidence and resamples of each interval of a family of pairs."""
    tail = (1 - FAMILY_CONFIDENCE) / max(num_pairs, 1) / 2
    return BootstrapConfig(max(2000, int(np.ceil(RESAMPLES_PER_TAIL / tail))), 1 - 2 * tail)


def difference_matrices(differences: Mapping[tuple[str, str], Interval]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Row minus column: the differences (M, M), and their verdicts (M, M) as in `lib.comparisons.verdict`."""
    names = list(dict.fromkeys(name for pair in differences for name in pair))
    values, verdicts = (pd.DataFrame(index=names, columns=names, dtype=kind) for kind in (float, object))
    for (first, second), interval in differences.items():
        turned = Interval(-interval.estimate, -interval.high, -interval.low)
        for row, column, found in ((first, second, interval), (second, first, turned)):
            values.loc[row, column], verdicts.loc[row, column] = found.estimate, verdict(found)
    return values, verdicts


def wins_table(differences: Mapping[tuple[str, str], Interval]) -> pd.DataFrame:
    """How many methods each is shown to be better than, and worse than, most wins first."""
    _, verdicts = difference_matrices(differences)
    counts = {f"{word} than": (verdicts == word).sum(axis=1) for word in ("better", "worse")}
    return pd.DataFrame(counts).sort_values(["better than", "worse than"], ascending=[False, True], kind="stable")


def rank_table(groups: Groups, metric: str) -> pd.DataFrame:
    """Rank of each method in each category, 1 = best, equal ones sharing the mean of their ranks, and the mean rank."""
    table = category_table(groups, metric).drop(columns="mean")
    ranks = pd.DataFrame(rankdata(-table, axis=0), index=table.index, columns=table.columns)
    return ranks.assign(mean=ranks.mean(axis=1)).sort_values("mean", kind="stable")


def rank_intervals(groups: Groups, config: BootstrapConfig | None = None) -> dict[str, Interval]:
    """Mean rank in image AUROC with its 95 % interval: ranks of every resample of the test images, shared by all.

    Args:
        groups: by text, on the same images.
        config: number of resamples and confidence; 2000 and 0.95 unless given.
    """
    config = config or BootstrapConfig()
    metrics = {name: auroc_by_category(records) for name, records in groups.items()}
    as_it_is, resampled = (
        rankdata(-np.stack(list(found.values())), axis=0).mean(axis=1) for found in shared_resamples(metrics, config)
    )
    tail = (1 - config.confidence) / 2
    low, high = np.quantile(resampled, [tail, 1 - tail], axis=1)
    return {name: Interval(*(float(v[i]) for v in (as_it_is, low, high))) for i, name in enumerate(groups)}


def rank_agreement(table: pd.DataFrame) -> pd.DataFrame:
    """Kendall's tau-b of the order of the rows by every pair of columns: 1 = the same order, -1 = reversed.

    Args:
        table: a number by method (rows) and metric, limit or convention (columns), higher = better.

    Raises:
        InputError: fewer than two methods, or a method without a number in some column.
    """
    if len(table) < 2 or table.isna().any(axis=None):
        raise InputError("rank_agreement: every method needs a number in every column, and there must be two methods")
    taus = [[kendalltau(table[first], table[second]).statistic for second in table] for first in table]
    return pd.DataFrame(taus, index=table.columns, columns=table.columns)


def swapped_pairs(first: pd.Series, second: pd.Series) -> list[tuple[str, str]]:
    """Pairs of methods whose order differs: the one that leads by `first`, then the one that leads by `second`.

    Args:
        first, second: a number by method, higher = better, of the same methods; equal numbers and NaN have no order.
    """
    pairs = [(a, b) if first[a] > first[b] else (b, a) for a, b in combinations(first.index, 2)]
    return [(a, b) for a, b in pairs if first[a] > first[b] and second[b] > second[a]]
