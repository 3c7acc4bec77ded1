"""Draw subjects from images.

python -m umm_bench.sample --image REF.png --subject dog --prompt "a dog on a beach" --out out.png
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from umm_bench.commands import quiet_libraries, run_command
from umm_bench.errors import UserError


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m umm_bench.sample", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--image", action="append", default=[], metavar="FILE", help="reference image; repeat with --subject")
    add("--subject", action="append", default=[], metavar="WORDS",
        help="words of the prompt that the image stands for; a style works the same way")  # fmt: skip
    add("--prompt", required=True)
    add("--out", default="sample.png", type=Path, metavar="FILE",
        help="the image; several get -0, -1, ... (default: %(default)s)")  # fmt: skip
    add("--base", default="mini", help="Stable Diffusion: mini, a folder or a hub id (default: %(default)s)")
    add("--tiue", default="mini", help="trained TIUE: mini, a folder or a hub id (default: %(default)s)")
    add("--image-encoder", default="", help="CLIP that the TIUE was trained with (default: the base's)")
    add("--alpha", action="append", type=float, default=[],
        help="0 text only ... 1 image only; once for all subjects or once for each (default: 0.7)")  # fmt: skip
    add("--negative-prompt")
    add("--steps", type=int, default=30, help="denoising steps (default: %(default)s)")
    add("--guidance-scale", type=float, default=5.0, help="1 is off (default: %(default)s)")
    add("--num-images", type=int, default=1, help="images from consecutive seeds (default: %(default)s)")
    add("--seed", type=int, default=0)
    return parser


def sample(args: argparse.Namespace) -> None:
    """Writes the images and prints their paths. Raises UserError for arguments that do not fit together."""
    if len(args.image) != len(args.subject):
        raise UserError(f"{len(args.image)} --image but {len(args.subject)} --subject; give them in pairs")
    if len(args.alpha) not in (0, 1, len(args.image)):
        raise UserError(f"{len(args.alpha)} --alpha for {len(args.image)} subjects; give one, or one for each")
    for name in ("steps", "num_images"):
        if getattr(args, name) < 1:
            raise UserError(f"--{name.replace('_', '-')} must be at least 1, not {getattr(args, name)}")

    import torch

    quiet_libraries()
    from umm_bench.base import load_base
    from umm_bench.umm import Subject
    from umm_bench.umm.images import open_image
    from umm_bench.umm_method import load_umm

    alphas = args.alpha * len(args.image) if len(args.alpha) == 1 else args.alpha or [0.7] * len(args.image)
    # an unreadable image should not wait for the models
    images = [open_image(Path(path)) for path in args.image]
    subjects = [Subject(image, words, alpha) for image, words, alpha in zip(images, args.subject, alphas, strict=True)]
    pipe = load_umm(load_base(args.base), args.tiue if subjects else None, args.image_encoder)
    pipe.set_progress_bar_config(disable=not sys.stderr.isatty())
    pictures = pipe(
        args.prompt,
        subjects=subjects,
        num_inference_steps=args.steps,
        guidance_scale=args.guidance_scale,
        negative_prompt=args.negative_prompt,
        num_images_per_prompt=args.num_images,
        generator=[torch.Generator("cpu").manual_seed(args.seed + i) for i in range(args.num_images)],
    ).images
    paths = [args.out]
    if len(pictures) > 1:
        paths = [args.out.with_stem(f"{args.out.stem}-{i}") for i in range(len(pictures))]
    args.out.parent.mkdir(parents=True, exist_ok=True)
    for path, picture in zip(paths, pictures, strict=True):
        try:
            picture.save(path)
        except (ValueError, OSError) as error:
            raise UserError(f"cannot write {path}: {error}") from error
        print(path)


def main(argv: Sequence[str] | None = None) -> int:
    args = _parser().parse_args(argv)
    return run_command(lambda: sample(args))


if __name__ == "__main__":
    sys.exit(main())
