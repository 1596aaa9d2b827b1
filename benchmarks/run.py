"""Run all speed benchmarks, print the table of ratios, and write the record: `make bench`.

    python -m benchmarks.run --threads 2
    python -m benchmarks.run --anomalib .venv-anomalib/bin/python --output results/bench/speed_cpu.json

Anomalib is measured where a Python that has it is named. A missed bar is told, it is no error.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from tqdm.auto import tqdm

from benchmarks.made_up import SIZES, sample
from lib.config import project_root
from lib.errors import InputError, run_command_line
from lib.runtime import atomic_path, cpu_name, git_commit
from lib.speed_tables import over_floor

TURNS = 3  # of each program, in turn, so that a machine that slows down slows all
TAIL = 3000  # letters of a failed program's report that are shown

Facts = dict[str, Any]


@dataclass(frozen=True)
class Bar:
    """A ratio, and what it must not exceed or fall below.

    Attributes:
        name: what is compared.
        ratio: measured.
        limit: of the ratio.
        at_least: True where the ratio must not be smaller than the limit, False where not larger.
    """

    name: str
    ratio: float
    limit: float
    at_least: bool = False

    @property
    def is_met(self) -> bool:
        """Whether the ratio is on the right side."""
        return self.ratio >= self.limit if self.at_least else self.ratio <= self.limit

    @property
    def line(self) -> str:
        """One line of the table."""
        side = "at least" if self.at_least else "at most"
        return f"{self.name:66}{self.ratio:8.2f}   {side:8} {self.limit:<5g}{'met' if self.is_met else 'MISSED'}"


def run_program(command: Sequence[str], threads: int) -> str:
    """What a program prints, run with so many threads; `InputError` with the end of its report where it fails."""
    surroundings = {"cwd": project_root(), "env": {**os.environ, "OMP_NUM_THREADS": str(threads)}}
    process = subprocess.run(command, capture_output=True, text=True, check=False, **surroundings)
    if process.returncode:
        report = (process.stdout + process.stderr).strip()[-TAIL:]
        raise InputError(f"{' '.join(command[:3])} failed; the end of its report:\n{report}")
    return process.stdout


def run_json(command: Sequence[str], threads: int) -> Facts:
    """The last line that a program prints, read as JSON."""
    return json.loads(run_program(command, threads).strip().splitlines()[-1])


def timed_parts(threads: int) -> dict[str, Facts]:
    """Median, quartiles, rounds and notes of each benchmark of this folder, by name."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "report.json"
        run_program([sys.executable, "-m", "pytest", "-q", "benchmarks", f"--benchmark-json={path}"], threads)
        found = json.loads(path.read_text(encoding="utf-8"))["benchmarks"]
    kept = ("median", "q1", "q3", "rounds")
    return {
        entry["name"].removeprefix("test_"): {name: entry["stats"][name] for name in kept} | entry["extra_info"]
        for entry in found
    }


def whole_samples(threads: int, has_bf16: bool, anomalib: str | None) -> dict[str, Facts]:
    """Seconds and peak memory of a sample by program, the programs taking turns; ours also at CFM's smaller sizes."""
    program = [sys.executable, "-m", "benchmarks.one_sample"]
    programs = {size: [*program, "--size", size] for size in SIZES}
    if has_bf16:
        programs["bf16"] = [*program, "--precision", "bf16"]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "sample.npz"
        np.savez(path, rgb=sample().rgb[None].numpy(), cloud=sample().cloud[None].numpy())
        if anomalib:
            programs["anomalib"] = [anomalib, "benchmarks/anomalib_sample.py", "--input", str(path)]
        order = [name for _ in range(TURNS) for name in programs]
        turns = [(name, run_json(programs[name], threads)) for name in tqdm(order, desc="whole samples")]
    return {name: merged([facts for of, facts in turns if of == name]) for name in programs}


def merged(turns: Sequence[Facts]) -> Facts:
    """One entry of several turns: seconds and matrix rates of each turn, the largest peak, other facts as they are."""
    seconds = [median(turn["seconds"]) for turn in turns]
    rates = [turn["matrix_rate"] for turn in turns if "matrix_rate" in turn]
    return {**turns[0], "seconds": seconds, "matrix_rate": rates, "peak_mb": max(turn["peak_mb"] for turn in turns)}


def paired_ratio(first: Facts, second: Facts) -> float:
    """Median over turns of one program's seconds over another's."""
    return median(a / b for a, b in zip(first["seconds"], second["seconds"], strict=True))


def bars(parts: Mapping[str, Facts], samples: Mapping[str, Facts]) -> list[Bar]:
    """Every ratio that can be had from what was measured.

    Args:
        parts: from `timed_parts`.
        samples: from `whole_samples`.
    """
    seconds = {name: entry["median"] for name, entry in parts.items()}
    full = samples["full"]
    found = [Bar("whole sample, seconds over the arithmetic floor", over_floor(parts, full), 1.4)]
    if anomalib := samples.get("anomalib"):
        found.append(Bar("whole sample, anomalib's seconds over ours", paired_ratio(anomalib, full), 2.7, True))
        if "bf16" in samples:
            gain = paired_ratio(anomalib, samples["bf16"])
            found.append(Bar("whole sample, anomalib's seconds over ours in bf16", gain, 8.0, True))
        found.append(Bar("whole sample, our peak memory over anomalib's", full["peak_mb"] / anomalib["peak_mb"], 0.5))
    for smaller, larger in pairwise(reversed(SIZES)):
        ratio = paired_ratio(samples[smaller], samples[larger])
        found.append(Bar(f"CFM {smaller} over {larger}, seconds", ratio, 1.0))
    for name, reference, text, limit in (
        ("coreset", "coreset_cached_norms", "greedy coreset, exact picks, over the loop with cached norms", 1.2),
        ("bank", "bank_faiss", "nearest bank rows over faiss's flat index", 1.3),
        ("aupro", "aupro_sort_and_label", "exact AUPRO at four limits over sorting and labelling", 4.0),
    ):
        if reference in seconds:
            found.append(Bar(text, seconds[name] / seconds[reference], limit))
    return found


def parse_arguments(given: list[str] | None = None) -> argparse.Namespace:
    """Command line; `InputError` for threads below 1 or a Python that is not there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="of the processor (default: all)")
    parser.add_argument("--anomalib", help="a Python that has anomalib")
    parser.add_argument("--output", type=Path, default=Path("runs/bench/speed_cpu.json"))
    arguments = parser.parse_args(given)
    if arguments.threads < 1:
        raise InputError(f"--threads is {arguments.threads}; give at least 1")
    if arguments.anomalib and not Path(arguments.anomalib).exists():
        raise InputError(f"--anomalib {arguments.anomalib} is not there; `make anomalib` installs .venv-anomalib")
    return arguments


def main(given: list[str] | None = None) -> int:
    """Measure, print, write; 0 whether or not the bars are met."""
    arguments = parse_arguments(given)
    threads = arguments.threads
    print("stages, parts and their references (the longest step, some minutes)", flush=True)
    parts = timed_parts(threads)
    has_bf16 = "attention[bf16]" in parts
    samples = whole_samples(threads, has_bf16, arguments.anomalib)
    print("growth with samples, rows, pixels and groups", flush=True)
    growth = run_json([sys.executable, "-m", "benchmarks.growth"], threads)
    found = bars(parts, samples)
    record = {
        "machine": cpu_name(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "threads": threads,
        "torch": torch.__version__.split("+")[0],
        "commit": git_commit(project_root()),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "has_bf16": has_bf16,
        "parts": parts,
        "samples": samples,
        "growth": growth,
        "bars": [{**asdict(bar), "is_met": bar.is_met} for bar in found],
    }
    path = project_root() / arguments.output
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    print(*(bar.line for bar in found), f"written to {path}", sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(run_command_line(main))
