"""``keras-precision completion``."""

import argparse

from keras_precision.cli.command import Command, CommandOutput

__all__ = ["COMMAND"]

_SHELLS = ("bash", "zsh", "fish")


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("shell", choices=_SHELLS, help="the shell")


def _run(options: argparse.Namespace) -> CommandOutput:
    import shtab

    parser: argparse.ArgumentParser = options.parser
    _mark_files(parser)
    print(shtab.complete(parser, options.shell))
    return CommandOutput()


def _mark_files(parser: argparse.ArgumentParser) -> None:
    """Mark the arguments that are files or folders, by their metavar."""
    import shtab

    kinds = {"FILE": shtab.FILE, "PATH": shtab.FILE, "OLD": shtab.FILE, "NEW": shtab.FILE, "FOLDER": shtab.DIRECTORY}
    # argparse has no public list of a parser's arguments, only these attributes:
    # https://github.com/python/cpython/blob/v3.11.7/Lib/argparse.py
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for subparser in action.choices.values():
                _mark_files(subparser)
        elif isinstance(action.metavar, str) and action.metavar in kinds:
            action.complete = kinds[action.metavar]  # type: ignore[attr-defined]


COMMAND = Command(
    name="completion",
    help="print a shell script that completes commands, options and files",
    description="Prints a script for a shell, with which the tab key completes commands, options, choices and files.",
    examples=(
        "completion bash > ~/.local/share/bash-completion/completions/keras-precision",
        "completion zsh > ~/.zfunc/_keras-precision",
        "completion fish > ~/.config/fish/completions/keras-precision.fish",
    ),
    arguments=_arguments,
    run=_run,
    json=False,
)
