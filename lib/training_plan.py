"""What a full training of CFM will take before it starts: counted multiplications and bytes, or one measured epoch.

Letters: n pixels of an image on the object, T2, T3 RGB and 3D tokens of an image.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pandas as pd

from lib.datasets import Dataset
from lib.errors import InputError

S_PER_HOUR = 3600
FRAME_PX = 224 * 224
FORWARD_AND_BACK = 3  # a layer's products: once forward; back once for its input and once for its weights
FIRST_LAYER = 2  # nothing is before it, so nothing goes back to its input


@dataclass(frozen=True)
class Sizes:
    """Widths and tokens of the paper's networks.

    Attributes:
        rgb_dim, xyz_dim: channels of DINO ViT-B/8 and Point-MAE [paper sec. 4].
        hidden_dim: half their sum [paper sec. 3.2].
        rgb_tokens, xyz_tokens: T2 = 28 x 28, T3 = 1024 groups [paper sec. 4, released].
    """

    rgb_dim: int = 768
    xyz_dim: int = 1152
    hidden_dim: int = 960
    rgb_tokens: int = 784
    xyz_tokens: int = 1024


@dataclass(frozen=True)
class Device:
    """A GPU as its data sheet describes it, and what of that a training reaches.

    Attributes:
        name: of the card.
        tflops: of half-precision products, at most.
        gb_per_s: of its memory, at most.
        memory_gb: of it.
        reached_tflops, reached_gb_per_s: share of each that we count on [ours, an assumption].
    """

    name: str
    tflops: float
    gb_per_s: float
    memory_gb: int
    reached_tflops: float = 0.4
    reached_gb_per_s: float = 0.7


FREE_GPU = Device("NVIDIA T4", tflops=65.1, gb_per_s=320.0, memory_gb=16)  # what hosted notebooks lend for nothing
PAPER_SIZES = Sizes()


def image_flops(pixels: float, sizes: Sizes = PAPER_SIZES) -> float:
    """Floating-point operations of one image in one epoch, forward and back, with first layers applied to tokens.

    Args:
        pixels: n.
        sizes: of the networks.
    """
    firsts = sizes.rgb_tokens * sizes.rgb_dim + sizes.xyz_tokens * sizes.xyz_dim
    others = 2 * sizes.hidden_dim + sizes.rgb_dim + sizes.xyz_dim
    return 2 * sizes.hidden_dim * (FIRST_LAYER * firsts + FORWARD_AND_BACK * pixels * others)


def image_bytes(pixels: float, sizes: Sizes = PAPER_SIZES, bytes_per_value: int = 2) -> float:
    """Bytes that one image in one epoch moves to and from memory if nothing but the products is fused.

    Of each pixel a hidden layer's values are read or written 21 times and an output's 12 times: mixing, activations,
    products and the loss, forward and back. Tokens, weights and Adam's moments are small beside that.

    Args:
        pixels: n.
        sizes: of the networks.
        bytes_per_value: 2 in half precision, 4 in float32.
    """
    return pixels * (2 * 21 * sizes.hidden_dim + 12 * (sizes.rgb_dim + sizes.xyz_dim)) * bytes_per_value


def image_seconds(pixels: float, device: Device, sizes: Sizes = PAPER_SIZES) -> float:
    """Seconds of one image in one epoch: the products' and, as if nothing overlapped, the memory's."""
    products = image_flops(pixels, sizes) / (1e12 * device.tflops * device.reached_tflops)
    return products + image_bytes(pixels, sizes) / (1e9 * device.gb_per_s * device.reached_gb_per_s)


def counted_plan(dataset: Dataset, num_epochs: int, device: Device, shares: tuple[float, ...]) -> pd.DataFrame:
    """Hours of CFM's training by category and in all, one column for each share of the frame on the object.

    Args:
        dataset: whose training samples are counted.
        num_epochs: of each category.
        device: that trains.
        shares: of the 224 x 224 pixels; the dataset's are not known before it is there.
    """
    columns = {}
    for share in shares:
        per_image = image_seconds(share * FRAME_PX, device) * num_epochs / S_PER_HOUR
        columns[share] = {category: counts.train * per_image for category, counts in dataset.counts.items()}
    table = pd.DataFrame(columns)
    table.columns = [f"{share:.0%} of the frame, h" for share in shares]
    table.loc["all"] = table.sum()
    return table


def measured_plan(samples: Mapping[str, int], num_epochs: int, seconds_per_sample: float) -> pd.DataFrame:
    """Hours of each category from one measured epoch, and the clock when it ends if they follow one another.

    Args:
        samples: training samples of each category.
        num_epochs: of each category.
        seconds_per_sample: of the measured epoch.
    """
    hours = {name: number * num_epochs * seconds_per_sample / S_PER_HOUR for name, number in samples.items()}
    table = pd.DataFrame({"training samples": samples, "hours": hours})
    table["done after, h"] = table["hours"].cumsum()
    return table


def sessions(hours: Mapping[str, float], limit_h: float) -> pd.DataFrame:
    """Which session of limited length trains what: categories follow one another, and a cut-off one is taken up again.

    Args:
        hours: of each category, in order.
        limit_h: of a session.

    Raises:
        InputError: the limit is not positive.
    """
    if limit_h <= 0:
        raise InputError(f"sessions: the limit is {limit_h} hours; give a positive number")
    rows, begun = {}, 0.0
    for category, needed in hours.items():
        first, last = int(begun // limit_h) + 1, int(max(begun + needed - 1e-9, 0) // limit_h) + 1
        rows[category] = {"hours": needed, "from session": first, "to session": last}
        begun += needed
    return pd.DataFrame.from_dict(rows, orient="index")
