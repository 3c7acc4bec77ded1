"""Train one mini model: `python -m umm_bench.mini.pretrain NAME [--steps N]`.

Resumes from runs/mini/NAME, and writes the model (averaged weights, half precision) to umm_bench/mini/weights/NAME.
"""

from __future__ import annotations

import argparse
import importlib
import signal
import sys
from pathlib import Path

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from umm_bench.commands import run_command
from umm_bench.errors import UserError
from umm_bench.mini.recipes.common import Recipe, TrainConfig, fit

# Recipe class and the training of the shipped weights: about an hour and a half on two CPU cores, all together.
RECIPES: dict[str, tuple[str, TrainConfig]] = {
    "vae": ("umm_bench.mini.recipes.vae:VAERecipe", TrainConfig(steps=1200, learning_rate=2e-3)),
    "clip": (
        "umm_bench.mini.recipes.clip:ConditioningCLIP",
        TrainConfig(steps=300, learning_rate=1e-3, weight_decay=0.1),
    ),
    "sd": ("umm_bench.mini.recipes.sd:SDRecipe", TrainConfig(steps=2900, learning_rate=6e-4)),
    "encoder": (
        "umm_bench.mini.recipes.encoder:EncoderRecipe",
        TrainConfig(steps=220, learning_rate=1e-3, weight_decay=0.05),
    ),
    "detector": ("umm_bench.mini.recipes.detector:DetectorRecipe", TrainConfig(steps=1700, learning_rate=1e-3)),
    "scoring_clip": (
        "umm_bench.mini.recipes.clip:ScoringCLIP",
        TrainConfig(steps=340, learning_rate=1e-3, weight_decay=0.1),
    ),
}


def make(name: str) -> tuple[Recipe, TrainConfig]:
    """The recipe of a name and its configuration. UserError for an unknown name."""
    if name not in RECIPES:
        raise UserError(f"unknown mini model {name!r}; choose from {', '.join(RECIPES)}")
    target, config = RECIPES[name]
    module, attribute = target.split(":")
    return getattr(importlib.import_module(module), attribute)(), config


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", help=", ".join(RECIPES))
    parser.add_argument("--steps", type=int, help="optimizer steps in all, those before a resume included")
    parser.add_argument("--folder", type=Path, help="checkpoint folder, default runs/mini/NAME")
    parser.add_argument("--threads", type=int, help="CPU threads, default all cores")
    parser.add_argument("--warm-start", action="store_true", help="begin with the shipped weights, not random ones")
    parser.add_argument("--seconds", type=float, help="stop, with the checkpoint written, after this long")
    args = parser.parse_args(argv)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a polite kill writes the checkpoint, like Ctrl-C
    return run_command(
        lambda: _pretrain(args), interrupted="stopped; the checkpoint is written, the same command continues"
    )


def _pretrain(args: argparse.Namespace) -> None:
    import dataclasses
    import time

    import torch

    from umm_bench.mini import family

    if args.threads:
        torch.set_num_threads(args.threads)
    recipe, config = make(args.name)
    if args.steps is not None:
        config = dataclasses.replace(config, steps=args.steps)
    if args.warm_start:
        recipe.load(family.path(args.name))
    folder = args.folder or Path("runs/mini") / args.name
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    began = time.monotonic()
    with Progress(*columns, disable=not sys.stderr.isatty()) as bar:
        task = bar.add_task(args.name, total=config.steps)
        training = fit(recipe, config, folder)
        smooth = None
        for progress in training:
            smooth = progress.loss if smooth is None else 0.98 * smooth + 0.02 * progress.loss
            bar.update(task, completed=progress.step, description=f"{args.name} loss {smooth:.4f}")
            if bar.disable and (progress.step % 50 == 0 or progress.step == config.steps):
                print(
                    f"{args.name} {progress.step}/{config.steps} loss {smooth:.4f} {progress.seconds:.0f} s",
                    flush=True,
                )
            if args.seconds and time.monotonic() - began > args.seconds:
                break
        training.close()
    for written in family.publish(args.name, recipe, folder):
        print(f"wrote {written}")


if __name__ == "__main__":
    sys.exit(main())
