"""Measure the shipped mini models on held-out data: `python -m umm_bench.mini.evaluate [NAME ...] [--json] [--write]`.

Nothing that is measured on was in any training: held-out designs and concepts, and scene keys of their own. Prompts
for `sd` name concepts that the generator has seen; its seeds are fixed. All models run in float32.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from safetensors import SafetensorError

from curation.errors import UserError as CurationError
from figures import Figure, emit
from umm_bench.cli.commands import quiet_libraries, run_command
from umm_bench.errors import UserError
from umm_bench.mini.measured import FIGURES, write_figures

EVALUATIONS: dict[str, tuple[str, ...]] = {
    "vae": ("embedders:vae",),
    "image_encoder": ("embedders:image_encoder", "recognisers:image_encoder"),
    "scoring_clip": ("embedders:scoring_clip", "recognisers:scoring_clip"),
    "encoder": ("embedders:encoder", "recognisers:encoder"),
    "detector": ("detector:figures",),
    "sd": ("generator:figures", "looks:words", "pairs:words"),
    "tiue": ("subjects:figures", "looks:kept", "alpha:figures", "pairs:subjects"),
    "checker": ("truth:figures",),
}


def evaluate(names: Sequence[str], write: Path | None = None) -> Iterator[Figure]:
    """The figures of the named models, those of a model written to `write` when it is through.

    Raises UserError for an unknown name, before anything is measured, and for weights that cannot be read.
    """
    for name in names:
        if name not in EVALUATIONS:
            raise UserError(f"unknown mini model {name!r}; choose from {', '.join(EVALUATIONS)}")
    for name in names:
        measured = []
        try:
            for function in map(_load, EVALUATIONS[name]):
                for figure in function():
                    measured.append(figure)
                    yield figure
        except (OSError, SafetensorError, CurationError) as error:  # weights that are not whole
            raise UserError(f"cannot measure {name!r}: {(str(error).splitlines() or [repr(error)])[0]}") from error
        if write is not None:
            write_figures(measured, write)


def _load(target: str) -> Callable[[], Iterable[Figure]]:
    module, function = target.split(":")
    return getattr(importlib.import_module(f"umm_bench.mini.evaluation.{module}"), function)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help=f"of {', '.join(EVALUATIONS)}; default all")
    parser.add_argument("--json", action="store_true", help="one object a line")
    parser.add_argument("--write", action="store_true", help=f"keep the figures for the model cards ({FIGURES.name})")
    args = parser.parse_args(argv)
    quiet_libraries()
    return run_command(
        lambda: emit(evaluate(args.names or list(EVALUATIONS), FIGURES if args.write else None), args.json)
    )


if __name__ == "__main__":
    sys.exit(main())
