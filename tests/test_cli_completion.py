"""Shell completion: the scripts are asked as the shells would ask them."""

import shutil
import subprocess

import pytest

from keras_precision.cli.commands import COMMANDS
from keras_precision.cli.main import main


def script(shell: str, capsys: pytest.CaptureFixture[str]) -> str:
    """Return the script for a shell."""
    assert main(["completion", shell]) == 0
    return capsys.readouterr().out


@pytest.fixture
def completed(tmp_path, capsys):
    """Return what bash offers behind a command line; its folder holds a file and a folder."""
    source = tmp_path / "completion.bash"
    source.write_text(script("bash", capsys))
    there = tmp_path / "there"
    (there / "results").mkdir(parents=True)
    (there / "model.keras").touch()

    def offered(*words: str) -> set[str]:
        line = " ".join(f"'{word}'" for word in ("keras-precision", *words))
        asking = f"""
            source {source}
            COMP_WORDS=({line}); COMP_CWORD={len(words)}
            _shtab_keras_precision keras-precision '{words[-1]}' '{words[-2] if len(words) > 1 else "keras-precision"}'
            printf '%s\\n' "${{COMPREPLY[@]}}"
        """
        done = subprocess.run(
            ["bash", "--norc", "-c", asking], cwd=there, capture_output=True, text=True, check=True, timeout=60
        )
        return set(done.stdout.split())

    return offered


def test_bash_completes_commands(completed):
    """An empty word is any command, the beginning of one that command."""
    assert {command.name for command in COMMANDS} <= completed("")
    assert completed("expo") == {"export"}


def test_bash_completes_options_and_choices(completed):
    """Options are those of the command, and choices those of the option."""
    assert completed("export", "--prec") == {"--precision"}
    assert completed("export", "--max-d") == set()
    assert completed("check", "--max-d") == {"--max-drop"}
    assert completed("export", "--format", "") >= {"tflite", "onnx", "openvino", "coreml"}
    assert completed("completion", "") >= {"bash", "zsh", "fish"}


def test_bash_completes_files(completed):
    """Where a file is due, files are offered, and folders on the way to them."""
    assert completed("export", "mod") == {"model.keras"}
    assert completed("export", "model.keras", "-o", "") == {"model.keras", "results"}


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_every_shell_gets_every_command_and_option(shell, capsys):
    """The script of every shell has all commands, and is one that the shell can read, where it is installed."""
    text = script(shell, capsys)
    assert "keras-precision" in text
    assert [command.name for command in COMMANDS if command.name not in text] == []
    assert [option for option in ("max-metric-drop", "per-operator", "max-slowdown") if option not in text] == []
    if shutil.which(shell) is not None:
        assert subprocess.run([shell, "-n"], input=text, text=True, capture_output=True, check=False).returncode == 0


def test_an_unknown_shell_is_refused(capsys):
    """The shells that there are scripts for are named."""
    with pytest.raises(SystemExit, match="2"):
        main(["completion", "csh"])
    assert "fish" in capsys.readouterr().err
