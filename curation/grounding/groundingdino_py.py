"""GroundingDINO by groundingdino-py, for those who have its .pth checkpoints: the same interface, another process.

groundingdino-py does not run on transformers 5, so it gets an environment of its own, and a worker process there is
the model: prompts, padding, token spans and batches are those of the transformers backend.

    python -m curation.grounding.groundingdino_py --setup FOLDER
    python -m curation.build --backend groundingdino-py --groundingdino-env FOLDER --detector CHECKPOINT_FOLDER

A checkpoint folder has one configuration (.py) and one .pth, and may have the text encoder in ``text_encoder/`` and
image sizes in ``preprocessor_config.json``.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

from curation.config import BuildConfig
from curation.errors import UserError
from curation.grounding.base import with_threshold
from curation.grounding.groundingdino_worker import receive, send
from curation.grounding.transformers_backend import TransformersGrounder
from curation.vision.checkpoints import pick_device

WORKER = Path(__file__).with_name("groundingdino_worker.py")
# The last transformers that groundingdino-py 0.4.0 is known to run on.
REQUIREMENTS = ("transformers==4.49.0", "groundingdino-py==0.4.0", "torchvision")


class WorkerModel:
    """Looks like `GroundingDinoForObjectDetection` to `TransformersGrounder`; the weights are in the worker."""

    dtype = torch.float32
    device = torch.device("cpu")  # tensors cross the pipe on the CPU

    def __init__(self, command: list[str]) -> None:
        """Raises `UserError` where the worker does not come up."""
        self._worker = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        about = self._receive()
        if "error" in about:
            self.close()
            raise UserError(f"groundingdino-py: {about['error']}")
        self.text_encoder = str(about["text_encoder"])
        self.config = SimpleNamespace(max_text_len=int(about["max_text_len"]))

    def eval(self) -> WorkerModel:
        return self

    def __call__(self, **inputs: torch.Tensor) -> Any:
        """Outputs with ``logits`` [B, Q, L] and ``pred_boxes`` [B, Q, 4].

        Raises:
            torch.OutOfMemoryError: in the worker, which goes on.
            RuntimeError: any other error in the worker.
        """
        assert self._worker.stdin is not None  # a pipe
        try:
            send(self._worker.stdin, **{name: tensor.numpy() for name, tensor in inputs.items()})
        except BrokenPipeError:
            raise UserError("groundingdino-py: the worker process is gone") from None
        answer = self._receive()
        if "error" in answer:
            kind = torch.OutOfMemoryError if "out of memory" in str(answer["error"]).lower() else RuntimeError
            raise kind(f"groundingdino-py: {answer['error']}")
        return SimpleNamespace(**{name: torch.from_numpy(array) for name, array in answer.items()})

    def close(self) -> None:
        for pipe in (self._worker.stdin, self._worker.stdout):
            if pipe is not None:
                pipe.close()
        self._worker.wait()

    def __del__(self) -> None:
        if hasattr(self, "_worker") and self._worker.poll() is None:
            self.close()

    def _receive(self) -> dict[str, Any]:
        assert self._worker.stdout is not None  # a pipe
        try:
            return receive(self._worker.stdout)
        except EOFError:
            raise UserError(f"groundingdino-py: the worker ended with code {self._worker.wait()}") from None


def load(config: BuildConfig, detector: str) -> TransformersGrounder:
    """Raises `UserError` where the environment or the checkpoint folder is not there, or does not load."""
    from transformers import AutoTokenizer
    from transformers.models.grounding_dino.image_processing_pil_grounding_dino import GroundingDinoImageProcessorPil

    python = Path(config.groundingdino_env or "groundingdino-env") / "bin" / "python"
    if not python.is_file():
        raise UserError(
            f"--groundingdino-env {python.parent.parent}: no environment there; "
            "make one with `python -m curation.grounding.groundingdino_py --setup FOLDER`"
        )
    folder = Path(detector)
    if len(list(folder.glob("*.py"))) != 1 or len(list(folder.glob("*.pth"))) != 1:
        raise UserError(f"--detector {detector}: expected a folder with one configuration (.py) and one .pth")
    model = WorkerModel([str(python), str(WORKER), str(folder), pick_device(config.device)])
    sizes = (folder / "preprocessor_config.json").is_file()
    image_processor = (
        GroundingDinoImageProcessorPil.from_pretrained(detector) if sizes else GroundingDinoImageProcessorPil()
    )
    processor = SimpleNamespace(
        image_processor=image_processor, tokenizer=AutoTokenizer.from_pretrained(model.text_encoder)
    )
    return TransformersGrounder(model, processor, with_threshold(config, detector))


def setup(folder: Path) -> None:
    """Makes the environment: a venv with groundingdino-py, the transformers it needs, and this environment's torch."""
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    torch_here = f"torch=={version('torch').partition('+')[0]}"
    subprocess.run([str(folder / "bin" / "pip"), "install", torch_here, *REQUIREMENTS], check=True)
    code = f"import sys; sys.path.insert(0, {str(WORKER.parent)!r}); from groundingdino_worker import *; "
    code += "import_torchvision(); import groundingdino.models"
    subprocess.run([str(folder / "bin" / "python"), "-c", code], check=True, env={**os.environ, "PYTHONPATH": ""})


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m curation.grounding.groundingdino_py",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--setup", type=Path, required=True, metavar="FOLDER", help="folder of the new environment")
    try:
        setup(parser.parse_args().setup)
    except (OSError, subprocess.CalledProcessError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
