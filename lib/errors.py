"""The one exception a reader of this study can cause and mend, and how scripts report it."""

from __future__ import annotations

import sys
from collections.abc import Callable

BAD_INPUT_STATUS = 2  # as argparse's own for a bad command line


class InputError(ValueError):
    """Bad input: one line that names the file or argument, what is wrong, and what to do."""


def run_command_line(main: Callable[[], int | None]) -> int:
    """Exit status of a script: what `main` returns, None as 0; after bad input 2, with one line on standard error.

    A folder that cannot be made or written, because a file is in its place for instance, is bad input too.

    Args:
        main: reads the command line and does the work.
    """
    try:
        return main() or 0
    except InputError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return BAD_INPUT_STATUS
    except (FileExistsError, NotADirectoryError, PermissionError) as error:
        advice = "give a folder that can be written to, not a file"
        print(f"InputError: {error.filename}: {error.strerror}; {advice}", file=sys.stderr)
        return BAD_INPUT_STATUS
