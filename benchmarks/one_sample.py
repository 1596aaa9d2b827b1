"""Seconds of CFM from a prepared sample to map and score, and the peak memory of doing it, in a process of its own.

    python -m benchmarks.one_sample --size full

It prints one line of JSON. `anomalib_sample.py` prints the same of anomalib's model.
"""

from __future__ import annotations

import argparse
import json

import torch

from benchmarks.made_up import SIZES, sample, spec
from benchmarks.references import best_matrix_rate
from data_scripts.bench import peak_gb, times
from lib.extractors import get_extractor
from lib.heads.cfm import CFM
from lib.instances import CFM_PAPER
from lib.training import INFERENCE_DTYPES

MB_PER_GB = 1000


def measure(size: str, precision: str, rounds: int) -> dict[str, object]:
    """Seconds of each round after an untimed one, the matrix rate right after, and megabytes at the peak.

    Args:
        size: one of `SIZES`.
        precision: of the networks.
        rounds: at least 1.
    """
    scan, device = sample(), torch.device("cpu")
    pair = get_extractor(spec(size), precision=precision)
    head = CFM(CFM_PAPER, pair.rgb_dim, pair.xyz_dim).at_precision(precision)
    seconds = [times(lambda: head.predict(pair(scan)), device)["seconds"] for _ in range(rounds + 1)]
    peak_mb = MB_PER_GB * peak_gb(device)  # before the products of the rate
    rate = best_matrix_rate(INFERENCE_DTYPES[precision])
    return {"seconds": seconds[1:], "matrix_rate": rate, "peak_mb": peak_mb, "torch": torch.__version__.split("+")[0]}


def main() -> None:
    """Command line: see the module's text."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=tuple(SIZES), default="full")
    parser.add_argument("--precision", choices=tuple(INFERENCE_DTYPES), default="float32")
    parser.add_argument("--rounds", type=int, default=1)
    arguments = parser.parse_args()
    print(json.dumps(measure(arguments.size, arguments.precision, arguments.rounds)))


if __name__ == "__main__":
    main()
