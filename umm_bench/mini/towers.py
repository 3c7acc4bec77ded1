"""The mini family's image towers: a ResNet inside transformers' dual encoder, and alone with its projection.

Importing this module registers it with transformers.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, PreTrainedModel, ResNetConfig, ResNetModel
from transformers.models.clip.modeling_clip import CLIPVisionModelOutput


class FlatResNetConfig(ResNetConfig):
    """A `ResNetConfig` that says how wide its features are, as `VisionTextDualEncoderModel` asks, and its embedding."""

    model_type = "flat-resnet"

    projection_dim: int = 512

    @property
    def hidden_size(self) -> int:
        return self.hidden_sizes[-1]


class FlatResNetModel(ResNetModel):
    """A `ResNetModel` whose pooled features are [B, C]; transformers' own leaves them [B, C, 1, 1]."""

    config_class = FlatResNetConfig

    def forward(self, pixel_values: Any, output_hidden_states: bool | None = None, **options: Any) -> Any:
        output = super().forward(pixel_values, output_hidden_states, return_dict=True)
        output.pooler_output = output.pooler_output.flatten(1)
        return output


class FlatResNetModelWithProjection(PreTrainedModel):  # diffusers looks for that base in this very module to load it
    """What `CLIPVisionModelWithProjection` is to a CLIP: image embeddings [B, projection_dim] from the tower alone.

    Its weights have the names that the dual encoder gives them.
    """

    config_class = FlatResNetConfig
    main_input_name = "pixel_values"
    base_model_prefix = "vision_model"

    def __init__(self, config: FlatResNetConfig) -> None:
        super().__init__(config)
        self.vision_model = FlatResNetModel._from_config(config)
        self.visual_projection = nn.Linear(config.hidden_size, config.projection_dim, bias=False)
        self.post_init()

    def forward(self, pixel_values: Tensor, output_hidden_states: bool | None = None) -> CLIPVisionModelOutput:
        """Pixels [B, 3, H, W] to `image_embeds` [B, projection_dim]; hidden states are maps [B, C, h, w]."""
        output = self.vision_model(pixel_values, output_hidden_states)
        return CLIPVisionModelOutput(
            image_embeds=self.visual_projection(output.pooler_output),
            last_hidden_state=output.last_hidden_state,
            hidden_states=output.hidden_states,
        )


AutoConfig.register(FlatResNetConfig.model_type, FlatResNetConfig, exist_ok=True)
AutoModel.register(FlatResNetConfig, FlatResNetModel, exist_ok=True)
