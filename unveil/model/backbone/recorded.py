"""A backbone for small batches on a GPU: all of a pass but attention replayed from CUDA graphs.

A GPU is done with 32 rows sooner than Python can launch the kernels for the next layer. A graph launches all of its
kernels at once, but the shapes and addresses in it are fixed. Attention alone sees lines of growing length:

    graph 0      rotary tables; queries, keys and values of layer 0
    attention    of layer 0, launched as ever: every line at its true length
    graph 1      the rest of layer 0; queries, keys and values of layer 1
    ...
    graph L      the rest of layer L - 1; the final norm

so one recording serves every pass with so many rows, whatever the requests and wherever they are.
"""

from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, TypeAlias, cast

import torch

from unveil.errors import RequestError
from unveil.model.backbone.experts import Experts, groupable
from unveil.model.backbone.layer import Layer, MixtureOfExperts
from unveil.model.backbone.packed import Segment, attend_line, finish, look, remember, rotary_of, wanted_rows
from unveil.shapes import Float, Int, Tensor

if TYPE_CHECKING:
    from unveil.model.backbone.backbone import Backbone

STEP = 32  # a recording has a multiple of so many rows; what a pass lacks is filled up
MOST = 512  # rows; with more the GPU has enough to do

Outputs: TypeAlias = tuple[Tensor, ...]
Capture: TypeAlias = Callable[[Callable[[], Outputs]], tuple[Callable[[], None], Outputs]]
"""Records what a function does to tensors: a way to do it again, and where its results will then be."""


class Recorded:
    """A backbone, as the engine needs one, with the passes of at most `MOST` rows recorded when they first occur.

    The weights must stay where they are. Not for two threads at once.
    """

    def __init__(self, backbone: "Backbone", capture: Capture) -> None:
        self.backbone, self.capture = backbone, capture
        self.recordings = dict[int, Recording]()

    @classmethod
    def on_gpu(cls, backbone: "Backbone") -> "Recorded":
        """With CUDA graphs. Raises RequestError for weights with which a GPU would need to ask the host."""
        weight = backbone.lm_head.weight
        device = weight.device
        if device.type != "cuda" or not all(_runs_alone(part, weight) for part in backbone.modules()):
            found = f"{str(weight.dtype).removeprefix('torch.')} on {device.type}"
            raise RequestError(f"CUDA graphs need the whole backbone in bfloat16 on a CUDA device, not {found}")
        if torch.cuda.get_device_capability(device)[0] < 9:
            raise RequestError("CUDA graphs need a GPU of compute capability 9 or more for the grouped product")
        return cls(backbone, Graphs(device))

    def allocate(self, branches: int, length: int) -> Float[Tensor, "R layers 2 KV L head"]:
        """As the backbone does."""
        return self.backbone.allocate(branches, length)

    def logits(self, states: Float[Tensor, "M D"], tile: int | None = None) -> Float[Tensor, "M V"]:
        """As the backbone does."""
        return self.backbone.logits(states, tile)

    @torch.inference_mode()
    def packed(
        self,
        tokens: Int[Tensor, " N"],
        positions: Int[Tensor, " N"],
        segments: Sequence[Segment],
        tile: int | None = None,
    ) -> Float[Tensor, "M D"]:
        """As the backbone does; large and batch-invariant passes are its own."""
        if tile is not None or len(tokens) > MOST:
            return self.backbone.packed(tokens, positions, segments, tile)
        rows = -(-len(tokens) // STEP) * STEP
        if rows not in self.recordings:
            self.recordings[rows] = Recording(self.backbone, rows, self.capture)
        return self.recordings[rows].run(tokens, positions, segments)


class Recording:
    """The graphs of a pass of so many rows, and the memory that they read and write."""

    def __init__(self, backbone: "Backbone", rows: int, capture: Capture) -> None:
        config, weight = backbone.config, backbone.lm_head.weight
        layers = cast(Sequence[Layer], backbone.model.layers)
        self.backbone = backbone
        self.x = weight.new_zeros(rows, config.width)
        self.positions = torch.zeros(rows, dtype=torch.long, device=weight.device)
        self.mixed = weight.new_zeros(rows, config.heads * config.head_dim)  # what attention gave last

        def begin() -> Outputs:
            tables = rotary_of(backbone, self.positions, weight.dtype)
            return (*tables, *look(layers[0], self.x, *tables))

        def go_on(layer: Layer, following: Layer, x: Tensor) -> Outputs:
            x = finish(layer, x, self.mixed)
            return (x, *look(following, x, cos, sin))

        replay, (cos, sin, *looked) = capture(begin)
        self.graphs, self.looked, x = [replay], [looked], self.x  # of every layer q, k, v
        for layer, following in pairwise(layers):
            replay, (x, *looked) = capture(partial(go_on, layer, following, x))
            self.graphs.append(replay)
            self.looked.append(looked)
        self.end, (self.states,) = capture(lambda: (backbone.model.norm(finish(layers[-1], x, self.mixed)),))

    def run(
        self, tokens: Int[Tensor, " N"], positions: Int[Tensor, " N"], segments: Sequence[Segment]
    ) -> Float[Tensor, "M D"]:
        """One pass; the rows behind its own compute something that nobody reads."""
        count = len(tokens)
        self.x[:count] = self.backbone.embedded(tokens)
        self.positions[:count] = positions
        sizes, wanted = [segment.end - segment.start for segment in segments], wanted_rows(segments, self.x.device)
        for i, (replay, (q, k, v)) in enumerate(zip(self.graphs, self.looked, strict=True)):
            replay()
            remember(segments, i, k[:count], v[:count])
            queries = zip(q[:count].split(sizes), self.mixed[:count].split(sizes), segments, strict=True)
            for rows, mixed, segment in queries:
                mixed.copy_(attend_line(rows, segment, i))
        self.end()
        return self.states.index_select(0, wanted)


class Graphs:
    """Records into CUDA graphs, which share their memory: nothing is read from it after another pass has begun."""

    def __init__(self, device: torch.device) -> None:
        self.device, self.pool = device, torch.cuda.graph_pool_handle()

    def __call__(self, function: Callable[[], Outputs]) -> tuple[Callable[[], None], Outputs]:
        """Run the function once, as libraries set themselves up when first used, then record it."""
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.device(self.device):
            side, usual = torch.cuda.Stream(), torch.cuda.current_stream()
            side.wait_stream(usual)
            with torch.cuda.stream(side):
                function()
            usual.wait_stream(side)
            with torch.cuda.graph(graph, pool=self.pool, capture_error_mode="thread_local"):  # others may use the GPU
                outputs = function()
        return graph.replay, outputs


def _runs_alone(part: torch.nn.Module, weight: Tensor) -> bool:
    """Whether a GPU needs no word of the host to work through this part of a backbone."""
    if not isinstance(part, MixtureOfExperts):
        return True
    return isinstance(part.experts, Experts) and groupable(weight, part.experts.weights)
