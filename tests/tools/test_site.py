"""The documents as a site."""

import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
from markdown_it import MarkdownIt
from pymdownx.slugs import slugify

ROOT = Path(__file__).parents[2]
PAGES = sorted(file.relative_to(ROOT / "docs") for file in ROOT.glob("docs/**/*.md"))
BLOCKS = ("h1", "h2", "h3", "li", "ol", "pre", "table", "tr", "ul")
"""What a reader would miss; what stands in a line is a matter of taste."""


class Blocks(HTMLParser):
    """How many of each block there are in the text of a page, and what it loads from elsewhere."""

    def __init__(self, *, whole: bool) -> None:
        super().__init__()
        self.counts = dict.fromkeys(BLOCKS, 0)
        self.loaded: list[str] = []
        self._whole, self._depth = whole, 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        target = given.get("src") or (given.get("href") if tag == "link" else None) or ""
        if re.match(r"(https?:)?//", target) and given.get("rel") != "canonical":
            self.loaded.append(target)
        self._depth += tag == "article"
        if tag in BLOCKS and (self._whole or self._depth):
            self.counts[tag] += 1

    def handle_endtag(self, tag: str) -> None:
        self._depth -= tag == "article"


def blocks(html: str, *, whole: bool = False) -> Blocks:
    found = Blocks(whole=whole)
    found.feed(html)
    return found


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As ``make docs`` builds it: a warning is an error."""
    folder = tmp_path_factory.mktemp("site")
    build = (sys.executable, "-m", "mkdocs", "build", "--strict")
    run = subprocess.run(
        [*build, "--site-dir", str(folder)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    return folder


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_a_page_has_the_blocks_that_it_has_on_a_forge(site: Path, page: Path) -> None:
    """MkDocs reads another Markdown than forges do: lists, say, are indented by four."""
    commonmark = MarkdownIt("commonmark").enable("table")
    there = blocks(commonmark.render((ROOT / "docs" / page).read_text()), whole=True)

    assert blocks((site / page.with_suffix(".html")).read_text()).counts == there.counts


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_a_page_loads_nothing_from_elsewhere(site: Path, page: Path) -> None:
    assert blocks((site / page.with_suffix(".html")).read_text()).loaded == []


def test_a_file_outside_that_is_linked_to_is_there(site: Path) -> None:
    page = (site / "throttling-twin.html").read_text()

    assert 'href="checkout/hw_profiles/pi5-8gb.toml"' in page
    assert (site / "checkout/hw_profiles/pi5-8gb.toml").is_file()


# Documents that are no pages


OUTSIDE = [
    *(ROOT / name for name in ("README.md", "ARCHITECTURE.md", "SECURITY.md")),
    *sorted(ROOT.glob("benchmarks/*.md")),
]


def anchors(document: Path) -> set[str]:
    """Of its headings, as forges make them."""
    text = re.sub(r"^```.*?^```", "", document.read_text(), flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {slugify(case="lower")(heading.replace("`", ""), "-") for heading in headings}


@pytest.mark.parametrize("document", OUTSIDE, ids=lambda file: file.name)
def test_a_document_outside_links_to_what_there_is(document: Path) -> None:
    links = re.findall(r"\]\(([^)#:\s]*)(?:#([^)\s]+))?\)", document.read_text())
    targets = [(document.parent / path if path else document, anchor) for path, anchor in links]
    wrong = [
        (str(target), anchor)
        for target, anchor in targets
        if not target.exists() or (anchor and anchor not in anchors(target))
    ]

    assert links
    assert wrong == []
