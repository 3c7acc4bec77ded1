"""Draw subjects from images.

python -m umm_bench.sample --image REF.png --subject dog --prompt "a dog on a beach" --out out.png
python -m umm_bench.sample --image A.png B.png --subject dog --save-card dog.safetensors
python -m umm_bench.sample --card dog.safetensors --prompt "a dog in the snow"
python -m umm_bench.sample --image REF.png --subject "<image>" --prompt "a cat in the style of <image>"
"""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from atomic import whole_file
from umm_bench.base import usual
from umm_bench.cli.arguments import (
    GUIDANCE,
    GUIDANCE_HELP,
    SEED,
    SHARE,
    STEPS,
    Parser,
    any_text,
    file_name,
    real,
    some_text,
    whole,
)
from umm_bench.cli.commands import quiet_libraries, run_command
from umm_bench.cli.outputs import check_file, check_image_file
from umm_bench.errors import UserError

if TYPE_CHECKING:
    from PIL.Image import Image

    from umm_bench.umm import Subject, UMMPipeline

_AT_ONCE = 8


def _parser() -> Parser:
    parser = Parser(
        prog="python -m umm_bench.sample", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--image", action="append", nargs="+", default=[], metavar="FILE",
        help="reference images of one subject, averaged; repeat with --subject")  # fmt: skip
    add("--subject", action="append", type=some_text, default=[], metavar="WORDS",
        help="words of the prompt that the images stand for; a style works the same way")  # fmt: skip
    add("--card", action="append", nargs="+", type=any_text, default=[], metavar=("FILE", "WORDS"),
        help="a subject saved before, and its words in the prompt where they are not the card's own")  # fmt: skip
    add("--save-card", type=file_name, metavar="FILE", help="keep the subject in a file; needs no --prompt")
    add("--prompt", type=some_text)
    add("--out", default="sample.png", type=file_name, metavar="FILE",
        help="the image; several get -0, -1, ... (default: %(default)s)")  # fmt: skip
    add("--base", default="mini", help="Stable Diffusion: mini, a folder or a hub id (default: %(default)s)")
    add("--tiue", default="", help="trained TIUE: mini, a folder or a hub id (default: the base's, or mini)")
    add("--image-encoder", default="", help="CLIP that the TIUE was trained with (default: the base's)")
    add("--alpha", action="append", type=SHARE, default=[],
        help="0 text only, 1 image only; for all subjects, or each, cards last (default: 0.7; mini 0.8)")  # fmt: skip
    add("--negative-prompt", type=any_text)
    add("--steps", type=STEPS, default=30, help="denoising steps (default: %(default)s)")
    add("--guidance-scale", type=GUIDANCE, help=GUIDANCE_HELP)
    add("--subject-scale", type=GUIDANCE,
        help="guidance by the subjects alone (default: --guidance-scale, on mini twice that)")  # fmt: skip
    for part in ("guidance", "subject"):
        add(f"--{part}-interval", nargs=2, type=SHARE, default=(0.0, 1.0), metavar=("START", "STOP"),
            help=f"fractions of the steps at which the {part} counts (default: 0 1)")  # fmt: skip
    add("--fast", action="store_true", help="plain Stable Diffusion's time, nearly the same image")
    add("--init-image", type=Path, metavar="FILE", help="start from this picture")
    add("--mask", type=Path, metavar="FILE", help="draw only where this is white")
    add(
        "--strength",
        type=real(0, 1, above=True),
        help="0 keeps --init-image ... 1 redraws it (default: 0.8, with --mask 1)",
    )
    add("--num-images", type=whole(1, 100_000), default=1, help="images from consecutive seeds (default: %(default)s)")
    add("--seed", type=SEED, default=0)
    return parser


def _fill(args: argparse.Namespace) -> None:
    """What nobody said is as it is usual on the base."""
    settings = usual(args.base)
    args.alpha = args.alpha or [settings.alpha]
    if args.guidance_scale is None:
        args.guidance_scale = settings.guidance_scale
    if args.subject_scale is None:
        args.subject_scale = args.guidance_scale * settings.subject_guidance


def _check(args: argparse.Namespace) -> None:
    if len(args.image) != len(args.subject):
        raise UserError(f"{len(args.image)} --image but {len(args.subject)} --subject; give them in pairs")
    subjects = len(args.image) + len(args.card)
    if len(args.alpha) not in (1, subjects):
        raise UserError(f"{len(args.alpha)} --alpha for {subjects} subjects; give one, or one for each")
    if any(len(card) > 2 for card in args.card):
        raise UserError("--card takes a file and its words in the prompt, in quotes if there are several")
    if args.save_card is not None and len(args.image) != 1:
        raise UserError(f"--save-card keeps one subject, given by --image and --subject; there are {len(args.image)}")
    if args.prompt is None and args.save_card is None:
        raise UserError("there is nothing to do; give a --prompt, or --save-card to keep a subject")
    if args.negative_prompt and args.guidance_scale <= 1:
        raise UserError("--negative-prompt counts only where --guidance-scale is above 1; raise that or leave this out")
    if (args.mask is not None or args.strength is not None) and args.init_image is None:
        raise UserError("--mask and --strength need an image to start from; give --init-image")
    if args.save_card is not None:
        check_file(args.save_card, "--save-card")
    if args.prompt is not None:
        paths = _paths(args)
        check_image_file(paths[-1], "--out")
        for path in filter(os.path.isdir, paths):
            raise UserError(f"cannot write {path} (--out): it is a folder")


def _paths(args: argparse.Namespace) -> list[Path]:
    if args.num_images == 1:
        return [args.out]
    return [args.out.with_stem(f"{args.out.stem}-{i}") for i in range(args.num_images)]


def check_length(tokenizer: Any, option: str, text: str) -> None:
    """Raises UserError for a text that the base would cut off."""
    tokens = len(tokenizer(text, verbose=False).input_ids)
    if tokens > tokenizer.model_max_length:
        raise UserError(
            f"{option} has {tokens - 2} tokens, this base reads {tokenizer.model_max_length - 2}; shorten it"
        )


def _subjects(args: argparse.Namespace) -> list["Subject"]:
    """From the command line alone: an unreadable file should not wait for the models."""
    from umm_bench.images import open_image
    from umm_bench.umm import Subject, load_card

    args.init_image = None if args.init_image is None else open_image(args.init_image)
    args.mask = None if args.mask is None else open_image(args.mask)
    number = len(args.image)
    alphas = args.alpha if len(args.alpha) > 1 else args.alpha * (number + len(args.card))
    pictures = [[open_image(Path(path)) for path in paths] for paths in args.image]
    drawn = zip(pictures, args.subject, alphas[:number], strict=True)
    kept = zip(args.card, alphas[number:], strict=True)
    return [Subject(images, words, alpha) for images, words, alpha in drawn] + [
        Subject(card=load_card(path), phrase=words[0] if words else "", alpha=alpha) for (path, *words), alpha in kept
    ]


def _pipeline(args: argparse.Namespace) -> "UMMPipeline":
    from umm_bench.base import load_base
    from umm_bench.umm import UMMPipeline
    from umm_bench.umm_method import load_umm

    base = load_base(args.base)
    # cards need neither TIUE nor image encoder
    pipe = load_umm(base, args.tiue, args.image_encoder) if args.image else UMMPipeline.from_pipe(base.pipeline())
    pipe.set_progress_bar_config(disable=not sys.stderr.isatty())
    return pipe


def sample(args: argparse.Namespace) -> None:
    """Writes the card and the images and prints their paths. Raises UserError for arguments that do not fit."""
    _fill(args)
    _check(args)
    quiet_libraries()
    subjects = _subjects(args)
    pipe = _pipeline(args)
    if args.save_card is not None:
        pipe.make_card(args.image[0], args.subject[0]).save(args.save_card)
        print(args.save_card)
    if args.prompt is not None:
        _draw(args, pipe, subjects)


def _draw(args: argparse.Namespace, pipe: "UMMPipeline", subjects: list["Subject"]) -> None:
    import torch

    check_length(pipe.tokenizer, "--prompt", args.prompt)
    check_length(pipe.tokenizer, "--negative-prompt", args.negative_prompt or "")
    try:
        pipe.scheduler.set_timesteps(args.steps)
    except ValueError as error:
        raise UserError(f"--steps {args.steps} is not for this base: {error}") from error
    paths = _paths(args)
    # a few at a time: the first are there whatever happens to the last, and the memory does not grow with their number
    for first in range(0, len(paths), _AT_ONCE):
        some = paths[first : first + _AT_ONCE]
        pictures = pipe(
            args.prompt,
            subjects=subjects,
            num_inference_steps=args.steps,
            guidance_scale=args.guidance_scale,
            subject_guidance_scale=args.subject_scale,
            guidance_interval=tuple(args.guidance_interval),
            subject_interval=tuple(args.subject_interval),
            fast=args.fast,
            negative_prompt=args.negative_prompt,
            num_images_per_prompt=len(some),
            image=args.init_image,
            mask_image=args.mask,
            strength=args.strength,
            generator=[torch.Generator("cpu").manual_seed(args.seed + first + i) for i in range(len(some))],
        ).images
        for path, picture in zip(some, pictures, strict=True):
            _write(path, picture)


def _write(path: Path, picture: "Image") -> None:
    from PIL import Image

    try:
        with whole_file(path) as unfinished:
            picture.save(unfinished, Image.registered_extensions()[path.suffix.lower()])
    except (ValueError, OSError) as error:
        raise UserError(f"cannot write {path}: {error}") from error
    print(path)


def main(argv: Sequence[str] | None = None) -> int:
    return run_command(lambda: sample(_parser().parse_args(argv)))


if __name__ == "__main__":
    sys.exit(main())
