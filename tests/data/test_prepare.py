"""`data prepare`, from published layouts to a data folder: what it holds, what it dropped, what a kill changes."""

from __future__ import annotations

import gzip
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import zstandard

from megatron_rl.commands.data import show
from megatron_rl.config.checks import UserError
from megatron_rl.config.mixture import Mixture
from megatron_rl.data import origins
from megatron_rl.data.drafts import RULES
from megatron_rl.data.items import read_data
from megatron_rl.data.prepare import Order, digests, prepare
from tests.data.mixture import MIXTURE

HERE = Path(__file__).parent
SOURCES, FIVE_DOMAINS = HERE / "sources", HERE / "five_domains"
COMMAND = [sys.executable, "-m", "megatron_rl", "data", "prepare", str(HERE / "mixture.py")]
LONG = "Two trains leave two towns that lie far apart at the same time and meet after some hours of a steady journey "


class Silent:
    def begin(self, what: str, total: int) -> None: ...

    def advance(self, amount: int) -> None: ...


def made(folder: Path, mixture: Mixture = MIXTURE, **changes: Any) -> dict[str, Any]:
    order = Order(
        mixture=mixture,
        folder=folder,
        mirror=SOURCES,
        given={},
        without=(),
        evaluation=(),
        tokenizer=None,
        processes=1,
        packs=False,
        allows_unsafe_sandbox=False,
    )
    return prepare(replace(order, **changes), Silent())


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != ".lock"}


@pytest.mark.e2e
def test_a_preparation_that_was_killed_goes_on_to_the_same_bytes_which_are_the_committed_ones(tmp_path: Path) -> None:
    command = [*COMMAND, "--mirror", str(SOURCES), "--to", str(tmp_path), "--processes", "1"]
    first = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not list(tmp_path.glob("work/*/*.part.zst")) and first.poll() is None:
        assert time.monotonic() < deadline, "no part was written"
        time.sleep(0.01)
    first.send_signal(signal.SIGKILL)
    first.wait()
    assert not (tmp_path / "manifest.json").exists(), "it was killed before its end"
    parts = {path: path.stat().st_mtime_ns for path in tmp_path.glob("work/*/*.part.zst")}
    time.sleep(0.5)  # its process dies with it
    second = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert second.returncode == 0, second.stderr
    assert parts, "something was there to go on from"
    assert "five_domains 1.0.0 is in" in second.stdout
    assert contents(tmp_path) == contents(FIVE_DOMAINS)


@pytest.mark.e2e  # for its cost alone
def test_ctrl_c_ends_a_preparation_in_one_line_and_it_goes_on_to_the_same_bytes(tmp_path: Path) -> None:
    command = [*COMMAND, "--mirror", str(SOURCES), "--to", str(tmp_path), "--processes", "2"]
    first = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
    deadline = time.monotonic() + 120
    while not list(tmp_path.glob("work/*/*.part.zst")) and first.poll() is None:
        assert time.monotonic() < deadline, "no part was written"
        time.sleep(0.01)
    os.killpg(first.pid, signal.SIGINT)  # as a terminal does: to all of its processes
    _, said = first.communicate(timeout=60)
    assert (first.returncode, said) == (130, "stopped: start the same command again to go on\n")
    second = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert second.returncode == 0, second.stderr
    assert contents(tmp_path) == contents(FIVE_DOMAINS)


def test_the_committed_folder_is_read_and_its_manifest_tells_of_it() -> None:
    data = read_data(FIVE_DOMAINS)
    assert Counter(item.domain for item in data.train) == dict.fromkeys(
        ("math", "code", "stem", "logic", "instruct"), 8
    )
    manifest = json.loads((FIVE_DOMAINS / "manifest.json").read_text())
    assert manifest["sources"]["scp"]["dropped"] == {"no_answer": 1, "disagreement": 1}
    assert manifest["domains"]["math"] == {
        "kept": 8,
        "published": 8,
        "dropped": {"no_answer": 1, "exact_duplicate": 1},
    }
    assert set(manifest["files"]) == {path.name for path in FIVE_DOMAINS.glob("*-*.jsonl")}
    assert any("--evaluation" in line for line in manifest["not_checked"])


@pytest.mark.parametrize("name", ["work/thesis.tex", "train.jsonl", "validation-math.jsonl.zst"])
def test_a_folder_of_somebody_else_keeps_what_it_has(name: str, tmp_path: Path) -> None:
    (tmp_path / "prorl").mkdir()  # data of its own, which is nobody's concern
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("mine")
    with pytest.raises(UserError, match=rf"holds {name}, and no manifest.json that says .* with --to$"):
        made(tmp_path)
    left = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    assert left == {name} and (tmp_path / name).read_text() == "mine"


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The manifest of a mixture with a planted row for each rule, and what was dropped."""
    folder = tmp_path_factory.mktemp("planted")
    math = [
        '{"problem": "What is 2+3?", "answer": "5"}',
        '{"problem": "What is 2+',
        "\ufeff[1, 2",
        '{"problem": "What is 2+4?", "answer": ""}',
        '{"problem": "What is 2+5?", "answer": "\\\\frac{1"}',
        json.dumps({"problem": "What is 2+6?", "answer": "1" * 30_000}),
        '{"problem": "what is $2 + 3$", "answer": "5"}',
        json.dumps({"problem": LONG + "where is that", "answer": "7"}),
        json.dumps({"problem": LONG + "where was that", "answer": "7"}),
        json.dumps(
            {"problem": "What is the largest prime that divides the number of all the seats there are?", "answer": "7"}
        ),
        json.dumps({"problem": "word " * 60, "answer": "7"}),
        '{"problem": "What is \\ud800?", "answer": "5"}',
    ]
    verl = {"data_source": "taco", "ability": "code", "extra_info": {}}

    def program(problem: str, truth: Any) -> str:
        return json.dumps(
            verl | {"prompt": [{"role": "user", "content": problem}], "reward_model": {"ground_truth": truth}}
        )

    fine = {"inputs": ["3\n"], "outputs": ["6\n"]}
    code = [
        program("Double n.", fine),
        program("Print any of them.", fine),
        program("This is an interactive problem.", fine),
        program("Print a lot.", {"inputs": ["x" * 5000], "outputs": ["y"]}),
        program("Print nothing.", {"inputs": ["3\n"], "outputs": [""]}),
        json.dumps(json.loads(program("Halve n.", fine)) | {"solutions": ["print(int(input()) // 2)"]}),
        json.dumps(json.loads(program("Double the n.", fine)) | {"solutions": ["print(int(input()) * 2)"]}),
        json.dumps(json.loads(program("What is 2+2?", "4")) | {"ability": "math"}),
    ]
    puzzle = {"question": "", "answer": "1 2", "metadata": {}}
    puzzles = [{"prompt": "Solve it.", "item": {"task": "sudoku", "entry": puzzle}}]  # its scorer fails on it
    science = [
        {"problem": "What is the force?", "extract_solution": "It is 6 N.", "r1_response": "\\boxed{7 N}"},
        {"problem": "What is the mass?", "extract_solution": "It is 6 kg.", "r1_response": "It is 6 kg."},
        {"problem": "a) What is F? b) What is W?", "extract_solution": "6", "r1_response": "\\boxed{6}"},
    ]
    for name, rows in (("puzzles", puzzles), ("science", science)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "math.jsonl.gz").write_bytes(gzip.compress("\n".join(math).encode(errors="surrogatepass")))
    (folder / "code.jsonl.zst").write_bytes(zstandard.compress("\n".join(code).encode()))
    (folder / "test.jsonl").write_text(
        '{"question": "What is the largest prime that divides the number of all the seats there are?"}\n'
    )
    deepscaler, eurus, scp = MIXTURE.train[:3]
    own = replace(deepscaler, name="puzzles", domain="logic", reader="items")
    rules = replace(MIXTURE.rules, max_test_bytes=1000, max_prompt_tokens=250)
    mixture = replace(MIXTURE, train=(replace(deepscaler, max_prompts=1), eurus, scp, own), rules=rules)
    mixture = replace(mixture, validation=MIXTURE.validation[:1])
    given = {"deepscaler": [folder / "math.jsonl.gz"], "eurus": [folder / "code.jsonl.zst"]}
    given |= {"puzzles": [folder / "puzzles.jsonl"], "scp": [folder / "science.jsonl"]}
    manifest = made(
        folder / "data",
        mixture,
        given=given,
        evaluation=(folder / "test.jsonl",),
        tokenizer=HERE.parents[1] / "demo" / "model",
        packs=True,
    )
    dropped = [json.loads(line) for line in (folder / "data" / "dropped.jsonl").read_text().splitlines()]
    return manifest | {"found": {(row["source"], row["row"]): row["rule"] for row in dropped}, "folder": folder}


@pytest.mark.parametrize(
    ("source", "row", "rule"),
    [
        ("deepscaler", 2, "malformed"),
        ("deepscaler", 3, "malformed"),
        ("deepscaler", 4, "no_answer"),
        ("deepscaler", 5, "refused"),
        ("deepscaler", 6, "wrong_own_answer"),
        ("deepscaler", 7, "exact_duplicate"),
        ("deepscaler", 9, "near_duplicate"),
        ("deepscaler", 10, "overlap"),
        ("deepscaler", 11, "too_long"),
        ("deepscaler", 12, "malformed"),
        ("eurus", 2, "several_outputs"),
        ("eurus", 3, "interactive"),
        ("eurus", 4, "tests_too_large"),
        ("eurus", 5, "refused"),
        ("eurus", 6, "wrong_own_answer"),
        ("puzzles", 1, "no_verdict"),
        ("scp", 1, "disagreement"),
        ("scp", 2, "no_short_answer"),
        ("scp", 3, "several_questions"),
    ],
)
def test_a_planted_row_is_dropped_by_its_rule(planted: dict[str, Any], source: str, row: int, rule: str) -> None:
    assert planted["found"][source, row] == rule
    assert planted["sources"][source]["dropped"][rule] >= 1


def test_every_rule_of_the_manifest_has_a_planted_row(planted: dict[str, Any]) -> None:
    applied = {rule for source in planted["sources"].values() for rule in source["dropped"]}
    assert applied == set(RULES) == set(planted["rules"])


def test_the_rest_is_kept_and_the_counts_add_up(planted: dict[str, Any]) -> None:
    for source in planted["sources"].values():
        assert source["rows"] == source["kept"] + sum(source["dropped"].values())
    assert planted["sources"]["eurus"]["kept"] == 2
    assert planted["sources"]["deepscaler"]["kept"] == 1
    assert planted["sources"]["deepscaler"]["dropped"]["not_drawn"] == 1
    data = read_data(planted["folder"] / "data")
    assert [item.prompt for item in data.train if item.domain == "code"] == ["Double n.", "Double the n."]
    assert planted["not_checked"] == []


def test_a_finished_folder_is_left_alone_and_another_mixture_does_not_go_into_it(tmp_path: Path) -> None:
    shutil.copytree(FIVE_DOMAINS, tmp_path, dirs_exist_ok=True)
    before = contents(tmp_path)
    assert made(tmp_path)["mixture"] == "five_domains 1.0.0"
    assert contents(tmp_path) == before
    with pytest.raises(UserError, match="holds data made of something else; give another with --to"):
        made(tmp_path, without=("scp",))


@pytest.mark.parametrize(
    ("changes", "pattern"),
    [
        ({"without": ("math",)}, "source 'math': mixture five_domains has deepscaler, eurus"),
        ({"mirror": HERE}, r"holds none of deepscaler.json; download .*, or leave it out with --without deepscaler"),
        (
            {"given": {"math": [SOURCES]}},
            "--from math: mixture five_domains has deepscaler, .*; name one of them",
        ),
        ({"evaluation": (SOURCES / "PRIME-RL",)}, "has no .jsonl file"),
        ({"tokenizer": SOURCES}, "sources: its tokenizer does not load"),
    ],
)
def test_what_cannot_be_prepared_is_one_line(tmp_path: Path, changes: dict[str, Any], pattern: str) -> None:
    with pytest.raises(UserError, match=pattern):
        made(tmp_path, **changes)


def test_evaluation_sets_of_one_name_are_told_apart(tmp_path: Path) -> None:
    paths = [tmp_path / str(number) / "test.jsonl" for number in range(3)]
    for path in paths:
        path.parent.mkdir()
        path.write_text(path.parent.name)
    found = digests(paths)
    assert list(found) == ["test.jsonl", "test.jsonl 2", "test.jsonl 3"] and len(set(found.values())) == 3


def test_a_folder_that_cannot_be_written_names_the_option_that_gives_another(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"file: cannot be written to or locked .*; mend that, .* with --to$"):
        made(tmp_path / "file")


def test_a_part_without_a_row_is_one_line_with_what_became_of_them(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"problem": "2+3?", "answer": ""}\n{"pro')
    given = {"deepscaler": [tmp_path / "rows.jsonl"]}
    mixture = replace(MIXTURE, train=MIXTURE.train[:1], validation=MIXTURE.validation[:1])
    with pytest.raises(UserError, match=r"no row is left for train \(malformed 1, no_answer 1\); change the mixture"):
        made(tmp_path / "data", mixture, given=given)


@pytest.mark.parametrize("packs", [lambda rows: zstandard.compress(rows), gzip.compress])
def test_a_packed_file_that_is_cut_short_is_never_read_as_a_shorter_one(tmp_path: Path, packs: Any) -> None:
    rows = [json.dumps({"problem": f"What is {k}+3? {random.Random(k).random()}", "answer": "5"}) for k in range(3000)]
    whole = packs("\n".join(rows[:2000]).encode()) + packs("\n".join(rows[2000:]).encode())
    path = tmp_path / ("rows.jsonl.gz" if packs is gzip.compress else "rows.jsonl.zst")
    path.write_bytes(whole)
    assert sum(len(chunk.lines or ()) for chunk in origins.chunks("x", [(path.name, path)], ())) == 2999
    for length in (len(whole) - 1, len(whole) // 2, len(whole) // 5):
        path.write_bytes(whole[:length])
        with pytest.raises(UserError, match="cannot be unpacked .*; fetch it again"):
            list(origins.chunks("x", [(path.name, path)], ()))


@pytest.mark.parametrize(
    ("name", "source"),  # the first, before a process is started; or one behind it
    [
        ("cut.parquet", "deepscaler"),
        ("cut.parquet", "aime_2024"),
        ("cut.jsonl.zst", "aime_2024"),
        ("cut.jsonl.gz", "aime_2024"),
        ("cut.json", "aime_2024"),
    ],
)
def test_a_file_that_cannot_be_read_at_all_is_named(tmp_path: Path, name: str, source: str) -> None:
    rows = b'[{"problem": "2+3?", "answer": "5"}, {"pro'
    packed = {"zst": zstandard.compress(rows)[:-8], "gz": gzip.compress(rows)[:-8], "parquet": b"PAR1"}
    (tmp_path / name).write_bytes(packed.get(name.rpartition(".")[2], rows))
    with pytest.raises(UserError, match=rf"{name}: .*fetch it again"):
        made(tmp_path / "data", replace(MIXTURE, validation=MIXTURE.validation[:1]), given={source: [tmp_path / name]})


@pytest.mark.parametrize("error", [OSError, *origins._connection_errors()])
def test_a_hub_that_cannot_be_reached_is_one_line(
    error: type[Exception], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def list_repo_files(self: Any, **place: Any) -> list[str]:
        raise error("Name or service not known\nsecond line")

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.HfApi.list_repo_files", list_repo_files)
    with pytest.raises(RuntimeError, match=r"cannot be fetched \(Name or service not known\); log in .* --mirror"):
        made(tmp_path, mirror=None)


COMMIT = "0123456789abcdef0123456789abcdef01234567"


def test_a_revision_that_moves_is_read_at_one_commit_which_is_recorded_and_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    scp, asked = MIXTURE.train[2], set()

    def dataset_info(self: Any, repository: str, *, revision: str) -> Any:
        assert (repository, revision) == (scp.repository, "main")
        return SimpleNamespace(sha=COMMIT)

    def list_repo_files(self: Any, *, repo_id: str, repo_type: str, revision: str) -> list[str]:
        asked.add((repo_id, revision))
        return [path.relative_to(SOURCES / repo_id).as_posix() for path in (SOURCES / repo_id).rglob("*")]

    def hf_hub_download(*, filename: str, repo_id: str, repo_type: str, revision: str) -> str:
        asked.add((repo_id, revision))
        return str(SOURCES / repo_id / filename)

    monkeypatch.setattr("huggingface_hub.HfApi.dataset_info", dataset_info)
    monkeypatch.setattr("huggingface_hub.HfApi.list_repo_files", list_repo_files)
    monkeypatch.setattr("huggingface_hub.hf_hub_download", hf_hub_download)
    puzzles = tuple(source for source in MIXTURE.validation if source.reader == "reasoning_gym")
    manifest = made(tmp_path, replace(MIXTURE, train=(scp,), validation=puzzles), mirror=None)
    assert asked == {(scp.repository, COMMIT)}
    assert manifest["sources"]["scp"]["revision"] == "main" and manifest["sources"]["scp"]["commit"] == COMMIT
    show(manifest, tmp_path)
    assert f"source 'scp': revision 'main' of {scp.repository} moves; read at {COMMIT}" in capsys.readouterr().out


def test_the_commit_of_a_mirror_is_what_the_hubs_client_wrote_there(tmp_path: Path) -> None:
    scp, deepscaler = MIXTURE.train[2], MIXTURE.train[0]
    assert origins.commit_of(scp, tmp_path, ()) is None
    note = tmp_path / scp.repository / ".cache/huggingface/download/rows.jsonl.metadata"
    note.parent.mkdir(parents=True)
    note.write_text(f"{COMMIT}\nabc\n1.0\n")
    assert origins.commit_of(scp, tmp_path, ()) == COMMIT
    cache = tmp_path / f"datasets--{scp.repository.replace('/', '--')}"
    (cache / "snapshots" / COMMIT[::-1]).mkdir(parents=True)
    (cache / "snapshots" / COMMIT[::-1] / "rows.jsonl").write_text("{}")
    (cache / "refs").mkdir()
    (cache / "refs" / "main").write_text(COMMIT[::-1])
    assert origins.commit_of(scp, tmp_path, ()) == COMMIT[::-1], "a cache goes before a folder"
    assert origins.commit_of(scp, tmp_path, (SOURCES,)) is None, "given files do not tell"
    assert origins.commit_of(deepscaler, tmp_path, ()) == deepscaler.revision


def test_the_hub_is_asked_for_the_pinned_revision_and_only_for_the_wanted_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, str, str]] = []

    def list_repo_files(self: Any, *, repo_id: str, repo_type: str, revision: str) -> list[str]:
        assert repo_type == "dataset"
        return [
            "README.md",
            *(path.relative_to(SOURCES / repo_id).as_posix() for path in (SOURCES / repo_id).rglob("*")),
        ]

    def hf_hub_download(*, filename: str, repo_id: str, repo_type: str, revision: str) -> str:
        asked.append((repo_id, revision, filename))
        return str(SOURCES / repo_id / filename)

    monkeypatch.setattr("huggingface_hub.HfApi.list_repo_files", list_repo_files)
    monkeypatch.setattr("huggingface_hub.hf_hub_download", hf_hub_download)
    eurus = MIXTURE.train[1]
    assert origins.locate(eurus, None, ()) == [("train.parquet", SOURCES / eurus.repository / "train.parquet")]
    assert asked == [(eurus.repository, eurus.revision, "train.parquet")]


def test_where_the_hub_must_not_be_asked_its_cache_has_what_was_fetched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    eurus = MIXTURE.train[1]
    place = tmp_path / f"datasets--{eurus.repository.replace('/', '--')}"
    wanted = f"run `HF_HUB_OFFLINE=0 hf download --repo-type dataset {eurus.repository} --revision {eurus.revision} "
    with pytest.raises(UserError, match=re.escape(wanted)):
        origins.locate(eurus, None, ())
    file = place / "snapshots" / "c0ffee" / "train.parquet"
    file.parent.mkdir(parents=True)
    file.touch()
    (file.parent / "README.md").touch()
    branch = replace(eurus, revision="main")
    (place / "refs").mkdir()
    (place / "refs" / "main").write_text("c0ffee")
    assert origins.locate(branch, None, ()) == [("train.parquet", file)]
    assert origins.commit_of(branch, None, ()) == "c0ffee"
    with pytest.raises(UserError, match=f"lacks .* of {eurus.repository}, and HF_HUB_OFFLINE forbids to fetch it"):
        origins.locate(eurus, None, ())  # another commit
