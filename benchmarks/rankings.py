"""Where interval significance stands: four tasks in which the ranking of nodes must matter, against its rivals.

    python -m benchmarks.rankings --out results/rankings.json          # about five minutes

Networks 64-64 are trained on values and gradients of four problems of the suite, five seeds each. Errors are those of
the cut network against the network before the cut, at 2,048 points of the inputs' law, relative to its own spread:

box      half of the nodes go, knowing only the box of inputs: scores and means from points drawn in it;
few      half of the nodes go, knowing four samples of the inputs;
stroke   three quarters of the nodes go, with 4,096 samples, folded by regression, without training;
inputs   the rank correlation of the inputs' scores with what fixing each input at its mean does to the value.
"""

import argparse
import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor

import sobolev_lib as sl
from benchmarks.problems import PROBLEMS, Problem
from benchmarks.report import environment, write_whole

SEEDS = (0, 1, 2, 3, 4)
NAMES = ("case study, d = 7", "Black-Scholes put", "Ornstein-Uhlenbeck", "epidemic")
WIDTH = 64
Scoring = Callable[[sl.Surrogate, Tensor], sl.Scores]


def significance(net: sl.Surrogate, x: Tensor, of: str = "value") -> sl.Scores:
    """Return the scores over balls around at most 256 points, a tenth of a standard deviation in radius."""
    return sl.significance(net, sl.balls(x[:256], 0.1 * net.input_scale), of=of)


def scorings(seed: int) -> dict[str, Scoring]:
    """Return all scores by name."""
    generator = torch.Generator().manual_seed(seed)
    return {
        "significance": significance,
        "significance of the gradient": lambda net, x: significance(net, x, of="gradient"),
        "Taylor, centred": lambda net, x: sl.score_by_taylor(net, x, centred=True),
        "Taylor": sl.score_by_taylor,
        "variance": sl.score_by_variance,
        "magnitude": lambda net, x: sl.score_by_magnitude(net),
        "random": lambda net, x: sl.score_at_random(net, generator),
    }


@torch.no_grad()
def change(net: sl.Surrogate, small: sl.Surrogate, x: Tensor) -> dict[str, float]:
    """Return the relative change of value and gradient, and the largest of the value, at points x."""
    before, after = net.taylor(x, order=1), small.taylor(x, order=1)
    spread, gaps = before[0].std(), [a - b for a, b in zip(after, before, strict=True)]
    unit = net.input_scale / spread
    return {
        "value": (gaps[0].square().mean().sqrt() / spread).item(),
        "gradient": ((gaps[1] * unit).square().mean().sqrt() / (before[1] * unit).square().mean().sqrt()).item(),
        "worst": (gaps[0].abs().max() / spread).item(),
    }


def nodes(net: sl.Surrogate, draw: Callable[[int], Tensor], seed: int) -> Iterator[tuple[str, str, dict[str, float]]]:
    """Yield task, score and errors of the three tasks about nodes."""
    x, test = draw(1)[:4096], draw(2)[:2048]
    uniform = torch.rand(4096, x.shape[1], dtype=x.dtype, generator=torch.Generator().manual_seed(seed))
    inside = torch.lerp(x.amin(0), x.amax(0), uniform)
    tasks = {"box": (inside, WIDTH // 2), "few": (x[:4], WIDTH // 2), "stroke": (x, WIDTH // 4)}
    for task, (known, count) in tasks.items():
        fold = {"x": known} if task == "stroke" else {"values": sl.means(net, known)}
        kept = {name: sl.keep_most(score(net, known), count) for name, score in scorings(seed).items()}
        if task == "stroke":
            boxes = sl.balls(x[:256], 0.1 * net.input_scale)
            enclosure = sl.enclose(net, boxes, rounding="nearest")
            kept["predictive"] = sl.keep_predictive(net, x, count)
            kept["predictive, weighed by adjoints"] = sl.keep_predictive(net, x, count, enclosure=enclosure)
        for name, some in kept.items():
            yield task, name, change(net, sl.cut(net, some, **fold), test)


def inputs(net: sl.Surrogate, x: Tensor, seed: int) -> Iterator[tuple[str, str, dict[str, float]]]:
    """Yield the rank correlations of the inputs' scores with what each input does."""
    effects = []
    for i in range(x.shape[1]):
        fixed = x.clone()
        fixed[:, i] = x[:, i].mean()
        effects.append((net(fixed) - net(x)).detach().square().mean().sqrt().item())
    for name, score in scorings(seed).items():
        yield "inputs", name, {"rank": rank_correlation(score(net, x[:256]).inputs.tolist(), effects)}


def rank_correlation(a: list[float], b: list[float]) -> float:
    """Return Spearman's rank correlation."""
    ranks = [torch.tensor(v).argsort().argsort().double() for v in (a, b)]
    return torch.corrcoef(torch.stack(ranks))[0, 1].item()


def measure(problem: Problem, seed: int) -> list[dict]:
    """Train one network, and return all figures."""
    samples = problem.draw(problem.labels, 2000 + seed)
    net = sl.Surrogate([problem.dim, WIDTH, WIDTH, 1], generator=torch.Generator().manual_seed(seed))
    sl.fit(net, samples, order=1, steps=1200, finish=0, balance="covariance", seed=seed)
    found = [*nodes(net, lambda part: problem.inputs(8192, 3000 + 10 * seed + part), seed)]
    found += inputs(net, samples.x[:2048], seed)
    return [
        {"problem": problem.name, "seed": seed, "task": task, "score": name, **rounded(errors)}
        for task, name, errors in found
    ]


def rounded(errors: dict[str, float]) -> dict[str, float]:
    """Return the figures with four digits."""
    return {name: float(f"{error:.4g}") for name, error in errors.items()}


def compare(runs: list[dict], task: str, quantity: str, score: str, with_: str = "significance") -> tuple[float, float]:
    """Return how many times the error of significance a rival's is (a difference for ranks), and t over all networks.

    The mean is geometric; t is the mean of the logarithms over its standard error, of one network per problem and seed.
    """
    by = {(r["problem"], r["seed"], r["score"]): r[quantity] for r in runs if r["task"] == task}
    keys = sorted({key[:2] for key in by})
    log = (lambda v: v) if quantity == "rank" else math.log
    gaps = torch.tensor([log(by[*key, score]) - log(by[*key, with_]) for key in keys], dtype=torch.float64)
    t = gaps.mean() / (gaps.std() / len(gaps) ** 0.5).clamp_min(1e-12)
    return (gaps.mean() if quantity == "rank" else gaps.mean().exp()).item(), t.item()


def report(runs: list[dict]) -> str:
    """Return a table of ratios to the errors of significance, with t values."""
    lines = []
    for task, quantities in {
        **dict.fromkeys(("box", "few", "stroke"), ("value", "gradient", "worst")),
        "inputs": ["rank"],
    }.items():
        lines.append(f"{task}: error over that of significance (t), {', '.join(quantities)}")
        for score in dict.fromkeys(r["score"] for r in runs if r["task"] == task):
            cells = [compare(runs, task, quantity, score) for quantity in quantities]
            lines.append(f"  {score:32}" + "".join(f"{ratio:8.2f} ({t:5.1f})" for ratio, t in cells))
    return "\n".join(lines)


def main() -> None:
    """Measure, print, and write all figures as JSON."""
    parser = argparse.ArgumentParser(description="Rankings of nodes and inputs in four tasks.")
    parser.add_argument("--seed", type=int, nargs="+", default=SEEDS)
    parser.add_argument("--out", type=Path, help="where the JSON goes")
    options = parser.parse_args()
    torch.set_num_threads(1)
    problems = [problem for problem in (make() for make in PROBLEMS) if problem.name in NAMES]
    runs = [run for seed in options.seed for problem in problems for run in measure(problem, seed)]
    print(report(runs))
    if options.out:
        write_whole(options.out, json.dumps({"runs": runs, "environment": environment()}) + "\n")


if __name__ == "__main__":
    main()
