"""Break central lines of the library one at a time, and see whether the quick tests notice.

    python -m tools.mutate               # all of them; prints each with what became of it, and the survivors
    python -m tools.mutate payoffs cut   # those of modules whose names contain one of the words

Each mutant is made in a copy of the repository, and the tests of its package run against it. A test that runs into its
limit of time has noticed too.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
NEEDED = ("sobolev_lib", "tests", "tools", "notebooks", "benchmarks", "results", "book", "pyproject.toml", "README.md")
LIMIT = 600  # seconds for the tests of one mutant


@dataclass(frozen=True)
class Mutant:
    """A line of a module, which stands in it once, and what it is changed to."""

    module: str
    line: str
    broken: str

    def applied_to(self, text: str) -> str:
        """Return the module's text with the line changed."""
        if text.count(self.line) != 1:
            raise ValueError(f"{self.module}: got {text.count(self.line)} times {self.line!r}, need once")
        return text.replace(self.line, self.broken)


MUTANTS: tuple[Mutant, ...] = ()


def source(mutant: Mutant, root: Path = ROOT) -> Path:
    """Return the file of a mutant's module."""
    return root / "sobolev_lib" / f"{mutant.module.replace('.', '/')}.py"


def survives(mutant: Mutant, copy: Path) -> bool:
    """Tell whether the quick tests of the mutant's package pass in a copy of the repository."""
    path = source(mutant, copy)
    text = path.read_text(encoding="utf-8")
    path.write_text(mutant.applied_to(text), encoding="utf-8")
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-m", "not slow", "-p", "no:cacheprovider"]
    tests = copy / "tests" / mutant.module.split(".")[0]
    environment = os.environ | {"PYTHONPATH": str(copy), "OMP_NUM_THREADS": "1", "TQDM_DISABLE": "1"}
    try:
        done = subprocess.run([*command, str(tests)], cwd=copy, env=environment, capture_output=True, timeout=LIMIT)
    except subprocess.TimeoutExpired:
        return False
    finally:
        path.write_text(text, encoding="utf-8")
    return done.returncode == 0


def main() -> int:
    """Try the mutants and return how many survived."""
    parser = argparse.ArgumentParser(description="Break central lines one at a time and run the quick tests.")
    parser.add_argument("words", nargs="*", help="parts of module names (none: all)")
    words = parser.parse_args().words
    chosen = [m for m in MUTANTS if not words or any(word in m.module for word in words)]
    survivors = []
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder, "copy")
        copy.mkdir()
        for name in NEEDED:
            (shutil.copytree if (ROOT / name).is_dir() else shutil.copy)(ROOT / name, copy / name)
        for mutant in chosen:
            alive = survives(mutant, copy)
            survivors += [mutant] * alive
            print(f"{'SURVIVED' if alive else 'caught':9} {mutant.module}: {mutant.broken.strip()}", flush=True)
    print(f"{len(chosen) - len(survivors)} of {len(chosen)} caught")
    return len(survivors)


if __name__ == "__main__":
    sys.exit(main())
