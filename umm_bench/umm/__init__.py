"""UMM-Diffusion: a subject from one image, drawn by a frozen Stable Diffusion."""

from umm_bench.umm.cards import SubjectCard, load_card
from umm_bench.umm.guidance import Guidance, Level, fused_guidance, fusion_levels, fusion_weights
from umm_bench.umm.pipeline import UMMPipeline
from umm_bench.umm.subjects import Subject
from umm_bench.umm.tiue import (
    TIUE,
    find_phrase,
    fuse_hidden_states,
    load_tiue,
    phrase_spans,
    place_words,
    read_positions,
    rearranged_hidden_states,
)

__all__ = [
    "TIUE",
    "Guidance",
    "Level",
    "Subject",
    "SubjectCard",
    "UMMPipeline",
    "find_phrase",
    "fuse_hidden_states",
    "fused_guidance",
    "fusion_levels",
    "fusion_weights",
    "load_card",
    "load_tiue",
    "phrase_spans",
    "place_words",
    "read_positions",
    "rearranged_hidden_states",
]
