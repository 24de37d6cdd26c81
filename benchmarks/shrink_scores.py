"""Does it matter which score `shrink` ranks by? Size, errors and time of what it finds, by score, over seeds.

    python -m benchmarks.shrink_scores --out results/shrink_scores.json

Each seed draws its own labels and initial weights of the network of Chapter 7; all scores shrink the same network.
"""

import argparse
import json
import time
from pathlib import Path

import torch
from torch import Tensor

import sobolev_lib as sl
from benchmarks.case_study import draw
from benchmarks.report import environment, write_whole

FOLD = 4096  # samples that scores look at


def scores(x: Tensor, seed: int) -> dict:
    """Return the functions from a network to scores of its nodes; None is the default of `shrink`, significance."""
    generator = torch.Generator().manual_seed(seed)
    return {
        "significance": None,
        "Taylor, centred": lambda net: sl.score_by_taylor(net, x, centred=True),
        "predictive": lambda net: chosen(net, x),
        "random": lambda net: sl.score_at_random(net, generator),
    }


def chosen(net: sl.Surrogate, x: Tensor) -> list[Tensor]:
    """Return scores that keep the nodes from which the next layer is best predicted, for half of them and all but one.

    `shrink` asks for these two sets: it halves wide layers, and takes single nodes from narrow ones.
    """
    found = [torch.zeros(width) for width in net.widths[1:-1]]
    for count in ([(width + 1) // 2 for width in net.widths[1:-1]], [max(1, width - 1) for width in net.widths[1:-1]]):
        for score, kept in zip(found, sl.keep_predictive(net, x, count), strict=True):
            score[kept] += 1
    return found


def run(seed: int) -> dict:
    """Train one network, shrink it by every score, and return what each found."""
    case = sl.basket_case(smoothing=sl.Blend(width=0.02))
    train, held = draw(case, 2**15, seed, 1), draw(case, 2**14, 1_000_003 + seed, 1)
    x = case.test_inputs()
    exact = case.reference(x)
    full = sl.Surrogate([7, *[128] * 6, 1], generator=torch.Generator().manual_seed(seed))
    sl.fit(full, train, order=0, steps=2000, batch=256, learning_rate=3e-3, seed=seed)
    result = {"seed": seed, "full": sl.evaluate(full, x, exact).rmse, "found": {}}
    for name, score in scores(train.x[:FOLD], seed).items():
        start = time.perf_counter()
        small, path = sl.shrink(full, train, validation=held, score=score, seed=seed)
        seconds = time.perf_counter() - start
        tuned = small.copy()
        sl.fit(tuned, train, order=1, steps=0, balance="covariance")
        result["found"][name] = {
            "widths": small.widths,
            "parameters": small.parameter_count,
            "trials": len(path.trials),
            "rmse": sl.evaluate(small, x, exact).rmse,
            "tuned": sl.evaluate(tuned, x, exact).rmse,
            "seconds": round(seconds, 1),
        }
        print(seed, name, json.dumps(result["found"][name]), flush=True)
    return result


def main() -> None:
    """Run all seeds, print, and write JSON."""
    parser = argparse.ArgumentParser(description="What shrink finds, by score, over seeds.")
    parser.add_argument("--seed", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--out", type=Path, default=Path("results/shrink_scores.json"), help="where the JSON goes")
    options = parser.parse_args()
    torch.set_num_threads(1)
    runs = []
    for seed in options.seed:
        runs.append(run(seed))
        write_whole(options.out, json.dumps({"runs": runs, "environment": environment()}, indent=1) + "\n")


if __name__ == "__main__":
    main()
