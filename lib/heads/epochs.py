"""Epochs of a training: shown with losses and the time left, kept in a checkpoint, taken up again after a kill."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from tqdm.auto import tqdm

from lib.heads.checkpoints import Checkpoint, Curves, Stateful


class Epochs:
    """Numbers of the epochs still to do, one by one.

    A training loops over this object; after the loop's body the epoch counts as done. The parts hold the training's
    whole state, so that one that was killed ends with the same weights, to the bit where the device adds in a fixed
    order.

    Args:
        description: of the bar.
        num_epochs: of the whole training.
        parts: all that a step changes, by name.
        checkpoint: where the parts are kept; None = nowhere.
        progress: show a bar with the time left.
    """

    def __init__(
        self,
        description: str,
        num_epochs: int,
        parts: Mapping[str, Stateful],
        checkpoint: Checkpoint | None = None,
        progress: bool = False,
    ) -> None:
        self.num_epochs, self.parts, self.checkpoint = num_epochs, parts, checkpoint
        self.done = checkpoint.load(parts) if checkpoint else 0
        self.bar = tqdm(total=num_epochs, initial=self.done, desc=description, disable=not progress)

    def __iter__(self) -> Iterator[int]:
        with self.bar:
            for epoch in range(self.done, self.num_epochs):
                yield epoch
                self.bar.update()
                if self.checkpoint and self.checkpoint.is_due():
                    self.checkpoint.save(epoch + 1, self.parts)

    def show(self, curves: Curves) -> None:
        """Write the last value of each curve beside the bar."""
        self.bar.set_postfix({name: f"{curve[-1]:.3f}" for name, curve in curves.items() if curve})
