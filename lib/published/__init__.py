"""Numbers that papers print, as data: they stand beside ours in tables and are never mixed with them."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from lib.config import check_choice

FILES = {"LSFA": "lsfa_eccv2024_secondary.csv", "CFM": "cfm_cvpr2024.csv", "BTF-README": "btf_readme.csv"}
NEIGHBOURS = "neighbours.csv"  # numbers of the abstracts of works on RGB images alone
COLUMNS = ("paper", "table", "dataset", "method", "setting", "class", "metric", "value", "note")
# Where the CFM paper prints each metric for every category. Its Table 3 on Eyecandies holds cells of other columns and
# settings; Table 13 of its supplement says that it corrects it.
CFM_TABLES = {
    ("mvtec3d", "I-AUROC"): "1",
    ("mvtec3d", "AUPRO@30%"): "1",
    ("mvtec3d", "AUPRO@1%"): "2",
    ("mvtec3d", "P-AUROC"): "12",
    ("eyecandies", "I-AUROC"): "13",
    ("eyecandies", "AUPRO@30%"): "13",
    ("eyecandies", "AUPRO@1%"): "13",
    ("eyecandies", "P-AUROC"): "13",
    ("eyecandies", "AUPRO@10%"): "13",
    ("eyecandies", "AUPRO@5%"): "13",
}
LSFA_TABLES = {("mvtec3d", "I-AUROC"): "main_I-AUROC", ("mvtec3d", "AUPRO@30%"): "main_AUPRO"}
NAMES = {  # of methods, as the study calls them: as the CFM paper prints them
    "Depth GAN": "DepthGAN",
    "Depth AE": "DepthAE",
    "Depth VM": "DepthVM",
    "Voxel GAN": "VoxelGAN",
    "Voxel AE": "VoxelAE",
    "Voxel VM": "VoxelVM",
    "BTF": "BTF",
    "AST": "AST",
    "M3DM": "M3DM",
    "M3DM*": "M3DM*",
    "CFM": "Ours",
}
PUBLISHED_ONLY = ("Depth GAN", "Depth AE", "Depth VM", "Voxel GAN", "Voxel AE", "Voxel VM")  # no public code [facts]


def published_numbers(paper: str, table: str) -> pd.DataFrame:
    """Rows of one table of a paper, in the order of our transcript; columns `COLUMNS`, `value` as float.

    LSFA's come from a public summary, because the paper's text was not available to us; `note` says so row by row and
    names the cells that look wrong. A cell that the paper leaves empty is NaN.

    Args:
        paper: a key of `FILES`.
        table: the transcript's name of the table, such as "abl_IFC_CLC" or "13"; "" for the one table of BTF's README.

    Raises:
        InputError: no such paper or table.
    """
    rows = transcript(paper)
    check_choice(f"table of {paper}", table, tuple(rows["table"].unique()))
    rows = rows[rows["table"] == table].reset_index(drop=True)
    return rows.assign(value=pd.to_numeric(rows["value"]))


def transcript(paper: str) -> pd.DataFrame:
    """Every number that we have of a paper, as printed: columns `COLUMNS`, all of them text, an empty cell as "".

    Args:
        paper: a key of `FILES`.

    Raises:
        InputError: no such paper.
    """
    check_choice("paper", paper, tuple(FILES))
    rows = pd.read_csv(Path(__file__).parent / FILES[paper], keep_default_na=False, dtype=str)
    return rows.reindex(columns=list(COLUMNS), fill_value="")


def neighbour_numbers() -> pd.DataFrame:
    """Every number in the abstracts of five works on RGB images, in the order of our transcript, all of them text.

    Columns: paper, dataset, task, metric, value (as printed; "+" marks a difference), note, source. Empty cells are "".
    """
    return pd.read_csv(Path(__file__).parent / NEIGHBOURS, keep_default_na=False, dtype=str)


def published_table(dataset: str, metric: str) -> pd.DataFrame:
    """What papers print of every method on a dataset: one row a method, one column a category.

    Args:
        dataset: "mvtec3d" or "eyecandies".
        metric: such as "I-AUROC" or "AUPRO@30%".

    Returns:
        Categories, "mean" as printed, "source", and "kind": "published only" where there is no code to run.

    Raises:
        InputError: no paper prints this.
    """
    check_choice("published dataset and metric", (dataset, metric), tuple(CFM_TABLES))
    table = CFM_TABLES[dataset, metric]
    found = published_numbers("CFM", table).query("setting == 'full' and metric == @metric")
    ours = {printed: name for name, printed in NAMES.items()}
    parts = [_by_category(found.assign(method=found["method"].map(ours)), f"CFM, Table {table}")]
    if (dataset, metric) in LSFA_TABLES:
        lsfa = published_numbers("LSFA", LSFA_TABLES[dataset, metric]).query("method == 'LSFA' and setting == 'RGB+3D'")
        parts.append(_by_category(lsfa, "LSFA, second-hand"))
    joined = pd.concat(parts)
    joined["kind"] = ["published only" if name in PUBLISHED_ONLY else "" for name in joined.index]
    return joined[[name for name in joined if name not in ("mean", "source", "kind")] + ["mean", "source", "kind"]]


def _by_category(rows: pd.DataFrame, source: str) -> pd.DataFrame:
    """One row a method that the study has a name for, one column a category, in the order of the transcript."""
    rows = rows.dropna(subset=["method"])
    table = rows.pivot(index="method", columns="class", values="value")
    table = table.loc[list(rows["method"].unique()), list(rows["class"].unique())]
    table.columns.name = table.index.name = None
    return table.assign(source=source)


def wrong_means(dataset: str, metric: str, tolerance: float = 0.0006) -> pd.DataFrame:
    """Printed means that are not the means of the printed categories, with both; empty where all agree.

    Args:
        dataset, metric: as for `published_table`.
        tolerance: what rounding of categories and mean to three digits may make of it.
    """
    table = published_table(dataset, metric)
    categories = table.drop(columns=["mean", "source", "kind"])
    means = categories.mean(axis=1).where(categories.notna().all(axis=1))
    apart = (table["mean"] - means).abs() > tolerance
    return pd.DataFrame({"printed": table["mean"], "of the categories": means})[apart]
