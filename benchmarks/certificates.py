"""What is proved of small networks over their whole domain, beside samples: a table, and the same as JSON.

python -m benchmarks.certificates --out results/certificates.json

Networks d-3-3-1 are fitted to labels of the case study at order 1, by least squares to the end. `proved` holds over the
box of the test inputs; `sampled` is the largest error at a million uniform points; `seen` the largest that the search
itself met, proved at its point. Seconds are those of the processor, on one thread.
"""

import argparse
import json
import time
from pathlib import Path

import torch
from torch import Tensor

import sobolev_lib as sl
from benchmarks.report import environment, write_whole

LABELS = 2**15
POINTS, CHUNK = 2**20, 2**16
TOLERANCE = 1e-4
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


def ranges():
    """Yield how much wider than sampled the proved ranges of value and gradient are, thin and wide."""
    case = sl.basket_case(7, smoothing=sl.Blend(width=0.02))
    nets = {hidden: trained(case, "silu", 1, hidden)[0] for hidden in ((3, 3), (128, 128))}
    for hidden, radius, cells in (((3, 3), 0.68, 1000), ((128, 128), 0.1, 100), ((128, 128), 0.5, 500)):
        net = nets[hidden]
        box = sl.Interval([1 - radius] * 7, [1 + radius] * 7)
        start = time.process_time()
        found = sl.bounds(net, box, cells=cells)
        seconds = time.process_time() - start
        low, high = torch.full((8,), torch.inf).double(), torch.full((8,), -torch.inf).double()
        for x in uniform(box, 1001):
            value, gradient = net.value_and_gradient(x)
            both = torch.cat([value[:, None], gradient], 1).detach()
            low, high = torch.minimum(low, both.amin(0)), torch.maximum(high, both.amax(0))
        corners = torch.cartesian_prod(*torch.stack([box.lo, box.hi], 1))
        value, gradient = net.value_and_gradient(corners)
        both = torch.cat([value[:, None], gradient], 1).detach()
        width = torch.maximum(high, both.amax(0)) - torch.minimum(low, both.amin(0))
        proved = torch.cat([found.value.hi - found.value.lo, (found.gradient.hi - found.gradient.lo)[0]])
        ratios = proved / width
        largest = int(width[1:].argmax()) + 1
        yield {
            "hidden": list(hidden),
            "radius": radius,
            "cells": cells,
            "value": ratios[0].item(),
            "gradient": ratios[largest].item(),
            "worst_component": ratios[1:].max().item(),
            "seconds": seconds,
        }


def main() -> None:
    """Measure, print, and write the same as JSON."""
    parser = argparse.ArgumentParser(description="Proved against sampled errors of small networks.")
    parser.add_argument("--out", type=Path, default=Path("results/certificates.json"), help="where the JSON goes")
    options = parser.parse_args()
    torch.set_num_threads(1)
    done = []
    print("d   activation seed   proved / sampled: price  delta  curvature   seconds   verdicts", flush=True)
    for row in rows({7: [1, 2, 3, 4, 5], 20: [1, 2, 3]}):
        done.append(row)
        ratios = "  ".join(f"{row['proved'][name] / row['sampled'][name]:.2f}" for name in NAMES)
        answers = ", ".join(row["verdicts"].values())
        print(
            f"{row['dim']:<3} {row['activation']:10} {row['seed']:4}   {ratios}   {row['seconds']:.2f}   {answers}",
            flush=True,
        )
    result = {"tolerance": TOLERANCE, "points": POINTS, "rows": done, "ranges": [], "environment": environment()}
    write_whole(options.out, json.dumps(result, indent=1) + "\n")
    for row in ranges():
        print(row, flush=True)
        result["ranges"].append(row)
        write_whole(options.out, json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
