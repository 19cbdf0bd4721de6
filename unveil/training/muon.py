"""AdamW whose matrices may take orthogonal steps instead: Muon (Keller Jordan, https://kellerjordan.github.io/posts/muon)."""

from collections.abc import Callable
from typing import Any

import torch

from unveil.shapes import Float, Tensor

_QUINTIC = (3.4445, -4.7750, 2.0315)  # steepest at 0: five rounds bring every singular value near 1


def orthogonalize(matrix: Float[Tensor, "*stack m n"], rounds: int = 5) -> Float[Tensor, "*stack m n"]:
    """The matrix with all its singular values moved to about 1 (0.7 to 1.2): Newton-Schulz, a whole stack at once."""
    wide = matrix.shape[-2] <= matrix.shape[-1]
    x = matrix if wide else matrix.mT
    x = x / x.norm(dim=(-2, -1), keepdim=True).clamp_min(1e-12)
    a, b, c = _QUINTIC
    for _ in range(rounds):
        gram = x @ x.mT  # (m, m), the smaller side
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x if wide else x.mT


class Muon(torch.optim.AdamW):
    """AdamW, except in groups marked `orthogonal`: there each step is the orthogonalised, Nesterov-averaged gradient.

    A matrix then learns in all its directions alike, not only in the few that dominate its gradient. Every entry
    moves by about `lr` times 0.2, as AdamW's do, so both kinds of group share one rate (arXiv 2502.16982, eq. 4).
    Stacked matrices (the experts) are treated one by one.
    """

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One update; gradients of the orthogonal groups are used up."""
        assert closure is None, "no closure is evaluated"
        for group in self.param_groups:
            if group["orthogonal"]:
                for parameter in group["params"]:
                    self._turn(parameter, group)
        return super().step()

    def _turn(self, parameter: torch.nn.Parameter, group: dict[str, Any]) -> None:
        """The orthogonal step of one parameter; without a gradient AdamW then leaves it alone."""
        gradient = parameter.grad
        if gradient is None:
            return
        state = self.state[parameter]
        if not state:
            state["step"] = torch.zeros(())  # unused here; AdamW expects one of every parameter when it is restored
            state["momentum"] = torch.zeros_like(gradient)
        state["momentum"].lerp_(gradient, 1 - group["momentum"])
        turned = orthogonalize(gradient.lerp(state["momentum"], group["momentum"]))
        parameter.mul_(1 - group["lr"] * group["weight_decay"])
        parameter.add_(turned, alpha=-0.2 * max(parameter.shape[-2:]) ** 0.5 * group["lr"])
        parameter.grad = None
