"""What a training step costs by order, and against automatic differentiation; what a price with its Greeks costs.

``measure()`` returns rows with the keys name, value, baseline, ratio and target, and ``python -m
benchmarks.training_speed`` prints them. The things that are compared take turns, each is timed often, and medians are
compared, so that other work on the machine touches all alike. Times are those of the processor, which do not count
waiting for it, on one thread: ratios are the subject, not how many cores are free.
"""

import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor

from sobolev_lib.network.surrogate import Surrogate
from sobolev_lib.training.loss import Batch, SobolevLoss, stack, targets

WIDTHS = [7, *[128] * 6, 1]
SMALL = [7, 3, 3, 1]
POINTS = 4096


def measure() -> list[dict]:
    """Run every measurement; takes about three minutes on one core."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return [*training_steps(), *greeks()]
    finally:
        torch.set_num_threads(threads)


def training_steps() -> list[dict]:
    """Milliseconds per training step (loss, its gradient, Adam) of 7-128x6-1."""
    rows = []
    for dtype in (torch.float64, torch.float32):
        for batch in (256, 4096):
            steps = [step(order, batch, dtype, autograd=False) for order in (0, 1, 2)]
            rivals = [step(order, batch, dtype, autograd=True) for order in (0, 1, 2)]
            times = [1e3 * seconds for seconds in medians(*steps, *rivals, repeats=31 if batch < 1000 else 9)]
            name = f"7-128x6-1, batch {batch}, {str(dtype)[6:]}: ms per step, "
            rows.append(row(name + "order 1 and order 0", times[1], times[0], "at most 2.2"))
            rows.append(row(name + "order 2 (one direction) and order 0", times[2], times[0], "at most 4"))
            for order in (0, 1, 2):
                text = name + f"order {order}, autograd and ours"
                rows.append(row(text, times[3 + order], times[order], "at least 1.5" if order else None))
    return rows


def greeks() -> list[dict]:
    """Milliseconds of price, delta and gamma of 4096 points, against price alone in plain operations."""
    rows = []
    for widths in (SMALL, WIDTHS):
        net = network(widths, torch.float64)
        x = torch.randn(POINTS, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
        u = torch.ones(1, 7, dtype=torch.float64)

        @torch.no_grad()
        def all_three(net=net, x=x, u=u):
            value, gradient, hvp = net.taylor(x, order=2, directions=u)
            return value, gradient, hvp[:, 0] @ u[0]

        @torch.no_grad()
        def plain(net=net, x=x):
            return plain_network(net, x)

        both = [1e3 * seconds for seconds in medians(all_three, plain, repeats=101 if widths is SMALL else 9)]
        name, target = ("7-3-3-1", "at most 1 ms") if widths is SMALL else ("7-128x6-1", None)
        rows.append(row(f"{name}, {POINTS} points: ms of price, delta, gamma and price alone", *both, target))
    return rows


def network(widths: list[int], dtype: torch.dtype) -> Surrogate:
    """Return a network with an input and an output scale, and weights of usual size."""
    generator = torch.Generator().manual_seed(2)
    x, value = (torch.randn(*shape, generator=generator).to(dtype) for shape in ((100, 7), (100,)))
    return Surrogate(widths, dtype=dtype, gain=1.0).set_scaling(x, value)


def step(order: int, batch: int, dtype: torch.dtype, *, autograd: bool) -> Callable[[], float]:
    """Return a function that makes one training step: as `fit` does, or by automatic differentiation."""
    net, generator = network(WIDTHS, dtype), torch.Generator().manual_seed(0)
    x, value, gradient, hvp, u = (
        torch.randn(batch, *shape, generator=generator).to(dtype) for shape in ((7,), (), (7,), (1, 7), (1, 7))
    )
    part = Batch(x, value, gradient, hvp, u)
    loss = SobolevLoss(order, torch.eye((1, 8, 15)[order], dtype=dtype))
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-4, fused=True)

    def explicit() -> float:
        total, gradients = loss.value_and_gradients(net, part)
        layers = zip(net.weights, net.biases, strict=True)
        for parameter, gradient in zip((p for layer in layers for p in layer), gradients, strict=True):
            parameter.grad = gradient
        optimizer.step()
        return total

    def automatic() -> float:
        optimizer.zero_grad(set_to_none=True)
        residuals = (by_autograd(net, part, order) - targets(part, order)) @ loss.matrix.T
        total = residuals.square().sum(1).mean()
        total.backward()
        optimizer.step()
        return total.item()

    return automatic if autograd else explicit


def plain_network(net: Surrogate, x: Tensor) -> Tensor:
    """The network in elementary operations."""
    a = (x - net.input_shift) / net.input_scale
    for weight, bias in zip(net.weights[:-1], net.biases[:-1], strict=True):
        a = torch.nn.functional.silu(torch.nn.functional.linear(a, weight, bias))
    return net.output_shift + net.output_scale * torch.nn.functional.linear(a, net.weights[-1], net.biases[-1])[:, 0]


def by_autograd(net: Surrogate, part: Batch, order: int) -> Tensor:
    """Value, gradient and HVP by automatic differentiation, kept differentiable: what one would write without it."""
    x = part.x.detach().requires_grad_(order > 0)
    value = plain_network(net, x)
    if order == 0:
        return stack(value)
    (gradient,) = torch.autograd.grad(value.sum(), x, create_graph=True)
    if order == 1:
        return stack(value, gradient)
    (hvp,) = torch.autograd.grad((gradient * part.directions[:, 0]).sum(), x, create_graph=True)
    return stack(value, gradient, hvp.unsqueeze(1))


def medians(*functions: Callable[[], object], repeats: int) -> list[float]:
    """Median time of each function in seconds, the functions taking turns; the first turn is not counted."""
    times: list[list[float]] = [[] for _ in functions]
    for _ in range(repeats + 1):
        for each, function in zip(times, functions, strict=True):
            start = time.process_time()
            function()
            each.append(time.process_time() - start)
    return [statistics.median(each[1:]) for each in times]


def row(name: str, value: float, baseline: float, target: str | None) -> dict:
    """One line of the table."""
    return {"name": name, "value": value, "baseline": baseline, "ratio": value / baseline, "target": target}


def main():
    """Print the table."""
    print(f"{'':86} {'value':>8} {'baseline':>8} {'ratio':>6}  target")
    for line in measure():
        numbers = [f"{line[key]:.3g}" for key in ("value", "baseline", "ratio")]
        print(f"{line['name']:86} {numbers[0]:>8} {numbers[1]:>8} {numbers[2]:>6}  {line['target'] or ''}", flush=True)


if __name__ == "__main__":
    main()
