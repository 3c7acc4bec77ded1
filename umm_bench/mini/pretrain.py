"""Train one mini model: `python -m umm_bench.mini.pretrain NAME [--steps N]`.

Resumes from runs/mini/NAME, and writes the model (averaged weights, half precision) to umm_bench/mini/weights/NAME.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import json
import math
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from umm_bench.cli.arguments import Parser, real, whole
from umm_bench.cli.commands import quiet_libraries, run_command, signals_noted
from umm_bench.cli.outputs import check_folder
from umm_bench.errors import UserError
from umm_bench.mini import family
from umm_bench.mini.recipes.common import Recipe, Runtime, TrainConfig, fit, run_folder
from umm_bench.weights import first_line

ORIGIN = "origin.json"
_MOST = 10**6  # of any number of a recipe

# Recipe class and a training from random weights; what the shipped weights had is in the training.json beside them.
RECIPES: dict[str, tuple[str, TrainConfig]] = {
    "vae": ("umm_bench.mini.recipes.vae:VAERecipe", TrainConfig(steps=5700, learning_rate=2e-3)),
    "clip": (
        "umm_bench.mini.recipes.clip:ConditioningCLIP",
        TrainConfig(steps=1750, learning_rate=1e-3, weight_decay=0.1),
    ),
    "sd": ("umm_bench.mini.recipes.sd:SDRecipe", TrainConfig(steps=25_000, learning_rate=4e-4, muon=True)),
    "decoder": ("umm_bench.mini.recipes.vae:DecoderRecipe", TrainConfig(steps=700, learning_rate=1e-3, decay=0.5)),
    "image_encoder": (
        "umm_bench.mini.recipes.clip:ImageTower",
        TrainConfig(steps=10_000, learning_rate=2e-3, decay=0.8, muon=True),
    ),
    "encoder": (
        "umm_bench.mini.recipes.encoder:EncoderRecipe",
        TrainConfig(steps=2300, learning_rate=3e-3, weight_decay=0.05),
    ),
    "detector": ("umm_bench.mini.recipes.detector:DetectorRecipe", TrainConfig(steps=2400, learning_rate=1e-3)),
    "scoring_clip": (
        "umm_bench.mini.recipes.clip:ScoringCLIP",
        TrainConfig(steps=20_000, learning_rate=1e-3, weight_decay=0.05),
    ),
}


def make(name: str, image_size: int = 64, options: Sequence[str] = ()) -> tuple[Recipe, TrainConfig]:
    """The recipe of a name and its configuration, changed by `options` ("batch_size=256").

    UserError for an unknown name or option.
    """
    if name not in RECIPES:
        raise UserError(f"unknown mini model {name!r}; choose from {', '.join(RECIPES)}")
    target, config = RECIPES[name]
    module, attribute = target.split(":")
    recipe = getattr(importlib.import_module(module), attribute)
    default = dataclasses.replace(recipe.default, image_size=image_size)
    for option in options:
        key, _, text = option.partition("=")
        if key in _options(default):
            default = dataclasses.replace(default, **{key: _read(option, getattr(default, key), text)})
        elif key in _options(config):
            config = dataclasses.replace(config, **{key: _read(option, getattr(config, key), text)})
        else:
            known = ", ".join([*_options(default), *_options(config)])
            raise UserError(f"--option {option}: {name} has no {key!r}; choose from {known}")
    try:
        return recipe(default), config
    except (ValueError, RuntimeError, TypeError, AssertionError, ZeroDivisionError, IndexError) as error:
        if not options or isinstance(error, UserError):
            raise
        # whatever library notices it: sizes that do not fit each other
        raise UserError(f"{name} cannot be made with {', '.join(options)}: {first_line(error)}") from error


def _options(config: Any) -> list[str]:
    """What of a configuration can be chosen: numbers and rows of them, but those that have arguments of their own."""
    kept = ("image_size", "steps")
    names = [field.name for field in dataclasses.fields(config) if field.name not in kept]
    return [name for name in names if isinstance(getattr(config, name), int | float | tuple)]


def _read(option: str, now: Any, text: str) -> Any:
    """`text` as a value of `now`'s kind: a number, several with commas, true or false. UserError for anything else."""
    try:
        if isinstance(now, bool):
            return {"true": True, "false": False}[text]
        if isinstance(now, tuple):
            values = tuple(int(part) for part in text.split(","))
            if all(0 < value <= _MOST for value in values):
                return values
            raise ValueError
        value = type(now)(text)
        if (
            math.isfinite(value)
            and value <= _MOST
            and (value > 0 or (value == 0 and (now == 0 or isinstance(now, float))))
        ):
            return value
    except (ValueError, KeyError):
        pass
    example = ",".join(map(str, now)) if isinstance(now, tuple) else str(now).lower()
    raise UserError(f"--option {option}: give a value like {example}")


def warm_start(recipe: Recipe) -> None:
    """Give the recipe what the shipped family has of it."""
    from umm_bench.mini.recipes.clip import ConditioningCLIP

    if (family.PARTS / recipe.name).is_dir():
        recipe.load(family.PARTS / recipe.name)
    elif recipe.name in ("vae", "decoder"):
        recipe.load(family.path("sd") / "vae")
    elif isinstance(recipe, ConditioningCLIP):
        recipe.load_text(family.path("sd"))
    else:
        recipe.load(family.path(recipe.name))


def note_origin(recipe: Recipe, folder: Path, warm: bool) -> None:
    """Keep, before a training's first step, how the weights that it starts from were trained, and on what."""
    homes = (family.PARTS / recipe.name, family.WEIGHTS / family.HOME.get(recipe.name, recipe.name))
    shipped = next((home / family.TRAINING for home in homes if home.is_dir()), Path())
    before = json.loads(shipped.read_text()).get(recipe.name, []) if warm and shipped.is_file() else []
    folder.mkdir(parents=True, exist_ok=True)
    (folder / ORIGIN).write_text(json.dumps(before))
    if warm and (shipped.parent / family.COUNTS).is_file():
        shutil.copy(shipped.parent / family.COUNTS, folder / family.COUNTS)


def training_runs(recipe: Recipe, folder: Path) -> list[dict[str, Any]]:
    """How `recipe` was trained, for the model card: one entry a run, those of the weights it started from first."""
    state = json.loads((folder / "checkpoint" / "state.json").read_text())
    run = {"steps": state["step"], "batch_size": recipe.batch_size, "hours": round(state["seconds"] / 3600, 2)}
    if state.get("device", "cpu") != "cpu":
        run["device"] = state["device"]
    before = json.loads((folder / ORIGIN).read_text()) if (folder / ORIGIN).is_file() else []
    return [*before, run]


def main(argv: list[str] | None = None) -> int:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("name", help=", ".join(RECIPES))
    add("--steps", type=whole(), help="optimizer steps in all, those before a resume included")
    add("--size", type=whole(32, 2048), default=64, help="pixels; 64 is shipped, others stay in runs/mini-SIZE")
    add("--folder", type=Path, help="checkpoint folder, default runs/mini/NAME")
    add("--threads", type=whole(1, 1024), help="CPU threads, default all cores")
    add("--device", help="cpu or cuda; default the GPU where there is one")
    add("--workers", type=whole(0, 1024), help="processes that make batches ahead; default 0, on a GPU all cores")
    add("--compile", action="store_true", help="torch.compile: minutes to begin, then faster")
    add("--warm-start", action="store_true", help="begin with the shipped weights, not random ones")
    add("--seconds", type=real(0, above=True), help="stop, with the checkpoint written, after this long")
    add("-o", "--option", action="append", default=[], metavar="NAME=VALUE",
        help="change the recipe, as batch_size=256 or learning_rate=0.002; a wrong name lists them all")  # fmt: skip
    return run_command(lambda: _pretrain(parser.parse_args(argv)), interrupted="stopped; the same command continues")


def _pretrain(args: argparse.Namespace) -> None:
    import torch

    quiet_libraries()
    if args.threads is not None:
        torch.set_num_threads(args.threads)
    if args.size != 64 and args.warm_start:
        raise UserError("--warm-start takes the shipped weights, which are for 64 px")
    if args.size % 32:
        raise UserError(f"--size {args.size}: must be a multiple of 32")
    recipe, config = make(args.name, args.size, args.option)
    if args.steps is not None:
        config = dataclasses.replace(config, steps=args.steps)
    if args.warm_start:
        warm_start(recipe)
    runtime = Runtime.detect(args.device, args.workers, args.compile)
    folder = args.folder or run_folder(args.name, args.size)
    check_folder(folder / "checkpoint", "--folder")
    if args.size == 64:
        check_folder(family.WEIGHTS, "the family's weights")
    if not (folder / "checkpoint").is_dir():
        note_origin(recipe, folder, args.warm_start)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    began, step = time.monotonic(), None
    with Progress(*columns, disable=not sys.stderr.isatty()) as bar, signals_noted() as noted:
        task = bar.add_task(args.name, total=config.steps)
        training = fit(recipe, config, folder, runtime)
        smooth = None
        for progress in training:
            step = progress.step
            smooth = progress.loss if smooth is None else 0.98 * smooth + 0.02 * progress.loss
            bar.update(task, completed=progress.step, description=f"{args.name} loss {smooth:.4f}")
            if bar.disable and (progress.step % 50 == 0 or progress.step == config.steps):
                print(
                    f"{args.name} {progress.step}/{config.steps} loss {smooth:.4f} {progress.seconds:.0f} s",
                    flush=True,
                )
            if noted or (args.seconds and time.monotonic() - began > args.seconds):
                break
        training.close()
    if step is not None and step < config.steps:
        if noted:
            raise KeyboardInterrupt
        print(f"stopped at step {step} of {config.steps}; the checkpoint is written, the same command continues")
        return
    for written in family.publish(recipe, folder, training_runs(recipe, folder), args.size == 64):
        print(f"wrote {written}")


if __name__ == "__main__":
    sys.exit(main())
