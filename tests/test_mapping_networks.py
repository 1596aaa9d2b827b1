"""Mapping networks of CFM beside its MLP, the intramodal task, and the convolutional networks on maps."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from torch.nn import functional as F

from lib.errors import InputError
from lib.heads.cfm import CFM
from lib.heads.cfm_convolutional import ConvolutionalCFM, ConvolutionalConfig, convolutional_network, on_cells
from lib.heads.checkpoints import Checkpoint
from lib.heads.mapping_networks import mapping_network
from lib.methods import CFMConfig
from tests.factories import make_features

C2, C3 = 5, 7


def features(number: int = 3) -> list:
    return [make_features(seed=seed) for seed in range(number)]


def dims(samples: list) -> tuple[int, int]:
    return samples[0].rgb_tokens.shape[0], samples[0].xyz_tokens.shape[1]


@pytest.mark.parametrize(
    ("network", "in_dim", "out_dim", "widths"),
    [
        ("mlp", 768, 1152, (768, 960, 960, 1152)),
        ("encoder_decoder", 768, 1152, (768, 384, 192, 192, 384, 1152)),
        ("encoder_decoder", 1152, 768, (1152, 576, 288, 288, 576, 768)),
        ("seven_layers", 768, 1152, (768, *[960] * 6, 1152)),
    ],
)
def test_widths_are_those_of_the_paper(network, in_dim, out_dim, widths):
    built = mapping_network(CFMConfig(network=network), in_dim, out_dim)
    assert built.widths == widths
    linear = [module for module in built.modules() if isinstance(module, torch.nn.Linear)]
    assert [(layer.in_features, layer.out_features) for layer in linear] == list(pairwise(widths))


@pytest.mark.parametrize("network", ["encoder_decoder", "seven_layers"])
def test_a_stack_is_linear_layers_with_gelu_between(network):
    built = mapping_network(CFMConfig(network=network), C2, C3)
    rows = torch.randn(11, C2, generator=torch.Generator().manual_seed(1))
    layers = [module for module in built.modules() if isinstance(module, torch.nn.Linear)]
    hidden = rows
    for number, layer in enumerate(layers):
        hidden = hidden @ layer.weight.T + layer.bias
        if number < len(layers) - 1:
            hidden = hidden * (1 + torch.erf(hidden / 2**0.5)) / 2
    torch.testing.assert_close(built(rows), hidden)


def test_encoder_decoder_takes_no_hidden_width():
    with pytest.raises(InputError, match="widths of its own"):
        CFMConfig(network="encoder_decoder", hidden_dim=8)


@pytest.mark.parametrize("changes", [{"task": "both"}, {"network": "unet"}])
def test_unknown_words_are_told(changes):
    with pytest.raises(InputError, match="choose one of"):
        CFMConfig(**changes)


@pytest.mark.parametrize("network", ["mlp", "encoder_decoder", "seven_layers"])
def test_intramodal_maps_are_the_errors_of_each_modality_s_own_reconstruction(network):
    samples = features()
    config = CFMConfig(task="intramodal", network=network, num_epochs=2, pixels_per_image=40)
    head = CFM(config, *dims(samples))
    head.fit(samples, seed=1)
    rgb, xyz = samples[0].at_pixels()
    for map_, network_, seen in zip(
        head.discrepancies(samples[0]), (head.rgb_to_xyz, head.xyz_to_rgb), (rgb, xyz), strict=True
    ):
        with torch.no_grad():
            expected = (F.normalize(network_(seen), dim=1) - F.normalize(seen, dim=1)).norm(dim=1)
        torch.testing.assert_close(map_.flatten()[samples[0].pixel_index], expected, rtol=1e-4, atol=1e-5)


def test_intramodal_training_lowers_its_own_loss_and_not_the_other_task_s():
    samples = features(4)
    config = CFMConfig(task="intramodal", hidden_dim=24, num_epochs=40, learning_rate=1e-2)
    history = CFM(config, *dims(samples)).fit(samples, seed=0)
    assert all(curve[-1] < 0.5 * curve[0] for curve in history.values())


def test_convolutional_network_halves_twice_and_comes_back():
    network = convolutional_network(C2, C3)
    maps = torch.randn(2, C2, 12, 12)
    assert network(maps).shape == (2, C3, 12, 12)
    sides = []
    for layer in network:
        maps = layer(maps)
        sides.append(maps.shape[-1])
    assert min(sides) == 3
    assert [layer.out_channels for layer in network if hasattr(layer, "out_channels")] == [C2] * 5 + [C3]


def test_on_cells_reads_row_major():
    maps = torch.arange(2 * 3 * 2 * 2).float().view(2, 3, 2, 2)
    cells = torch.tensor([[[True, False], [False, True]], [[False, True], [False, False]]])
    expected = torch.stack([maps[0, :, 0, 0], maps[0, :, 1, 1], maps[1, :, 0, 1]])
    assert torch.equal(on_cells(maps, cells), expected)


def small(**changes) -> ConvolutionalConfig:
    return ConvolutionalConfig(**{"grid_side": 4, "num_epochs": 6, "learning_rate": 1e-2, "batch_size": 2, **changes})


def test_convolutional_training_lowers_the_loss_and_repeats_under_a_seed():
    samples = features()
    first, again, other = (ConvolutionalCFM(small(num_epochs=30), *dims(samples)) for _ in range(3))
    history = first.fit(samples, seed=3)
    assert history == again.fit(samples, seed=3)
    assert history != other.fit(samples, seed=4)
    assert all(curve[-1] < curve[0] for curve in history.values())
    maps = [head.predict(samples[0])["product"].anomaly_map for head in (first, again)]
    assert torch.equal(*maps)


def test_convolutional_maps_are_zero_off_the_object_and_in_range():
    samples = features()
    head = ConvolutionalCFM(small(), *dims(samples))
    head.fit(samples, seed=0)
    for psi in head.discrepancies(samples[1]):
        assert psi.shape == samples[1].foreground.shape
        assert float(psi[~samples[1].foreground].abs().sum()) == 0
        assert 0 < float(psi.max()) <= 2
    found = head.predict(samples[1], ("psi_2d", "sum"))
    assert set(found) == {"psi_2d", "sum"}


def test_what_lies_off_the_object_does_not_reach_the_convolutions():
    samples = features(1)
    head = ConvolutionalCFM(small(), *dims(samples))
    rgb, _, cells = head.maps(samples)
    assert float(rgb[0][:, ~cells[0]].abs().sum()) == 0


def test_convolutional_state_goes_to_another_head():
    samples = features()
    head, other = (ConvolutionalCFM(small(), *dims(samples)) for _ in range(2))
    head.fit(samples, seed=0)
    other.load_state(head.state())
    maps = [h.predict(samples[0])["product"].anomaly_map for h in (head, other)]
    assert torch.equal(*maps)


def test_convolutional_training_goes_on_from_a_checkpoint(tmp_path):
    samples = features()
    whole, part, rest = (ConvolutionalCFM(small(num_epochs=n), *dims(samples)) for n in (6, 6, 6))
    history = whole.fit(samples, seed=2)

    class Killed(Exception):
        pass

    checkpoint = Checkpoint(tmp_path, {"seed": 2}, every_s=0)
    original = part.losses
    calls = iter(range(100))

    def losses(*maps):
        if next(calls) == 7:
            raise Killed
        return original(*maps)

    part.losses = losses
    with pytest.raises(Killed):
        part.fit(samples, seed=2, checkpoint=checkpoint)
    assert rest.fit(samples, seed=2, checkpoint=Checkpoint(tmp_path, {"seed": 2})) == history
    assert all(torch.equal(value, rest.state()[name]) for name, value in whole.state().items())


@pytest.mark.parametrize(
    ("changes", "line"),
    [({"grid_side": 6}, "multiple of 4"), ({"schedule": "x"}, "choose"), ({"num_epochs": 0}, "at least 1")],
)
def test_convolutional_settings_that_cannot_work(changes, line):
    with pytest.raises(InputError, match=line):
        small(**changes)


def test_a_loss_that_is_not_finite_is_told():
    samples = features()
    head = ConvolutionalCFM(small(learning_rate=1e30, num_epochs=20), *dims(samples))
    with pytest.raises(InputError, match="not finite"):
        head.fit(samples, seed=0)


def test_the_rim_of_an_object_is_as_bright_as_its_middle(monkeypatch):
    samples = features(1)
    head = ConvolutionalCFM(small(), *dims(samples))
    monkeypatch.setattr("lib.heads.cfm_convolutional.unit_distance", lambda first, _: torch.ones(len(first)))
    for psi in head.discrepancies(samples[0]):
        torch.testing.assert_close(psi, samples[0].foreground.float())
