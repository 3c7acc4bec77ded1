"""The world of sprites: designs, looks, scenes with captions and truth, the corpus, the suite and its checker."""
