"""Tables and figures of a speed record, which `make bench` writes: stages, whole samples, growth, ratios with bars."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import median
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

Facts = Mapping[str, Any]
STAGES = {
    "rgb_network": "RGB network",
    "groups": "groups of points",
    "group_tokens": "group tokens",
    "point_blocks": "point blocks",
    "interpolation_weights": "interpolation weights",
    "heads": "both heads, distances",
    "map_and_score": "map and score",
}
FROM_FILES = {"read": "reading the files", "prepare": "preparation", "from_files": "files to map and score"}
PROGRAMS = {
    "full": "ours",
    "bf16": "ours, bf16",
    "anomalib": "anomalib's CFM",
    "M": "ours, M (8 blocks)",
    "S": "ours, S (4 blocks)",
    "T": "ours, T (1 block)",
}
COLORS = {"fast": "#0072B2", "plain": "#BBBBBB"}
MS, GIGA = 1e3, 1e9


def bars_table(record: Facts) -> pd.DataFrame:
    """Each ratio of a record with its bar and whether it is met, one row a ratio."""
    rows = {
        bar["name"]: {
            "measured": bar["ratio"],
            "bar": f"{'at least' if bar['at_least'] else 'at most'} {bar['limit']:g}",
            "met": "yes" if bar["is_met"] else "no",
        }
        for bar in record["bars"]
    }
    return pd.DataFrame.from_dict(rows, orient="index")


def matrix_rate(parts: Facts) -> float:
    """Operations a second of the quickest float32 matrix product among a record's parts."""
    products = [entry for name, entry in parts.items() if name.startswith("matrix_product[") and "float32" in name]
    return max(product["operations"] / product["median"] for product in products)


def over_floor(parts: Facts, sample: Facts) -> float:
    """Seconds of a whole sample over what its operations take at the matrix rate of the same process; median of turns.

    Args:
        parts: of a record; the operations of `whole_sample` are counted there.
        sample: its entry for a program of ours.
    """
    turns = zip(sample["seconds"], sample["matrix_rate"], strict=True)
    return median(seconds * rate / parts["whole_sample"]["operations"] for seconds, rate in turns)


def milliseconds(entry: Facts) -> dict[str, Any]:
    """Median and quartiles of a part, as columns of a table."""
    return {"ms": MS * entry["median"], "quartiles, ms": f"{MS * entry['q1']:.0f} to {MS * entry['q3']:.0f}"}


def stage_table(record: Facts) -> pd.DataFrame:
    """CFM stage by stage, one row a stage and one for their sum.

    Columns: median milliseconds and quartiles; billions of operations; share of the matrix rate reached; milliseconds
    of the plain form and the largest difference from it, as a share of its largest value, where one was timed.
    """
    parts, rate, rows = record["parts"], matrix_rate(record["parts"]), {}
    for name, text in STAGES.items():
        entry, plain = parts[name], parts.get(f"{name}_plain", {})
        rows[text] = {
            **milliseconds(entry),
            "operations, 10^9": entry["operations"] / GIGA,
            "share of rate": entry["operations"] / entry["median"] / rate,
            "plain, ms": MS * plain["median"] if plain else None,
            "difference": f"{plain['difference']:.1e}" if plain else "",
        }
    table = pd.DataFrame.from_dict(rows, orient="index")
    total, operations = table["ms"].sum(), table["operations, 10^9"].sum()
    reached = operations * GIGA / (total / MS) / rate
    table.loc["sum of stages"] = [total, "", operations, reached, None, ""]
    table["plain, ms"] = table["plain, ms"].astype(float)
    return table


def stage_bars(record: Facts) -> Figure:
    """Milliseconds of each stage, the plain form behind it where one was timed."""
    parts = record["parts"]
    figure, axis = plt.subplots(figsize=(7.2, 2.6))
    plain = {name: parts[f"{name}_plain"]["median"] for name in STAGES if f"{name}_plain" in parts}
    places = {name: place for place, name in enumerate(STAGES)}
    slow = [MS * seconds for seconds in plain.values()]
    axis.barh([places[name] for name in plain], slow, color=COLORS["plain"], label="plain")
    fast = [MS * parts[name]["median"] for name in STAGES]
    axis.barh(list(places.values()), fast, height=0.45, color=COLORS["fast"], label="ours")
    axis.set_yticks(list(places.values()), list(STAGES.values()))
    axis.invert_yaxis()
    axis.set_xlabel("milliseconds a sample, float32")
    axis.legend(frameon=False)
    return figure


def file_table(record: Facts) -> pd.DataFrame:
    """Milliseconds from raw files to map and score and of the two steps before the networks, with quartiles."""
    rows = {text: milliseconds(record["parts"][name]) for name, text in FROM_FILES.items()}
    return pd.DataFrame.from_dict(rows, orient="index")


def sample_table(record: Facts) -> pd.DataFrame:
    """Whole samples by program: seconds, the fastest and slowest turn, images a second and peak memory in MB."""
    rows = {}
    for name, text in PROGRAMS.items():
        if name in record["samples"]:
            entry = record["samples"][name]
            seconds = median(entry["seconds"])
            rows[text] = {
                "seconds": seconds,
                "turns": f"{min(entry['seconds']):.1f} to {max(entry['seconds']):.1f}",
                "images per second": 1 / seconds,
                "peak memory, MB": entry["peak_mb"],
            }
    return pd.DataFrame.from_dict(rows, orient="index")


def precision_table(record: Facts) -> pd.DataFrame:
    """By precision of the networks: matrix rate, a sample's seconds, these over its floor, one attention, map's error.

    The error is the map's largest difference from float32 as a share of its largest value. A row for bf16 only where
    the record's processor computes it.
    """
    parts, rows = record["parts"], {}
    for precision, program in (("float32", "full"), ("bf16", "bf16")):
        if sample := record["samples"].get(program):
            rows[precision] = {
                "matrix rate, 10^9/s": median(sample["matrix_rate"]) / GIGA,
                "sample, seconds": median(sample["seconds"]),
                "sample over floor": over_floor(parts, sample),
                "one attention, ms": MS * parts[f"attention[{precision}]"]["median"],
                "map apart": f"{parts['map_in_bf16']['difference']:.1e}" if precision == "bf16" else "",
            }
    return pd.DataFrame.from_dict(rows, orient="index")


def growth_table(record: Facts) -> pd.DataFrame:
    """Seconds at the smallest and largest size of each study, and the power of growth that fits all sizes."""
    rows = {}
    for name, study in record["growth"].items():
        values, seconds = study["values"], study["seconds"]
        rows[name] = {
            "sizes": ", ".join(f"{value:,}" for value in values),
            "seconds, smallest": seconds[0],
            "seconds, largest": seconds[-1],
            "power": study["power"],
        }
    return pd.DataFrame.from_dict(rows, orient="index")


def growth_plot(record: Facts) -> Figure:
    """Cost against size, both over those of the study's first value, on log axes; dotted: powers 1 and 2."""
    figure, axis = plt.subplots(figsize=(6.4, 3.6))
    largest = 1.0
    for name, study in record["growth"].items():
        times = [value / study["values"][0] for value in study["values"]]
        axis.plot(times, [s / study["seconds"][0] for s in study["seconds"]], "o-", label=name)
        largest = max(largest, *times)
    for power in (1, 2):
        axis.plot([1, largest], [1, largest**power], ":", color="#555555", linewidth=0.8)
        axis.annotate(f"power {power}", (largest, largest**power), color="#555555", ha="right", va="bottom")
    axis.set(xscale="log", yscale="log", xlabel="size, times the smallest", ylabel="cost, times the smallest")
    axis.set_xticks([1, 2, 4, 8, 16], ["1", "2", "4", "8", "16"])
    axis.minorticks_off()
    axis.legend(frameon=False, fontsize=8)
    return figure
