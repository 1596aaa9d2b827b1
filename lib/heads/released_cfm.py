"""The checkpoints that the authors of CFM released, as heads of this study.

Facts: the released code names a pair `CFM_2Dto3D_<category>_<epochs>ep_<batch>bs.pth` and `CFM_3Dto2D_...`, in one
folder for each category; each file is the state dict of three linear layers (input, projection, output), as in
`MappingMLP`. The authors' README links the files for MVTec 3D-AD (250 epochs, batches of 4).

They were trained on 3D features averaged over 3 x 3 pixels after projection, and the heads read such (`xyz_mean_px`).
"""

from __future__ import annotations

import re
from pathlib import Path

from torch import Tensor, nn

from lib.errors import InputError
from lib.extractors.strict import load_strictly
from lib.extractors.weights import read_tensors
from lib.heads.cfm import CFM
from lib.methods import CFMConfig

DIRECTIONS = {"CFM_2Dto3D": "rgb_to_xyz", "CFM_3Dto2D": "xyz_to_rgb"}  # their name: ours
PAPER_RGB_DIM, PAPER_XYZ_DIM = 768, 1152


class ReleasedPair(nn.Module):
    """A head's two networks under the names that the files have, so that one error can speak of both files."""

    def __init__(self, head: CFM) -> None:
        super().__init__()
        for theirs, ours in DIRECTIONS.items():
            self.add_module(theirs, getattr(head, ours))


def load_released_cfm(
    folder: Path | str,
    category: str,
    num_epochs: int | None = None,
    batch_size: int | None = None,
    device: str = "cpu",
) -> CFM:
    """The head with the weights of a released pair of files; its config holds what their names and shapes say.

    Args:
        folder: holds the files of this category, or one folder for each category.
        category: as in the names of the files, for instance "bagel".
        num_epochs: of the training, where the folder holds several pairs.
        batch_size: of the training, where the folder holds several pairs.
        device: of the head.

    Raises:
        InputError: there is no such pair, or more than one; a file is damaged or asks to run code; or tensors are
            missing, unexpected or mis-shaped, all listed in the one line.
    """
    epochs, batch, paths = find_pair(folder, category, num_epochs, batch_size)
    state = {f"{theirs}.{name}": value for theirs, path in paths.items() for name, value in read_tensors(path).items()}
    rgb_dim, hidden_dim, xyz_dim = stored_dims(state)
    by_rule = hidden_dim == (rgb_dim + xyz_dim) // 2
    config = CFMConfig(None if by_rule else hidden_dim, num_epochs=epochs, batch_size=batch, xyz_mean_px=3)
    head = CFM(config, rgb_dim, xyz_dim, device)
    load_strictly(ReleasedPair(head), state, " and ".join(map(str, paths.values())))
    return head


def find_pair(
    folder: Path | str, category: str, num_epochs: int | None = None, batch_size: int | None = None
) -> tuple[int, int, dict[str, Path]]:
    """Epochs, batch size and the two files (by direction) of the only pair that fits; arguments as `load_released_cfm`.

    Raises:
        InputError: no file or no pair fits, or several do.
    """
    pattern = re.compile(rf"({'|'.join(DIRECTIONS)})_{re.escape(category)}_(\d+)ep_(\d+)bs\.pth")
    found: dict[tuple[Path, int, int], dict[str, Path]] = {}
    for path in sorted([*Path(folder).glob("*.pth"), *(Path(folder) / category).glob("*.pth")]):
        if named := pattern.fullmatch(path.name):
            found.setdefault((path.parent, int(named[2]), int(named[3])), {})[named[1]] = path
    asked = {key for key in found if num_epochs in (None, key[1]) and batch_size in (None, key[2])}
    pairs = {key: paths for key, paths in found.items() if key in asked and len(paths) == len(DIRECTIONS)}
    names = ", ".join(str(path) for paths in (pairs or found).values() for path in paths.values()) or "none"
    if len(pairs) > 1:
        raise InputError(f"released CFM of {category}: several pairs fit, {names}; give num_epochs and batch_size")
    if not pairs:
        ending = f"{category}_{num_epochs or '<epochs>'}ep_{batch_size or '<batch>'}bs.pth"
        raise InputError(
            f"released CFM of {category}: no pair CFM_2Dto3D_{ending} and CFM_3Dto2D_{ending} in {folder} or in its "
            f"folder {category}; found: {names}; give a folder that holds both, of the same epochs and batch size"
        )
    [((_, epochs, batch), paths)] = pairs.items()
    return epochs, batch, {theirs: paths[theirs] for theirs in DIRECTIONS}


def stored_dims(state: dict[str, Tensor]) -> tuple[int, int, int]:
    """Width of RGB features, hidden layers and 3D features; the paper's where the tensors that tell do not exist.

    Args:
        state: tensors of both files, named `<direction>.<layer>.<weight or bias>`.
    """
    paper_hidden = (PAPER_RGB_DIM + PAPER_XYZ_DIM) // 2
    first, last = state.get("CFM_2Dto3D.input.weight"), state.get("CFM_2Dto3D.output.weight")
    hidden_dim, rgb_dim = first.shape if first is not None and first.ndim == 2 else (paper_hidden, PAPER_RGB_DIM)
    xyz_dim = last.shape[0] if last is not None and last.ndim == 2 else PAPER_XYZ_DIM
    return rgb_dim, hidden_dim, xyz_dim
