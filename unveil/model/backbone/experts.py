"""The experts: many small gated MLPs, each token visiting a few; one plain function with interchangeable entries."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import NamedTuple, TypeAlias

import torch
from torch import nn
from torch.nn import functional as F

from unveil.model.layers.quantized import Format, QuantizedWeight
from unveil.shapes import Float, Int, Tensor

EXPERT_TILE = 16  # rows of a product in `apply_experts_tiled`


class ExpertWeights(NamedTuple):
    """The weights of all experts of a layer, stacked on the first axis: floats, or quantized."""

    gate: Float[Tensor, "E F D"] | QuantizedWeight
    up: Float[Tensor, "E F D"] | QuantizedWeight
    down: Float[Tensor, "E D F"] | QuantizedWeight


ExpertsEntry: TypeAlias = Callable[
    [Float[Tensor, "N D"], ExpertWeights, Int[Tensor, "N K"], Float[Tensor, "N K"]], Float[Tensor, "N D"]
]


class Experts(nn.Module):
    """Holder of the stacked expert weights; `apply_experts` does the work."""

    def __init__(self, experts: int, width: int, expert_width: int) -> None:
        super().__init__()
        self.gate_proj = nn.Parameter(torch.empty(experts, expert_width, width))
        self.up_proj = nn.Parameter(torch.empty(experts, expert_width, width))
        self.down_proj = nn.Parameter(torch.empty(experts, width, expert_width))

    @property
    def stacks(self) -> ExpertWeights:
        """All of them."""
        return ExpertWeights(self.gate_proj, self.up_proj, self.down_proj)

    def forward(
        self,
        x: Float[Tensor, "N D"],
        chosen: Int[Tensor, "N K"],
        weights: Float[Tensor, "N K"],
        entry: ExpertsEntry | None = None,
    ) -> Float[Tensor, "N D"]:
        """The weighted sum of the chosen experts' outputs, by the usual entry or by another."""
        entry = apply_experts if entry is None else entry
        return entry(x, self.stacks, chosen, weights)


class QuantizedExperts(nn.Module):
    """The same from small weights; one expert at a time becomes floats."""

    def __init__(self, experts: Experts, form: Format) -> None:
        super().__init__()
        self.gate_proj = QuantizedWeight(experts.gate_proj.detach(), form)
        self.up_proj = QuantizedWeight(experts.up_proj.detach(), form)
        self.down_proj = QuantizedWeight(experts.down_proj.detach(), form)

    def forward(
        self,
        x: Float[Tensor, "N D"],
        chosen: Int[Tensor, "N K"],
        weights: Float[Tensor, "N K"],
        entry: ExpertsEntry | None = None,
    ) -> Float[Tensor, "N D"]:
        """The weighted sum of the chosen experts' outputs, by the usual entry or by another."""
        entry = apply_experts if entry is None else entry
        return entry(x, ExpertWeights(self.gate_proj, self.up_proj, self.down_proj), chosen, weights)


def apply_experts_reference(
    x: Float[Tensor, "N D"], experts: ExpertWeights, chosen: Int[Tensor, "N K"], weights: Float[Tensor, "N K"]
) -> Float[Tensor, "N D"]:
    """sum_k weights[k] * down(silu(gate(x)) * up(x)) of expert chosen[k]: one expert at a time.

    Outputs are weighted and summed in at least float32, then return to the precision of `x` (spec backbone 3.6).
    """
    wide = torch.promote_types(x.dtype, torch.float32)
    total = torch.zeros(x.shape, dtype=wide, device=x.device)
    for e in range(experts.gate.shape[0]):
        token, slot = (chosen == e).nonzero(as_tuple=True)
        out = gated_mlp(x.index_select(0, token), experts.gate[e], experts.up[e], experts.down[e])
        total = total.index_add(0, token, out.to(wide) * weights[token, slot, None].to(wide))
    return total.to(x.dtype)


def apply_experts_sorted(
    x: Float[Tensor, "N D"], experts: ExpertWeights, chosen: Int[Tensor, "N K"], weights: Float[Tensor, "N K"]
) -> Float[Tensor, "N D"]:
    """Sort the visits by expert once, then one matrix product per expert on its contiguous run.

    `unbind` (not indexing) keeps the backward pass at one write per expert, and an expert nobody visited gets a
    gradient of zero rather than none.
    """
    visits, order = _visits_by_expert(x, chosen)
    counts = torch.bincount(chosen.flatten(), minlength=experts.gate.shape[0]).tolist()

    def by_expert(rows: Float[Tensor, "N*K in"], matrices: Tensor | QuantizedWeight) -> Float[Tensor, "N*K out"]:
        return torch.cat([_product(r, w) for r, w in zip(rows.split(counts), matrices.unbind(), strict=True)])

    inner = F.silu(by_expert(visits, experts.gate)) * by_expert(visits, experts.up)  # (N * K, F)
    return _combine(by_expert(inner, experts.down), order, weights, x.dtype)


def apply_experts_tiled(
    x: Float[Tensor, "N D"], experts: ExpertWeights, chosen: Int[Tensor, "N K"], weights: Float[Tensor, "N K"]
) -> Float[Tensor, "N D"]:
    """As `apply_experts_sorted`, every product with `EXPERT_TILE` rows: a token's numbers do not depend on the others.

    Kernels choose their order of summation by the number of rows; with one number there is one order.
    """
    visits, order = _visits_by_expert(x, chosen)
    counts = torch.bincount(chosen.flatten(), minlength=experts.gate.shape[0]).tolist()
    outputs = [x.new_empty(0, x.shape[1])]
    runs = zip(visits.split(counts), experts.gate.unbind(), experts.up.unbind(), experts.down.unbind(), strict=True)
    for rows, *expert in runs:
        for tile in rows.split(EXPERT_TILE) if len(rows) else ():
            filled = F.pad(tile, (0, 0, 0, EXPERT_TILE - len(tile)))
            outputs.append(gated_mlp(filled, *expert)[: len(tile)])
    return _combine(torch.cat(outputs), order, weights, x.dtype)


def apply_experts_grouped(
    x: Float[Tensor, "N D"], experts: ExpertWeights, chosen: Int[Tensor, "N K"], weights: Float[Tensor, "N K"]
) -> Float[Tensor, "N D"]:
    """As `apply_experts_sorted`, with PyTorch's grouped product instead of a loop: no wait for the counts.

    A token is read from `x` for each of its visits, and its visits are weighed and added in one go.
    """
    by_expert, order = chosen.flatten().sort(stable=True)
    visits = x.index_select(0, order.div(chosen.shape[1], rounding_mode="floor"))  # (N * K, D)
    numbers = torch.arange(experts.gate.shape[0], device=chosen.device)
    ends = torch.searchsorted(by_expert, numbers, right=True, out_int32=True)  # (E)
    floats = (w.dequantize() if isinstance(w, QuantizedWeight) else w for w in experts)
    gate, up, down = (w.transpose(1, 2) for w in floats)
    inner = F.silu(F.grouped_mm(visits, gate, offs=ends)) * F.grouped_mm(visits, up, offs=ends)  # (N * K, F)
    wide = torch.promote_types(x.dtype, torch.float32)
    outputs, shares = F.grouped_mm(inner, down, offs=ends).to(wide), weights.to(wide)
    places = _places(order).view_as(chosen)
    return F.embedding_bag(places, outputs, per_sample_weights=shares, mode="sum").to(x.dtype)


def gated_mlp(
    x: Float[Tensor, "N D"], gate: Float[Tensor, "F D"], up: Float[Tensor, "F D"], down: Float[Tensor, "D F"]
) -> Float[Tensor, "N D"]:
    """down(silu(gate(x)) * up(x)): what one expert does to its tokens."""
    return F.linear(F.silu(F.linear(x, gate)) * F.linear(x, up), down)


def _product(rows: Float[Tensor, "N in"], matrix: Float[Tensor, "out in"]) -> Float[Tensor, "N out"]:
    """rows matrix^T; in half precision on a CPU with rows of zeros up to the next power of two.

    There oneDNN compiles a kernel for each number of rows, over half a MB, and keeps it for the life of the process;
    experts meet all kinds of numbers.
    """
    if not len(rows) or rows.device.type != "cpu" or rows.dtype.itemsize != 2:
        return F.linear(rows, matrix)
    filled = F.pad(rows, (0, 0, 0, (1 << (len(rows) - 1).bit_length()) - len(rows)))
    return F.linear(filled, matrix)[: len(rows)]


def _visits_by_expert(
    x: Float[Tensor, "N D"], chosen: Int[Tensor, "N K"]
) -> tuple[Float[Tensor, "N*K D"], Int[Tensor, " N*K"]]:
    """Each token once per chosen expert, sorted by expert, and the permutation that sorted them.

    Expanding before permuting makes the backward pass a permutation and a sum over K: no two threads add to one
    address, so gradients are the same bit for bit in every run.
    """
    order = chosen.flatten().argsort(stable=True)
    copies = x[:, None].expand(-1, chosen.shape[1], -1).flatten(0, 1)  # (N * K, D)
    return copies.index_select(0, order), order


def _combine(
    outputs: Float[Tensor, "N*K D"], order: Int[Tensor, " N*K"], weights: Float[Tensor, "N K"], dtype: torch.dtype
) -> Float[Tensor, "N D"]:
    """Undo the sorting, weigh each visit and add the visits of a token, in at least float32."""
    wide = torch.promote_types(dtype, torch.float32)
    visits = outputs.index_select(0, _places(order)).unflatten(0, weights.shape)  # (N, K, D)
    return (visits.to(wide) * weights[..., None].to(wide)).sum(1).to(dtype)


def _places(order: Int[Tensor, " N*K"]) -> Int[Tensor, " N*K"]:
    """Where each visit went when they were sorted."""
    return torch.empty_like(order).scatter_(0, order, torch.arange(order.numel(), device=order.device))


def apply_experts_sampling(
    x: Float[Tensor, "N D"], experts: ExpertWeights, chosen: Int[Tensor, "N K"], weights: Float[Tensor, "N K"]
) -> Float[Tensor, "N D"]:
    """What the engine uses: grouped where PyTorch can; its gradients would not repeat bit for bit on a GPU."""
    entry = apply_experts_grouped if groupable(x, experts) else apply_experts_sorted
    return entry(x, experts, chosen, weights)


def groupable(x: Float[Tensor, "N D"], experts: ExpertWeights) -> bool:
    """Whether PyTorch's grouped product takes them: float32 on a CPU, elsewhere bfloat16; rows of whole 16 bytes.

    Experts in few bits would all become floats at once there. On a CPU bfloat16 would meet any number of rows, which
    `_product` avoids.
    """
    precise = x.dtype == (torch.float32 if x.device.type == "cpu" else torch.bfloat16)
    whole = all(width * x.element_size() % 16 == 0 for width in experts.gate.shape[1:])
    return precise and whole and isinstance(experts.gate, Tensor)


apply_experts = apply_experts_sorted
"""The entry of training and of the plain loop."""

EXPERTS: Mapping[str, ExpertsEntry] = MappingProxyType(
    {
        "reference": apply_experts_reference,
        "sorted": apply_experts_sorted,
        "tiled": apply_experts_tiled,
        "grouped": apply_experts_grouped,
    }
)
"""Every implementation of the seam; a test holds each one to the reference."""
