"""Train an embedded network from nothing on procedural scenes, and write its weights and card.

Examples: OMP_NUM_THREADS=1 python data_scripts/pretrain.py rgb
          python data_scripts/pretrain.py xyz --device cuda --output runs/pretrain
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from lib.errors import run_command_line

# Batches of the stored weights: on one processor core at most 40 minutes, scenes included.
STEPS = {"rgb": 3600, "xyz": 2000}
SEED = 0


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """Command line: which network, and how and where to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("network", choices=tuple(STEPS), help="the embedded ViT (rgb) or point network (xyz)")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"), help="where it is trained (default: cpu)")
    parser.add_argument("--steps", type=int, help=f"batches (default: {STEPS})")
    parser.add_argument("--seed", type=int, default=SEED, help=f"of everything drawn (default: {SEED})")
    parser.add_argument(
        "--output", type=Path, default=Path("runs/pretrain"), help="folder of weights and card (default: runs/pretrain)"
    )
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> None:
    """Train and print the folder, the seconds and the hash; `InputError` for less than one step."""
    chosen = parse_arguments(arguments)
    if chosen.network == "rgb":
        from lib.pretraining.rgb import pretrain
    else:
        from lib.pretraining.xyz import pretrain
    steps = STEPS[chosen.network] if chosen.steps is None else chosen.steps
    card = pretrain(chosen.output, chosen.seed, steps, chosen.device, progress=sys.stderr.isatty())
    print(f"{card['name']} in {chosen.output}: {card['seconds']} seconds, sha256 {card['sha256']}")


if __name__ == "__main__":
    sys.exit(run_command_line(main))
