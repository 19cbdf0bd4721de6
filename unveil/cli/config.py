"""`unveil config`: the numbers of a model, and how two models differ."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from unveil.cli import options
from unveil.cli.output import say, say_json

if TYPE_CHECKING:
    from unveil.config import ModelConfig

Name = Annotated[str, typer.Argument(help="A preset, a YAML file or a model directory.")]
config = typer.Typer(help="The numbers of a model.", no_args_is_help=True, rich_markup_mode=None)


@config.command("list")
def list_presets(as_json: options.AsJson = False) -> None:
    """The presets in the package."""
    from unveil.config import preset_names

    if as_json:
        say_json(preset_names())
    else:
        say("\n".join(preset_names()))


@config.command()
def show(name: Name, as_json: options.AsJson = False) -> None:
    """Every number of NAME."""
    values = dict(flatten(find_config(name).model_dump(mode="json")))
    if as_json:
        say_json(values)
    else:
        say("\n".join(f"{key} = {_plain(value)}" for key, value in values.items()))


@config.command()
def diff(a: Name, b: Name, as_json: options.AsJson = False) -> None:
    """The numbers in which A and B differ."""
    one, two = (dict(flatten(find_config(name).model_dump(mode="json"))) for name in (a, b))
    changed = {key: [one.get(key), two.get(key)] for key in one | two if one.get(key) != two.get(key)}
    if as_json:
        say_json(changed)
    elif changed:
        say("\n".join(f"{key}: {_plain(old)} -> {_plain(new)}" for key, (old, new) in changed.items()))


def flatten(tree: Mapping[str, object], above: str = "") -> Iterator[tuple[str, object]]:
    """Every leaf with its path: backbone.width."""
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from flatten(value, f"{above}{key}.")
        else:
            yield f"{above}{key}", value


def find_config(name: str) -> "ModelConfig":
    """The configuration of a preset, a file, or a directory, ours or as released."""
    from unveil.config import load_config, load_preset, preset_names
    from unveil.files import check_links

    path = Path(name)
    if name in preset_names() or not path.exists():
        return load_preset(name)
    if path.is_file():
        check_links(path)
        return load_config(path)
    from unveil.pipeline.place import model_directory
    from unveil.vocab.text import Text
    from unveil.weights.names import CONFIG_FILE, TOKENIZER_FILE
    from unveil.weights.official_config import official_model_config
    from unveil.weights.official_model import is_official

    path = model_directory(name)
    if is_official(path):
        return official_model_config(path, Text.load(path / TOKENIZER_FILE))
    return load_config(path / CONFIG_FILE)


def _plain(value: object) -> str:
    return "none" if value is None else str(value)
