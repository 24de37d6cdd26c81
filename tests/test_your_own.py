"""Simulators of a reader's own, with the README and the page open: in at most 15 lines to a surrogate with derivatives.

The page on your own model holds one stochastic equation, one program with bumped gradients, and one with values only;
the oscillator here is a fourth that the page does not know.
"""

import ast
import re
from pathlib import Path

import numpy as np
import pytest
import torch

import sobolev_lib as sl

PAGE = Path(__file__).resolve().parents[1] / "book" / "your_own.md"
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
OSCILLATOR = '''
class Oscillator:
    """dx = v dt, dv = (cos 2t - stiffness x - x^3 / 5 - damping v) dt + wind dW."""

    dim, stiffness, damping, wind = 2, 1.0, 0.3, 0.4

    def drift(self, t, x):
        place, speed = x[:, :1], x[:, 1:]
        force = torch.cos(torch.as_tensor(2.0 * t)) - 0.2 * place**3
        return torch.cat([speed, force - self.stiffness * place - self.damping * speed], 1)

    def diffusion(self, t, x):
        return torch.cat([0 * x[:, :1], self.wind + 0 * x[:, :1]], 1)


def place(end):
    return end[:, 0]
'''
LINES = """
low = torch.tensor([-1.0, -1.0, 0.5, 0.1, 0.1], dtype=torch.float64)
high = torch.tensor([1.0, 1.0, 2.0, 0.6, 0.6], dtype=torch.float64)
x = low + (high - low) * torch.rand(1024, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
how = dict(horizon=2.0, steps=20, varying=("stiffness", "damping", "wind"))
samples = sl.label(Oscillator(), place, x, noise=sl.sobol(seed=0), **how)
net = sl.Surrogate([5, 16, 16, 1])
sl.fit(net, samples, order=1, steps=500)
small, path = sl.shrink(net, samples)
loss = sl.balance_by_covariance(small, samples, order=1)
sl.fit(small, samples, order=1, steps=0, balance=loss)
value, slopes = small.value_and_gradient(x)
"""


def relative(found, exact):
    """Root mean square error of each column over the column's own size."""
    return ((found.detach() - exact).square().mean(0) / exact.square().mean(0)).sqrt()


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """Everything that the page defines, run in the order of the page."""
    names, kept = {}, {}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("own"))
        for block in BLOCKS:
            exec(block, names)
            if "small, path" in block:
                which = next(w for w in ("outbreak", "simulate", "Reverting") if w in block)
                kept[which] = {name: names[name] for name in ("small", "net", "path", "samples")}
        kept["exported"] = Path("greater.c").read_text()
    return names, kept


def test_every_line_of_the_page_runs(page):
    names, kept = page
    assert all(len(line) <= 88 for block in BLOCKS for line in block.splitlines())
    for which in ("Reverting", "simulate", "outbreak"):
        parts = kept[which]
        assert parts["path"].reason and parts["small"].parameter_count < parts["net"].parameter_count / 3
    assert "int surrogate(" in kept["exported"]
    assert sorted(names["nets"]) == ["greater", "lesser"]


def test_no_simulator_needs_more_than_fifteen_lines():
    chains = [block for block in (*BLOCKS, LINES) if "small, path" in block]
    assert len(chains) == 4
    for block in chains:
        statements = [
            s for s in ast.parse(block).body if not isinstance(s, ast.FunctionDef | ast.ClassDef | ast.Import)
        ]
        assert sum(s.end_lineno - s.lineno + 1 for s in statements) <= 15, block


def test_bumped_gradients_teach_slopes_that_values_alone_do_not(page):
    """Against a thousand paths at each of 200 points; values alone are three to five times as wrong."""
    kept = page[1]
    space = {"np": np, "torch": torch, "sl": sl}
    exec(next(block for block in BLOCKS if "def payoffs" in block), space)
    points = space["bottom"] + (space["top"] - space["bottom"]) * np.random.default_rng(9).random((200, 3))
    runs = [space["simulate"](points, seed) for seed in range(100, 1100)]
    value, gradient = (torch.stack([getattr(r, name) for r in runs]).mean(0) for name in ("value", "gradient"))
    small, samples = kept["simulate"]["small"], kept["simulate"]["samples"]
    found = small.value_and_gradient(points)
    assert relative(found[0], value) < 0.05
    with_gradients = relative(found[1], gradient)
    assert (with_gradients < torch.tensor([0.06, 0.2, 0.06])).all()
    alone = sl.Surrogate([3, 32, 32, 1])
    sl.fit(alone, samples, order=0, steps=500)
    alone, _ = sl.shrink(alone, samples, order=0)
    ratio = relative(alone.gradient(points), gradient) / with_gradients
    assert 3 < ratio.mean() < 6 and ratio.min() > 2


def test_values_alone_of_an_epidemic(page):
    """Against 150 outbreaks at each point; the error bars say how wrong the slopes are, to a factor."""
    space, small = page[0], page[1]["outbreak"]["small"]
    points = space["bottom"] + (space["top"] - space["bottom"]) * np.random.default_rng(9).random((200, 3))

    def mean(x, seeds):
        return torch.from_numpy(np.mean([space["outbreak"](x, seed) for seed in seeds], 0))

    assert (small(points).detach() - mean(points, range(100, 250))).square().mean().sqrt() < 0.006
    for j, limit in ((0, 0.12), (1, 0.12)):
        e = 0.05 * (space["top"] - space["bottom"])[j] * np.eye(3)[j]
        up, down = mean(points + e, range(1000, 1150)), mean(points - e, range(2000, 2150))
        assert relative(small.gradient(points)[:, j], (up - down) / (2 * e[j])) < limit


def test_an_oscillator_that_the_page_does_not_know():
    space = {"torch": torch, "sl": sl}
    exec(OSCILLATOR, space)
    assert len(OSCILLATOR.splitlines()) < 30
    exec(LINES, space)
    how, x = space["how"], space["x"][:100]
    exact = sl.label(space["Oscillator"](), space["place"], x, noise=sl.sobol(seed=5), paths=256, **how)
    assert space["small"].parameter_count <= space["net"].parameter_count
    assert relative(space["value"][:100], exact.value) < 0.02
    assert (relative(space["slopes"][:100], exact.gradient)[:4] < 0.05).all()
