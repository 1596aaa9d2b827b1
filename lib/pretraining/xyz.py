"""Self-supervised training of the embedded point network: masked prediction of local surface shape.

After "3D Feature Prediction for Masked-AutoEncoder-Based Point Cloud Pretraining" (MaskFeat3D, Yan et al., ICLR 2024),
which predicts normals and surface variation instead of coordinates. Ours: slope, curvature and variation at three radii
and the height; mask tokens stay in the one network, without a decoder; visible groups are predicted too; and every
tapped block is read by a linear head through noise, so that what can be read fills the tokens.
"""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional
from tqdm import tqdm

from lib.config import check_positive
from lib.errors import InputError
from lib.extractors.point_mae import POINT_MAE_EMBEDDED, PointMAE, PointMAEConfig
from lib.pretraining import point_views
from lib.pretraining.families import FAMILIES
from lib.pretraining.point_views import SceneViews, draw_batch, scene_views
from lib.pretraining.scenes import render_scene
from lib.runtime import atomic_path, cpu_name, file_sha256, seeded_generator

METHOD = "masked prediction of local surface shape (MaskFeat3D), all groups predicted through noise"
CITATION = (
    "Yan, S., et al. 3D Feature Prediction for Masked-AutoEncoder-Based Point Cloud Pretraining. ICLR 2024; network: "
    "Pang, Y., et al. Masked Autoencoders for Point Cloud Self-supervised Learning. ECCV 2022"
)
HEIGHT_UNIT_M = 0.003  # about one standard deviation of a scene's heights
TARGET_LIMIT = 3.0  # standard deviations; steep rims would rule the loss
CODE_CONSTANT = 3.0  # about the length of ten targets of deviation 1


@dataclass(frozen=True)
class XyzRecipe:
    """Settings of the training (all ours).

    Attributes:
        num_scenes: objects rendered; each is seen many times, cropped and turned.
        tokens_per_step: groups of a batch.
        crop_sizes: groups of a crop, drawn for each batch; the largest is a whole object, as in use.
        mask_share: share of the groups whose token is replaced.
        learning_rate: peak of a cosine schedule.
        warmup_steps: of linear rise before it.
        weight_decay: of AdamW, on matrices.
        gradient_limit: largest norm of the gradient.
    """

    num_scenes: int = 400
    tokens_per_step: int = 512
    crop_sizes: tuple[int, ...] = (128, 256, 512)
    mask_share: float = 0.2
    learning_rate: float = 1e-3
    warmup_steps: int = 40
    weight_decay: float = 0.05
    gradient_limit: float = 3.0

    def __post_init__(self) -> None:
        check_positive(self, ("num_scenes", "tokens_per_step", "warmup_steps"), whole=True)
        check_positive(self, ("learning_rate", "gradient_limit"))


class ShapePredictor(nn.Module):
    """The network and its mask token.

    The final norm keeps weight 1 and bias 0: the codes it has to match have mean 0 and deviation 1 as well.
    """

    def __init__(self, config: PointMAEConfig) -> None:
        super().__init__()
        self.network = PointMAE(config)
        self.network.norm.requires_grad_(False)
        self.mask_token = nn.Parameter(torch.zeros(config.dim))

    def forward(self, groups: Tensor, centers: Tensor, masked: Tensor) -> Tensor:
        """Tapped tokens (taps, B, G, D) float32, each through the final norm, as they are read later.

        Args:
            groups: (B, G, K, 3) float32, metres.
            centers: (B, G, 3) float32, metres.
            masked: (B, G) bool, True where the group is hidden.
        """
        with torch.autocast(groups.device.type, torch.bfloat16):  # twice as fast; the blocks gain nothing from it
            tokens = self.network.embed(groups)
        tokens = torch.where(masked[..., None], self.mask_token, tokens.float())
        outputs = self.network.block_tokens(tokens, self.network.embed_positions(centers))
        return torch.stack([self.network.norm(outputs[tap]) for tap in self.network.config.taps])


def code_axes(num_axes: int, dim: int, generator: np.random.Generator) -> Tensor:
    """(num_axes, dim) float32 random orthonormal rows whose entries sum to zero, as a normalized token's do.

    Args:
        num_axes: less than dim.
        dim: of a token.
        generator: source of randomness.
    """
    columns = np.concatenate([np.ones((dim, 1)), generator.standard_normal((dim, num_axes))], axis=1)
    return torch.from_numpy(np.linalg.qr(columns)[0][:, 1:].T.astype(np.float32))


def shape_codes(targets: Tensor, axes: Tensor) -> Tensor:
    """(..., D) float32 of mean 0 and deviation 1: where a token of these targets should lie.

    A norm leaves a token's direction only, so a constant is put beside the targets: directions about it are nearly
    linear in them. What the targets do not say has no place in a code, and is unlearnt.

    Args:
        targets: (..., T) float32.
        axes: (T + 1, D) float32 from `code_axes`.
    """
    constant = torch.full_like(targets[..., :1], CODE_CONSTANT)
    return functional.normalize(torch.cat([targets, constant], dim=-1), dim=-1) @ axes * axes.shape[1] ** 0.5


@dataclass(frozen=True, eq=False)
class TargetScale:
    """Mean and standard deviation of each shape target, (T,) float32, over all scenes."""

    mean: Tensor
    std: Tensor

    @classmethod
    def fit(cls, scenes: Sequence[SceneViews]) -> TargetScale:
        """Statistics over all groups of the scenes."""
        shape = torch.cat([scene.shape for scene in scenes])
        return cls(shape.mean(dim=0), shape.std(dim=0))

    def targets(self, shape: Tensor, centers: Tensor) -> Tensor:
        """(B, G, T + 1) float32: scaled shape, and depth under the crop's mean in `HEIGHT_UNIT_M`; both limited."""
        depth = centers[..., 2:] - centers[..., 2:].mean(dim=1, keepdim=True)
        columns = torch.cat([(shape - self.mean) / self.std, depth / HEIGHT_UNIT_M], dim=-1)
        return columns.clamp(-TARGET_LIMIT, TARGET_LIMIT)


def render_views(num_scenes: int, config: PointMAEConfig, seed: int, progress: bool) -> list[SceneViews]:
    """Views of freshly rendered scenes; each depends on the seed and its own number only."""
    numbers = tqdm(range(num_scenes), desc="scenes", disable=not progress)
    generators = (seeded_generator("point scenes", seed, number) for number in numbers)
    return [scene_views(render_scene(each), config.num_groups, config.group_size) for each in generators]


def learning_rate_share(step: int, num_steps: int, warmup_steps: int) -> float:
    """Linear rise, then half a cosine to zero; step counts from 0."""
    return min(1.0, (step + 1) / warmup_steps) * (0.5 + 0.5 * np.cos(np.pi * step / num_steps))


def train(
    scenes: Sequence[SceneViews],
    config: PointMAEConfig,
    recipe: XyzRecipe,
    seed: int,
    steps: int,
    device: str,
    progress: bool,
) -> tuple[PointMAE, list[float]]:
    """The trained network, in eval mode on the CPU, and the loss of every step.

    Args:
        scenes: from `render_views`.
        config: of the network.
        recipe: settings.
        seed: of the initial weights and of every draw.
        steps: batches.
        device: "cpu" or "cuda".
        progress: show a bar.
    """
    generator = seeded_generator("point training", seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = ShapePredictor(config).to(device).train()
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    matrices = [parameter for parameter in parameters if parameter.ndim > 1]
    rest = [parameter for parameter in parameters if parameter.ndim <= 1]
    optimizer = torch.optim.AdamW(
        [{"params": matrices, "weight_decay": recipe.weight_decay}, {"params": rest, "weight_decay": 0.0}],
        lr=recipe.learning_rate,
        betas=(0.9, 0.98),
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: learning_rate_share(step, steps, recipe.warmup_steps)
    )
    scale, losses = TargetScale.fit(scenes), []
    axes = code_axes(scenes[0].shape.shape[1] + 2, config.dim, generator)
    for _ in tqdm(range(steps), desc="training", disable=not progress):
        groups, centers, shape = draw_batch(scenes, recipe.tokens_per_step, recipe.crop_sizes, generator)
        masked = torch.from_numpy(generator.random(groups.shape[:2]) < recipe.mask_share)
        tokens = model(*(tensor.to(device) for tensor in (groups, centers, masked)))
        codes = shape_codes(scale.targets(shape, centers), axes).to(device)
        loss = (tokens - codes).square().mean()
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, recipe.gradient_limit)
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
    return model.network.requires_grad_(True).eval().cpu(), losses


def thinned(losses: Sequence[float], num_points: int = 200) -> list[float]:
    """At most `num_points` means of equally long stretches of the curve, rounded to 4 digits."""
    stretches = np.array_split(np.asarray(losses), min(num_points, len(losses)))
    return [round(float(stretch.mean()), 4) for stretch in stretches]


def halved(tensor: Tensor) -> Tensor:
    """The tensor in float16; counters stay whole numbers."""
    return tensor.half().contiguous() if tensor.is_floating_point() else tensor


def pretrain(output: Path | str, seed: int, steps: int, device: str = "cpu", progress: bool = True) -> dict:
    """Render, train, and write `embedded_point.safetensors` (float16) and its card `embedded_point.json`.

    The same seed and number of steps give the same weights on the same machine.

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
    config, recipe, begin = POINT_MAE_EMBEDDED, XyzRecipe(), time.perf_counter()
    scenes = render_views(recipe.num_scenes, config, seed, progress)
    rendered = time.perf_counter()
    network, losses = train(scenes, config, recipe, seed, steps, device, progress)
    seconds = {"scenes": round(rendered - begin), "training": round(time.perf_counter() - rendered)}
    path = Path(output) / f"{config.weights}.safetensors"
    with atomic_path(path) as temporary:
        save_file({name: halved(value) for name, value in network.state_dict().items()}, temporary)
    card = {
        "name": config.weights,
        "architecture": dataclasses.asdict(config) | {"parameters": sum(each.numel() for each in network.parameters())},
        "method": METHOD,
        "citation": CITATION,
        "families": list(FAMILIES),
        "recipe": dataclasses.asdict(recipe),
        "views": {name: value for name, value in vars(point_views).items() if name.isupper()},
        "seed": seed,
        "steps": steps,
        "curve": thinned(losses),
        "seconds": seconds,
        "machine": torch.cuda.get_device_name() if device == "cuda" else cpu_name(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__.split("+")[0],
        "date": datetime.now(UTC).date().isoformat(),
        "sha256": file_sha256(path),
        "licence": "MIT",
    }
    with atomic_path(path.with_suffix(".json")) as temporary:
        temporary.write_text(json.dumps(card, indent=1) + "\n", encoding="utf-8")
    return card
