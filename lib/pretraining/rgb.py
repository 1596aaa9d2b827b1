"""Self-supervised training of the embedded Vision Transformer: masked prediction of HOG and color.

After MaskFeat (Wei et al., CVPR 2022): random patches are hidden, and a linear readout of the tokens has to tell the
HOG of the clean picture, here with color. Ours: visible patches are predicted too, through disturbed light and noise;
the readout is fixed and orthonormal, and what lies outside of it has to vanish, so that distances between tokens are
distances between predicted descriptors and nothing else; and every depth at which the network may be cut is trained.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from lib.errors import InputError
from lib.extractors.embedded_vit import DIM, NUM_BLOCKS, PATCH_PX, build_embedded_vit
from lib.pretraining import rgb_views
from lib.pretraining.rgb_model import MaskedPredictor, Readout, RgbRecipe, orthonormal_frame, whitening_filters
from lib.pretraining.rgb_views import NUM_DESCRIPTORS, descriptors, disturb, draw_crops, draw_hidden, normalized
from lib.pretraining.scenes import render_scene
from lib.pretraining.training import adamw, learning_rate_share, store, thinned
from lib.runtime import seeded_generator
from lib.seeding import torch_seed

NAME = "embedded_vit"
METHOD = "masked prediction of HOG and color (MaskFeat) through a fixed orthonormal readout"
CITATION = (
    "Wei, C., et al. Masked Feature Prediction for Self-Supervised Visual Pre-Training. CVPR 2022; stem: Xiao, T., et "
    "al. Early Convolutions Help Transformers See Better. NeurIPS 2021"
)
VIEW_SETTINGS = ("OBJECT_SHARE", "WINDOWS_PATCHES", "NUM_ORIENTATIONS", "GAMMA", "EXPOSURE", "TINT", "SHADING", "NOISE")
STATISTICS_CROPS = 256  # for the scales of descriptors and first filters; of 96 px


def render_pictures(num_scenes: int, seed: int, progress: bool) -> tuple[np.ndarray, np.ndarray]:
    """Pictures (N, 224, 224, 3) uint8 and objects (N, 224, 224) bool; each depends on the seed and its number only."""
    numbers = tqdm(range(num_scenes), desc="scenes", disable=not progress)
    scenes = (render_scene(seeded_generator("rgb scenes", seed, number)) for number in numbers)
    pairs = [(scene.rgb, scene.foreground) for scene in scenes]
    return np.stack([rgb for rgb, _ in pairs]), np.stack([foreground for _, foreground in pairs])


def prepare(
    pictures: np.ndarray, objects: np.ndarray, recipe: RgbRecipe, seed: int, num_blocks: int
) -> tuple[MaskedPredictor, Readout]:
    """The network before its first step, its first filters whitened, and the readout.

    Args:
        pictures, objects: from `render_pictures`.
        recipe: settings.
        seed: of the random weights and of the frame.
        num_blocks: depth of the network.
    """
    generator = seeded_generator("rgb statistics", seed)
    with torch_seed(seed):
        depths = [depth for depth in recipe.cut_depths if depth < num_blocks] + [num_blocks]
        model = MaskedPredictor(build_embedded_vit(num_blocks), depths)
    crops = draw_crops(pictures, objects, 96, STATISTICS_CROPS, generator)
    weight, bias = whitening_filters(normalized(crops), recipe.whitening_floor)
    first = model.network.patch_embed.proj[0]
    with torch.no_grad():
        first.weight.copy_(weight)
        first.bias.copy_(bias)
    found = descriptors(crops)
    frame = orthonormal_frame(DIM, NUM_DESCRIPTORS, generator)
    return model, Readout(frame, found.mean(dim=(0, 1)), found.std(dim=(0, 1)), recipe)


def train(
    pictures: np.ndarray,
    objects: np.ndarray,
    recipe: RgbRecipe,
    seed: int,
    steps: int,
    device: str = "cpu",
    progress: bool = False,
    num_blocks: int = NUM_BLOCKS,
) -> tuple[nn.Module, list[list[float]]]:
    """The trained network, in eval mode on the CPU, and for each step the loss at each cut depth.

    Args:
        pictures, objects: from `render_pictures`.
        recipe: settings.
        seed: of the initial weights and of every draw.
        steps: batches.
        device: "cpu" or "cuda".
        progress: show a bar.
        num_blocks: depth of the network.
    """
    model, readout = prepare(pictures, objects, recipe, seed, num_blocks)
    model = model.to(device).train()
    readout = dataclasses.replace(readout, frame=readout.frame.to(device))
    optimizer = adamw(list(model.parameters()), recipe.learning_rate, recipe.weight_decay)
    warmup = max(1, round(recipe.warmup_share * steps))
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: learning_rate_share(step, steps, warmup))
    generator, losses = seeded_generator("rgb training", seed), []
    for step in tqdm(range(steps), desc="training", disable=not progress):
        side_px, num_crops = recipe.crops[step % len(recipe.crops)]
        crops = draw_crops(pictures, objects, side_px, num_crops, generator)
        hidden = draw_hidden(num_crops, (side_px // PATCH_PX) ** 2, recipe.hidden_share, generator)
        outputs = model(normalized(disturb(crops, generator)).to(device), hidden.to(device))
        targets = readout.targets(crops).to(device)
        by_depth = torch.stack([readout.loss(tokens, targets) for tokens in outputs])
        optimizer.zero_grad()
        by_depth.mean().backward()
        nn.utils.clip_grad_norm_(model.parameters(), recipe.gradient_limit)
        optimizer.step()
        schedule.step()
        losses.append(by_depth.tolist())
    return model.network.eval().cpu(), losses


def training_facts(recipe: RgbRecipe, network: nn.Module, losses: Sequence[Sequence[float]]) -> dict[str, Any]:
    """What the card says of network, method, settings and curves.

    Args:
        recipe: settings.
        network: as trained.
        losses: from `train`.
    """
    by_depth = zip(recipe.cut_depths, zip(*losses, strict=True), strict=True)
    return {
        "architecture": {
            "network": "Vision Transformer with convolutional stem and rotary positions (timm Eva)",
            "dim": DIM,
            "blocks": NUM_BLOCKS,
            "patch_px": PATCH_PX,
            "parameters": sum(each.numel() for each in network.parameters()),
        },
        "method": METHOD,
        "citation": CITATION,
        "recipe": dataclasses.asdict(recipe),
        "views": {name.lower(): getattr(rgb_views, name) for name in VIEW_SETTINGS},
        "curve": {f"loss after block {depth}": thinned(curve) for depth, curve in by_depth},
    }


def pretrain(output: Path | str, seed: int, steps: int, device: str = "cpu", progress: bool = True) -> dict:
    """Render, train, and write `embedded_vit.safetensors` (float16) and its card `embedded_vit.json`.

    The same seed and number of steps give the same weights on the same machine with the same number of threads.

    Args:
        output: folder, made if need be.
        seed: of scenes, initial weights and every draw.
        steps: batches.
        device: "cpu" or "cuda".
        progress: show bars.

    Returns:
        The card.

    Raises:
        InputError: fewer than one step.
    """
    if steps < 1:
        raise InputError(f"pretrain: {steps} steps; give at least 1")
    recipe, begin = RgbRecipe(), time.perf_counter()
    pictures, objects = render_pictures(recipe.num_scenes, seed, progress)
    rendered = time.perf_counter()
    network, losses = train(pictures, objects, recipe, seed, steps, device, progress)
    seconds = {"scenes": round(rendered - begin), "training": round(time.perf_counter() - rendered)}
    facts = training_facts(recipe, network, losses) | {"seed": seed, "steps": steps, "seconds": seconds}
    return store(network, Path(output) / f"{NAME}.safetensors", facts, device)
