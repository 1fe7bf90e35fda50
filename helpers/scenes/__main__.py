"""A contact sheet of a world, one row of look-alike pairs after another:

python -m helpers.scenes sheet.png --size 128 --columns 9 --seed 7
"""

import argparse

import cv2
import numpy as np

from helpers.scenes import TIE
from helpers.scenes.bodies import CLASSES
from helpers.scenes.render import render


def sheet(seed: int, size: int, columns: int, tie: float) -> np.ndarray:
    """(height, width, 3) uint8 RGB: a row of scenes per class, look-alikes below each other."""
    classes = range(len(CLASSES))
    scenes = [
        [render(seed, i * len(CLASSES) + c, size, tie=tie).image for i in range(columns)]
        for c in classes
    ]
    return np.concatenate([np.concatenate(row, axis=1) for row in scenes])


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m helpers.scenes", description=__doc__)
    parser.add_argument("file", help="where to write it: .png or .jpg")
    parser.add_argument("--size", type=int, default=128, help="pixels a scene (128)")
    parser.add_argument("--columns", type=int, default=9, help="scenes a class (9)")
    parser.add_argument("--seed", type=int, default=0, help="which world (0)")
    parser.add_argument("--tie", type=float, default=TIE, help=f"tie of backdrop to class ({TIE})")
    chosen = parser.parse_args()
    drawn = sheet(chosen.seed, chosen.size, chosen.columns, chosen.tie)
    if not cv2.imwrite(chosen.file, drawn[:, :, ::-1]):
        parser.error(f"cannot write {chosen.file}")
    print(f"{chosen.file}: {drawn.shape[1]} x {drawn.shape[0]} pixels, from the top:")
    print(", ".join(CLASSES))


if __name__ == "__main__":
    main()
