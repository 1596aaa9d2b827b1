"""Every file of trained weights of the study: where it comes from, under which license, and its SHA-256.

All SHA-256 are published ones; none was computed from a download of ours. Where no source gives the exact number of
bytes, none stands here. Hub = huggingface.co.
"""

from __future__ import annotations

from dataclasses import dataclass

POINT_MAE_URL = "https://github.com/Pang-Yatian/Point-MAE/releases/download/main/pretrain.pth"
TIMM_RELEASES = "https://github.com/huggingface/pytorch-image-models/releases/download"


@dataclass(frozen=True)
class WeightFile:
    """One file of trained weights.

    Attributes:
        name: its key in `WEIGHTS`, in profiles and on the command line.
        filename: its name in a folder of weights.
        license: of the weights, as their authors state it.
        citation: what to cite who uses them.
        source_note: where the SHA-256 was read.
        sha256: hexadecimal, or its first 8 digits where no more is published; None for an embedded file, whose card
            (`<stem>.json` beside it) holds it.
        urls: where to fetch it, tried in this order; none for an embedded file, which is part of the repository.
        size_bytes: exact size where a source gives it.
        inside: key of the table of tensors in a checkpoint that holds more than that.
        prefix: how the wanted names begin in a file of more networks than one; it is cut off, the rest is left out.
    """

    name: str
    filename: str
    license: str
    citation: str
    source_note: str
    sha256: str | None = None
    urls: tuple[str, ...] = ()
    size_bytes: int | None = None
    inside: str | None = None
    prefix: str = ""


def hub_urls(model: str, revision: str, filename: str = "model.safetensors") -> tuple[str, str]:
    """The file at the revision whose SHA-256 is known, and as it is now, of a repository of timm on the Hub.

    The second is for the day the first is gone; if the file was changed meanwhile, its SHA-256 shows it.
    """
    base = f"https://huggingface.co/timm/{model}/resolve"
    return f"{base}/{revision}/{filename}", f"{base}/main/{filename}"


FILES = (
    # License: file LICENSE of the repository. The name of the file is anomalib's and M3DM's; M3DM's copy on a drive was
    # not compared with it.
    WeightFile(
        "point_mae",
        "pointmae_pretrain.pth",
        "MIT",
        "Pang et al., Masked Autoencoders for Point Cloud Self-supervised Learning, ECCV 2022",
        "pinned by anomalib (models CFM); the size by two other public projects together with this SHA-256",
        "27ded932bb0a2625d5a8eb006df199b2578598c774aee6d86b985300b6a5fd20",
        (POINT_MAE_URL,),
        size_bytes=348_288_755,
        inside="base_model",
    ),
    WeightFile(
        "dino_vitb8",
        "vit_base_patch8_224.dino.safetensors",
        "Apache-2.0",
        "Caron et al., Emerging Properties in Self-Supervised Vision Transformers, ICCV 2021",
        "the file's page on the Hub at this revision",
        "01be14b99784a4c0970a5703214513588daf27014e908ac7ea08967b7bd80f5f",
        hub_urls("vit_base_patch8_224.dino", "57b4c6dac26b2cff845bfbed5bf37c9dd32ec496"),
    ),
    WeightFile(
        "dino_vits8",
        "vit_small_patch8_224.dino.safetensors",
        "Apache-2.0",
        "Caron et al., Emerging Properties in Self-Supervised Vision Transformers, ICCV 2021",
        "the file's page on the Hub at this revision",
        "e1b79616ce6d1b8dc3cc0d5952b6d0958356a189122882493e665d28f20654a0",
        hub_urls("vit_small_patch8_224.dino", "06cd8ed4b3fcef6305223df082ef8c19bc775704"),
    ),
    WeightFile(
        "dinov2_vitb14",
        "vit_base_patch14_dinov2.lvd142m.safetensors",
        "Apache-2.0",
        "Oquab et al., DINOv2: Learning Robust Visual Features without Supervision, TMLR 2024",
        "pinned, with revision and size, by several public projects",
        "55cbb5d887b336d430e649c277b85a1429e724871f9d02ac16203235886d8c7b",
        hub_urls("vit_base_patch14_dinov2.lvd142m", "4685c99dabffe5affac90bd99dbffd25801ae58d"),
        size_bytes=346_334_872,
    ),
    # timm 1.0.31 takes the weights of vit_base_patch16_clip_quickgelu_224.openai from this repository too. It holds no
    # model.safetensors, but the whole CLIP in OpenCLIP's names: `visual.` is the image side. The Hub says Apache-2.0,
    # the authors' own repository (openai/CLIP) MIT.
    WeightFile(
        "clip_vitb16",
        "vit_base_patch16_clip_224.openai.safetensors",
        "MIT",
        "Radford et al., Learning Transferable Visual Models From Natural Language Supervision, ICML 2021",
        "pinned, with the revision, by several public projects",
        "4b8699299b1e8997753c64b052ba32031449d5d853f55a039148560ee02b820f",
        hub_urls(
            "vit_base_patch16_clip_224.openai",
            "977e3dd0ec55ab8da155f2fbeb6b5f54948b6e3d",
            "open_clip_model.safetensors",
        ),
        prefix="visual.",
    ),
    WeightFile(
        "sam_vitb16",
        "samvit_base_patch16.sa1b.safetensors",
        "Apache-2.0",
        "Kirillov et al., Segment Anything, ICCV 2023",
        "pinned, with the revision, by one public project; no second source was found",
        "31a9f4edc394c5ae7a96045576570189a354ada86094a5842bcc9a05a8939ea2",
        hub_urls("samvit_base_patch16.sa1b", "c6db726d87cbba7788e026776b46c5db3aa1594b"),
    ),
    # BTF's create_model("wide_resnet50_2", pretrained=True) names no tag. In timm 1.0.31 the bare name means its first
    # entry, racm_in1k, whose older URL ends in wide_resnet50_racm-8234f177.pth and not in torchvision's file.
    WeightFile(
        "wide_resnet50_2",
        "wide_resnet50_2.racm_in1k.safetensors",
        "Apache-2.0",
        "Zagoruyko and Komodakis, Wide Residual Networks, BMVC 2016; Wightman, PyTorch Image Models",
        "pinned, with revision and size, by several public projects",
        "03b71d65fb2c73bb0de079a1781009f27a782ec481d2f64ab3bde9b1cdec3000",
        hub_urls("wide_resnet50_2.racm_in1k", "30f73aceaaa1911830a9795b83ab1908dba18719"),
        size_bytes=275_835_296,
    ),
    # The eight digits are the beginning of the SHA-256, by the rule of PyTorch's hub that names files so. The license
    # is that of timm's model card.
    WeightFile(
        "efficientnet_b5",
        "tf_efficientnet_b5_aa-99018a74.pth",
        "Apache-2.0",
        "Tan and Le, EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks, ICML 2019",
        "in the file's own name, its first 8 digits alone",
        "99018a74",
        (f"{TIMM_RELEASES}/v0.1-weights/tf_efficientnet_b5_aa-99018a74.pth",),
    ),
    # The study's own, trained by data_scripts/pretrain.py.
    WeightFile("embedded_vit", "embedded_vit.safetensors", "MIT", "this study", "written there by the training"),
    WeightFile("embedded_point", "embedded_point.safetensors", "MIT", "this study", "written there by the training"),
)
WEIGHTS = {file.name: file for file in FILES}
