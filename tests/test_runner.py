"""The papermill runner, the progress reader of a study, the import reader, and the packer of the site."""

from __future__ import annotations

import dataclasses
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import nbformat
import psutil
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from data_scripts import make_env, pack_site, run_notebook, study
from data_scripts.study import Failure, Progress, explain_failure, snakemake_command, study_lock, telling_lines
from lib.config import project_root
from lib.errors import InputError
from lib.profiles import MethodSpec
from lib.sources import imported_modules, source_closure

ROOT = project_root()
BAR_CELL = """import sys, time
for done in (0, 50, 100):
    print(f"\\rsteps: {done}%", end="", file=sys.stderr)
print(file=sys.stderr)"""


def write_notebook(path: Path, *sources: str, parameters: str = "count = 2") -> Path:
    """Notebook with a parameters cell, the given code cells, and no kernel named."""
    cells = [new_markdown_cell("# A page"), new_code_cell(parameters, metadata={"tags": ["parameters"]})]
    nbformat.write(new_notebook(cells=cells + [new_code_cell(source) for source in sources]), path)
    return path


def run_command(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "data_scripts/run_notebook.py", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def executed(tmp_path_factory):
    """A notebook run through the command line with a parameter: process and executed notebook."""
    folder = tmp_path_factory.mktemp("runner")
    cells = (BAR_CELL, "import os\nprint(count + 1, os.environ['STUDY_RENDERER'])", "os.getcwd()", "print(part)")
    source = write_notebook(folder / "page.ipynb", *cells, parameters="count = 2\npart = 'none'")
    examples = [word for pair in (("count", "9"), ("part", "lid"), ("unknown", "1")) for word in ("--example", *pair)]
    target = folder / "out" / "page.ipynb"
    process = run_command(source, target, "-p", "count", "3", *examples, "--failed", folder / "failed")
    return process, nbformat.read(folder / "out" / "page.ipynb", as_version=4)


def test_runner_is_silent_and_gives_parameters_to_the_notebook(executed):
    process, notebook = executed
    assert (process.returncode, process.stdout, process.stderr) == (0, "", "")
    assert notebook.cells[4].outputs[0].text == "4 book\n"
    assert notebook.cells[5].outputs[0].data["text/plain"] == repr(str(ROOT))
    assert notebook.cells[6].outputs[0].text == "lid\n"  # an example, where the notebook has the parameter


def test_progress_bar_keeps_its_last_state_only(executed):
    outputs = executed[1].cells[3].outputs
    assert [(output.name, output.text) for output in outputs] == [("stderr", "steps: 100%\n")]


def test_executed_notebook_hides_injected_parameters_and_holds_no_paths_or_times(executed):
    notebook = executed[1]
    assert notebook.cells[2].metadata.tags == ["injected-parameters", "remove-cell"]
    metadata = str([notebook.metadata, *(cell.metadata for cell in notebook.cells)])
    assert "papermill" not in metadata
    assert "time" not in metadata
    assert str(ROOT) not in metadata


def test_failing_cell_gives_a_few_lines_and_leaves_the_old_page_alone(tmp_path):
    source = write_notebook(tmp_path / "page.ipynb", "ratio = count / 0", "print('not reached')")
    target = tmp_path / "out.ipynb"
    target.write_text("old")
    process = run_command(source, target, "--failed", tmp_path / "failed")
    assert process.returncode == 1
    assert process.stderr.splitlines() == [
        f"{source}, cell 3: ZeroDivisionError: division by zero",
        "    ratio = count / 0",
        f"executed as far as it went: {tmp_path / 'failed' / 'page.ipynb'}",
    ]
    assert target.read_text() == "old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["failed", "out.ipynb", "page.ipynb"]


def test_known_noise_of_a_kernel_is_held_back_and_the_rest_is_told(capfd):
    with run_notebook.filtered_stderr():
        os.write(2, b"Bad file descriptor (src/signaler.cpp:318)\nsegmentation fault\n")
    assert capfd.readouterr().err == "segmentation fault\n"


def test_unknown_parameter_is_one_line_that_lists_the_known_ones(tmp_path):
    source = write_notebook(tmp_path / "page.ipynb", parameters="count = 2\nname = 'a'")
    with pytest.raises(InputError, match=r"has no parameter 'cuont'; it has count, name$"):
        run_notebook.run_notebook(source, tmp_path / "out.ipynb", {"cuont": 3}, tmp_path)
    assert not (tmp_path / "out.ipynb").exists()


def test_missing_or_broken_notebook_is_one_line(tmp_path):
    with pytest.raises(InputError, match=r"nowhere\.ipynb does not exist"):
        run_notebook.load_notebook(tmp_path / "nowhere.ipynb")
    (tmp_path / "page.ipynb").write_text("import numpy")
    with pytest.raises(InputError, match="is not a notebook"):
        run_notebook.load_notebook(tmp_path / "page.ipynb")


@pytest.mark.parametrize(("text", "value"), [("3", 3), ("cord", "cord"), ("[a, b]", ["a", "b"]), ("null", None)])
def test_parameter_values_are_read_as_yaml(text, value):
    assert run_notebook.parse_parameter("name", text) == ("name", value)


def test_progress_counts_jobs_and_finds_the_log_of_a_failed_one():
    lines = [
        "Job stats:",
        "study        1",
        "total        3",
        "Job 5: data ring",
        "Finished jobid: 5 (Rule: data)",
        "Job 2: book",
        "Error in rule book:",
        "    message: None",
        "    log: runs/demo/logs/book.log (check log file(s))",
    ]
    progress = Progress()
    assert [shown for line in lines if (shown := progress.read(line))] == ["[1/2] data ring", "[2/2] book"]
    assert progress.failures == [Failure(("runs/demo/logs/book.log",))]


def test_failed_slurm_job_is_told_with_slurms_reason_and_its_first_log_that_says_anything(tmp_path, capsys):
    (tmp_path / "slurm.log").write_text("srun: error: no such node\n")
    lines = [
        "Error in rule data:",
        "    message: SLURM-job '7' failed, SLURM status is: 'TIMEOUT'. Detailed failure reason unavailable (no sacct)."
        "For further error details see the cluster/cloud log and the log files of the involved rule(s).",
        f"    log: data.log, {tmp_path}/slurm.log (check log file(s) for error details)",
    ]
    progress = Progress()
    assert [progress.read(line) for line in lines] == [None] * 3
    explain_failure(tmp_path, tmp_path / "snakemake.log", progress.failures)
    told = capsys.readouterr().err.splitlines()
    assert told[1:4] == [
        f"failed; from {tmp_path}/slurm.log:",
        "  SLURM-job '7' failed, SLURM status is: 'TIMEOUT'.",
        "  srun: error: no such node",
    ]


def test_telling_lines_prefer_named_trouble_to_the_end_of_a_log():
    noise = [f"line {number}" for number in range(90)]
    assert telling_lines("\n".join([*noise[:5], "\x1b[91ma.md:6: WARNING: undefined label\x1b[39;49;00m", *noise])) == [
        "a.md:6: WARNING: undefined label"
    ]
    own = ['InputError in file "Snakefile", line 19:', "method of profile few 'cfm' is unknown; choose one"]
    assert telling_lines("\n".join([*noise[:5], *own, *noise])) == own
    assert telling_lines("\n".join(noise))[-1] == "line 89"
    assert len(telling_lines("\n".join(noise))) < 30


def test_second_run_waits_for_the_first_and_a_kill_frees_the_lock(tmp_path):
    hold = (
        "import sys, time; from pathlib import Path; from data_scripts.study import study_lock\n"
        "with study_lock(Path(sys.argv[1])): print('held', flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", hold, tmp_path], cwd=ROOT, stdout=subprocess.PIPE, text=True) as first:
        assert first.stdout.readline() == "held\n"
        with subprocess.Popen(
            [sys.executable, "-c", hold, tmp_path], cwd=ROOT, stdout=subprocess.PIPE, text=True
        ) as second:
            assert "another run of this study is under way" in second.stdout.readline()
            first.kill()
            assert second.stdout.readline() == "held\n"
            second.kill()
    with study_lock(tmp_path):
        pass


def test_leftovers_are_looked_for_until_none_is_found(tmp_path, monkeypatch, capsys):
    """A runner that is left over may start a job after the first look."""
    started = [subprocess.Popen(["sleep", "600"])]

    def still_there(process, root):
        if process.pid == started[0].pid and len(started) < 2:
            started.append(subprocess.Popen(["sleep", "600"]))
        return process.pid in {job.pid for job in started if job.poll() is None}

    monkeypatch.setattr(study, "is_of_run", still_there)
    study.stop_leftovers(tmp_path)
    assert len(started) == 2 and not any(psutil.pid_exists(job.pid) for job in started)
    assert capsys.readouterr().out.startswith("stopping ")


def test_leftovers_that_do_not_end_are_told(tmp_path, monkeypatch):
    job = subprocess.Popen(["sleep", "600"])
    monkeypatch.setattr(study, "is_of_run", lambda process, root: process.pid == job.pid)
    monkeypatch.setattr(study.psutil.Process, "kill", lambda self: None)
    monkeypatch.setattr(study, "STOPPED_WITHIN_S", 0.1)
    with pytest.raises(InputError, match=f"processes {job.pid} of a run that was killed do not end"):
        study.stop_leftovers(tmp_path)
    job.kill()
    job.wait()


def test_second_setup_of_the_environment_finds_what_the_first_made(tmp_path, monkeypatch):
    calls = []

    def install():
        calls.append("install")
        (tmp_path / ".venv").mkdir(exist_ok=True)
        (tmp_path / ".venv" / "complete").touch()
        return 0

    settings = tmp_path / "constraints.txt"
    settings.touch()
    monkeypatch.setattr(make_env, "ROOT", tmp_path)
    monkeypatch.setattr(make_env, "FOLDER", tmp_path / ".venv")
    monkeypatch.setattr(make_env, "SETTINGS", (settings,))
    monkeypatch.setattr(make_env, "install", install)
    monkeypatch.setattr(sys, "argv", ["make_env.py"])
    assert make_env.main() == make_env.main() == 0 and len(calls) == 1
    later = settings.stat().st_mtime + 10
    os.utime(settings, (later, later))
    assert make_env.main() == 0 and len(calls) == 2


@pytest.mark.parametrize(("profile", "site"), [("demo", "_build/html"), ("eyecandies", "_build/eyecandies/html")])
def test_workflow_is_whole_without_running_it(profile, site):
    command = [*snakemake_command(profile, "1"), "--dry-run", "--forceall", "--printshellcmds"]
    process = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stderr
    assert f"mv runs/{profile}/site/_build/html {site})" in process.stdout
    assembled = "assemble_book.py --profile eyecandies --target runs/eyecandies/book" in process.stdout
    assert assembled == (profile != "demo")
    assert ("--example category CandyCane" in process.stdout) == assembled


def test_every_setting_that_moves_a_methods_numbers_reruns_its_experiments():
    told = (ROOT / "Snakefile").read_text().partition("settings=str([")[2].partition("])")[0]
    places = {"name", "categories", "seeds", "variants", "extractor"}  # they are in the job's inputs and outputs
    fields = {field.name for field in dataclasses.fields(MethodSpec)}
    assert set(re.findall(r"spec\.(\w+)", told)) == fields - places


def test_imports_are_read_from_scripts_and_notebooks(tmp_path):
    assert imported_modules("import a.b, c\nfrom d import e\ndef f():\n    from g.h import i") == {
        "a.b", "c", "d", "d.e", "g.h", "g.h.i",
    }  # fmt: skip
    (tmp_path / "lib" / "deep").mkdir(parents=True)
    files = {"__init__": "", "low": "import os", "high": "from lib import low", "other": "", "deep/__init__": "",
             "deep/leaf": "import lib.high"}  # fmt: skip
    for name, source in files.items():
        (tmp_path / "lib" / f"{name}.py").write_text(source)
    notebook = write_notebook(tmp_path / "page.ipynb", "%matplotlib inline\nfrom lib.deep.leaf import x")
    found = [path.relative_to(tmp_path).as_posix() for path in source_closure([notebook], tmp_path)]
    assert found == ["lib/__init__.py", "lib/deep/__init__.py", "lib/deep/leaf.py", "lib/high.py", "lib/low.py",
                     "page.ipynb"]  # fmt: skip


def test_packed_site_is_the_same_for_the_same_pages(tmp_path):
    (tmp_path / "site" / "sub").mkdir(parents=True)
    (tmp_path / "site" / "index.html").write_text("<p>a</p>")
    (tmp_path / "site" / "sub" / "b.html").write_text("<p>b</p>")
    archives = [tmp_path / "one.zip", tmp_path / "two.zip"]
    for archive in archives:
        pack_site.pack(tmp_path / "site", archive)
    assert archives[0].read_bytes() == archives[1].read_bytes()
    with zipfile.ZipFile(archives[0]) as packed:
        assert packed.namelist() == ["book/index.html", "book/sub/b.html"]


def test_site_over_the_limit_is_not_packed(tmp_path, monkeypatch, capsys):
    (tmp_path / "index.html").write_text("x" * 5000)
    monkeypatch.setattr(pack_site, "LIMIT_MB", 1e-5)
    monkeypatch.setattr(sys, "argv", ["pack_site", str(tmp_path), str(tmp_path / "dist" / "book.zip")])
    assert pack_site.main() == 1
    assert "make the figures smaller" in capsys.readouterr().err
    assert not (tmp_path / "dist" / "book.zip").exists()
