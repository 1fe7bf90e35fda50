"""The procedural world: scenes in which everything is known that the papers had to guess."""

TIE = 0.5  # default probability of a superclass's home backdrop, see `helpers.scenes.world.World`
