"""A playground in the browser: a subject, a prompt, plain Stable Diffusion beside UMM.

python -m umm_bench.demo                              # on mini, at http://127.0.0.1:7860
python -m umm_bench.demo --base ./sd15 --tiue ./tiue --port 0

It listens on this machine alone, and needs no network.
"""

from __future__ import annotations

import argparse
import sys
import webbrowser
from collections.abc import Sequence

from umm_bench.cli.arguments import Parser, whole
from umm_bench.cli.commands import quiet_libraries, run_command

PORT = 7860


def _parser() -> Parser:
    parser = Parser(
        prog="python -m umm_bench.demo", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--port", type=whole(0, 65535), default=PORT, help="where to listen; 0 is any that is free (%(default)s)")
    add("--base", default="mini", help="Stable Diffusion: mini, a folder or a hub id (default: %(default)s)")
    add("--tiue", default="", help="trained TIUE: mini, a folder or a hub id (default: the base's, or mini)")
    add("--image-encoder", default="", help="CLIP that the TIUE was trained with (default: the base's)")
    add("--open", action="store_true", help="open the page in the browser")
    return parser


def _command(arguments: Sequence[str] | None) -> None:
    options = _parser().parse_args(arguments)
    from umm_bench.base import load_base, usual
    from umm_bench.playground.server import Server
    from umm_bench.playground.studio import Studio
    from umm_bench.suites.mini import MiniSuite
    from umm_bench.umm_method import load_umm

    quiet_libraries()
    pipe = load_umm(load_base(options.base), options.tiue, options.image_encoder)
    with Server(Studio(pipe, MiniSuite().subjects(), usual(options.base)), options.port) as server:
        print(f"{server.address} (Ctrl-C ends it)", flush=True)
        if options.open:
            webbrowser.open(server.address)
        server.serve_forever()


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit status: 2 after one line on an error of the user's, 130 after Ctrl-C."""
    return run_command(lambda: _command(arguments), interrupted="ended")


if __name__ == "__main__":
    sys.exit(main())
