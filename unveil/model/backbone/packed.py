"""One forward pass over many lines at once: tokens packed without padding, keys and values written where they stay.

A line is one guidance branch of one request; a segment is a block of it, or the part of a block that is not padding.
A segment sees its line from the first real position to its own end. That is the block-causal mask without any mask:

    line a, cached 0 1     computes 2 3     2 sees 0 1 2      3 sees 0 1 2 3
    line b, cached -       computes 0       0 sees itself     (pads before its first real token are not there)

so lines of any length and progress share every matrix product, and each attends at its true length.
"""

import itertools
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, NamedTuple, cast

import torch
from torch.nn import functional as F

from unveil.model.backbone.experts import apply_experts_sampling, apply_experts_tiled
from unveil.model.backbone.layer import MLP, Layer, MixtureOfExperts
from unveil.model.layers.norm import RMSNorm
from unveil.model.layers.rotary import rotary_tables, rotate
from unveil.shapes import Float, Int, Tensor

if TYPE_CHECKING:
    from unveil.model.backbone.backbone import Backbone

Rows = tuple[Float[Tensor, "N ..."], ...]


class Segment(NamedTuple):
    """Positions `start` to `end` of a line, which see it from `first` on; states are asked for of `wanted` alone."""

    cache: Float[Tensor, "layers 2 KV L head"]
    first: int  # the first real position: what lies before it is padding
    start: int
    end: int
    wanted: Int[Tensor, " n"]  # counted from `start`, ascending


@torch.inference_mode()
def hidden_packed(
    backbone: "Backbone",
    tokens: Int[Tensor, " N"],
    positions: Int[Tensor, " N"],
    segments: Sequence[Segment],
    tile: int | None = None,
) -> Float[Tensor, "M D"]:
    """Final normed states of the wanted tokens in order; keys and values of all tokens go into their caches.

    The segments' tokens follow one another in `tokens`, earlier blocks of a line first. The last layer works on the
    wanted rows alone: of the others nothing but keys and values is ever used.
    tile: every matrix product has this many rows, filled up with zeros. A row's numbers then do not depend on how many
    others it shares the pass with, bit for bit; without, kernels differ with the size of the batch.
    """
    layers = cast(Sequence[Layer], backbone.model.layers)
    x = backbone.embedded(tokens)  # (N, D)
    cos, sin = rotary_of(backbone, positions, x.dtype)
    sizes, wanted = [segment.end - segment.start for segment in segments], wanted_rows(segments, x.device)
    for i, layer in enumerate(layers):
        q, k, v = by_tile(partial(queries_keys_values, layer), tile, x, cos, sin)
        write_cache(segments, i, k, v)
        if i == len(layers) - 1:
            x, q, sizes = x.index_select(0, wanted), q.index_select(0, wanted), [len(s.wanted) for s in segments]
        queries = zip(q.split(sizes), segments, strict=True)
        mixed = torch.cat([attend_line(rows, segment, i) for rows, segment in queries if len(rows)])
        x = rest_of_layer(layer, x, mixed, tile)
    return by_tile(lambda rows: (backbone.model.norm(rows),), tile, x)[0]


def wanted_rows(segments: Sequence[Segment], device: torch.device) -> Int[Tensor, " M"]:
    """The rows of the pass that are asked for. To be called before there is work that the copy would wait for."""
    starts = itertools.accumulate((segment.end - segment.start for segment in segments), initial=0)
    asked = torch.cat([start + segment.wanted for start, segment in zip(starts, segments, strict=False)])
    return asked.to(device)


def by_tile(function: Callable[..., Rows], tile: int | None, *rows: Float[Tensor, "N ..."]) -> Rows:
    """The function of rows, computed `tile` rows at a time, the last ones filled up with zeros."""
    if tile is None:
        return function(*rows)
    count = len(rows[0])
    missing = -count % tile
    if missing:
        rows = tuple(torch.cat((r, r.new_zeros(missing, *r.shape[1:]))) for r in rows)
    parts = [function(*tiles) for tiles in zip(*(r.split(tile) for r in rows), strict=True)]
    return tuple(torch.cat(outputs)[:count] for outputs in zip(*parts, strict=True))


def rotary_of(
    backbone: "Backbone", positions: Int[Tensor, "*batch N"], dtype: torch.dtype
) -> tuple[Float[Tensor, "*batch half"], Float[Tensor, "*batch half"]]:
    """Cosines and sines of (N) positions as (N, 1, half), of (B, L) as (B, 1, L, half): the 1 stands for all heads."""
    config = backbone.config
    dims = int(config.head_dim * config.rotary_fraction)
    cos, sin = rotary_tables(positions, dims, config.rope_theta, dtype)
    return cos[:, None], sin[:, None]


def queries_keys_values(
    layer: Layer, x: Float[Tensor, "N D"], cos: Float[Tensor, "N 1 half"], sin: Float[Tensor, "N 1 half"]
) -> Rows:
    """Queries, keys and values of the rows; norm and rotation run once for queries and keys together."""
    attention = layer.attention
    heads = attention.query_key_value(layer.input_layernorm(x)).unflatten(-1, (-1, attention.head_dim))
    both, v = heads.split([attention.heads + attention.kv_heads, attention.kv_heads], dim=1)  # (N, H + KV, head)
    both = rotate(_norm_heads(attention.query_layernorm, attention.key_layernorm, both, attention.heads), cos, sin)
    q, k = both.split([attention.heads, attention.kv_heads], dim=1)
    return q, k, v


def _norm_heads(
    of_queries: RMSNorm, of_keys: RMSNorm, x: Float[Tensor, "N G head"], queries: int
) -> Float[Tensor, "N G head"]:
    """Each head's norm: the first `queries` heads by one weight, the others by the other."""
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    normed = F.rms_norm(wide, (wide.shape[-1],), eps=of_queries.eps).to(x.dtype)
    weight = torch.cat(
        (of_queries.weight.expand(queries, -1), of_keys.weight.expand(x.shape[1] - queries, -1))
    )  # (G, head)
    return normed * weight


def write_cache(
    segments: Sequence[Segment], layer: int, k: Float[Tensor, "N KV head"], v: Float[Tensor, "N KV head"]
) -> None:
    """Write the rows' keys and values where they stay."""
    sizes = [segment.end - segment.start for segment in segments]
    for segment, keys, values in zip(segments, k.split(sizes), v.split(sizes), strict=True):
        segment.cache[layer, 0, :, segment.start : segment.end] = keys.transpose(0, 1)
        segment.cache[layer, 1, :, segment.start : segment.end] = values.transpose(0, 1)


def attend_line(q: Float[Tensor, "n H head"], segment: Segment, layer: int) -> Float[Tensor, "n H*head"]:
    """The queries of a segment look at its line: all that is there up to its own end, without a mask."""
    keys, values = segment.cache[layer, :, :, segment.first : segment.end]  # (KV, S, head) each
    mixed = F.scaled_dot_product_attention(
        q.transpose(0, 1)[None], keys[None], values[None], enable_gqa=q.shape[1] != keys.shape[0]
    )
    return mixed[0].transpose(0, 1).flatten(-2)


def rest_of_layer(
    layer: Layer, x: Float[Tensor, "N D"], mixed: Float[Tensor, "N H*head"], tile: int | None = None
) -> Float[Tensor, "N D"]:
    """The rest of a layer: what attention gives, then the feed-forward part."""
    x, normed = by_tile(lambda a, b: _add_attention(layer, a, b), tile, x, mixed)
    if isinstance(layer.mlp, MLP):
        dense = layer.mlp
        return by_tile(lambda a, b: (a + dense(b),), tile, x, normed)[0]
    mixture = layer.mlp
    shared, chosen, weights = by_tile(lambda a: _route(mixture, a), tile, normed)
    entry = apply_experts_sampling if tile is None else apply_experts_tiled
    return x + (mixture.experts(normed, chosen, weights, entry) + shared)


def _add_attention(layer: Layer, x: Float[Tensor, "N D"], mixed: Float[Tensor, "N H*head"]) -> Rows:
    x = x + layer.attention.dense(mixed)
    return x, layer.post_attention_layernorm(x)


def _route(mixture: MixtureOfExperts, x: Float[Tensor, "N D"]) -> Rows:
    routing = mixture.gate(x)
    return mixture.shared_experts(x), routing.chosen, routing.weights
