"""Train a TIUE on pairs from curation: python -m umm_bench.train --data data/pairs --output tiue.

On several GPUs: accelerate launch --multi_gpu -m umm_bench.train --data data/pairs --output tiue.
"""

import argparse
import dataclasses
import functools
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from rich.console import Console

from umm_bench.cli.arguments import SEED, SHARE, Parser, real, some_text, whole
from umm_bench.cli.commands import quiet_libraries, run_command, signals_noted
from umm_bench.cli.outputs import check_folder
from umm_bench.cli.progress import Tracker
from umm_bench.errors import UserError

if TYPE_CHECKING:
    from accelerate import Accelerator

    from umm_bench.umm import UMMPipeline
    from umm_bench.umm.encoded import EncodedPairs
    from umm_bench.umm.settings import EncodeConfig, TrainConfig
    from umm_bench.umm.trainer import TrainState

T = TypeVar("T")


class _Help(argparse.ArgumentDefaultsHelpFormatter):
    """Names the defaults that there are."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        return action.help if action.default in (None, "") else super()._get_help_string(action)


def _parser() -> Parser:
    from umm_bench.umm.augment import Augmentation
    from umm_bench.umm.settings import PLACEMENTS, EncodeConfig, TrainConfig, ValidationConfig

    run, encode, augment, validation = TrainConfig(), EncodeConfig(), Augmentation(), ValidationConfig()
    parser = Parser(
        prog="python -m umm_bench.train",
        description=__doc__,
        formatter_class=_Help,
    )
    add = parser.add_argument
    add("--data", type=Path, required=True, help="folder that curation.build wrote")
    add("--output", type=Path, required=True, help="folder for the TIUE and its training state")
    add("--base", default="mini", help="Stable Diffusion: mini, a folder or a hub id")
    add("--image-encoder", default="", help="CLIP that embeds the references; empty is the base's own")
    add("--cache", type=Path, help="folder for encoded pairs (default: DATA/.encoded)")
    add("--resume", action="store_true", help="go on from OUTPUT; ends at once when it is complete")
    add("--init-from", default="", help="trained TIUE to begin with: mini, a folder or a hub id")
    add("--steps", type=whole(), default=run.steps)
    add("--batch-size", type=whole(1, 65536), default=run.batch_size, help="rows of one forward pass of one process")
    add("--gradient-accumulation-steps", type=whole(), default=run.gradient_accumulation_steps, help="passes a step")
    add("--gradient-checkpointing", action="store_true", help="the UNet's activations made twice: slower, less memory")
    add("--mixed-precision", choices=("auto", "no", "bf16"), default="auto",
        help="of the frozen models; auto is bf16 where the device multiplies it in hardware")  # fmt: skip
    add("--lr", dest="learning_rate", type=real(0, 100), default=run.learning_rate)
    add("--warmup-steps", type=whole(0), default=run.warmup_steps)
    add("--weight-decay", type=real(0, 1000), default=run.weight_decay)
    add("--min-snr-gamma", type=real(0, 1e6), default=run.min_snr_gamma, help="0 weighs all timesteps alike")
    add("--drop-rate", type=SHARE, default=run.drop_rate, help="part of the rows trained without their image")
    add("--ema-decay", type=SHARE, default=run.ema_decay)
    add("--num-pseudo-words", type=whole(1, 64), default=run.num_pseudo_words)
    add("--hidden-dim", type=whole(1, 65536), default=run.hidden_dim)
    add("--depth", type=whole(0, 64), default=run.depth, help="hidden layers of the MLP")
    add("--placement", choices=PLACEMENTS, default=run.placement,
        help="of the pseudo words: in place of the subject's own, added to them or before them; best with "
        "--head-rate 1 where its own words stay")  # fmt: skip
    add("--distill", type=SHARE, default=run.distill,
        help="part of the target that the generator itself predicts from the whole caption")  # fmt: skip
    add("--summary-steps", type=whole(0), default=run.summary_steps,
        help="first steps, which match the whole caption's summary; for a UNet that reads one")  # fmt: skip
    add("--seed", type=SEED, default=run.seed)
    add("--checkpoint-every", type=whole(), default=500, help="steps between checkpoints")

    add = parser.add_argument_group("what is trained on").add_argument
    add("--views", type=whole(1, 1024), default=encode.views, help="augmented references a pair")
    add("--head-rate", type=SHARE, default=encode.head_rate, help="captions cut to the subject's noun")
    add("--augment-crop", dest="jitter", type=real(), default=augment.jitter,
        help="each side moves in by up to this part; 0 is off")  # fmt: skip
    add("--augment-flip", dest="flip", type=real(), default=augment.flip, help="rate of mirror images; 0 is off")
    add("--augment-colour", dest="colour", type=real(), default=augment.colour,
        help="brightness, contrast, saturation change by up to this part; 0 is off")  # fmt: skip
    add("--augment-rotation", dest="rotation", type=real(), default=augment.rotation, help="degrees; 0 is off")
    add("--augment-margin", dest="margin", type=real(), default=augment.margin,
        help="up to this part of the side is plain colour; 0 is off")  # fmt: skip

    add = parser.add_argument_group("what is shown").add_argument
    add("--report-to", choices=("tensorboard", "wandb"), help="tracker of loss, learning rate and validation images")
    add("--validation-steps", type=whole(0), default=0, help="steps between grids in OUTPUT/validation; 0 makes none")
    add("--validation-prompt", action="append", type=some_text, metavar="TEMPLATE",
        help=f"with {{subject}}; may be given several times (default: {validation.prompts})")  # fmt: skip
    add("--validation-subjects", type=whole(1, 64), default=validation.subjects, help="references shown, from the data")
    return parser


def _from(kind: type[T], args: argparse.Namespace, **more: Any) -> T:
    """The settings of `args` that `kind`, a dataclass, has a field for."""
    names = {field.name for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    return kind(**{name: value for name, value in vars(args).items() if name in names} | more)


def _encode(
    pipe: "UMMPipeline", data: Path, cache: Path, config: "EncodeConfig", accelerator: "Accelerator"
) -> "EncodedPairs":
    from accelerate.utils import gather_object

    from umm_bench.umm.encoded import EncodedPairs, encode_pairs
    from umm_bench.umm.pairs import count_pairs, read_pairs

    chunks, done, part, parts = [], 0, accelerator.process_index, accelerator.num_processes
    total = count_pairs(data)
    with Tracker(_console(accelerator), "encoding pairs", total) as tracker:
        for chunk in encode_pairs(pipe, read_pairs(data), cache, config, part, parts):
            chunks.append(chunk)
            done += (chunk.pairs + chunk.skipped.total()) * parts
            tracker.update(min(done, total))
    chunks = sorted(gather_object(chunks), key=lambda chunk: chunk.number)
    pairs = EncodedPairs(chunks)
    reused = sum(chunk.pairs for chunk in chunks if chunk.reused)
    skipped = "".join(f", {count} skipped ({reason})" for reason, count in pairs.skipped.items())
    accelerator.print(f"{len(pairs)} pairs, {reused} of them encoded before{skipped}")
    return pairs


def _console(accelerator: "Accelerator") -> Console:
    return Console(quiet=not accelerator.is_main_process)


def _train(
    states: Iterator["TrainState"],
    before: int,
    config: "TrainConfig",
    accelerator: "Accelerator",
    save: Callable[["TrainState"], None],
    show: Callable[["TrainState"], None],
    args: argparse.Namespace,
) -> None:
    smoothed = None
    alone = accelerator.num_processes == 1
    tracker = Tracker(_console(accelerator), "training", config.steps, before=before)
    with tracker, signals_noted(alone) as interrupted:
        for state in states:
            smoothed = state.loss if smoothed is None else 0.98 * smoothed + 0.02 * state.loss
            tracker.update(state.step, f"loss {smoothed:.4f}")
            rate = config.learning_rate_at(state.step - 1)
            accelerator.log({"loss": state.loss, "grad_norm": state.grad_norm, "learning_rate": rate}, step=state.step)
            stop = _anywhere(bool(interrupted), accelerator)
            last = state.step == config.steps
            if accelerator.is_main_process:
                if stop or last or state.step % args.checkpoint_every == 0:
                    save(state)
                if not stop and args.validation_steps and (last or state.step % args.validation_steps == 0):
                    show(state)
            if stop:
                if accelerator.is_main_process:
                    print(f"stopped after step {state.step}, go on with --resume; ", end="", file=sys.stderr)
                raise KeyboardInterrupt


def _anywhere(flag: bool, accelerator: "Accelerator") -> bool:
    """Whether any process says so: all must leave the loop at the same step, or the others wait for ever."""
    if accelerator.num_processes == 1:
        return flag
    import torch

    return bool(accelerator.reduce(torch.tensor(float(flag), device=accelerator.device), "sum") > 0)


def _accelerator(args: argparse.Namespace) -> "Accelerator":
    """Processes, device and tracker. UserError for a tracker that is not installed."""
    from accelerate import Accelerator
    from accelerate.utils import is_tensorboard_available, is_wandb_available

    from umm_bench.base import pick_device

    available = {"tensorboard": is_tensorboard_available, "wandb": is_wandb_available}
    if args.report_to and not available[args.report_to]():
        raise UserError(f"--report-to {args.report_to} needs its package: pip install {args.report_to}")
    # told nothing, accelerate takes several processes without a GPU for as many runs of one
    return Accelerator(cpu=pick_device() == "cpu", log_with=args.report_to, project_dir=str(args.output))


def _shower(
    pipe: "UMMPipeline", accelerator: "Accelerator", args: argparse.Namespace
) -> Callable[["TrainState"], None]:
    """Writes the validation grid of a state to the output folder and the tracker."""
    import numpy as np

    from umm_bench.umm.pairs import read_pairs
    from umm_bench.umm.settings import ValidationConfig
    from umm_bench.umm.trainer import release_encoders
    from umm_bench.umm.validation import check_prompts, choose_references, validation_grid

    config = ValidationConfig(subjects=args.validation_subjects)
    if args.validation_prompt:
        config = dataclasses.replace(config, prompts=tuple(args.validation_prompt))
    references = choose_references(read_pairs(args.data), config) if args.validation_steps else []
    if args.validation_steps and not references:
        raise UserError(
            f"nothing in {args.data} to validate on: no readable crop whose noun no validation prompt has already"
        )
    check_prompts(pipe.tokenizer, references, config)

    def show(state: "TrainState") -> None:
        grid = validation_grid(pipe, state.ema, references, config)
        release_encoders(pipe, for_good=False)
        folder = args.output / "validation"
        folder.mkdir(parents=True, exist_ok=True)
        grid.save(folder / f"step-{state.step:06d}.png")
        for tracker in accelerator.trackers:
            layout = {"dataformats": "NHWC"} if tracker.name == "tensorboard" else {}
            tracker.log_images({"validation": np.asarray(grid)[None]}, step=state.step, **layout)

    return show


def _check_outputs(args: argparse.Namespace, cache: Path) -> None:
    """Raises UserError where something that the training leaves could not be written, or its data is not there."""
    from umm_bench.umm.pairs import count_pairs

    count_pairs(args.data)
    check_folder(args.output, "--output")
    if args.validation_steps:
        check_folder(args.output / "validation", "--output")
    if args.report_to:
        check_folder(args.output / "logs", "--output")
    check_folder(cache, "--cache")


def command(args: argparse.Namespace) -> None:
    """Encodes the pairs, trains, and leaves the TIUE in `args.output`. UserError for unusable arguments."""
    quiet_libraries()
    from umm_bench.base import choose_precision, load_base, resolve_model
    from umm_bench.umm.augment import Augmentation
    from umm_bench.umm.checkpoint import STATE_FILE, load_state, run_identity, save_state
    from umm_bench.umm.settings import EncodeConfig, TrainConfig
    from umm_bench.umm.tiue import load_tiue
    from umm_bench.umm.trainer import initial_state, noise_schedule, release_encoders, train
    from umm_bench.umm_method import load_umm

    found = os.path.exists(args.output / STATE_FILE)
    if found and not args.resume:
        raise UserError(f"{args.output} holds a training run; pass --resume to go on, or another --output")
    cache = args.cache or args.data / ".encoded"
    accelerator = _accelerator(args)
    if accelerator.is_main_process:
        _check_outputs(args, cache)
    accelerator.wait_for_everyone()
    config = _from(TrainConfig, args, mixed_precision=choose_precision(args.mixed_precision, accelerator.device.type))
    told = args.distill > 0 or args.summary_steps > 0
    encode = _from(EncodeConfig, args, augmentation=_from(Augmentation, args), whole_captions=told)
    pipe = load_umm(load_base(args.base), None, args.image_encoder).to(accelerator.device)
    start = load_tiue(resolve_model(args.init_from, "tiue")) if args.init_from else None
    if args.gradient_checkpointing:
        pipe.unet.enable_gradient_checkpointing()
    noise_schedule(pipe)  # refuses a base that cannot be trained for
    if pipe.unet.config.in_channels != pipe.vae.config.latent_channels:
        raise UserError(f"base '{args.base}' is for inpainting; train on one that draws from text alone")
    show = _shower(pipe, accelerator, args)
    if args.report_to:
        settings = dataclasses.asdict(config) | dataclasses.asdict(encode.augmentation) | {"base": args.base}
        accelerator.init_trackers("logs", config=settings)
    try:
        pairs = _encode(pipe, args.data, cache, encode, accelerator)
        identity = run_identity(pipe, pairs, config.rows_per_step(accelerator.num_processes), start)
        state = load_state(args.output, pipe, config, identity) if found else initial_state(pipe, config, start)
        release_encoders(pipe, for_good=not args.validation_steps)
        states = train(pipe, pairs, config, state, accelerator)
        save = functools.partial(save_state, args.output, config=config, identity=identity)
        _train(states, state.step, config, accelerator, save, show, args)
    finally:
        accelerator.end_training()
    accelerator.print(f"{args.output}: TIUE after {state.step} steps; use it with `--tiue {args.output}`")


def main(argv: Sequence[str] | None = None) -> int:
    return run_command(lambda: command(_parser().parse_args(argv)))


if __name__ == "__main__":
    sys.exit(main())
