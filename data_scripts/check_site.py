"""Check the built pages: they need nothing from outside, every link leads somewhere, every picture has a text.

python data_scripts/check_site.py _build/html
"""

from __future__ import annotations

import argparse
import re
import sys
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urldefrag, urlsplit

LOADING_TAGS = {"script", "img", "iframe", "source", "video", "audio", "embed"}
LOADED_LINKS = {
    "stylesheet", "icon", "shortcut icon", "preload", "modulepreload", "apple-touch-icon", "manifest", "prefetch",
}  # fmt: skip
FILE_LIKE = re.compile(r"\.(png|jpe?g|svg|gif|webp)$|^_images/|[0-9a-f]{32,}", re.IGNORECASE)
CSS_ADDRESS = re.compile(r"""url\(\s*['"]?([^'")\s]+)|@import\s+['"]([^'"]+)""")
SCRIPT_LOADS = re.compile(
    r"""\bimport\s*\(?\s*['"](https?:)?//|\.src\s*=\s*['"](https?:)?//|cdn\.plot\.ly|require\.config"""
)
FAILED = ("Traceback (most recent call last)", 'class="output traceback', "papermill-error-cell")
STDERR_WARNING = re.compile(r"\b\w*(Warning|Error): ")
SEARCH_FILES = ("searchindex.js", "search.html")
PLOTLY_DIVISION = "plotly-graph-div"


@dataclass
class Page:
    """What one HTML page loads, links to, shows and offers as anchors."""

    path: Path
    loads: list[str] = field(default_factory=list)
    links: list[str] = field(default_factory=list)
    anchors: set[str] = field(default_factory=set)
    images: list[tuple[str, str | None]] = field(default_factory=list)
    styles: list[str] = field(default_factory=list)
    scripts: list[str] = field(default_factory=list)
    classes: set[str] = field(default_factory=set)
    stderr: list[str] = field(default_factory=list)


class PageParser(HTMLParser):
    """Collects a `Page` from its HTML."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.page = Page(path)
        self.text_of: str | None = None
        self.stderr_depth = 0

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        """Note what an opening tag loads, links to or names."""
        values = {name: value or "" for name, value in attributes}
        page = self.page
        page.anchors |= {values[key] for key in ("id", "name") if key in values}
        classes = set(values.get("class", "").split())
        page.classes |= classes
        self.text_of = tag if tag in ("script", "style") else self.text_of
        if tag == "div" and (self.stderr_depth or "stderr" in classes):
            self.stderr_depth += 1
        if tag in LOADING_TAGS and values.get("src"):
            page.loads.append(values["src"])
        page.loads += [part.split()[0] for part in values.get("srcset", "").split(",") if part.strip()]
        if tag == "link" and values.get("rel", "").lower() in LOADED_LINKS:
            page.loads.append(values.get("href", ""))
        if tag in ("a", "area") and "href" in values:
            page.links.append(values["href"])
        if tag == "img":
            page.images.append((values.get("src", ""), dict(attributes).get("alt")))
        if "style" in values:
            page.styles.append(values["style"])

    def handle_endtag(self, tag: str) -> None:
        """Leave the text of a script, a style or a stderr box."""
        self.text_of = None if tag == self.text_of else self.text_of
        if tag == "div" and self.stderr_depth:
            self.stderr_depth -= 1

    def handle_data(self, data: str) -> None:
        """Keep the text of styles, scripts and stderr boxes."""
        if self.text_of:
            (self.page.styles if self.text_of == "style" else self.page.scripts).append(data)
        elif self.stderr_depth:
            self.page.stderr.append(data)


def read_page(path: Path) -> Page:
    """The parsed page at `path`."""
    parser = PageParser(path)
    parser.feed(path.read_text(encoding="utf-8"))
    return parser.page


def is_outside(address: str) -> bool:
    """True for an address on another host; data: and other local schemes are not."""
    parts = urlsplit(address)
    return bool(parts.netloc) or parts.scheme in ("http", "https", "ftp")


def local_target(page: Path, address: str) -> tuple[Path, str]:
    """File and anchor that a relative address on a page leads to."""
    address, anchor = urldefrag(address)
    target = (page.parent / unquote(urlsplit(address).path)).resolve() if address else page.resolve()
    return (target / "index.html" if target.is_dir() else target), unquote(anchor)


def style_addresses(text: str) -> list[str]:
    """Addresses that a piece of CSS loads."""
    return [first or second for first, second in CSS_ADDRESS.findall(text)]


def load_problems(page: Page) -> list[str]:
    """Outside or missing files that the page would load: scripts, styles, pictures, fonts."""
    addresses = page.loads + [address for text in page.styles for address in style_addresses(text)]
    problems = []
    for address in addresses:
        if is_outside(address):
            problems.append(f"loads {address} from outside")
        elif not address.startswith(("data:", "blob:", "#")) and not local_target(page.path, address)[0].is_file():
            problems.append(f"loads {address}, which is not there")
    hits = [hit[0] for text in page.scripts if (hit := SCRIPT_LOADS.search(text))]
    problems += [f"has a script that loads from outside: {hit}" for hit in hits]
    return problems


def link_problems(page: Page, anchors: dict[Path, set[str]]) -> list[str]:
    """Links within the site that lead to no page or no anchor."""
    problems = []
    for link in page.links:
        if is_outside(link) or urlsplit(link).scheme or link in ("", "#"):
            continue
        target, anchor = local_target(page.path, link)
        if not target.is_file():
            problems.append(f"links to {link}, which is not there")
        elif anchor and target in anchors and anchor not in anchors[target]:
            problems.append(f"links to {link}, but that page has no such anchor")
    return problems


def content_problems(page: Page) -> list[str]:
    """Pictures without a text, failed cells, warnings shown to the reader, figures without their script."""
    text = page.path.read_text(encoding="utf-8")
    problems = [
        f"picture {source} has {'no text' if not (alt or '').strip() else f'a file name as its text: {alt}'}"
        for source, alt in page.images
        if not (alt or "").strip() or FILE_LIKE.search(alt.strip())
    ]
    problems += [f"shows a failed cell ({mark})" for mark in FAILED if mark in text]
    problems += [f"shows a warning: {line.strip()}" for line in page.stderr if STDERR_WARNING.search(line)]
    if PLOTLY_DIVISION in page.classes and not any("plotly.min.js" in load for load in page.loads):
        problems.append("has a Plotly figure but does not load plotly.min.js")
    return problems


def check_site(site: Path) -> list[str]:
    """Problems of the built site, one line each; empty when it can be read with the network cable pulled out.

    Args:
        site: folder with index.html.
    """
    if not (site / "index.html").is_file():
        return [f"{site} holds no index.html; run `make book` first"]
    static = site / "_static"
    pages = [read_page(path) for path in sorted(site.rglob("*.html")) if static not in path.parents]
    anchors = {page.path.resolve(): page.anchors for page in pages}
    problems = [f"{name} is not there: search cannot work" for name in SEARCH_FILES if not (site / name).is_file()]
    for page in pages:
        found = load_problems(page) + link_problems(page, anchors) + content_problems(page)
        problems += [f"{page.path.relative_to(site)}: {problem}" for problem in dict.fromkeys(found)]
    for sheet in sorted(site.rglob("*.css")):
        outside = filter(is_outside, style_addresses(sheet.read_text(encoding="utf-8", errors="replace")))
        problems += [f"{sheet.relative_to(site)}: loads {address} from outside" for address in outside]
    return problems


def summary(site: Path) -> str:
    """One line: number of pages, pictures and megabytes."""
    files = [path for path in site.rglob("*") if path.is_file()]
    pages = [path for path in files if path.suffix == ".html" and "_static" not in path.parts]
    size = sum(path.stat().st_size for path in files) / 1e6
    return f"{len(pages)} pages, {size:.1f} MB, all links lead somewhere, nothing comes from outside"


def main() -> int:
    """Command line: SITE; exit status 1 and one line per problem when there are any."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("site", type=Path)
    site = parser.parse_args().site
    if problems := check_site(site):
        print("\n".join(problems), file=sys.stderr)
        print(f"{len(problems)} problems in {site}", file=sys.stderr)
        return 1
    print(summary(site))
    return 0


if __name__ == "__main__":
    sys.exit(main())
