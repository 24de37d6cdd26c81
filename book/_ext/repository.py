"""Launch, edit and issue buttons, present when the book is built with ``REPO`` and absent otherwise."""

import os
import re
from pathlib import Path

from sphinx.application import Sphinx
from sphinx.config import Config


def add_buttons(app: Sphinx, config: Config) -> None:
    """Point the theme's buttons at the repository that the variable REPO names."""
    url = os.environ.get("REPO", "").rstrip("/").removesuffix(".git")
    if not url:
        return
    config.html_theme_options.update(
        repository_url=url,
        repository_branch="main",
        path_to_docs="",
        use_repository_button=True,
        use_edit_page_button=True,
        use_issues_button=True,
        launch_buttons={
            "notebook_interface": "jupyterlab",
            "binderhub_url": "https://mybinder.org",
            "colab_url": "https://colab.research.google.com",
        },
    )


def edit_sources(app: Sphinx, exception: Exception | None) -> None:
    """Let a chapter's edit button open its source, not the notebook that is written from it."""
    if exception or app.builder.format != "html" or not os.environ.get("REPO"):
        return
    for path in Path(app.outdir, "notebooks").glob("*.html"):
        page = path.read_text(encoding="utf-8")
        path.write_text(re.sub(r"(/edit/[^\"]+)\.ipynb\"", r'\1.md"', page), encoding="utf-8")


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the steps, the first before the theme reads its options."""
    app.connect("config-inited", add_buttons, priority=100)
    app.connect("build-finished", edit_sources)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
