"""What a page lets its reader touch: networks of a chapter as JavaScript, and numbers of the library to check them.

When ``tools/execute.py`` has executed a chapter that is named here, it runs this cell in the same kernel and writes
what it prints to ``book/_live/``. The extension ``touch`` puts it into the page, below the figure of that name.
"""

from pathlib import Path

FOLDER = Path(__file__).resolve().parents[1] / "book" / "_live"
FIGURES = {"00_at_a_glance": "fig-at-a-glance"}
CELLS = {
    "00_at_a_glance": """
import json, pathlib, tempfile

def module(net):
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "net.js"
        return sl.export_source(net, path, language="javascript", directions=torch.ones(1, 7)).read_text()

def numbers(net, x):
    with torch.no_grad():
        price, delta = net.value_and_gradient(x)
        return torch.stack([price, delta.sum(1), net.hvp(x, torch.ones(1, 7).double())[:, 0].sum(1)], 1)

shown = {f"cut in one stroke, {stroke.parameter_count} parameters": stroke,
         f"shrunk, {small.parameter_count} parameters": small,
         f"fine-tuned, {tuned.parameter_count} parameters": tuned}
levels = torch.linspace(0.65, 1.55, 181, dtype=torch.float64)
level_line = levels[:, None].expand(-1, 7)
spread = torch.zeros(7, dtype=torch.float64)
spread[2], spread[6] = 1.0, -(case.weights[2] / case.weights[6])
formula = case.reference(level_line)
exact_line = torch.stack([formula.price, formula.delta.sum(1), formula.gamma], 1)
print(json.dumps({
    "levels": [round(level, 3) for level in levels.tolist()],
    "spread": spread.tolist(),
    "exact": [[float(f"{number:.6g}") for number in row] for row in exact_line.tolist()],
    "modules": {name: module(net) for name, net in shown.items()},
    "checks": [{"index": index, "by": by,
                "numbers": {name: numbers(net, level_line[index : index + 1] + by * spread)[0].tolist()
                            for name, net in shown.items()}}
               for index, by in ((70, 0.0), (180, 0.0), (70, 0.3))],
}, indent=1))
"""
}
