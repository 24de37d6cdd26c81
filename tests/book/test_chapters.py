"""Every chapter keeps its promises, and every check finds the fault that it is there for."""

import copy
import os
import subprocess
import sys
from pathlib import Path

import jupytext
import nbformat
import pytest

from tools import check, execute

ROOT = Path(__file__).resolve().parents[2]
SOURCES = execute.sources(ROOT / "notebooks", [])
MOST_UNCHECKED = 0.05
MOST_WORDS = 5500

SAMPLE = """---
kernelspec:
  display_name: Python 3
  language: python
  name: python3
---

# A sample

It prints 0.25, as {numref}`fig-dot` shows {cite:p}`moore1966`.

:::{admonition} What this chapter gives you
:class: objectives

**Prerequisites:** none. **Run time:** {measured}`seconds`.
:::

```{code-cell} ipython3
print(1 / 4)
```

```{code-cell} ipython3
---
mystnb:
  figure:
    caption: A dot.
    name: fig-dot
  image:
    alt: A dot in the middle of an empty square.
---
import matplotlib.pyplot as plt

plt.figure(figsize=(1, 1))
plt.plot(0, 0, "o")
plt.show()
```

## Summary

## Exercises

```{exercise-start} Predict the product
:label: sample-one
```
What is 6 times 7?
```{exercise-end}
```

```{solution-start} sample-one
:class: dropdown
```

```{code-cell} ipython3
6 * 7
```

```{solution-end}
```

```{exercise} Two
:label: sample-two
```

```{solution} sample-two
```

```{exercise} Three
:label: sample-three
```

```{solution} sample-three
```

## References
"""


@pytest.fixture(scope="module")
def executed():
    """The sample chapter with its outputs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "environ", os.environ.copy())
        execute.prepare_environment()
        notebook = execute.read_text(SAMPLE)
        execute.execute(notebook, ROOT)
    return notebook


@pytest.fixture
def sample(executed) -> check.Chapter:
    return check.Chapter("99_sample", jupytext.reads(SAMPLE, "md:myst"), copy.deepcopy(executed))


@pytest.mark.parametrize("check_one", check.CHECKS, ids=lambda function: function.__name__)
@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)
def test_a_chapter_keeps_its_promises(source, check_one):
    assert check_one(check.load(source)) == []


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)
def test_a_chapter_can_be_read_in_one_sitting(source):
    words = len(source.read_text().split())
    assert words <= MOST_WORDS, f"{source.stem} has {words:,} words, code included; at most {MOST_WORDS:,}"


@pytest.mark.parametrize("check_one", check.CHECKS, ids=lambda function: function.__name__)
def test_the_sample_has_no_fault(sample, check_one):
    assert check_one(sample) == []


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)
def test_cell_ids_are_those_that_execute_derives(source):
    assert [cell.id for cell in check.load(source).twin.cells] == [cell.id for cell in execute.read(source).cells]


def test_few_outputs_go_unchecked():
    cells = [cell for source in SOURCES for cell in check.load(source).code if cell.outputs]
    unchecked = [cell for cell in cells if check.UNCHECKED & set(cell.metadata.get("tags", []))]
    assert len(unchecked) <= MOST_UNCHECKED * len(cells)


def edited(text: str, old: str, new: str) -> str:
    assert old in text
    return text.replace(old, new)


@pytest.mark.parametrize(
    ("check_one", "old", "new", "fault"),
    [
        (check.twins, "print(1 / 4)", "print(1 / 5)", "cell 2 differs"),
        (check.twins, "It prints", "It shows", "cell 1 differs"),
        (check.twins, "caption: A dot.", "caption: A spot.", "cell 3 differs"),
        (check.twins, "## Summary\n", "```{code-cell} ipython3\nprint(2)\n```\n", "the source has 7 cells"),
        (check.objectives, ":class: objectives", ":class: note", "no admonition of class objectives"),
        (check.objectives, "{measured}`seconds`", "5 s", "has no {measured}`seconds`"),
        (check.sections, "## Summary", "## Sum", "no section '## Summary'"),
        (check.sections, "## References", "# References", "2 titles"),
        (check.exercises, "{solution} sample-two", "{solution} sample-three", "exercise sample-two has no solution"),
        (check.exercises, "{exercise} Two\n:label: sample-two", "{note}", "2 exercises, need 3"),
        (check.exercises, "Predict the", "Find the", "no exercise has 'Predict'"),
        (check.exercises, "{solution-end}", "{solution-start}", None),
        (check.exercises, "{code-cell} ipython3\n6 * 7", "{note}\n6 * 7", "no solution has a code cell"),
        (check.references, "{cite:p}`moore1966`", "Moore", "no {cite:t}"),
        (check.figures, "{numref}`fig-dot`", "the figure", "no text refers to the figure"),
        (check.numbers, "It prints 0.25", "It prints 0.26", "no cell printed or contains 0.26"),
        (check.numbers, "It prints 0.25", "It prints 25 %", None),
        (check.numbers, "It prints 0.25", "It prints 26 %", "no cell printed or contains 26"),
        (check.numbers, "It prints 0.25", "It has 83,713 weights", "no cell printed or contains 83,713"),
        (check.numbers, "It prints 0.25", "In 2024 $0.3$, `0.4`, 7-128x6-1, 1.2.3, 12", None),
        (check.numbers, "It prints 0.25", "It prints 9.5e-4 <!-- numbers: 9.5e-4 -->", None),
        (check.numbers, "What is 6 times 7?", "What is 6.5 times 7?", "no cell printed or contains 6.5"),
    ],
)
def test_a_fault_in_the_source_is_found(sample, check_one, old, new, fault):
    source = jupytext.reads(edited(SAMPLE, old, new), "md:myst")
    faults = check_one(check.Chapter(sample.name, source, sample.twin))
    assert any(fault in found for found in faults) if fault else faults == []


def test_a_stripped_notebook_is_found(sample):
    for cell in sample.code:
        cell.outputs, cell.execution_count = [], None
    assert check.counts(sample) == ["execution counts are [None, None, None], need 1 to 3"]


def test_a_cell_that_was_executed_twice_is_found(sample):
    sample.code[1].execution_count = 7
    assert check.counts(sample) == ["execution counts are [1, 7, 3], need 1 to 3"]


def test_text_on_stderr_and_errors_are_found(sample):
    sample.code[0].outputs = [nbformat.v4.new_output("stream", name="stderr", text="a warning")]
    sample.code[1].outputs = [nbformat.v4.new_output("error", ename="ValueError", evalue="", traceback=[])]
    assert check.quiet(sample) == ["cell [1] shows text on stderr", "cell [2] shows ValueError"]


def test_what_changes_from_run_to_run_is_found(sample):
    sample.twin.cells[1].metadata.execution = {"iopub.execute_input": "2026-01-01T00:00:00Z"}
    sample.twin.metadata.language_info.version = "3.11.7"
    sample.twin.metadata.widgets = {}
    faults = ["cell 2 stores when it ran", "the notebook stores the version of Python", "the notebook stores widgets"]
    assert check.timeless(sample) == faults


def test_an_uncompared_cell_needs_a_reason(sample):
    cell = sample.code[0]
    cell.metadata.tags = ["nbval-ignore-output"]
    assert "has no line '# not compared: why'" in check.reasons(sample)[0]
    cell.source = "# not compared: a timing\n" + cell.source
    assert check.reasons(sample) == []


def test_a_long_cell_is_found(sample):
    sample.code[0].source = "x = 1\n" * 26
    assert check.short(sample) == ["cell [1] has 26 lines, at most 25"]


def test_a_line_that_is_cut_off_is_found(sample):
    sample.code[0].source = "#" * 89
    assert check.narrow(sample) == [f"cell [1] has a line of 89 columns, at most 88: {'#' * 89}"]


def test_a_printed_line_that_is_cut_off_is_found(sample):
    sample.code[0].outputs = [nbformat.v4.new_output("stream", text="short\n" + "#" * 89 + "\n")]
    assert check.narrow(sample) == [f"cell [1] has a line of 89 columns, at most 88: {'#' * 89}"]


def test_the_method_fits_a_phone():
    """The two cells of chapter 0 that run the method are read there without scrolling sideways."""
    cells = check.load(ROOT / "notebooks" / "00_at_a_glance.md").code[1:3]
    assert "sl.label(" in cells[0].source and "sl.fit(tuned" in cells[1].source
    assert max(len(line) for cell in cells for line in cell.source.splitlines()) <= 60


def test_a_semicolon_that_hides_a_value_is_found(sample):
    sample.code[2].source = "6 * 7;"
    assert check.shown(sample) == ["cell [3] ends with a semicolon, which nbval does not obey"]


@pytest.mark.parametrize(
    ("metadata", "fault"),
    [
        ({"figure": {"name": "fig-dot"}, "image": {"alt": "A dot in an empty square."}}, "without mystnb.figure.cap"),
        ({"figure": {"name": "fig-dot", "caption": "A dot."}}, "alt does not say what is seen"),
        ({"figure": {"caption": "A dot."}, "image": {"alt": "A dot in an empty square."}}, "need fig-..."),
    ],
)
def test_a_figure_that_says_too_little_is_found(sample, metadata, fault):
    sample.code[1].metadata.mystnb = nbformat.from_dict(metadata)
    assert fault in check.figures(sample)[0]


def nbval(path: Path) -> subprocess.CompletedProcess:
    """Run nbval as `make test` does, on one notebook."""
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--nbval", "--nbval-current-env"]
    return subprocess.run([*command, f"--rootdir={path.parent}", path], cwd=path.parent, capture_output=True, text=True)


def test_nbval_accepts_the_sample_and_finds_one_wrong_digit(sample, tmp_path):
    path = tmp_path / "sample.ipynb"
    execute.write(sample.twin, path)
    passed = nbval(path)
    assert "3 passed" in passed.stdout, passed.stdout + passed.stderr
    sample.code[0].outputs[0].text = "0.26\n"
    execute.write(sample.twin, path)
    assert "1 failed, 2 passed" in nbval(path).stdout


def test_execute_finds_one_wrong_digit_too(sample, executed):
    assert execute.differences(executed, sample.twin) == []
    sample.code[0].outputs[0].text = "0.26\n"
    assert "cell 2: stored" in execute.differences(executed, sample.twin)[0]
    sample.twin.cells[0].source = "changed"
    assert execute.differences(executed, sample.twin) == ["the source was edited after its outputs were written"]


def test_a_failing_chapter_leaves_its_outputs_as_they_were(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(os, "environ", os.environ.copy())
    execute.prepare_environment()
    source, twin = tmp_path / "98_fails.md", tmp_path / "98_fails.ipynb"
    source.write_text(edited(SAMPLE, "6 * 7", "6 / 0"), encoding="utf-8")
    twin.write_text("as it was", encoding="utf-8")
    assert execute.run(source, check=False) is False
    assert twin.read_text(encoding="utf-8") == "as it was"
    assert "ZeroDivisionError" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["98_fails.ipynb", "98_fails.md"]


def test_a_cell_keeps_its_id_when_another_comes_before_it():
    before = execute.read_text(SAMPLE)
    cell = "```{code-cell} ipython3\n"
    after = execute.read_text(edited(SAMPLE, cell + "print(1 / 4)", f"{cell}1\n```\n\n{cell}print(1 / 4)"))
    assert [cell.id for cell in before.cells] == [cell.id for cell in after.cells if cell.source != "1"]


def test_an_unknown_chapter_is_refused():
    with pytest.raises(SystemExit, match="nonsense: got no chapter of that name, need one of"):
        execute.sources(ROOT / "notebooks", ["nonsense"])
