"""The road to a cluster without a cluster: command lines, the shipped profile, resources, leftover jobs."""

from __future__ import annotations

import dataclasses
import os
import re
import subprocess
from pathlib import Path

import pytest
import yaml
from snakemake_executor_plugin_slurm import ExecutorSettings

from data_scripts.study import gpu_limit, snakemake_command
from lib import cluster
from lib.cluster import cancel_left_jobs, check_cluster, job_prefix, own_jobs
from lib.config import project_root
from lib.errors import InputError
from lib.gpu_slots import VISIBLE
from lib.profiles import Profile, load_profile, profile_names

ROOT = project_root()
SHIPPED = ROOT / "profiles" / "slurm"
JOBS_OF_TWO_FOLDERS = """#!/bin/sh
[ -e {folder}/canceled ] || echo "11 {prefix}_aa"
echo "12 {other}_bb"
echo "13 a name with blanks"
"""


def write_tool(folder: Path, name: str, text: str) -> None:
    """An executable script in place of one of SLURM's commands."""
    (folder / name).write_text(text)
    (folder / name).chmod(0o755)


def test_local_command_limits_cores_and_gpus() -> None:
    command = " ".join(snakemake_command("mvtec3d", "8", gpus=3))
    assert " study --config profile=mvtec3d --cores 8 --resources gpu=3 --nolock " in command
    assert "slurm" not in command
    assert "--resources" not in snakemake_command("demo", "8")


def test_cluster_command_names_the_profile_and_leaves_limits_to_it() -> None:
    command = snakemake_command("demo", None, cluster=SHIPPED, targets=["a.json", "b.json"])
    assert command[3:7] == ["a.json", "b.json", "--config", "profile=demo"]
    assert command[7:11] == ["--workflow-profile", str(SHIPPED), "--slurm-jobname-prefix", job_prefix(ROOT)]
    assert "--cores" not in command and "--resources" not in command


def test_gpus_at_a_time_are_those_of_the_machine_and_none_are_counted_on_a_cluster(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cuda, cpu = load_profile("mvtec3d"), load_profile("demo")
    monkeypatch.setenv(VISIBLE, "0,2,5")
    assert [gpu_limit(cuda, given, False) for given in (None, 2)] == [3, 2]
    assert [gpu_limit(cuda, given, True) for given in (None, 2)] == [None, 2]
    assert gpu_limit(cpu, None, False) is None
    monkeypatch.setenv(VISIBLE, "")
    assert gpu_limit(cuda, None, False) == 1
    with pytest.raises(InputError, match="--gpus is 0; give at least 1"):
        gpu_limit(cuda, 0, False)


def test_shipped_profile_is_no_study_and_has_only_settings_that_exist() -> None:
    assert "slurm" not in profile_names()
    shipped = yaml.safe_load((SHIPPED / "config.yaml").read_text())
    assert shipped.pop("executor") == "slurm"
    assert shipped.pop("default-resources").keys() == {"mem_mb", "runtime"}
    options = {f"slurm-{field.name.replace('_', '-')}" for field in dataclasses.fields(ExecutorSettings)}
    assert shipped.keys() <= options | {"jobs", "latency-wait"}
    ExecutorSettings(status_command=shipped["slurm-status-command"])  # refuses what it does not know


def test_squeue_still_knows_ended_jobs_at_the_shipped_interval() -> None:
    shipped = yaml.safe_load((SHIPPED / "config.yaml").read_text())
    min_job_age_seconds = 300  # SLURM's own default; the plugin asks sacct where it is under three intervals
    assert 3 * shipped["slurm-init-seconds-before-status-checks"] <= min_job_age_seconds


def asked_of_slurm(folder: Path, profile: Profile, category: str) -> str:
    """What Snakemake gives to sbatch for a category's features, in a folder of its own; sbatch then refuses."""
    tools, work = folder / "tools", folder / "work"
    tools.mkdir()
    write_tool(tools, "sbatch", f'#!/bin/sh\necho "$*" > {folder}/asked\necho full >&2\nexit 1\n')
    for name in ("squeue", "sacct", "sinfo"):
        write_tool(tools, name, "#!/bin/sh\n")
    (work / profile.data_root / category).mkdir(parents=True)
    (work / profile.data_root / category / "manifest.json").write_text("{}")
    for name in ("lib", "data_scripts"):
        (work / name).symlink_to(ROOT / name)
    target = f"runs/{profile.name}/features/{profile.extractor.slug}/{category}.json"
    command = [*snakemake_command(profile.name, None, cluster=SHIPPED, targets=[target]), "--directory", str(work)]
    environment = os.environ | {"PATH": f"{tools}:{os.environ['PATH']}"}
    process = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert "SLURM sbatch failed. The error message was 'full'" in process.stdout + process.stderr
    return (folder / "asked").read_text()


def test_job_of_a_cuda_profile_asks_slurm_for_one_gpu_memory_and_time(tmp_path: Path) -> None:
    asked = asked_of_slurm(tmp_path, load_profile("eyecandies"), "CandyCane")
    assert all(f" {part} " in asked for part in ("--gpus=1", "--mem 32000", "-t 1440", "--cpus-per-task=4"))
    assert f"--job-name {job_prefix(ROOT)}_" in asked


def test_job_of_a_cpu_profile_asks_for_no_gpu(tmp_path: Path) -> None:
    asked = asked_of_slurm(tmp_path, load_profile("demo"), "ring")
    assert "--gpus" not in asked and all(f" {part} " in asked for part in ("--mem 6000", "-t 60", "--ntasks=1"))


def test_machine_without_sbatch_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InputError, match="sbatch is not found, so this machine submits to no SLURM cluster; run on"):
        check_cluster(SHIPPED)
    with pytest.raises(InputError, match=r"holds no config\.yaml of Snakemake"):
        check_cluster(tmp_path)
    write_tool(tmp_path, "sbatch", "")
    check_cluster(SHIPPED)


def test_left_jobs_of_this_folder_are_canceled_and_no_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    names = {"prefix": job_prefix(tmp_path), "other": job_prefix(tmp_path / "other"), "folder": tmp_path}
    write_tool(tmp_path, "squeue", JOBS_OF_TWO_FOLDERS.format(**names))
    write_tool(tmp_path, "scancel", f"#!/bin/sh\necho $@ > {tmp_path}/canceled\n")
    cancel_left_jobs(tmp_path)
    assert (tmp_path / "canceled").read_text() == "11\n"
    assert capsys.readouterr().out == "canceling 1 SLURM jobs left over from a run that was killed\n"


def test_left_jobs_that_do_not_end_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setattr(cluster, "SECONDS_TO_END", 0)
    write_tool(tmp_path, "squeue", f"#!/bin/sh\necho 11 {job_prefix(tmp_path)}_aa\n")
    write_tool(tmp_path, "scancel", "#!/bin/sh\n")
    with pytest.raises(InputError, match="SLURM jobs 11 do not end"):
        cancel_left_jobs(tmp_path)


def test_no_slurm_or_one_that_does_not_answer_has_no_jobs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert own_jobs(tmp_path) == []
    write_tool(tmp_path, "squeue", "#!/bin/sh\nwhile :; do :; done\n")
    monkeypatch.setattr(cluster, "SECONDS_TO_ANSWER", 0.2)
    assert own_jobs(tmp_path) == []


def test_job_names_are_those_slurms_plugin_accepts() -> None:
    assert re.fullmatch(r"[A-Za-z0-9_-]{1,50}", job_prefix(ROOT))
    assert job_prefix(ROOT) != job_prefix(ROOT / "other")
