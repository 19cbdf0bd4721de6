"""One transformer layer: attention, then one MLP or a mixture of experts."""

from typing import TypeAlias

import torch
from torch import nn
from torch.nn import functional as F

from unveil.config.tree import BackboneConfig
from unveil.model.backbone.experts import Experts
from unveil.model.backbone.router import Router
from unveil.model.layers.attend import attend
from unveil.model.layers.norm import RMSNorm
from unveil.model.layers.rotary import rotate
from unveil.shapes import Bool, Float, Int, Tensor

KeysValues: TypeAlias = tuple[Float[Tensor, "B KV P head"], Float[Tensor, "B KV P head"]]
Tables: TypeAlias = tuple[Float[Tensor, "#B 1 L half"], Float[Tensor, "#B 1 L half"]]
Load: TypeAlias = Int[Tensor, " E"]


class Attention(nn.Module):
    """Grouped-query attention with normalised queries and keys and partly rotary heads (spec backbone 3.4)."""

    def __init__(self, config: BackboneConfig) -> None:
        super().__init__()
        self.heads, self.kv_heads, self.head_dim = config.heads, config.kv_heads, config.head_dim
        everyone = config.heads + 2 * config.kv_heads
        self.query_key_value = nn.Linear(config.width, everyone * config.head_dim, bias=False)
        self.query_layernorm = RMSNorm(config.head_dim, config.norm_eps)
        self.key_layernorm = RMSNorm(config.head_dim, config.norm_eps)
        self.dense = nn.Linear(config.heads * config.head_dim, config.width, bias=False)

    def forward(
        self, x: Float[Tensor, "B L D"], tables: Tables, visible: Bool[Tensor, "#B 1 L S"], past: KeysValues | None
    ) -> tuple[Float[Tensor, "B L D"], KeysValues]:
        """The attended states, and the keys and values of the prefix and of this call together."""
        heads = self.query_key_value(x).unflatten(-1, (-1, self.head_dim)).transpose(1, 2)  # (B, H + 2 KV, L, head)
        q, k, v = heads.split([self.heads, self.kv_heads, self.kv_heads], dim=1)
        q = rotate(self.query_layernorm(q), *tables)
        k = rotate(self.key_layernorm(k), *tables)
        if past is not None:
            k, v = torch.cat((past[0], k), dim=2), torch.cat((past[1], v), dim=2)  # (B, KV, P + L, head)
        mixed = attend(q, k, v, visible).transpose(1, 2).flatten(-2)  # (B, L, H * head)
        return self.dense(mixed), (k, v)


class MLP(nn.Module):
    """One gated MLP that every token visits: in the dense layers, and as the shared expert of the others."""

    def __init__(self, width: int, mlp_width: int) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(width, mlp_width, bias=False)
        self.up_proj = nn.Linear(width, mlp_width, bias=False)
        self.down_proj = nn.Linear(mlp_width, width, bias=False)

    def forward(self, x: Float[Tensor, "*batch D"]) -> Float[Tensor, "*batch D"]:
        """down(silu(gate(x)) * up(x))."""
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class MixtureOfExperts(nn.Module):
    """A few routed experts per token, plus a shared one that every token visits unscaled (spec backbone 3.6)."""

    def __init__(self, config: BackboneConfig) -> None:
        super().__init__()
        self.gate = Router(config)
        self.experts = Experts(config.experts, config.width, config.expert_width)
        self.shared_experts = MLP(config.width, config.expert_width * config.shared_experts)

    def forward(self, x: Float[Tensor, "*batch D"]) -> tuple[Float[Tensor, "*batch D"], Load]:
        """The mixed states, and how many tokens each expert received."""
        tokens = x.reshape(-1, x.shape[-1])  # (N, D)
        routing = self.gate(tokens)
        routed = self.experts(tokens, routing.chosen, routing.weights)
        return routed.view_as(x) + self.shared_experts(x), routing.load()


class Layer(nn.Module):
    """Two residual steps: x + attention(norm(x)), then + feed-forward(norm(.)). Keeps the official names."""

    def __init__(self, config: BackboneConfig, dense: bool) -> None:
        super().__init__()
        self.attention = Attention(config)
        self.mlp: MLP | MixtureOfExperts = MLP(config.width, config.mlp_width) if dense else MixtureOfExperts(config)
        self.input_layernorm = RMSNorm(config.width, config.norm_eps)
        self.post_attention_layernorm = RMSNorm(config.width, config.norm_eps)

    def forward(
        self, x: Float[Tensor, "B L D"], tables: Tables, visible: Bool[Tensor, "#B 1 L S"], past: KeysValues | None
    ) -> tuple[Float[Tensor, "B L D"], KeysValues, Load | None]:
        """The new states, the keys and values so far, and the expert load (None in a dense layer)."""
        attended, present = self.attention(self.input_layernorm(x), tables, visible, past)
        x = x + attended
        normed = self.post_attention_layernorm(x)
        if isinstance(self.mlp, MLP):
            return x + self.mlp(normed), present, None
        mixed, load = self.mlp(normed)
        return x + mixed, present, load
