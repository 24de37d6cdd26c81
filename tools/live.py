"""What a page lets its reader touch: networks of a chapter as JavaScript, or tables, and numbers to check the page by.

When ``tools/execute.py`` has executed a chapter that is named here, it runs this cell in the same kernel and writes
what it prints to ``book/_live/``. The extension ``touch`` puts it into the page, below the figure of that name.

A cell prints an introduction, one or two sliders, the panels over the first slider's values, and lines or boxes. A line
has a row of numbers, one for each panel, at each value of the first slider: *fixed* rows, *frames* of rows, one for
each value of the second slider, or a *network* that runs in the page (``minus`` other rows). A box has a range at each
value of both sliders. ``checks`` are positions of the sliders with the numbers that the library has there.
"""

from pathlib import Path

FOLDER = Path(__file__).resolve().parents[1] / "book" / "_live"
FIGURES = {
    "00_at_a_glance": "fig-at-a-glance",
    "06_interval_adjoints": "fig-06-band",
    "07_significance_pruning": "fig-07-result",
    "10_certified_surrogates": "fig-10-result",
}
_COMMON = """
import json, pathlib, tempfile

ones = torch.ones(7, dtype=torch.float64)
spread = torch.zeros(7, dtype=torch.float64)  # moves two assets and leaves the basket where it is
spread[2], spread[6] = 1.0, -(case.weights[2] / case.weights[6])
titles = ("price", "delta, all assets together", "gamma, all assets together")

def module(net):
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "net.js"
        return sl.export_source(net, path, language="javascript", directions=ones[None]).read_text()

def numbers(net, x):
    with torch.no_grad():
        value, gradient, hvp = net.taylor(x, order=2, directions=ones[None])
        return torch.stack([value, gradient.sum(1), hvp[:, 0].sum(1)], 1)

def formula(levels):
    exact = case.reference(levels[:, None].expand(-1, 7))
    return torch.stack([exact.price, exact.delta.sum(1), exact.gamma], 1)

def rounded(part):
    return [rounded(row) for row in part] if isinstance(part, list) else float(f"{part:.6g}")

def panel(title, column, digits):
    low, high = column.min().item(), column.max().item()
    return {"title": title, "digits": digits, "range": [low - 0.15 * (high - low), high + 0.15 * (high - low)]}

def slider(label, values, start, digits):
    return {"label": label, "values": rounded(values.tolist()), "start": start, "digits": digits}
"""
CELLS = {
    "00_at_a_glance": """
levels = torch.linspace(0.65, 1.55, 91, dtype=torch.float64)
apart = torch.linspace(-0.4, 0.4, 81, dtype=torch.float64)
shown = {f"cut in one stroke, {stroke.parameter_count} parameters": stroke,
         f"shrunk, {small.parameter_count} parameters": small,
         f"fine-tuned, {tuned.parameter_count} parameters": tuned}
exact = formula(levels)
print(json.dumps({
    "introduction": "These are the chapter's networks, running in this page. The exact price depends on the basket"
    " alone, so the second slider must not change anything.",
    "sliders": [slider("Level of the basket", levels, 35, 2),
                slider("Third asset up, seventh down, the basket unchanged", apart, 40, 2)],
    "panels": [panel(title, exact[:, q], 3 if q == 2 else 4) for q, title in enumerate(titles)],
    "columns": ["price", "delta", "gamma"],
    "spread": spread.tolist(),
    "lines": [{"name": "exact", "fixed": rounded(exact.tolist())}]
    + [{"name": name, "network": name} for name in shown],
    "modules": {name: module(net) for name, net in shown.items()},
    "checks": [{"sliders": [index, by],
                "numbers": {name: numbers(net, (levels[index] + apart[by] * spread)[None])[0].tolist()
                            for name, net in shown.items()} | {"exact": exact[index].tolist()}}
               for index, by in ((35, 40), (90, 40), (35, 70))],
}))
""",
    "06_interval_adjoints": """
prices_now = torch.linspace(0.4, 1.8, 71, dtype=torch.float64)
radii_now = torch.linspace(0.025, 0.3, 12, dtype=torch.float64)
seventh = torch.eye(7, dtype=torch.float64)[6]

def boxed(centres, radius):
    middle = centres[:, None] * seventh + (ones - seventh)
    return sl.Interval(middle - radius * seventh, middle + radius * seventh)

def slopes(box, parts):
    u = torch.linspace(0, 1, parts, dtype=torch.float64)[:, None, None]
    return gradients(net, torch.lerp(box.lo, box.hi, u))[..., 6]

assert torch.equal(sl.enclose(net, boxes, domain="zonotope").gradient.lo, bands["zonotope"].lo)  # the same network
how = {"natural intervals": {}, "zonotope": {"domain": "zonotope"}}
ranges = {name: [] for name in (*how, "true range")}
for radius in radii_now:
    box = boxed(prices_now, radius)
    for name, options in how.items():
        found_now = sl.enclose(net, box, **options).gradient
        ranges[name].append(torch.stack([found_now.lo[:, 6], found_now.hi[:, 6]], 1))
    seen = slopes(box, 201)
    ranges["true range"].append(torch.stack([seen.amin(0), seen.amax(0)], 1))
    assert all((ranges[name][-1][:, 0] <= seen.amin(0)).all() and (ranges[name][-1][:, 1] >= seen.amax(0)).all()
               for name in how)
ranges = {name: torch.stack(parts, 1) for name, parts in ranges.items()}
curve = slopes(boxed(prices_now, 0.0), 1)[0]
print(json.dumps({
    "introduction": "The other six assets cost 1. Drag the box along the curve, and widen it: what is proved of delta 7"
    " for all prices in the box, and what is true.",
    "sliders": [slider("Price of asset 7, centre of the box", prices_now, 30, 2),
                slider("Half the width of the box", radii_now, 5, 3)],
    "panels": [panel("delta of asset 7 against its price", ranges["zonotope"], 4)],
    "columns": ["from", "to", "width"],
    "lines": [{"name": "delta 7", "fixed": rounded(curve[:, None].tolist())}],
    "boxes": [{"name": name, "ranges": rounded(part.tolist())} for name, part in ranges.items()],
    "checks": [{"sliders": [i, j],
                "numbers": {name: [*part[i, j].tolist(), (part[i, j, 1] - part[i, j, 0]).item()]
                            for name, part in ranges.items()}}
               for i, j in ((30, 5), (0, 0), (70, 11))],
}))
""",
    "07_significance_pruning": """
levels = torch.linspace(0.65, 1.55, 61, dtype=torch.float64)
line = levels[:, None].expand(-1, 7)
counts = torch.tensor([3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128])
choices = {"the most significant": lambda count: sl.keep_most(iasa.hidden, count),
           "those that predict best": lambda count: sl.keep_predictive(full, fold, count, enclosure=enclosure)}
frames = {name: [numbers(sl.cut(full, keep(int(count)), x=fold), line) for count in counts]
          for name, keep in choices.items()}
exact, uncut = formula(levels), numbers(full, line)
fixed = {"exact": exact, "full network": uncut}
print(json.dumps({
    "introduction": "The full network is cut in one stroke and folded by regression, without any training: move the"
    " first slider to see where price, slope and curvature break. At 128 nodes nothing is cut.",
    "sliders": [slider("Nodes kept in each layer", counts, 6, 0), slider("Level of the basket", levels, 23, 3)],
    "axis": 1,
    "panels": [panel(title, torch.cat([exact[:, q], uncut[:, q]]), 3 if q == 2 else 4)
               for q, title in enumerate(titles)],
    "columns": ["price", "delta", "gamma"],
    "lines": [{"name": name, "fixed": rounded(rows.tolist())} for name, rows in fixed.items()]
    + [{"name": name, "frames": rounded([rows.tolist() for rows in parts])} for name, parts in frames.items()],
    "checks": [{"sliders": [j, i], "numbers": {name: parts[j][i].tolist() for name, parts in frames.items()}
                | {name: rows[i].tolist() for name, rows in fixed.items()}}
               for j, i in ((8, 23), (0, 60), (11, 0))],
}))
""",
    "10_certified_surrogates": """
levels = torch.linspace(0.35, 1.65, 131, dtype=torch.float64)
apart = torch.linspace(-0.4, 0.4, 81, dtype=torch.float64)
third = torch.eye(7, dtype=torch.float64)[2]
exact = formula(levels)
exact[:, 1] *= case.weights[2]  # of the third asset alone
bound = torch.tensor([found.value.bound, found.gradient.bound, found.curvature.bound], dtype=torch.float64)

def errors_at(index, by):
    x = (levels[index] + apart[by] * spread)[None]
    assert ((x >= box.lo) & (x <= box.hi)).all()
    row = numbers(net, x)[0]
    row[1] = net.gradient(x)[0, 2].detach()
    assert ((row - exact[index]).abs() <= bound).all()
    return (row - exact[index]).tolist()

name = f"error of {net.parameter_count} parameters"
sides = {"proved: at most": bound, "proved: at least": -bound}
print(json.dumps({
    "introduction": "The chapter's network runs in this page. Its error moves with both sliders, and never leaves the"
    " band that is proved for the whole box of seven dimensions. Points outside that box are not drawn.",
    "sliders": [slider("Level of the basket", levels, 65, 2),
                slider("Third asset up, seventh down, the basket unchanged", apart, 40, 2)],
    "panels": [panel(title, torch.stack([-size, size]), None) for title, size in
               zip(("error of the price", "error of delta, third asset", "error of gamma"), bound, strict=True)],
    "columns": ["price", "delta", "gamma"],
    "spread": spread.tolist(),
    "delta": third.tolist(),
    "box": [box.lo[0].item(), box.hi[0].item()],
    "lines": [{"name": side, "colour": 1, "fixed": [size.tolist()] * len(levels)} for side, size in sides.items()]
    + [{"name": name, "network": name, "minus": exact.tolist()}],
    "modules": {name: module(net)},
    "checks": [{"sliders": [index, by],
                "numbers": {name: errors_at(index, by)} | {side: size.tolist() for side, size in sides.items()}}
               for index, by in ((65, 40), (0, 40), (130, 40), (65, 60))],
}))
""",
}
CELLS = {name: _COMMON + cell for name, cell in CELLS.items()}
