"""Where the next labels go: chosen by the covariance of the parameters, against the law of the inputs, and uniform.

    python -m benchmarks.design --out results/design.json       # four problems, five seeds: a quarter of an hour
    python -m benchmarks.design --quick                         # one problem, one seed

A quarter of the labels, from the law of the inputs, is a pilot. The rest is drawn from the law again, uniformly in
the box of the test points, or from the density that lowers the mean variance of value, gradient and curvature most.
All networks have the same start, and the same number of labels of the same kind.
"""

import argparse
import json
import math
from pathlib import Path

import torch
from torch import Tensor

import sobolev_lib as sl
from benchmarks.problems import PROBLEMS, QUANTITIES, Problem, box, differentiated, mean_ramp
from benchmarks.report import environment, write_whole
from sobolev_lib.training.gauss_newton import jacobian
from sobolev_lib.training.uncertainty import _eigen, _sums

LABELS, PILOT = 2**12, 2**10
KINDS = ("law", "uniform", "design")
NEAR = 64  # pilot samples whose residuals tell the noise of an input


def near_expiry() -> Problem:
    """Return a call on a basket of three assets a fiftieth of a year before expiry: a narrow kink."""
    case, ones, time = sl.basket_case(3, seed=3), torch.ones(3, dtype=torch.float64), 0.02
    payoff = sl.Call(strike=1.0, weights=case.weights, smoothing=sl.LastStep())
    exact = differentiated(lambda x: mean_ramp(x @ case.weights - 1.0, 0.2 * math.sqrt(time)))
    inputs = box(0.4 * ones, 1.6 * ones)
    return Problem("near expiry", case.model, payoff, inputs, ones, exact, horizon=time, steps=2)


def inverse(matrix: Tensor) -> Tensor:
    """Return the inverse of a positive matrix, without the directions that nothing determines."""
    sizes, vectors, unit = _eigen(matrix)
    kept = sizes > 1e-12 * sizes.max()
    return ((vectors[:, kept] / sizes[kept]) @ vectors[:, kept].T) / unit.outer(unit)


@torch.no_grad()
def density(
    net: sl.Surrogate, pilot: sl.Samples, loss: sl.SobolevLoss, candidates: Tensor, n: int, region: Tensor, u: Tensor
) -> tuple[Tensor, float]:
    """Return the share of n labels that each candidate should have, and the variance then over that of equal shares.

    Minimised is the sum, over value, gradient and curvature, of the mean variance in the region over its present one,
    by eight multiplicative steps. A half of the labels stays with equal shares: a density that is too sharp trusts the
    network where no label would contradict it.
    """
    d, p, m = region.shape[1], net.parameter_count, len(candidates)
    normal, outer, _, total = _sums(net, pilot, loss)
    normal = normal + total / len(pilot.x) / 4 * torch.eye(p).double()
    left = inverse(normal)
    _, slopes = jacobian(net, region, order=2, directions=u[None])
    wanted = (slopes[:, 0], slopes[:, 1 : 1 + d].flatten(0, 1), u @ slopes[:, 1 + d :])
    target = sum(part.T @ part / ((part @ left @ outer @ left) * part).sum() for part in wanted)
    axes = sl.directions.principal(net.gradient(pilot.x), min(2, d)).T
    unit, squares = (pilot.x @ axes).std(0), loss.residuals(net, pilot).square().mean(1)
    gaps = torch.cdist(candidates @ axes / unit, pilot.x @ axes / unit)
    noise = squares[gaps.topk(NEAR, largest=False).indices].mean(1)
    rows, share, variances = loss.matrix @ jacobian(net, candidates, order=1)[1], torch.full((m,), 1 / m).double(), []
    for _ in range(8):
        told = (rows * share.sqrt()[:, None, None]).flatten(0, 1)
        spread = (rows * (share * noise).sqrt()[:, None, None]).flatten(0, 1)
        left, middle = inverse(normal + n * told.T @ told), outer + n * spread.T @ spread
        inner = left @ target @ left
        variances.append((inner * middle).sum().item())
        gain = 2 * ((rows @ (left @ middle @ inner)) * rows).sum((1, 2))
        gain = gain - noise * ((rows @ inner) * rows).sum((1, 2))
        share = share * gain.clamp_min(1e-12).sqrt()
        share = share / share.sum()
    return 0.5 * share + 0.5 / m, variances[-1] / variances[0]


def uniform(problem: Problem, count: int, seed: int) -> Tensor:
    """Return inputs that are uniform in the smallest box around the test points."""
    x = problem.truth["x"]
    return box(x.min(0).values, x.max(0).values)(count, seed)


def rows(problem: Problem, seeds: int, labels: int) -> dict:
    """Return the errors of the three choices of inputs."""
    hidden = (3, 3) if problem.dim > 6 else (6, 6)
    start = sl.Surrogate([problem.dim, *hidden, 1], "softplus", generator=torch.Generator().manual_seed(0))
    sl.fit(start, problem.draw(2**13, 6999), order=1, steps=600, balance="covariance", finish=20)
    row: dict = {"problem": problem.name, "labels": labels, "pilot": PILOT, "widths": start.widths}
    row |= {"errors": {kind: [] for kind in KINDS}, "predicted": []}
    for seed in range(seeds):
        pilot, net, n = problem.draw(PILOT, 100 + seed), start.copy(), labels - PILOT
        sl.fit(net, pilot, order=1, steps=0, balance="covariance", finish=10)
        loss = sl.balance_by_covariance(net, pilot, 1)
        candidates = torch.cat([problem.inputs(2048, 400 + seed), uniform(problem, 2048, 500 + seed)])
        region = problem.truth["x"][::2]
        share, ratio = density(net, pilot, loss, candidates, n, region, problem.direction)
        row["predicted"].append(round(math.sqrt(ratio), 3))
        picked = torch.multinomial(share, n, True, generator=torch.Generator().manual_seed(seed))
        chosen = (problem.inputs(n, 200 + seed), uniform(problem, n, 300 + seed), candidates[picked])
        for kind, x in zip(KINDS, chosen, strict=True):
            more = problem.label(x, sl.gaussian(seed=7000 + seed), order=1)
            names = ("x", "value", "gradient")
            samples = sl.Samples(*(torch.cat([getattr(pilot, k), getattr(more, k)]) for k in names))
            fitted = start.copy()
            sl.fit(fitted, samples, order=1, steps=0, balance="covariance", finish=15)
            row["errors"][kind].append({k: float(f"{v:.4g}") for k, v in problem.errors(fitted).items()})
    row["ratio"] = {kind: {name: ratio_of(row, kind, name) for name in QUANTITIES} for kind in KINDS[1:]}
    return row


def ratio_of(row: dict, kind: str, name: str) -> list[float]:
    """Return the error over that of the law of the inputs, the geometric mean over seeds, and its standard error."""
    pairs = zip(row["errors"][kind], row["errors"]["law"], strict=True)
    logs = torch.tensor([math.log(a[name] / b[name]) for a, b in pairs])
    error = logs.std().item() / len(logs) ** 0.5 if len(logs) > 1 else math.nan
    return [round(logs.mean().exp().item(), 2), round(error, 2)]


def main() -> None:
    """Run, print, and write JSON."""
    parser = argparse.ArgumentParser(description="Where the next labels go.")
    parser.add_argument("--quick", action="store_true", help="one problem, one seed")
    parser.add_argument("--out", type=Path, help="where the JSON goes")
    options = parser.parse_args()
    torch.set_num_threads(1)
    by_name = {make().name: make for make in PROBLEMS} | {"near expiry": near_expiry}
    names = ("near expiry",) if options.quick else ("near expiry", "case study, d = 7", "digital", "Heston call")
    made = []
    for name in names:
        made.append(rows(by_name[name](), 1 if options.quick else 5, LABELS))
        print(name, made[-1]["predicted"], made[-1]["ratio"], flush=True)
        if options.out is not None:
            content = {"rows": made, "environment": environment()}
            write_whole(options.out, json.dumps(content).replace('{"problem"', '\n{"problem"') + "\n")


if __name__ == "__main__":
    main()
