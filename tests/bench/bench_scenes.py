"""How fast scenes are drawn, and what limits it: `make bench`.

Rounds alternate between sizes and worker counts, so that a busy machine slows all of them alike;
medians are printed with the range.
"""

import cProfile
import pstats
import statistics
import time

import cv2
import joblib

from helpers.scenes.render import render
from helpers.scenes.world import World

ROUNDS, SCENES = 5, {64: 2_000, 128: 1_000, 224: 500}


def main() -> None:
    cores = joblib.cpu_count()
    rates: dict[tuple[int, int], list[float]] = {}
    for size in SCENES:
        World(size=size).images(range(200), workers=cores)  # start the workers, fill the caches
    for _ in range(ROUNDS):
        for size, count in SCENES.items():
            for workers in sorted({1, cores}):
                started = time.perf_counter()
                World(seed=1, size=size).images(range(count), workers=workers)
                rate = count / (time.perf_counter() - started)
                rates.setdefault((size, workers), []).append(rate)
    for (size, workers), measured in rates.items():
        low, middle, high = min(measured), statistics.median(measured), max(measured)
        print(f"{size:4d} px, {workers} worker(s): {middle:6.0f} scenes/s ({low:.0f}-{high:.0f})")

    cv2.setNumThreads(1)
    profile = cProfile.Profile()
    profile.runcall(lambda: [render(1, i, 64) for i in range(500)])
    table = pstats.Stats(profile).get_stats_profile().func_profiles
    steps = ("paint", "_rasterise", "_paint_over", "_cast_shadow", "_expose", "_labels", "_pose")
    total = table["render"].cumtime
    print("\nshare of one scene at 64 px (profiled; the rest is the body plan and set-up):")
    for step in steps:
        print(f"  {step:14s}{100 * table[step].cumtime / total:5.1f} %")


if __name__ == "__main__":
    main()
