"""Self-supervised training of the embedded point network: masked prediction of local surface shape.

After "3D Feature Prediction for Masked-AutoEncoder-Based Point Cloud Pretraining" (MaskFeat3D, Yan et al., ICLR 2024),
which predicts normals and surface variation instead of coordinates. Ours: slope, curvature and variation at three radii
and the height; mask tokens stay in the one network, without a decoder; visible groups are predicted too; and instead of
learned heads every tapped token itself has to match a fixed code of the targets, since tokens are what is compared.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from tqdm import tqdm

from lib.config import check_positive
from lib.errors import InputError
from lib.extractors.point_mae import POINT_MAE_EMBEDDED, PointMAE, PointMAEConfig
from lib.pretraining import point_views
from lib.pretraining.point_views import SceneViews, TargetScale, code_axes, draw_batch, scene_views, shape_codes
from lib.pretraining.scenes import render_scene
from lib.pretraining.training import adamw, learning_rate_share, store, thinned
from lib.runtime import seeded_generator
from lib.seeding import torch_seed

METHOD = "masked prediction of local surface shape (MaskFeat3D); every tapped token matches a fixed code of it"
CITATION = (
    "Yan, S., et al. 3D Feature Prediction for Masked-AutoEncoder-Based Point Cloud Pretraining. ICLR 2024; network: "
    "Pang, Y., et al. Masked Autoencoders for Point Cloud Self-supervised Learning. ECCV 2022"
)
INITIAL_STD = 0.02  # of linear layers, truncated normal [Point-MAE]


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
    crop_sizes: tuple[int, ...] = (64, 128, 256, 512)
    mask_share: float = 0.1
    learning_rate: float = 1e-3
    warmup_steps: int = 40
    weight_decay: float = 0.05
    gradient_limit: float = 3.0

    def __post_init__(self) -> None:
        check_positive(self, ("num_scenes", "tokens_per_step", "warmup_steps"), whole=True)
        check_positive(self, ("learning_rate", "gradient_limit"))


def small_start(module: nn.Module) -> None:
    """Linear layers start small, as in the released Point-MAE.

    PyTorch's own start makes the position, which is added before every block, drown the shape of the groups.
    """
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=INITIAL_STD)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


class ShapePredictor(nn.Module):
    """The network and its mask token.

    The final norm keeps weight 1 and bias 0: the codes it has to match have mean 0 and deviation 1 as well.
    """

    def __init__(self, config: PointMAEConfig) -> None:
        super().__init__()
        self.network = PointMAE(config)
        self.network.apply(small_start)
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


def render_views(num_scenes: int, config: PointMAEConfig, seed: int, progress: bool) -> list[SceneViews]:
    """Views of freshly rendered scenes; each depends on the seed and its own number only."""
    numbers = tqdm(range(num_scenes), desc="scenes", disable=not progress)
    generators = (seeded_generator("point scenes", seed, number) for number in numbers)
    return [scene_views(render_scene(each), config.num_groups, config.group_size) for each in generators]


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
    with torch_seed(seed):
        model = ShapePredictor(config).to(device).train()
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = adamw(parameters, recipe.learning_rate, recipe.weight_decay)
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
    parameters = sum(parameter.numel() for parameter in network.parameters())
    facts = {
        "architecture": dataclasses.asdict(config) | {"parameters": parameters},
        "method": METHOD,
        "citation": CITATION,
        "recipe": dataclasses.asdict(recipe),
        "views": {name.lower(): value for name, value in vars(point_views).items() if name.isupper()},
        "curve": thinned(losses),
        "seed": seed,
        "steps": steps,
        "seconds": seconds,
    }
    return store(network, Path(output) / f"{config.weights}.safetensors", facts, device)
