"""``keras-precision completion``."""

import argparse

from keras_precision.cli.verb import Answer, Verb

__all__ = ["VERB"]

_SHELLS = ("bash", "zsh", "fish")


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("shell", choices=_SHELLS, help="the shell that the script is for")


def _run(options: argparse.Namespace) -> Answer:
    import shtab

    parser: argparse.ArgumentParser = options.parser
    _name_files(parser)
    print(shtab.complete(parser, options.shell))
    return Answer()


def _name_files(parser: argparse.ArgumentParser) -> None:
    """Tell which arguments are files and folders: their metavariables say so."""
    import shtab

    kinds = {"FILE": shtab.FILE, "PATH": shtab.FILE, "OLD": shtab.FILE, "NEW": shtab.FILE, "FOLDER": shtab.DIRECTORY}
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for own in action.choices.values():
                _name_files(own)
        elif isinstance(action.metavar, str) and action.metavar in kinds:
            action.complete = kinds[action.metavar]  # type: ignore[attr-defined]


VERB = Verb(
    name="completion",
    help="print a script that completes verbs, options and files in a shell",
    description="Prints a script for a shell: with it, the tabulator completes verbs, options, choices and files.",
    examples=(
        "completion bash > ~/.local/share/bash-completion/completions/keras-precision",
        "completion zsh > ~/.zfunc/_keras-precision",
        "completion fish > ~/.config/fish/completions/keras-precision.fish",
    ),
    arguments=_arguments,
    run=_run,
    json=False,
)
