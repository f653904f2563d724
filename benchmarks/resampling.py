"""Order-3 resampling by matrix products against scipy's zoom, both on one array in one run, as a Markdown table.

Run it from the root of the checkout::

    .venv/bin/python -m benchmarks.resampling [--large] [--threads N]

scipy uses one thread; the products use those that torch is given. Seconds are the least of several runs, of the
processor (all threads together) and of the clock.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch
from scipy import ndimage

from benchmarks._machine import machine
from volseg.geometry import Shape
from volseg.resample import axis_operator, resize

Values = npt.NDArray[np.float32]
SMALL, LARGE = (244, 202, 224), (488, 404, 448)


def timed(task: Callable[[], Values], runs: int) -> tuple[Values, float, float]:
    """Result, and the least seconds of processor and of clock."""
    processors, clocks = [], []
    for _ in range(runs):
        cpu, clock = time.process_time(), time.perf_counter()
        result = task()
        processors.append(time.process_time() - cpu)
        clocks.append(time.perf_counter() - clock)
    return result, min(processors), min(clocks)


def scipy_zoom(array: Values, shape: Shape) -> Values:
    """What `skimage.transform.resize` does: zoom, then clip to the range of the input."""
    factors = [new / old for new, old in zip(shape, array.shape, strict=True)]
    resized = ndimage.zoom(array, factors, order=3, mode="nearest", grid_mode=True)
    return np.asarray(np.clip(resized, array.min(), array.max()))


def products(array: Values, shape: Shape) -> Values:
    """Ours; the operators are made anew, as for the first scan of a shape."""
    axis_operator.cache_clear()
    return np.asarray(resize(torch.from_numpy(array)[None], shape, order=3)[0].numpy())


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--large", action="store_true", help=f"a volume of {LARGE} too, and a finer grid")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="threads of torch")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    print(f"{machine('numpy', 'scipy', 'torch')}, {arguments.threads} threads\n")
    print(
        "| from | to | scipy, s (cpu) | products, s (cpu) | faster, clock | faster, cpu | largest difference / range |"
    )
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for shape in (SMALL, LARGE) if arguments.large else (SMALL,):
        array = np.random.default_rng(0).normal(size=shape).astype(np.float32)
        for factor in (0.5, 0.75, 1.5) if arguments.large and shape == SMALL else (0.5, 0.75):
            d, h, w = (round(size * factor) for size in shape)
            expected, scipy_cpu, scipy_clock = timed(lambda a=array, s=(d, h, w): scipy_zoom(a, s), 3)  # type: ignore[misc]
            got, cpu, clock = timed(lambda a=array, s=(d, h, w): products(a, s), 10)  # type: ignore[misc]
            difference = np.abs(got - expected).max() / np.ptp(array)
            print(
                f"| {' x '.join(map(str, shape))} | {d} x {h} x {w} | {scipy_clock:.2f} ({scipy_cpu:.2f})"
                f" | {clock:.3f} ({cpu:.3f}) | {scipy_clock / clock:.0f} | {scipy_cpu / cpu:.0f} | {difference:.0e} |"
            )


if __name__ == "__main__":
    main()
