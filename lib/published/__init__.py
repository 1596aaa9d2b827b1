"""Numbers that papers print, as data: they stand beside ours in tables and are never mixed with them."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from lib.config import check_choice

FILES = {"LSFA": "lsfa_eccv2024_secondary.csv"}
COLUMNS = ("paper", "table", "dataset", "method", "setting", "class", "metric", "value", "note")


def published_numbers(paper: str, table: str) -> pd.DataFrame:
    """Rows of one table of a paper, in the order of our transcript; columns `COLUMNS`, `value` as float.

    LSFA's come from a public summary, because the paper's text was not available to us; `note` says so row by row and
    names the cells that look wrong.

    Args:
        paper: "LSFA".
        table: the transcript's name of the table, such as "abl_IFC_CLC".

    Raises:
        InputError: no such paper or table.
    """
    check_choice("paper", paper, tuple(FILES))
    rows = pd.read_csv(Path(__file__).parent / FILES[paper], keep_default_na=False, dtype={"value": float})
    check_choice(f"table of {paper}", table, tuple(rows["table"].unique()))
    return rows[rows["table"] == table].reset_index(drop=True)
