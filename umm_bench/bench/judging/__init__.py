"""How methods compare beyond their means: families of tests, ranks, and what training by another seed changes."""
