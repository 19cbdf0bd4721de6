"""Blocks and who may look at whom: every attention mask of the project, drawn.

In a drawing the rows look and the columns are looked at; 1 = visible. Numbers beside rows are block ids.
"""

import torch

from unveil.shapes import Bool, Int, Tensor


def block_of(positions: Int[Tensor, "*batch L"], size: int) -> Int[Tensor, "*batch L"]:
    """The block that each position belongs to: `size` consecutive positions, counted from position 0."""
    return positions.div(size, rounding_mode="floor")


def visible_block_causal(
    query_blocks: Int[Tensor, "*batch Lq"], key_blocks: Int[Tensor, "*batch Lk"]
) -> Bool[Tensor, "*batch Lq Lk"]:
    """Sampling sees everything up to the end of its own block (spec backbone 3.5).

    Queries may be fewer than keys: with a cached prefix only the rows of the new positions are asked for.

         0 0 1 1 2
    0    1 1 . . .
    0    1 1 . . .
    1    1 1 1 1 .
    1    1 1 1 1 .
    2    1 1 1 1 1
    """
    return key_blocks[..., None, :] <= query_blocks[..., :, None]


def visible_two_stream(blocks: Int[Tensor, "*batch L"]) -> Bool[Tensor, "*batch 2*L 2*L"]:
    """Training sees the noised sequence and the clean one side by side, in one pass (spec backbone 6.2).

    A noised block sees itself and the clean blocks before it: just what it will see when sampling.

               noised    clean
    noised 0   1 1 . .   . . . .
    noised 0   1 1 . .   . . . .
    noised 1   . . 1 1   1 1 . .
    noised 1   . . 1 1   1 1 . .
    clean  0   . . . .   1 1 . .
    clean  0   . . . .   1 1 . .
    clean  1   . . . .   1 1 1 1
    clean  1   . . . .   1 1 1 1
    """
    noised = torch.arange(2 * blocks.shape[-1], device=blocks.device) < blocks.shape[-1]  # (2 * L)
    both = torch.cat((blocks, blocks), dim=-1)  # (..., 2 * L)
    return visible_streams(both, noised.expand_as(both))


def visible_streams(
    blocks: Int[Tensor, "*batch L"], noised: Bool[Tensor, "*batch L"], documents: Int[Tensor, "*batch L"] | None = None
) -> Bool[Tensor, "*batch L L"]:
    """The general training mask: clean and noised tokens in any order, any blocks left out, documents packed.

    A noised token sees the noised tokens of its block and the clean ones of earlier blocks. A clean token sees the
    clean tokens up to its own block. Nobody looks into another document. So a noised copy is needed only of the
    blocks that carry a loss, and the clean copy may drop the last block, which nobody asks for. Without `documents`
    all tokens are of one document; document -1 is padding, which sees itself (attention needs one key) and is seen
    by nobody else. Below: a clean block 0, its successor noised, a second document, one padding token.

    document   0 0  0 0  1  1 -1
               clean noised c n p
    clean  0   1 1  . .  .  .  .
    clean  0   1 1  . .  .  .  .
    noised 1   1 1  1 1  .  .  .
    noised 1   1 1  1 1  .  .  .
    clean  0   . .  . .  1  .  .
    noised 1   . .  . .  1  1  .
    padding    . .  . .  .  .  1
    """
    q_block, k_block = blocks[..., :, None], blocks[..., None, :]
    q_noised, k_noised = noised[..., :, None], noised[..., None, :]
    to_noised = q_noised & k_noised & (q_block == k_block)
    to_clean = ~k_noised & torch.where(q_noised, k_block < q_block, k_block <= q_block)
    visible = to_noised | to_clean  # (..., L, L)
    if documents is None:
        return visible
    q_document, k_document = documents[..., :, None], documents[..., None, :]
    itself = torch.eye(blocks.shape[-1], dtype=torch.bool, device=blocks.device)
    return visible & (q_document == k_document) & (q_document >= 0) | itself & (q_document < 0)


def visible_branches(
    blocks: Int[Tensor, "*batch L"], branches: Int[Tensor, "*batch L"], groups: Int[Tensor, "*batch L"]
) -> Bool[Tensor, "*batch L L"]:
    """As `visible_streams`, for several continuations of one prefix: branch 0 is the prefix that every branch sees.

    Group 0 is clean; every other number is one noised copy, which sees itself within a block. Branch -1 is padding.
    Below: a shared block 0, then two branches that each have a noised block 1, the second one in two copies.

    branch     0 0  1 1  2 2  2 2 -1
    group      0 0  1 1  2 2  3 3  0
    shared 0   1 1  . .  . .  . .  .
    shared 0   1 1  . .  . .  . .  .
    copy 1     1 1  1 1  . .  . .  .
    copy 1     1 1  1 1  . .  . .  .
    copy 2     1 1  . .  1 1  . .  .
    copy 2     1 1  . .  1 1  . .  .
    copy 3     1 1  . .  . .  1 1  .
    copy 3     1 1  . .  . .  1 1  .
    padding    . .  . .  . .  . .  1
    """
    noised = groups > 0
    streams = visible_streams(blocks, noised)  # (..., L, L)
    same_copy = groups[..., :, None] == groups[..., None, :]
    q_branch, k_branch = branches[..., :, None], branches[..., None, :]
    related = (q_branch == k_branch) | (k_branch == 0)
    itself = torch.eye(blocks.shape[-1], dtype=torch.bool, device=blocks.device)
    present = (q_branch >= 0) & (k_branch >= 0)
    return streams & related & (same_copy | ~noised[..., None, :]) & present | itself & (q_branch < 0)
