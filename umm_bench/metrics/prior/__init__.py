"""How far a method's images are from plain SD's own of the same prompts and seeds: what it costs the base's prior."""
