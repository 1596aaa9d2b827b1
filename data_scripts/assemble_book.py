"""Put together the pages of a book for one profile: its chapters, the pages around them, and a table of contents.

    python data_scripts/assemble_book.py --profile mvtec3d --target runs/mvtec3d/book

The demo's book has every chapter and lies in book/ as it is. A profile of real data runs fewer; its executed chapters
lie in <target>/chapters already. The pages for teaching, which speak of the demo's chapters, stay out. Links to pages
that it does not have become plain text.
"""

from __future__ import annotations

import argparse
import re
import shutil
import sys
from collections.abc import Collection
from pathlib import Path
from typing import Any

import yaml

from lib.config import project_root
from lib.errors import InputError, run_command_line
from lib.profiles import Profile, load_profile

ROOT_PAGE = "intro_real"
DOC_LINK = re.compile(r"\{doc\}`(?:[^`<]*<)?(?:\.\./)?([\w/]+)>?`")
CHAPTER_FOLDER = "chapters"
DEMO_ONLY = re.compile(r"part_\d+_\w+|teaching|cheat_sheet")  # pages around the chapters that only the demo's book has


def contents(profile: Profile, whole: dict[str, Any]) -> dict[str, Any]:
    """The table of contents cut to the chapters of a profile, without pages for teaching, with its own first page.

    Args:
        profile: names the chapters.
        whole: the table of contents of the demo's book.
    """
    kept = {f"{CHAPTER_FOLDER}/{stem}" for stem in profile.chapters}
    parts = []
    for part in whole["parts"]:
        pages = [entry for entry in part["chapters"] if is_kept(entry["file"], kept)]
        parts += [{**part, "chapters": pages}] if pages else []
    return {**whole, "root": ROOT_PAGE, "parts": parts}


def is_kept(page: str, chapters: Collection[str]) -> bool:
    """Whether a page of the demo's book belongs into an edition with these chapters."""
    is_chapter = page.startswith(f"{CHAPTER_FOLDER}/")
    return page in chapters if is_chapter else not DEMO_ONLY.fullmatch(page)


def without_dead_links(text: str, pages: Collection[str]) -> str:
    """The text of a page with links to pages that are not there as plain text.

    Args:
        text: Markdown, or a notebook's JSON.
        pages: that are there, as the table of contents names them.
    """
    names = {Path(page).name for page in pages}
    return DOC_LINK.sub(lambda link: link[0] if Path(link[1]).name in names else f"*{Path(link[1]).name}*", text)


def assemble(profile: Profile, target: Path) -> None:
    """Write the pages around the chapters, the table of contents and all that pages load into the target folder.

    Raises:
        InputError: an executed chapter is missing in the target folder.
    """
    source = project_root() / "book"
    toc = contents(profile, yaml.safe_load((source / "_toc.yml").read_text(encoding="utf-8")))
    pages = [ROOT_PAGE, *(entry["file"] for part in toc["parts"] for entry in part["chapters"])]
    target.mkdir(parents=True, exist_ok=True)
    shutil.copytree(source / "_static", target / "_static", dirs_exist_ok=True)
    shutil.copy(source / "references.bib", target)
    for page in pages:
        path = target / f"{page}.ipynb" if page.startswith(f"{CHAPTER_FOLDER}/") else source / f"{page}.md"
        if not path.is_file():
            raise InputError(f"{path} does not exist; run the notebook first")
        text = without_dead_links(path.read_text(encoding="utf-8"), pages).replace("PROFILE_NAME", profile.name)
        (target / f"{page}{path.suffix}").write_text(text, encoding="utf-8")
    (target / "_toc.yml").write_text(yaml.safe_dump(toc, sort_keys=False), encoding="utf-8")


def main() -> None:
    """Command line: --profile NAME --target FOLDER."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--profile", required=True)
    parser.add_argument("--target", type=Path, required=True, help="folder that holds chapters/ already")
    arguments = parser.parse_args()
    assemble(load_profile(arguments.profile), arguments.target)


if __name__ == "__main__":
    sys.exit(run_command_line(main))
