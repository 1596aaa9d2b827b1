"""Frozen RGB networks through timm: an image becomes the tokens of the last kept block on a grid.

Letters: B images, S input side in pixels, h w token grid, C channels. Which networks there are, with sources, is in
`lib.extractors.rgb_networks`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional

from lib.config import check_choice, check_rgb_name
from lib.data import IMAGENET_MEAN, IMAGENET_STD, Sample
from lib.errors import InputError
from lib.extractors._timm import timm
from lib.extractors.embedded_vit import build_embedded_vit
from lib.extractors.rgb_networks import RGB_NETWORKS, TimmConfig, with_blocks
from lib.extractors.strict import load_strictly
from lib.extractors.weights import load_state
from lib.grids import resize_rgb
from lib.preparation import normalize_rgb
from lib.seeding import torch_seed
from lib.training import inference_dtype

BTF_STAGES = (2, 3)  # timm counts the stem as stage 0
MBCONV_GROUPS = 6  # of an EfficientNet's seven groups of blocks [released AST]
SAM_NORM_EPS = 1e-6  # segment_anything/build_sam.py; timm's default for this network is 1e-5
OPENAI_TO_TIMM = {  # names of CLIP's image side in OpenAI's and OpenCLIP's files; the order matters
    "class_embedding": "cls_token",
    "positional_embedding": "pos_embed",
    "conv1.": "patch_embed.proj.",
    "transformer.resblocks.": "blocks.",
    "ln_pre.": "norm_pre.",
    "ln_post.": "norm.",
    ".ln_": ".norm",
    ".in_proj_": ".qkv.",
    ".out_proj.": ".proj.",
    ".c_fc.": ".fc1.",
    ".c_proj.": ".fc2.",
}


def create_network(config: TimmConfig, side_px: int, seed: int) -> nn.Module:
    """The whole network with random weights for one input side; made offline, the global generator stays as it was.

    Args:
        config: which network.
        side_px: input side, which decides the shape of its position embeddings.
        seed: of the random weights.
    """
    with torch_seed(seed):
        if config.timm_name is None:
            return build_embedded_vit()
        if config.family == "cnn":
            return timm.create_model(config.timm_name, pretrained=False, features_only=True, out_indices=BTF_STAGES)
        if config.family == "mbconv":
            network = timm.create_model(config.timm_name, pretrained=False, num_classes=0)
            network.blocks = network.blocks[:MBCONV_GROUPS]
            network.conv_head = network.bn2 = nn.Identity()  # beyond the tokens
            return network
        options = {"norm_layer": partial(nn.LayerNorm, eps=SAM_NORM_EPS)} if config.family == "sam" else {}
        return timm.create_model(config.timm_name, pretrained=False, num_classes=0, img_size=side_px, **options)


def from_openai(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of CLIP's image side under timm's names, the two embeddings with the batch axis that timm gives them.

    Args:
        state: tensors by OpenAI's or OpenCLIP's names, "visual." cut off.
    """
    translated = {}
    for name, tensor in state.items():
        for theirs, ours in OPENAI_TO_TIMM.items():
            name = name.replace(theirs, ours)
        translated[name] = rearrange(tensor, "... c -> 1 (...) c") if name in ("cls_token", "pos_embed") else tensor
    return translated


def load_stored(network: nn.Module, config: TimmConfig, state: Mapping[str, Tensor], source: str) -> None:
    """Fills a whole network of native size from timm's weights or from the authors' own.

    DINO's and DINOv2's own files have timm's names. SAM's are translated by timm, which leaves the prompt encoder and
    the mask decoder out. timm's translation for the other Transformers is not used: it resamples the patches of another
    network, such as ViT-B/16 for ViT-B/8, without a word.

    Args:
        network: from `create_network` at `config.native_px`, so that every stored shape is checked before resampling.
        config: reads family and unused.
        state: stored tensors by name.
        source: their file, for the error.

    Raises:
        InputError: tensors are missing, unexpected or mis-shaped; the line lists them all.
    """
    if config.family == "sam":
        state = timm.models.vision_transformer_sam.checkpoint_filter_fn(state, network)
    if "class_embedding" in state:
        state = from_openai(state)
    needed = {name: tensor for name, tensor in state.items() if not name.startswith(config.unused)}
    load_strictly(network, needed, source)


def cut_and_resize(network: nn.Module, config: TimmConfig) -> None:
    """Deletes the blocks beyond `config.num_blocks` and SAM's neck; brings position embeddings to `config.grid`.

    Embeddings are resampled as timm does, bicubic and antialiased (DINOv2's own code does not antialias). The tables of
    relative positions in SAM's four global blocks are resampled by timm in every forward pass, linearly as in SAM.
    """
    if config.num_blocks is not None:
        network.blocks = network.blocks[: config.num_blocks]
    if config.family == "vit":
        network.set_input_size(config.input_px)
    if config.family == "sam":
        network.neck = nn.Identity()
        resampled = timm.layers.resample_abs_pos_embed_nhwc(network.pos_embed.detach(), list(config.grid))
        network.pos_embed = nn.Parameter(resampled)


def build_network(
    config: TimmConfig, seed: int = 0, state: Mapping[str, Tensor] | None = None, source: str = "weights"
) -> nn.Module:
    """The frozen network: eval mode, no gradients, only what the tokens need.

    Args:
        config: which network, how many blocks.
        seed: of random weights; read only where `state` is None.
        state: stored tensors by name; None = random weights.
        source: file of `state`, for errors.

    Raises:
        InputError: `state` does not fit; see `load_stored`.
    """
    network = create_network(config, config.input_px if state is None else config.native_px, seed)
    if state is not None:
        load_stored(network, config, state, source)
    cut_and_resize(network, config)
    return network.eval().requires_grad_(False)


def grid_tokens(network: nn.Module, config: TimmConfig, images: Tensor) -> Tensor:
    """(B, C, h, w) float32 tokens.

    "vit": the last kept block's, always through the network's final LayerNorm [released CFM], the class token dropped.
    "sam": the last kept block's as they are. "cnn": each stage's map averaged over 3 x 3, stride 1, no padding, then
    by adaptive averages to the grid, and concatenated [released BTF]. "mbconv": the map after the kept groups of blocks
    as it is [released AST].

    Args:
        network: from `build_network` with the same config.
        config: reads family and grid.
        images: (B, 3, S, S) float32, normalised as the network wants them.
    """
    if config.family == "mbconv":
        return network.blocks(network.bn1(network.conv_stem(images)))
    if config.family == "cnn":
        means = [functional.avg_pool2d(stage, 3, stride=1) for stage in network(images)]
        return torch.cat([functional.adaptive_avg_pool2d(mean, config.grid) for mean in means], dim=1)
    tokens = network.forward_features(images)
    if config.family == "sam":
        return tokens  # without its neck timm's network gives (B, C, h, w)
    return rearrange(tokens[:, network.num_prefix_tokens :], "b (h w) c -> b c h w", h=config.grid[0])


def renormalization(config: TimmConfig) -> tuple[Tensor, Tensor]:
    """Scale and shift, each (3, 1, 1) float32, from ImageNet-normalised values to the network's own; often 1 and 0."""
    mean, std = torch.tensor([IMAGENET_MEAN, IMAGENET_STD], dtype=torch.float64)
    own_mean, own_std = torch.tensor([config.mean, config.std], dtype=torch.float64)
    scale, shift = std / own_std, (mean - own_mean) / own_std
    return scale.float().view(3, 1, 1), shift.float().view(3, 1, 1)


@contextmanager
def full_precision() -> Iterator[None]:
    """Convolutions on CUDA in float32 within this block; by default cuDNN rounds their input to ten bits (TF32)."""
    unchanged = dict.fromkeys(("enabled", "benchmark", "benchmark_limit", "deterministic"))
    with torch.backends.cudnn.flags(**unchanged, allow_tf32=False):
        yield


class TimmExtractor:
    """RGB tokens of prepared samples by one frozen network."""

    def __init__(
        self,
        name: str,
        num_blocks: int | None = None,
        weights: str = "registry",
        seed: int = 0,
        device: str = "cpu",
        weights_folder: Path | str | None = None,
        precision: str = "float32",
    ) -> None:
        """Builds the network and reads its weights.

        Args:
            name: a key of `RGB_NETWORKS`.
            num_blocks: first Transformer blocks kept (CFM sec. 3.4); None = all. The others are deleted.
            weights: "registry" = the stored ones, or "random" with a `seed` [ours, a control], which needs no file.
            device: where it runs; tokens come back to the CPU.
            weights_folder: searched first for the file.
            precision: of the network's numbers, a word of `lib.training.INFERENCE_DTYPES`; tokens are float32 anyhow.

        Raises:
            InputError: the name or a setting is unknown, or the weights are missing or do not fit.
        """
        check_rgb_name(name)
        check_choice("RGB network", name, tuple(RGB_NETWORKS))
        check_choice(f"weights of {name}", weights, ("registry", "random"))
        self.name = name
        self.config = with_blocks(name, num_blocks)
        self.device = torch.device(device)
        state = load_state(self.config.weights, weights_folder) if weights == "registry" else None
        self.dtype = inference_dtype(precision)
        self.network = build_network(self.config, seed, state, f"weights of {name}").to(self.device, self.dtype)
        self.scale, self.shift = (values.to(self.device) for values in renormalization(self.config))

    @property
    def rgb_dim(self) -> int:
        """C, channels of a token."""
        return self.config.dim

    @property
    def grid(self) -> tuple[int, int]:
        """(h, w), rows and columns of tokens."""
        return self.config.grid

    @property
    def num_parameters(self) -> int:
        """Parameters of the network as it is kept."""
        return sum(parameter.numel() for parameter in self.network.parameters())

    def tokens(self, rgb: Tensor) -> Tensor:
        """(B, C, h, w) float32 tokens on the CPU.

        Args:
            rgb: (B, 3, S, S) float32, ImageNet-normalised; brought to the network's own mean and deviation here.

        Raises:
            InputError: the images have another shape.
        """
        side = self.config.input_px
        if rgb.ndim != 4 or tuple(rgb.shape[1:]) != (3, side, side):
            shape = f"shape {tuple(rgb.shape)}, but {self.name} takes (B, 3, {side}, {side})"
            raise InputError(f"rgb: {shape}; prepare the samples with image_size {side}")
        with torch.inference_mode(), full_precision():
            images = rgb.to(self.device) * self.scale + self.shift
            tokens = grid_tokens(self.network, self.config, images.to(self.dtype)).float().cpu()
        return tokens.clone(memory_format=torch.contiguous_format)  # a head cannot train on an inference tensor

    def __call__(self, sample: Sample) -> Tensor:
        """(C, h, w) float32 tokens of one prepared sample; see `tokens`.

        A network that takes more pixels than the sample has reads the padded original, resized as the sample was.
        """
        if self.config.input_px <= sample.rgb.shape[-1]:
            return self.tokens(sample.rgb[None])[0]
        return self.tokens(normalize_rgb(resize_rgb(sample.rgb_padded, self.config.input_px))[None])[0]
