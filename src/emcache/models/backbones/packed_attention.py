"""Attention whose packed projection is a plain linear layer.

``nn.MultiheadAttention`` keeps the weights of its query, key and value projection as bare
parameters, which PEFT can adapt only by merging the adapter into them and out again at every
forward pass: that moves the frozen weights by rounding. Held as linear layers they are adapted like
any others, and never touched.
"""

from __future__ import annotations

from typing import Any

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from emcache.errors import BackboneError


class PackedAttention(nn.Module):
    """Self-attention with the parameters of an ``nn.MultiheadAttention``, which it takes over."""

    def __init__(self, attention: nn.MultiheadAttention) -> None:
        super().__init__()
        if attention.in_proj_weight is None or attention.dropout or not attention.batch_first:
            raise BackboneError(
                "an attention layer has separate projections, dropout or another layout; expected "
                "a packed one without dropout, batch first: choose another backbone."
            )
        dim = attention.embed_dim
        self.heads = attention.num_heads
        # Made without memory, since the parameters are the old ones.
        self.qkv = nn.Linear(dim, 3 * dim, device="meta")
        self.proj = nn.Linear(dim, dim, device="meta")
        self.qkv.weight, self.qkv.bias = attention.in_proj_weight, attention.in_proj_bias
        self.proj.weight, self.proj.bias = attention.out_proj.weight, attention.out_proj.bias

    def forward(
        self, query: Float[Tensor, "batch token channel"], *_others: Any, **_options: Any
    ) -> tuple[Float[Tensor, "batch token channel"], None]:
        """Attend; key and value are the query, and no weights are returned."""
        shape = (*query.shape[:2], 3, self.heads, -1)
        q, k, v = self.qkv(query).reshape(shape).permute(2, 0, 3, 1, 4)
        attended = functional.scaled_dot_product_attention(q, k, v)
        return self.proj(attended.transpose(1, 2).flatten(2)), None
