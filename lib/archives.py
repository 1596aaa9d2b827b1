"""Tar archives unpacked safely: nothing outside the folder, nothing half, nothing overwritten."""

from __future__ import annotations

import json
import lzma
import os
import shutil
import tarfile
import zlib
from collections.abc import Sequence
from pathlib import Path

from filelock import FileLock
from tqdm.auto import tqdm

from lib.downloads import HTML, is_html
from lib.errors import InputError

MEGABYTES_FREE_PER_MEGABYTE = 1.2  # of the archive; images and clouds hardly compress further
RECORD = ".unpacked-{}.json"


def unpack(archive: Path, folder: Path, expected: Sequence[str], progress: bool = False) -> list[Path]:
    """The expected folders inside `folder`, unpacked from a tar archive of any compression; at once where they are.

    All goes into a hidden folder first and is moved when it is complete, so that a kill leaves no half category. What
    lies under a final name already is never touched.

    Args:
        archive: the file.
        folder: where the expected folders come; made if missing.
        expected: names of folders; they may lie at the top of the archive, within one folder of any name, or, where
            only one is expected, be its whole content.
        progress: show a bar of bytes.

    Raises:
        InputError: no tar archive, a damaged or incomplete one, a member that would leave the folder, expected folders
            that are not there or that come from another archive, or too little space.
    """
    if not archive.is_file():
        raise InputError(f"{archive}: no such file; download it first")
    folder.mkdir(parents=True, exist_ok=True)
    record = folder / RECORD.format(archive.name)
    facts = {"bytes": archive.stat().st_size, "folders": list(expected)}
    targets = {name: folder / name for name in expected}
    with FileLock(folder / f".{archive.name}.lock"):
        there = [target for target in targets.values() if target.exists()]
        if there and _stored(record) != facts:
            raise _foreign(there[0])
        if len(there) < len(targets):
            _check_space(archive, folder)
            _unpack_missing(archive, folder, targets, record, facts, progress)
    return list(targets.values())


def refuse_foreign(archive: Path, folder: Path, expected: Sequence[str]) -> None:
    """What `unpack` would refuse for folders that are there without it, told before the archive is fetched.

    Args:
        archive, folder, expected: as for `unpack`; the archive need not be there yet.
    """
    there = [folder / name for name in expected if (folder / name).exists()]
    if there and not (folder / RECORD.format(archive.name)).is_file():
        raise _foreign(there[0])


def _foreign(target: Path) -> InputError:
    return InputError(
        f"{target} is there, and this archive did not put it there; move it away or give another folder: "
        "nothing is overwritten"
    )


def _unpack_missing(
    archive: Path, folder: Path, targets: dict[str, Path], record: Path, facts: object, progress: bool
) -> None:
    """Move what is not there yet into place; the record comes first, so that a kill in between can be told later."""
    temporary = folder / f".{archive.name}.unpacking"
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        _extract(archive, temporary, progress)
        sources = _expected_folders(temporary, tuple(targets), archive)
        record.write_text(json.dumps(facts), encoding="utf-8")
        for name, target in targets.items():
            if not target.exists():
                os.replace(sources[name], target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _stored(record: Path) -> object:
    try:
        return json.loads(record.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _check_space(archive: Path, folder: Path) -> None:
    needed, free = MEGABYTES_FREE_PER_MEGABYTE * archive.stat().st_size / 1e6, shutil.disk_usage(folder).free / 1e6
    if needed > free:
        raise InputError(f"{folder}: {free:.0f} MB free, {archive.name} needs about {needed:.0f}; make room")


def _extract(archive: Path, temporary: Path, progress: bool) -> None:
    """All members below `temporary`; tarfile's data filter refuses what would leave it, links and devices included."""
    size = archive.stat().st_size
    try:
        _check_end(archive)
        with (
            open(archive, "rb") as stream,
            tarfile.open(fileobj=stream, mode="r:*") as tar,
            tqdm(desc=archive.name, total=size, unit="B", unit_scale=True, disable=not progress) as bar,
        ):
            for member in tar:
                if not (member.isfile() or member.isdir()):
                    raise InputError(
                        f"{archive}: {member.name!r} is neither a file nor a folder; do not use this archive"
                    )
                tar.extract(member, temporary, filter="data")
                bar.update(stream.tell() - bar.n)
    except tarfile.FilterError as error:
        raise InputError(f"{archive}: {error}; it would write outside its folder: do not use this archive") from error
    except (tarfile.TarError, lzma.LZMAError, EOFError, zlib.error, OSError) as error:
        kind, cause = HTML if is_html(archive) else "no whole tar archive", " ".join(str(error).split())
        raise InputError(f"{archive}: {kind} ({cause}); the download is cut off or damaged: fetch it again") from error


def _check_end(archive: Path) -> None:
    """A tar ends with zeros; a plain one that stops between two members was cut off there, as no reader notices."""
    with open(archive, "rb") as stream:
        is_plain = stream.read(tarfile.BLOCKSIZE)[257:262] == b"ustar"
        stream.seek(max(0, archive.stat().st_size - 2 * tarfile.BLOCKSIZE))
        if is_plain and stream.read().strip(tarfile.NUL):
            raise tarfile.ReadError("it stops without an end mark")


def _expected_folders(temporary: Path, expected: Sequence[str], archive: Path) -> dict[str, Path]:
    """Where in the unpacked archive each expected folder lies."""
    tops = sorted(temporary.iterdir()) if temporary.is_dir() else []
    for place in (temporary, *(path for path in tops if path.is_dir())):
        if all((place / name).is_dir() for name in expected):
            return {name: place / name for name in expected}
    if len(expected) == 1 and (temporary / "train").is_dir():
        return {expected[0]: temporary}
    held = ", ".join(path.name for path in tops[:5]) or "nothing"
    raise InputError(f"{archive}: holds {held}, not {', '.join(expected)}; is it the archive of another dataset?")
