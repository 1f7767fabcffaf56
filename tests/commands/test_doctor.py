"""What the doctor sees beyond versions of packages."""

from __future__ import annotations

from pathlib import Path

import pytest

from megatron_rl.commands import doctor


def test_every_verifier_is_loaded() -> None:
    assert doctor.verifiers().found == "math, code, stem, logic, instruct"


@pytest.mark.parametrize("module", ["langdetect", "math_verify", "reasoning_gym"])
def test_a_package_that_only_one_verifier_needs_is_missed(
    module: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / f"{module}.py").write_text(f"raise ModuleNotFoundError({f'No module named {module!r}'!r})")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    finding = doctor.verifiers()
    assert finding.blocks and "make setup" in finding.remedy
    assert module.replace("_", "-") in finding.remedy.replace("_", "-")


@pytest.mark.parametrize(
    ("known", "built", "blocks"),
    [("13.0", "13.0", False), ("12.8", "13.0", True), ("13.0", "13.2", False), ("14.1", "13.0", False)],
)
def test_a_driver_that_is_too_old_for_torch_is_named(
    known: str, built: str, blocks: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "driver_release", lambda: known)
    monkeypatch.setattr("torch.version.cuda", built)
    finding = doctor.driver()
    assert finding.blocks is blocks
    assert known in (finding.remedy if blocks else finding.found)


def test_no_driver_is_no_trouble_on_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "driver_release", lambda: "")
    assert not doctor.driver().blocks
