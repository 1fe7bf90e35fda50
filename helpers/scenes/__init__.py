"""The procedural world: scenes in which everything is known that the papers had to guess."""
