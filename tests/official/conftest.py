"""The golden checkpoints as one released directory: made to fit each other with random rows for more codes."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from unveil.weights.names import SIGVQ_FILE
from unveil.weights.sigvq import convert_sigvq

GOLDEN = Path(__file__).parents[1] / "golden"


def _grow(file: Path, rows: int, to: int) -> None:
    """Every tensor with as many rows as there are codes gets more."""
    state = load_file(file)
    grown = [name for name, tensor in state.items() if tensor.ndim == 2 and tensor.shape[0] == rows]
    assert len(grown) == 1
    more = torch.randn(to - rows, state[grown[0]].shape[1], generator=torch.Generator().manual_seed(0))
    save_file(state | {grown[0]: torch.cat((state[grown[0]], more.to(state[grown[0]].dtype)))}, file)


@pytest.fixture(scope="session")
def released(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Treat as read-only."""
    path = Path(shutil.copytree(GOLDEN / "backbone-A/checkpoint", tmp_path_factory.mktemp("released") / "model"))
    shutil.copytree(GOLDEN / "image-A/checkpoint", path, dirs_exist_ok=True)
    convert_sigvq((path / SIGVQ_FILE).with_suffix(".pt"), path / SIGVQ_FILE)
    described = json.loads((path / "image_tokenizer/config.json").read_text())
    has, wanted = described["vq_config"]["num_embeddings"], 128
    described["vq_config"]["num_embeddings"] = wanted
    (path / "image_tokenizer/config.json").write_text(json.dumps(described))
    described = json.loads((path / "decoder/config.json").read_text())
    (path / "decoder/config.json").write_text(json.dumps(described | {"axes_lens": [4096, 128, 128]}))
    for file in ("image_tokenizer/model.safetensors", SIGVQ_FILE):
        _grow(path / file, has, wanted)
    return path
