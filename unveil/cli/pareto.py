"""`unveil bench --pareto`: quality against work, over the settings of the sampler."""

from pathlib import Path

from unveil.cli.output import open_model, progress, say
from unveil.errors import RequestError
from unveil.files import check_target, write_atomic


def sweep_to(output: Path, n: int, model: str, device: str, dtype: str, memory: str | None, quiet: bool) -> None:
    """Sweep steps, threshold, guidance and cache; the oracle judges, the work is counted; a .csv goes beside the plot.

    n: pictures of one thing and of two, each, for every setting.
    """
    if n < 1:
        raise RequestError(f"--n must be at least 1, not {n}")
    check_target(output, (".png",))
    from unveil.evals.pareto import as_csv, best, measure, sweep
    from unveil.evals.pareto_plot import plot

    with open_model(model, device, quiet=True, memory=memory, dtype=dtype) as uni:
        default = uni.parts.config.sampling
        settings = sweep(default.steps, default.threshold, default.guidance)
        points = list(measure(uni, settings, n, progress(quiet)))
    write_atomic(output.with_suffix(".csv"), as_csv(points).encode())
    write_atomic(output, plot(points, f"{2 * n} prompts of the training split, weights {uni.weights}"))
    for point in best(points, "passes"):
        say(f"{point.quality:6.1%}  {point.passes:6.1f} passes  {point.seconds:6.3f} s  {point.name}")
