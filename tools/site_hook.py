"""A hook of MkDocs: files outside of ``docs/`` that documents link to become part of the site.

So the same link holds in a checkout, on a forge and in the site. Documents outside (``.md``) are no
pages, and a link to one stays an error.
"""

import re
from pathlib import Path
from typing import Final

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

LINK: Final = re.compile(r"\]\(\.\./(?P<path>[\w./-]+)\)")
FOLDER: Final = "checkout"
"""Where they lie in the site."""


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Take in what is linked to."""
    root = Path(config.docs_dir).parent
    for page in list(files.documentation_pages()):
        for path in LINK.findall(page.content_string):
            file, name = root / path, f"{FOLDER}/{path}"
            if _is_taken(page, file) and files.get_file_from_path(name) is None:
                files.append(File.generated(config, name, abs_src_path=str(file)))
    return files


def on_page_markdown(markdown: str, files: Files, **_: object) -> str:
    """Point the links to where they lie."""

    def pointed(link: re.Match[str]) -> str:
        name = f"{FOLDER}/{link['path']}"
        return link[0] if files.get_file_from_path(name) is None else f"]({name})"

    return LINK.sub(pointed, markdown)


def _is_taken(page: File, file: Path) -> bool:
    return "/" not in page.src_uri and file.is_file() and file.suffix != ".md"
