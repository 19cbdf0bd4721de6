"""What the documents say of the code is looked up in the code: links, paths, names, commands and their options."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from unveil.cli.app import app
from unveil.weights.manifest import weights_hash

ROOT = Path(__file__).parents[1]
NOW = sorted(
    path
    for pattern in ("README.md", "CONTRIBUTING.md", "docs/*.md", "recipes/**/README.md")
    for path in ROOT.glob(pattern)
    if path.name != "log.md"  # a log tells what was: its links must hold, its paths and commands need not
)
LINKED = [*NOW, *ROOT.glob("docs/log.md")]
GLOSSARY = ROOT / "docs" / "glossary.md"
FENCED = re.compile(r"^[ \t]*```.*?\n(.*?)^[ \t]*```", flags=re.DOTALL | re.MULTILINE)
MODULE = re.compile(r"(?<![\w/.-])(?:\w+/)+\w+\.py\b")  # also without the leading `unveil/`
OTHER = re.compile(r"(?<![\w/.-])(?:unveil|tests|recipes|docs)/(?:[\w./-]*/|[\w./-]*\w\.(?:yaml|sh|md))(?![\w*])")


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def commands(text: str) -> Iterator[list[str]]:
    """Every `unveil ...` shown as code, as words; what follows a shell operator is another command."""
    lines = [line for block in FENCED.findall(text) for line in re.sub(r"\\\n\s*", " ", block).splitlines()]
    inline = re.findall(r"`([^`\n]*)`", FENCED.sub("", text))
    for line in [*lines, *inline]:
        said = re.sub(r"\s#.*", "", re.sub(r"\"[^\"]*\"", "TEXT", line))
        for part in re.split(r"&&|\|\||[;|]", said):
            words = part.replace("[", " ").replace("]", " ").split()
            words = words[1:] if words[:1] == ["$"] else words
            if words[:1] == ["unveil"]:
                yield words[1:]


def faults(words: list[str]) -> list[str]:
    """What is wrong with the words after `unveil`: an unknown verb or option."""
    command: Any = typer.main.get_command(app)
    found = list[str]()
    for word in words:
        known = {option for p in command.params for option in (*p.opts, *p.secondary_opts)} | {"--help"}
        if word.startswith("-"):
            option = word.split("=")[0]
            found += [] if option in known or not re.fullmatch(r"--?[a-z-]+", option) else [f"option {option}"]
        elif hasattr(command, "commands") and re.fullmatch(r"[a-z]+", word):
            if word not in command.commands:
                return [*found, f"verb {word}"]
            command = command.commands[word]
    return found


@pytest.mark.parametrize("path", LINKED, ids=name)
def test_every_relative_link_leads_to_a_file(path: Path) -> None:
    text = re.sub(r"`[^`\n]*`", "", FENCED.sub("", path.read_text(encoding="utf-8")))
    targets = re.findall(r"\]\(([^)\s]+)[^)]*\)", text) + re.findall(r"src=\"([^\"]+)\"", text)
    local = [t.split("#")[0] for t in targets if not re.match(r"[a-z]+:|#", t)]
    assert [t for t in local if not (path.parent / t).exists()] == []


@pytest.mark.parametrize("path", NOW, ids=name)
def test_every_file_that_is_named_exists(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    lost = [n for n in MODULE.findall(text) if not (ROOT / n).exists() and not (ROOT / "unveil" / n).exists()]
    assert lost + [n for n in OTHER.findall(text) if not (ROOT / n).exists()] == []


@pytest.mark.parametrize("path", NOW, ids=name)
def test_every_command_that_is_shown_has_that_verb_and_these_options(path: Path) -> None:
    assert [(words, f) for words in commands(path.read_text(encoding="utf-8")) for f in faults(words)] == []


def test_the_check_of_commands_sees_wrong_verbs_and_options() -> None:
    shown = "```bash\nls && unveil eval scene --n 3  # unveil nothing\nunveil edit A --loud -o B\n```\n`unveil draw it`"
    assert [f for words in commands(shown) for f in faults(words)] == ["verb scene", "option --loud", "verb draw"]


def test_every_name_in_the_glossary_is_found_in_the_file_beside_it() -> None:
    rows = [line.split("|")[1:-1] for line in GLOSSARY.read_text(encoding="utf-8").splitlines() if line[:3] == "| *"]
    assert len(rows) > 50
    missing = []
    for word, meaning, where in rows:
        files = re.findall(r"`([\w./-]+)`", where)
        text = "".join((ROOT / file).read_text(encoding="utf-8") for file in files)
        missing += [word] if not files else []
        missing += [n for n in re.findall(r"`(\w+)`", word + meaning) if not re.search(rf"\b{n}\b", text)]
    assert missing == []


def test_the_scores_are_those_of_the_weights_in_the_package():
    scores, readme = (ROOT / "docs/scores.md").read_text(), (ROOT / "README.md").read_text()
    line, table = scores.split("\n\n")[:2]
    assert f"`{weights_hash(ROOT / 'unveil/weights/tiny')}`" in line
    runs = ("backbone", "backbone_longer", "backbone_further", "backbone_beside")
    logs = [ROOT / f"docs/runs/{run}/log.jsonl" for run in runs]
    steps = sum(json.loads(log.read_text().splitlines()[-1])["step"] for log in logs)
    assert f"\n{line}; their backbone took {steps:,} train steps\n\n{table}\n<!-- end" in readme
