"""How much work sampling asks of a model."""

from unveil.sampling.canvas import Denoiser, Past
from unveil.shapes import Bool, Float, Int, Tensor


class Counted:
    """A denoiser that counts the rows and positions that go through its layers."""

    def __init__(self, denoiser: Denoiser) -> None:
        self.denoiser, self.rows, self.positions = denoiser, 0, 0

    def hidden(
        self,
        tokens: Int[Tensor, "B L"],
        positions: Int[Tensor, "B L"],
        visible: Bool[Tensor, "B L S"],
        past: Past | None = None,
    ) -> tuple[Float[Tensor, "B L D"], Past]:
        """As the denoiser's."""
        self.rows += len(tokens)
        self.positions += tokens.numel()
        return self.denoiser.hidden(tokens, positions, visible, past)

    def logits(self, states: Float[Tensor, "B N D"]) -> Float[Tensor, "B N V"]:
        """As the denoiser's."""
        return self.denoiser.logits(states)
