"""ControlNet beside the subjects: a picture of edges, depth or pose that every branch follows.

Shapes: B images, R rows of one UNet call, C channels, H height, W width, L tokens, D text width.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from diffusers.models.controlnets.multicontrolnet import MultiControlNetModel
from torch import Tensor

from umm_bench.errors import UserError
from umm_bench.images import ImageInput, as_list, open_image


@dataclass(frozen=True)
class Control:
    """One picture [B, 3, H, W] for each ControlNet, and how strongly and when they count."""

    pictures: list[Tensor]
    scale: float | list[float]
    interval: tuple[float, float]

    def residuals(
        self, controlnet: Any, sample_RCHW: Tensor, t: Tensor, h_RLD: Tensor, progress: float, num_steps: int
    ) -> dict[str, Any]:
        """What the UNet adds to its skips and its middle; nothing outside the interval.

        Raises UserError when there are not as many pictures, or scales, as ControlNets.
        """
        several = isinstance(controlnet, MultiControlNetModel)
        number = len(controlnet.nets) if several else 1
        scales = self.scale if isinstance(self.scale, list) else [self.scale] * number
        if not len(self.pictures) == len(scales) == number:
            raise UserError(
                f"{number} ControlNets need a control_image and a scale each; "
                f"there are {len(self.pictures)} images and {len(scales)} scales"
            )
        start, stop = self.interval
        if progress < start or progress + 1 / num_steps > stop + 1e-9:
            return {}
        pictures = [picture.repeat(len(h_RLD) // len(picture), 1, 1, 1) for picture in self.pictures]
        down, mid = controlnet(
            sample_RCHW,
            t,
            encoder_hidden_states=h_RLD,
            controlnet_cond=pictures if several else pictures[0],
            conditioning_scale=scales if several else scales[0],
            return_dict=False,
        )
        return {"down_block_additional_residuals": down, "mid_block_additional_residual": mid}


def picture_control(
    pipe: Any,
    control_image: ImageInput | Sequence[ImageInput] | None,
    scale: float | list[float],
    interval: tuple[float, float],
    num_images: int,
    size: tuple[int, int],
) -> Control | None:
    """The pipeline's ControlNet with its pictures resized to `size` (height, width); None without both.

    Raises UserError for one without the other.
    """
    if (control_image is None) != (pipe.controlnet is None):
        missing = "control_image" if control_image is None else "controlnet"
        raise UserError(f"a ControlNet and a control_image go together; there is no {missing}")
    if control_image is None:
        return None
    height, width = size
    pictures = [
        pipe.control_image_processor.preprocess([open_image(picture)], height=height, width=width)
        .to(pipe._execution_device, pipe.controlnet.dtype)
        .repeat(num_images, 1, 1, 1)
        for picture in as_list(control_image)
    ]
    return Control(pictures, scale, interval)
