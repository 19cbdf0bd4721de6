"""`unveil fetch` against a hub on loopback: what comes, what never comes, and what is said when something is wrong."""

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.torch import load_file

from unveil.cli import main
from unveil.errors import OutputError, RequestError, WeightsError
from unveil.pipeline import Uni
from unveil.weights.fetch import SOURCE_FILE, Source, fetch, read_source
from unveil.weights.inspect import inspect
from unveil.weights.verify import verify

BIG, CHUNK = "model-00002-of-00003.safetensors", 10 << 20  # the hub's client keeps what came in chunks of this size


def unheard(what: str, done: int, total: int) -> None:
    pass


def in_child(act: Callable[[], object]) -> int:
    """Do something in a forked process that then leaves; its process id."""
    child = os.fork()
    if child == 0:
        try:
            act()
        finally:
            os._exit(1)
    return child


@pytest.fixture
def unveil(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Run `unveil` with these arguments: exit code, stdout, stderr."""

    def run(*arguments: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as left:
            main([str(a) for a in arguments])
        return left.value.code, *capsys.readouterr()

    return run


@pytest.fixture
def fails(unveil: Callable[..., tuple[int, str, str]]) -> Callable[..., str]:
    """Run `unveil fetch`, which must leave with code 2 and one line; that line."""

    def run(*arguments: object) -> str:
        code, out, err = unveil("fetch", *arguments)
        assert (code, out) == (2, "") and err.startswith("unveil: ") and err.count("\n") == 1, err
        return err

    return run


def files(path: Path) -> set[str]:
    return {file.relative_to(path).as_posix() for file in path.rglob("*") if file.is_file()}


def test_a_fetched_model_is_converted_draws_and_answers(hub, released_directory, unveil, tmp_path):
    model = tmp_path / "model"
    line = [sys.executable, "-m", "unveil", "fetch", "owner/model", "--revision", "v1", "--to", model, "--json"]
    done = subprocess.run(line, capture_output=True, text=True, timeout=120)  # finds the hub by HF_ENDPOINT
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {
        "path": str(model), "repository": "owner/model", "revision": "v1", "commit": hub.commit
    }  # fmt: skip
    assert f"run: unveil convert --sigvq {model}" in done.stderr
    assert unveil("convert", "--sigvq", model)[0] == 0 and verify(model, unheard)[1] == []
    features = "image_tokenizer/sigvq_embedding.safetensors"
    assert load_file(model / features).keys() == load_file(released_directory / features).keys()
    uni = Uni.load(model, "cpu", decoder="turbo")
    drawn = uni.generate_image("a star", seed=1, height=256, width=256, num_inference_steps=1, solver_steps=1)
    there = Uni.load(released_directory, "cpu", decoder="turbo").replay(drawn.recipe)
    assert drawn.image.size == (256, 256) and drawn.image.tobytes() == there.image.tobytes()
    assert uni.understand_image(drawn.image, "what?", seed=1, max_tokens=4, num_inference_steps=1).seed == 1


def test_inspect_shows_where_a_model_came_from(hub, unveil, tmp_path):
    fetch("owner/model", "v1", tmp_path / "m", unheard)
    assert f"\nfetched: owner/model at {hub.commit}, asked for as v1\n" in unveil("inspect", tmp_path / "m")[1]


def test_only_safetensors_json_and_the_one_torch_file_come_each_as_the_hub_has_it(hub, tmp_path):
    source = fetch("owner/model", None, tmp_path / "m", unheard)
    assert source == Source(repository="owner/model", revision="main", commit=hub.commit)
    expected = {n for n in hub.files if n.endswith((".safetensors", ".json"))} - {".hidden/config.json"}
    expected |= {"image_tokenizer/sigvq_embedding.pt", "manifest.json", SOURCE_FILE}
    assert files(tmp_path / "m") == expected
    assert all((tmp_path / "m" / n).read_bytes() == hub.files[n] for n in expected - {"manifest.json", SOURCE_FILE})
    assert verify(tmp_path / "m", unheard)[1] == [] and not (tmp_path / "m.partial").exists()
    assert not [path for _, path, _ in hub.requests if path.endswith((".py", ".sh", ".bin", ".md"))]


def test_the_commit_is_pinned_before_the_first_byte_and_every_byte_is_of_that_commit(hub, tmp_path):
    hub.cuts = [(BIG, 0)] * 6
    with pytest.raises(RequestError, match="run the same command again: what came is kept"):
        fetch("owner/model", "main", tmp_path / "m", unheard)
    assert read_source(tmp_path / "m.partial") == Source(repository="owner/model", revision="main", commit=hub.commit)
    before = len(hub.requests)
    hub.newest = "f" * 40
    assert fetch("owner/model", None, tmp_path / "m", unheard).commit == hub.commit
    looked = [path for _, path, _ in hub.requests[before:] if path.startswith("/api/")]
    assert looked == [f"/api/models/owner/model/revision/{hub.commit}"]


def test_a_cut_connection_is_taken_up_where_it_broke(hub, tmp_path):
    hub.files[BIG] = hub.files[BIG] + bytes(2 * CHUNK)
    hub.cuts = [(BIG, CHUNK + 5)]
    fetch("owner/model", None, tmp_path / "m", unheard)
    assert hub.asked(BIG) == ["", f"bytes={CHUNK}-"]
    assert (tmp_path / "m" / BIG).read_bytes() == hub.files[BIG]


def test_after_a_kill_the_same_command_goes_on_and_asks_for_the_rest_alone(hub, tmp_path):
    hub.files[BIG] = hub.files[BIG] + bytes(2 * CHUNK)
    hub.stalls = (BIG, CHUNK + 5)
    child = in_child(lambda: fetch("owner/model", None, tmp_path / "m", unheard))
    assert hub.stalled.wait(60)
    part = tmp_path / "m.partial" / f"{BIG}.part"
    while part.stat().st_size < CHUNK:
        time.sleep(0.01)
    os.kill(child, signal.SIGKILL)
    assert os.waitpid(child, 0)[1] == signal.SIGKILL
    assert not (tmp_path / "m").exists()
    hub.stalls = None
    hub.requests.clear()
    fetch("owner/model", None, tmp_path / "m", unheard)
    assert hub.asked(BIG) == [f"bytes={CHUNK}-"] and hub.asked("model-00001-of-00003.safetensors") == []
    assert (tmp_path / "m" / BIG).read_bytes() == hub.files[BIG]


def test_progress_counts_all_bytes_once(hub, tmp_path):
    hub.files[BIG] = hub.files[BIG] + bytes(2 * CHUNK)
    heard = list[tuple[str, int, int]]()
    fetch("owner/model", None, tmp_path / "m", lambda *event: heard.append(event))
    taken = {n: d for n, d in hub.files.items() if n in files(tmp_path / "m") and n != "manifest.json"}
    total = sum(map(len, taken.values()))
    loading = [event for event in heard if event[2] == (total >> 20) + 1]
    assert [done for _, done, _ in loading] == sorted(done for _, done, _ in loading)
    assert loading[-1][1] == total >> 20 and {name for name, _, _ in loading} == set(taken)


def test_what_is_there_is_not_fetched_again_and_nothing_else_is_written_over(hub, tmp_path):
    first = fetch("owner/model", "v1", tmp_path / "m", unheard)
    hub.requests.clear()
    assert fetch("owner/model", None, tmp_path / "m", unheard) == first and hub.requests == []
    with pytest.raises(OutputError, match=f"is there already with owner/model at {hub.commit}; choose a new"):
        fetch("owner/model", "main", tmp_path / "m", unheard)
    (tmp_path / "other").mkdir()
    with pytest.raises(OutputError, match="other: is there already; choose a new directory"):
        fetch("owner/model", None, tmp_path / "other", unheard)
    shutil.copytree(tmp_path / "m", tmp_path / "n.partial")
    with pytest.raises(OutputError, match="n.partial: is there already with owner/model"):
        fetch("owner/another", None, tmp_path / "n", unheard)


def test_a_file_that_is_not_what_the_commit_holds_is_named_removed_and_comes_again(hub, tmp_path):
    listed = hub.listing()
    good = dict(hub.files)
    for name in (BIG, "config.json"):
        hub.files[name] = hub.files[name][:-1] + b"?"
    hub.listing = lambda: listed
    with pytest.raises(WeightsError, match=f"m.partial: config.json, {BIG} came damaged and was removed"):
        fetch("owner/model", None, tmp_path / "m", unheard)
    assert not (tmp_path / "m").exists() and BIG not in files(tmp_path / "m.partial")
    hub.files.update(good)
    hub.requests.clear()
    fetch("owner/model", None, tmp_path / "m", unheard)
    assert hub.asked(BIG) == [""] and hub.asked("model-00001-of-00003.safetensors") == []


def test_every_way_the_hub_can_refuse_is_one_line_with_the_remedy(hub, fails, tmp_path, monkeypatch):
    to = ("--to", tmp_path / "m")
    unknown = fails("owner/nothing", *to)
    assert "owner/nothing: no such repository; check the name, or log in: hf auth login" in unknown
    assert "has no revision 'v9'; give a branch, tag or commit" in fails("owner/model", "--revision", "v9", *to)
    assert "'a/b/c' is no repository; write OWNER/NAME" in fails("a/b/c", *to)
    hub.gated = True
    assert f"owner/model: is gated; accept its terms at {hub.url}/owner/model" in fails("owner/model", *to)
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    line = fails("owner/model", *to)
    assert "http://127.0.0.1:9: does not answer as a hub (Connect" in line and "check the network" in line
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert "HF_HUB_OFFLINE is set, so nothing is fetched" in fails("owner/model", *to)
    assert files(tmp_path) - {"f.pt", "f.safetensors"} == set()


def test_a_full_disk_keeps_what_came_and_says_what_is_needed(hub, tmp_path):
    def on_a_small_disk() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
        try:
            fetch("owner/model", None, tmp_path / "m", unheard)
        except OutputError as error:
            (tmp_path / "said").write_text(str(error))

    os.waitpid(in_child(on_a_small_disk), 0)
    part, needed = (
        tmp_path / "m.partial/decoder-turbo/model.safetensors.part",
        len(hub.files["decoder/model.safetensors"]),
    )
    said = (tmp_path / "said").read_text()
    assert said.startswith(f"{part}: cannot be written (File too large); needed {needed} bytes, free ")
    assert "what came is kept" in said and "config.json" in files(tmp_path / "m.partial")
    fetch("owner/model", None, tmp_path / "m", unheard)
    assert hub.asked("config.json") == [""]


def test_a_disk_too_small_for_all_is_told_before_the_first_file(hub, tmp_path, monkeypatch):
    free = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr("unveil.weights.fetch.shutil.disk_usage", lambda _: free)
    with pytest.raises(OutputError, match=r"m.partial: needs \d{7} more bytes, free 1000 bytes"):
        fetch("owner/model", None, tmp_path / "m", unheard)
    assert files(tmp_path / "m.partial") == {SOURCE_FILE}


@pytest.mark.parametrize("name", ["../x.json", "/etc/x.json", "a/../../x.json", "a\\x.json"])
def test_a_repository_that_names_files_outside_is_refused_whole(hub, tmp_path, name):
    hub.files[name] = b"{}"
    with pytest.raises(WeightsError, match="owner/model: lists a file outside its directory"):
        fetch("owner/model", None, tmp_path / "m", unheard)
    assert not (tmp_path / "m.partial").exists()


def test_a_repository_without_weights_is_refused(hub, tmp_path):
    hub.files = {n: d for n, d in hub.files.items() if not n.endswith(".safetensors")}
    with pytest.raises(WeightsError, match="holds no safetensors files"):
        fetch("owner/model", None, tmp_path / "m", unheard)


def test_a_damaged_note_of_the_source_is_an_error_that_names_it(released_directory, tmp_path):
    model = Path(shutil.copytree(released_directory, tmp_path / "m"))
    assert inspect(model).source is None
    (model / SOURCE_FILE).write_text('{"repository": 3}')
    with pytest.raises(WeightsError, match=f"{SOURCE_FILE}: cannot be read"):
        inspect(model)
