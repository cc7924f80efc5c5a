"""What every command line has: --version, -h, shell completion. Real processes, for the exit codes."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import semdpo
from semdpo.cli.ending import finish

HEAVY = ("torch", "transformers", "diffusers", "pandas", "scipy", "pyarrow", "matplotlib", "numpy", "PIL", "pydantic")


@pytest.fixture
def semdpo_script(tmp_path: Path) -> Path:
    """The console script as pip writes it, since completion goes by the command's name."""
    script = tmp_path / "bin/semdpo"
    script.parent.mkdir()
    script.write_text(f"#!{sys.executable}\nfrom semdpo.cli import main\nmain()\n")
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    return script


def _run(*command: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | environment)


def test_the_version() -> None:
    done = _run(sys.executable, "-m", "semdpo", "--version")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"semdpo {semdpo.__version__}\n", "")


@pytest.mark.parametrize("command", [(), ("train",), ("world",), ("world", "build")], ids=" ".join)
def test_h_is_help_everywhere(command: tuple[str, ...]) -> None:
    short = _run(sys.executable, "-m", "semdpo", *command, "-h")
    long = _run(sys.executable, "-m", "semdpo", *command, "--help")
    assert short.returncode == long.returncode == 0
    assert short.stdout == long.stdout
    assert "-h, --help" in short.stdout


def test_without_a_command_the_help_is_shown_as_an_error() -> None:
    done = _run(sys.executable, "-m", "semdpo")
    assert done.returncode == 2
    assert "Commands:" in done.stderr


@pytest.mark.parametrize("asked", ["--help", "--version"])
def test_answering_imports_nothing_heavy(asked: str) -> None:
    code = f"""
import sys
from semdpo.cli import main
sys.argv = ["semdpo", {asked!r}]
try:
    main()
finally:
    print([name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)
"""
    assert _run(sys.executable, "-c", code).stderr == "[]\n"


def test_completion_can_be_shown(semdpo_script: Path) -> None:
    # A shell above the command, by which it knows whose completion is wanted.
    done = _run("bash", "-c", f"{semdpo_script} --show-completion; exit $?")
    assert done.returncode == 0, done.stderr
    assert "complete -o default -F _semdpo_completion semdpo" in done.stdout


@pytest.mark.parametrize(
    ("typed", "expected"),
    [("semdpo opt", ["optimize"]), ("semdpo world s", ["show"]), ("semdpo train --conf", ["--config"])],
)
def test_completion_completes(semdpo_script: Path, typed: str, expected: list[str]) -> None:
    place = str(len(typed.split()) - 1)
    done = _run(semdpo_script, _SEMDPO_COMPLETE="complete_bash", COMP_WORDS=typed, COMP_CWORD=place)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == expected


@pytest.mark.parametrize("failure", [torch.OutOfMemoryError("CUDA out of memory."), MemoryError()])
def test_a_lack_of_memory_ends_a_command_with_one_sentence(
    failure: Exception, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(**_: object) -> None:
        raise failure

    monkeypatch.setattr(sys, "argv", ["semdpo"])
    with pytest.raises(SystemExit) as ended:
        finish(full)
    assert ended.value.code == 2
    said = "semdpo: there is not enough memory; lower the batch size, or use a machine with more\n"
    assert capsys.readouterr().err == said
