"""What a build leaves: tables of pairs, the manifest, counts, the report and the dataset card."""

from curation.output.tally import Tally
from curation.output.writer import Layout

__all__ = ["Layout", "Tally"]
