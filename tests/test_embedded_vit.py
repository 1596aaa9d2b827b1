"""The embedded Vision Transformer: its architecture, and the stored weights with their card."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from lib.extractors import embedded_vit
from lib.extractors.embedded_vit import DIM, NUM_BLOCKS, PATCH_PX, build_embedded_vit
from lib.extractors.strict import load_strictly
from lib.pretraining.families import FAMILIES
from lib.runtime import file_sha256
from lib.synth3d import CATEGORIES

FOLDER = Path(embedded_vit.__file__).parent / "embedded"
WEIGHTS, CARD = FOLDER / "embedded_vit.safetensors", FOLDER / "embedded_vit.json"
LARGEST_MB = 12


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(3)
    return build_embedded_vit(num_blocks=2).eval()


@pytest.fixture(scope="module")
def card():
    return json.loads(CARD.read_text(encoding="utf-8"))


class TestArchitecture:
    @pytest.mark.parametrize("side_px", [40, 56])
    def test_one_token_a_patch(self, network, side_px):
        with torch.inference_mode():
            tokens = network.forward_features(torch.randn(3, 3, side_px, side_px))
        assert tokens.shape == (3, (side_px // PATCH_PX) ** 2, DIM)

    def test_a_batch_equals_its_singles(self, network):
        images = torch.randn(3, 3, 40, 40)
        with torch.inference_mode():
            singles = torch.cat([network.forward_features(image[None]) for image in images])
            torch.testing.assert_close(network.forward_features(images), singles, rtol=0, atol=1e-5)

    def test_positions_are_relative(self, network):
        """The same picture content in another place of a repeating image gives the same tokens, moved."""
        tile = torch.randn(1, 3, 24, 24)
        with torch.inference_mode():
            tokens = network.patch_embed(tile.repeat(1, 1, 3, 3))
            _, rotary = network._pos_embed(tokens)
        products = (rotary[:, None] * rotary[None]).sum(-1).unflatten(0, (9, 9)).unflatten(2, (9, 9))
        torch.testing.assert_close(products[:-1, :-1, :-1, :-1], products[1:, 1:, 1:, 1:], rtol=0, atol=1e-4)

    def test_blocks_can_be_cut_off(self, network):
        kept = build_embedded_vit(num_blocks=2).eval()
        kept.load_state_dict(network.state_dict())
        kept.blocks = kept.blocks[:1]
        image = torch.randn(1, 3, 40, 40)
        with torch.inference_mode():
            tokens, rotary = network._pos_embed(network.patch_embed(image))
            expected = network.norm(network.blocks[0](tokens, rope=rotary))
            torch.testing.assert_close(kept.forward_features(image), expected)


class TestStored:
    def test_weights_fit_the_network(self):
        stored = load_file(WEIGHTS)
        network = build_embedded_vit()
        load_strictly(network, stored, WEIGHTS.name)
        assert {tensor.dtype for tensor in stored.values()} == {torch.float16}
        assert all(torch.isfinite(tensor).all() for tensor in stored.values())
        assert WEIGHTS.stat().st_size <= LARGEST_MB * 1e6

    def test_card_belongs_to_the_file(self, card):
        assert card["sha256"] == file_sha256(WEIGHTS)
        assert card["architecture"]["blocks"] == NUM_BLOCKS
        assert card["architecture"]["parameters"] == sum(each.numel() for each in build_embedded_vit().parameters())
        assert card["license"] == "MIT"
        assert "+" not in card["torch"]

    def test_families_are_those_of_the_code_and_none_of_synth3d(self, card):
        assert card["families"] == list(FAMILIES)
        assert not set(card["families"]) & set(CATEGORIES)

    def test_curves_fall(self, card):
        for curve in card["curve"].values():
            assert 2 <= len(curve) <= 200
            assert curve[-1] < 0.5 * curve[0]
        assert card["steps"] >= len(next(iter(card["curve"].values())))
        assert sum(card["seconds"].values()) <= 40 * 60
