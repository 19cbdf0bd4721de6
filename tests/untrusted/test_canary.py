"""A hostile model directory runs nothing and reads nothing outside itself, whichever way one comes to it; nor does any
verb but `fetch` use the network."""

import json
import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from unveil.cli.app import app
from unveil.config import dump
from unveil.config.run import RunConfig
from unveil.pipeline.place import shipped_models
from unveil.weights.fetch import SOURCE_FILE

GOLDEN = Path(__file__).parents[1] / "golden" / "backbone-A"
WATCHED = Path(__file__).with_name("watched.py")
PICKLED = "image_tokenizer/sigvq_embedding.pt"
Job = dict[str, Any]


def watched(jobs: list[Job], at: Path) -> list[dict[str, Any]]:
    """What each job did, all in one process whose working directory is `at`."""
    (at / "jobs.json").write_text(json.dumps([{k: _plain(v) for k, v in job.items()} for job in jobs]))
    line = [sys.executable, str(WATCHED), "jobs.json", "done.json"]
    done = subprocess.run(line, cwd=at, capture_output=True, text=True, timeout=600, env=dict(os.environ))
    assert done.returncode == 0, done.stderr
    results = json.loads((at / "done.json").read_text())
    return [{**job, **result} for job, result in zip(jobs, results, strict=True)]


def _plain(value: object) -> object:
    return [str(v) for v in value] if isinstance(value, list) else str(value)


def verb(job: Job) -> str:
    """Which way to a model a job goes."""
    return str(job["argv"][0] if "argv" in job else job["call"])


def of(result: dict[str, Any], *kinds: str) -> list[str]:
    """What these events of a job were about."""
    return [what for event, what in result["events"] if event in kinds]


def entries(model: Path, out: Path) -> list[Job]:
    """Every way to a model directory."""
    picture, options = out / "a.png", ["--model", model, "--device", "cpu", "--seed", 1]
    few = ["--steps", 1, "--solver-steps", 2]
    argv: list[list[object]] = [
        ["generate", "a star", "-o", out / "g.png", "--height", 256, "--width", 256, *few, *options],
        ["understand", picture, "what?", *options],
        ["edit", picture, "blue", "-o", out / "e.png", *few, *options],
        ["interleave", "a star", "-o", out / "story", *few, *options],
        ["infill", "a ___ star", "--image", picture, *options],
        ["retrieve", out, "a star", "--model", model, "--device", "cpu"],
        ["replay", picture, "--model", model, "--device", "cpu"],
        ["eval", "scenes", "--n", 1, "--model", model, "--device", "cpu"],
        ["inspect", model],
        ["verify", model],
        ["plan", model, "--gpu", "24GB", "--ram", "64GB", "--task", "understand"],
        ["config", "show", model],
        ["convert", model, out / "converted", "--layout", "unveil"],
        ["convert", model, out / "diffusers", "--layout", "diffusers-decoder"],
        ["convert", "--sigvq", "--force", model],
        ["parity", out / "golden"],
    ]
    calls = ("Uni.load", "Uni.load turbo", "from_pretrained", "tokenizer", "ImageTokenizer", "decode_vq_tokens")
    chat: Job = {"argv": ["chat", *options], "stdin": "hello"}
    return [*({"argv": words} for words in argv), chat, *({"call": call, "path": model} for call in calls)]


class Canary:
    """A pickle that makes a file when it is read."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.file,))


def arm(model: Path, canary: Path) -> None:
    """Put into a whole model all that other loaders are known to run."""
    code = f"import pathlib\npathlib.Path({str(canary)!r}).touch()\n"
    for name in ("modeling_x.py", "configuration_x.py", "__init__.py", "conftest.py", "torch.py", "sitecustomize.py"):
        (model / name).write_text(code)
    for name in ("pytorch_model.bin", "training_args.bin", "model.pkl", PICKLED, "decoder/diffusion_pytorch_model.bin"):
        (model / name).write_bytes(pickle.dumps(Canary(canary)))
    jinja = f"{{{{ cycler.__init__.__globals__.os.system('touch {canary}') }}}}"
    for name, changes in {
        "config.json": {"auto_map": {"AutoModelForCausalLM": "modeling_x.Model"}, "trust_remote_code": True},
        "tokenizer_config.json": {"auto_map": {"AutoTokenizer": "modeling_x.T"}, "chat_template": jinja},
        "decoder/config.json": {"_class_name": "modeling_x.Model", "auto_map": {"AutoModel": "modeling_x.Model"}},
        "vae/config.json": {"_class_name": "AutoencoderKL", "_name_or_path": "../../outside"},
    }.items():
        (model / name).write_text(json.dumps(json.loads((model / name).read_text()) | changes))


@pytest.fixture
def outside(released_directory: Path, tmp_path: Path) -> Path:
    """A whole model that must not be read, since no one asked for it."""
    return Path(shutil.copytree(released_directory, tmp_path / "outside"))


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """Where outputs go, with a picture to begin with."""
    (tmp_path / "out").mkdir()
    Image.new("RGB", (64, 64), "red").save(tmp_path / "out" / "a.png")
    return tmp_path / "out"


def test_a_model_full_of_code_loads_and_none_of_it_runs(released_directory: Path, out: Path, tmp_path: Path) -> None:
    model, canary = Path(shutil.copytree(released_directory, tmp_path / "m")), tmp_path / "canary"
    arm(model, canary)
    golden = Path(shutil.copytree(GOLDEN, out / "golden", ignore=shutil.ignore_patterns("checkpoint")))
    manifest = json.loads((golden / "manifest.json").read_text())
    (golden / "manifest.json").write_text(json.dumps(manifest | {"cases": manifest["cases"][:1]}))
    shutil.copytree(model, golden / "checkpoint")
    slow = (
        "understand",
        "edit",
        "interleave",
        "infill",
        "eval",
        "chat",
        "decode_vq_tokens",
    )  # they load as the others do
    jobs = [job for job in entries(model, out) if verb(job) not in slow]
    results = watched(jobs, model)
    assert len(results) >= 10 and not canary.exists()
    refused = {result["argv"][0] for result in results if result["code"] != 0}
    assert refused == {"retrieve", "replay", "verify", "convert"}, results
    [sigvq] = [result for result in results if "--sigvq" in result.get("argv", ())]
    assert "cannot be converted" in sigvq["said"] and of(sigvq, "subprocess.Popen", "os.posix_spawn") != []
    for result in results:
        opened = [Path(name).name for name in of(result, "open") if str(model) in name or not name.startswith("/")]
        assert [name for name in opened if name.endswith((".py", ".bin", ".pkl", ".pt"))] == [], result
        assert result is sigvq or of(result, "subprocess.Popen", "os.system", "os.exec", "os.posix_spawn") == []
    pickle.loads((model / "model.pkl").read_bytes())  # the control: read without care, it does run
    assert canary.exists()


def link(name: str) -> Callable[[Path, Path], None]:
    """Make one file, or directory, of the model a link to the same one of the model outside."""

    def change(model: Path, outside: Path) -> None:
        there = model / name
        shutil.rmtree(there) if there.is_dir() else there.unlink(missing_ok=True)
        there.symlink_to(outside / name)

    return change


def index(name: str) -> Callable[[Path, Path], None]:
    """Let the index put a tensor into a file outside; {} is the directory outside."""

    def change(model: Path, outside: Path) -> None:
        file = model / "model.safetensors.index.json"
        data = json.loads(file.read_text())
        data["weight_map"]["model.norm.weight"] = name.replace("{}", str(outside))
        file.write_text(json.dumps(data))

    return change


def listed(model: Path, outside: Path) -> None:
    entry = {"bytes": 1, "crc32": "0", "sha256": "0"}
    (model / "manifest.json").write_text(json.dumps({"files": {"../outside/config.json": entry}}))


SHARD = "model-00001-of-00003.safetensors"
LEAKS: dict[str, Callable[[Path, Path], None]] = {
    "a relative index": index(f"../outside/{SHARD}"),
    "an absolute index": index("{}/" + SHARD),
    "an index of another system": index(f"..\\outside\\{SHARD}"),
    "a manifest": listed,
    **{f"a link: {name}": link(name) for name in (
        SHARD, "config.json", "tokenizer.json", "model.safetensors.index.json", "vae", "decoder/config.json",
        "decoder/model.safetensors", "image_tokenizer/preprocessor_config.json",
        "image_tokenizer/sigvq_embedding.safetensors", PICKLED, SOURCE_FILE, "manifest.json",
    )},
}  # fmt: skip


def test_nothing_outside_a_model_is_read_by_any_name_or_link(
    released_directory: Path, outside: Path, out: Path, tmp_path: Path
) -> None:
    (outside / SOURCE_FILE).write_text("{}")
    (outside / PICKLED).write_bytes(b"secret")
    (outside / "manifest.json").write_text("{}")
    jobs = list[Job]()
    for title, change in LEAKS.items():
        model = Path(shutil.copytree(released_directory, tmp_path / f"m{len(jobs)}"))
        change(model, outside)
        golden = tmp_path / f"g{len(jobs)}"
        golden.mkdir()
        for name in ("manifest.json", "goldens.safetensors"):
            (golden / name).symlink_to(GOLDEN / name)
        (golden / "checkpoint").symlink_to(model)
        some = ("verify", "inspect", "Uni.load", "from_pretrained")  # the others come to a model by the same way
        few = [job for job in entries(model, out) if title == "a link: vae" or verb(job) in some]
        jobs += [{**job, "title": title} for job in few if verb(job) != "parity"]
        jobs.append({"argv": ["parity", golden], "title": title})
    results = watched(jobs, tmp_path)
    opened = [(result, (tmp_path / name).resolve()) for result in results for name in of(result, "open")]
    leaks = [(r["title"], verb(r), file.name) for r, file in opened if file.is_relative_to(outside.resolve())]
    assert leaks == []
    linked = [result for result in results if result["title"].startswith("a link")]
    assert len(linked) > 60 and {verb(result) for result in linked} == {verb(job) for job in entries(outside, out)}
    assert [(r["title"], verb(r), r["said"]) for r in linked if r["code"] != 2] == []
    told = [r for r in linked if verb(r) != "replay"]  # which reads its picture first, and this one has no recipe
    assert [(r["title"], verb(r), r["said"]) for r in told if "leads out of" not in r["said"]] == []


def test_links_inside_a_model_and_those_of_a_hubs_cache_are_followed(released_directory: Path, tmp_path: Path) -> None:
    cache = tmp_path / "models--owner--model"
    model = Path(shutil.copytree(released_directory, cache / "snapshots" / ("0" * 40)))
    (cache / "blobs").mkdir()
    for name in ("tokenizer.json", SHARD, "vae/config.json"):
        shutil.move(model / name, cache / "blobs" / name.replace("/", "-"))
        (model / name).symlink_to(cache / "blobs" / name.replace("/", "-"))
    results = watched([{"call": "Uni.load", "path": model}, {"argv": ["inspect", model]}], tmp_path)
    assert [(r["code"], r["said"]) for r in results] == [(0, ""), (0, "")]


def test_no_verb_but_fetch_opens_a_socket(
    model_directory: Path, released_directory: Path, out: Path, tmp_path: Path
) -> None:
    golden = Path(shutil.copytree(GOLDEN, out / "golden"))
    manifest = json.loads((golden / "manifest.json").read_text())
    (golden / "manifest.json").write_text(json.dumps(manifest | {"cases": manifest["cases"][:1]}))
    values = {"name": "trial", "steps": 1, "task": {"objective": "vae", "batch": 1, "crop": 8}, "optim": {"lr": 0.001},
              "parts": tmp_path / "parts", "directory": tmp_path / "run", "threads": 1}  # fmt: skip
    (tmp_path / "r.yaml").write_text(dump(RunConfig.model_validate(values)))
    (tmp_path / "parts").mkdir()
    shutil.copy(shipped_models()["tiny"] / "tokenizer.json", tmp_path / "parts")
    drawn = ["generate", "a star", "-o", out / "a.png", "--model", model_directory, "--device", "cpu", "--seed", 1]
    jobs = [job for job in entries(model_directory, out) if "argv" in job and verb(job) not in ("generate", "convert")]
    jobs = [{"argv": drawn}, *jobs, {"argv": ["train", tmp_path / "r.yaml"]}, {"argv": ["doctor"]}]
    tiny = ["--codes", 8, "--prompt", 8, "--nothing", 4, "--steps", 1, "--rounds", 1, "--requests", 1]
    jobs.append({"argv": ["bench", *tiny]})
    jobs.append({"argv": ["convert", released_directory, out / "again", "--layout", "unveil"]})
    results = watched(jobs, tmp_path)
    done = {result["argv"][0] for result in results if result["code"] == 0}
    groups = {group.name for group in app.registered_groups}
    verbs = {command.callback.__name__ for command in app.registered_commands if command.callback} | groups
    assert done == verbs - {"fetch"}, [r for r in results if r["code"] != 0]
    kinds = ("socket.connect", "socket.bind", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto")
    assert [(r["argv"], of(r, *kinds)) for r in results if of(r, *kinds)] == []


def test_the_watch_sees_a_socket_and_a_file(hub: Any, tmp_path: Path) -> None:
    [result] = watched([{"argv": ["fetch", "owner/model", "--to", tmp_path / "m"]}], tmp_path)
    assert result["code"] == 0 and of(result, "socket.connect") != []
    assert str(tmp_path / "m.partial" / SOURCE_FILE) in " ".join(of(result, "open"))


def test_a_fetched_model_with_code_around_it_is_as_harmless(hub: Any, tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    hub.files[PICKLED] = pickle.dumps(Canary(canary))
    hub.files["modeling_x.py"] = f"open({str(canary)!r}, 'w')".encode()
    fetching = {"argv": ["fetch", "owner/model", "--to", tmp_path / "m"]}
    results = watched([fetching, {"argv": ["convert", "--sigvq", tmp_path / "m"]}], tmp_path)
    assert [result["code"] for result in results] == [0, 2] and not canary.exists()
    assert "cannot be converted" in results[1]["said"] and not (tmp_path / "m" / "modeling_x.py").exists()
