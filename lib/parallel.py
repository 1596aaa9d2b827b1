"""Independent work on several processes, in order, with a bar."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import Any

from tqdm.auto import tqdm


def end_with_parent() -> None:
    """Let this process end as soon as its parent does; give it to a pool as `initializer`.

    A pool whose owner was killed would else work on beside the next run, and then wait for ever.
    """
    parent = multiprocessing.parent_process()

    def wait_and_end() -> None:
        parent.join()
        os._exit(1)

    if parent is not None:
        threading.Thread(target=wait_and_end, daemon=True).start()


def in_processes(
    function: Callable[[Any], Any], items: Sequence[Any], jobs: int, description: str, progress: bool = False
) -> Iterator[Any]:
    """What a function gives for each item, in the items' order; an error ends the rest.

    Args:
        function: of a module, so that another process finds it; must not depend on what ran before.
        items: its arguments.
        jobs: processes; with 1 all runs here.
        description: of the bar.
        progress: show it.
    """
    bar = tqdm(total=len(items), desc=description, disable=not progress)
    with bar:
        if jobs <= 1 or len(items) <= 1:
            for item in items:
                yield function(item)
                bar.update()
            return
        with ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn"), end_with_parent) as pool:
            try:
                for result in pool.map(function, items, chunksize=1):
                    yield result
                    bar.update()
            finally:
                pool.shutdown(wait=True, cancel_futures=True)
