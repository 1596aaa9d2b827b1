"""The transcripts of published tables: whole, in range, and refused by a wrong name."""

from __future__ import annotations

import re

import numpy as np
import pytest

from lib.config import project_root
from lib.errors import InputError
from lib.published import (
    CFM_TABLES,
    COLUMNS,
    PUBLISHED_ONLY,
    neighbour_numbers,
    published_numbers,
    published_table,
    wrong_means,
)


@pytest.mark.parametrize(("table", "rows"), [("abl_IFC_CLC", 12), ("abl_LA_GA", 8)])
def test_a_table_has_the_rows_of_the_transcript(table: str, rows: int) -> None:
    found = published_numbers("LSFA", table)
    assert tuple(found.columns) == COLUMNS and len(found) == rows and found["value"].between(0, 1).all()


def test_lsfa_numbers_say_that_they_are_second_hand() -> None:
    for table in ("main_I-AUROC", "main_AUPRO", "abl_IFC_CLC", "abl_LA_GA"):
        assert published_numbers("LSFA", table)["note"].str.startswith("secondary").all()


def test_known_values_and_doubts() -> None:
    whole = published_numbers("LSFA", "abl_IFC_CLC").set_index(["setting", "metric"])["value"]
    assert whole["IFC+CLC", "I-AUROC"] == 0.971 and whole["none", "I-AUROC"] == 0.929
    assert published_numbers("LSFA", "abl_LA_GA")["note"].str.contains("SUSPECT").all()


def test_unknown_names_are_refused() -> None:
    with pytest.raises(InputError, match="paper"):
        published_numbers("CFN", "abl_LA_GA")
    with pytest.raises(InputError, match="abl_IFC_CLC"):
        published_numbers("LSFA", "abl")


def test_every_paper_prints_what_its_transcript_says_it_does() -> None:
    for dataset, metric in CFM_TABLES:
        table = published_table(dataset, metric)
        values = table.drop(columns=["source", "kind"]).to_numpy(dtype=float)
        assert ((values > 0) & (values <= 1) | np.isnan(values)).all() and table["mean"].notna().all()
        assert table["source"].str.startswith(("CFM, Table", "LSFA, second-hand")).all()


def test_older_methods_are_there_and_marked() -> None:
    table = published_table("mvtec3d", "I-AUROC")
    assert table.index[table["kind"] == "published only"].tolist() == list(PUBLISHED_ONLY)
    assert {"BTF", "M3DM", "AST", "CFM", "LSFA"} == set(table.index[table["kind"] == ""])
    assert len(table.columns) == 10 + 3


def test_eyecandies_comes_from_the_table_that_corrects_the_first() -> None:
    table = published_table("eyecandies", "AUPRO@30%")
    assert table.loc["AST", "mean"] == 0.744 and set(table["source"]) == {"CFM, Table 13"}


def test_printed_means_that_do_not_follow_from_their_categories_are_found() -> None:
    assert wrong_means("mvtec3d", "I-AUROC").empty
    wrong = wrong_means("eyecandies", "AUPRO@30%")
    assert wrong.loc["M3DM"].tolist() == pytest.approx([0.882, 0.8865])
    assert wrong_means("mvtec3d", "AUPRO@30%").index.tolist() == ["AST"]


def test_numbers_of_no_paper_are_refused() -> None:
    with pytest.raises(InputError, match="published dataset and metric"):
        published_table("synth3d", "I-AUROC")
    assert len(published_numbers("BTF-README", "")) > 100


def test_neighbours_are_five_with_a_source_for_each_number() -> None:
    found = neighbour_numbers()
    assert tuple(found.columns) == ("paper", "dataset", "task", "metric", "value", "note", "source")
    assert found["paper"].unique().tolist() == ["ViTAD", "DiAD", "CLIP-AD", "VAND 2023 entry", "GPT-4V-AD"]
    assert found["value"].astype(float).gt(0).all() and not found.duplicated().any()
    assert (found.drop(columns="note") != "").all(axis=None)
    bibliography = (project_root() / "book" / "references.bib").read_text(encoding="utf-8")
    for paper, rows in found.groupby("paper"):
        (source,) = rows["source"].unique()
        assert source.removeprefix("abstract, ") in bibliography, paper


def test_neighbours_values_are_as_printed() -> None:
    found = neighbour_numbers().set_index(["paper", "dataset", "task", "metric"])["value"]
    assert found.loc[[("GPT-4V-AD", "VisA", "zero-shot detection", "image AUROC")]].tolist() == ["88.0"]
    assert found.loc[[("DiAD", "MVTec AD", "multi-class localization", "AP")]].tolist() == ["52.6"]
    assert found.loc[[("CLIP-AD", "VisA", "zero-shot segmentation", "F1")]].tolist() == ["+1.2", "+11.7"]
    assert all(re.fullmatch(r"\+?\d+(\.\d+)?", value) for value in found)
