"""What training does not change about a pair: computed once, kept on disk under the digest of its content.

Shapes: N pairs, V augmented views, E image embedding, C/H/W latent, L tokens, D text width.
"""

import dataclasses
import hashlib
import json
import logging
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, islice
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import CLIPTokenizer

from atomic import whole_file
from umm_bench.errors import UserError
from umm_bench.images import open_image
from umm_bench.umm.pairs import Pair, subject_caption, target_image
from umm_bench.umm.pipeline import UMMPipeline
from umm_bench.umm.settings import EncodeConfig
from umm_bench.umm.tiue import span_positions
from umm_bench.weights import LOAD_ERRORS

logger = logging.getLogger(__name__)

FORMAT = 1  # goes up when the same pairs, models and settings come to be encoded otherwise
# pictures that the VAE takes at once: four of 512x512, whose activations then stay below a training step's
_PIXELS_AT_ONCE = 2**20


@dataclass(frozen=True)
class Batch:
    """Cached tensors of B pairs, on the CPU, in float32; `h_whole_BLD` are the uncut captions' hidden states, and
    `cut_B` says where a caption is another than that: both only where `EncodeConfig.whole_captions` asked for them.
    """

    mean_BCHW: Tensor
    std_BCHW: Tensor
    image_embeds_BVE: Tensor
    h_y_BLD: Tensor
    input_ids_BL: Tensor
    mask_BL: Tensor
    h_whole_BLD: Tensor | None = None
    cut_B: Tensor | None = None


@dataclass(frozen=True)
class Chunk:
    """Progress of `encode_pairs`: the `number`-th file, written or found, its pairs and those it left out."""

    number: int
    path: Path
    pairs: int
    skipped: Counter[str]
    reused: bool


def weights_digest(model: torch.nn.Module) -> str:
    """Changes with any weight of `model`, by name, shape and bytes; the device does not matter."""
    digest = hashlib.sha256()
    for name, tensor in model.state_dict().items():
        digest.update(f"{name} {tuple(tensor.shape)}".encode())
        digest.update(tensor.cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def tokenizer_digest(tokenizer: CLIPTokenizer) -> str:
    """Changes with anything that turns text into ids, the length limit included."""
    rules = json.loads(tokenizer.backend_tokenizer.to_str())
    del rules["padding"], rules["truncation"]  # of its last call
    text = json.dumps([rules, tokenizer.model_max_length, tokenizer.pad_token], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def encode_pairs(
    pipe: UMMPipeline, pairs: Iterable[Pair], cache: Path, config: EncodeConfig, part: int = 0, parts: int = 1
) -> Iterator[Chunk]:
    """Writes the pairs into `cache`, a chunk a file, and yields after each; what exists whole is not redone.

    A file's name is the digest of its pairs' content, of `config`, of the three encoders' weights, the tokenizer
    and the feature extractor. Of several processes each does every `parts`-th chunk, from its `part` on.
    """
    cache.mkdir(parents=True, exist_ok=True)
    encoders = [weights_digest(model) for model in (pipe.vae, pipe.text_encoder, pipe.image_encoder)]
    readers = [tokenizer_digest(pipe.tokenizer), pipe.feature_extractor.to_json_string()]
    made_with = [FORMAT, dataclasses.asdict(config), pipe.unet.config.sample_size, encoders, readers]
    settings = json.dumps(made_with, sort_keys=True)
    rows, number = iter(pairs), -1
    while chunk := list(islice(rows, config.chunk_size)):
        number += 1
        if number % parts != part:
            continue
        content = "".join(pair.digest for pair in chunk)
        path = cache / f"{hashlib.sha256((settings + content).encode()).hexdigest()[:32]}.safetensors"
        reused = _is_whole(path)
        if not reused:
            tensors, skipped = _encode_chunk(pipe, chunk, config)
            with whole_file(path) as unfinished:
                save_file(tensors, unfinished, metadata={"skipped": json.dumps(skipped)})
        with safe_open(path, framework="pt") as file:
            skipped = Counter(json.loads(file.metadata()["skipped"]))
        yield Chunk(number, path, len(chunk) - skipped.total(), skipped, reused)


def _is_whole(path: Path) -> bool:
    """Whether a file of the cache is there and can be read: a broken copy or a full disk leaves the start of one."""
    try:
        with safe_open(path, framework="pt") as file:
            return isinstance(json.loads(file.metadata()["skipped"]), dict)
    except LOAD_ERRORS:
        return False


@torch.no_grad()
def _encode_chunk(
    pipe: UMMPipeline, chunk: Sequence[Pair], config: EncodeConfig
) -> tuple[dict[str, Tensor], Counter[str]]:
    tokenizer, device = pipe.tokenizer, pipe.device
    length = tokenizer.model_max_length
    sample_size = pipe.unet.config.sample_size
    height, width = (sample_size, sample_size) if isinstance(sample_size, int) else sample_size
    size = (width * pipe.vae_scale_factor, height * pipe.vae_scale_factor)
    skipped: Counter[str] = Counter()
    captions, whole, masks, targets, views = [], [], [], [], []
    for pair in chunk:
        # the row's own seed: its views do not depend on its place in the data
        rng = np.random.default_rng(int(pair.digest[:16], 16))
        caption, start, end = subject_caption(pair, head_only=rng.random() < config.head_rate)
        try:
            positions = span_positions(tokenizer, caption, start, end)
        except UserError:
            skipped["phrase beyond the tokenizer's limit"] += 1
            continue
        try:
            target, crop = target_image(pair, size), open_image(pair.crop)
        except UserError as error:
            logger.debug("pair %s: %s", pair.id, error)
            skipped["unreadable image"] += 1
            continue
        captions.append(caption)
        whole.append(pair.caption)
        masks.append([position in positions for position in range(length)])
        targets.append(target)
        views += [config.augmentation.view(crop, rng) for _ in range(config.views)]
    if not captions:
        return {}, skipped
    input_ids, whole_ids = (
        tokenizer(texts, padding="max_length", max_length=length, truncation=True, return_tensors="pt").input_ids
        for texts in (captions, whole)
    )
    pixels = pipe.image_processor.preprocess(targets).to(device, pipe.vae.dtype)
    at_once = min(16, max(1, _PIXELS_AT_ONCE // (size[0] * size[1])))
    posteriors = [pipe.vae.encode(part).latent_dist for part in pixels.split(at_once)]
    text = [pipe.text_encoder(part.to(device))[0] for part in input_ids.split(64)]
    embeds = torch.cat([pipe.embed_images(views[i : i + 64]) for i in range(0, len(views), 64)])
    kept = getattr(torch, config.dtype)
    tensors = {
        "mean": torch.cat([posterior.mean for posterior in posteriors]).to(kept),
        "std": torch.cat([posterior.std for posterior in posteriors]).to(kept),
        "image_embeds": embeds.unflatten(0, (len(captions), config.views)).to(kept),
        "h_y": torch.cat(text).to(kept),
        "input_ids": input_ids.to(torch.int32),
        "mask": torch.tensor(masks),
    }
    if config.whole_captions:
        said = [pipe.text_encoder(part.to(device))[0] for part in whole_ids.split(64)]
        tensors |= {"h_whole": torch.cat(said).to(kept), "cut": (input_ids != whole_ids).any(1)}
    return {name: tensor.cpu().contiguous() for name, tensor in tensors.items()}, skipped


class EncodedPairs:
    """Random access to encoded pairs; the files are memory-mapped, not read."""

    def __init__(self, chunks: Sequence[Chunk]) -> None:
        """Raises UserError when no pair is left to train on."""
        self._chunks = [load_file(chunk.path) for chunk in chunks if chunk.pairs]
        self._ends = list(accumulate(len(chunk["mask"]) for chunk in self._chunks))
        self.digest = hashlib.sha256("".join(chunk.path.name for chunk in chunks).encode()).hexdigest()[:16]
        self.skipped = sum((chunk.skipped for chunk in chunks), Counter[str]())
        if not self._chunks:
            reasons = ", ".join(f"{count} {reason}" for reason, count in self.skipped.items()) or "none found"
            raise UserError(f"no pair is left to train on: {reasons}")

    @property
    def shapes(self) -> dict[str, torch.Size]:
        """Of one pair's tensors, as the files name them."""
        return {name: tensor.shape[1:] for name, tensor in self._chunks[0].items()}

    def __len__(self) -> int:
        return self._ends[-1]

    def batch(self, indices: Sequence[int]) -> Batch:
        """The pairs at `indices`, in that order."""
        chunks = [bisect_right(self._ends, i) for i in indices]

        def stack(name: str) -> Tensor:
            # rows counted from the end of their chunk
            return torch.stack([self._chunks[c][name][i - self._ends[c]] for i, c in zip(indices, chunks, strict=True)])

        return Batch(
            mean_BCHW=stack("mean").float(),
            std_BCHW=stack("std").float(),
            image_embeds_BVE=stack("image_embeds").float(),
            h_y_BLD=stack("h_y").float(),
            input_ids_BL=stack("input_ids").long(),
            mask_BL=stack("mask"),
            h_whole_BLD=stack("h_whole").float() if "h_whole" in self.shapes else None,
            cut_B=stack("cut") if "cut" in self.shapes else None,
        )
