"""The one exception a reader of this study can cause and mend."""

from __future__ import annotations


class InputError(ValueError):
    """Bad input: one line that names the file or argument, what is wrong, and what to do."""
