"""How the documentation is built: `make docs`. Offline, and a warning is an error."""

import re
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE / "_ext"), str(HERE.parent)]

project = "Sluice"
author = "The Sluice maintainers"
project_copyright = "The Sluice maintainers, Apache-2.0"
release = re.findall(
    r"^## \[(\d[^\]]*)\]", (HERE.parent / "CHANGELOG.md").read_text("utf-8"), re.M
)[0]
version = release

extensions = ["myst_parser", "sluice_reference"]
myst_enable_extensions = ["substitution"]
myst_substitutions = {"release": release}
myst_heading_anchors = 3
exclude_patterns = ["_build", "_ext"]

html_theme = "furo"
html_title = f"Sluice {release}"
html_copy_source = False
html_show_sourcelink = False
html_static_path = ["_static"]
html_css_files = ["sluice.css"]
html_favicon = "../static/img/favicon.svg"
# A reader in a plant has no network: nothing may be fetched from elsewhere.
html_theme_options = {"sidebar_hide_name": False}
