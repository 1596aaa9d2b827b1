"""Curated records against a fresh computation of the same experiment.

Processors of one name and with the same vector instructions sum in the same order, since libraries choose their code
by both: there every number of a record must come back. Others round otherwise, and a training carries the rounding on:
there a metric must come back as closely as another training seed would bring it.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

import numpy as np

from lib.ablation_tables import METRICS
from lib.experiment import recompute, results_root
from lib.profiles import MethodSpec, Profile
from lib.records import comparable, differences, read_record, record_path
from lib.tables import Record, flat_metrics

TOLERANCE = 2e-3  # largest difference of two numbers that agree
SPREADS = 4  # of 100 pairs of trainings at two seeds, one lies farther apart (normal: 4 / sqrt(2) deviations)
NUM_NAMED = 5  # differences that a report prints of one experiment


@dataclass(frozen=True)
class RecordCheck:
    """What the fresh computation of one experiment says of its curated records.

    Args:
        experiment: "method/category/seed".
        same_processor: stored and fresh numbers come from processors of one name and the same vector instructions.
        found: one line a difference; empty where all agree.
    """

    experiment: str
    same_processor: bool
    found: tuple[str, ...]

    def report(self) -> str:
        """One line where all agree, else the first differences and how many more there are."""
        way = "number by number" if self.same_processor else "by spread over seeds, another processor"
        if not self.found:
            return f"{self.experiment}: agrees ({way})"
        more = [f"  and {len(self.found) - NUM_NAMED} more"] * (len(self.found) > NUM_NAMED)
        lines = [f"{self.experiment}: DIFFERS ({way})", *(f"  {line}" for line in self.found[:NUM_NAMED]), *more]
        return "\n".join(lines)


def check_experiment(profile: Profile, method: str, category: str, seed: int) -> RecordCheck:
    """Recompute an ablation and compare it with its curated records; arguments as for `lib.experiment.run`.

    Raises:
        InputError: the profile does not plan the experiment, or a curated record is missing.
    """
    found, same = [], []
    for variant, fresh in recompute(profile, method, category, seed).items():
        stored = read_record(record_path(results_root(profile), method, category, variant, seed))
        same.append(same_processor(stored, fresh))
        where = f"{variant}.json"
        if same[-1]:
            found += differences(comparable(stored), comparable(fresh), TOLERANCE, where)
        else:
            allowed = allowed_differences(profile, profile.method(method), variant)
            found += loose_differences(stored, fresh, allowed, where)
    return RecordCheck(f"{method}/{category}/s{seed}", all(same), tuple(found))


def same_processor(stored: Record, fresh: Record) -> bool:
    """True where both records come from processors of one name and with the same vector instructions.

    Records of before 27 November 2026 name no instructions.
    """
    return all(stored["run"].get(fact) == fresh["run"][fact] for fact in ("cpu", "instructions"))


def allowed_differences(profile: Profile, spec: MethodSpec, variant: str) -> dict[str, float]:
    """By metric, how far a fresh number may lie from the stored one on a processor with other instructions.

    `SPREADS` standard deviations over training seeds, pooled over the curated ablations of the same kind of method
    and at least `TOLERANCE`: methods without chance have no spread and must come back.
    """
    squares, freedom = dict.fromkeys(METRICS, 0.0), 0
    for group in curated_groups(profile, type(spec.config), variant):
        values = {name: np.array([flat_metrics(record["metrics"])[name] for record in group]) for name in METRICS}
        squares = {name: squares[name] + float(((v - v.mean()) ** 2).sum()) for name, v in values.items()}
        freedom += len(group) - 1
    return {name: max(TOLERANCE, SPREADS * np.sqrt(total / max(freedom, 1))) for name, total in squares.items()}


def curated_groups(profile: Profile, kind: type, variant: str) -> list[list[Record]]:
    """Curated records of a variant by ablation and category, one entry a seed, of ablations with settings of a kind."""
    groups = defaultdict(list)
    for spec in profile.methods.values():
        if not spec.ablation or type(spec.config) is not kind or variant not in spec.variants:
            continue
        for category in spec.categories:
            for seed in spec.seeds:
                path = record_path(results_root(profile), spec.name, category, variant, seed)
                groups[spec.name, category].append(read_record(path))
    return list(groups.values())


def loose_differences(stored: Record, fresh: Record, allowed: dict[str, float], where: str) -> list[str]:
    """Differences in settings and inputs, which must be equal, and in metrics beyond what `allowed` allows."""
    found: list[str] = []
    for part in ("key", "config", "inputs"):
        found += differences(comparable(stored)[part], comparable(fresh)[part], 0.0, f"{where}.{part}")
    before, after = (flat_metrics(record["metrics"]) for record in (stored, fresh))
    for name, limit in allowed.items():
        if not abs(after[name] - before[name]) <= limit:
            found.append(f"{where} {name}: stored {before[name]:.4f}, now {after[name]:.4f}, allowed {limit:.4f}")
    return found
