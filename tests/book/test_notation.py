"""The page of notation holds the letters that the chapters' formulas use, and no others."""

import re
from pathlib import Path

import jupytext
import pytest

from tools import execute

ROOT = Path(__file__).resolve().parents[2]
GREEK = (
    "alpha beta gamma delta epsilon varepsilon zeta eta theta kappa lambda mu nu xi pi rho sigma tau upsilon phi "
    "varphi chi psi omega Gamma Delta Theta Lambda Xi Pi Sigma Phi Psi Omega ell nabla partial"
).split()
WORDS = r"\\(?:text|operatorname|mathrm|mathit|label|begin|end)\*?\s*(?:\{[^{}]*\}|[A-Za-z])"
MARKED = r"\\(hat|mathcal|mathbf)\s*\{?\s*\\?([A-Za-z]+)\}?"
LOOSE = r"\\(?:dot|bar|overline|underline|tilde)\b"  # belong to the letter that they mark


def formulas(text: str) -> list[str]:
    """Return the formulas of a Markdown text."""
    text = re.sub(r"(?<!`)`[^`\n]+`(?!`)", "", text)
    found = re.findall(r"\$\$(.*?)\$\$|\{math\}(.*?)```", text, re.DOTALL)
    within = re.findall(r"(?<![\\$])\$([^$]+)\$", re.sub(r"\$\$.*?\$\$", "", text, flags=re.DOTALL))
    return [a or b for a, b in found] + within


def letters(text: str) -> set[str]:
    """Return the letters in the formulas of a text, Greek ones by name, with hats or typefaces of their own."""
    found = set()
    for formula in formulas(text):
        formula = re.sub(LOOSE, " ", re.sub(WORDS, " ", formula))
        found |= {" ".join(pair) for pair in re.findall(MARKED, formula)}
        formula = re.sub(MARKED, " ", formula)
        found |= {name for name in re.findall(r"\\([A-Za-z]+)", formula) if name in GREEK}
        found |= set(re.findall(r"[A-Za-z]", re.sub(r"\\[A-Za-z]+", " ", formula)))
    return found


def prose(source: Path) -> str:
    return "\n\n".join(cell.source for cell in jupytext.read(source).cells if cell.cell_type == "markdown")


CHAPTERS = execute.sources(ROOT / "notebooks", [])
LISTED = letters((ROOT / "book" / "notation.md").read_text(encoding="utf-8"))


@pytest.mark.parametrize("source", CHAPTERS, ids=lambda path: path.stem)
def test_every_letter_of_a_chapter_is_in_the_notation(source):
    assert sorted(letters(prose(source)) - LISTED) == []


def test_the_notation_lists_no_letter_that_no_chapter_uses():
    assert sorted(LISTED - set().union(*(letters(prose(source)) for source in CHAPTERS))) == []


def test_letters_are_read_out_of_formulas():
    text = r"Let $\hat y_i = \dot{\bar z}$, `$q$` and $$\operatorname{mag} [\mathcal K] \le \tfrac12 \sigma(x)$$"
    assert letters(text) == {"hat y", "i", "z", "mathcal K", "sigma", "x"}
