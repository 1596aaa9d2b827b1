"""Work on several processes gives what a loop gives, in order, and stops at an error."""

from __future__ import annotations

import math

import pytest

from lib.parallel import in_processes


@pytest.mark.parametrize("jobs", [1, 3])
def test_results_come_in_order(jobs: int) -> None:
    assert list(in_processes(math.sqrt, [9.0, 4.0, 1.0, 0.0], jobs, "roots")) == [3, 2, 1, 0]
    assert list(in_processes(math.sqrt, [], jobs, "roots")) == []


@pytest.mark.parametrize("jobs", [1, 2])
def test_an_error_ends_the_rest(jobs: int) -> None:
    with pytest.raises(ValueError, match="math domain"):
        list(in_processes(math.sqrt, [1.0, -1.0, 4.0], jobs, "roots"))


def test_a_bar_counts(capsys: pytest.CaptureFixture[str]) -> None:
    list(in_processes(math.sqrt, [1.0, 4.0], 1, "roots", progress=True))
    assert "roots: 100%" in capsys.readouterr().err
