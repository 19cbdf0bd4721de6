"""From noise to data along a velocity field: Euler on a shifted grid, and few-step sampling that re-noises (spec 6)."""

from collections.abc import Callable, Sequence
from typing import Protocol

import torch

from unveil.diffusion.flow import clean_estimate, shift_times
from unveil.errors import RequestError
from unveil.shapes import Float, Tensor

OnStep = Callable[[int, float, Tensor], None]


class VelocityField(Protocol):
    """What a solver follows: the velocity data - noise at x and time t, for a batch."""

    def __call__(self, x: Float[Tensor, "B ..."], t: Float[Tensor, " B"], /) -> Float[Tensor, "B ..."]:
        """The velocity, in the dtype of the field."""


def euler_times(solver_steps: int, shift: float) -> Float[Tensor, " N"]:
    """The N = `solver_steps` grid points from 0 to 1, crowded towards noise by `shift`.

    The official number counts grid points: 50 steps are 49 evaluations of the velocity.
    u_k = k / (N - 1), t_k = u_k / (u_k + shift (1 - u_k)).
    """
    if solver_steps < 2:
        raise RequestError(f"solver steps must be at least 2 (grid points from noise to picture), not {solver_steps}")
    if not shift > 0:
        raise RequestError(f"solver shift must be above 0, not {shift}; 1 is an even grid")
    return shift_times(torch.linspace(0, 1, solver_steps), shift)


def turbo_times(evaluations: int) -> Float[Tensor, " N"]:
    """The K + 1 even grid points of the few-step decoder; here the number of steps K is the number of evaluations."""
    if evaluations < 1:
        raise RequestError(f"solver steps must be at least 1, not {evaluations}")
    return torch.linspace(0, 1, evaluations + 1, dtype=torch.float64).float()


def euler(
    field: VelocityField, noise: Float[Tensor, "B ..."], times: Float[Tensor, " N"], on_step: OnStep | None = None
) -> Float[Tensor, "B ..."]:
    """Follow the field with x <- x + (t_{k+1} - t_k) v(x, t_k); N grid points are N - 1 evaluations.

    `on_step(k, t_{k+1}, clean)` is told after each evaluation, with the picture as it is foreseen from there.
    """
    x = noise
    for k, (now, then) in enumerate(zip(times[:-1].tolist(), times[1:].tolist(), strict=True)):
        t = torch.full((len(x),), now, device=x.device)
        velocity = field(x, t)
        if on_step is not None:
            on_step(k, then, clean_estimate(x, velocity, t))
        x = x + (then - now) * velocity
    return x


def turbo(
    field: VelocityField,
    noise: Float[Tensor, "B ..."],
    times: Float[Tensor, " N"],
    draw_noise: Callable[[], Float[Tensor, "B ..."]],
    on_step: OnStep | None = None,
) -> Float[Tensor, "B ..."]:
    """Jump to the clean estimate and mix fresh noise back in, K times: x <- t_{k+1} x1 + (1 - t_{k+1}) noise.

    For a decoder distilled to few steps: no guidance, no shift. The state is float64, as is what `draw_noise` gives;
    it is also called at the last step, where its weight is 0, so that a seed means the same as in the official code.
    """
    x = noise.double()
    for k, (now, then) in enumerate(zip(times[:-1].tolist(), times[1:].tolist(), strict=True)):
        t = torch.full((len(x),), now, device=x.device)
        clean = clean_estimate(x, field(x, t).double(), t.double())
        if on_step is not None:
            on_step(k, then, clean)
        x = then * clean + (1 - then) * draw_noise()
    return x


def clip_guidance(
    positive: Float[Tensor, "B ..."], negative: Float[Tensor, "B ..."], guidance: float
) -> Float[Tensor, "B ..."]:
    """Guided velocity p + g (p - n) in float32, shortened per sample to the length of p where it is longer."""
    positive, negative = positive.float(), negative.float()
    guided = positive + guidance * (positive - negative)
    dims = tuple(range(1, guided.ndim))
    limit = torch.linalg.vector_norm(positive, dim=dims, keepdim=True)
    length = torch.linalg.vector_norm(guided, dim=dims, keepdim=True)
    return torch.where(length > limit, guided * (limit / length), guided)


def draw_noise(
    shape: tuple[int, ...], generators: Sequence[torch.Generator], dtype: torch.dtype = torch.float32
) -> Float[Tensor, "B ..."]:
    """Normal noise, one sample of `shape` from each generator: a sample does not depend on its batch."""
    return torch.stack([torch.randn(shape, generator=g, device=g.device, dtype=dtype) for g in generators])
