"""The package as a whole: what it needs, what it must not import or call, how long a file may be, what is explained."""

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MODULES = sorted((ROOT / "unveil").rglob("*.py"))
UNSAFE_IMPORTS = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
UNSAFE_CALLS = {"eval", "exec", "torch.load", "yaml.unsafe_load", "yaml.full_load"}
SAFE_LOADERS = {"SafeLoader", "CSafeLoader"}


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def project() -> dict[str, object]:
    found = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert isinstance(found, dict)
    return found


def python(code: str) -> str:
    """What a fresh interpreter prints, with nothing imported yet."""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def dangers(source: str) -> list[str]:
    """What in a module runs code found in data: unsafe imports, calls and YAML loaders, remote code."""
    tree = ast.parse(source)
    safe = SAFE_LOADERS | {c.name for c in ast.walk(tree) if isinstance(c, ast.ClassDef) and _is_safe_loader(c)}
    found = list[str]()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [a.name for a in node.names if a.name.split(".")[0] in UNSAFE_IMPORTS]
        elif isinstance(node, ast.ImportFrom) and node.module:
            full = [f"{node.module}.{a.name}" for a in node.names]
            found += [n for n in full if n.split(".")[0] in UNSAFE_IMPORTS or n in UNSAFE_CALLS]
        elif isinstance(node, ast.Call):
            found += _call_dangers(node, safe)
    return found


def _call_dangers(node: ast.Call, safe: set[str]) -> Iterator[str]:
    called = ast.unparse(node.func)
    given = {k.arg: k.value for k in node.keywords}
    if called in UNSAFE_CALLS:
        yield called
    if called in ("yaml.load", "yaml.load_all"):
        loader = given.get("Loader", node.args[1] if len(node.args) > 1 else None)
        if loader is None or ast.unparse(loader).split(".")[-1] not in safe:
            yield f"{called} without a safe Loader"
    if "trust_remote_code" in given:
        yield "trust_remote_code"


def _is_safe_loader(node: ast.ClassDef) -> bool:
    return any(ast.unparse(base).split(".")[-1] in SAFE_LOADERS for base in node.bases)


def unexplained(source: str) -> list[str]:
    """Public classes, functions and methods without a docstring, and the module itself."""
    tree = ast.parse(source)
    missing = [] if ast.get_docstring(tree) else ["module"]
    todo: list[tuple[str, ast.stmt]] = [("", node) for node in tree.body]
    while todo:
        above, node = todo.pop(0)
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) or node.name.startswith("_"):
            continue
        missing += [] if ast.get_docstring(node) else [above + node.name]
        if isinstance(node, ast.ClassDef):
            todo += [(f"{above}{node.name}.", inner) for inner in node.body]
    return missing


def test_torch_has_an_upper_bound_and_torchvision_is_asked_for_nowhere() -> None:
    base, extras = project()["dependencies"], project()["optional-dependencies"]
    assert isinstance(base, list) and isinstance(extras, dict)
    everything = [*base, *(line for lines in extras.values() for line in lines)]
    names = {re.split(r"[^A-Za-z0-9._-]", line)[0].lower().replace("_", "-") for line in everything}
    assert not names & {"torchvision", "timm", "open-clip-torch", "lmms-eval", "mosaicml-streaming"}
    assert "torch>=2.10,<2.14" in base
    built_with = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["build-system"]["requires"]
    assert [line for line in built_with if line.startswith("torch")] == []


def test_importing_unveil_does_not_import_torch() -> None:
    assert python("import unveil, sys; print('torch' in sys.modules, unveil.__version__ != '')") == "False True\n"


@pytest.mark.parametrize("arguments", ["--help", "generate --help", "--version"])
def test_the_help_of_the_command_line_does_not_import_torch(arguments: str) -> None:
    code = (
        "import runpy, sys\n"
        f"sys.argv = ['unveil', *{arguments.split()}]\n"
        "try: runpy.run_module('unveil', run_name='__main__')\n"
        "except SystemExit as end: print('left with', end.code, 'torch' in sys.modules)\n"
    )
    assert python(code).splitlines()[-1] == "left with 0 False"


def test_no_module_runs_code_that_it_finds_in_data() -> None:
    found = {name(path): dangers(path.read_text(encoding="utf-8")) for path in MODULES}
    admitted = {"unveil/weights/sigvq.py": ["torch.load"]}  # in a process of its own, tensors only
    assert len(found) > 50 and {path: bad for path, bad in found.items() if bad} == admitted
    calls = [n for n in ast.walk(ast.parse((ROOT / "unveil/weights/sigvq.py").read_text())) if isinstance(n, ast.Call)]
    loads = [ast.unparse(n) for n in calls if ast.unparse(n.func) == "torch.load"]
    assert loads == ["torch.load(source, map_location='cpu', weights_only=True)"]


def test_the_search_for_dangers_finds_each_kind() -> None:
    bad = {
        "import pickle": ["pickle"],
        "from joblib import load": ["joblib.load"],
        "from torch import load": ["torch.load"],
        "torch.load(f)": ["torch.load"],
        "eval(x); exec(y)": ["eval", "exec"],
        "yaml.load(x)": ["yaml.load without a safe Loader"],
        "yaml.load(x, Loader=yaml.Loader)": ["yaml.load without a safe Loader"],
        "class L(yaml.Loader): ...\nyaml.load(x, L)": ["yaml.load without a safe Loader"],
        "AutoModel.from_pretrained(x, trust_remote_code=False)": ["trust_remote_code"],
        "model.eval(); class_.load(x); yaml.load(x, Loader=yaml.SafeLoader)": [],
        "class L(yaml.SafeLoader): ...\nyaml.load(x, Loader=L)": [],
    }
    assert {source: dangers(source) for source in bad} == bad


def test_every_module_and_public_name_is_explained() -> None:
    found = {name(path): unexplained(path.read_text(encoding="utf-8")) for path in MODULES}
    assert {path: names for path, names in found.items() if names} == {}


def test_the_search_for_what_is_unexplained_finds_each_kind() -> None:
    source = 'class A:\n "x"\n def b(self): ...\n def _c(self): ...\ndef d(): ...\nclass E: ...\nclass _F: ...\n'
    assert unexplained(source) == ["module", "d", "E", "A.b"]


def test_no_file_is_longer_than_350_lines() -> None:
    lengths = {name(path): len(path.read_text(encoding="utf-8").splitlines()) for path in MODULES}
    assert {path: n for path, n in lengths.items() if n > 350} == {}
