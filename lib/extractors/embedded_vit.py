"""The architecture of the embedded Vision Transformer, whose weights are part of this repository.

It is timm's, as small as ViT-Tiny (Touvron et al., ICML 2021: 192 channels, 12 blocks), with patches of 8 px as in
DINO's ViT-B/8. Three convolutions make the patches (Xiao et al., NeurIPS 2021): trained for minutes, the network learns
local contrast faster from them than from one linear map. Positions are rotary (Su et al. 2021), thus relative: objects
here lie at any place and turn, and absolute positions would tell apart what is alike. How it was trained:
`lib.pretraining.rgb`.
"""

from __future__ import annotations

from torch import nn

from lib.extractors._timm import timm

PATCH_PX = 8
DIM = 192
NUM_BLOCKS = 12
NUM_HEADS = 6  # ours: 32 channels each; ViT-Tiny has 3 of 64
STEM_CHANNELS = (54, 96)  # ours; 54 = both signs of the 27 values of 3 x 3 pixels, see `lib.pretraining.rgb`
ROTARY_TEMPERATURE = 100.0  # DINOv3's; the shortest wave spans six patches, the longest some 350


def conv_stem() -> nn.Sequential:
    """Three 3 x 3 convolutions of stride 2 with GELU between them: (B, 3, S, S) to (B, 192, S / 8, S / 8)."""
    first, second = STEM_CHANNELS
    stem = nn.Sequential(
        nn.Conv2d(3, first, 3, stride=2, padding=1),
        nn.GELU(),
        nn.Conv2d(first, second, 3, stride=2, padding=1),
        nn.GELU(),
        nn.Conv2d(second, DIM, 3, stride=2, padding=1),
    )
    for convolution in (stem[0], stem[2]):
        nn.init.kaiming_normal_(convolution.weight, nonlinearity="relu")
        nn.init.zeros_(convolution.bias)
    return stem


def build_embedded_vit(num_blocks: int = NUM_BLOCKS, side_px: int = 224) -> nn.Module:
    """The network with random weights from torch's global generator; its blocks are `.blocks`, its last norm `.norm`.

    It has neither class token nor head, and takes images of any side that is a multiple of the patch:
    `forward_features` maps (B, 3, S, S) to (B, (S / 8)^2, 192).

    Args:
        num_blocks: Transformer blocks.
        side_px: side of the images that `patch_embed` announces; nothing stored depends on it.
    """
    network = timm.models.eva.Eva(
        img_size=side_px,
        patch_size=PATCH_PX,
        embed_dim=DIM,
        depth=num_blocks,
        num_heads=NUM_HEADS,
        num_classes=0,
        global_pool="",
        class_token=False,
        use_abs_pos_emb=False,
        use_rot_pos_emb=True,
        rope_temperature=ROTARY_TEMPERATURE,
        use_post_transformer_norm=True,
        dynamic_img_size=True,
    )
    network.patch_embed.proj = conv_stem()
    return network
