"""Published tables against themselves: every mean by a second reader, planted slips, and cells checked by hand."""

from __future__ import annotations

import csv
from collections import defaultdict
from decimal import ROUND_DOWN, ROUND_HALF_DOWN, ROUND_HALF_UP, Decimal
from pathlib import Path

import pandas as pd
import pytest

import lib.published
from lib import published_checks
from lib.errors import InputError
from lib.published import COLUMNS, FILES
from lib.published_checks import (
    ALIASES,
    IMPROVEMENTS,
    borrowed_cells,
    check_claim,
    check_mean,
    claims_against_tables,
    claims_in_text,
    contradictions,
    doubted_cells,
    every_number,
    mean_checks,
    noise_floor,
    published_improvements,
    repeated,
    same_quantities,
)

FOLDER = Path(lib.published.__file__).parent
THOUSANDTH = Decimal("0.001")
Row = tuple[str, ...]


def by_hand() -> dict[Row, dict[str, str]]:
    """Cells of every row of every table by category, read with the csv module alone."""
    rows: dict[Row, dict[str, str]] = defaultdict(dict)
    for name in FILES.values():
        with (FOLDER / name).open(newline="", encoding="utf-8") as file:
            for line in csv.DictReader(file):
                key = tuple(line[column] for column in ("paper", "table", "dataset", "method", "setting", "metric"))
                assert line["class"] not in rows[key], (key, line["class"])
                rows[key][line["class"]] = line["value"]
    return rows


def numbers(*rows: tuple[str, ...]) -> pd.DataFrame:
    return pd.DataFrame([dict(zip(COLUMNS, (*row, ""), strict=True)) for row in rows])


def test_every_mean_of_every_table() -> None:
    expected = {}
    for key, cells in by_hand().items():
        values = [Decimal(text) for name, text in cells.items() if name != "mean" and text]
        if "mean" not in cells or len(cells) == 1:
            continue
        if len(values) < 10:
            expected[key] = "cannot be checked"
            continue
        mean, printed = sum(values) / 10, Decimal(cells["mean"])
        nearest = {mean.quantize(THOUSANDTH, rule) for rule in (ROUND_HALF_UP, ROUND_HALF_DOWN)}
        cut = mean.quantize(THOUSANDTH, ROUND_DOWN)
        expected[key] = "rounded" if printed in nearest else "cut off" if printed == cut else "does not match"
    table = mean_checks()
    found = table.set_index(published_checks.ROW)["verdict"].to_dict()
    assert found == expected and len(found) > 150
    assert set(expected.values()) <= set(published_checks.VERDICTS)


def test_means_known_to_be_off() -> None:
    table = mean_checks().set_index(["table", "method", "metric"])
    m3dm = table.loc[("13", "M3DM", "AUPRO@30%")]
    assert m3dm["recomputed"] == pytest.approx(0.8865) and m3dm["printed"] == 0.882
    assert m3dm["difference"] == pytest.approx(-0.0045) and m3dm["verdict"] == "does not match"
    assert not m3dm["hidden digits"] and not m3dm["cuts"]
    assert list(table.index[table["verdict"] == "does not match"]) == [("13", "M3DM", "AUPRO@30%")]
    assert table.loc[("2", "AST", "AUPRO@1%"), "verdict"] == "cut off"
    assert table.loc[("12", "AST", "P-AUROC"), "categories"] == 0


@pytest.mark.parametrize(
    ("cells", "printed", "verdict"),
    [
        (["0.500"] * 9 + ["0.505"], "0.500", "rounded"),  # a tie, down
        (["0.500"] * 9 + ["0.505"], "0.501", "rounded"),  # and up
        (["0.500"] * 9 + ["0.506"], "0.500", "cut off"),
        (["0.500"] * 9 + ["0.506"], "0.501", "rounded"),
        (["0.500"] * 9 + ["0.494"], "0.500", "does not match"),  # digits are cut off downwards only
        (["0.5"] * 10, "0.502", "does not match"),
        (["0.5"] * 9, "0.5", "cannot be checked"),
    ],
)
def test_one_mean(cells: list[str], printed: str, verdict: str) -> None:
    assert check_mean(cells, printed)["verdict"] == verdict


def test_a_number_that_is_no_share_is_refused() -> None:
    for wrong in ("1.2", "0.1234", "-0.1"):
        with pytest.raises(InputError, match="check the transcript"):
            check_mean([wrong] * 10, "0.500")


def test_rows_without_categories_have_no_mean_to_check() -> None:
    found = mean_checks()
    assert not found["table"].isin(["3", "4", "5", "6", "7", "8"]).any()
    assert "FPS" not in set(found["metric"])


def test_repeated_quantities_are_all_pairs_of_the_join_by_hand() -> None:
    """CFM's main method in Tables 1 to 5 and 12, 13: the same key printed twice, joined with plain dictionaries."""
    places = defaultdict(dict)
    for (paper, table, dataset, method, setting, metric), cells in by_hand().items():
        if paper == "CFM" and table in ("1", "2", "3", "4", "5", "12", "13") and setting == "full":
            for name, text in cells.items():
                if text:
                    places[dataset, method, name, metric][table] = text
    differ = {key for key, found in places.items() if len({float(text) for text in found.values()}) > 1}
    found = contradictions(every_number().query("paper == 'CFM' and table in ['1', '2', '3', '4', '5', '12', '13']"))
    named = set(found[["dataset", "method", "class", "metric"]].itertuples(index=False, name=None))
    assert named == differ == {("eyecandies", "AST", "mean", m) for m in ("I-AUROC", "AUPRO@30%", "AUPRO@1%")}


def test_contradictions_known_by_hand() -> None:
    found = contradictions().set_index(["method", "setting", "class", "metric"])
    assert found.loc[("CFM", "50ep", "mean", "I-AUROC"), "printed"] == "CFM 7: 0.944; CFM 8: 0.949; CFM 9: 0.949"
    assert found.loc[("sum", "250ep", "mean", "AUPRO@1%"), "difference"] == pytest.approx(0.002)
    assert found.loc[("max", "250ep", "mean", "AUPRO@1%"), ["lowest", "highest"]].tolist() == [0.400, 0.401]
    assert found.loc[("LSFA", "CLC", "mean", "I-AUROC"), "doubt"] and found["differs"].all()
    assert found.loc[("M3DM", "full", "dowel", "I-AUROC"), "papers"] == 2
    assert ("CFM", "full", "mean", "I-AUROC") not in found.index


def test_numbers_that_agree_to_the_digits_both_print_are_no_contradiction() -> None:
    table = repeated().query("dataset == 'mvtec3d'").set_index(["method", "setting", "class", "metric"])
    assert not table.loc[("CFM", "full", "mean", "Memory_MB"), "differs"]
    agree = table.loc[("CFM", "full", "mean", "I-AUROC")]
    assert agree["printed"].count("0.954") == agree["printed"].count(":") == 6 and not agree["differs"]


def test_a_planted_contradiction_is_found_and_names_decide_what_is_joined() -> None:
    rows = numbers(
        ("CFM", "1", "mvtec3d", "Ours", "full", "bagel", "I-AUROC", "0.900"),
        ("CFM", "10", "mvtec3d", "product", "250ep", "bagel", "I-AUROC", "0.91"),
        ("CFM", "10", "mvtec3d", "sum", "250ep", "bagel", "I-AUROC", "0.500"),
        ("CFM", "9", "mvtec3d", "MLP Projection", "50ep", "bagel", "I-AUROC", "0.400"),
    )
    found = contradictions(rows)
    assert found["printed"].tolist() == ["CFM 1: 0.900; CFM 10: 0.91"] and found["method"].tolist() == ["CFM"]
    assert contradictions(rows.assign(value=["0.910", "0.91", "0.5", "0.4"])).empty


def test_aliases_name_rows_that_exist_and_give_a_reason() -> None:
    rows = set(every_number()[["paper", "table", "method"]].itertuples(index=False, name=None))
    for alias in ALIASES:
        assert alias.reason and len(alias.tables) > 0
        for table in alias.tables:
            assert alias.method == "*" or (alias.paper, table, alias.method) in rows or table == "main_AUPRO", alias
    assert len(same_quantities()) == len(ALIASES)


def test_cells_of_table_3_that_stand_elsewhere_in_table_13() -> None:
    found = borrowed_cells().set_index(["method", "metric"])
    assert found.loc[("AST", "AUPRO@30%"), "same number at"] == "AST, PeppermintCandy"
    assert found.loc[("AST", "AUPRO@1%"), "same number at"] == "AST, PeppermintCandy"
    for (method, metric), row in found.iterrows():
        cells = {key[3]: c for key, c in by_hand().items() if key[1] == "13" and key[5] == metric}
        assert cells.get(method, {}).get("mean", "nan") != f"{row['Table 3']:.3f}"
        number = f"{row['Table 3']:.3f}"
        places = {f"{m}, {name}" for m, c in cells.items() for name, text in c.items() if text == number}
        assert set(row["same number at"].split("; ")) == (places or {"nowhere"})
    assert found.loc[("M3DM", "AUPRO@1%"), "same number at"] == "M3DM*, mean"
    assert "Ours" not in found.index.get_level_values(0)


def test_claims_of_the_text_against_tables() -> None:
    found = claims_against_tables()
    gain = found[found["paper"] == "LSFA"].iloc[0]
    assert (gain["own"], gain["rival"], gain["rival number"]) == (0.971, "M3DM", 0.945)
    assert gain["lead"] == pytest.approx(0.026) and gain["claimed"] == 0.034 and gain["outcome"] == "does not hold"
    outcome = dict(zip(found["claim"].str.extract(r"\((.*)\)")[0] + found["table"], found["outcome"], strict=True))
    assert outcome["I-AUROC, full1"] == "holds" and outcome["I-AUROC, 10-shot4"] == "a tie"
    assert outcome["Memory_MB, full5"] == "does not hold" and outcome["FPS, full5"] == "holds"
    assert len(found) == len(claims_in_text())


def test_variants_of_the_own_method_are_no_rivals_and_wrong_claims_are_refused() -> None:
    claim = claims_in_text().query("metric == 'FPS'").to_dict("records")[0]
    assert check_claim(claim)["rival"] == "AST"  # Ours-T is faster than every other method
    with pytest.raises(InputError, match="kind of claim"):
        check_claim({**claim, "kind": "best"})
    with pytest.raises(InputError, match="method of CFM table 5"):
        check_claim({**claim, "method": "Our"})


def test_noise_floor_is_one_paper_printing_one_setting_twice() -> None:
    found = noise_floor().set_index(["method", "metric"])
    assert found.loc[("CFM", "I-AUROC"), "difference"] == pytest.approx(0.005)
    assert found.loc[("CFM", "AUPRO@30%"), "difference"] == pytest.approx(0.002)
    assert not {"AST", "M3DM", "BTF"} & set(found.index.get_level_values(0)) and found["difference"].max() < 0.01


def test_improvements_are_differences_of_printed_means() -> None:
    found = published_improvements("I-AUROC")["difference"]
    assert found["CFM against M3DM"] == pytest.approx(0.009)
    assert found["LSFA against M3DM"] == pytest.approx(0.026)
    assert found["CLC and IFC against IFC"] == pytest.approx(0.012)
    assert found["CFM against M3DM, Eyecandies (T13)"] == pytest.approx(-0.016)
    assert len(found) == len({entry[0] for entry in IMPROVEMENTS})
    assert published_improvements("AUPRO@30%")["difference"]["LSFA against M3DM"] == pytest.approx(0.004)
    assert published_improvements("I-F1max").empty


def test_doubted_cells_are_those_the_transcript_marks() -> None:
    found = doubted_cells()
    assert len(found) == (FOLDER / FILES["LSFA"]).read_text(encoding="utf-8").count("SUSPECT")
    assert found["doubt"].str.len().gt(0).all() and set(found["paper"]) == {"LSFA"}
