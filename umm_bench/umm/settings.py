"""How a TIUE is made, trained and shown: what a command line says, read without loading torch."""

from dataclasses import dataclass, field
from typing import Literal, get_args

from umm_bench.errors import UserError
from umm_bench.umm.augment import Augmentation

Placement = Literal["replace", "add", "before"]
"""What pseudo words do to the subject's own: take their place, are added to them, or stand before them."""
PLACEMENTS: tuple[Placement, ...] = get_args(Placement)


@dataclass(frozen=True)
class TrainConfig:
    """One training run.

    A step sees `batch_size` rows in each of `gradient_accumulation_steps` passes of every process.
    `min_snr_gamma` 0 weighs all timesteps alike (2303.09556); `drop_rate` is the part of the rows whose image
    embedding is zeroed, which teaches the word for "no image" (the UNet is frozen, so dropping the text as
    well would train nothing). `mixed_precision` "bf16" keeps the frozen models in bfloat16 and the MLP in
    float32; "no" leaves the pipeline as it is. `placement` is the TIUE's.
    `distill` in [0, 1] is how much of the target is, where a caption was cut to the subject's noun, what the generator
    itself predicts given the whole caption: the picture is to say what the words did. It has none of the noise of a
    single picture's target, and never more than the words could say; it costs a forward pass. The first
    `summary_steps` do without the UNet's layers: they bring the summary of the text that it adds to its time embedding
    to what it is of the whole caption, and take a fraction of a step's time.
    """

    steps: int = 2000
    batch_size: int = 16
    gradient_accumulation_steps: int = 1
    learning_rate: float = 3e-4
    weight_decay: float = 1e-2
    warmup_steps: int = 100
    gradient_clip: float = 1.0
    min_snr_gamma: float = 5.0
    drop_rate: float = 0.05
    ema_decay: float = 0.999
    mixed_precision: str = "no"
    seed: int = 0
    num_pseudo_words: int = 1
    hidden_dim: int = 1024
    depth: int = 2
    placement: Placement = "replace"
    distill: float = 0.0
    summary_steps: int = 0

    def rows_per_step(self, processes: int = 1) -> int:
        return self.batch_size * self.gradient_accumulation_steps * processes

    def learning_rate_at(self, step: int) -> float:
        """A linear rise over `warmup_steps`, then constant."""
        return self.learning_rate * min(1.0, (step + 1) / max(1, self.warmup_steps))


@dataclass(frozen=True)
class EncodeConfig:
    """How pairs become tensors. `views` references of each pair are drawn with `augmentation`; `head_rate` of
    the captions name the subject by its noun alone; `dtype` is that of the kept tensors ("float32" repeats
    uncached training bit by bit, "float16" takes half the disk). `whole_captions` keeps what the uncut caption says as
    well, for `TrainConfig.distill` and `summary_steps`.
    """

    views: int = 4
    head_rate: float = 0.8
    augmentation: Augmentation = field(default_factory=Augmentation)
    dtype: str = "float16"
    chunk_size: int = 128
    whole_captions: bool = False


@dataclass(frozen=True)
class ValidationConfig:
    """`prompts` are templates with {subject}; `subjects` is how many references are shown."""

    prompts: tuple[str, ...] = ("a {subject}", "a {subject} on a beach", "a {subject} in the snow")
    subjects: int = 4
    alpha: float = 0.7
    num_inference_steps: int = 20
    guidance_scale: float = 5.0
    seed: int = 0

    def __post_init__(self) -> None:
        for prompt in self.prompts:
            if prompt.count("{subject}") != 1:
                raise UserError(f'the validation prompt "{prompt}" must contain {{subject}} once')
