"""Zip the built site, so that it can be sent and read without a server."""

from __future__ import annotations

import argparse
import sys
import zipfile
from pathlib import Path

from lib.runtime import atomic_path

LIMIT_MB = 40
EPOCH = (1980, 1, 1, 0, 0, 0)  # the archive depends on the pages alone, not on when they were packed


def pack(site: Path, archive: Path) -> float:
    """Size in MB of the archive written from the folder `site`, whose files lie under `book/` in it."""
    with atomic_path(archive) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as packed:
        for path in sorted(path for path in site.rglob("*") if path.is_file()):
            entry = zipfile.ZipInfo(f"book/{path.relative_to(site).as_posix()}", date_time=EPOCH)
            packed.writestr(entry, path.read_bytes(), zipfile.ZIP_DEFLATED)
    return archive.stat().st_size / 1e6


def main() -> int:
    """Command line: SITE ARCHIVE; exit status 1 when there is no site or the archive is too large."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("site", type=Path)
    parser.add_argument("archive", type=Path)
    arguments = parser.parse_args()
    if not (arguments.site / "index.html").is_file():
        print(f"{arguments.site} holds no built site; run `make book` first", file=sys.stderr)
        return 1
    size = pack(arguments.site, arguments.archive)
    if size > LIMIT_MB:
        arguments.archive.unlink()
        print(f"{arguments.archive} has {size:.1f} MB, over {LIMIT_MB} MB: make the figures smaller", file=sys.stderr)
        return 1
    print(f"{arguments.archive}: {size:.1f} MB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
