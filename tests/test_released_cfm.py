"""Released CFM checkpoints: the reference case by way of a pair of files, which pair is meant, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from lib.errors import InputError
from lib.heads.mapping_networks import MappingMLP
from lib.heads.released_cfm import DIRECTIONS, load_released_cfm
from lib.instances import CFM_PAPER
from lib.losses import unit_distance
from lib.methods import CFMConfig
from lib.stored_heads import load_head, save_head
from tests.test_cfm import CASE, relative_difference, rule_weight

DIMS = {"CFM_2Dto3D": (5, 7), "CFM_3Dto2D": (7, 5)}
HIDDEN = 3


def line_for(call: Callable[[], object]) -> str:
    """The InputError's text; it is one line whatever happened."""
    with pytest.raises(InputError) as caught:
        call()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def states(dims: dict[str, tuple[int, int]] = DIMS, hidden_dim: int | None = HIDDEN) -> dict[str, dict[str, Tensor]]:
    """Tensors of both files by the rule of the reference case."""
    networks = {name: MappingMLP(*pair, hidden_dim) for name, pair in dims.items()}
    return {
        name: {key: rule_weight(f"{name}.{key}", value.shape) for key, value in network.state_dict().items()}
        for name, network in networks.items()
    }


def write(folder: Path, pair: dict[str, dict[str, Tensor]], category: str = "bagel", ending: str = "250ep_4bs") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, state in pair.items():
        torch.save(state, folder / f"{name}_{category}_{ending}.pth")


def test_the_reference_case_is_met_through_files(tmp_path: Path) -> None:
    write(tmp_path / "bagel", states({"CFM_2Dto3D": (768, 1152), "CFM_3Dto2D": (1152, 768)}, hidden_dim=None))
    head = load_released_cfm(tmp_path, "bagel")
    assert head.config == CFM_PAPER
    tokens = torch.from_numpy(CASE["rgb_tokens"])[None]
    foreground = torch.from_numpy(CASE["foreground"]).flatten()
    rgb = F.interpolate(tokens, (56, 56), mode="bilinear", align_corners=False)[0].flatten(1).T[foreground]
    xyz = torch.from_numpy(CASE["xyz_mix"] @ CASE["xyz_base"])[foreground]
    with torch.inference_mode():
        psi_2d, psi_3d = unit_distance(head.xyz_to_rgb(xyz), rgb), unit_distance(head.rgb_to_xyz(rgb), xyz)
    for name, psi in (("psi_2d", psi_2d), ("psi_3d", psi_3d)):
        assert relative_difference(psi, CASE[name].flatten()[foreground.numpy()]) < 1e-4


@pytest.mark.parametrize("place", ["", "cable_gland"])
def test_files_lie_in_the_folder_or_in_the_categorys(tmp_path: Path, place: str) -> None:
    write(tmp_path / place, states(), "cable_gland", "50ep_2bs")
    head = load_released_cfm(tmp_path, "cable_gland")
    assert head.config == CFMConfig(hidden_dim=HIDDEN, num_epochs=50, batch_size=2, xyz_mean_px=3)
    for theirs, ours in DIRECTIONS.items():
        stored = getattr(head, ours).state_dict()
        assert all(torch.equal(stored[key], value) for key, value in states()[theirs].items())


def test_a_loaded_head_is_saved_and_loaded_as_any_other(tmp_path: Path) -> None:
    write(tmp_path, states())
    head = load_released_cfm(tmp_path, "bagel")
    dims = head.rgb_to_xyz.input.in_features, head.rgb_to_xyz.output.out_features
    save_head(tmp_path / "head.safetensors", head, *dims)
    loaded = load_head(tmp_path / "head.safetensors")
    assert torch.equal(loaded.xyz_to_rgb.output.bias, states()["CFM_3Dto2D"]["output.bias"])


def test_several_pairs_must_be_told_apart(tmp_path: Path) -> None:
    for ending in ("50ep_4bs", "250ep_4bs", "250ep_2bs"):
        write(tmp_path, states(), ending=ending)
    line = line_for(lambda: load_released_cfm(tmp_path, "bagel", num_epochs=250))
    assert "several pairs fit" in line and "give num_epochs and batch_size" in line and "_50ep_" not in line
    assert load_released_cfm(tmp_path, "bagel", num_epochs=50).config.num_epochs == 50
    assert load_released_cfm(tmp_path, "bagel", num_epochs=250, batch_size=2).config.batch_size == 2


def test_files_of_different_trainings_or_categories_are_no_pair(tmp_path: Path) -> None:
    forward, back = ({name: state} for name, state in states().items())
    write(tmp_path, forward, "bagel", "250ep_4bs")
    write(tmp_path, back, "bagel", "50ep_4bs")
    write(tmp_path, back, "bagel", "250ep_2bs")
    write(tmp_path, back, "rope", "250ep_4bs")
    write(tmp_path, back, "old_bagel", "250ep_4bs")
    line = line_for(lambda: load_released_cfm(tmp_path, "bagel"))
    ending = "bagel_<epochs>ep_<batch>bs.pth"
    assert f"no pair CFM_2Dto3D_{ending} and CFM_3Dto2D_{ending} in {tmp_path}" in line
    assert str(tmp_path / "CFM_3Dto2D_bagel_50ep_4bs.pth") in line and "rope" not in line and "old_bagel" not in line


def test_an_empty_or_missing_folder_is_named(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "nowhere"):
        line = line_for(lambda folder=folder: load_released_cfm(folder, "bagel", num_epochs=250, batch_size=4))
        assert f"no pair CFM_2Dto3D_bagel_250ep_4bs.pth and CFM_3Dto2D_bagel_250ep_4bs.pth in {folder} " in line
        assert "found: none" in line


def test_all_that_does_not_fit_is_listed_at_once(tmp_path: Path) -> None:
    pair = states()
    del pair["CFM_2Dto3D"]["projection.bias"]
    pair["CFM_3Dto2D"]["extra.weight"] = torch.zeros(2)
    pair["CFM_3Dto2D"]["output.weight"] = torch.zeros(5, 4)
    write(tmp_path, pair)
    line = line_for(lambda: load_released_cfm(tmp_path, "bagel"))
    for words in (
        "CFM_2Dto3D_bagel_250ep_4bs.pth and ",
        "1 missing: CFM_2Dto3D.projection.bias",
        "1 unexpected: CFM_3Dto2D.extra.weight",
        "1 mis-shaped: CFM_3Dto2D.output.weight is (5, 4), not (5, 3)",
    ):
        assert words in line


@pytest.mark.parametrize("name", ["CFM_2Dto3D", "CFM_3Dto2D"])
def test_a_file_of_another_network_is_refused(tmp_path: Path, name: str) -> None:
    write(tmp_path, states() | {name: {"encoder.weight": torch.zeros(2, 3), "input.weight": torch.zeros(2)}})
    line = line_for(lambda: load_released_cfm(tmp_path, "bagel"))
    assert f"unexpected: {name}.encoder.weight" in line and f"{name}.input.weight is (2,), not" in line


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    write(tmp_path, states())
    path = tmp_path / "CFM_3Dto2D_bagel_250ep_4bs.pth"
    path.write_bytes(path.read_bytes()[:-9])
    assert f"{path} was not loaded: it is truncated" in line_for(lambda: load_released_cfm(tmp_path, "bagel"))
    path.write_bytes(b"<html>quota exceeded</html>")
    assert f"{path} was not loaded: it is an HTML page" in line_for(lambda: load_released_cfm(tmp_path, "bagel"))
