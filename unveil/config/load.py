"""Read presets and configuration files; an unknown key names the nearest known one."""

import difflib
import re
from importlib import resources
from pathlib import Path
from typing import TypeGuard, TypeVar, get_args

import yaml
from pydantic import BaseModel, ValidationError

from unveil.config.tree import ModelConfig
from unveil.errors import ConfigError

T = TypeVar("T", bound=BaseModel)


def preset_names() -> list[str]:
    """Names of the presets in the package, sorted."""
    files = resources.files("unveil.config.presets").iterdir()
    return sorted(f.name.removesuffix(".yaml") for f in files if f.name.endswith(".yaml"))


def load_preset(name: str) -> ModelConfig:
    """The preset of that name. Raises ConfigError with the nearest names when there is none."""
    if name not in preset_names():
        near = difflib.get_close_matches(name, preset_names(), n=1)
        hint = f"did you mean '{near[0]}'?" if near else f"presets: {', '.join(preset_names())}"
        raise ConfigError(f"no preset named '{name}'; {hint}")
    text = resources.files("unveil.config.presets").joinpath(f"{name}.yaml").read_text(encoding="utf-8")
    return parse(ModelConfig, text, f"preset {name}")


def load_config(path: Path) -> ModelConfig:
    """The model configuration in a YAML file."""
    return read(ModelConfig, path)


def read(kind: type[T], path: Path) -> T:
    """A YAML file as a value of `kind`. Raises ConfigError naming the file, the field and the remedy."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read as a configuration ({error})") from None
    return parse(kind, text, str(path))


def parse(kind: type[T], text: str, source: str) -> T:
    """YAML text as a value of `kind`; `source` names it in errors."""
    try:
        data = yaml.load(text, Loader=_Loader)
    except (yaml.YAMLError, RecursionError) as error:
        raise ConfigError(f"{source}: not valid YAML ({str(error).splitlines()[0]})") from None
    if not isinstance(data, dict):
        raise ConfigError(f"{source}: must hold a mapping of fields, found {type(data).__name__}")
    return validate(kind, data, source)


def validate(kind: type[T], data: dict[str, object], source: str) -> T:
    """A plain mapping as a value of `kind`; the first few problems in one ConfigError line."""
    try:
        return kind.model_validate(data)
    except ValidationError as error:
        raise ConfigError(f"{source}: " + "; ".join(_explain(kind, e) for e in error.errors()[:5])) from None


def dump(config: BaseModel) -> str:
    """A configuration as YAML that `parse` reads back to an equal value."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False)


class _Loader(yaml.SafeLoader):
    """Safe YAML that also reads 3e-4 as a number."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
)


def _explain(kind: type[BaseModel], error: object) -> str:
    """One validation problem in words, with the nearest name for an unknown key."""
    e = dict(error)  # type: ignore[call-overload]
    path = ".".join(str(p) for p in e["loc"])
    if e["type"] != "extra_forbidden":
        return f"{path or kind.__name__}: {e['msg']}"
    known = _names_beside(kind, e["loc"])
    near = difflib.get_close_matches(str(e["loc"][-1]), known, n=1)
    return f"unknown key '{path}'; " + (f"did you mean '{near[0]}'?" if near else f"known: {', '.join(known)}")


def _names_beside(kind: type[BaseModel], loc: tuple[object, ...]) -> list[str]:
    """Field names at the level where an unknown key stands; a union's member is named in `loc` by its tag."""
    choices: list[type[BaseModel]] = [kind]
    for part in loc[:-1]:
        field = choices[0].model_fields.get(str(part))
        if field is not None:
            choices = [m for m in (field.annotation, *get_args(field.annotation)) if _is_model(m)]
        else:
            choices = [m for m in choices if any(part in get_args(f.annotation) for f in m.model_fields.values())]
        if not choices:
            return []
    return list(choices[0].model_fields)


def _is_model(annotation: object) -> TypeGuard[type[BaseModel]]:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)
