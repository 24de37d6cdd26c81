"""Break central lines of the library one at a time, and see whether quick tests notice.

    python -m tools.mutate               # all of them; prints each with what became of it, and the survivors
    python -m tools.mutate twin cut      # those of modules whose names contain one of the words

Each mutant is made in a copy of the repository, and the test files that are named beside it run against it, without
those marked slow. Tests that run into their limit of time have noticed, too.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
NEEDED = ("sobolev_lib", "tests", "tools", "notebooks", "benchmarks", "results", "book", "pyproject.toml", "README.md")
LIMIT = 600  # seconds for the tests of one mutant


class Mutant(NamedTuple):
    """A text that stands in a module once, what it is changed to, and the test files that should notice."""

    module: str
    old: str
    new: str
    tests: str

    def path(self, root: Path = ROOT) -> Path:
        """Return the module's file."""
        return root / "sobolev_lib" / f"{self.module}.py"

    def count(self) -> int:
        """Return how often the text stands in the module."""
        return self.path().read_text(encoding="utf-8").count(self.old)


MUTANTS = (
    # simulation
    Mutant("simulation/noise", "advance(start * dims)", "advance(start)", "simulation/test_noise"),
    Mutant(
        "simulation/noise",
        "torch.stack([rows, -rows], dim=1)",
        "torch.stack([rows, rows], dim=1)",
        "simulation/test_noise",
    ),
    Mutant("simulation/noise", "places ^= np.repeat(coins", "places |= np.repeat(coins", "simulation/test_noise"),
    Mutant(
        "simulation/models",
        "growth = (self.rate - 0.5 * self.volatility**2) * step",
        "growth = (self.rate + 0.5 * self.volatility**2) * step",
        "simulation/test_models",
    ),
    Mutant(
        "simulation/models",
        "torch.diag(torch.sqrt(1 - rho**2))",
        "torch.diag(torch.sqrt(1 + rho**2))",
        "simulation/test_models",
    ),
    Mutant(
        "simulation/schemes",
        "return x + model.drift(t, x) * step + shift",
        "return x - model.drift(t, x) * step + shift",
        "simulation/test_schemes",
    ),
    Mutant(
        "simulation/schemes",
        "loading * (increment**2 - step))",
        "loading * (increment**2 + step))",
        "simulation/test_schemes",
    ),
    Mutant(
        "simulation/schemes",
        "growth = (rate - 0.5 * volatility**2) * step",
        "growth = (rate - volatility**2) * step",
        "simulation/test_schemes",
    ),
    Mutant(
        "simulation/payoffs",
        "return rise + 0.5 * y * rise * torch.sigmoid(-y)",
        "return rise + y * rise * torch.sigmoid(-y)",
        "simulation/test_payoffs",
    ),
    Mutant(
        "simulation/payoffs",
        "mean * normal_cdf(z) + deviation * normal_pdf(z)",
        "mean * normal_cdf(z) - deviation * normal_pdf(z)",
        "simulation/test_payoffs",
    ),
    Mutant(
        "simulation/labels",
        "return 0.5 * (self._value(x, shocks) + self._value(x, -shocks))",
        "return 0.5 * (self._value(x, shocks) + self._value(x, shocks))",
        "simulation/test_labels",
    ),
    Mutant(
        "simulation/labels",
        "row, total = (start + first) * paths + path",
        "row, total = first * paths + path",
        "simulation/test_labels",
    ),
    Mutant(
        "simulation/average",
        "torch.sqrt(scatter / (self.paths - 1) / self.paths)",
        "torch.sqrt(scatter / self.paths / self.paths)",
        "simulation/test_labels",
    ),
    # network
    Mutant("network/twin", "z_bars.append(a_bar * jet[1])", "z_bars.append(a_bar * jet[0])", "network/test_twin"),
    Mutant(
        "network/twin",
        "z_bar_dot.addcmul_(jets[layer][1], a_bar_dot)",
        "z_bar_dot.addcmul_(jets[layer][1], a_bar_dot, value=2)",
        "network/test_twin",
    ),
    Mutant(
        "network/twin",
        "z_hat.addcmul_(jet[3] * self.a_bars[layer], mixed[layer])",
        "pass",
        "network/test_twin training/test_loss",
    ),
    Mutant("network/twin", "below.addcmul_(jet[1], av_hat)", "pass", "network/test_twin training/test_loss"),
    Mutant(
        "network/scaling",
        "gradient_scale = net.output_scale / net.input_scale\n    raw",
        "gradient_scale = net.output_scale * net.input_scale\n    raw",
        "network/test_surrogate",
    ),
    Mutant(
        "network/activations",
        "jet.append((z * s[k]).add_(s[k - 1], alpha=k))",
        "jet.append((z * s[k]).add_(s[k - 1], alpha=1))",
        "network/test_activations",
    ),
    # enclosure
    Mutant(
        "enclosure/rounding",
        "return lo.clamp(max=info.max).sub_(below), hi.clamp(min=info.min).add_(above)",
        "return lo.clamp(max=info.max).add_(below), hi.clamp(min=info.min).add_(above)",
        "enclosure/test_rounding",
    ),
    Mutant(
        "enclosure/rounding",
        "return 1.000001 * n * roundoff / (1 - n * roundoff)",
        "return 0.5 * n * roundoff / (1 - n * roundoff)",
        "enclosure/test_rounding enclosure/test_interval",
    ),
    Mutant(
        "enclosure/affine",
        "radius = torch.maximum(radius, middle - x.lo)",
        "radius = torch.minimum(radius, 0.9 * (middle - x.lo))",
        "enclosure/test_interval enclosure/test_rounding",
    ),
    Mutant(
        "enclosure/interval",
        "torch.where(twice | ~left & right, -1.0, lo)",
        "torch.where(twice, -1.0, lo)",
        "enclosure/test_functions",
    ),
    Mutant(
        "enclosure/adjoints",
        "middle = mid(box).gather(1, widest)",
        "middle = (0.5 * mid(box)).gather(1, widest)",
        "enclosure/test_adjoints",
    ),
    # certificates
    Mutant(
        "certificates/coordinates",
        "return near - far > 4 *",
        "return near + far > 4 *",
        "certificates/test_error_bound",
    ),
    Mutant(
        "certificates/coordinates",
        "slack = enlarge(lost.sum(1) + mag(sub(start, point(middle))), rows.shape[1] + 4, True)",
        "slack = 0 * lost.sum(1)",
        "certificates/test_error_bound",
    ),
    Mutant(
        "certificates/coordinates",
        "return None if x is None or y is None else sub(x, y)",
        "return None if x is None or y is None else sub(y, x)",
        "certificates/test_error_bound certificates/test_verdicts",
    ),
    Mutant(
        "certificates/error_bound",
        "mig(x).amax(1, keepdim=True), mag(x).amax(1, keepdim=True)",
        "mig(x).amax(1, keepdim=True), mag(x).amin(1, keepdim=True)",
        "certificates/test_error_bound",
    ),
    Mutant(
        "certificates/references",
        "lambda b: div(iv.normal_pdf(ratio(b)), s)",
        "lambda b: iv.normal_pdf(ratio(b))",
        "certificates/test_references certificates/test_error_bound",
    ),
    # training
    Mutant(
        "training/loss",
        "return SobolevLoss(order, whitening / scale)",
        "return SobolevLoss(order, whitening * scale)",
        "training/test_loss",
    ),
    Mutant(
        "training/loss",
        "(eigenvalues.clamp_min(0) + floor).rsqrt()",
        "(eigenvalues.clamp_min(0) + floor).sqrt()",
        "training/test_loss",
    ),
    Mutant(
        "training/loss",
        "residuals @ self.matrix * (2 / n), totals",
        "residuals @ self.matrix * (1 / n), totals",
        "training/test_loss",
    ),
    Mutant(
        "training/gauss_newton", "-slope - ridge * weights", "-slope + ridge * weights", "training/test_gauss_newton"
    ),
    Mutant(
        "training/gauss_newton",
        "return normal / n, slope / n, total / n",
        "return normal / n, 2 * slope / n, total / n",
        "training/test_gauss_newton",
    ),
    Mutant(
        "training/gauss_newton",
        "0.2 if share > 0.75 else 1 if share > 0.25 else 3",
        "3 if share > 0.75 else 1 if share > 0.25 else 0.2",
        "training/test_gauss_newton",
    ),
    Mutant(
        "training/fit",
        "return 0.5 * (1 + math.cos(math.pi * (step - rise)",
        "return 0.5 * (1 - math.cos(math.pi * (step - rise)",
        "training/test_fit",
    ),
    Mutant("training/uncertainty", "n / max(n - rank, 1)", "n / max(n + rank, 1)", "training/test_uncertainty"),
    Mutant(
        "training/uncertainty",
        "(len(sets) / (len(sets) - 1)) ** 0.5",
        "(len(sets) / (len(sets) - 1)) ** 2",
        "training/test_uncertainty",
    ),
    # pruning
    Mutant(
        "pruning/cut",
        "small_bias = bias + weight[:, removed] @",
        "small_bias = bias - weight[:, removed] @",
        "pruning/test_cut",
    ),
    Mutant(
        "pruning/cut",
        "return weight + correction[:-1].T, bias + correction[-1]",
        "return weight + correction[:-1].T, bias",
        "pruning/test_cut",
    ),
    Mutant(
        "pruning/scores",
        "return [_width(node) * mag(adjoint)",
        "return [2 * _width(node) * mag(adjoint)",
        "pruning/test_scores",
    ),
    Mutant("pruning/selection", "gram - torch.outer(along, along)", "gram", "pruning/test_selection"),
    Mutant("pruning/judge", "(STRICT + POWER) *", "STRICT *", "pruning/test_judge pruning/test_shrink"),
    # export
    Mutant("export/recipe", 'f"f2_{k} * bar_{k} * turn_{k}"', 'f"f1_{k} * bar_{k} * turn_{k}"', "export/test_onnx"),
)


def caught(mutant: Mutant, copy: Path) -> bool:
    """Tell whether the quick tests fail for a mutant, made in a copy of the repository."""
    path, tests = mutant.path(copy), [str(copy / "tests" / f"{name}.py") for name in mutant.tests.split()]
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace(mutant.old, mutant.new), encoding="utf-8")
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-m", "not slow", "-p", "no:cacheprovider", *tests]
    environment = os.environ | {"PYTHONPATH": str(copy), "OMP_NUM_THREADS": "1", "TQDM_DISABLE": "1"}
    try:
        return subprocess.run(command, cwd=copy, env=environment, capture_output=True, timeout=LIMIT).returncode == 1
    except subprocess.TimeoutExpired:
        return True
    finally:
        path.write_text(text, encoding="utf-8")


def main() -> int:
    """Try the mutants and return how many survived."""
    parser = argparse.ArgumentParser(description="Break central lines one at a time and run the quick tests.")
    parser.add_argument("words", nargs="*", help="parts of module names (none: all)")
    words = parser.parse_args().words
    chosen = [m for m in MUTANTS if not words or any(word in m.module for word in words)]
    survivors = 0
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder, "copy")
        copy.mkdir()
        for name in NEEDED:
            (shutil.copytree if (ROOT / name).is_dir() else shutil.copy)(ROOT / name, copy / name)
        for mutant in chosen:
            start = time.monotonic()
            found = caught(mutant, copy)
            survivors += not found
            seconds = time.monotonic() - start
            shown = f"{mutant.module}: {' '.join(mutant.new.split())}"
            print(f"{'caught' if found else 'SURVIVED':9}{seconds:5.0f} s  {shown}", flush=True)
    print(f"{len(chosen) - survivors} of {len(chosen)} caught")
    return survivors


if __name__ == "__main__":
    sys.exit(main())
