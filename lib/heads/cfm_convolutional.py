"""CFM with convolutional encoder-decoders on maps in place of networks on single pixels (CFM suppl. B, Table 9).

Letters: B images of a step, C channels, h cells along a side, H W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from lib.config import check_choice, check_positive
from lib.errors import InputError
from lib.features import Features
from lib.grids import bilinear_resize
from lib.heads import Prediction
from lib.heads.cfm import DIRECTIONS, combine
from lib.heads.cfm_training import add_means, make_scheduler
from lib.heads.checkpoints import Checkpoint, Curves, Draws
from lib.heads.epochs import Epochs
from lib.heads.state import State, joined, part_of
from lib.losses import cosine_distance, unit_distance
from lib.methods import AGGREGATIONS, CFM_VARIANTS, MethodSettings
from lib.patches import fill_cells
from lib.training import DEFAULT_SETUP, TrainingSetup, take_step

POOLINGS = 2  # the side of the maps must divide by 2 to this power


@dataclass(frozen=True)
class ConvolutionalConfig(MethodSettings):
    """Settings of the convolutional mapping networks.

    Attributes:
        grid_side: cells along each axis of the maps [ours: the RGB tokens' grid; the paper does not say].
        learning_rate, num_epochs, batch_size, schedule: as for `lib.methods.CFMConfig`; 50 epochs [paper, Table 9].
    """

    head_class = "lib.heads.cfm_convolutional:ConvolutionalCFM"
    trains = True
    variants = AGGREGATIONS

    grid_side: int = 28
    learning_rate: float = 1e-3
    num_epochs: int = 50
    batch_size: int = 4
    schedule: str = "constant"

    def __post_init__(self) -> None:
        check_choice("schedule", self.schedule, ("constant", "one_cycle"))
        check_positive(self, ("grid_side", "num_epochs", "batch_size"), whole=True)
        check_positive(self, ("learning_rate",))
        if self.grid_side % 2**POOLINGS:
            raise InputError(
                f"grid_side is {self.grid_side}; give a multiple of {2**POOLINGS}, as maps are halved twice"
            )


CONVOLUTIONAL_PAPER = ConvolutionalConfig()
CONVOLUTIONAL_DEMO = ConvolutionalConfig(grid_side=56, num_epochs=30, schedule="one_cycle")


def convolutional_network(in_dim: int, out_dim: int) -> nn.Sequential:
    """Two stages of 3x3 convolution and 2x2 maximum, two of 3x3 and 2x2 transposed convolution, without skips.

    Channels stay those of the input until the last layer, ReLU follows every convolution but that one (CFM suppl. B,
    whose sentence can be read as one stage of two convolutions too).
    """
    down = [nn.Conv2d(in_dim, in_dim, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
    up = [
        nn.Conv2d(in_dim, in_dim, 3, padding=1),
        nn.ReLU(),
        nn.ConvTranspose2d(in_dim, in_dim, 2, stride=2),
        nn.ReLU(),
    ]
    last = [nn.Conv2d(in_dim, in_dim, 3, padding=1), nn.ReLU(), nn.ConvTranspose2d(in_dim, out_dim, 2, stride=2)]
    again = [nn.Conv2d(in_dim, in_dim, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
    return nn.Sequential(*down, *again, *up, *last)


class ConvolutionalCFM:
    """Two networks on maps of cells, trained on normal samples; scored as CFM."""

    variants = AGGREGATIONS

    def __init__(self, config: ConvolutionalConfig, rgb_dim: int, xyz_dim: int, device: str = "cpu") -> None:
        self.config, self.device = config, torch.device(device)
        pairs = {"rgb_to_xyz": (rgb_dim, xyz_dim), "xyz_to_rgb": (xyz_dim, rgb_dim)}
        self.networks = nn.ModuleDict({name: convolutional_network(*dims) for name, dims in pairs.items()})
        self.networks.to(self.device)

    def maps(self, samples: Sequence[Features]) -> tuple[Tensor, Tensor, Tensor]:
        """RGB (B, C2, h, h) and 3D (B, C3, h, h) float32 maps, zero off the object, and (B, h, h) bool object cells."""
        read = [sample.on_grid(self.config.grid_side) for sample in samples]
        rgb, xyz, cells = (torch.stack(part).to(self.device) for part in zip(*read, strict=True))
        return rgb * cells[:, None], xyz, cells

    def fit(
        self,
        features: Sequence[Features],
        seed: int,
        progress: bool = False,
        setup: TrainingSetup = DEFAULT_SETUP,
        checkpoint: Checkpoint | None = None,
    ) -> dict[str, list[float]]:
        """Loss curves; arguments and result as for `lib.heads.cfm.CFM.fit`.

        Raises:
            InputError: a loss is not finite.
        """
        generator = torch.Generator().manual_seed(seed)
        initialize(self.networks, generator)
        optimizer = torch.optim.Adam(self.networks.parameters(), lr=self.config.learning_rate)
        num_steps = -(-len(features) // self.config.batch_size)
        scheduler: Any = make_scheduler(self.config, optimizer, self.config.num_epochs * num_steps)
        curves, scaler = Curves(rgb_to_xyz=[], xyz_to_rgb=[]), setup.scaler(self.device)
        parts = {
            "networks": self.networks, "optimizer": optimizer, "scheduler": scheduler, "scaler": scaler,
            "draws": Draws(generator), "curves": curves,
        }  # fmt: skip
        epochs = Epochs("convolutional CFM epochs", self.config.num_epochs, parts, checkpoint, progress)
        with setup.products():
            for epoch in epochs:
                order = torch.randperm(len(features), generator=generator).split(self.config.batch_size)
                sums = torch.zeros(2, device=self.device)
                for rows in order:
                    with setup.autocast(self.device):
                        losses = self.losses(*self.maps([features[row] for row in rows.tolist()]))
                    scaler.scale(losses.sum()).backward()
                    take_step(scaler, optimizer, scheduler)
                    optimizer.zero_grad()
                    sums += losses.detach()
                add_means(curves, (sums / num_steps).tolist(), epoch)
                epochs.show(curves)
        return dict(curves)

    def losses(self, rgb: Tensor, xyz: Tensor, cells: Tensor) -> Tensor:
        """(2,) mean cosine distances over object cells: RGB to 3D, 3D to RGB (CFM eq. 3)."""
        pairs = (("rgb_to_xyz", rgb, xyz), ("xyz_to_rgb", xyz, rgb))
        return torch.stack([
            cosine_distance(on_cells(self.networks[name](source), cells).float(), on_cells(target, cells)).mean()
            for name, source, target in pairs
        ])  # fmt: skip

    @torch.inference_mode()
    def discrepancies(self, sample: Features) -> tuple[Tensor, Tensor]:
        """psi_2d, psi_3d: (H, W) float32, bilinear between cells, zero off the object (CFM eq. 4)."""
        rgb, xyz, cells = self.maps([sample])
        of_2d = unit_distance(on_cells(self.networks["xyz_to_rgb"](xyz), cells), on_cells(rgb, cells))
        of_3d = unit_distance(on_cells(self.networks["rgb_to_xyz"](rgb), cells), on_cells(xyz, cells))
        height, width = sample.foreground.shape
        if height != width:
            raise InputError(
                f"features of {sample.sample_id}: {height} x {width} pixels; convolutional CFM needs a square"
            )
        filled = torch.stack([fill_cells(values.cpu(), cells[0].cpu()) for values in (of_2d, of_3d)])
        psi_2d, psi_3d = bilinear_resize(filled, height) * sample.foreground
        return psi_2d, psi_3d

    def predict(self, sample: Features, variants: Sequence[str] = ("product",)) -> dict[str, Prediction]:
        """Predictions of one sample for several scorings, names of `lib.methods.AGGREGATIONS`."""
        psi_2d, psi_3d = self.discrepancies(sample)
        return {name: combine(psi_2d, psi_3d, CFM_VARIANTS[name]) for name in variants}

    def state(self) -> State:
        """Weights of both networks."""
        return joined({name: self.networks[name].state_dict() for name in DIRECTIONS})

    def load_state(self, state: State) -> None:
        """Take over what `state` gave."""
        for name in DIRECTIONS:
            self.networks[name].load_state_dict(part_of(state, name))


def on_cells(maps: Tensor, cells: Tensor) -> Tensor:
    """(n, C) features of the True cells of maps (B, C, h, h), image by image in row-major order."""
    return maps.movedim(1, -1)[cells]


def initialize(networks: nn.Module, generator: torch.Generator) -> None:
    """Fresh weights, uniform within He's bound for ReLU, and zero biases, drawn from `generator` (ours)."""
    for module in networks.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.kaiming_uniform_(module.weight, nonlinearity="relu", generator=generator)
            nn.init.zeros_(module.bias)
