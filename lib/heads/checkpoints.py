"""The state of a training on disk, so that a killed one goes on and ends as if nothing had happened.

Safetensors hold the tensors and JSON the rest: reading a checkpoint runs no code.
"""

from __future__ import annotations

import json
import shutil
import time
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from lib.errors import InputError
from lib.heads.state import State, read_state, write_state


class Stateful(Protocol):
    """A part of a training: networks, optimizers, schedules, banks, random draws, loss curves."""

    def state_dict(self) -> Mapping[str, Any]:
        """Tensors, numbers, texts, and dicts and lists of them."""
        ...

    def load_state_dict(self, state: Mapping[str, Any]) -> Any:
        """Take over what `state_dict` gave."""
        ...


class Draws:
    """A random generator as a part of a training.

    Args:
        generator: on the CPU.
    """

    def __init__(self, generator: torch.Generator) -> None:
        self.generator = generator

    def state_dict(self) -> dict[str, Tensor]:
        """Where in its stream the generator stands."""
        return {"state": self.generator.get_state()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Go on from there."""
        self.generator.set_state(state["state"])


class Curves(dict[str, list[float]]):
    """Loss curves by name, as a part of a training."""

    def state_dict(self) -> dict[str, list[float]]:
        """The curves."""
        return dict(self)

    def load_state_dict(self, state: Mapping[str, list[float]]) -> None:
        """Take over curves in place: others may hold this object."""
        self.clear()
        self.update(state)


@dataclass
class Checkpoint:
    """One training's file in a folder of checkpoints.

    Attributes:
        folder: of one experiment; `remove` deletes it whole.
        identity: what the training depends on, as JSON holds it; a file of another identity is passed over.
        every_s: seconds between two files; 0 writes one after every epoch.
        name: of this training among those of the experiment.
        spent_s: by training, the seconds that earlier processes spent on what was taken up from them.
    """

    folder: Path
    identity: Any
    every_s: float = 60.0
    name: str = "training"
    spent_s: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.begun = self.last = time.monotonic()

    @property
    def path(self) -> Path:
        """The file."""
        return self.folder / f"{self.name}.safetensors"

    def part(self, name: str) -> Checkpoint:
        """The file of one of several trainings within this one."""
        return Checkpoint(self.folder, self.identity, self.every_s, f"{self.name}-{name}", self.spent_s)

    def is_due(self) -> bool:
        """True when the last file is old enough."""
        return time.monotonic() - self.last >= self.every_s

    def save(self, epochs_done: int, parts: Mapping[str, Stateful]) -> None:
        """Write the state after some epochs, whole or not at all."""
        tensors: State = {}
        content = {name: packed(part.state_dict(), tensors) for name, part in parts.items()}
        seconds = self.spent_s.get(self.name, 0.0) + time.monotonic() - self.begun
        facts = {"identity": self.identity, "epochs_done": epochs_done, "seconds": seconds, "parts": content}
        write_state(self.path, facts, tensors)
        self.last = time.monotonic()

    def load(self, parts: Mapping[str, Stateful]) -> int:
        """Put the stored state into the parts; the epochs done, 0 where there is no file of this identity.

        A damaged file is a warning, and the training starts anew.
        """
        self.begun = time.monotonic()
        if not self.path.is_file():
            return 0
        try:
            facts, tensors = read_state(self.path)
        except InputError as error:
            warnings.warn(f"{error}; the training starts anew", RuntimeWarning, stacklevel=2)
            return 0
        if facts["identity"] != json.loads(json.dumps(self.identity)):
            return 0
        for name, part in parts.items():
            part.load_state_dict(unpacked(facts["parts"][name], tensors))
        self.spent_s[self.name] = facts["seconds"]
        return facts["epochs_done"]

    def remove(self) -> None:
        """Delete the files of all trainings of the experiment."""
        shutil.rmtree(self.folder, ignore_errors=True)


def packed(value: Any, tensors: State) -> Any:
    """A nested state as JSON holds it; its tensors go into `tensors`, and their names stand in for them.

    Raises:
        TypeError: something that JSON cannot give back as it was.
    """
    if isinstance(value, Tensor):
        name = str(len(tensors))
        tensors[name] = value.detach().cpu().clone()  # two names for one memory are an error in safetensors
        return {"tensor": name}
    if isinstance(value, Mapping):
        return {"pairs": [[packed(key, tensors), packed(entry, tensors)] for key, entry in value.items()]}
    if isinstance(value, list | tuple):
        return {type(value).__name__: [packed(entry, tensors) for entry in value]}
    if value is None or type(value) in (bool, int, float, str):
        return value
    raise TypeError(f"a checkpoint cannot hold {type(value).__name__} {value!r}")


def unpacked(stored: Any, tensors: Mapping[str, Tensor]) -> Any:
    """The nested state that `packed` took apart."""
    if not isinstance(stored, dict):
        return stored
    [(kind, content)] = stored.items()
    if kind == "tensor":
        return tensors[content]
    if kind == "pairs":
        return {unpacked(key, tensors): unpacked(entry, tensors) for key, entry in content}
    return {"list": list, "tuple": tuple}[kind](unpacked(entry, tensors) for entry in content)
