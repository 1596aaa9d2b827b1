"""Bad input on every command line: one line on standard error and exit status 2, never a traceback."""

from __future__ import annotations

import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from lib.config import project_root
from lib.errors import InputError, run_command_line

SCRIPTS = project_root() / "data_scripts"
CATEGORY_LINE = "InputError: category of profile demo 'nope' is unknown; choose one of biscuit, ring, cord, sweet"
PROFILE_LINE = "InputError: profile 'nope' is unknown; choose one of "
EXPERIMENT = ("--method", "cfm", "--category", "nope", "--seed", "0")
COLORS_AND_SCANS = ("--color", "a", "--scans", "b", "--target", "c", "--part", "d")
BAD_INPUT = [
    ("extract_features", ("--category", "nope"), CATEGORY_LINE),
    ("run_experiment", EXPERIMENT, CATEGORY_LINE),
    ("run_experiment", ("--profile", "nope", *EXPERIMENT), PROFILE_LINE),
    ("make_overview", ("--profile", "nope", "--output", "nope.png"), PROFILE_LINE),
    ("expected_numbers", ("--profile", "nope"), PROFILE_LINE),
    ("study", ("--profile", "nope"), PROFILE_LINE),
    ("assemble_book", ("--profile", "nope", "--target", "nope"), PROFILE_LINE),
    ("ablations", ("remake", "--profile", "nope"), PROFILE_LINE),
    ("ablations", ("check", "--number", "0"), "InputError: --number 0 would check nothing; give 1 or more"),
    (
        "calibrate_synth3d",
        ("--seeds", "1000"),
        "InputError: --seeds [1000]: others are kept for reported data; use 0 to",
    ),
    ("get_weights", ("nope",), "InputError: weights 'nope' is unknown; choose one of point_mae, "),
    ("bench", ("--threads", "0"), "InputError: --threads is 0; give at least 1"),
    ("bench_training", ("--samples", "0"), "InputError: --samples is 0; give at least 1"),
    ("feature_cache", ("clear", "--profile", "nope"), PROFILE_LINE),
    ("extract_features", ("--category", "ring", "--extractor", "nope"), "InputError: extractor of profile demo 'nope'"),
    ("pretrain", ("rgb", "--steps", "0"), "InputError: pretrain: 0 steps; give at least 1"),
    (
        "get_data",
        ("mvtec3d", "--folder", "new", "--category", "nope", "--accept-license"),
        "InputError: category of mvtec3d 'nope' is unknown; choose one of bagel, ",
    ),
    (
        "prepare_data",
        ("eyecandies", "--source", "a", "--target", "b", "--preparation", "released"),
        "InputError: --preparation released: eyecandies has one of its own; leave it out",
    ),
    ("check_data", ("mvtec3d", "--folder", "nope"), "InputError: nope: no such folder; give the folder that holds the"),
    (
        "prepare_data",
        ("mvtec3d", "--source", "nope", "--target", "nope/in", "--category", "bagel"),
        "InputError: nope/in: lies in nope or holds it; give a folder beside it",
    ),
    (
        "convert_scans",
        ("depth", *COLORS_AND_SCANS, "--split", "test", "--defect", "hole"),
        "InputError: hole: scans with a defect belong into test, and each needs a mask",
    ),
    (
        "results_table",
        ("--profile", "demo", "--method", "nope"),
        "InputError: method of profile demo 'nope' is unknown; choose one of cfm, ",
    ),
    ("study", ("--gpus", "2"), "InputError: --gpus 2: profile demo has device: cpu and uses no GPU; leave it out"),
    ("study", ("--cluster", "nope"), "InputError: nope holds no config.yaml of Snakemake; give profiles/slurm, or a"),
    ("local_slurm", ("stop", "--folder", "nope"), "InputError: nope: no SLURM was started there; give the folder that"),
    ("compare_records", ("nope", "nope"), "InputError: nope: no such folder; give one with records, such as"),
    ("make_class_notebooks", ("--source", "nope"), "InputError: nope: no such folder; give the folder that holds the"),
    ("run_notebook", ("nope.ipynb", "out.ipynb"), "InputError: notebook nope.ipynb does not exist; notebooks lie in"),
]
NO_BAD_INPUT = {"make_env", "check_site", "pack_site"}  # nothing that they call raises InputError


def refused(message: str) -> int:
    raise InputError(message)


@pytest.mark.parametrize(("returned", "status"), [(None, 0), (0, 0), (1, 1), (3, 3)])
def test_status_is_what_main_returns(capsys: pytest.CaptureFixture[str], returned: int | None, status: int) -> None:
    assert run_command_line(lambda: returned) == status
    assert capsys.readouterr() == ("", "")


def test_bad_input_is_one_line_on_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command_line(lambda: refused("a.yaml lacks seeds; add them")) == 2
    assert capsys.readouterr() == ("", "InputError: a.yaml lacks seeds; add them\n")


def test_other_errors_keep_their_traceback() -> None:
    with pytest.raises(ZeroDivisionError):
        run_command_line(lambda: 1 // 0)


@pytest.mark.parametrize(("script", "given", "line"), BAD_INPUT, ids=lambda part: part if isinstance(part, str) else "")
def test_bad_input_of_each_script_is_one_line(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    script: str,
    given: tuple[str, ...],
    line: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [script, *given])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(SCRIPTS / f"{script}.py"), run_name="__main__")
    out, err = capsys.readouterr()
    assert (ended.value.code, out, err.count("\n")) == (2, "", 1) and err.startswith(line)
    assert list(tmp_path.iterdir()) == []


def test_every_script_is_among_those_tested() -> None:
    elsewhere = {"make_synth3d"}  # tests/test_synth3d.py
    names = {path.stem for path in SCRIPTS.glob("*.py")}
    assert names == {script for script, _, _ in BAD_INPUT} | elsewhere | NO_BAD_INPUT


def test_bad_input_ends_the_process_in_one_line() -> None:
    command = [sys.executable, SCRIPTS / "run_experiment.py", *EXPERIMENT]
    process = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (process.returncode, process.stdout, process.stderr) == (2, "", f"{CATEGORY_LINE}\n")


@pytest.mark.parametrize(
    "command",
    [
        ("get_data", "mvtec3d", "--accept-license", "--archive", "{file}", "--category", "bagel", "--folder", "{file}"),
        ("make_class_notebooks", "--target", "{file}"),
        ("make_synth3d", "--root", "{file}", "--seed", "0"),
    ],
)
def test_a_file_in_the_place_of_a_folder_is_one_line(command: tuple[str, ...], tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("x")
    script, *arguments = (word.format(file=file) for word in command)
    ended = subprocess.run(
        [sys.executable, SCRIPTS / f"{script}.py", *arguments], cwd=project_root(), capture_output=True, text=True
    )
    assert ended.returncode == 2
    assert ended.stderr.count("\n") == 1 and f"{file}" in ended.stderr and "not a file" in ended.stderr
