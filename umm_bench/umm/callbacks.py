"""What a callback at the end of a step may change of the hidden states.

Shapes: R rows of one UNet call (branches times images), r rows that a callback returns, L tokens, D text width.
"""

import torch
from torch import Tensor

from umm_bench.errors import UserError
from umm_bench.umm.guidance import Branch


def take_rows(
    hidden_states: dict[Branch, Tensor], branches: tuple[Branch, ...], h_RLD: Tensor, changed_rLD: Tensor
) -> None:
    """What a callback made of a step's rows goes on as theirs.

    Fewer rows are the last ones: a callback that turns the guidance off, as diffusers' SDCFGCutoffCallback, cuts the
    unconditional rows away. Raises UserError for rows that cannot be these.
    """
    rows, most = len(changed_rLD), len(h_RLD)
    if not 0 < rows <= most or (rows < most and changed_rLD.shape[1:] != h_RLD.shape[1:]):
        raise UserError(
            f"the callback returned hidden states {tuple(changed_rLD.shape)} where the step had {tuple(h_RLD.shape)}"
        )
    whole_RLD = changed_rLD if rows == most else torch.cat([h_RLD[: most - rows], changed_rLD])
    hidden_states |= dict(zip(branches, whole_RLD.chunk(len(branches)), strict=True))
