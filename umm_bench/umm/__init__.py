"""UMM-Diffusion: a subject from one image, drawn by a frozen Stable Diffusion."""

from umm_bench.umm.guidance import Level, fused_guidance, fusion_levels
from umm_bench.umm.pipeline import Subject, UMMPipeline
from umm_bench.umm.tiue import (
    TIUE,
    find_phrase,
    fuse_hidden_states,
    load_tiue,
    place_words,
    rearranged_hidden_states,
)

__all__ = [
    "TIUE",
    "Level",
    "Subject",
    "UMMPipeline",
    "find_phrase",
    "fuse_hidden_states",
    "fused_guidance",
    "fusion_levels",
    "load_tiue",
    "place_words",
    "rearranged_hidden_states",
]
