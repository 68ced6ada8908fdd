"""How Sphinx makes a site of the pages, which stay as GitHub shows them (`make site`)."""

from __future__ import annotations

from pathlib import Path

from docutils import nodes
from pygments.lexers.special import TextLexer
from sphinx.application import Sphinx

# Sphinx reads the repository itself, so that links between pages, and from pages to sources, are right as they are.
ROOT = Path(__file__).resolve().parents[2]

project = "pplcnet-bench"
root_doc = "docs/site/index"
include_patterns = ["README.md", "CHANGELOG.md", "CONTRIBUTING.md", "docs/*.md", "docs/site/index.md"]
# Other folders have no pages; looking through environments and results would take long.
exclude_patterns = sorted(path.name for path in ROOT.iterdir() if path.is_dir() and path.name != "docs")
extensions = ["myst_parser"]
source_suffix = {".md": "markdown"}

# Headings have GitHub's anchors, and what GitHub shows as text is text: a line that begins with %, or {word}`code`.
myst_heading_anchors = 6
myst_disable_syntax = ["myst_block_break", "myst_line_comment", "myst_role", "myst_target"]
# Two hyphens are an option's.
smartquotes = False
# A code block without a language is what a terminal shows.
highlight_language = "text"

html_theme = "furo"
html_title = project
html_show_copyright = False
html_copy_source = False
html_show_sourcelink = False
html_use_index = False
# The site's first page lies in a folder, so index.html leads there.
templates_path = ["."]
html_additional_pages = {"index": "redirect.html"}


def add_anchors(_app: Sphinx, page: nodes.document) -> None:
    """Let GitHub's anchors lead to headings of the site, too, beside those that docutils makes."""
    taken = set(page.ids)
    for section in page.findall(nodes.section):
        anchor = section.get("slug")
        if anchor is not None and anchor not in taken:
            section["ids"].append(anchor)


def setup(app: Sphinx) -> None:
    """Add what configuration alone can't say."""
    # GitHub draws pictures from this text; a script that draws them would have to be fetched.
    app.add_lexer("mermaid", TextLexer)
    app.connect("doctree-read", add_anchors)
