"""The backbone: token ids and a visibility mask in, logits over text tokens and image codes out."""

from collections.abc import Sequence
from typing import Self, TypeAlias

import torch
from torch import nn

from unveil.config.tree import BackboneConfig, VocabConfig
from unveil.model.backbone.layer import KeysValues, Layer
from unveil.model.backbone.packed import Segment, by_tile, hidden_packed, rotary_of
from unveil.model.layers.norm import RMSNorm
from unveil.shapes import Bool, Float, Int, Tensor

Past: TypeAlias = tuple[KeysValues, ...]
"""Keys (after norm and rotation) and values of everything before a call, one pair per layer."""


class Trunk(nn.Module):
    """Embedding, layers and final norm: the part the official checkpoint calls `model`."""

    def __init__(self, config: BackboneConfig, vocab: VocabConfig) -> None:
        super().__init__()
        self.word_embeddings = nn.Embedding(vocab.size, config.width, padding_idx=vocab.pad)
        self.layers = nn.ModuleList(Layer(config, dense=i < config.dense_layers) for i in range(config.layers))
        self.norm = RMSNorm(config.width, config.norm_eps)


class Backbone(nn.Module):
    """The mixture-of-experts transformer (paper section 3; spec backbone 3).

    It has no opinion on who may look where: every call brings its mask. Parameter names are the official ones,
    with the experts of a layer stacked into one tensor. The embedding row of `vocab.pad` never receives a
    gradient, as in the official model (spec backbone 10.1).
    """

    def __init__(self, config: BackboneConfig, vocab: VocabConfig) -> None:
        super().__init__()
        self.config = config
        self.model = Trunk(config, vocab)
        self.lm_head = nn.Linear(config.width, vocab.size, bias=False)

    @torch.no_grad()
    def initialize(self, generator: torch.Generator) -> Self:
        """Fresh weights: normal(0, initializer_range), norms one, router bias zero (spec backbone 3.8)."""
        for parameter in self.parameters():
            if parameter.ndim == 1:
                parameter.fill_(1.0)
            else:
                parameter.normal_(0.0, self.config.initializer_range, generator=generator)
        for buffer in self.buffers():
            buffer.zero_()
        return self

    def forward(
        self,
        ids: Int[Tensor, "B L"],
        positions: Int[Tensor, "#B L"] | Int[Tensor, " L"],
        visible: Bool[Tensor, "*#B L S"],
        past: Past | None = None,
        at: Int[Tensor, "N 2"] | slice | None = None,
        *,
        loads: list[Int[Tensor, " E"]] | None = None,
        trail: list[Float[Tensor, "B L D"]] | None = None,
    ) -> Float[Tensor, "B L V"] | Float[Tensor, "N V"]:
        """Logits in float32; the arguments are those of `hidden`.

        `at` chooses where the head runs: a slice of positions (one block, when sampling) or (row, position) pairs
        (the masked positions, when training). The head is the widest product in the model, so it should not run
        where nobody reads it.
        """
        states, _ = self.hidden(ids, positions, visible, past, loads=loads, trail=trail)
        if isinstance(at, slice):
            states = states[:, at]  # (B, n, D)
        elif at is not None:
            flat = at[:, 0] * states.shape[1] + at[:, 1]
            states = states.flatten(0, 1).index_select(0, flat)  # (N, D)
        return self.logits(states)

    def hidden(
        self,
        tokens: Int[Tensor, "B L"] | Float[Tensor, "B L D"],
        positions: Int[Tensor, "#B L"] | Int[Tensor, " L"],
        visible: Bool[Tensor, "*#B L S"],
        past: Past | None = None,
        *,
        loads: list[Int[Tensor, " E"]] | None = None,
        trail: list[Float[Tensor, "B L D"]] | None = None,
    ) -> tuple[Float[Tensor, "B L D"], Past]:
        """Final normed states, and the keys and values of prefix plus this call.

        tokens: ids, or their embeddings directly. positions: one line for all rows, or one line per row.
        visible: True = may look; (L, S), (B, L, S) or (B, 1, L, S), where S counts the prefix first, then L.
        loads: when given, receives one (E) tensor per mixture layer: tokens that each expert received.
        trail: when given, receives the states after each layer.
        """
        x = tokens if tokens.is_floating_point() else self.embedded(tokens)
        tables = rotary_of(self, torch.atleast_2d(positions), x.dtype)
        visible = visible[None, None] if visible.ndim == 2 else visible[:, None] if visible.ndim == 3 else visible
        present: list[KeysValues] = []
        for i, layer in enumerate(self.model.layers):
            x, pair, load = layer(x, tables, visible, past[i] if past is not None else None)
            present.append(pair)
            if trail is not None:
                trail.append(x)
            if loads is not None and load is not None:
                loads.append(load)
        return self.model.norm(x), tuple(present)

    def allocate(self, branches: int, length: int) -> Float[Tensor, "R layers 2 KV L head"]:
        """Room for the keys and values of `length` positions in every branch, for `packed` to fill."""
        config, weight = self.config, self.model.word_embeddings.weight
        shape = (branches, config.layers, 2, config.kv_heads, length, config.head_dim)
        return torch.zeros(shape, dtype=weight.dtype, device=weight.device)

    def packed(
        self,
        tokens: Int[Tensor, " N"],
        positions: Int[Tensor, " N"],
        segments: Sequence[Segment],
        tile: int | None = None,
    ) -> Float[Tensor, "M D"]:
        """As `hidden` under the block-causal mask, for many lines of any length at once; see `hidden_packed`."""
        return hidden_packed(self, tokens, positions, segments, tile)

    def logits(self, states: Float[Tensor, "*batch D"], tile: int | None = None) -> Float[Tensor, "*batch V"]:
        """Scores over the vocabulary, cast to float32 after the product (spec backbone 3.1); `tile` as in `packed`."""
        (scores,) = by_tile(lambda rows: (self.lm_head(rows),), tile, states)
        return scores.to(torch.promote_types(scores.dtype, torch.float32))

    def embedded(self, ids: Int[Tensor, "*batch"]) -> Float[Tensor, "*batch D"]:
        """Looked up where the table lies: on the host it need not take memory of the device, and few rows travel."""
        table = self.model.word_embeddings
        return table(ids.to(table.weight.device)).to(ids.device)
