"""Measure the shipped mini models on held-out data: `python -m umm_bench.mini.evaluate [NAME ...] [--json] [--write]`.

Nothing that is measured on was in any training: held-out designs and concepts, and scene keys of their own. Prompts
for `sd` name concepts that the generator has seen; its seeds are fixed. All models run in float32.
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from atomic import whole_file
from curation.errors import UserError as CurationError
from figures import Figure, emit
from umm_bench.commands import quiet_libraries, run_command
from umm_bench.errors import UserError

FIGURES = Path(__file__).parent / "figures.json"
"""The last written measurement of each figure: what the model cards quote."""

EVALUATIONS = {
    "vae": "embedders:vae",
    "image_encoder": "embedders:image_encoder",
    "scoring_clip": "embedders:scoring_clip",
    "encoder": "embedders:encoder",
    "detector": "detector:figures",
    "sd": "generator:figures",
    "tiue": "subjects:figures",
    "checker": "truth:figures",
}


def evaluate(names: Sequence[str], write: Path | None = None) -> Iterator[Figure]:
    """The figures of the named models, those of a model written to `write` when it is through.

    Raises UserError for an unknown name, before anything is measured, and for weights that cannot be read.
    """
    for name in names:
        if name not in EVALUATIONS:
            raise UserError(f"unknown mini model {name!r}; choose from {', '.join(EVALUATIONS)}")
    for name in names:
        module, function = EVALUATIONS[name].split(":")
        measured = []
        try:
            for figure in getattr(importlib.import_module(f"umm_bench.mini.evaluation.{module}"), function)():
                measured.append(figure)
                yield figure
        except (OSError, SafetensorError, CurationError) as error:  # weights that are not whole
            raise UserError(f"cannot measure {name!r}: {(str(error).splitlines() or [repr(error)])[0]}") from error
        if write is not None:
            write_figures(measured, write)


def read_figures(path: Path = FIGURES) -> dict[str, dict[str, Any]]:
    """Measured figures by name, as `Figure.as_dict` gives them. UserError where none were written."""
    if not path.exists():
        raise UserError(f"{path} is not there; `python -m umm_bench.mini.evaluate --write` measures and writes it")
    return {row["name"]: row for row in json.loads(path.read_text(encoding="utf-8"))}


def write_figures(figures: Sequence[Figure], path: Path = FIGURES) -> None:
    """Replace the figures of these names and keep all others; whole or not at all."""
    rows = (read_figures(path) if path.exists() else {}) | {f.name: f.as_dict() for f in figures}
    lines = ",\n".join(json.dumps(rows[name], ensure_ascii=False) for name in sorted(rows))
    with whole_file(path) as unfinished:
        unfinished.write_text(f"[\n{lines}\n]\n", encoding="utf-8")


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
