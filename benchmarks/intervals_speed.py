"""Interval adjoints: how fast and how tight. Prints two tables.

``python -m benchmarks.intervals_speed [network.safetensors]``; without a file, a 7-128x6-1 network is trained first
(a minute). Times are processor time of one thread, the best of several interleaved runs, so that a busy machine changes
them little.
"""

import itertools
import sys
import time
from collections.abc import Callable

import torch
from torch import Tensor

from sobolev_lib import Samples
from sobolev_lib.enclosure.adjoints import Split, enclose
from sobolev_lib.enclosure.interval import Interval, ball
from sobolev_lib.network.surrogate import Surrogate
from sobolev_lib.pruning.scores import significance
from sobolev_lib.simulation.case_study import basket_case
from sobolev_lib.simulation.noise import gaussian
from sobolev_lib.training.fit import fit

WIDTHS = [7, *[128] * 6, 1]
RADII = (0.001, 0.01, 0.1, 0.25, 1.0)
DOMAINS = {
    "natural": {"domain": "natural"},
    "zonotope": {"domain": "zonotope"},
    "split in 16": {"domain": Split(16)},
}


def fresh_network() -> Surrogate:
    """Return the network as torch's own layers are initialised after ``manual_seed(0)``."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layers = [torch.nn.Linear(a, b, dtype=torch.float64) for a, b in itertools.pairwise(WIDTHS)]
    one = torch.ones((), dtype=torch.float64)
    scaling = {
        "input_shift": one.expand(7) * 0,
        "input_scale": one.expand(7),
        "output_shift": 0 * one,
        "output_scale": one,
    }
    return Surrogate.from_layers([x.weight for x in layers], [x.bias for x in layers], "silu", scaling=scaling)


def trained_network(steps: int = 1500) -> Surrogate:
    """Return a network that knows the case study's price and delta, from exact labels."""
    case, net = basket_case(), Surrogate(WIDTHS)
    x = case.inputs(65_536, gaussian(seed=0))
    truth = case.reference(x)
    fit(net, Samples(x, truth.price, truth.delta), order=1, steps=steps)
    return net


def seconds(*functions: Callable[[], object], repeats: int = 15) -> list[float]:
    """Return the least processor time of each function, called in turn."""
    best = [float("inf")] * len(functions)
    for function in functions:
        function()
    for _ in range(repeats):
        for i, function in enumerate(functions):
            start = time.thread_time()
            function()
            best[i] = min(best[i], time.thread_time() - start)
    return best


def row(name: str, value: float, baseline: float, target: float) -> dict:
    """Return one line: ``ratio`` is value / baseline and meets the target if it is no larger."""
    return {"name": name, "value": value, "baseline": baseline, "ratio": value / baseline, "target": target}


def sampled_width(net: Surrogate, box: Interval, count: int = 20_000) -> float:
    """Return the mean width of the range of the gradient over random points and corners, a lower bound."""
    t = torch.rand(count, box.shape[1], dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    t[: count // 2] = t[: count // 2].round()
    widths = []
    with torch.no_grad():
        for lo, hi in zip(box.lo, box.hi, strict=True):
            gradient = net.gradient(torch.lerp(lo, hi, t))
            widths.append((gradient.amax(0) - gradient.amin(0)).mean())
    return float(torch.stack(widths).mean())


def enclosed_width(net: Surrogate, box: Interval, **options) -> float:
    """Return the mean width of the gradient's enclosure."""
    gradient = enclose(net, box, **options).gradient
    return float((gradient.hi - gradient.lo).mean())


def balls_around(net: Surrogate, points: Tensor, radius: float) -> Interval:
    """Return balls of a radius in scaled inputs."""
    return ball(points, radius * net.input_scale)


def measure(path: str | None = None, points: int = 8) -> list[dict]:
    """Return the targets' lines: speed first, then tightness."""
    torch.set_num_threads(1)
    fresh = fresh_network()
    x = torch.randn(256, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    many, one = ball(x, 0.1), ball(torch.zeros(7, dtype=torch.float64), 0.1)

    def plain():
        with torch.no_grad():
            return fresh.value_and_gradient(x)

    base, nearest, outward = seconds(
        plain, lambda: enclose(fresh, many, rounding="nearest"), lambda: enclose(fresh, many, rounding="outward")
    )
    zonotope, rounded = seconds(
        lambda: enclose(fresh, one, domain="zonotope", rounding="nearest"),
        lambda: enclose(fresh, one, domain="zonotope", rounding="outward"),
        repeats=7,
    )
    score_one, score_many = seconds(lambda: significance(fresh, one), lambda: significance(fresh, many))
    rows = [
        row("s, 256 boxes, nearest / plain gradient pass", nearest, base, 5),
        row("s, 256 boxes, outward / plain gradient pass", outward, base, 5),
        row("s, 256 boxes, outward / nearest", outward, nearest, 2),
        row("s, one box, zonotopes, outward / nearest", rounded, zonotope, 2),
        row("s, one box, zonotopes, outward / 0.2", rounded, 0.2, 1),
        row("s, significance, one box / 0.02", score_one, 0.02, 1),
        row("s, significance, 256 balls / 0.3", score_many, 0.3, 1),
        row("gradient's width, fresh, radius 0.1 / 8.5e-5", enclosed_width(fresh, one, domain="zonotope"), 8.5e-5, 1),
    ]
    net = Surrogate.load(path) if path else trained_network()
    inputs = basket_case().test_inputs(points)
    for radius, target in ((0.01, 1.5), (0.1, 5)):
        box = balls_around(net, inputs, radius)
        width = enclosed_width(net, box, domain="zonotope")
        rows.append(
            row(f"gradient's width, trained, radius {radius} / sampled", width, sampled_width(net, box), target)
        )
    return rows


def tightness(path: str | None = None, points: int = 4) -> list[dict]:
    """Return the mean width of the gradient by network, radius (scaled inputs) and domain."""
    trained = Surrogate.load(path) if path else trained_network()
    rows = []
    for name, net in (("fresh", fresh_network()), ("trained", trained)):
        centers = torch.zeros(1, 7, dtype=torch.float64) if name == "fresh" else basket_case().test_inputs(points)
        for radius in RADII:
            box = balls_around(net, centers, radius)
            line = {"network": name, "radius": radius, "sampled": sampled_width(net, box)}
            rows.append(line | {label: enclosed_width(net, box, **options) for label, options in DOMAINS.items()})
    return rows


def main() -> None:
    """Print both tables."""
    path = sys.argv[1] if len(sys.argv) > 1 else None
    print(f"{'':58} {'value':>9} {'baseline':>9} {'ratio':>7} {'target':>7}")
    for line in measure(path):
        numbers = f"{line['value']:9.3g} {line['baseline']:9.3g} {line['ratio']:7.3g} {line['target']:7.3g}"
        print(f"{line['name']:58} {numbers}{'' if line['ratio'] <= line['target'] else '  missed'}")
    print("\nmean width of the gradient's enclosure, balls in scaled inputs")
    print(f"{'network':8} {'radius':>7} {'sampled':>9} " + " ".join(f"{label:>18}" for label in DOMAINS))
    for line in tightness(path):
        widths = " ".join(f"{line[label]:18.3g}" for label in DOMAINS)
        print(f"{line['network']:8} {line['radius']:7g} {line['sampled']:9.3g} {widths}")


if __name__ == "__main__":
    main()
