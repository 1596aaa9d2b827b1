"""The RGB networks of the papers by name: what each is, what it takes and what it gives. Needs no timm.

[paper] is the CFM paper, [released] its public code, [ours] a choice of this study. Letters: S input side in pixels,
h = w = S / cell_px token grid, C channels.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from lib.config import check_rgb_name
from lib.data import IMAGENET_MEAN, IMAGENET_STD
from lib.errors import InputError

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)  # OpenAI's `clip.load`; the other networks take ImageNet's
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


@dataclass(frozen=True)
class TimmConfig:
    """One frozen RGB network.

    Attributes:
        timm_name: architecture and weights as timm names them; None = our own Transformer (`embedded_vit`).
        weights: name in the registry of weights.
        family: "vit" = class token, final LayerNorm; "sam" = neither of them; "cnn" = maps of two stages;
            "mbconv" = the map after the sixth group of blocks.
        cell_px: side of a patch; of a "cnn" the stride of the finer stage.
        dim: C.
        num_blocks: Transformer blocks kept, counted from the input; None = no Transformer.
        input_px: S.
        native_px: side at which the stored position embeddings were trained.
        mean, std: of R, G, B in [0, 1], as in the network's own training.
        unused: beginnings of the names of stored tensors that no token depends on. Nothing else is left out.
    """

    timm_name: str | None
    weights: str
    cell_px: int
    dim: int
    family: str = "vit"
    num_blocks: int | None = 12
    input_px: int = 224
    native_px: int = 224
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    unused: tuple[str, ...] = ("head.",)

    def __post_init__(self) -> None:
        check_rgb_name(self.timm_name or "")

    @property
    def grid(self) -> tuple[int, int]:
        """(h, w), rows and columns of tokens."""
        side = self.input_px // self.cell_px
        return side, side


RGB_NETWORKS = {
    # 224 px [paper, released]: 28 x 28 tokens of 768. Weights of the first DINO (Caron et al. 2021).
    "dino_vitb8": TimmConfig("vit_base_patch8_224.dino", "dino_vitb8", cell_px=8, dim=768),
    # 224 px as its larger sister: a quarter of the parameters on the same grid [ours].
    "dino_vits8": TimmConfig("vit_small_patch8_224.dino", "dino_vits8", cell_px=8, dim=384),
    # Trained at 518 px. Its input size in CFM Table 8 is not stated; 224 px [ours], so 16 x 16 tokens. LayerScale.
    "dinov2_vitb14": TimmConfig(
        "vit_base_patch14_dinov2.lvd142m",
        "dinov2_vitb14",
        cell_px=14,
        dim=768,
        native_px=518,
        unused=("head.", "mask_token"),  # the mask token stands for hidden patches, in its training only
    ),
    # 224 px is what CLIP was trained at: 14 x 14 tokens. OpenAI trained with QuickGELU, x * sigmoid(1.702 x); timm's
    # name without "quickgelu" computes GELU on the same weights, which shifts every block. OpenAI's final LayerNorm
    # (ln_post) sees the class token only; here it is applied to the patch tokens, as in CFM to DINO's.
    "clip_vitb16": TimmConfig(
        "vit_base_patch16_clip_quickgelu_224.openai",
        "clip_vitb16",
        cell_px=16,
        dim=768,
        mean=CLIP_MEAN,
        std=CLIP_STD,
        unused=("head.", "proj"),  # the projection of the class token to the space shared with texts
    ),
    # Trained at 1024 px. Its input size in CFM Table 8 is not stated; 224 px [ours], so 14 x 14 tokens, which is one
    # attention window. Tokens are the last kept block's output before the neck, whose first layer makes 256 channels of
    # 768. No LayerNorm comes before the neck, so none is applied: these tokens alone are not normalised.
    "sam_vitb16": TimmConfig(
        "samvit_base_patch16.sa1b", "sam_vitb16", cell_px=16, dim=768, family="sam", native_px=1024, unused=()
    ),
    # 224 px, stages 2 and 3: 512 + 1024 channels on 28 x 28 [released code of BTF (3D-ADS); its timm name had no tag
    # and meant these weights].
    "wide_resnet50_2": TimmConfig(
        "wide_resnet50_2.racm_in1k",
        "wide_resnet50_2",
        cell_px=8,
        dim=1536,
        family="cnn",
        num_blocks=None,
        unused=("layer4.", "fc."),
    ),
    # 768 px of the padded original image, as AST reads it: 24 x 24 tokens of 304 channels, the end of the sixth group
    # of blocks. AST took efficientnet_pytorch's B5; its weights without AdvProp are those trained with AutoAugment,
    # which timm calls aa_in1k. Both pad as TensorFlow does.
    "efficientnet_b5": TimmConfig(
        "tf_efficientnet_b5.aa_in1k",
        "efficientnet_b5",
        cell_px=32,
        dim=304,
        family="mbconv",
        num_blocks=None,
        input_px=768,
        native_px=768,
        unused=("blocks.6.", "conv_head.", "bn2.", "classifier."),
    ),
    # 224 px: 28 x 28 tokens of 192 [ours].
    "embedded_vit": TimmConfig(None, "embedded_vit", cell_px=8, dim=192, unused=()),
}


def with_blocks(name: str, num_blocks: int | None) -> TimmConfig:
    """Configuration of a network cut to its first blocks (CFM sec. 3.4: 8, 4 or 1 of 12).

    Args:
        name: a key of `RGB_NETWORKS`.
        num_blocks: blocks kept, from 1 to all; None = all.

    Raises:
        InputError: the network has no blocks, or not that many.
    """
    config = RGB_NETWORKS[name]
    if num_blocks is None:
        return config
    if config.num_blocks is None:
        raise InputError(f"num_blocks {num_blocks!r}: {name} has no Transformer blocks; leave num_blocks out")
    if type(num_blocks) is not int or not 1 <= num_blocks <= config.num_blocks:
        raise InputError(f"num_blocks {num_blocks!r} of {name}: give a whole number from 1 to {config.num_blocks}")
    return replace(config, num_blocks=num_blocks)
