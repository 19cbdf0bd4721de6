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

import threading
from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, TypeAlias, cast

import torch

from unveil.errors import RequestError
from unveil.model.backbone.experts import Experts, groupable
from unveil.model.backbone.layer import Layer, MixtureOfExperts
from unveil.model.backbone.packed import (
    Segment,
    attend_line,
    queries_keys_values,
    rest_of_layer,
    rotary_of,
    wanted_rows,
    write_cache,
)
from unveil.shapes import Float, Int, Tensor

if TYPE_CHECKING:
    from unveil.model.backbone.backbone import Backbone

ROW_STEP = 32  # a recording has a multiple of so many rows; what a pass lacks is filled up
MAX_ROWS = 512  # with more the GPU has enough to do

Capture: TypeAlias = Callable[[Callable[[], None]], Callable[[], object]]
"""Records what a function does to tensors, and gives a way to do it again."""


class Recorded:
    """A backbone, as the engine needs one. Sizes of passes up to `MAX_ROWS` are recorded when they come a second time.

    The weights must stay where they are. Engines in several threads may share one; they take turns.
    """

    def __init__(self, backbone: "Backbone", capture: Capture) -> None:
        self.backbone, self.capture = backbone, capture
        self.allocate, self.logits = backbone.allocate, backbone.logits
        self.recordings = dict[int, Recording | None]()  # by rows; None: seen once
        self._turn = threading.Lock()

    @classmethod
    def on_gpu(cls, backbone: "Backbone") -> "Recorded":
        """With CUDA graphs. Raises RequestError where a GPU would have to ask the host, naming what is in the way."""
        device = backbone.lm_head.weight.device
        check_recordable(device)
        for number, layer in enumerate(backbone.model.layers):
            if isinstance(layer.mlp, MixtureOfExperts) and not _in_groups(layer.mlp.experts):
                raise RequestError(f"CUDA graphs need experts in bfloat16; those of layer {number} are held otherwise")
        return cls(backbone, Graphs(device))

    @torch.inference_mode()
    def packed(
        self,
        tokens: Int[Tensor, " N"],
        positions: Int[Tensor, " N"],
        segments: Sequence[Segment],
        tile: int | None = None,
    ) -> Float[Tensor, "M D"]:
        """As the backbone does; large and batch-invariant passes are its own."""
        rows = -(-len(tokens) // ROW_STEP) * ROW_STEP
        if tile is not None or rows > MAX_ROWS:
            return self.backbone.packed(tokens, positions, segments, tile)
        with self._turn:
            if rows in self.recordings:
                recording = self.recordings[rows] or Recording(self.backbone, rows, self.capture)
                self.recordings[rows] = recording
                return recording.run(tokens, positions, segments)
            self.recordings[rows] = None
        return self.backbone.packed(tokens, positions, segments)


class Recording:
    """The graphs of a pass of so many rows, and the memory through which they are given and give everything."""

    def __init__(self, backbone: "Backbone", rows: int, capture: Capture) -> None:
        config, weight = backbone.config, backbone.lm_head.weight
        layers = cast(Sequence[Layer], backbone.model.layers)
        self.backbone = backbone
        self.x = weight.new_zeros(rows, config.width)
        self.positions = torch.zeros(rows, dtype=torch.long, device=weight.device)
        self.cos, self.sin = rotary_of(backbone, self.positions, weight.dtype)
        counts = (config.heads, config.kv_heads, config.kv_heads)
        self.q, self.k, self.v = (weight.new_zeros(rows, heads, config.head_dim) for heads in counts)
        self.mixed = weight.new_zeros(rows, config.heads * config.head_dim)  # what attention gave
        self.begin = capture(partial(self._begin, layers[0]))
        self.go_on = [capture(partial(self._go_on, layer, following)) for layer, following in pairwise(layers)]
        self.end = capture(partial(self._end, layers[-1]))

    def run(
        self, tokens: Int[Tensor, " N"], positions: Int[Tensor, " N"], segments: Sequence[Segment]
    ) -> Float[Tensor, "M D"]:
        """One pass; the rows behind its own compute something that nobody reads."""
        count = len(tokens)
        self.x[:count] = self.backbone.embedded(tokens)
        self.positions[:count] = positions
        wanted = wanted_rows(segments, self.x.device)
        self.begin()
        for number, go_on in enumerate(self.go_on):
            self._attend(segments, count, number)
            go_on()
        self._attend(segments, count, len(self.go_on))
        self.end()
        return self.x.index_select(0, wanted)

    def _begin(self, layer: Layer) -> None:
        cos, sin = rotary_of(self.backbone, self.positions, self.x.dtype)
        self.cos.copy_(cos)
        self.sin.copy_(sin)
        self._project(layer)

    def _go_on(self, layer: Layer, following: Layer) -> None:
        self.x.copy_(rest_of_layer(layer, self.x, self.mixed))
        self._project(following)

    def _end(self, layer: Layer) -> None:
        self.x.copy_(self.backbone.model.norm(rest_of_layer(layer, self.x, self.mixed)))

    def _project(self, layer: Layer) -> None:
        made = queries_keys_values(layer, self.x, self.cos, self.sin)
        for place, heads in zip((self.q, self.k, self.v), made, strict=True):
            place.copy_(heads)

    def _attend(self, segments: Sequence[Segment], count: int, layer: int) -> None:
        write_cache(segments, layer, self.k[:count], self.v[:count])
        sizes = [segment.end - segment.start for segment in segments]
        queries = zip(self.q[:count].split(sizes), self.mixed[:count].split(sizes), segments, strict=True)
        for rows, mixed, segment in queries:
            mixed.copy_(attend_line(rows, segment, layer))


class Graphs:
    """Records into CUDA graphs, one at a time in a process. They share memory: nothing in it outlives its own graph."""

    _one = threading.Lock()

    def __init__(self, device: torch.device) -> None:
        self.stream, self.pool = torch.cuda.Stream(device), torch.cuda.graph_pool_handle()

    def __call__(self, function: Callable[[], None]) -> Callable[[], object]:
        """Run the function once, as libraries set themselves up when first used, then record it."""
        usual, graph = torch.cuda.current_stream(self.stream.device), torch.cuda.CUDAGraph()
        with self._one:
            self.stream.wait_stream(usual)
            with torch.cuda.stream(self.stream):
                function()
            with torch.cuda.graph(graph, self.pool, self.stream, capture_error_mode="thread_local"):
                function()
            usual.wait_stream(self.stream)
        return graph.replay


def check_recordable(device: torch.device) -> None:
    """Raise RequestError unless PyTorch multiplies groups of rows on this device without asking the host."""
    if device.type != "cuda":
        raise RequestError(f"CUDA graphs need a CUDA device, not {device.type}")
    major, minor = torch.cuda.get_device_capability(device)
    if torch.version.hip is not None or major not in (9, 10):
        raise RequestError(f"CUDA graphs need an NVIDIA GPU of compute capability 9 or 10, not {major}.{minor}")


def _in_groups(experts: torch.nn.Module) -> bool:
    return isinstance(experts, Experts) and groupable(experts.gate_proj, experts.stacks)
