import re
import socket
from functools import cache
from itertools import product
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from einops import rearrange
from torch import nn
from torch.nn import functional

from lib.data import IMAGENET_MEAN, IMAGENET_STD, denormalize_rgb
from lib.errors import InputError
from lib.extractors import vit
from lib.extractors._timm import timm
from lib.extractors.rgb_networks import RGB_NETWORKS, TimmConfig, check_rgb_name, with_blocks
from lib.extractors.strict import load_strictly
from lib.extractors.vit import (
    TimmExtractor,
    build_network,
    create_network,
    full_precision,
    grid_tokens,
)
from lib.extractors.weight_registry import WEIGHTS
from lib.grids import resize_rgb
from lib.preparation import normalize_rgb

SHAPES = {
    "dino_vitb8": (768, 28, 28),
    "dino_vits8": (384, 28, 28),
    "dinov2_vitb14": (768, 16, 16),
    "clip_vitb16": (768, 14, 14),
    "sam_vitb16": (768, 14, 14),
    "wide_resnet50_2": (1536, 28, 28),
    "efficientnet_b5": (304, 24, 24),
    "embedded_vit": (192, 28, 28),
}


@cache
def extractor(name):
    """A network with random weights and two blocks, made once for all tests that only look at it."""
    return TimmExtractor(name, 2 if RGB_NETWORKS[name].num_blocks else None, weights="random", seed=3)


def parameter_bytes(module):
    return sum(parameter.numel() * parameter.element_size() for parameter in module.parameters())


def images(count=1, seed=0, side=224):
    return torch.randn(count, 3, side, side, generator=torch.Generator().manual_seed(seed))


def stored(name, seed=5):
    """Tensors as a file of a network holds them, at native size; embeddings, norms and scales all different."""
    config = RGB_NETWORKS[name]
    generator = torch.Generator().manual_seed(seed)
    state = create_network(config, config.native_px, seed).state_dict()
    for key, tensor in state.items():
        if tensor.is_floating_point() and tensor.ndim < 4 and "mlp" not in key and "qkv.weight" not in key:
            state[key] = tensor + 0.1 * torch.rand(tensor.shape, generator=generator)
    if config.family == "sam":
        state["pos_embed"] += torch.rand(state["pos_embed"].shape, generator=generator)
    return state


def output_of(module, network, inputs):
    """What a module inside a network gives while the network runs."""
    caught = []
    handle = module.register_forward_hook(lambda _module, _inputs, output: caught.append(output))
    with torch.inference_mode():
        network(inputs)
    handle.remove()
    return caught[0]


@pytest.mark.parametrize("name", SHAPES)
def test_random_networks_need_no_internet_and_have_the_documented_shape(name, monkeypatch):
    def refuse(*_args, **_options):
        raise AssertionError("a connection was tried")

    monkeypatch.setattr(socket, "socket", refuse)
    made = extractor(name)
    tokens = made.tokens(images(side=made.config.input_px))
    assert tokens.shape == (1, *SHAPES[name]) == (1, made.rgb_dim, *made.grid)
    assert tokens.dtype == torch.float32 and tokens.is_contiguous() and torch.isfinite(tokens).all()
    assert not any(module.training for module in made.network.modules())
    assert not any(parameter.requires_grad for parameter in made.network.parameters())
    assert parameter_bytes(made.network) == 4 * made.num_parameters


def test_every_network_is_named_and_tested():
    assert set(RGB_NETWORKS) == set(SHAPES)
    assert all(name == config.weights for name, config in RGB_NETWORKS.items())


@pytest.mark.parametrize("name", [name for name in SHAPES if RGB_NETWORKS[name].timm_name])
def test_statistics_and_native_size_are_those_timm_notes_for_the_weights(name):
    config, noted = RGB_NETWORKS[name], timm.get_pretrained_cfg(RGB_NETWORKS[name].timm_name)
    assert (config.mean, config.std) == (noted.mean, noted.std)
    if config.family not in ("cnn", "mbconv"):  # these have no position embeddings, and take any size
        assert config.native_px == noted.input_size[1]


@pytest.mark.parametrize("name", [name for name in SHAPES if RGB_NETWORKS[name].input_px == 224])
def test_a_batch_is_its_singles(name):
    made, batch = extractor(name), images(3)
    singles = [made(SimpleNamespace(rgb=image)) for image in batch]
    torch.testing.assert_close(made.tokens(batch), torch.stack(singles), rtol=1e-5, atol=1e-5)


def test_tokens_can_train_a_head():
    tokens = extractor("wide_resnet50_2").tokens(images())
    nn.Conv2d(1536, 2, 1)(tokens).sum().backward()


def test_convolutions_on_cuda_are_asked_for_float32():
    before = torch.backends.cudnn.allow_tf32
    with full_precision():
        assert not torch.backends.cudnn.allow_tf32
    assert torch.backends.cudnn.allow_tf32 == before


def test_seeds_decide_random_weights_and_leave_the_global_generator_alone():
    before = torch.get_rng_state()
    first, again, other = (TimmExtractor("dino_vits8", 1, "random", seed).tokens(images()) for seed in (3, 3, 4))
    assert torch.equal(first, again)
    assert not torch.allclose(first, other, atol=0.1)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.fixture(scope="module")
def dino_state():
    return stored("dino_vits8")


@pytest.fixture(scope="module")
def whole_dino(dino_state):
    """timm's whole network and, by number of blocks kept, what it calls the normalised output of the last one."""
    network = timm.create_model("vit_small_patch8_224.dino", pretrained=False).eval()
    network.load_state_dict(dino_state)
    with torch.inference_mode():
        maps = network.forward_intermediates(images(), [0, 3, 7, 11], norm=True, intermediates_only=True)
    return network, dict(zip((1, 4, 8, 12), maps, strict=True))


@pytest.mark.parametrize("num_blocks", [1, 4, 8, 12])
def test_kept_blocks_are_those_of_the_whole_network_through_its_norm(num_blocks, dino_state, whole_dino):
    whole, expected = whole_dino
    config = with_blocks("dino_vits8", num_blocks)
    network = build_network(config, state=dino_state)
    with torch.inference_mode():
        found = grid_tokens(network, config, images())
    torch.testing.assert_close(found, expected[num_blocks], rtol=1e-5, atol=1e-5)
    dropped = (12 - num_blocks) * parameter_bytes(whole.blocks[0])
    assert parameter_bytes(network) == parameter_bytes(whole) - dropped
    assert len(network.blocks) == num_blocks


def test_the_class_token_is_dropped_and_rows_stay_rows():
    made, batch = extractor("dino_vits8"), images()
    with torch.inference_mode():
        sequence = made.network.forward_features(batch)
    tokens = made.tokens(batch)
    assert sequence.shape[1] == 1 + 28 * 28
    for row, column in ((0, 0), (0, 27), (5, 11), (27, 3)):
        torch.testing.assert_close(tokens[:, :, row, column], sequence[:, 1 + 28 * row + column])


def test_clip_sees_its_own_mean_and_deviation():
    made = extractor("clip_vitb16")
    colors = torch.rand(1, 3, 224, 224, generator=torch.Generator().manual_seed(1))
    as_imagenet = (colors - torch.tensor(IMAGENET_MEAN).view(3, 1, 1)) / torch.tensor(IMAGENET_STD).view(3, 1, 1)
    torch.testing.assert_close(denormalize_rgb(as_imagenet), colors)
    mean, std = (torch.tensor(made.network.pretrained_cfg[key]).view(3, 1, 1) for key in ("mean", "std"))
    with torch.inference_mode():
        expected = made.network.forward_features((colors - mean) / std)[:, 1:]
    found = rearrange(made.tokens(as_imagenet), "b c h w -> b (h w) c")
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_other_networks_see_the_values_of_the_sample():
    made = extractor("dino_vits8")
    assert torch.equal(images() * made.scale + made.shift, images())


def test_clip_computes_quick_gelu():
    made, batch = extractor("clip_vitb16"), images()
    mlp = made.network.blocks[0].mlp
    before, after = (output_of(module, made.tokens, batch) for module in (mlp.fc1, mlp.act))
    torch.testing.assert_close(after, before * torch.sigmoid(1.702 * before))
    assert not torch.allclose(after, functional.gelu(before), atol=1e-3)


def test_clip_loads_from_the_names_of_its_own_file():
    config = with_blocks("clip_vitb16", 1)
    state = {
        "class_embedding": torch.rand(768),
        "positional_embedding": torch.rand(197, 768),
        "proj": torch.rand(768, 512),
        "conv1.weight": torch.rand(768, 3, 16, 16),
        **{f"ln_{place}.{kind}": torch.rand(768) for place in ("pre", "post") for kind in ("weight", "bias")},
    }
    layers = {"ln_1": (768,), "ln_2": (768,), "attn.out_proj": (768, 768), "mlp.c_fc": (3072, 768)}
    layers |= {"attn.in_proj": (2304, 768), "mlp.c_proj": (768, 3072)}
    for block, (layer, shape) in product(range(12), layers.items()):
        joint = "_" if layer == "attn.in_proj" else "."
        state[f"transformer.resblocks.{block}.{layer}{joint}weight"] = torch.rand(1).expand(shape)
        state[f"transformer.resblocks.{block}.{layer}{joint}bias"] = torch.rand(shape[0])
    network = build_network(config, state=state)
    visual = {f"visual.{name}": tensor for name, tensor in state.items()}
    expected = timm.models.vision_transformer.checkpoint_filter_fn(visual, network)
    loaded = network.state_dict()
    assert len(loaded) == 7 + 12
    assert all(torch.equal(loaded[name], expected[name]) for name in loaded)
    coarse = state | {"conv1.weight": torch.rand(768, 3, 32, 32), "positional_embedding": torch.rand(50, 768)}
    with pytest.raises(InputError, match=r"2 mis-shaped: patch_embed.proj.weight is .* pos_embed is \(1, 50, 768\)"):
        build_network(config, state=coarse)


@pytest.fixture(scope="module")
def sam_state():
    return stored("sam_vitb16")


def test_sam_tokens_are_the_last_kept_block_before_the_neck(sam_state):
    whole = timm.create_model("samvit_base_patch16.sa1b", pretrained=False).eval()  # 1024 px; resamples as it runs
    whole.load_state_dict(sam_state)
    for module in whole.modules():
        if isinstance(module, nn.LayerNorm):
            module.eps = 1e-6
    batch = images()
    for kept in (3, 12):
        expected = rearrange(output_of(whole.blocks[kept - 1], whole, batch), "b h w c -> b c h w")
        config = with_blocks("sam_vitb16", kept)
        network = build_network(config, state=sam_state)
        with torch.inference_mode():
            torch.testing.assert_close(grid_tokens(network, config, batch), expected, rtol=1e-4, atol=1e-4)
        assert {module.eps for module in network.modules() if isinstance(module, nn.LayerNorm)} == {1e-6}
        assert not any(name.startswith(("neck", "head")) for name in network.state_dict())


def test_sam_at_1024_px_is_resampled_to_224_as_segment_anything_does(sam_state):
    config, batch, small = with_blocks("sam_vitb16", 3), images(), dict(sam_state)
    grid = rearrange(sam_state["pos_embed"], "1 h w c -> 1 c h w")
    grid = functional.interpolate(grid, size=(14, 14), mode="bicubic", antialias=True)
    small["pos_embed"] = rearrange(grid, "1 c h w -> 1 h w c")
    tables = [name for name, tensor in sam_state.items() if "rel_pos" in name and len(tensor) == 2 * 64 - 1]
    assert len(tables) == 2 * 4  # two directions in the four global blocks
    for name in tables:
        small[name] = functional.interpolate(sam_state[name].T[None], size=2 * 14 - 1, mode="linear")[0].T
    direct = timm.create_model("samvit_base_patch16.sa1b", pretrained=False, img_size=224).eval()
    direct.load_state_dict(small)
    expected = rearrange(output_of(direct.blocks[2], direct, batch), "b h w c -> b c h w")
    network = build_network(config, state=sam_state)
    assert network.pos_embed.shape == (1, 14, 14, 768)
    with torch.inference_mode():
        torch.testing.assert_close(grid_tokens(network, config, batch), expected, rtol=1e-3, atol=1e-3)


def test_segment_anythings_own_file_loads_too(sam_state):
    own = {"image_encoder." + name.replace("mlp.fc", "mlp.lin"): tensor for name, tensor in sam_state.items()}
    own["mask_decoder.iou_token.weight"] = torch.zeros(1, 256)
    loaded = build_network(with_blocks("sam_vitb16", 1), state=own).state_dict()
    kept = [name for name in loaded if name != "pos_embed"]
    assert len(kept) == 2 + 14 and all(torch.equal(loaded[name], sam_state[name]) for name in kept)


def test_dinov2_at_518_px_is_resampled_to_224_and_nothing_is_lost():
    state = stored("dinov2_vitb14")
    network = build_network(RGB_NETWORKS["dinov2_vitb14"], state={**state, "mask_token": torch.zeros(1, 768)})
    loaded = network.state_dict()
    assert loaded.keys() == state.keys()
    assert state["pos_embed"].shape == (1, 1 + 37 * 37, 768) and loaded["pos_embed"].shape == (1, 1 + 16 * 16, 768)
    grid = rearrange(state["pos_embed"][:, 1:], "1 (h w) c -> 1 c h w", h=37)
    grid = functional.interpolate(grid, size=(16, 16), mode="bicubic", antialias=True)
    torch.testing.assert_close(loaded["pos_embed"][:, 1:], rearrange(grid, "1 c h w -> 1 (h w) c"))
    assert torch.equal(loaded["pos_embed"][:, 0], state["pos_embed"][:, 0])
    assert all(torch.equal(loaded[key], state[key]) for key in state if key != "pos_embed")


@pytest.mark.parametrize(("name", "extra"), [("dino_vits8", "head.weight"), ("wide_resnet50_2", "layer4.0.bn1.weight")])
def test_stored_tensors_all_arrive_save_for_what_no_token_needs(name, extra, dino_state):
    state = dino_state if name == "dino_vits8" else stored(name)
    loaded = build_network(RGB_NETWORKS[name], state={**state, extra: torch.zeros(7)}).state_dict()
    assert loaded.keys() == state.keys()
    assert all(torch.equal(loaded[key], state[key]) for key in state)


def test_a_file_of_another_patch_size_is_refused_and_not_resampled(dino_state):
    coarse = timm.create_model("vit_small_patch16_224.dino", pretrained=False).state_dict()
    message = r"2 mis-shaped: patch_embed.proj.weight is \(384, 3, 16, 16\), .* pos_embed is \(1, 197, 384\), "
    with pytest.raises(InputError, match=message):
        build_network(RGB_NETWORKS["dino_vits8"], state=coarse)


def test_a_deeper_file_is_refused_also_when_blocks_are_cut(dino_state):
    deeper = dino_state | {"blocks.12.norm1.bias": torch.zeros(384)}
    with pytest.raises(InputError, match=r"1 unexpected: blocks.12.norm1.bias;"):
        build_network(with_blocks("dino_vits8", 4), state=deeper)
    shallower = {key: tensor for key, tensor in dino_state.items() if not key.startswith("blocks.11.")}
    with pytest.raises(InputError, match=r"12 missing: blocks.11.attn.proj.bias, "):
        build_network(with_blocks("dino_vits8", 4), state=shallower)


def test_registered_weights_fill_the_network(monkeypatch, tmp_path, dino_state):
    asked = []
    monkeypatch.setattr(vit, "load_state", lambda name, folder: asked.append((name, folder)) or dino_state)
    made = TimmExtractor("dino_vits8", 1, weights_folder=tmp_path)
    assert asked == [("dino_vits8", tmp_path)]
    assert torch.equal(made.network.blocks[0].norm1.bias, dino_state["blocks.0.norm1.bias"])
    monkeypatch.setattr(vit, "load_state", lambda *_: {})
    with pytest.raises(InputError, match="weights of dino_vits8: does not fit VisionTransformer: 150 missing"):
        TimmExtractor("dino_vits8", 1)


def test_all_networks_have_registered_weights():
    assert {config.weights for config in RGB_NETWORKS.values()} <= set(WEIGHTS)


def test_strict_loading_lists_every_difference_in_one_line_and_changes_nothing():
    module = nn.Sequential(nn.Linear(3, 5), nn.BatchNorm1d(5))
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    state = {name: tensor + 1 for name, tensor in before.items()} | {"extra": torch.zeros(2), "0.bias": torch.zeros(7)}
    del state["1.running_var"], state["1.weight"]
    with pytest.raises(InputError) as caught:
        load_strictly(module, state, "net.pth")
    assert str(caught.value) == (
        "net.pth: does not fit Sequential: 2 missing: 1.running_var, 1.weight; 1 unexpected: extra; "
        "1 mis-shaped: 0.bias is (7,), not (5,); check that it is the file of this very network"
    )
    assert all(torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items())


def test_strict_loading_fills_float32_from_float16():
    module = nn.Linear(3, 5)
    state = {name: torch.randn(tensor.shape).half() for name, tensor in module.state_dict().items()}
    load_strictly(module, state, "net.pth")
    assert module.weight.dtype == torch.float32
    assert torch.equal(module.weight, state["weight"].float())


def mean_map_by_loop(stage, side):
    """(C, side, side): means over 3 x 3 windows inside the map, then over each cell's share of the rest."""
    inner = stage.shape[-1] - 2
    means = torch.empty(len(stage), inner, inner)
    for i, j in product(range(inner), repeat=2):
        means[:, i, j] = stage[:, i : i + 3, j : j + 3].mean(dim=(1, 2))
    spans = [(i * inner // side, -(-(i + 1) * inner // side)) for i in range(side)]
    result = torch.empty(len(stage), side, side)
    for (i, (top, bottom)), (j, (left, right)) in product(enumerate(spans), repeat=2):
        result[:, i, j] = means[:, top:bottom, left:right].mean(dim=(1, 2))
    return result


def test_wide_resnet_tokens_are_the_pooled_stages_two_and_three():
    made, batch = extractor("wide_resnet50_2"), images()
    tokens = made.tokens(batch)[0]
    second, third = (output_of(made.network[layer], made.tokens, batch)[0] for layer in ("layer2", "layer3"))
    assert second.shape == (512, 28, 28) and third.shape == (1024, 14, 14)
    torch.testing.assert_close(tokens[:512:31], mean_map_by_loop(second[::31], 28), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(tokens[512::31], mean_map_by_loop(third[::31], 28), rtol=1e-4, atol=1e-5)


def test_efficientnet_tokens_are_the_end_of_the_sixth_group_of_blocks():
    config = RGB_NETWORKS["efficientnet_b5"]
    whole = timm.create_model(config.timm_name, num_classes=0).eval()
    made, batch = build_network(config, state=whole.state_dict()), images(side=96)
    caught = output_of(whole.blocks[5], whole, batch)
    with torch.inference_mode():
        torch.testing.assert_close(grid_tokens(made, config, batch), caught)
    assert caught.shape == (1, 304, 3, 3)
    assert not any(name.startswith(config.unused) for name in made.state_dict())


def test_a_network_of_more_pixels_than_the_sample_reads_the_padded_original(monkeypatch):
    made, seen = extractor("efficientnet_b5"), []
    monkeypatch.setattr(made, "tokens", lambda rgb: seen.append(rgb) or rgb)
    padded = np.random.default_rng(0).integers(0, 256, (800, 800, 3), dtype=np.uint8)
    made(SimpleNamespace(rgb=torch.zeros(3, 224, 224), rgb_padded=padded))
    assert torch.equal(seen[0][0], normalize_rgb(resize_rgb(padded, 768)))


@pytest.mark.parametrize("name", [f"vit_base_patch16_224{tag}" for tag in (".sam_in1k", ".sam", "_sam")])
def test_sharpness_aware_minimization_is_not_segment_anything(name):
    with pytest.raises(InputError, match=r"sharpness-aware minimization.* choose sam_vitb16"):
        TimmExtractor(name)
    with pytest.raises(InputError, match="not Segment Anything"):
        TimmConfig(name, "sam", cell_px=16, dim=768)


def test_all_names_of_timm_that_say_sharpness_aware_are_known():
    for name in timm.list_models("*sam*", pretrained=True):
        if "sam_in1k" in name:
            with pytest.raises(InputError, match="sharpness"):
                check_rgb_name(name)
        else:
            check_rgb_name(name)


@pytest.mark.parametrize("shape", [(1, 3, 225, 224), (3, 224, 224), (1, 4, 224, 224)])
def test_images_of_another_shape_are_refused(shape):
    with pytest.raises(InputError, match=re.escape(f"rgb: shape {shape}, but dino_vits8 takes (B, 3, 224, 224); prep")):
        extractor("dino_vits8").tokens(torch.zeros(shape))


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("dino", {}, "RGB network 'dino' is unknown; choose one of dino_vitb8, "),
        ("dino_vits8", {"weights": "imagenet"}, "weights of dino_vits8 'imagenet' is unknown; choose one of regi"),
        ("dino_vits8", {"num_blocks": 0}, "num_blocks 0 of dino_vits8: give a whole number from 1 to 12"),
        ("dino_vits8", {"num_blocks": 13}, "num_blocks 13 of dino_vits8: give a whole number from 1 to 12"),
        ("dino_vits8", {"num_blocks": True}, "num_blocks True of dino_vits8"),
        ("wide_resnet50_2", {"num_blocks": 4}, "wide_resnet50_2 has no Transformer blocks; leave num_blocks out"),
    ],
)
def test_settings_that_do_not_exist_are_refused(name, settings, message):
    with pytest.raises(InputError, match=re.escape(message)):
        TimmExtractor(name, **settings)
