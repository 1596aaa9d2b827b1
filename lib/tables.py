"""Tables of the book: experiment records in, DataFrames out."""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Mapping, Sequence
from itertools import takewhile
from typing import Any

import numpy as np
import pandas as pd

from lib.bootstrap import Interval
from lib.comparisons import verdict
from lib.errors import InputError

Record = dict[str, Any]
LABELS = {
    ("cfm", "product"): "CFM product",
    ("cfm", "sum"): "CFM sum",
    ("cfm", "max"): "CFM max",
    ("cfm", "psi_2d"): "CFM psi_2d",
    ("cfm", "psi_3d"): "CFM psi_3d",
    ("cfm", "product-box"): "CFM product, box blur",
    ("cfm", "product-released"): "CFM product, released scoring",
    ("cfm", "product-rescaled"): "CFM product, images rescaled",
    ("nearest_neighbor", "rgb"): "NN RGB alone",
    ("nearest_neighbor", "xyz"): "NN 3D alone",
    ("nearest_neighbor", "late"): "NN late-fused",
    ("nearest_neighbor", "concat"): "NN joined",
    ("patchcore", "rgb"): "PatchCore RGB alone",
    ("patchcore", "xyz"): "PatchCore 3D alone",
    ("patchcore", "average"): "PatchCore average",
    ("patchcore", "plain_average"): "PatchCore plain average",
    ("patchcore", "svm"): "PatchCore SVM",
    ("lsfa", "rgb"): "LSFA RGB alone",
    ("lsfa", "xyz"): "LSFA 3D alone",
    ("lsfa", "average"): "LSFA average",
    ("lsfa", "plain_average"): "LSFA plain average",
    ("lsfa", "svm"): "LSFA SVM",
    ("btf", "both"): "BTF",
    ("btf", "rgb"): "BTF RGB alone",
    ("btf", "xyz"): "BTF FPFH alone",
    ("m3dm", "triple"): "M3DM",
    ("m3dm", "double"): "M3DM two banks",
    ("m3dm", "rgb"): "M3DM RGB bank",
    ("m3dm", "xyz"): "M3DM 3D bank",
    ("m3dm", "fused"): "M3DM fused bank",
    ("ast", "max"): "AST",
    ("ast", "mean"): "AST mean score",
    ("blind", "outline"): "outline",
}


def label(record: Record) -> str:
    """Name of a record's method and variant as tables print it."""
    method, variant = record["key"]["method"], record["key"]["variant"]
    return LABELS.get((method, variant), f"{method} {variant}")


def flat_metrics(metrics: Mapping[str, Any]) -> dict[str, float]:
    """Metrics of a record on one level: "I-AUROC", "P-AUROC", "AUPRO@30%", "AUPRO@30% (t99)" and so on."""
    flat = {
        "I-AUROC": metrics["image_auroc"],
        "I-AP": metrics["image_ap"],
        "I-F1max": metrics["image_f1max"],
        "P-AUROC": metrics["pixel_auroc"],
        "P-AP": metrics["pixel_ap"],
        "P-F1max": metrics["pixel_f1max"],
    }
    for convention, values in metrics["aupro"].items():
        suffix = "" if convention == "exact" else f" ({convention})"
        flat |= {f"AUPRO@{100 * float(limit):g}%{suffix}": value for limit, value in values.items()}
    return flat


def records_frame(records: Sequence[Record]) -> pd.DataFrame:
    """Long table: one row a record and defect type ("all" for the whole test set), one column a metric."""
    rows = []
    for record in records:
        parts = {"all": record["metrics"], **record["metrics"]["by_defect"]}
        start = {"method": label(record), "category": record["key"]["category"], "seed": record["key"]["seed"]}
        rows += [{**start, "defect": defect, **flat_metrics(metrics)} for defect, metrics in parts.items()]
    return pd.DataFrame(rows)


def seed_mean_table(frame: pd.DataFrame, metric: str, columns: str, methods: Sequence[str]) -> pd.DataFrame:
    """Metric by method (rows) and category or defect (columns), averaged over the rest, with a mean column.

    Args:
        frame: rows of `records_frame` already cut to what the table is about.
        metric: a metric column.
        columns: "category" or "defect".
        methods: rows in their order.
    """
    table = frame.pivot_table(index="method", columns=columns, values=metric, aggfunc="mean").reindex(list(methods))
    table.columns.name = None
    return table.assign(mean=table.mean(axis=1))


def seed_spread(frame: pd.DataFrame, metric: str) -> pd.DataFrame:
    """Mean over categories of a metric at each seed: mean, standard deviation and range over seeds, by method."""
    by_seed = frame.groupby(["method", "seed"])[metric].mean()
    grouped = by_seed.groupby("method")
    table = pd.DataFrame({"mean": grouped.mean(), "std": grouped.std(), "min": grouped.min(), "max": grouped.max()})
    return table.assign(seeds=grouped.size())


def interval_table(intervals: Mapping[str, Interval], differences: bool = False) -> pd.DataFrame:
    """Estimates with the ends of their 95 % intervals; for differences also the verdict.

    Args:
        intervals: by row text.
        differences: the numbers are paired differences.
    """
    rows = {name: dataclasses.asdict(interval) for name, interval in intervals.items()}
    table = pd.DataFrame.from_dict(rows, orient="index")
    if differences:
        table["verdict"] = [verdict(interval) for interval in intervals.values()]
    return table


def settings_table(config: Any) -> pd.DataFrame:
    """Fields and values of a settings object, one row a field."""
    values = dataclasses.asdict(config)
    return pd.DataFrame({"value": [str(value) for value in values.values()]}, index=pd.Index(values, name="setting"))


def sourced_settings(config: Any) -> pd.DataFrame:
    """`settings_table` with what each setting is and where its value comes from: the text of the class's docstring."""
    texts: dict[str, str] = {}
    for kind in reversed(type(config).__mro__):
        texts |= documented_attributes(kind.__doc__ or "")
    return settings_table(config).assign(meaning=lambda table: [texts.get(name, "") for name in table.index])


def documented_attributes(docstring: str) -> dict[str, str]:
    """Text of each attribute in a Google-style docstring; "a, b: text" speaks of both."""
    found: dict[str, str] = {}
    names: list[str] = []
    lines = inspect.cleandoc(docstring).partition("Attributes:\n")[2].splitlines()
    for line in takewhile(lambda line: not line or line.startswith("    "), lines):
        if match := re.match(r"    (\w+(?:, \w+)*): (.*)", line):
            names = match[1].split(", ")
            found |= dict.fromkeys(names, match[2])
        elif names:
            found |= {name: f"{found[name]} {line.strip()}".strip() for name in names}
    return found


def cost_table(records: Sequence[Record]) -> pd.DataFrame:
    """Seconds and memory by method, mean over categories and seeds, with the number of experiments.

    Args:
        records: any variants; those of one experiment share its cost and count once.
    """
    costs = ("fit_seconds", "predict_seconds", "peak_memory_mb")
    experiments = {tuple(r["key"][name] for name in ("method", "category", "seed")): r["run"] for r in records}
    rows = [{"method": key[0], **{name: facts[name] for name in costs}} for key, facts in experiments.items()]
    frame = pd.DataFrame(rows)
    grouped = frame.groupby("method", sort=False)
    return grouped.mean().assign(experiments=grouped.size())


def calibration_table(calibration: Mapping[str, Any]) -> pd.DataFrame:
    """Image AUROC of the two naive baselines by defect type, from `results/synth3d/calibration.json`."""
    rows = {f"raw {name} patches": part["over_categories"] for name, part in calibration["summary"].items()}
    return pd.DataFrame.from_dict(rows, orient="index")


def record_sources(records: Sequence[Record]) -> pd.DataFrame:
    """Number of records by the commit, processor and library versions that made them."""
    facts = ("commit", "cpu")
    libraries = ("torch", "numpy", "scipy")
    rows = [
        {**{name: r["run"][name] for name in facts}, **{name: r["run"]["versions"][name] for name in libraries}}
        for r in records
    ]
    return pd.DataFrame(rows).value_counts(sort=False).rename("records").reset_index().set_index("commit")


def worst_cases(record: Record) -> tuple[int, int, int]:
    """Places among the test images of the defective one ranked lowest and the good one ranked highest, by image score.

    The third number counts good images with a score at least that of the missed defect.

    Raises:
        InputError: the record lacks good or defective images.
    """
    scores = np.array([image["score"] for image in record["per_image"]])
    good = np.array([image["label"] == 0 for image in record["per_image"]])
    if good.all() or not good.any():
        raise InputError("worst_cases: the record needs good and defective images; give that of a test split")
    missed = int(np.where(good, np.inf, scores).argmin())
    alarm = int(np.where(good, scores, -np.inf).argmax())
    return missed, alarm, int((good & (scores >= scores[missed])).sum())
