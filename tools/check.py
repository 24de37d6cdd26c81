"""Checks that nbval cannot do: each takes a chapter and returns its faults as sentences, none if all is well.

    python tools/check.py            # all chapters
    python tools/check.py 07         # those whose names begin so

The marks that the checks look for are those of CONTRIBUTING.md.
"""

import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

import jupytext
import nbformat
from nbformat import NotebookNode

LONGEST_CELL = 25
WIDEST_LINE = 88  # what a code cell shows on a page of usual width
FEWEST_EXERCISES = 3
SECTIONS = ("Summary", "Exercises", "References")
UNCHECKED = {"nbval-ignore-output", "nbval-skip"}
REASON = re.compile(r"^# not compared: \S", re.MULTILINE)


@dataclass(frozen=True)
class Chapter:
    """A chapter: its name, its MyST source, and its twin with outputs."""

    name: str
    source: NotebookNode
    twin: NotebookNode

    @property
    def code(self) -> list[NotebookNode]:
        """The twin's code cells, empty ones left out."""
        return [cell for cell in self.twin.cells if cell.cell_type == "code" and cell.source.strip()]

    @property
    def prose(self) -> str:
        """All text cells of the source."""
        return "\n\n".join(cell.source for cell in self.source.cells if cell.cell_type == "markdown")


def load(source: Path) -> Chapter:
    """Read a chapter's two files."""
    twin = source.with_suffix(".ipynb")
    if not twin.exists():
        raise FileNotFoundError(f"{twin}: missing; write it with python tools/execute.py {source.stem}")
    return Chapter(source.stem, jupytext.read(source), nbformat.read(twin, as_version=4))


# --- outputs --------------------------------------------------------------------------------------------------------


def twins(chapter: Chapter) -> list[str]:
    """The source and the executed notebook have the same cells."""
    ours, theirs = ([_essence(cell) for cell in book.cells] for book in (chapter.source, chapter.twin))
    if len(ours) != len(theirs):
        return [f"the source has {len(ours)} cells, the executed notebook {len(theirs)}"]
    pairs = enumerate(zip(ours, theirs, strict=True), start=1)
    return [f"cell {n} differs between source and executed notebook" for n, (a, b) in pairs if a != b]


def _essence(cell: NotebookNode) -> tuple:
    kept = {key: cell.metadata[key] for key in ("tags", "mystnb") if key in cell.metadata}
    return cell.cell_type, cell.source, kept


def counts(chapter: Chapter) -> list[str]:
    """Cells were executed from top to bottom in one fresh kernel; nbval passes a cell that was never run."""
    found = [cell.execution_count for cell in chapter.code]
    return [] if found == list(range(1, len(found) + 1)) else [f"execution counts are {found}, need 1 to {len(found)}"]


def quiet(chapter: Chapter) -> list[str]:
    """No cell raised an error or wrote to stderr."""
    faults = []
    for cell in chapter.code:
        for output in cell.outputs:
            if output.output_type == "error" or output.get("name") == "stderr":
                faults.append(f"cell [{cell.execution_count}] shows {output.get('ename', 'text on stderr')}")
    return faults


def timeless(chapter: Chapter) -> list[str]:
    """Nothing is stored that changes from run to run or machine to machine though the outputs do not."""
    cells = enumerate(chapter.twin.cells, start=1)
    faults = [f"cell {n} stores when it ran" for n, cell in cells if "execution" in cell.metadata]
    if "version" in chapter.twin.metadata.get("language_info", {}):
        faults.append("the notebook stores the version of Python")
    return faults + ["the notebook stores widgets"] * ("widgets" in chapter.twin.metadata)


def reasons(chapter: Chapter) -> list[str]:
    """A cell whose output is not compared says why."""
    return [
        f"cell [{cell.execution_count}] is not compared and has no line '# not compared: why'"
        for cell in chapter.code
        if UNCHECKED & set(cell.metadata.get("tags", [])) and not REASON.search(cell.source)
    ]


def short(chapter: Chapter) -> list[str]:
    """A cell fits on the screen."""
    lengths = [(cell.execution_count, len(cell.source.strip().splitlines())) for cell in chapter.code]
    return [f"cell [{n}] has {length} lines, at most {LONGEST_CELL}" for n, length in lengths if length > LONGEST_CELL]


def narrow(chapter: Chapter) -> list[str]:
    """No line of a code cell, and none that it prints, is cut off at the page's edge."""
    lines = [(cell.execution_count, line) for cell in chapter.code for line in _lines(cell)]
    return [
        f"cell [{n}] has a line of {len(line)} columns, at most {WIDEST_LINE}: {line.strip()}"
        for n, line in lines
        if len(line) > WIDEST_LINE
    ]


def _lines(cell: NotebookNode) -> Iterator[str]:
    yield from cell.source.splitlines()
    for output in cell.outputs:
        yield from output.get("text", output.get("data", {}).get("text/plain", "")).splitlines()


def shown(chapter: Chapter) -> list[str]:
    """No cell hides its last value behind a semicolon: nbval runs cells without history, where IPython shows it."""
    ends = [(cell.execution_count, cell.source.rstrip().endswith(";")) for cell in chapter.code]
    return [f"cell [{n}] ends with a semicolon, which nbval does not obey" for n, hidden in ends if hidden]


def figures(chapter: Chapter) -> list[str]:
    """A figure has a caption, a name that the text refers to, and an alt text; a cell shows one figure at most."""
    faults = []
    for cell in chapter.code:
        pictures = sum("image/png" in output.get("data", {}) for output in cell.outputs)
        if not pictures:
            continue
        mystnb = cell.metadata.get("mystnb", {})
        figure, name = mystnb.get("figure", {}), mystnb.get("figure", {}).get("name", "")
        here = f"cell [{cell.execution_count}]"
        if pictures > 1:
            faults.append(f"{here} shows {pictures} figures; one for each cell")
        if not figure.get("caption"):
            faults.append(f"{here} shows a figure without mystnb.figure.caption")
        if len(mystnb.get("image", {}).get("alt", "")) < 20:
            faults.append(f"{here} shows a figure whose mystnb.image.alt does not say what is seen")
        if not name.startswith("fig-"):
            faults.append(f"{here} shows a figure whose mystnb.figure.name is {name!r}, need fig-...")
        elif not re.search(rf"{{(num)?ref}}`[^`]*\b{re.escape(name)}\b", chapter.prose):
            faults.append(f"{here}: no text refers to the figure by {{numref}}`{name}`")
    return faults


# --- structure ------------------------------------------------------------------------------------------------------


def objectives(chapter: Chapter) -> list[str]:
    """The chapter says what it gives, what it needs, and how long it runs."""
    box = re.search(r"^(:{3,}|`{3,})\{admonition\}.*?^:class:.*\bobjectives\b.*?^\1", chapter.prose, re.M | re.S)
    if box is None:
        return ["no admonition of class objectives"]
    marks = ("**Prerequisites", "{measured}`seconds`")
    return [f"the objectives box has no {mark}" for mark in marks if mark not in box[0]]


def sections(chapter: Chapter) -> list[str]:
    """The chapter has one title and ends with what every chapter ends with."""
    titles = re.findall(r"^# (.+)", chapter.prose, re.MULTILINE)
    headings = re.findall(r"^## (.+?)\s*$", chapter.prose, re.MULTILINE)
    faults = [] if len(titles) == 1 else [f"{len(titles)} titles, need 1"]
    return faults + [f"no section '## {section}'" for section in SECTIONS if section not in headings]


def exercises(chapter: Chapter) -> list[str]:
    """There are enough exercises, each with a solution; one asks for a prediction, and one solution runs."""
    asked = re.findall(r"\{exercise(?:-start)?\}(.*)\n(?::(?!label).*\n)*:label:\s*(\S+)", chapter.prose)
    solved = re.findall(r"\{solution(?:-start)?\}\s*(\S+)", chapter.prose)
    faults = [f"exercise {label} has no solution" for _, label in asked if label not in solved]
    if len(asked) < FEWEST_EXERCISES:
        faults.append(f"{len(asked)} exercises, need {FEWEST_EXERCISES}")
    if not any("predict" in title.lower() for title, _ in asked):
        faults.append("no exercise has 'Predict' in its title: one asks for a prediction before running")
    if not any(_solutions_with_code(chapter.source)):
        faults.append("no solution has a code cell between solution-start and solution-end")
    return faults


def _solutions_with_code(notebook: NotebookNode) -> Iterator[bool]:
    inside = False
    for cell in notebook.cells:
        if cell.cell_type == "code":
            yield inside
        for gate in re.findall(r"\{solution-(start|end)\}", cell.source if cell.cell_type == "markdown" else ""):
            inside = gate == "start"


def references(chapter: Chapter) -> list[str]:
    """The chapter cites its sources."""
    return [] if re.search(r"\{cite[:\w]*\}`", chapter.prose) else ["no {cite:t}`...` or {cite:p}`...`"]


# --- numbers in prose -----------------------------------------------------------------------------------------------

NUMBER = re.compile(r"(?<![\w.])\d(?:[\d_,]*\d)?(?:\.\d+)?(?:[eE][-+−]?\d+)?(?![\w]|\.\d)")
ALLOWED = re.compile(r"<!--\s*numbers:(.*?)-->", re.DOTALL)
FENCE = re.compile(r"[ \t]*(`{3,}|~{3,}|:{3,})[ \t]*(\S*)")
PROSE_DIRECTIVE = re.compile(r"\{(?!math|code|bibliography)[\w:-]+\}")
NOT_PROSE = tuple(
    re.compile(pattern, re.MULTILINE | re.DOTALL)
    for pattern in (
        r"<!--.*?-->",
        r"\$\$.*?\$\$",
        r"(?<!\\)\$[^$]+\$",
        r"\{[\w:.-]+\}`[^`]*`",  # roles
        r"(`+)(?!`).+?\1(?!`)",  # inline code
        r"<[^>\n]+>",
        r"\]\([^)\s]*\)|https?://\S+",
        r"^:[\w-]+:[^\n]*$",  # options of directives
    )
)


def numbers(chapter: Chapter) -> list[str]:
    """A number in prose was printed by the chapter or stands in its code.

    Meant are numbers with a decimal point, an exponent or a percent sign, and integers from 100 on that are no year.
    A number from elsewhere is named beside it: ``<!-- numbers: 0.5 from the paper's table -->``.
    """
    captions = [cell.metadata.get("mystnb", {}).get("figure", {}).get("caption", "") for cell in chapter.code]
    texts = [cell.source for cell in chapter.source.cells if cell.cell_type == "markdown"] + captions
    return [fault for text in texts for fault in unsupported(text, computed(chapter))]


def unsupported(text: str, known: set[Decimal]) -> list[str]:
    """Return the numbers of a text that are neither known nor allowed by a comment in it."""
    allowed = known.union(*(_values(comment) for comment in ALLOWED.findall(text)))
    prose = _without_blocks(text)
    for pattern in NOT_PROSE:
        prose = pattern.sub(" ", prose)
    faults = []
    for match in NUMBER.finditer(prose):
        percent = re.match(r"\s?%", prose[match.end() :]) is not None
        value = _value(match[0])
        if _is_result(match[0], percent) and not {value, value / 100 if percent else value} & allowed:
            line = prose[max(0, match.start() - 40) : match.end() + 20].replace("\n", " ")
            faults.append(f"no cell printed or contains {match[0]}: ...{line}...")
    return faults


def _without_blocks(text: str) -> str:
    """Leave out the lines of fences, and blocks of code and formulas; the text inside other directives stays."""
    kept, stack = [], []  # of the fences that are open: mark, and whether what is inside is prose
    for line in text.splitlines():
        fence = FENCE.match(line)
        if stack and fence and not fence[2] and fence[1].startswith(stack[-1][0]):
            stack.pop()
        elif fence and (not stack or stack[-1][1]):
            stack.append((fence[1], PROSE_DIRECTIVE.match(fence[2]) is not None))
        elif not stack or stack[-1][1]:
            kept.append(line)
    return "\n".join(kept)


def computed(chapter: Chapter) -> set[Decimal]:
    """Return all numbers in a chapter's code and in what it printed."""
    texts = []
    for cell in chapter.code:
        texts.append(cell.source)
        for output in cell.outputs:
            texts.append(output.get("text", ""))
            data = output.get("data", {})
            texts += [data.get("text/plain", ""), re.sub(r"<[^>]*>", " ", data.get("text/html", ""))]
            texts.append(data.get("text/markdown", ""))
    return set().union(*map(_values, texts))


def _values(text: str) -> set[Decimal]:
    return {_value(match[0]) for match in NUMBER.finditer(text)}


def _value(token: str) -> Decimal:
    return Decimal(token.replace(",", "").replace("_", "").replace("−", "-")).normalize()


def _is_result(token: str, percent: bool) -> bool:
    if percent or "." in token or "e" in token.lower():
        return True
    year = re.fullmatch(r"(19|20)\d\d", token) is not None
    return _value(token) >= 100 and not year


# --- all of them ----------------------------------------------------------------------------------------------------

CHECKS: tuple[Callable[[Chapter], list[str]], ...] = (
    *(twins, counts, quiet, timeless, reasons, short, narrow, shown, figures),
    *(objectives, sections, exercises, references, numbers),
)


def main() -> int:
    """Check the chapters named on the command line, or all."""
    names, faults = tuple(sys.argv[1:]), 0
    for source in sorted((Path(__file__).resolve().parents[1] / "notebooks").glob("[0-9][0-9]_*.md")):
        if names and not source.stem.startswith(names):
            continue
        chapter = load(source)
        for check in CHECKS:
            for fault in check(chapter):
                print(f"{source.stem}: {fault}")
                faults += 1
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
