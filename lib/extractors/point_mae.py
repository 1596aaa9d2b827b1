"""Point-MAE as the papers use it: presets, the network, its official checkpoint, and the extractor of 3D tokens.

Sources: Pang et al., "Masked Autoencoders for Point Cloud Self-supervised Learning", ECCV 2022, and what the released
CFM and M3DM code makes of it. Letters: B clouds; N points; G groups; K points per group; D token dimension; C3 channels
of the tapped tokens.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from lib.config import check_choice
from lib.data import Sample
from lib.errors import InputError
from lib.extractors.point_network import Block, Blocks, GroupEncoder, PointMAEConfig
from lib.extractors.strict import load_strictly
from lib.extractors.weights import load_state
from lib.features import object_cloud
from lib.neighbors import group_points
from lib.runtime import seeded_generator
from lib.seeding import torch_seed
from lib.training import inference_dtype

POINT_MAE_EVAL = PointMAEConfig()
POINT_MAE_RELEASED = PointMAEConfig(batch_statistics=True, drop_path=True)
POINT_MAE_EMBEDDED = PointMAEConfig(
    num_groups=512,
    group_size=32,
    stride_px=2,
    dim=160,
    num_heads=5,
    encoder_widths=(64, 128, 256),
    position_width=64,
    unit_m=0.005,
    centered=True,
    weights="embedded_point",
)

POINT_MAE_PRESETS = {
    ("point_mae", "eval"): POINT_MAE_EVAL,
    ("point_mae", "released"): POINT_MAE_RELEASED,
    ("embedded_point", "eval"): POINT_MAE_EMBEDDED,
    ("embedded_point", "released"): replace(POINT_MAE_EMBEDDED, batch_statistics=True, drop_path=True),
}

PREFIXES = ("module.", "MAE_encoder.")  # of a data-parallel wrapper, of the pre-training model
PRETRAINING_ONLY = ("mask_token", "decoder_pos_embed.", "MAE_decoder.", "increase_dim.")  # no part of the encoder


class PointMAE(nn.Module):
    """Groups of points and their centers to tokens; the parts are methods, so that pre-training can use them.

    Coordinates and their embedding are float32; tokens have the type of the other weights, float32 unless converted.
    """

    def __init__(self, config: PointMAEConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = GroupEncoder(config.encoder_widths, config.dim, config.batch_statistics)
        self.pos_embed = nn.Sequential(
            nn.Linear(3, config.position_width), nn.GELU(), nn.Linear(config.position_width, config.dim)
        )
        rates = torch.linspace(0, config.drop_path_rate * config.drop_path, config.depth).tolist()[: config.num_blocks]
        self.blocks = Blocks(Block(config.dim, config.num_heads, config.mlp_ratio, rate) for rate in rates)
        self.norm = nn.LayerNorm(config.dim)

    def embed(self, groups: Tensor) -> Tensor:
        """Tokens (B, G, D) float32 before the first block.

        Args:
            groups: (B, G, K, 3) float32, metres from the group's center.
        """
        return self.encoder((groups / self.config.unit_m).to(self.norm.weight.dtype))

    def embed_positions(self, centers: Tensor) -> Tensor:
        """Position embeddings (B, G, D) float32.

        Args:
            centers: (B, G, 3) float32, metres, all centers of each cloud: with `centered` their mean counts.
        """
        if self.config.centered:
            centers = (centers.double() - centers.double().mean(dim=1, keepdim=True)).float()
        return self.pos_embed(centers / self.config.unit_m).to(self.norm.weight.dtype)

    def block_tokens(self, tokens: Tensor, positions: Tensor, generator: torch.Generator | None = None) -> list[Tensor]:
        """Output (B, G, D) of every block kept, before the final norm; positions are added before every block.

        Args:
            tokens: (B, G, D) float32 from `embed`; pre-training passes the visible ones only.
            positions: (B, G, D) float32 from `embed_positions`, the same groups.
            generator: of the branches dropped, on the CPU; needed when `config.drop_path` is set.

        Raises:
            InputError: `config.drop_path` is set and no generator is given.
        """
        if self.config.drop_path and generator is None:
            raise InputError("PointMAE: drop_path is set and no generator given; pass a torch.Generator on the CPU")
        return self.blocks(tokens, positions, generator)

    def forward(self, groups: Tensor, centers: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Tokens (B, G, C3) float32: the tapped blocks, each through the final norm, side by side.

        Args:
            groups: (B, G, K, 3) float32, metres from the group's center.
            centers: (B, G, 3) float32, metres.
            generator: see `block_tokens`.
        """
        outputs = self.block_tokens(self.embed(groups), self.embed_positions(centers), generator)
        return torch.cat([self.norm(outputs[tap]) for tap in self.config.taps], dim=-1)


def random_point_mae(config: PointMAEConfig, seed: int) -> PointMAE:
    """The network in eval mode with PyTorch's own initialization, which depends on the seed and on nothing else."""
    with torch_seed(seed):
        return PointMAE(config).eval()


def encoder_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a checkpoint under the encoder's own names, without those of `PRETRAINING_ONLY`.

    Args:
        state: what the official checkpoint holds under "base_model", or an encoder's own state dict.
    """
    tensors = {}
    for name, tensor in state.items():
        for prefix in PREFIXES:
            name = name.removeprefix(prefix)
        if not name.startswith(PRETRAINING_ONLY):
            tensors[name] = tensor
    return tensors


def load_point_mae(config: PointMAEConfig, state: Mapping[str, Tensor], source: str = "Point-MAE weights") -> PointMAE:
    """The network in eval mode with the weights of a checkpoint; the global random state is left alone.

    Every block of the published depth is loaded and checked; those that `config` prunes are deleted afterwards.

    Args:
        config: settings of the network.
        state: see `encoder_state`.
        source: file or origin of `state`, for the error.

    Raises:
        InputError: one line that lists all missing, unexpected and mis-shaped tensors.
    """
    network = random_point_mae(replace(config, num_blocks=config.depth), seed=0)
    load_strictly(network, encoder_state(state), source)
    network.blocks.blocks = network.blocks.blocks[: config.num_blocks]
    network.config = config
    return network


class PointMAEExtractor:
    """3D tokens of a sample's object points.

    Attributes:
        config: its settings.
        network: in eval mode, on the device.
    """

    def __init__(
        self,
        config: PointMAEConfig = POINT_MAE_EVAL,
        weights: str = "registry",
        seed: int = 0,
        device: str = "cpu",
        weights_folder: Path | str | None = None,
        precision: str = "float32",
    ) -> None:
        """Build the network and its weights.

        Args:
            config: settings; names the weights.
            weights: "registry" reads the file that `config.weights` names, "random" needs none.
            seed: of random weights, and of the branches that `config.drop_path` drops.
            device: "cpu" or "cuda".
            weights_folder: where to look for the file first.
            precision: of the network's numbers, a word of `lib.training.INFERENCE_DTYPES`; tokens are float32 anyhow.

        Raises:
            InputError: `weights` is neither, or the file is missing or not the network's.
        """
        check_choice("weights", weights, ("registry", "random"))
        self.config, self.seed, self.device = config, seed, torch.device(device)
        self.visit = 0  # which time the samples are seen, where branches are dropped anew each time
        if weights == "random":
            network = random_point_mae(config, seed)
        else:
            network = load_point_mae(config, load_state(config.weights, weights_folder), f"weights {config.weights}")
        self.network = network.to(self.device, inference_dtype(precision))
        self.network.pos_embed.float()  # half a meter in bf16 has steps of millimeters

    @property
    def xyz_dim(self) -> int:
        """Channels C3 of the tokens."""
        return self.config.xyz_dim

    @property
    def num_parameters(self) -> int:
        """Numbers in the weights of the blocks kept and what comes before them."""
        return sum(parameter.numel() for parameter in self.network.parameters())

    @torch.no_grad()
    def __call__(self, sample: Sample) -> tuple[Tensor, Tensor]:
        """Tokens (G, C3) float32 and their centers (G, 3) float32 in metres, on the CPU.

        The points are the foreground pixels with a return in row-major order, those on the stride; the first one starts
        the farthest point sample. Branches dropped depend on the seed, the visit and the sample's name: a second call
        gives the same.

        Args:
            sample: a prepared sample.

        Raises:
            InputError: fewer object points than groups or than points of a group.
        """
        cloud, usable = object_cloud(sample)
        stride = self.config.stride_px
        points = torch.from_numpy(cloud[::stride, ::stride][usable[::stride, ::stride]]).to(self.device)
        groups, centers = group_points(
            points, self.config.num_groups, self.config.group_size, self._first_point(sample, len(points))
        )
        drawn = seeded_generator("drop path", *self._drawn_for(sample)).integers(2**63)
        generator = torch.Generator().manual_seed(int(drawn))
        tokens = self.network(groups[None], centers[None], generator)[0]
        return tokens.float().cpu(), centers.cpu()

    def _drawn_for(self, sample: Sample) -> tuple[object, ...]:
        """What draws at random depend on."""
        visit = ("visit", self.visit) if self.visit else ()
        return self.seed, *visit, sample.category, sample.sample_id

    def _first_point(self, sample: Sample, num_points: int) -> int:
        """Row of the point that starts the farthest point sample."""
        if self.config.first_point == "first":
            return 0
        return int(seeded_generator("first point", *self._drawn_for(sample)).integers(num_points))
