"""The site's configuration. Pages under `reference/` are written from the code at each build."""

import sys
from importlib.metadata import version as installed
from pathlib import Path
from typing import TYPE_CHECKING

from pygments.lexers import BashLexer

if TYPE_CHECKING:
    from sphinx.application import Sphinx

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

project = "Genmill"
author = "the Genmill authors"
release = version = installed("genmill")
html_title = f"Genmill {release}"

extensions = ["myst_parser", "declarations"]
source_suffix = {".md": "markdown"}
exclude_patterns = ["_build", "**/_*.md"]  # files called _name.md are included by others

myst_enable_extensions = ["attrs_inline", "colon_fence", "deflist"]
myst_heading_anchors = 3
nitpicky = True
smartquotes_action = "qe"  # curly quotes and ellipses; `--` begins an option
show_warning_types = True

html_theme = "furo"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_show_sphinx = False
html_show_copyright = False
html_copy_source = False
html_use_index = False
html_show_sourcelink = False


def setup(app: "Sphinx") -> None:
    """Colour `console` blocks, which show commands without prompts, like shell scripts."""
    app.add_lexer("console", BashLexer)
