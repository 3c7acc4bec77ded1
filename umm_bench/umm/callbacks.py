"""What a callback at the end of a step may change of the hidden states.

Shapes: R rows of one UNet call (branches times images), r rows that a callback returns, L tokens, D text width.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from umm_bench.errors import UserError
from umm_bench.umm.guidance import Branch


def take_rows(
    hidden_states: dict[Branch, Tensor], branches: tuple[Branch, ...], h_RLD: Tensor, changed: Mapping[str, Tensor]
) -> None:
    """What a callback made of a step's rows goes on as theirs, in `hidden_states`.

    Fewer rows are the last ones: a callback that turns the guidance off, as diffusers' SDCFGCutoffCallback, cuts the
    unconditional rows away. Raises UserError for rows that cannot be these.
    """
    for name in ("prompt_embeds", "encoder_hidden_states"):
        h_rLD = changed.get(name, h_RLD)
        if h_rLD is h_RLD:
            continue
        rows, most = len(h_rLD), len(h_RLD)
        if not 0 < rows <= most or (rows < most and h_rLD.shape[1:] != h_RLD.shape[1:]):
            given, returned = tuple(h_RLD.shape), tuple(h_rLD.shape)
            raise UserError(f"the callback returned hidden states {returned} where the step had {given}")
        whole_RLD = h_rLD if rows == most else torch.cat([h_RLD[: most - rows], h_rLD])
        hidden_states |= dict(zip(branches, whole_RLD.chunk(len(branches)), strict=True))
