"""Where the mini models are, and how one is shipped."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from atomic import whole_folder
from umm_bench.cli.commands import run_command
from umm_bench.errors import UserError

WEIGHTS = Path(__file__).parent / "weights"
TRAINING = "training.json"
COUNTS = "concept_counts.json"  # of a generator: in how many of recipes.sd_data.COUNTED draws each concept was
HOME = {"vae": "sd", "clip": "sd", "decoder": "sd"}  # recipes whose models are shipped inside another's
PARTS = WEIGHTS / "parts"  # a VAE and a CLIP that are ahead of the shipped `sd`: the next one is trained on them
NAMES = ("sd", "image_encoder", "scoring_clip", "encoder", "detector", "tiue")


class Finished(Protocol):
    """What `publish` asks of a recipe that has been trained."""

    name: str

    def save(self, folder: Path) -> None:
        """Write the model into `folder` in its own library's format."""

    def parts(self) -> list[Path]:
        """Folders of the finished models that this one contains."""


def path(name: str) -> Path:
    """The folder of a mini model. UserError when the name is unknown or the weights are not there."""
    if name not in NAMES:
        raise UserError(f"unknown mini model {name!r}; choose from {', '.join(NAMES)}")
    folder = WEIGHTS / name
    if not folder.is_dir():
        raise UserError(f"the mini model {name!r} is not in {WEIGHTS}; run `make mini` to train it")
    return folder


def detector_path() -> Path:
    """The mini GroundingDINO, the default of `curation.build`."""
    return path("detector")


def scoring_clip_path() -> Path:
    """The CLIP that judges, `--clip mini` of `curation.build`."""
    return path("scoring_clip")


def replace_folder(temporary: Path, final: Path) -> None:
    """Put a finished folder in place; a kill leaves the old one (as .old) or the new one, never half of one."""
    old = final.with_name(final.name + ".old")
    if final.exists():  # where it does not, .old is all there is
        shutil.rmtree(old, ignore_errors=True)
        os.replace(final, old)
    os.replace(temporary, final)
    shutil.rmtree(old, ignore_errors=True)


def _halve(weights: Path) -> None:
    """Store in half precision. Configurations keep saying float32, so everything loads and computes as such."""
    from safetensors.torch import load_file, save_file  # torch: asking for a path must not load it

    tensors = {n: t.half() if t.is_floating_point() else t for n, t in load_file(weights).items()}
    save_file(tensors, weights, metadata={"format": "pt"})


def _forget_origin(config: Path) -> None:
    """Take out the folder that diffusers notes a model was loaded from: it is one of the maker's machine."""
    values = json.loads(config.read_text())
    if values.pop("_name_or_path", None) is not None:
        config.write_text(json.dumps(values, indent=2) + "\n")


def write_counts(path: Path, counts: Mapping[str, float]) -> None:
    """Most frequent first."""
    ranked = sorted(counts.items(), key=lambda item: -item[1])
    path.write_text(json.dumps({name: round(n, 1) for name, n in ranked}, indent=0))


def _count_earlier_runs(last: Path, before: Path, runs: list[dict[str, Any]]) -> None:
    """Mix into the counts `last`, of the last run, those of the runs before it, by their samples."""
    samples = [run["steps"] * run["batch_size"] for run in runs]
    share = samples[-1] / sum(samples)
    now, then = json.loads(last.read_text()), json.loads(before.read_text())
    names = now | then
    write_counts(last, {name: share * now.get(name, 0) + (1 - share) * then.get(name, 0) for name in names})


def publish(recipe: Finished, folder: Path, runs: list[dict[str, Any]], shipped: bool = True) -> list[Path]:
    """Write what a finished recipe contributes: members of the family are shipped, the rest goes to `folder`/model.

    Beside each lies training.json, {name: runs}; a shipped `sd` has its VAE's and CLIP's there too.
    """
    name = recipe.name

    def save(target: Path) -> None:
        if name == "decoder" and shipped:  # the rest of the generator stays
            shutil.copytree(path("sd"), target, ignore=shutil.ignore_patterns("README.md"), dirs_exist_ok=True)
            recipe.save(target / "vae")
        else:
            recipe.save(target)
        if (folder / COUNTS).exists():
            _count_earlier_runs(target / COUNTS, folder / COUNTS, runs)
        record = {name: runs}
        for part in recipe.parts():
            if (part / TRAINING).exists():
                record |= {k: v for k, v in json.loads((part / TRAINING).read_text()).items() if k not in record}
        (target / TRAINING).write_text(json.dumps(record, indent=1))

    if name == "decoder" and shipped:
        return [ship("sd", save)]
    if name not in NAMES or not shipped:
        with whole_folder(folder / "model") as unfinished:
            save(unfinished)
        return [folder / "model", *([ship(f"parts/{name}", save)] if shipped else [])]
    written = [ship(name, save)]
    if name == "sd":
        shutil.rmtree(PARTS, ignore_errors=True)  # last: they are in it now, and a kill before this is made good
    return written


def ship(name: str, save: Callable[[Path], None]) -> Path:
    """Write a model into the family by `save(folder)`, whole or not at all: a kill leaves the old one, maybe as .old.

    What was there goes, its card and a detector's operating point too: they were measured on other weights.
    """
    final = WEIGHTS / name
    with whole_folder(final) as unfinished:
        save(unfinished)
        for weights in unfinished.rglob("*.safetensors"):
            _halve(weights)
        for config in unfinished.rglob("config.json"):
            _forget_origin(config)
    return final


def main(argv: list[str] | None = None) -> int:
    """`python -m umm_bench.mini.family FOLDER`: make the TIUE that `umm_bench.train` left in FOLDER the family's."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args(argv).folder

    def command() -> None:
        from umm_bench.umm import load_tiue

        print(f"wrote {ship('tiue', load_tiue(folder).save_pretrained)}")

    return run_command(command)


if __name__ == "__main__":
    sys.exit(main())
