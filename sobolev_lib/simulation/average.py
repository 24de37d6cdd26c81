"""Means and standard errors over paths, the same to the last bit however the paths are cut into pieces."""

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor

BLOCK = 1024  # paths that are summed in one fixed order, whatever the pieces are


def pieces(inputs: int, paths: int, chunk: int) -> Iterator[tuple[int, int, int, int]]:
    """Cut inputs times paths into pieces of about `chunk` rows: first input, inputs, first path, paths.

    Either whole inputs, or a part of one input's paths that begins at a multiple of a block.
    """
    if paths <= chunk:
        group = chunk // paths
        group -= group % 64 if group >= 64 else 0
        for first in range(0, inputs, group):
            yield first, min(group, inputs - first), 0, paths
        return
    size = max(chunk // BLOCK, 1) * BLOCK
    for first in range(inputs):
        for path in range(0, paths, size):
            yield first, 1, path, min(size, paths - path)


def in_order(function: Callable, jobs: list[tuple]) -> Iterator[tuple[tuple, object]]:
    """Yield each job with function(*job), in order, as many jobs at a time as torch has threads.

    Whole pieces on one thread each need no barrier after every operation: on two cores they take half the time even
    if the machine is busy. Torch's number of threads is put back at the end.
    """
    threads = torch.get_num_threads()
    if threads == 1 or len(jobs) == 1:
        yield from ((job, function(*job)) for job in jobs)
        return
    torch.set_num_threads(1)
    try:
        with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            waiting: deque = deque()
            for job in jobs:
                waiting.append((job, pool.submit(function, *job)))
                if len(waiting) > threads:
                    first, result = waiting.popleft()
                    yield first, result.result()
            yield from ((job, result.result()) for job, result in waiting)
    finally:
        torch.set_num_threads(threads)


class Average:
    """Running sums, by name, of deviations from each input's first path."""

    def __init__(self, inputs: int, paths: int):
        """Start without labels."""
        self.inputs, self.paths = inputs, paths
        self.shift: dict[str, Tensor] = {}
        self.sums: dict[str, Tensor] = {}
        self.squares: dict[str, Tensor] = {}

    def add(self, first: int, path: int, labels: dict[str, Tensor]):
        """Add labels (inputs, paths, ...) of the inputs from `first` and the paths from `path` on."""
        for name, values in labels.items():
            if name not in self.shift:
                shape = (self.inputs, *values.shape[2:])
                self.shift[name] = _room(shape)
                if self.paths > 1:
                    self.sums[name], self.squares[name] = values.new_zeros(shape), values.new_zeros(shape)
            rows = slice(first, first + len(values))
            if path == 0:
                self.shift[name][rows] = values[:, 0]
            if self.paths > 1:
                deviations = values - self.shift[name][rows, None]
                self.sums[name][rows] = _accumulate(self.sums[name][rows], deviations)
                self.squares[name][rows] = _accumulate(self.squares[name][rows], deviations * deviations)

    def finish(self) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Means and their standard errors; no errors if there is one path."""
        if self.paths == 1:
            return self.shift, {}
        means = {name: self.shift[name] + total / self.paths for name, total in self.sums.items()}
        errors = {}
        for name, total in self.sums.items():
            scatter = (self.squares[name] - total * total / self.paths).clamp(min=0)
            errors[name] = torch.sqrt(scatter / (self.paths - 1) / self.paths)
        return means, errors


def _room(shape: tuple[int, ...]) -> Tensor:
    """Uninitialised float64 numbers. NumPy asks the system for large pages, torch for a fault every 4 KiB."""
    return torch.from_numpy(np.empty(shape))


def _accumulate(total: Tensor, values: Tensor) -> Tensor:
    """Add values (inputs, paths, ...) to total (inputs, ...), block after block."""
    full = values.shape[1] // BLOCK
    parts = []
    if full:
        blocks = values[:, : full * BLOCK].reshape(-1, BLOCK, *values.shape[2:])
        parts += _pairwise(blocks).unflatten(0, (-1, full)).unbind(1)
    if values.shape[1] % BLOCK:
        parts.append(_pairwise(values[:, full * BLOCK :]))
    for part in parts:
        total = total + part
    return total


def _pairwise(values: Tensor) -> Tensor:
    """Sum over dimension 1 by halving: additions element by element, whose order no kernel can choose."""
    while values.shape[1] > 1:
        half = values.shape[1] // 2
        paired = values[:, :half] + values[:, half : 2 * half]
        values = torch.cat([paired, values[:, 2 * half :]], dim=1) if values.shape[1] % 2 else paired
    return values[:, 0]
