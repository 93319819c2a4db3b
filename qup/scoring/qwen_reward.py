"""Qwen2.5-Math-RM: the body of a Qwen2 model and a score of two layers on each token.

The published checkpoint (Qwen/Qwen2.5-Math-RM-72B) ships code of its own, written for a transformers that is gone. Its
weights need none: they are named `model.*`, `score.0.*` and `score.2.*`, as here.
"""

from __future__ import annotations

import torch
from torch import nn
from transformers import Qwen2Config, Qwen2Model, Qwen2PreTrainedModel


class QwenRewardModel(Qwen2PreTrainedModel):  # type: ignore[misc, unused-ignore]
    """Loaded by `from_pretrained`, like any model of transformers."""

    def __init__(self, config: Qwen2Config) -> None:
        super().__init__(config)
        self.model = Qwen2Model(config)
        self.score = nn.Sequential(nn.Linear(config.hidden_size, config.hidden_size), nn.ReLU(), nn.Linear(config.hidden_size, 1))
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        return self.model.embed_tokens  # type: ignore[no-any-return, unused-ignore]

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor, ends: torch.Tensor) -> torch.Tensor:
        """B × T ids, right-padded; the B scores at the positions `ends`."""
        hidden_BTD = self.model(input_ids=input_ids, attention_mask=attention_mask, use_cache=False).last_hidden_state
        rows = torch.arange(len(ends), device=hidden_BTD.device)
        return self.score(hidden_BTD[rows, ends.to(hidden_BTD.device)])[:, 0]  # type: ignore[no-any-return]
