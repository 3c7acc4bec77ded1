"""UMM-Diffusion: a subject from one image, drawn by a frozen Stable Diffusion.

What is imported from here is loaded when it is asked for: settings and their errors do not wait for torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
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

_MODULES = {
    "cards": ("SubjectCard", "load_card"),
    "guidance": ("Guidance", "Level", "fused_guidance", "fusion_levels", "fusion_weights"),
    "pipeline": ("UMMPipeline",),
    "subjects": ("Subject",),
    "tiue": (
        "TIUE",
        "find_phrase",
        "fuse_hidden_states",
        "load_tiue",
        "phrase_spans",
        "place_words",
        "read_positions",
        "rearranged_hidden_states",
    ),
}
_HOME = {name: module for module, names in _MODULES.items() for name in names}

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


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
