"""A ResNet that transformers' dual encoder takes as its image tower. Importing this module registers it."""

from __future__ import annotations

from typing import Any

from transformers import AutoConfig, AutoModel, ResNetConfig, ResNetModel


class FlatResNetConfig(ResNetConfig):
    """A `ResNetConfig` that says how wide its features are, as `VisionTextDualEncoderModel` asks."""

    model_type = "flat-resnet"

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


AutoConfig.register(FlatResNetConfig.model_type, FlatResNetConfig, exist_ok=True)
AutoModel.register(FlatResNetConfig, FlatResNetModel, exist_ok=True)
