"""The process in groundingdino-py's own environment: tensors in, logits and boxes out.

Run by its path with that environment's Python, since nothing of this project can be imported there:
``python groundingdino_worker.py CHECKPOINT_FOLDER DEVICE``. A message is its length (8 bytes) and numpy's .npz; the
first is about the model, every other one answers a request.
"""

from __future__ import annotations

import io
import os
import struct
import sys
from pathlib import Path
from typing import IO, Any

import numpy as np


def send(stream: IO[bytes], **arrays: Any) -> None:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    stream.write(struct.pack(">Q", buffer.tell()) + buffer.getvalue())
    stream.flush()


def receive(stream: IO[bytes]) -> dict[str, np.ndarray]:
    """Raises `EOFError` where the other side is gone."""
    head = stream.read(8)
    if len(head) < 8:
        raise EOFError
    data = stream.read(struct.unpack(">Q", head)[0])
    with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
        return {name: arrays[name] for name in arrays.files}


def import_torchvision() -> None:
    """torchvision refuses to load beside a torch that its compiled operators do not fit (a CPU build, say).

    groundingdino-py imports its `nms` and never calls it, so that declaring the operators is enough.
    """
    import torch

    try:
        import torchvision
    except RuntimeError:
        library = torch.library.Library("torchvision", "FRAGMENT")
        for name in ("nms", "qnms"):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
            del sys.modules[name]
        import torchvision  # noqa: F401

        import_torchvision.library = library  # type: ignore[attr-defined]  # it goes when nobody holds it


def load(folder: Path, device: str) -> Any:
    """The model of the folder's .pth, by the folder's .py configuration."""
    import torch

    import_torchvision()
    from groundingdino.models import build_model
    from groundingdino.util.misc import clean_state_dict
    from groundingdino.util.slconfig import SLConfig

    (configuration,), (weights,) = sorted(folder.glob("*.py")), sorted(folder.glob("*.pth"))
    arguments = SLConfig.fromfile(str(configuration))
    arguments.device = device
    if (folder / "text_encoder").is_dir():
        arguments.text_encoder_type = str(folder / "text_encoder")
    model = build_model(arguments)
    state = clean_state_dict(torch.load(weights, map_location="cpu", weights_only=True)["model"])
    missing, _ = model.load_state_dict(state, strict=False)
    # The first follows from the window's size, the second is never used.
    missing = [name for name in missing if not name.endswith("relative_position_index") and ".pooler." not in name]
    if missing:
        raise ValueError(f"{weights.name} lacks {len(missing)} tensors, {missing[0]} first")
    model.text_encoder_type = arguments.text_encoder_type
    return model.to(device).eval()


def detect(model: Any, request: dict[str, np.ndarray], device: str) -> dict[str, np.ndarray]:
    import torch
    from groundingdino.util.misc import NestedTensor
    from transformers import BatchEncoding

    ids_BL = torch.from_numpy(request["input_ids"])
    tokens = {
        "input_ids": ids_BL,
        "token_type_ids": torch.zeros_like(ids_BL),
        "attention_mask": torch.from_numpy(request["attention_mask"]),
    }
    model.tokenizer = Tokens(BatchEncoding(tokens), model.tokenizer)
    pixels = torch.from_numpy(request["pixel_values"]).to(device)
    padding = ~torch.from_numpy(request["pixel_mask"]).bool().to(device)
    with torch.inference_mode():
        outputs = model(NestedTensor(pixels, padding), captions=[""] * len(ids_BL))
    return {"logits": outputs["pred_logits"].cpu().numpy(), "pred_boxes": outputs["pred_boxes"].cpu().numpy()}


class Tokens:
    """In the place of the model's tokenizer: who asked has tokenized, and knows where each phrase is."""

    def __init__(self, tokens: Any, tokenizer: Any) -> None:
        self._tokens = tokens
        self.tokenizer = getattr(tokenizer, "tokenizer", tokenizer)

    def __call__(self, captions: Any, **_: Any) -> Any:
        return self._tokens

    def __getattr__(self, name: str) -> Any:
        return getattr(self.tokenizer, name)


def main() -> None:
    folder, device = Path(sys.argv[1]), sys.argv[2]
    requests, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what libraries print must not get between the messages
    try:
        model = load(folder, device)
    except Exception as error:
        send(answers, error=np.array(f"{type(error).__name__}: {error}"))
        return
    send(answers, max_text_len=np.array(model.max_text_len), text_encoder=np.array(model.text_encoder_type))
    while True:
        try:
            request = receive(requests)
        except EOFError:
            return
        try:
            send(answers, **detect(model, request, device))
        except Exception as error:
            send(answers, error=np.array(f"{type(error).__name__}: {error}"))


if __name__ == "__main__":
    main()
