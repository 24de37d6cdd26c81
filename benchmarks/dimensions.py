"""Second-order labels in many dimensions: their cost, their directions, when they pay; a table, and JSON.

    python -m benchmarks.dimensions --out results/dimensions.json             # all parts: about an hour of one core
    python -m benchmarks.dimensions --parts growth --out ...                  # one part; parts that --out has are kept
    python -m benchmarks.dimensions --quick                                   # every part, as small as it goes

Parts: `growth`, baskets of 7 to 100 assets at equal numbers of labels, each in a process of its own whose memory is
measured; `directions`, Hessian-vector labels in several directions at equal simulation time; `kernel`, the share of the
last step; `suite`, order 1 against order 2 on the suite's smooth problems; `baskets`, what pruning finds of several.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

import sobolev_lib as sl
from benchmarks.problems import PROBLEMS, Problem, case_study
from benchmarks.report import environment, write_whole
from sobolev_lib.training.gauss_newton import jacobian
from sobolev_lib.training.loss import targets

CELLS = 16  # of equal numbers of samples, by the network's value: in each its own covariance
PUBLISHED = {"price": 1.7e-3, "delta": 1.5e-3, "gamma": 4.5e-2}  # sketched Hessian, d = 7, 1,021 parameters, 8,192
SMOOTH = ("case study", "basket", "digital", "Asian", "Ornstein-Uhlenbeck", "general noise", "epidemic")
STRAIGHT = ("case study", "basket", "Ornstein-Uhlenbeck")
KINDS = ("order 1", "random", "principal", "basket")


def basket(dim: int, steps: int = 2) -> Problem:
    """Return the case study in d dimensions, the last of some Euler steps averaged by formula."""
    case = sl.basket_case(dim, smoothing=sl.LastStep())
    parts = {"name": f"d = {dim}", "payoff": case.payoff, "scheme": sl.EulerMaruyama(), "steps": steps}

    def inputs(count: int, seed) -> Tensor:
        return case.test_inputs(count) if seed == 2**31 - 1 else case.inputs(count, sl.gaussian(seed=seed))

    def exact(x: Tensor, u: Tensor) -> tuple[Tensor, ...]:
        found = case.reference(x)
        return found.price, found.delta, found.gamma

    direction = torch.ones(dim, dtype=torch.float64)
    return replace(case_study(), model=case.model, inputs=inputs, exact=exact, direction=direction, **parts)


def shape(problem: Problem) -> tuple[int, int]:
    """Return hidden widths: six and six, for many inputs three and three."""
    return (3, 3) if problem.dim > 6 else (6, 6)


def started(problem: Problem, labels: int) -> sl.Surrogate:
    """Return a network that was fitted to values and gradients of labels of its own."""
    net = sl.Surrogate([problem.dim, *shape(problem), 1], "softplus", generator=torch.Generator().manual_seed(0))
    sl.fit(net, problem.draw(labels, 6999), order=1, steps=600, balance="covariance", finish=15)
    return net


def directions(kind: str, problem: Problem, net: sl.Surrogate, x: Tensor, seed: int) -> Tensor | None:
    """Return the directions of second-order labels."""
    if kind == "random":
        return sl.directions.uniform(len(x), problem.dim, noise=sl.gaussian(seed=8000 + seed))
    if kind == "principal":
        return sl.directions.principal(net.gradient(x, outside="ignore").detach(), 1)
    return sl.directions.along(problem.direction) if kind == "basket" else None


def labelled(kind: str, problem: Problem, net: sl.Surrogate, count: int, seed: int) -> sl.Samples:
    """Return labels of order 1, or of order 2 in directions of a kind."""
    x = problem.inputs(count, 7000 + seed)
    u = directions(kind, problem, net, x, seed)
    extra = {"order": 1} if u is None else {"order": 2, "directions": u}
    return problem.label(x, sl.gaussian(seed=7000 + seed), **extra)


def seconds(kind: str, problem: Problem, net: sl.Surrogate) -> float:
    """Return the processor seconds of 4,096 labels, the least of five."""
    spent = []
    for _ in range(5):
        begin = time.process_time()
        labelled(kind, problem, net, 2**12, 99)
        spent.append(time.process_time() - begin)
    return min(spent)


def balanced(residual: Tensor, floor: float = 1e-2) -> Tensor:
    """Return the balance matrix of residuals (n, q), as `balance_by_covariance` does."""
    scale = residual.square().mean(0).sqrt()
    scale = torch.where(scale > 1e-12 * scale.max(), scale, scale.max())
    sizes, vectors = torch.linalg.eigh((residual / scale).T @ (residual / scale) / len(residual))
    return (vectors * (sizes.clamp_min(0) + floor).rsqrt()) @ vectors.T / scale


@torch.no_grad()
def locally_weighted(net: sl.Surrogate, samples: sl.Samples, order: int, steps: int = 8) -> sl.Surrogate:
    """Return the network after damped steps of least squares in which every cell of inputs has its own covariance.

    The balances are measured once, on the residuals of the network that comes in.
    """
    n, wanted = len(samples.x), targets(samples, order)
    cell = net(samples.x).argsort().argsort() * CELLS // n
    along = samples.directions if order == 2 and samples.directions.ndim == 3 else None

    def residuals(net: sl.Surrogate, rows: Tensor) -> Tensor:
        u = None if order < 2 else samples.directions if along is None else along[rows]
        found = net.taylor(samples.x[rows], order=order, directions=u)
        return torch.cat([f.reshape(len(rows), -1) for f in found], 1) - wanted[rows]

    some = torch.randperm(n, generator=torch.Generator().manual_seed(0))[: n // CELLS]
    common = 0.03 * residuals(net, some)  # where a cell is free of noise, a little of the noise of all
    cells = [(cell == c).nonzero()[:, 0] for c in range(CELLS)]
    balances = [balanced(torch.cat([residuals(net, rows), common])) for rows in cells]

    def weighted(net: sl.Surrogate) -> float:
        pairs = zip(cells, balances, strict=True)
        return sum((residuals(net, rows) @ m.T).square().sum().item() for rows, m in pairs) / n

    p, damping, current, after = net.parameter_count, 1e-3, weighted(net), net.copy()
    ridge = current / n / 4
    for _ in range(steps):
        normal, slope = torch.zeros(p, p).double(), torch.zeros(p).double()
        for rows, matrix in zip(cells, balances, strict=True):
            for part in rows.split(max(1, 2_000_000 // (p * wanted.shape[1]))):
                u = None if order < 2 else samples.directions if along is None else along[part]
                outputs, slopes = jacobian(after, samples.x[part], order=order, directions=u)
                slopes, residual = matrix @ slopes, (outputs - wanted[part]) @ matrix.T
                flat = slopes.flatten(0, 1)
                normal += flat.T @ flat / n
                slope += flat.T @ residual.flatten() / n
        weights = torch.cat([parameter.flatten() for parameter in ordered(after)])
        normal += ridge * torch.eye(p).double()
        moved = weights - torch.linalg.solve(normal + damping * normal.diagonal().diag(), slope + ridge * weights)
        trial = after.copy()
        for parameter, part in zip(ordered(trial), moved.split([q.numel() for q in ordered(trial)]), strict=True):
            parameter.copy_(part.view_as(parameter))
        reached = weighted(trial)
        if reached + ridge * moved @ moved < current + ridge * weights @ weights:
            after, current, damping = trial, reached, damping / 5
        else:
            damping *= 10
    return after


def ordered(net: sl.Surrogate) -> list[Tensor]:
    """Return the parameters in the order of the Jacobian."""
    return [parameter for layer in zip(net.weights, net.biases, strict=True) for parameter in layer]


def errors(problem: Problem, net: sl.Surrogate) -> dict[str, float]:
    """Return relative errors, and where the truth is a basket's that of the whole Hessian by eight random probes."""
    found = {name: float(f"{size:.4g}") for name, size in problem.errors(net).items()}
    weights = getattr(problem.payoff, "weights", None)
    if problem.name.startswith("d = ") and weights is not None:
        x, gamma = problem.truth["x"], problem.truth["curvature"]
        probes = sl.directions.uniform(8, problem.dim, noise=sl.gaussian(seed=5))[:, 0]
        with torch.no_grad():
            got = net.hvp(x, probes)  # (n, 8, d)
        exact = gamma[:, None, None] * (probes @ weights)[:, None] * weights
        found["hessian"] = float(f"{((got - exact).square().mean() / exact.square().mean()).sqrt().item():.4g}")
    return found


def tuned(net: sl.Surrogate, samples: sl.Samples, order: int) -> sl.Surrogate:
    """Return the network fitted to other labels from where it stands."""
    fitted = net.copy()
    sl.fit(fitted, samples, order=order, steps=0, balance="covariance", finish=10)
    return fitted


def compared(problem: Problem, labels: int, seeds: int, kinds: tuple[str, ...]) -> dict:
    """Return the errors of order 1 and of order 2 at equal simulation time, by constant and by local covariance."""
    net = started(problem, labels)
    spent = {kind: seconds(kind, problem, net) for kind in kinds}
    row: dict = {"problem": problem.name, "inputs": problem.dim, "widths": net.widths, "labels": labels, "kinds": {}}
    for kind in kinds:
        count = round(labels * spent[kinds[0]] / spent[kind])
        order = 1 if kind == "order 1" else 2
        found: dict[str, list] = {"constant": [], "local": []}
        for seed in range(seeds):
            samples = labelled(kind, problem, net, count, seed)
            fitted = tuned(net, samples, order)
            found["constant"].append(errors(problem, fitted))
            found["local"].append(errors(problem, locally_weighted(fitted, samples, order)))
        row["kinds"][kind] = {"labels": count, "seconds": round(spent[kind] / spent[kinds[0]], 2), "errors": found}
    return row


def mean(errors: list[dict[str, float]], name: str) -> float:
    """Return the root mean square over seeds."""
    return (sum(e[name] ** 2 for e in errors) / len(errors)) ** 0.5


def told(row: dict) -> str:
    """Return a line: the curvature's error of order 1, and the others relative to it."""
    base = mean(row["kinds"]["order 1"]["errors"]["constant"], "curvature")
    parts = [f"{row['problem']:20} order 1 {base:.1e}"]
    for kind, entry in row["kinds"].items():
        ratios = (mean(entry["errors"][weights], "curvature") / base for weights in ("constant", "local"))
        parts.append(f"{kind} x{entry['seconds']} " + " ".join(f"{ratio:.2f}" for ratio in ratios))
    return " | ".join(parts)


def suite(quick: bool) -> Iterator[dict]:
    """Yield order 1 against order 2 along the first principal component on the suite's smooth problems."""
    for problem in (make() for make in PROBLEMS):
        if problem.name.startswith(SMOOTH) and (not quick or problem.name == "digital"):
            yield compared(problem, 2**9 if quick else 2**12, 1 if quick else 3, ("order 1", "principal"))


def kernel(quick: bool) -> Iterator[dict]:
    """Yield the same for the basket, by the number of steps of which the last is averaged."""
    for steps in (2,) if quick else (2, 4, 16, 64):
        row = compared(basket(7, steps), 2**9 if quick else 2**12, 1 if quick else 3, ("order 1", "principal"))
        yield row | {"steps": steps}


def many(quick: bool) -> Iterator[dict]:
    """Yield the directions of Hessian-vector labels against each other, in some and in many dimensions."""
    for dim, count in ((7, 2**9),) if quick else ((7, 2**12), (20, 2**11), (50, 2**10)):
        yield compared(basket(dim), count, 1 if quick else 3, KINDS)


def in_components(samples: sl.Samples, seed: int) -> sl.Surrogate:
    """Return a network of all d inputs that was fitted in the principal components of the gradient labels.

    What lies across all gradients moves no label, so the fit needs the inputs' coordinates along the components only;
    the change of coordinates then goes into the first layer.
    """
    axes = sl.directions.principal(samples.gradient, share=1 - 1e-9)  # (k, d)
    inner = sl.Samples(samples.x @ axes.T, samples.value, samples.gradient @ axes.T)
    generator = torch.Generator().manual_seed(seed)
    small = sl.Surrogate([len(axes), 3, 3, 1], "softplus", generator=generator)
    sl.fit(small, inner, order=1, steps=1000, balance="covariance", finish=30)
    net = sl.Surrogate([samples.x.shape[1], 3, 3, 1], "softplus").set_scaling(samples.x, samples.value)
    with torch.no_grad():
        for ours, theirs in zip(net.parameters(), small.parameters(), strict=True):
            if ours.shape == theirs.shape:
                ours.copy_(theirs)
        layer = small.weights[0] / small.input_scale @ axes
        net.weights[0].copy_(layer * net.input_scale)
        middle = (axes @ net.input_shift - small.input_shift) / small.input_scale
        net.biases[0].copy_(small.biases[0] + small.weights[0] @ middle)
    return net


def grown(dim: int, labels: int, seed: int = 0) -> dict:
    """Return errors, seconds and memory of one fit in d dimensions, and the seconds of a step in all inputs."""
    problem, begin = basket(dim), time.process_time()
    samples = problem.draw(labels, 100 + seed)
    simulated = time.process_time()
    net = in_components(samples, seed)
    trained = time.process_time()
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    few = samples[:1024]
    loss = sl.balance_by_covariance(net, few, order=1)
    before = time.process_time()
    sl.fit(net.copy(), few, order=1, steps=0, balance=loss, finish=1)
    drawn = replace(problem, inputs=lambda count, seed: problem.inputs(count, seed % 2**20))  # the basket's law, any d
    return {
        "inputs": dim,
        "seed": seed,
        "labels": labels,
        "parameters": net.parameter_count,
        "errors": errors(drawn, net),
        "box": errors(problem, net),
        "seconds": {"labels": round(simulated - begin, 1), "training": round(trained - simulated, 1)},
        "step": round(time.process_time() - before, 3),
        "gibibytes": round(memory, 2),
    }


def growth(quick: bool) -> Iterator[dict]:
    """Yield the same for several numbers of assets, each in a process of its own."""
    for dim, seed in [(7, 0)] if quick else [(dim, seed) for dim in (7, 20, 50, 100) for seed in range(3)]:
        command = [sys.executable, "-m", "benchmarks.dimensions", "--grown", str(dim), str(seed)]
        command += ["--quick"] * quick
        yield json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def several(count: int, dim: int = 20) -> tuple[Callable[[int, int], sl.Samples], Tensor]:
    """Return labels of a sum of calls on baskets that share no asset, and the weights of the baskets."""
    case = sl.basket_case(dim)
    weights = torch.zeros(count, dim, dtype=torch.float64)
    for k, block in enumerate(torch.arange(dim).tensor_split(count)):
        weights[k, block] = case.weights[block] / case.weights[block].sum()

    def draw(n: int, seed: int) -> sl.Samples:
        x, parts = case.inputs(n, sl.gaussian(seed=seed)), []
        for k, w in enumerate(weights):
            payoff = sl.Call(strike=1.0 + 0.05 * k, weights=w, smoothing=sl.LastStep())
            options = {"horizon": 1.0, "order": 1, "scheme": sl.EulerMaruyama(), "steps": 2}
            parts.append(sl.label(case.model, payoff, x, noise=sl.gaussian(seed=seed), **options))  # the same paths
        return sl.Samples(x, sum(p.value for p in parts) / count, sum(p.gradient for p in parts) / count)

    return draw, weights


def baskets(quick: bool) -> Iterator[dict]:
    """Yield the singular values of the first layer of networks pruned to one, two and five baskets."""
    for count in (2,) if quick else (1, 2, 5):
        draw, weights = several(count)
        labels = draw(2**11 if quick else 2**13, 300)
        net = sl.Surrogate([20, 32, 32, 1], generator=torch.Generator().manual_seed(0))
        sl.fit(net, labels, order=1, steps=300 if quick else 2000, balance="covariance")
        small, _ = sl.shrink(net, labels)
        sl.fit(small, labels, order=1, steps=0, balance="covariance", finish=5 if quick else 20)
        entry = {"baskets": count, "inputs": 20, "labels": len(labels.x), "widths": small.widths}
        for name, some in (("full", net), ("pruned", small)):
            layer = (some.weights[0] / some.input_scale).detach()
            _, values, axes = torch.linalg.svd(layer, full_matrices=False)
            plane = torch.linalg.svd(axes[:count] @ torch.linalg.qr(weights.T)[0]).S  # cosines of the angles
            entry[name] = {
                "singular": [float(f"{v:.3g}") for v in (values / values[0]).tolist()],
                "angle": round(torch.rad2deg(torch.arccos(plane.min().clamp(max=1))).item(), 1),
            }
        yield entry


PARTS: dict[str, Callable[[bool], Iterator[dict]]] = {
    "growth": growth,
    "directions": many,
    "kernel": kernel,
    "suite": suite,
    "baskets": baskets,
}


def main() -> None:
    """Run, print, and write JSON."""
    parser = argparse.ArgumentParser(description="Second-order labels in many dimensions.")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--quick", action="store_true", help="as small as it goes")
    parser.add_argument("--grown", nargs=2, type=int, help="one fit: assets and seed; prints JSON")
    parser.add_argument("--out", type=Path, help="where the JSON goes; parts that are not run are kept")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.grown:
        print(json.dumps(grown(options.grown[0], 2**13 if options.quick else 2**16, options.grown[1])))
        return
    known = options.out is not None and options.out.exists()
    content = json.loads(options.out.read_text(encoding="utf-8")) if known else {}
    for part in options.parts:
        content |= {part: [], "published": PUBLISHED, "environment": environment()}
        for row in PARTS[part](options.quick):
            content[part].append(row)
            print(part, told(row) if "kinds" in row else row, flush=True)
            if options.out is not None:
                text = json.dumps(content).replace('{"problem"', '\n{"problem"').replace('{"inputs"', '\n{"inputs"')
                write_whole(options.out, text + "\n")


if __name__ == "__main__":
    main()
