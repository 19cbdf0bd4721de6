"""`unveil bench`: the engine against the plain loop and against SPRINT, then many requests against one by one."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from unveil.cli import options
from unveil.cli.output import progress, say, say_json
from unveil.cli.pareto import sweep_to
from unveil.errors import RequestError

if TYPE_CHECKING:
    from unveil.bench import Comparison, Throughput

_OF_PARETO = ("pareto", "n", "model", "device", "dtype", "memory")


def bench(
    context: typer.Context,
    preset: Annotated[str, typer.Option("--preset", help="The sizes of the model; its weights are random.")] = "bench",
    codes: Annotated[int, typer.Option("--codes", help="Codes of the picture.")] = 1024,
    prompt: Annotated[int, typer.Option("--prompt", help="Tokens of the prompt.")] = 128,
    nothing: Annotated[int, typer.Option("--nothing", help="Tokens of the unconditional branch.")] = 40,
    steps: Annotated[int, typer.Option("--steps", help="Denoise steps per block.")] = 8,
    rounds: Annotated[
        int, typer.Option("--rounds", help="Times that everything runs, in turn; the fastest counts.")
    ] = 2,
    requests: Annotated[str, typer.Option("--requests", help="How many at once.")] = "1,4,16",
    small: Annotated[str, typer.Option("--small", help="The preset of those many requests.")] = "tiny",
    seed: Annotated[int, typer.Option("--seed", help="Of the weights and prompts.")] = 0,
    gpu: Annotated[
        bool, typer.Option("--gpu", help="Instead: official sizes on a CUDA device, as a Markdown table.")
    ] = False,
    batch_invariant: Annotated[bool, typer.Option("--batch-invariant", help="The many requests bit for bit.")] = False,
    pareto: Annotated[
        Path | None,
        typer.Option("--pareto", metavar="FILE.png", help="Instead: quality against work, as a plot and a .csv."),
    ] = None,
    n: Annotated[
        int, typer.Option("--n", help="For --pareto: prompts of one thing and of two, for every setting.")
    ] = 50,
    model: options.Model = "tiny",
    device: options.Device = "auto",
    dtype: options.Dtype = "auto",
    memory: options.Memory = None,
    as_json: options.AsJson = False,
    quiet: options.Quiet = False,
) -> None:
    """Measure the engine, with random weights, in one process; with --pareto, what the sampler's settings cost."""
    _check_given(context, gpu=gpu, pareto=pareto is not None)
    if pareto is not None:
        return sweep_to(pareto, n, model, device, dtype, memory, quiet)
    if rounds < 1:
        raise RequestError(f"--rounds must be at least 1, not {rounds}")
    if gpu:
        return _gpu(quiet)
    sizes = _sizes(requests)
    from unveil.config import load_preset

    tiny = load_preset(small)
    from unveil.bench import compare, set_up, throughput

    said = progress(quiet, lines=True)
    setup = set_up(load_preset(preset), prompt=prompt, nothing=nothing, codes=codes, steps=steps, seed=seed)
    compared = compare(setup, rounds, said)
    rows, columns = tiny.sampling.grid
    many = set_up(tiny, prompt=40, nothing=20, codes=rows * columns, steps=tiny.sampling.steps, seed=seed)
    served = throughput(many, sizes, rounds, said, batch_invariant=batch_invariant)
    if as_json:
        gains = {f"batch{t.together}_vs_serial": round(t.gain, 2) for t in served}
        say_json(compared.as_dict() | gains | {"batches_identical": all(t.identical for t in served)})
    else:
        say("\n".join([*_compared(compared), "", *_served(served, small)]))


def _check_given(context: typer.Context, *, gpu: bool, pareto: bool) -> None:
    """Raise RequestError for an option on the command line that this kind of bench would not heed."""
    kind = "with --pareto" if pareto else "with --gpu" if gpu else "without --pareto"
    for option in context.command.params:
        name = option.name or ""
        heeded = name == "quiet" or (name in _OF_PARETO if pareto else name == "gpu" if gpu else name not in _OF_PARETO)
        source = context.get_parameter_source(name)
        if not heeded and source is not None and source.name == "COMMANDLINE":
            raise RequestError(f"{option.opts[0]} says nothing {kind}; leave it out")


def _gpu(quiet: bool) -> None:
    import torch

    from unveil.bench.gpu import heading, measure_gpu

    rows = measure_gpu(progress(quiet, lines=True))
    say(heading(torch.cuda.get_device_name()))
    for row in rows:
        say(row.row())


def _sizes(text: str) -> tuple[int, ...]:
    """Numbers of requests. Raises RequestError unless they are whole numbers from 1 up."""
    if not all(part.isdecimal() and int(part) > 0 for part in text.split(",")):
        raise RequestError(f"--requests must be whole numbers from 1 up, such as 1,4,16, not '{text}'")
    return tuple(int(part) for part in text.split(","))


def _compared(found: "Comparison") -> list[str]:
    names = {"plain": "plain loop", "sprint": "SPRINT, defaults", "sprint_published": "SPRINT, published"}
    out = found.as_dict()
    lines = [f"{'':20}{'seconds':>10}{'positions':>12}{'engine is':>12}"]
    for name, shown in names.items():
        ratio = f"{out[f'engine_vs_{name}']}x"
        lines.append(f"{shown:20}{out[f'{name}_s']:>10}{out[f'{name}_positions']:>12}{ratio:>12}")
    lines.append(f"{'engine':20}{out['engine_s']:>10}{out['engine_positions']:>12}")
    lines.append(f"{'  batch-invariant':20}{out['engine_invariant_s']:>10}   costs {out['invariant_cost']}x of that")
    same = f"{out['same_codes']} of {out['codes']} codes are those of the plain loop"
    lines.append(f"engine: {same}; keys and values {out['cache_bytes']} bytes, by formula {out['cache_formula']}")
    return lines


def _served(served: "list[Throughput]", preset: str) -> list[str]:
    return [
        f"{t.together} pictures of preset {preset}: {t.batched_s:.2f} s together, {t.serial_s:.2f} s one by one, "
        f"{t.gain:.2f}x, {'the same' if t.identical else 'OTHER'} codes"
        for t in served
    ]
