"""The transcripts of published tables: whole, in range, and refused by a wrong name."""

from __future__ import annotations

import pytest

from lib.errors import InputError
from lib.published import COLUMNS, published_numbers


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
