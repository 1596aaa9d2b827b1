"""Run the experiments of a profile that are not there yet, and print their table beside the published numbers.

Examples: python data_scripts/results_table.py --profile mvtec3d --method cfm --category bagel
          python data_scripts/results_table.py --profile eyecandies
Published means cover all categories: they stand beside ours only where ours do too. AUPRO is printed by the 99
thresholds of the papers here; records hold the exact one as well.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

import pandas as pd

from lib.errors import InputError, run_command_line
from lib.experiment import experiment_records
from lib.notebooks import data_rights
from lib.profiles import Profile, load_profile, profile_names
from lib.published import published_table
from lib.side_by_side import Groups, category_table

PUBLISHED_NAMES = {"cfm": "CFM", "lsfa": "LSFA", "btf": "BTF", "m3dm": "M3DM", "ast": "AST"}
MAIN_VARIANT = {"cfm": "product", "lsfa": "average", "btf": "both", "m3dm": "triple", "ast": "max"}
METRICS = {"I-AUROC": "I-AUROC", "P-AUROC": "P-AUROC", "AUPRO@30% (t99)": "AUPRO@30%", "AUPRO@1% (t99)": "AUPRO@1%"}


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """Command line: profile, methods, categories."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--profile", required=True, choices=profile_names())
    parser.add_argument("--method", nargs="+", default=[], help="default: all that are no ablations")
    parser.add_argument("--category", nargs="+", default=[], help="default: all of the profile")
    return parser.parse_args(arguments)


def method_groups(profile: Profile, methods: Sequence[str], categories: Sequence[str], progress: bool) -> Groups:
    """Records of the main variant of each method, by the name that papers give it."""
    groups = {}
    for name in methods or [spec.name for spec in profile.methods.values() if not spec.ablation]:
        spec = profile.method(name)
        variant = MAIN_VARIANT.get(name, spec.variants[-1])
        records = experiment_records(profile, name, (variant,), categories or None, progress)
        groups[PUBLISHED_NAMES.get(name, name)] = records
    return groups


def with_published(ours: pd.DataFrame, dataset: str, metric: str) -> pd.DataFrame:
    """Our table by category, and under each method what papers print for the same categories."""
    try:
        printed = published_table(dataset, metric)
    except InputError:
        return ours
    columns = {plain(name): name for name in printed}
    asked = [columns.get(plain(name)) for name in ours if name != "mean"]
    rows = {}
    for method in ours.index:
        rows[method] = ours.loc[method]
        if method in printed.index and None not in asked:
            values = printed.loc[method, asked].to_numpy(dtype=float)
            is_whole = len(asked) == len(columns) - 3  # mean, source and kind are no categories
            mean = printed.loc[method, "mean"] if is_whole else values.mean()
            rows[f"{method}, published"] = pd.Series([*values, mean], index=ours.columns)
    return pd.DataFrame.from_dict(rows, orient="index")


def plain(name: str) -> str:
    """Letters of a category's name, which papers and folders write differently."""
    return name.replace("_", "").replace(" ", "").lower()


def main(arguments: list[str] | None = None) -> None:
    """Print one table for each metric, and whose data it is."""
    chosen = parse_arguments(arguments)
    profile = load_profile(chosen.profile)
    groups = method_groups(profile, chosen.method, chosen.category, sys.stderr.isatty())
    for metric, printed in METRICS.items():
        table = with_published(category_table(groups, metric), profile.dataset, printed)
        print(f"\n{metric}\n{table.to_string(float_format='{:.3f}'.format)}")
    rights = data_rights(profile.dataset)
    print(*(f"\n{name}: {text}" for name, text in rights.items()), sep="")


if __name__ == "__main__":
    sys.exit(run_command_line(main))
