"""What is proved of small networks over their whole domain, beside samples: a table, and the same as JSON.

python -m benchmarks.certificates --out results/certificates.json

Networks d-3-3-1 are fitted to labels of the case study at order 1, by least squares to the end. `proved` holds over the
box of the test inputs; `sampled` is the largest error at a million uniform points; `seen` the largest that the search
itself met, proved at its point. Seconds are those of the processor, on one thread. Further parts: ranges beside sampled
ones, an error of two directions, Heston's model, repair, and the certified cut.
"""

import argparse
import json
import time
from pathlib import Path

import torch
from torch import Tensor

import sobolev_lib as sl
from benchmarks import problems
from benchmarks.report import environment, write_whole

LABELS = 2**15
POINTS, CHUNK = 2**20, 2**16
TOLERANCE = 1e-4
CELLS_TWO = 20_000  # for a function of two directions
NAMES = {"price": "value", "delta": "gradient", "curvature": "curvature"}


def domain(case: sl.BasketCase) -> sl.Interval:
    """Return the box of the test inputs."""
    half = 0.5 + 0.25 * ((case.dim - 1) / 12) ** 0.5
    return sl.Interval([1 - half] * case.dim, [1 + half] * case.dim)


def reference(case: sl.BasketCase) -> sl.Reference:
    """Return the true price with enclosures."""
    terms = {"strike": case.strike, "volatility": case.volatility, "maturity": case.horizon}
    return sl.bachelier_reference(case.weights, **terms)


def trained(case: sl.BasketCase, activation: str, seed: int, hidden=(3, 3)) -> tuple[sl.Surrogate, sl.Samples]:
    """Return a network of the case study and its labels."""
    noise = sl.sobol(seed=seed)
    x = case.inputs(LABELS, noise)
    samples = sl.label(case.model, case.payoff, x, horizon=case.horizon, noise=noise, order=1)
    generator = torch.Generator().manual_seed(seed)
    net = sl.Surrogate([case.dim, *hidden, 1], activation, gain=1.0, generator=generator)
    sl.fit(net, samples, order=1, steps=500, batch=256, learning_rate=1e-2, balance="covariance", seed=seed)
    return net, samples


def uniform(box: sl.Interval, seed: int):
    """Yield a million points of the box, in chunks."""
    generator = torch.Generator().manual_seed(seed)
    for _ in range(POINTS // CHUNK):
        u = torch.rand(CHUNK, len(box), dtype=torch.float64, generator=generator)
        yield torch.lerp(box.lo, box.hi, u)


def largest_errors(net: sl.Surrogate, case: sl.BasketCase, box: sl.Interval, v: Tensor) -> dict[str, float]:
    """Return the largest sampled errors of price, delta and curvature along v."""
    worst = torch.zeros(3, dtype=torch.float64)
    for x in uniform(box, 1000):
        value, gradient, hvp = (part.detach() for part in net.taylor(x, order=2, directions=v[None]))
        truth = case.reference(x)
        parts = value - truth.price, gradient - truth.delta, hvp[:, 0] @ v - truth.gamma
        worst = torch.maximum(worst, torch.stack([part.abs().max() for part in parts]))
    return dict(zip(NAMES, worst.tolist(), strict=True))


def rows(dims: dict[int, list[int]]):
    """Yield one row for each network."""
    for dim, seeds in dims.items():
        case = sl.basket_case(dim, smoothing=sl.Blend(width=0.02))
        box, v, truth = domain(case), torch.ones(dim, dtype=torch.float64), reference(case)
        for seed in seeds:
            for activation in ("softplus", "silu"):
                net, _ = trained(case, activation, seed)
                start = time.process_time()
                found = sl.error_bound(net, truth, box, direction=v)
                seconds = time.process_time() - start
                start = time.process_time()
                asked = {
                    "non-negative": sl.is_non_negative(net, box, tolerance=TOLERANCE),
                    "increasing": sl.is_increasing(net, box, v, tolerance=TOLERANCE),
                    "convex": sl.is_convex(net, box, v, tolerance=TOLERANCE),
                }
                yield {
                    "dim": dim,
                    "activation": activation,
                    "seed": seed,
                    "parameters": net.parameter_count,
                    "proved": {name: getattr(found, of).bound for name, of in NAMES.items()},
                    "seen": {name: getattr(found, of).seen for name, of in NAMES.items()},
                    "sampled": largest_errors(net, case, box, v),
                    "seconds": seconds,
                    "verdicts": {name: verdict.answer for name, verdict in asked.items()},
                    "verdict_seconds": time.process_time() - start,
                }


def widths(net: sl.Surrogate, box: sl.Interval) -> Tensor:
    """Return the sampled widths of value and gradient, corners included."""
    corners = torch.cartesian_prod(*torch.stack([box.lo, box.hi], 1))
    low, high = torch.full((len(box) + 1,), torch.inf).double(), torch.full((len(box) + 1,), -torch.inf).double()
    for x in (corners, *uniform(box, 1001)):
        value, gradient = net.value_and_gradient(x)
        both = torch.cat([value[:, None], gradient], 1).detach()
        low, high = torch.minimum(low, both.amin(0)), torch.maximum(high, both.amax(0))
    return high - low


def ranges():
    """Yield how much wider than sampled the proved ranges of value and gradient are, thin and wide."""
    case = sl.basket_case(7, smoothing=sl.Blend(width=0.02))
    for seed in (1, 2, 3):
        nets = {hidden: trained(case, "silu", seed, hidden)[0] for hidden in ((3, 3), (128, 128))}
        for hidden, radius, cells in (((3, 3), 0.68, 1000), ((128, 128), 0.1, 1024), ((128, 128), 0.5, 4096)):
            net, box = nets[hidden], sl.Interval([1 - radius] * 7, [1 + radius] * 7)
            start = time.process_time()
            found = sl.bounds(net, box, cells=cells)
            seconds = time.process_time() - start
            width = widths(net, box)
            ratios = torch.cat([found.value.hi - found.value.lo, (found.gradient.hi - found.gradient.lo)[0]]) / width
            yield {
                "hidden": list(hidden),
                "seed": seed,
                "radius": radius,
                "cells": cells,
                "value": ratios[0].item(),
                "gradient": ratios[int(width[1:].argmax()) + 1].item(),
                "worst_component": ratios[1:].max().item(),
                "seconds": seconds,
            }


def two_directions():
    """Yield proved and sampled errors on the best of two baskets, against a network that knows the formula."""
    problem = problems.best_of_two()
    u = problem.direction
    for seed in (1, 2, 3):
        x = problem.inputs(LABELS, seed)
        truth = problem.exact(x, u)
        fine = sl.Surrogate([problem.dim, 8, 8, 1], "softplus", gain=1.0, generator=torch.Generator().manual_seed(0))
        sl.fit(fine, sl.Samples(x, truth[0], truth[1]), order=1, steps=1000, batch=256, seed=seed)
        net = sl.Surrogate([problem.dim, 4, 4, 1], "softplus", gain=1.0, generator=torch.Generator().manual_seed(seed))
        labels = problem.label(x, sl.sobol(seed=seed), order=1)
        sl.fit(net, labels, order=1, steps=500, batch=256, balance="covariance", seed=seed)
        box = sl.Interval([0.4] * problem.dim, [1.6] * problem.dim)
        seconds, found = {}, {}
        for name, of in NAMES.items():
            start = time.process_time()
            found[name] = getattr(sl.error_bound(net, fine, box, of=(of,), direction=u, cells=CELLS_TWO), of)
            seconds[name] = time.process_time() - start
        worst = torch.zeros(3, dtype=torch.float64)
        for points in uniform(box, 1002):
            ours, theirs = (one.taylor(points, order=2, directions=u[None]) for one in (net, fine))
            parts = ours[0] - theirs[0], ours[1] - theirs[1], (ours[2] - theirs[2])[:, 0] @ u
            worst = torch.maximum(worst, torch.stack([part.detach().abs().max() for part in parts]))
        yield {
            "dim": problem.dim,
            "seed": seed,
            "parameters": [net.parameter_count, fine.parameter_count],
            "proved": {name: one.bound for name, one in found.items()},
            "seen": {name: one.seen for name, one in found.items()},
            "sampled": dict(zip(NAMES, worst.tolist(), strict=True)),
            "cells": {name: one.cells for name, one in found.items()},
            "seconds": seconds,
        }


def heston():
    """Yield what can be proved in Heston's model, where no formula has an enclosure: shape, not errors."""
    problem = problems.heston("call", 1.0)
    for seed in (1, 2, 3):
        x = problem.inputs(LABELS, seed)
        labels = problem.label(x, sl.sobol(seed=seed), order=1)
        net = sl.Surrogate([2, 4, 4, 1], "softplus", gain=1.0, generator=torch.Generator().manual_seed(seed))
        sl.fit(net, labels, order=1, steps=500, batch=256, balance="covariance", seed=seed)
        box, spot = sl.Interval(x.amin(0), x.amax(0)), torch.tensor([1.0, 0.0], dtype=torch.float64)
        start = time.process_time()
        asked = {
            "non-negative": sl.is_non_negative(net, box, tolerance=1e-3),
            "increasing": sl.is_increasing(net, box, spot, tolerance=1e-3),
            "convex": sl.is_convex(net, box, spot, tolerance=1e-2),
        }
        yield {
            "seed": seed,
            "parameters": net.parameter_count,
            "verdicts": {name: verdict.answer for name, verdict in asked.items()},
            "seconds": time.process_time() - start,
        }


def repairs():
    """Yield what it costs to be proved non-negative, increasing and convex without tolerance."""
    case = sl.basket_case(7, smoothing=sl.Blend(width=0.02))
    box, v, tests = domain(case), torch.ones(7, dtype=torch.float64), case.test_inputs()
    for seed in (1, 2, 3):
        for activation in ("softplus", "silu"):
            net, samples = trained(case, activation, seed)
            start = time.process_time()
            margins = {"non-negative": 1e-5, "increasing": 1e-4, "convex": 1e-3}
            fixed = sl.repair(net, samples, box, margins, order=1, direction=v)
            seconds = time.process_time() - start
            before, after = (sl.evaluate(one, tests, case.reference(tests)).rmse for one in (net, fixed.net))
            yield {
                "activation": activation,
                "seed": seed,
                "parameters": net.parameter_count,
                "proved": fixed.proved,
                "rounds": fixed.rounds,
                "rmse": {name: [before[name], after[name]] for name in ("price", "delta", "gamma")},
                "seconds": seconds,
            }


def cuts():
    """Yield how many nodes go by proof, and how many by samples, from networks of 40 to 83,713 parameters."""
    case = sl.basket_case(7, smoothing=sl.Blend(width=0.02))
    budgets = {(3, 3): 400, (8,) * 6: 200, (40, 40): 100, (128,) * 6: 10}
    for hidden, cells in budgets.items():
        net, _ = trained(case, "softplus", 1, hidden)
        for name, box in (("domain", domain(case)), ("radius 0.1", sl.Interval([0.9] * 7, [1.1] * 7))):
            for tolerance in (1e-2,):
                start = time.process_time()
                found = sl.cut_certified(net, box, tolerance, cells=cells)
                seconds, nodes = time.process_time() - start, sum(hidden)
                one = sl.error_bound(net, net.copy(), box, of=("value",), cells=cells).value
                yield {
                    "parameters": net.parameter_count,
                    "nodes": nodes,
                    "box": name,
                    "tolerance": tolerance,
                    "cells": cells,
                    "removed": {"proved": nodes - sum(found.net.widths[1:-1]), "sampled": nodes - found.sampled},
                    "itself": one.bound,
                    "seconds": seconds,
                }


PARTS = {
    "rows": lambda: rows({7: [1, 2, 3, 4, 5], 20: [1, 2, 3]}),
    "ranges": ranges,
    "two_directions": two_directions,
    "heston": heston,
    "repairs": repairs,
    "cuts": cuts,
}


def main() -> None:
    """Measure, print, and write the same as JSON, part by part."""
    parser = argparse.ArgumentParser(description="What is proved of small networks, beside samples.")
    parser.add_argument("--out", type=Path, default=Path("results/certificates.json"), help="where the JSON goes")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS), help="the others stay as they are")
    options = parser.parse_args()
    torch.set_num_threads(1)
    for part in options.parts:
        done = []
        for row in PARTS[part]():
            print(part, json.dumps(row), flush=True)
            done.append(row)
        stored = json.loads(options.out.read_text(encoding="utf-8")) if options.out.exists() else {}
        result = {"tolerance": TOLERANCE, "points": POINTS}
        result |= {name: done if name == part else stored.get(name, []) for name in PARTS}
        write_whole(options.out, json.dumps(result | {"environment": environment()}, indent=1) + "\n")


if __name__ == "__main__":
    main()
