r"""Source: value, gradient and curvature of a network as one function of C, JavaScript or Python.

One program is written, loop by loop, in the syntax of the language that is asked for: the twin pass (Chapter 4) over
tables of constants. Arithmetic is that of double precision in all three. Chapter 14.
"""

import itertools
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from torch import Tensor

from sobolev_lib import _check, _files
from sobolev_lib.export.recipe import OUTPUTS, Recipe, Step, recipe
from sobolev_lib.network.surrogate import Surrogate

__all__ = ["export_source"]

MOST_PARAMETERS = 2000
LANGUAGES = ("c", "javascript", "python")
_EITHER = "({0} ? {1} : {2})"
SYNTAX = {  # in the order of LANGUAGES
    "comment": ("// {}", "// {}", "# {}"),
    "imports": ("#include <math.h>", "const {{ {} }} = Math;", "from math import {}"),
    "end": (";", ";", ""),
    "close": ("}}", "}}", ""),
    "table": ("static const double {}{} = {}", "const {0} = {2}", "{0} = {2}"),
    "helper": ("static double {}(double z) {{", "function {}(z) {{", "def {}(z):"),
    "head": ("int {}(const double x[{}]{}) {{", "export function {}(x) {{", "def {}(x):"),
    "loop": (
        "for (int {0} = 0; {0} < {1}; {0}++) {{",
        "for (let {0} = 0; {0} < {1}; {0}++) {{",
        "for {} in range({}):",
    ),
    "choose": (_EITHER, _EITHER, "({1} if {0} else {2})"),
    "number": ("double {} = {}", "let {} = {}", "{} = {}"),
    "array": ("double {}[{}]", "const {} = Array({}).fill(0)", "{} = [0.0] * {}"),
    "grid": (
        "",
        "const {} = Array.from(Array({}), () => Array({}).fill(0))",
        "{0} = [[0.0] * {2} for _ in range({1})]",
    ),
    "result": ("inside == 1.0", "{{ value: value[0], {}inside: inside === 1 }}", "value[0], {}inside == 1.0"),
}


class _Writer:
    """Lines of a program in one of the languages."""

    def __init__(self, language: str):
        self.language, self.lines, self.depth = LANGUAGES.index(language), [], 0

    def text(self, kind: str, *parts) -> str:
        return SYNTAX[kind][self.language].format(*parts)

    def line(self, text: str, end: str | None = None) -> None:
        self.lines.append("    " * self.depth + text + (self.text("end") if end is None else end))

    @contextmanager
    def block(self, kind: str, *parts) -> Iterator[None]:
        self.line(self.text(kind, *parts), end="")
        self.depth += 1
        yield
        self.depth -= 1
        if self.text("close"):
            self.line(self.text("close"), end="")

    def table(self, name: str, values: Tensor) -> None:
        """A constant of one or two dimensions, a row on each line."""
        text = str(values.tolist()).replace("], ", "],\n    ")
        text = text if self.language else text.replace("[", "{").replace("]", "}")
        self.line(self.text("table", name, "".join(f"[{size}]" for size in values.shape), text))

    def helper(self, name: str) -> None:
        """A function that formulas call and no language has."""
        with self.block("helper", name):
            if name == "sigmoid":  # e does not overflow, and is small where the result is
                self.line(self.text("number", "e", "exp(-fabs(z))"))
                self.line(f"return {self.text('choose', 'z < 0.0', 'e', '1.0')} / (1.0 + e)")
            else:
                self.line(f"return {self.text('choose', 'z > 0.0', 'z' if name == 'relu' else '1.0', '0.0')}")

    def loops(self, steps: list[Step], plan: Recipe) -> None:
        """Write steps; neighbours of one size share a loop, and a product has one of its own."""
        entry = lambda name: f"{name}[k][i]" if name in ("curvature", "DIRECTIONS") else f"{name}[i]"  # noqa: E731
        key = lambda step: (step[1], step[0] if "@" in step[2] else "")  # noqa: E731
        for (size, product), group in itertools.groupby(steps, key):
            group = list(group)
            for name in (name for name, _, _ in group if name not in OUTPUTS):
                self.line(self.text("array", name, size))
            with self.block("loop", "i", size):
                if product:
                    left, right, bias = re.fullmatch(r"(\w+) @ (\w+)(?: \+ (\w+))?", group[0][2]).groups()
                    self.line(self.text("number", "t", f"{bias}[i]" if bias else "0.0"))
                    matrix, term = (left, f"{left}[i][j] * {right}[j]"), (right, f"{right}[j][i] * {left}[j]")
                    (matrix, term), axis = (matrix, 1) if left.startswith("W") else (term, 0)
                    with self.block("loop", "j", plan.constants[matrix].shape[axis]):
                        self.line(f"t += {term}")
                    self.line(f"{product}[i] = t")
                for name, _, text in () if product else group:
                    formula = re.sub(r"[A-Za-z]\w*\b(?!\()", lambda match: entry(match.group()), text)
                    self.line(f"{entry(name)} = {formula}")


def export_source(
    net: Surrogate,
    path: str | os.PathLike,
    *,
    language: str = "c",
    order: int = 2,
    directions=None,
    facts: Mapping[str, object] | None = None,
    name: str = "surrogate",
) -> Path:
    r"""Write a network as one function of C, JavaScript or Python, and return the path.

    The function takes d numbers in raw units and gives the value, the gradient (d,), the curvature (k, d), that is the
    Hessian-vector products, and whether the inputs lie in the range that the network was trained on, where it is known
    (a NaN does not); outside it answers all the same.

    - C (C99, needs math.h): ``int surrogate(const double x[d], double *value, double gradient[d],
      double curvature[k][d])`` returns 1 inside and 0 outside; declare it as ``extern`` where it is called.
    - JavaScript: an ES module whose ``surrogate(x)`` returns ``{value, gradient, curvature, inside}``.
    - Python (needs math): ``surrogate(x)`` returns the tuple ``(value, gradient, curvature, inside)``.

    Args:
        net: The network, of at most 2,000 parameters, in double precision whatever its type, with any activation of the
            library.
        path: Where the file goes; written whole or not at all.
        language: ``"c"``, ``"javascript"`` or ``"python"``.
        order: 0 for the value, 1 for the gradient too, 2 for curvature too.
        directions: Of the Hessian-vector products, (k, d). Default: the axes, that is the whole Hessian; up to 32
            inputs.
        facts: More for the header, such as ``{"certified error": 1e-3}``, each on one line.
        name: Of the function.

    Raises:
        TypeError: `net` is not a `Surrogate`.
        ValueError: A network that cannot be exported, an unknown language, directions of the wrong shape, a
            name that is none.
        OSError: A path that cannot be written.

    Chapter 14, "Export".

    Example:
        >>> from pathlib import Path
        >>> import tempfile, torch
        >>> net = sl.Surrogate([2, 3, 1])
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     program = sl.export_source(net, Path(folder) / "price.py", language="python", name="price").read_text()
        >>> exec(program, here := {})
        >>> value, gradient, curvature, inside = here["price"]([1.0, 0.5])
        >>> abs(value - net(torch.tensor([[1.0, 0.5]]).double()).item()) < 1e-15
        True
    """
    _check.choice("language", language, LANGUAGES)
    plan = recipe(net, order, directions, facts)
    if net.parameter_count > MOST_PARAMETERS:
        raise ValueError(f"net: got {net.parameter_count} parameters, need at most {MOST_PARAMETERS}: use export_onnx")
    if not (isinstance(name, str) and re.fullmatch(r"[A-Za-z]\w*", name, re.ASCII)):
        raise ValueError(f"name: got {name!r}, need a letter, then letters, digits or _")
    out, dim, rows = _Writer(language), net.widths[0], len(plan.constants.get("DIRECTIONS", ()))
    header = [" ".join(f"{key}: {value}".split()).rstrip("\\/") for key, value in plan.facts.items()]  # one line each
    header += [f"{name}: {dim} inputs in raw units to {', '.join(plan.outputs)}, and whether they lie in the domain."]
    formulas = " ".join(text for _, _, text in plan.steps + plan.per_direction)
    called = set(re.findall(r"([a-z]\w*)\(", formulas))
    helpers = sorted(called & {"sigmoid", "relu", "step"})
    functions = ", ".join(sorted((called | ({"exp", "fabs"} if "sigmoid" in called else set())) - set(helpers)))
    imported = functions.replace("fabs", "abs: fabs") if language == "javascript" else functions
    out.lines += [*(out.text("comment", fact) for fact in header), ""]
    out.lines += [out.text("imports", imported), ""] if functions else []
    for constant, values in plan.constants.items():
        out.table(constant, values)
    for helper in helpers:
        out.lines.append("")
        out.helper(helper)
    out.lines.append("")
    pointers = [", double value[1]", f", double gradient[{dim}]", f", double curvature[{rows}][{dim}]"]
    with out.block("head", name, dim, "".join(pointers[: len(plan.outputs)])):
        out.line(out.text("number", "inside", "1.0"))
        for test in ("x[i] >= LOW[i]", "x[i] <= HIGH[i]") if "LOW" in plan.constants else ():
            with out.block("loop", "i", dim):
                out.line(f"inside = {out.text('choose', test, 'inside', '0.0')}")
        for output, size in zip(plan.outputs[:2] if language != "c" else (), (1, dim), strict=False):
            out.line(out.text("array", output, size))
        out.loops(plan.steps, plan)
        if rows:
            out.line(out.text("grid", "curvature", rows, dim))
            with out.block("loop", "k", rows):
                out.loops(plan.per_direction, plan)
        out.line("return " + out.text("result", "".join(f"{output}, " for output in plan.outputs[1:])))
    return _files.place(path, ("\n".join(out.lines) + "\n").encode())
