"""The world of sprites: designs, looks, scenes with captions and truth, the corpus and the suite."""
