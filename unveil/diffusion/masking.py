"""Masking: which positions the model must guess in a train step, and how much each guess counts.

Time t runs from 0 (everything masked) to 1 (clean); a position is masked with the rate 1 - t. (The papers print
the other direction.) A block has one time; positions of a block are masked independently.
"""

import torch

from unveil.shapes import Bool, Float, Int, Tensor


def sample_times(
    rows: int,
    blocks: int,
    generator: torch.Generator,
    *,
    rates: tuple[float, float] = (0.0, 1.0),
    stratified: bool = False,
) -> Float[Tensor, "rows blocks"]:
    """One time per block: its masking rate 1 - t is uniform in (low, high] of `rates` (spec backbone 6.1).

    stratified: cut the band into rows * blocks equal strata and draw once from each, in random order. The
    distribution of every entry is the same; their mean varies far less, and with it the loss.
    """
    low, high = rates
    count = rows * blocks
    u = torch.rand(count, generator=generator, device=generator.device)
    if stratified:
        u = (torch.randperm(count, generator=generator, device=generator.device) + u) / count
    return ((1.0 - high) + (high - low) * u).view(rows, blocks)


def mask_blocks(
    maskable: Bool[Tensor, "B L"],
    blocks: Int[Tensor, "B L"],
    times: Float[Tensor, "B blocks"],
    generator: torch.Generator,
    leaders: Int[Tensor, "B L"] | None = None,
) -> Bool[Tensor, "B L"]:
    """Mask every maskable position with the rate 1 - t of its block.

    A block with a rate above zero and any maskable position gets at least one masked position, the one with the
    lowest draw: a block without any would be carried along for nothing. At t = 0 all are masked, at t = 1 none.
    `blocks` indexes the columns of `times`. Positions with the same leader (an index in their row) share its draw.
    """
    draws = torch.rand(maskable.shape, generator=generator, device=generator.device).to(maskable.device)
    if leaders is not None:
        draws = draws.gather(1, leaders)
    rate = 1.0 - times.to(maskable.device).gather(1, blocks)  # (B, L)
    candidates = draws.masked_fill(~maskable, torch.inf)
    lowest = torch.full(times.shape, torch.inf, device=maskable.device)
    lowest = lowest.scatter_reduce(1, blocks, candidates, "amin").gather(1, blocks)  # (B, L)
    return maskable & ((draws < rate) | ((draws == lowest) & (rate > 0)))


def complementary(masked: Bool[Tensor, "B L"], maskable: Bool[Tensor, "B L"]) -> Bool[Tensor, "B L"]:
    """The other half of a pair: together the two masks cover every maskable position exactly once.

    The masking rate of the complement is t where that of the first was 1 - t (spec backbone 6.1).
    """
    return maskable & ~masked


def inverse_rate_weights(times: Float[Tensor, " N"]) -> Float[Tensor, " N"]:
    """1 / (1 - t) for each masked position: makes the sum of losses an upper bound of -log p (spec backbone 6.1)."""
    return 1.0 / (1.0 - times)


def sample_weights(samples: Int[Tensor, " N"], words: Bool[Tensor, " N"]) -> Float[Tensor, " N"]:
    """The weight of each masked position so that samples with many do not drown those with few (paper eq. 6).

    With n_j masked words in sample j, beta_j = 1 / sqrt(n_j) and the loss is sum_j beta_j L_j / sum_j beta_j, where L_j
    sums over the positions of j: a compromise between averaging over positions and over samples. `samples` numbers the
    sample of each masked position; positions that are not `words` (padding) are weighted along but do not count in n_j.
    """
    masked = torch.bincount(samples, weights=words.float())  # (samples)
    present = torch.bincount(samples) > 0
    beta = torch.where(present, masked.clamp_min(1).rsqrt(), 0.0).float()
    return beta[samples] / beta.sum()
