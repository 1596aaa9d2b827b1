"""Loading of stored tensors into a network with nothing left out, left over or bent to fit."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from lib.errors import InputError


def _differences(expected: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> list[str]:
    """Every difference between two sets of named tensors, one phrase a kind; empty where they agree."""
    missing = sorted(expected.keys() - state.keys())
    unexpected = sorted(state.keys() - expected.keys())
    bent = [
        f"{name} is {tuple(state[name].shape)}, not {tuple(expected[name].shape)}"
        for name in sorted(expected.keys() & state.keys())
        if state[name].shape != expected[name].shape
    ]
    found = (("missing", missing), ("unexpected", unexpected), ("mis-shaped", bent))
    return [f"{len(names)} {kind}: {', '.join(names)}" for kind, names in found if names]


def load_strictly(module: nn.Module, state: Mapping[str, Tensor], source: str) -> None:
    """Copies the tensors of `state` into `module`; the module is as it was where any tensor does not fit.

    The released CFM and M3DM code loads with `strict=False` and drops the result, so a file of another network passes
    and the features are those of random weights.

    Args:
        module: its parameters and buffers name what is needed.
        state: name to tensor of any floating type; a tensor takes the type of the one it fills.
        source: file or origin of `state`, for the error.

    Raises:
        InputError: one line that lists all missing, unexpected and mis-shaped tensors.
    """
    if differences := _differences(module.state_dict(), state):
        raise InputError(
            f"{source}: does not fit {type(module).__name__}: {'; '.join(differences)}; "
            "check that it is the file of this very network"
        )
    module.load_state_dict(dict(state))
