"""Find the programs beside Python that the tests and the PDF use; get what is missing where that is possible.

    python -m tools.programs                  # browser, C compiler, node
    python -m tools.programs --only browser

A browser is the one that CHROMIUM names, else one that is installed, else the headless one that playwright downloads
into the environment. What is missing after that comes from Debian or Ubuntu, for root. If a program stays missing,
the tests that need it are skipped and say so (``tests/conftest.py``), and with CI set they fail.
"""

import argparse
import os
import shutil
import subprocess
import sys
from pathlib import Path

DOWNLOADS = Path(sys.prefix) / "browsers"
INSTALLED = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome", "msedge")
APPLICATIONS = (
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
    "/Applications/Chromium.app/Contents/MacOS/Chromium",
)
PACKAGES = {
    "browser": ("chromium", "fonts-dejavu-core", "fonts-liberation"),
    "compiler": ("gcc", "libc6-dev"),
    "node": ("nodejs",),
}
FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage")


def find(name: str) -> str | None:
    """Return the path of a program, None if there is none: ``browser``, ``compiler`` or ``node``."""
    if name == "browser":
        return _browser()
    return next(filter(None, map(shutil.which, {"compiler": ("cc", "gcc", "clang"), "node": ("node",)}[name])), None)


def _browser() -> str | None:
    named = os.environ.get("CHROMIUM")
    if named:
        if shutil.which(named) is None:
            raise ValueError(f"CHROMIUM: got {named!r}, need the path of a Chromium or Chrome")
        return shutil.which(named)
    downloaded = (str(path) for path in sorted(DOWNLOADS.glob("*/*/*headless*shell*")) if os.access(path, os.X_OK))
    return next(filter(None, (*map(shutil.which, (*INSTALLED, *APPLICATIONS)), *filter(_starts, downloaded))), None)


def _starts(browser: str) -> bool:
    """Tell whether a downloaded browser finds the system's libraries that it needs."""
    return _run(browser, *FLAGS, "--dump-dom", "about:blank", timeout=60)


def get(names: list[str]) -> None:
    """Fetch what is missing: a browser by playwright, all else and what it could not fetch from the distribution."""
    if "browser" in names and find("browser") is None:
        settings = {"PLAYWRIGHT_BROWSERS_PATH": str(DOWNLOADS), "PLAYWRIGHT_DOWNLOAD_CONNECTION_TIMEOUT": "10000"}
        _run(sys.executable, "-m", "playwright", "install", "--only-shell", "chromium", timeout=600, **settings)
    missing = [name for name in names if find(name) is None]
    if missing and shutil.which("apt-get") and os.geteuid() == 0:
        packages = [package for name in missing for package in PACKAGES[name]]
        install = ("apt-get", "install", "-y", "-qq", "--no-install-recommends", *packages)
        quiet = {"DEBIAN_FRONTEND": "noninteractive"}
        _ = _run(*install, timeout=600, **quiet) or (
            _run("apt-get", "update", "-qq", timeout=300) and _run(*install, timeout=600, **quiet)
        )


def _run(*command: str, timeout: int, **settings: str) -> bool:
    """Run a command without a word and tell whether it succeeded."""
    try:
        done = subprocess.run(
            command, env=os.environ | settings, stdin=subprocess.DEVNULL, capture_output=True, timeout=timeout
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0


def main() -> int:
    """Get the programs and say what is missing."""
    parser = argparse.ArgumentParser(description="Find or get the programs that the tests and the PDF use.")
    parser.add_argument("--only", choices=PACKAGES, help="one of them")
    names = [only] if (only := parser.parse_args().only) else list(PACKAGES)
    try:
        get(names)
    except ValueError as error:
        parser.error(str(error))
    missing = [name for name in names if find(name) is None]
    if missing:
        packages = " ".join(package for name in missing for package in PACKAGES[name])
        print(
            f"Not found, and not to be had from here: {', '.join(missing)}. Debian, Ubuntu: apt-get install {packages}."
            " Elsewhere install one; CHROMIUM=PATH names a browser.",
            file=sys.stderr,
        )
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main())
