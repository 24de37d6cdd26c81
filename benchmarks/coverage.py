"""Whether error bars hold what they promise: coverage of 95 % bands on the suite's problems; a table, and JSON.

    python -m benchmarks.coverage --out results/coverage.json       # all problems, 20 sets of labels each: 15 minutes
    python -m benchmarks.coverage --quick                           # two problems, four sets

A network of each problem is fitted to a set of labels of its own, and from there to twenty fresh sets. Each fit gives
bars at the test points; counted is how often the truth lies within them. What the bars cannot know, the network's size
and the bias of the labels, is common to all sets: it is estimated from the mean error of the twenty fits.
"""

import argparse
import json
import time
from pathlib import Path

import torch
from torch import Tensor

import sobolev_lib as sl
from benchmarks.problems import PROBLEMS, QUANTITIES, Problem
from benchmarks.report import environment, write_whole

LABELS = 2**13
SETS = 16  # of replicated Sobol' labels
SMALL = ("case study, d = 7", "basket, d = 12", "basket, d = 20", "Asian", "Ornstein-Uhlenbeck")  # 3-3, others 6-6
KINDS = ("pseudo-random", "replicated Sobol'")


def drawn(problem: Problem, kind: str, seed: int) -> tuple[sl.Samples, sl.Samples | list[sl.Samples]]:
    """Return labels to fit, and the same as `uncertainty` wants them."""
    if kind == KINDS[0]:
        labels = problem.draw(LABELS, 5000 + seed)
        return labels, labels
    sets = [problem.draw_sobol(LABELS // SETS, 5000 + SETS * seed + k) for k in range(SETS)]
    parts = zip(*((s.x, s.value, s.gradient) for s in sets), strict=True)
    return sl.Samples(*(torch.cat(part) for part in parts)), sets


def start(problem: Problem) -> tuple[sl.Surrogate, sl.SobolevLoss]:
    """Return a network that fits, and the balance of its residuals."""
    labels = problem.draw(LABELS, 4999)
    hidden = (3, 3) if problem.name in SMALL else (6, 6)
    net = sl.Surrogate([problem.dim, *hidden, 1], "softplus", generator=torch.Generator().manual_seed(0))
    sl.fit(net, labels, order=1, steps=1000, balance="covariance")
    return net, sl.balance_by_covariance(net, labels, order=1)


@torch.no_grad()
def errors_of(problem: Problem, net: sl.Surrogate) -> list[Tensor]:
    """Return the errors of value (n, 1), gradient (n, d) and curvature (n, 1) at the test points."""
    truth = problem.truth
    value, gradient, hvp = net.taylor(truth["x"], order=2, directions=problem.direction[None])
    found = (value, gradient, hvp[:, 0] @ problem.direction)
    return [(f - truth[name]).reshape(len(value), -1) for f, name in zip(found, QUANTITIES, strict=True)]


def cost(net: sl.Surrogate, labels: sl.Samples, loss: sl.SobolevLoss) -> float:
    """Return processor seconds of `uncertainty` over those of a Levenberg-Marquardt step, the median of five."""
    ratios = []
    for _ in range(5):
        begin = time.process_time()
        sl.fit(net.copy(), labels, order=1, steps=0, balance=loss, finish=1)
        between = time.process_time()
        sl.uncertainty(net, labels, loss)
        ratios.append((time.process_time() - between) / (between - begin))
    return sorted(ratios)[2]


def rows(problem: Problem, seeds: int) -> list[dict]:
    """Return the coverage on one problem, a row for each kind of noise."""
    net, loss = start(problem)
    found = []
    for kind in KINDS:
        errors, bars, inside = [], [], []
        for seed in range(seeds):
            labels, sets = drawn(problem, kind, seed)
            fitted = net.copy()
            sl.fit(fitted, labels, order=1, steps=0, balance=loss, finish=30)
            known = sl.uncertainty(fitted, sets, loss)
            own = known.bars(problem.truth["x"], direction=problem.direction)
            bars.append([part.reshape(len(part), -1) for part in (own.price, own.delta, own.gamma)])
            errors.append(errors_of(problem, fitted))
            pairs = zip(errors[-1], bars[-1], strict=True)
            inside.append([(e.abs() < known.factor() * b).double().mean(0) for e, b in pairs])
        row = {"problem": problem.name, "noise": kind, "seeds": seeds, "labels": LABELS, "widths": net.widths}
        row |= summary(errors, bars, inside)
        if kind == KINDS[0]:
            row["cost"] = round(cost(net, problem.draw(LABELS, 4999), loss), 2)
        found.append(row)
    return found


def summary(errors: list, bars: list, inside: list) -> dict:
    """Return coverage with its standard error over sets, and what scatter and bias are, in bars."""
    kept: dict[str, dict] = {"coverage": {}, "error": {}, "scatter": {}, "bias": {}}
    for k, name in enumerate(QUANTITIES):
        shares = torch.stack([part[k] for part in inside])  # (seeds, components)
        e, size = torch.stack([part[k] for part in errors]), torch.stack([part[k] for part in bars])
        unit = size.square().mean((0, 1)).sqrt()  # of each component
        variance = e.var(0).mean(0)
        bias = (e.mean(0).square().mean(0) - variance / len(e)).clamp_min(0).sqrt()
        kept["coverage"][name] = round(shares.mean().item(), 3)
        kept["error"][name] = round((shares.mean(1).std() / len(shares) ** 0.5).item(), 3)
        kept["scatter"][name] = round((variance.sqrt() / unit).mean().item(), 2)
        kept["bias"][name] = round((bias / unit).mean().item(), 2)
        if name == "gradient":
            kept["coverage"]["components"] = [round(share, 3) for share in shares.mean(0).tolist()]
    return kept


def main() -> None:
    """Run, print, and write JSON."""
    parser = argparse.ArgumentParser(description="Coverage of 95 % error bars on the suite's problems.")
    parser.add_argument("--only", nargs="+", default=[""], help="parts of problems' names")
    parser.add_argument("--quick", action="store_true", help="two problems, four sets of labels")
    parser.add_argument("--out", type=Path, help="where the JSON goes; problems that it has are not repeated")
    options = parser.parse_args()
    torch.set_num_threads(1)
    only, seeds = (("digital", "d = 3"), 4) if options.quick else (options.only, 20)
    known = options.out is not None and options.out.exists()
    made = json.loads(options.out.read_text(encoding="utf-8"))["rows"] if known else []
    for problem in (make() for make in PROBLEMS):
        if not any(o in problem.name for o in only) or any(row["problem"] == problem.name for row in made):
            continue
        for row in rows(problem, seeds):
            made.append(row)
            figures = "  ".join(
                f"{name} {100 * row['coverage'][name]:.0f} % (scatter {row['scatter'][name]}, bias {row['bias'][name]})"
                for name in QUANTITIES
            )
            print(f"{row['problem']:20} {row['noise']:18} {figures}  {row.get('cost', '')}", flush=True)
        if options.out is not None:
            content = {"rows": made, "environment": environment()}
            write_whole(options.out, json.dumps(content).replace('{"problem"', '\n{"problem"') + "\n")


if __name__ == "__main__":
    main()
