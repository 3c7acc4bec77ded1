"""What papers print of DreamBench. Nothing of it was measured here, and no page puts it beside what was."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from reports.page import write_page

NAME = "published.html"


@dataclass(frozen=True)
class Published:
    """DINO, CLIP-I and CLIP-T as printed. `source` is whose table it is, "" where that is not known; `transcribed` is
    what was read in a transcription of that table and not held against it.
    """

    method: str
    dino: float
    clip_i: float
    clip_t: float | None
    source: str
    transcribed: bool = True


DREAMBOOTH = "DreamBooth (arXiv 2208.12242), table 1"
ONE_SUBJECT = (
    Published("real images", 0.774, 0.885, None, DREAMBOOTH, False),
    Published("DreamBooth, Imagen", 0.696, 0.812, 0.306, DREAMBOOTH, False),
    Published("DreamBooth, Stable Diffusion", 0.668, 0.803, 0.305, DREAMBOOTH, False),
    Published("Textual Inversion, Stable Diffusion", 0.569, 0.780, 0.255, DREAMBOOTH, False),
    Published("Custom Diffusion", 0.643, 0.790, 0.305, "Subject-Diffusion"),
    Published("ELITE", 0.621, 0.771, 0.293, "Subject-Diffusion"),
    Published("BLIP-Diffusion, zero-shot", 0.594, 0.779, 0.300, "Kosmos-G, DreamCache"),
    Published("BLIP-Diffusion, fine-tuned", 0.670, 0.805, 0.302, "Kosmos-G, DreamCache"),
    Published("IP-Adapter, SD 1.5", 0.667, 0.813, 0.289, "Subject-Diffusion"),
    Published("Subject-Diffusion", 0.711, 0.787, 0.293, "Subject-Diffusion"),
    Published("Kosmos-G", 0.694, 0.847, 0.287, ""),
    Published("SuTI", 0.741, 0.819, 0.304, ""),
    Published("OminiControl", 0.684, 0.799, 0.312, "UNO"),
    Published("OmniGen", 0.693, 0.801, 0.315, "UNO"),
    Published("UNO", 0.760, 0.835, 0.304, "UNO"),
)
TWO_SUBJECTS = (  # 30 pairs, 25 prompts, 6 images each
    Published("DreamBooth", 0.430, 0.695, 0.308, ""),
    Published("Custom Diffusion", 0.464, 0.698, 0.300, ""),
    Published("Subject-Diffusion", 0.506, 0.696, 0.310, ""),
    Published("MIP-Adapter", 0.482, 0.726, 0.311, ""),
    Published("MS-Diffusion", 0.525, 0.726, 0.319, ""),
    Published("OmniGen", 0.511, 0.722, 0.331, ""),
    Published("UNO", 0.542, 0.733, 0.322, ""),
)


def write_published(output: Path) -> Path:
    """`output/published.html`, beside the index of all runs."""
    two = "Two subjects (30 pairs, 25 prompts, 6 images each)"
    tables = (("One subject", "one", ONE_SUBJECT), (two, "two", TWO_SUBJECTS))
    return write_page("published.html.j2", output / NAME, run=None, tables=tables)
