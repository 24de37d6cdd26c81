"""A chapter that is opened elsewhere than in a clone finds the library or installs it, by its first cell."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tools import execute

ROOT = Path(__file__).resolve().parents[2]
SOURCES = execute.sources(ROOT / "notebooks", [])
FIRST = [execute.read(source).cells[0] for source in SOURCES]
RUN = """
import sys
from pathlib import Path
sys.path[:] = [entry for entry in sys.path if not Path(entry, "sobolev_lib").exists()] + sys.argv[3:]
from IPython.core.interactiveshell import InteractiveShell
shell = InteractiveShell()
shell.user_ns["input"] = lambda text: sys.argv[2]
shell.run_cell(Path(sys.argv[1]).read_text()).raise_error()
"""


def run(cell: str, folder: Path, address: str, *installed: Path, **environment: str) -> subprocess.CompletedProcess:
    """Run a cell in a folder, without this library unless it is given, answering whoever asks for the address."""
    (folder / "cell.py").write_text(cell, encoding="utf-8")
    command = [sys.executable, "-c", RUN, str(folder / "cell.py"), address, *map(str, installed)]
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"} | environment
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)


@pytest.fixture(scope="module")
def repository(tmp_path_factory) -> Path:
    """A git repository with what the first cell needs of this one."""
    folder = tmp_path_factory.mktemp("repository")
    for name in ("sobolev_lib", "notebooks", "results"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "*.ipynb", ".*"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    author = ["-c", "user.name=A", "-c", "user.email=a@example.org"]
    for words in (["init", "-q"], ["add", "."], [*author, "commit", "-q", "-m", "all"]):
        subprocess.run(["git", *words], cwd=folder, check=True)
    return folder


def test_every_chapter_begins_with_the_same_cell_which_the_book_leaves_out():
    assert len({cell.source for cell in FIRST}) == 1
    assert all(cell.cell_type == "code" and cell.metadata.tags == ["remove-cell"] for cell in FIRST)


def test_elsewhere_it_fetches_a_clone_and_installs_from_it(repository, tmp_path):
    cell = FIRST[0].source + "\nprint(Path.cwd(), Path('../sobolev_lib').exists())"
    target = str(tmp_path / "packages")
    settings = dict(PIP_NO_DEPS="1", PIP_TARGET=target, PIP_NO_BUILD_ISOLATION="0", PIP_NO_INDEX="1")
    done = run(cell, tmp_path, repository.as_uri(), **settings)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1] == f"{tmp_path / 'sobolev-pruning' / 'notebooks'} True"
    assert Path(target, "sobolev_lib", "network", "surrogate.py").exists(), done.stdout + done.stderr


HERE = "\nprint(Path.cwd())"


def test_in_a_clone_with_the_library_it_does_nothing(repository):
    done = run(FIRST[0].source + HERE, repository / "notebooks", "nowhere", repository)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{repository / 'notebooks'}\n", "")


def test_elsewhere_with_a_library_that_lies_in_a_clone_it_goes_there_where_chapters_find_results(repository, tmp_path):
    done = run(FIRST[0].source + HERE, tmp_path, "nowhere", repository)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{repository / 'notebooks'}\n", "")


def test_elsewhere_with_the_library_alone_it_asks_for_nothing_and_stays(repository, tmp_path):
    shutil.copytree(repository / "sobolev_lib", tmp_path / "packages" / "sobolev_lib")
    done = run(FIRST[0].source + HERE, tmp_path, "nowhere", tmp_path / "packages")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{tmp_path}\n", "")


def test_the_address_is_written_where_the_cell_reads_it(tmp_path):
    source = tmp_path / "00_sample.md"
    shutil.copy(SOURCES[0], source)
    execute.write_address(source, "https://example.org/a/b")
    names = {"Path": Path}
    exec(execute.read(source).cells[0].source.partition("library =")[0], names)
    assert names["REPO"] == "https://example.org/a/b"
    with pytest.raises(SystemExit, match="--repo: got 'ftp://x', need an address that begins with https://"):
        execute.write_address(source, "ftp://x")
