"""Published tables held against themselves: means, numbers printed twice, cells of other columns, claims of the text.

Everything is computed from the transcripts in `lib/published`; no number of a paper stands in this file. Means of cells
with three digits are taken in whole thousandths, so that no float decides a tie.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import pandas as pd

import lib.published
from lib.config import check_choice
from lib.errors import InputError
from lib.published import FILES, published_numbers, transcript

ROW = ["paper", "table", "dataset", "method", "setting", "metric"]  # what names one row of a published table
QUANTITY = ["dataset", "method", "setting", "class", "metric"]  # what names one number, whoever prints it
DIGITS = 3  # after the point of every share; a transcript may drop zeros at the end
NUM_CATEGORIES = 10  # of both datasets, and of every table that prints them
VERDICTS = ("rounded", "cut off", "does not match", "cannot be checked")
CLAIM_KINDS = ("highest", "lowest", "gain")
MADE_BEFORE = ("CFM", "3")  # the table that Table 13 of the paper's own supplement says it corrects
OWN_METHODS = ("Ours", "LSFA")  # what papers call their own, variants by a hyphen


@dataclass(frozen=True)
class Alias:
    """One number under two names: how a printed row is called where it is joined with others.

    Attributes:
        paper, tables: where it is printed.
        method, setting: as printed; setting "*" = any.
        joined_method, joined_setting: in the join; "=" keeps what is printed.
        reason: why the two are one.
        metrics: only these; empty = all.
    """

    paper: str
    tables: tuple[str, ...]
    method: str
    setting: str
    joined_method: str
    joined_setting: str
    reason: str
    metrics: tuple[str, ...] = ()


TRAINED_250 = "the full method is trained for 250 epochs and multiplies its two maps"
TRAINED_50 = "Tables 7, 8 and 9 vary one part of the same network at 50 epochs; this row varies nothing"
ALIASES = (
    Alias("CFM", ("1", "2", "3", "4", "5", "12", "13"), "Ours", "*", "CFM", "=", "the paper's name of its method"),
    Alias("CFM", ("6", "10"), "product", "250ep", "CFM", "full", TRAINED_250),
    Alias("CFM", ("11",), "Ours", "250ep", "CFM", "full", TRAINED_250),
    Alias("CFM", ("11",), "Ours-M", "250ep", "Ours-M", "full", TRAINED_250),
    Alias("CFM", ("11",), "Ours-S", "250ep", "Ours-S", "full", TRAINED_250),
    Alias("CFM", ("11",), "Ours-T", "250ep", "Ours-T", "full", TRAINED_250),
    Alias(
        "CFM", ("9",), "MLP Projection", "50ep", "CFM", "full", "cost does not depend on epochs", ("FPS", "Memory_MB")
    ),
    Alias("CFM", ("7",), "cross_product", "50ep", "CFM", "50ep", TRAINED_50),
    Alias("CFM", ("8",), "DINO", "50ep", "CFM", "50ep", TRAINED_50),
    Alias("CFM", ("9",), "MLP Projection", "50ep", "CFM", "50ep", TRAINED_50),
    Alias("LSFA", ("main_I-AUROC", "main_AUPRO"), "PatchCore+FPFH", "RGB+3D", "BTF", "full", "BTF by its two features"),
    Alias("LSFA", ("main_I-AUROC", "main_AUPRO"), "*", "RGB+3D", "=", "full", "both modalities, every sample"),
    Alias("LSFA", ("abl_IFC_CLC",), "LSFA", "IFC+CLC", "LSFA", "full", "both losses are the full method"),
    Alias("LSFA", ("abl_LA_GA",), "LSFA", "LA+GA", "LSFA", "CLC", "CLC is the sum of LA and GA"),
    Alias(
        "BTF-README", ("",), "BTF (Ours)", "preprocessed", "BTF", "full", "papers run BTF on clouds without their plane"
    ),
)
# Text; where the better one stands; what it is said to improve on, in the same table. The rules of Table 6 are left
# out: they read one and the same training, so that its chance cancels in their differences.
IMPROVEMENTS = (
    ("CFM against M3DM", "CFM", "1", "Ours", "M3DM"),
    ("CFM against AST", "CFM", "1", "Ours", "AST"),
    ("CFM against BTF", "CFM", "1", "Ours", "BTF"),
    ("LSFA against M3DM", "LSFA", "main_I-AUROC", "LSFA", "M3DM"),
    ("LSFA against M3DM", "LSFA", "main_AUPRO", "LSFA", "M3DM"),
    ("LSFA against AST", "LSFA", "main_I-AUROC", "LSFA", "AST"),
    ("8 blocks against 12 (T11)", "CFM", "11", "Ours-M", "Ours"),
    ("12 blocks against 4 (T11)", "CFM", "11", "Ours", "Ours-S"),
    ("12 blocks against 1 (T11)", "CFM", "11", "Ours", "Ours-T"),
    ("crossmodal against intra-modal (T7)", "CFM", "7", "cross_product", "intra_product"),
    ("DINO against DINO-v2 (T8)", "CFM", "8", "DINO", "DINO-v2"),
    ("DINO against CLIP (T8)", "CFM", "8", "DINO", "CLIP"),
    ("MLP against encoder-decoder (T9)", "CFM", "9", "MLP Projection", "MLP Encoder-Decoder"),
    ("MLP against convolutions (T9)", "CFM", "9", "MLP Projection", "Convolutional Encoder-Decoder"),
    ("CLC and IFC against IFC", "LSFA", "abl_IFC_CLC", "IFC+CLC", "IFC"),
    ("CLC and IFC against CLC", "LSFA", "abl_IFC_CLC", "IFC+CLC", "CLC"),
    ("CLC against no adaptation", "LSFA", "abl_IFC_CLC", "CLC", "none"),
    ("IFC against no adaptation", "LSFA", "abl_IFC_CLC", "IFC", "none"),
    ("CFM against M3DM, Eyecandies (T13)", "CFM", "13", "Ours", "M3DM"),
)


def every_number() -> pd.DataFrame:
    """All transcripts, one number a row, as printed: the columns of `lib.published.transcript`."""
    return pd.concat([transcript(paper) for paper in FILES], ignore_index=True)


def mean_checks(numbers: pd.DataFrame | None = None) -> pd.DataFrame:
    """Every printed mean beside the mean of the printed categories, one row a row of a table that prints both.

    Columns: those of `ROW`; "categories" that are known; "recomputed" and "printed" mean; "difference", printed minus
    recomputed; "rounds" and "cuts": whether rounding to the printed digits (a tie either way) or cutting digits off
    explains it; "hidden digits": whether the digits that the cells do not print could; and a verdict of `VERDICTS`.

    Args:
        numbers: as `every_number` gives them; all of them unless given.
    """
    numbers = every_number() if numbers is None else numbers
    rows = []
    for names, group in numbers.groupby(ROW, sort=False):
        cells = group[(group["class"] != "mean") & (group["value"] != "")]["value"]
        printed = group[group["class"] == "mean"]["value"]
        if len(printed) == 1 and (group["class"] != "mean").any():
            rows.append(dict(zip(ROW, names, strict=True)) | check_mean(list(cells), printed.item()))
    return pd.DataFrame(rows)


def check_mean(cells: Sequence[str], printed: str) -> dict[str, object]:
    """What `mean_checks` says of one row.

    Args:
        cells: known categories as printed.
        printed: the mean as printed.

    Raises:
        InputError: a number is not a share of 1 in at most `DIGITS` digits.
    """
    if wrong := [text for text in (*cells, printed) if not 0 <= float(text) <= 1 or num_digits(text) > DIGITS]:
        raise InputError(f"mean {printed}: {wrong[0]} is not a share of 1 in {DIGITS} digits; check the transcript")
    unit = 10**DIGITS
    total, target = sum(round(float(cell) * unit) for cell in cells), round(float(printed) * unit)
    apart = target * len(cells) - total  # in thousandths, times the number of categories
    known = len(cells) == NUM_CATEGORIES
    rounds, cuts = 2 * abs(apart) <= len(cells), -len(cells) < apart <= 0
    word = "rounded" if rounds else "cut off" if cuts else "does not match"
    return {
        "categories": len(cells),
        "recomputed": total / len(cells) / unit if known else float("nan"),
        "printed": float(printed),
        "difference": apart / len(cells) / unit if known else float("nan"),
        "rounds": known and rounds,
        "cuts": known and cuts,
        "hidden digits": known and abs(apart) <= len(cells),
        "verdict": word if known else "cannot be checked",
    }


def num_digits(text: str) -> int:
    """Digits after the point of a printed number."""
    return len(text.partition(".")[2])


def same_quantities() -> pd.DataFrame:
    """`ALIASES` as a table: which printed rows are taken for one quantity, and why."""
    return pd.DataFrame([asdict(alias) for alias in ALIASES])


def repeated(numbers: pd.DataFrame | None = None) -> pd.DataFrame:
    """Quantities that are printed in two or more tables, one row each.

    Columns: those of `QUANTITY`, by the names of the join; "printed": each table with its number; "papers"; "lowest",
    "highest", "difference" of the two; "differs": False where the numbers agree to the digits both print; "doubt":
    whether the transcript doubts one of them.

    Args:
        numbers: as `every_number` gives them; all of them unless given.
    """
    numbers = every_number() if numbers is None else numbers
    joined = joined_names(numbers[numbers["value"] != ""])
    rows = []
    for names, group in joined.groupby(QUANTITY, sort=False):
        if group[["paper", "table"]].drop_duplicates().shape[0] > 1:
            rows.append(dict(zip(QUANTITY, names, strict=True)) | compare_printed(group))
    return pd.DataFrame(rows)


def joined_names(numbers: pd.DataFrame) -> pd.DataFrame:
    """Rows under the names of the join; a row with two aliases appears under both."""
    parts, left = [], pd.Series(True, index=numbers.index)
    for alias in ALIASES:
        at = (numbers["paper"] == alias.paper) & numbers["table"].isin(alias.tables)
        at &= numbers["method"].eq(alias.method) | (alias.method == "*")
        at &= numbers["setting"].eq(alias.setting) | (alias.setting == "*")
        at &= numbers["metric"].isin(alias.metrics) | (not alias.metrics)
        at &= left | (alias.method != "*")  # a rule for any method leaves alone what an earlier rule named
        names = {"method": alias.joined_method, "setting": alias.joined_setting}
        parts.append(numbers[at].assign(**{key: name for key, name in names.items() if name != "="}))
        left &= ~at
    return pd.concat([numbers[left], *parts]).sort_index(kind="stable")


def compare_printed(group: pd.DataFrame) -> dict[str, object]:
    """What `repeated` says of one quantity."""
    values = group["value"].astype(float)
    digits = DIGITS if values.max() <= 1 else min(map(num_digits, group["value"]))
    differs = (values.max() - values.min()) * 10**digits > 0.5 + 1e-6  # half a unit of the coarser print
    places = group["paper"] + " " + group["table"].where(group["table"] != "", "README")
    return {
        "printed": "; ".join(f"{place}: {value}" for place, value in zip(places, group["value"], strict=True)),
        "papers": group["paper"].nunique(),
        "lowest": values.min(),
        "highest": values.max(),
        "difference": values.max() - values.min(),
        "differs": bool(differs),
        "doubt": bool(group["note"].str.contains("SUSPECT").any()),
    }


def contradictions(numbers: pd.DataFrame | None = None) -> pd.DataFrame:
    """Quantities that two tables print with different numbers: the rows of `repeated` that differ, largest first."""
    found = repeated(numbers)
    return found[found["differs"]].sort_values("difference", ascending=False, kind="stable").reset_index(drop=True)


def borrowed_cells() -> pd.DataFrame:
    """Means of CFM's Table 3 that are not those of Table 13, with the cells of Table 13 that hold the same number.

    Columns: "method", "metric", "Table 3", "Table 13" (its own mean there, NaN where none is printed), "same number
    at": method and column of Table 13 in the same metric, those of the same method first, and "cells": how many cells
    of the metric the table has, in which a number could turn up by chance.
    """
    first, second = published_numbers("CFM", MADE_BEFORE[1]), published_numbers("CFM", "13")
    rows = []
    for cell in first.itertuples():
        metric = second[second["metric"] == cell.metric]
        own = metric[(metric["method"] == cell.method) & (metric["class"] == "mean")]["value"]
        printed = own.item() if len(own) else float("nan")
        if cell.value != printed:
            same = metric[metric["value"] == cell.value].rename(columns={"class": "column"})
            same = same.iloc[(same["method"] != cell.method).to_numpy().argsort(kind="stable")]
            places = "; ".join(f"{found.method}, {found.column}" for found in same.itertuples())
            named = {"method": cell.method, "metric": cell.metric, "Table 3": cell.value, "Table 13": printed}
            rows.append({**named, "same number at": places or "nowhere", "cells": int(metric["value"].notna().sum())})
    return pd.DataFrame(rows)


def claims_in_text() -> pd.DataFrame:
    """Claims of the papers' texts that their own tables can answer, in our words; empty cells as ""."""
    return pd.read_csv(Path(lib.published.__file__).parent / "claims_in_text.csv", keep_default_na=False, dtype=str)


def claims_against_tables(claims: pd.DataFrame | None = None) -> pd.DataFrame:
    """Each claim of a paper's text beside the table of the same paper.

    Columns: "paper", "claim" with its metric and setting, "table", "own" number, best "rival" that is not a variant of
    its own, "rival number", "lead" of the own over it (positive = better), "claimed" lead where the text gives one,
    and "outcome": "holds", "a tie" or "does not hold".

    Args:
        claims: rows of `claims_in_text`; all of them unless given.
    """
    claims = claims_in_text() if claims is None else claims
    return pd.DataFrame([check_claim(claim) for claim in claims.to_dict("records")])


def check_claim(claim: dict[str, str]) -> dict[str, object]:
    """What `claims_against_tables` says of one claim; `InputError` for an unknown kind or a table without it."""
    check_choice("kind of claim", claim["kind"], CLAIM_KINDS)
    rows = published_numbers(claim["paper"], claim["table"])
    for column in ("dataset", "setting", "metric"):
        rows = rows[rows[column] == claim[column]]
    means = rows[rows["class"] == "mean"].set_index("method")["value"]
    check_choice(f"method of {claim['paper']} table {claim['table']}", claim["method"], tuple(means.index))
    own = float(means[claim["method"]])
    rivals = means[[not name.startswith(OWN_METHODS) for name in means.index]]
    low = claim["kind"] == "lowest"
    rival = rivals.idxmin() if low else rivals.idxmax()
    lead = float(rivals[rival] - own if low else own - rivals[rival])
    claimed = float(claim["value"]) if claim["value"] else float("nan")
    tie = abs(lead) < 0.0005 and claim["kind"] != "gain"
    holds = abs(lead - claimed) < 0.0005 if claim["kind"] == "gain" else lead > 0
    return {
        "paper": claim["paper"],
        "claim": f"{claim['claim']} ({claim['metric']}, {claim['setting']})",
        "table": claim["table"],
        "own": own,
        "rival": rival,
        "rival number": float(rivals[rival]),
        "lead": lead,
        "claimed": claimed,
        "outcome": "a tie" if tie else "holds" if holds else "does not hold",
    }


def doubted_cells() -> pd.DataFrame:
    """Cells that our transcript marks as suspect, with its reason; they come from a summary of LSFA's paper."""
    numbers = every_number()
    doubted = numbers[numbers["note"].str.contains("SUSPECT")]
    return doubted.assign(doubt=doubted["note"].str.split("SUSPECT").str[1].str.strip(": ")).drop(columns="note")


def noise_floor() -> pd.DataFrame:
    """How far numbers lie apart that one paper prints of one setting: the smallest difference that means anything.

    Columns of `contradictions`, means over categories alone, one paper alone, and without a table that a later one of
    the same paper corrects, since a slip is no noise. Numbers that agree are left out: they are copies of one run.
    """
    numbers = every_number()
    corrected = (numbers["paper"] == MADE_BEFORE[0]) & (numbers["table"] == MADE_BEFORE[1])
    numbers = numbers[~corrected & (numbers["class"] == "mean") & ~numbers["note"].str.contains("SUSPECT")]
    found = [contradictions(part) for _, part in numbers.groupby("paper", sort=False) if len(repeated(part))]
    return pd.concat(found, ignore_index=True).drop(columns=["papers", "doubt", "differs", "class"])


def published_improvements(metric: str) -> pd.DataFrame:
    """Differences between printed means that the papers report as improvements, or as the price of something.

    Columns: "paper", "table", "difference" of the printed means; the text of the comparison as index.

    Args:
        metric: such as "I-AUROC"; comparisons whose table does not print it are left out.
    """
    rows = {}
    for text, paper, table, first, second in IMPROVEMENTS:
        numbers = published_numbers(paper, table)
        means = numbers[(numbers["class"] == "mean") & (numbers["metric"] == metric)]
        named = means.set_index("setting" if table == "abl_IFC_CLC" else "method")["value"]
        named = named[~named.index.duplicated()]  # LSFA's main table: both modalities before 3D alone
        if {first, second} <= set(named.index):
            rows[text] = {"paper": paper, "table": table, "difference": float(named[first] - named[second])}
    return pd.DataFrame.from_dict(rows, orient="index", columns=["paper", "table", "difference"])
