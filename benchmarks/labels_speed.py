"""What labels cost: against NumPy, by order, by dimension, and in memory.

``measure()`` returns rows with the keys name, value, baseline, ratio and target; ``python -m benchmarks.labels_speed``
prints them. Every ratio compares timings of the same run, taken in turns, so that other work on the machine touches
both alike: the least of several repetitions, and against NumPy, whose time varies most, the medians as well. Memory is
the peak of a fresh process.
"""

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

import numpy as np
import torch

from sobolev_lib.simulation.case_study import basket_case
from sobolev_lib.simulation.labels import label
from sobolev_lib.simulation.models import BlackScholes
from sobolev_lib.simulation.noise import gaussian
from sobolev_lib.simulation.payoffs import Blend
from sobolev_lib.simulation.schemes import EulerMaruyama

WIDTH = 0.02


def measure() -> list[dict]:
    """Run every measurement; takes about three minutes on two cores."""
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        return [*against_numpy(), *by_order(), *memory()]
    finally:
        torch.set_num_threads(threads)


def numpy_labels(x, cholesky, weights, strike, width, seed):
    """The baseline: a value and a gradient from one antithetic pair per input, as one would write it in NumPy.

    Returns the same labels as ``label`` with ``Blend`` (or, without a width, with the payoff itself), from other
    random numbers. The derivative of the payoff is coded by hand.
    """
    increments = np.random.default_rng(seed).standard_normal(x.shape) @ cholesky.T
    value, gradient = np.zeros(len(x)), np.zeros(x.shape)
    for sign in (1.0, -1.0):
        margin = (x + sign * increments) @ weights - strike
        if width is None:
            payoff, slope = np.maximum(margin, 0.0), (margin > 0).astype(float)
        else:
            y = margin / width
            rise = 1.0 / (1.0 + np.exp(-y))
            payoff = 0.5 * width * (y * rise + np.logaddexp(y, 0.0))
            slope = rise + 0.5 * y * rise * (1.0 - rise)
        value += 0.5 * payoff
        gradient += 0.5 * slope[:, None] * weights
    return value, gradient


def against_numpy(dim: int = 7, count: int = 2**20) -> list[dict]:
    """Labels with gradients of the Bachelier basket, one antithetic pair per input, exact transition."""
    rows = []
    for smoothing, width in ((Blend(WIDTH), WIDTH), (None, None)):
        case = basket_case(dim, smoothing=smoothing)
        x = case.inputs(count, gaussian(seed=1))
        arrays = x.numpy(), case.model.cholesky.numpy(), case.weights.numpy(), case.strike, width, 0
        times = timings(
            lambda case=case, x=x: label(case.model, case.payoff, x, horizon=1.0, noise=gaussian(seed=0)),
            lambda arrays=arrays: numpy_labels(*arrays),
            repeats=15,
        )
        payoff = "call" if width is None else "smoothed call"
        for kind, choose in (("best", min), ("median", statistics.median)):
            ours, theirs = map(choose, times)
            name = f"{payoff}, d = {dim}, {kind}: samples/s with gradient, ours and NumPy's"
            target = "2e6, twice NumPy's" if width else None
            rows.append(row(name, count / ours, count / theirs, theirs / ours, target))
    return rows


def by_order() -> list[dict]:
    """Gradient against value, and one Hessian-vector product against gradient, in microseconds per sample."""
    rows = []
    for dim in (1, 7, 100):
        case = basket_case(dim, smoothing=Blend(WIDTH))
        lognormal = BlackScholes(volatility=case.model.volatility, correlation=case.model.correlation)
        euler = {"scheme": EulerMaruyama(), "steps": 50}
        settings = [("Bachelier, exact", case.model, {}), ("Bachelier, 50 Euler steps", case.model, euler)]
        settings.append(("Black-Scholes, 50 Euler steps", lognormal, euler))
        for name, model, scheme in settings:
            count = (2**18 if dim < 100 else 2**15) // (32 if scheme else 1)
            x = case.test_inputs(count).clamp(min=0.1)
            direction = torch.ones(1, dim, dtype=torch.float64)

            def run(order: int, model=model, x=x, case=case, scheme=scheme, direction=direction):
                given = {"directions": direction} if order == 2 else {}
                label(model, case.payoff, x, horizon=1.0, noise=gaussian(), order=order, **scheme, **given)

            value, gradient, product = map(min, timings(lambda: run(0), lambda: run(1), lambda: run(2), repeats=5))
            per = 1e6 / count
            text = f"{name}, d = {dim}: us per sample, "
            rows.append(row(text + "gradient and value", gradient * per, value * per, gradient / value, "at most 3"))
            name = text + "one HVP and gradient"
            rows.append(row(name, product * per, gradient * per, product / gradient, "at most 3"))
    return rows


def memory() -> list[dict]:
    """Peak memory of a fresh process in MiB, against that of the same imports without work."""
    idle = peak("pass")
    rows = []
    long = "steps=50, scheme=EulerMaruyama(), paths=10_000_000, order=0"
    rows.append(
        row("1e7 paths x 50 steps x 7 dims, values: MiB", peak(program("x[:1]", long)), idle, None, "below 2048")
    )
    for order in (0, 1, 2):
        text = f"steps=50, scheme=EulerMaruyama(), order={order}, chunk=8192" + (", directions=x[:1]" * (order == 2))
        value = peak(program("x", text))
        name = f"8192 paths x 50 steps x 7 dims at once, Black-Scholes, order {order}: MiB"
        rows.append(row(name, value, idle, None, None))
    return rows


def program(x: str, arguments: str) -> str:
    """Source of a process that labels; Black-Scholes, whose reverse sweep has to keep every step."""
    return f"""
case = basket_case(7, smoothing=Blend({WIDTH}))
model = BlackScholes(volatility=case.model.volatility, correlation=case.model.correlation)
x = case.test_inputs(8192).clamp(min=0.1)
label(model, case.payoff, {x}, horizon=1.0, noise=gaussian(), {arguments})
"""


def peak(source: str) -> float:
    """Peak resident memory in MiB of a Python process that runs `source` after the library's imports."""
    imports = "\n".join(
        [
            "import resource, torch",
            "torch.set_num_threads(2)",
            "from sobolev_lib.simulation.case_study import basket_case",
            "from sobolev_lib.simulation.labels import label",
            "from sobolev_lib.simulation.models import BlackScholes",
            "from sobolev_lib.simulation.noise import gaussian",
            "from sobolev_lib.simulation.payoffs import Blend",
            "from sobolev_lib.simulation.schemes import EulerMaruyama",
        ]
    )
    report = "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)"
    paths = os.pathsep.join(filter(None, [os.getcwd(), os.environ.get("PYTHONPATH")]))
    command = [sys.executable, "-c", f"{imports}\n{source}\n{report}"]
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": paths})
    return float(done.stdout.split()[-1])


def timings(*functions: Callable[[], object], repeats: int) -> list[list[float]]:
    """Times of each function in seconds, the functions taking turns."""
    times: list[list[float]] = [[] for _ in functions]
    for _ in range(repeats):
        for function, taken in zip(functions, times, strict=True):
            start = time.perf_counter()
            function()
            taken.append(time.perf_counter() - start)
    return times


def row(name: str, value: float, baseline: float | None, ratio: float | None, target: str | None) -> dict:
    """One line of the table."""
    return {"name": name, "value": value, "baseline": baseline, "ratio": ratio, "target": target}


def main():
    """Print the table."""
    print(f"{'':78} {'value':>10} {'baseline':>10} {'ratio':>6}  target")
    for line in measure():
        numbers = [f"{line[key]:.3g}" if line[key] is not None else "" for key in ("value", "baseline", "ratio")]
        print(
            f"{line['name']:78} {numbers[0]:>10} {numbers[1]:>10} {numbers[2]:>6}  {line['target'] or ''}", flush=True
        )


if __name__ == "__main__":
    main()
