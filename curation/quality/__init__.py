"""How good the mined pairs are, against a truth that lies beside the corpus."""

from curation.quality.truth import read_truth, score

__all__ = ["read_truth", "score"]
