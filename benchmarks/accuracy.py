"""Error by order of training, number of samples and network, over seeds: a table, and the same as JSON.

    python -m benchmarks.accuracy --out results/accuracy.json

The problem is the case study of Chapter 9 (seed 0), once with 20 assets; the seeds draw labels, initial weights and
batches. The large network is trained by Adam, the small one from scratch by Adam and least squares.
"""

import argparse
import json
import time
from pathlib import Path

import torch

import sobolev_lib as sl
from benchmarks.case_study import draw
from benchmarks.report import environment, write_whole

SIZES = (2**13, 2**16, 2**20)
QUANTITIES = ("price", "delta", "gamma")
TARGETS = {(7, 2**13): (6e-4, 1e-3, 4e-2), (7, 2**20): (1e-4, 2e-4, 1e-2), (20, 2**14): (1e-3, 5e-4, 6e-2)}


def large(samples: sl.Samples, order: int, seed: int) -> sl.Surrogate:
    """Return d-128x6-1 after 2,000 Adam steps of 256."""
    net = sl.Surrogate([samples.x.shape[1], *[128] * 6, 1], generator=torch.Generator().manual_seed(seed))
    sl.fit(net, samples, order=order, steps=2000, batch=256, learning_rate=3e-3, seed=seed)
    return net


def small(samples: sl.Samples, order: int, seed: int) -> sl.Surrogate:
    """Return d-3-3-1 after a short warm-up and least squares to the end."""
    generator = torch.Generator().manual_seed(seed)
    net = sl.Surrogate([samples.x.shape[1], 3, 3, 1], "softplus", gain=1.0, generator=generator)
    balance = "covariance" if order else "moments"
    sl.fit(net, samples, order=order, steps=500, batch=256, learning_rate=1e-2, balance=balance, seed=seed)
    return net


def rows(seeds: list[int], only: str | None):
    """Yield one row for each network, size and order: mean and standard deviation over the seeds."""
    work = [(7, count, small) for count in SIZES] + [(20, 2**14, small)] + [(7, count, large) for count in SIZES]
    for dim, count, train in [part for part in work if only in (None, part[2].__name__)]:
        case = sl.basket_case(dim, smoothing=sl.Blend(width=0.02))
        x = case.test_inputs()
        exact = case.reference(x)
        for order in (0, 1, 2):
            start, errors = time.perf_counter(), []
            for seed in seeds:
                samples = draw(case, count, seed, order)
                errors.append([*sl.evaluate(train(samples, order, seed), x, exact).rmse.values()])
            table = torch.tensor(errors)
            yield {
                "network": train.__name__,
                "dim": dim,
                "samples": count,
                "order": order,
                "mean": dict(zip(QUANTITIES, table.mean(0).tolist(), strict=True)),
                "spread": dict(zip(QUANTITIES, table.std(0).tolist(), strict=True)),
                "target": TARGETS.get((dim, count)) if train is small and order else None,
                "seconds": round((time.perf_counter() - start) / len(seeds), 1),
            }


def main() -> None:
    """Measure, print, and write the same as JSON."""
    parser = argparse.ArgumentParser(description="Error by order, samples and network, over seeds.")
    parser.add_argument("--seed", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--only", choices=("small", "large"), help="one network instead of both")
    parser.add_argument("--out", type=Path, default=Path("results/accuracy.json"), help="where the JSON goes")
    options = parser.parse_args()
    torch.set_num_threads(1)
    done = []
    print(f"{'network':8} {'d':>3} {'samples':>9} order   price              delta              gamma", flush=True)
    for row in rows(options.seed, options.only):
        done.append(row)
        figures = "   ".join(f"{row['mean'][q]:.1e} +- {row['spread'][q]:.0e}" for q in QUANTITIES)
        print(
            f"{row['network']:8} {row['dim']:>3} {row['samples']:>9,} {row['order']:>5}   {figures}   "
            f"{row['seconds']:.0f} s each",
            flush=True,
        )
        result = {"seeds": options.seed, "rows": done, "environment": environment()}
        write_whole(options.out, json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
