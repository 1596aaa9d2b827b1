"""What `one_sample.py` prints, of anomalib's CFM, run by a Python that has anomalib and nothing of this project.

    PYTHON_OF_ANOMALIB benchmarks/anomalib_sample.py --input sample.npz

Weights are random, since what they are does not change what they cost. The release, its settings and its resizing are
left as they come; the input has the model's own size already.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import torch
from torch.library import Library

BYTES_OF_PEAK = 1 if sys.platform == "darwin" else 1024
OPERATORS = Library("torchvision", "DEF")


def declare_operators() -> None:
    """Names that torchvision's wheel asks for beside a CPU build of torch; nothing here calls them."""
    try:
        import torchvision  # noqa: F401
    except RuntimeError:
        for name in ("nms", "qnms"):
            OPERATORS.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")


def random_model() -> torch.nn.Module:
    """The model in eval mode without a download."""
    declare_operators()
    import timm

    create = timm.create_model
    timm.create_model = lambda *names, **options: create(*names, **{**options, "pretrained": False})
    from anomalib.models.image.cfm import components
    from anomalib.models.image.cfm.torch_model import CFMModel

    components._resolve_pointmae_weights = lambda _: Path("none")  # a file that is not there means random weights
    torch.manual_seed(0)
    return CFMModel().eval()


def main() -> None:
    """Command line: see the module's text."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--input", type=Path, required=True, help="npz with rgb and cloud, each (1, 3, H, W) float32")
    parser.add_argument("--rounds", type=int, default=1)
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore")
    model = random_model()
    with np.load(arguments.input) as stored:
        rgb, cloud = (torch.from_numpy(stored[name]) for name in ("rgb", "cloud"))
    seconds = []
    with torch.inference_mode():
        for _ in range(arguments.rounds + 1):
            started = time.perf_counter()
            model(rgb, cloud)
            seconds.append(time.perf_counter() - started)
    from importlib.metadata import version

    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * BYTES_OF_PEAK / 1e6
    facts = {"torch": torch.__version__.split("+")[0], "anomalib": version("anomalib")}
    print(json.dumps({"seconds": seconds[1:], "peak_mb": peak_mb, **facts}))


if __name__ == "__main__":
    main()
