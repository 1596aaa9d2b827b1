"""The house rules that a machine can hold: floors of `lib`, notebooks, pins, texts."""

from __future__ import annotations

import ast
import json
import re
import tomllib
from graphlib import TopologicalSorter
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

import lib
from data_scripts.assemble_book import ROOT_PAGE
from lib.config import project_root
from lib.profiles import load_profile

ROOT = project_root()
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))

# Imports go down a floor or stay on it, never up, and never in a circle. A new module gets its entry here.
FLOORS = {
    0: (
        "errors", "config", "methods", "instances", "profiles", "runtime", "sources", "downloads", "archives",
        "datasets", "parallel", "seeding", "gpu_slots", "cluster",
    ),
    1: (
        "reading", "training", "clouds", "neighbors", "grids", "losses", "sampling", "bank_search", "coreset", "fifo",
        "pixel_metrics", "operating_points", "metrics", "ader_metrics", "resampled_metrics", "bootstrap",
    ),
    2: (
        "decoding", "data", "preparation", "features", "patches", "pixel_mean", "synth3d", "records", "comparisons",
        "published", "published_checks",
        "toy", "prepared_copy", "eyecandies", "dataset_check", "camera", "own_scans", "real_costs", "training_plan",
    ),
    3: ("extractors",),
    4: ("heads",),
    5: (
        "pretraining", "token_sharing", "feature_store", "head_choice", "stored_heads", "experiment", "extraction_cost",
        "predictor", "killed_training",
    ),
    6: (
        "figures", "feature_pictures", "adaptation_pictures", "tables", "ablation_tables", "side_by_side",
        "side_figures", "part_figures", "threshold_slider", "training_tables", "few_shot", "notebooks",
        "audit_tables", "run_to_run", "published_figures", "verdicts", "record_check", "speed_tables",
    ),
}  # fmt: skip
FLOOR = {name: floor for floor, names in FLOORS.items() for name in names}
MACHINE_TRACES = [
    "/" + "work/", "/" + "root/", "/" + "home/", "/" + "Users/", "/" + "opt/", "/tmp/" + "lab", "+" + "cpu",
    "file:" + "//", "C:" + "\\",
]  # fmt: skip
LARGEST_FILE_MB = 20


def module_name(path: Path) -> str:
    """Dotted name of a file under `lib`."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in sorted((ROOT / "lib").rglob("*.py"))}


def imports_of(path: Path) -> set[str]:
    """Modules of `lib` that a file imports; `from package import module` is an import of the module."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} has a relative import; write it from lib"
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name if name in MODULES else str(node.module) for name in names}
    return found & MODULES.keys()


def project_files() -> list[Path]:
    """Files of the checkout that .gitignore does not name."""
    ignored = [line for line in (ROOT / ".gitignore").read_text().splitlines() if line and not line.startswith("#")]
    rooted = {line.strip("/") for line in ignored if line.startswith("/")} | {".git"}
    anywhere = {line.strip("/").lstrip("*") for line in ignored if not line.startswith("/")}

    def is_kept(path: Path) -> bool:
        relative = path.relative_to(ROOT)
        heads = {"/".join(relative.parts[: depth + 1]) for depth in range(len(relative.parts))}
        return not heads & rooted and not any(part.endswith(name) for part in relative.parts for name in anywhere)

    tops = [path for path in ROOT.iterdir() if is_kept(path)]  # not into .venv, which holds tens of thousands
    return sorted(path for top in tops for path in (top, *top.rglob("*")) if path.is_file() and is_kept(path))


FILES = project_files()


def code_cells(notebook: Path) -> list[dict]:
    return [cell for cell in json.loads(notebook.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == "code"]


def cell_source(cell: dict) -> str:
    return "".join(cell["source"])


def test_lib_is_this_checkouts():
    assert Path(lib.__file__).parent == ROOT / "lib", "another project's lib is installed: run the tests from .venv"


def test_every_module_has_a_floor_and_every_floor_its_modules():
    assert {name.split(".")[1] for name in MODULES if "." in name} == FLOOR.keys()


@pytest.mark.parametrize("name", [name for name in MODULES if "." in name])
def test_imports_never_go_up(name):
    floor = FLOOR[name.split(".")[1]]
    up = [other for other in imports_of(MODULES[name]) if "." in other and FLOOR[other.split(".")[1]] > floor]
    assert up == []


def test_imports_have_no_circle():
    order = TopologicalSorter({name: imports_of(path) for name, path in MODULES.items()})
    assert len(list(order.static_order())) == len(MODULES)


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
class TestNotebook:
    def test_stores_no_outputs(self, notebook):
        for cell in code_cells(notebook):
            assert cell["outputs"] == []
            assert cell["execution_count"] is None

    def test_has_one_parameters_cell_of_at_most_six_names(self, notebook):
        tagged = [cell for cell in code_cells(notebook) if "parameters" in cell["metadata"].get("tags", [])]
        assert len(tagged) == 1
        body = ast.parse(cell_source(tagged[0])).body
        assert 1 <= len(body) <= 6
        assert all(isinstance(node, ast.Assign) for node in body)

    def test_defines_nothing(self, notebook):
        for cell in code_cells(notebook):
            for node in ast.walk(ast.parse(cell_source(cell))):
                assert not isinstance(node, ast.ClassDef)
                if isinstance(node, ast.FunctionDef):
                    assert node.end_lineno - node.lineno < 5, f"{node.name} belongs into lib"

    def test_cells_are_short_and_know_no_machine(self, notebook):
        for cell in code_cells(notebook):
            source = cell_source(cell)
            assert len(source.splitlines()) <= 15, source
            assert not re.search(r"sys\.path|^\s*[!%]|[\"'](/|~|[A-Z]:\\)", source, re.MULTILINE), source

    def test_begins_with_its_title(self, notebook):
        first = json.loads(notebook.read_text(encoding="utf-8"))["cells"][0]
        assert first["cell_type"] == "markdown"
        assert cell_source(first).startswith("# ")

    def test_has_two_exercises_with_folded_solutions(self, notebook):
        cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
        text = "\n\n".join(cell_source(cell) for cell in cells if cell["cell_type"] == "markdown")
        exercises = re.findall(r"^```\{exercise\}.*\n:label: (\S+)$", text, re.MULTILINE)
        folded = re.findall(r"^```\{solution\} (\S+)\n:class: dropdown\n\S", text, re.MULTILINE)
        assert exercises == folded
        assert len(set(exercises)) == len(exercises) >= 2

    def test_is_a_chapter_of_profile_and_contents(self, notebook):
        assert notebook.stem in load_profile("demo").chapters
        assert f"chapters/{notebook.stem}" in toc_files()


def toc_files() -> list[str]:
    """Pages of the table of contents in reading order."""
    return re.findall(r"(?:file|root):\s*(\S+)", (ROOT / "book" / "_toc.yml").read_text(encoding="utf-8"))


def test_contents_name_exactly_the_chapters_and_pages_there_are():
    files = toc_files()
    assert [name.removeprefix("chapters/") for name in files if name.startswith("chapters/")] == list(
        load_profile("demo").chapters
    )
    pages = {path.stem for path in (ROOT / "book").glob("*.md")}
    assert {*(name for name in files if "/" not in name), ROOT_PAGE} == pages


def test_environment_names_no_version_but_pythons():
    dependencies = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    plain = [entry for entry in dependencies if isinstance(entry, str)]
    (pip,) = [entry["pip"] for entry in dependencies if isinstance(entry, dict)]
    assert [entry for entry in plain if re.search(r"\d", entry)] == ["python=3.11"]
    assert pip == ["-c constraints.txt", "-e .[book,cluster,lab,dev]"]


def test_constraints_are_exact_public_and_meet_every_range():
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    assert [line for line in lines if not re.fullmatch(r"[\w.-]+==[0-9][\w.]*", line)] == []
    versions = {canonical(name): version for name, version in (line.split("==") for line in lines)}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert canonical(project["name"]) not in versions
    wanted = project["dependencies"] + [line for extra in project["optional-dependencies"].values() for line in extra]
    for requirement in map(Requirement, wanted):
        assert versions[canonical(requirement.name)] in requirement.specifier, requirement


def canonical(name: str) -> str:
    """Package name as indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def test_versions_agree():
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text())["version"] == version
    assert f"## {version}" in (ROOT / "CHANGELOG.md").read_text()


def test_readme_names_both_commands():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert "make book" in readme
    assert "make test" in readme


def test_readme_quotes_the_expected_number():
    expected = json.loads((ROOT / "results" / "demo" / "expected.json").read_text(encoding="utf-8"))
    text = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
    assert f"mean image AUROC of {expected['I-AUROC']:.3f} for the CFM product" in text


def test_ci_runs_exactly_the_two_commands():
    lines = (ROOT / ".ci" / "run").read_text().splitlines()
    assert [line for line in lines if line.startswith("make")] == ["make test", "make book"]
    assert (ROOT / ".ci" / "run").stat().st_mode & 0o111


def test_no_file_is_large():
    assert [path for path in FILES if path.stat().st_size > LARGEST_FILE_MB * 1e6] == []


def test_no_text_knows_the_machine_it_was_written_on():
    found = []
    for path in FILES:
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        found += [f"{path.relative_to(ROOT)}: {trace}" for trace in MACHINE_TRACES if trace in text]
    assert found == []
