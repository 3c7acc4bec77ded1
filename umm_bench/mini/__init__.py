"""The embedded default: a world of sprites, a family of small models, and what trains, measures and describes them."""
