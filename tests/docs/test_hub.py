"""The pages' commands that fetch from the Hugging Face hub, as written, from a hub on this machine.

It has a few rows of every source in its published layout, and the demo's model in place of the real one.
"""

from __future__ import annotations

import csv
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from megatron_rl.data.items import read_data
from tests.docs.checkout import given, make_checkout
from tests.docs.hub import COMMIT, Hub, hub
from tests.docs.pages import DOWNLOAD, PREPARE, ROOT, lines_in

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

SOURCES = ROOT / "tests" / "data" / "sources"
MODELS = ("deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B", "nvidia/Nemotron-Research-Reasoning-Qwen-1.5B")
OF_THE_TESTS_OF_DATA = {
    PREPARE.replace("data/prorl", "data") + " --tokenizer MODEL_FOLDER",
    "megatron-rl data prepare tests/data/mixture.py --mirror tests/data/sources --to FOLDER",
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    folder = tmp_path_factory.mktemp("hub")
    shutil.copytree(SOURCES, folder, dirs_exist_ok=True)
    gpqa = folder / "Idavidrein" / "gpqa" / "gpqa_diamond.csv"
    gpqa.parent.mkdir(parents=True)
    with gpqa.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["Question", "Correct Answer", *(f"Incorrect Answer {number}" for number in (1, 2, 3))])
        writer.writerow(["Which gas do plants take up?", "carbon dioxide", "oxygen", "nitrogen", "argon"])
    names = [f"{path.parent.name}/{path.name}" for path in folder.glob("*/*")]
    with hub({name: folder / name for name in names} | dict.fromkeys(MODELS, ROOT / "demo" / "model")) as found:
        yield found


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkout(tmp_path_factory.mktemp("place").resolve() / "checkout")


def test_the_prompts_are_made_as_written(place: Path, server: Hub) -> None:
    done = given(place, PREPARE, HF_ENDPOINT=server.address)
    assert done.returncode == 0 and "manifest.json" in done.stdout, (done.stdout + done.stderr)[-3000:]
    folder = place / "data" / "prorl"
    data = read_data(folder)
    domains = {"math", "code", "stem", "logic", "instruct"}
    assert {item.domain for item in data.train} == {item.domain for item in data.validation} == domains
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["sources"]["scp"]["commit"] == COMMIT


@pytest.mark.parametrize("line", [one for one in lines_in("hub") if "HF_HOME" not in one and "hf download" in one])
def test_a_model_is_downloaded_as_written(line: str, place: Path, server: Hub) -> None:
    done = given(place, line, HF_ENDPOINT=server.address)
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    name = next(one for one in MODELS if one in line)
    folder = place / "huggingface" / "hub" / f"models--{name.replace('/', '--')}" / "snapshots" / COMMIT
    model = ROOT / "demo" / "model"
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == {
        path.name: path.read_bytes() for path in model.iterdir()
    }


def test_what_else_the_pages_fetch_is_the_same_into_another_folder_or_in_the_tests_of_data() -> None:
    same = {re.sub(r"^(HF_\w+=\S+ )+", "", line) for line in lines_in("hub")}
    same = {re.sub(r"--to /\S+", "--to data/prorl", line) for line in same}
    assert same == {PREPARE, DOWNLOAD, f"hf download {MODELS[1]} --revision main", *OF_THE_TESTS_OF_DATA}
