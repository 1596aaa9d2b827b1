"""A training that is killed on purpose, so that a page can show how it is taken up again."""

from __future__ import annotations

import multiprocessing
import os
import signal
from pathlib import Path
from typing import Any

from lib.head_choice import make_head, method_features, training_setup
from lib.heads.checkpoints import Checkpoint
from lib.profiles import Profile, load_profile


def fit_and_die(
    profile_name: str, method: str, category: str, seed: int, config: Any, folder: Path, epochs: int
) -> None:
    """Train a method with a checkpoint after every epoch, and kill the own process at the end of the last of some.

    Args:
        profile_name, method, category, seed: of the experiment whose features are taken.
        config: settings of the head.
        folder: of the checkpoint.
        epochs: that are finished before.
    """
    profile = load_profile(profile_name)

    class Deadly(Checkpoint):
        def save(self, epochs_done: int, parts: Any) -> None:
            super().save(epochs_done, parts)
            if epochs_done == epochs:
                os.kill(os.getpid(), signal.SIGKILL)

    train = method_features(profile, profile.method(method), category, "train", seed=seed)
    head = make_head(config, train[0], profile.device)
    head.fit(train, seed, setup=training_setup(profile), checkpoint=Deadly(folder, method, every_s=0))


def killed_fit(profile: Profile, method: str, category: str, seed: int, config: Any, folder: Path, epochs: int) -> int:
    """Signal that ended a process of its own which trained a method for some epochs; see `fit_and_die`.

    The checkpoint it leaves is `Checkpoint(folder, method)`.
    """
    work = (profile.name, method, category, seed, config, folder, epochs)
    process = multiprocessing.get_context("spawn").Process(target=fit_and_die, args=work)
    process.start()
    process.join()
    return -process.exitcode
