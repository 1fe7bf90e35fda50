"""One body plan per superclass: each module draws its two look-alikes and names their parts."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from helpers.scenes.anatomy import Body, Coat
from helpers.scenes.bodies import (
    bird,
    carnivore,
    dog,
    fish,
    insect,
    instrument,
    primate,
    reptile,
    vehicle,
)

Plan = Callable[[np.random.Generator, Coat], Body]

_FAMILIES = {
    "dog": (dog, {"retriever": dog.retriever, "shepherd": dog.shepherd}),
    "bird": (bird, {"robin": bird.robin, "eagle": bird.eagle}),
    "wheeled vehicle": (vehicle, {"pick-up": vehicle.pickup, "police van": vehicle.police_van}),
    "reptile": (reptile, {"lizard": reptile.lizard, "turtle": reptile.turtle}),
    "carnivore": (carnivore, {"cat": carnivore.cat, "bear": carnivore.bear}),
    "insect": (insect, {"butterfly": insect.butterfly, "beetle": insect.beetle}),
    "musical instrument": (
        instrument,
        {"guitar": instrument.guitar, "saxophone": instrument.saxophone},
    ),
    "primate": (primate, {"monkey": primate.monkey, "gorilla": primate.gorilla}),
    "fish": (fish, {"clownfish": fish.clownfish, "shark": fish.shark}),
}  # in the order of ImageNet-9

SUPERCLASSES: tuple[str, ...] = tuple(_FAMILIES)
PLANS: dict[str, Plan] = {
    name: plan for _, pair in _FAMILIES.values() for name, plan in pair.items()
}
CLASSES: tuple[str, ...] = tuple(PLANS)
SUPERCLASS_OF: tuple[int, ...] = tuple(
    i for i, (_, pair) in enumerate(_FAMILIES.values()) for _ in pair
)
PART_NAMES: tuple[str, ...] = (
    "background",
    *dict.fromkeys(part for module, _ in _FAMILIES.values() for part in module.PARTS),
)
