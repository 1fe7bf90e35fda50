"""How the default tie was chosen, on development worlds that no claim is judged on.

A network that sees backdrops without objects is tested on original scenes: the tie at which it is
right in about 40 % of them (chance 11 %) became `helpers.scenes.TIE`. Takes about five minutes:

    python tests/bench/choose_tie.py 0.4 0.5 0.6
"""

import sys
from dataclasses import replace

from helpers import models, training
from helpers.budget import PROFILES
from helpers.imageset import ImageSet
from helpers.scenes.bodies import PART_NAMES
from helpers.scenes.world import World


def by_superclass(images: ImageSet) -> ImageSet:
    return replace(
        images,
        labels=images.superclass_labels,
        class_names=images.superclass_names,
        superclass_names=(),
        superclasses=(),
    )


def main() -> None:
    profile = PROFILES["demo"]
    for tie in map(float, sys.argv[1:] or ("0.4", "0.5")):
        empty = World(2_003, profile.size, tie).images(range(profile.train), hide=PART_NAMES[1:])
        original = World(2_004, profile.size, tie).images(range(1_800))
        network = models.build(profile.architecture, 9, seed=0)
        training.fit(network, by_superclass(empty), profile.recipe, seed=0)
        judged = training.evaluate(network, by_superclass(original))
        print(f"tie {tie}: backdrops alone are right in {judged['accuracy']:.1%} of the originals")


if __name__ == "__main__":
    main()
