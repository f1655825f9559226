"""Shell completion: typer writes the scripts, and answers the shell.

typer's own options for it are left out: on the way to every help they would import pydantic, twice the time of one.
"""

from __future__ import annotations

import os

import typer

from redraft.core.errors import InputError

_ASKED = "_REDRAFT_COMPLETE"
_SHELLS = ("bash", "zsh", "fish", "powershell", "pwsh")


def begin() -> None:
    """Where a shell asks what may follow, makes typer ready to answer."""
    if _ASKED in os.environ:
        from typer.completion import completion_init

        completion_init()


def install() -> None:
    """Makes this shell complete from its next start on.

    Raises:
        InputError: a shell that is not known, or a home that cannot be written.
    """
    from typer.completion import install

    try:
        shell, path = install(shell=_shell(), prog_name="redraft", complete_var=_ASKED)
    except OSError as error:
        raise InputError(f"--install-completion: {error.filename}: {error.strerror or error}") from None
    typer.echo(f"{shell} completion installed in {path}; it works from the next start of the shell on")


def show() -> None:
    """Prints the script for this shell.

    Raises:
        InputError: a shell that is not known.
    """
    from typer.completion import get_completion_script

    typer.echo(get_completion_script(prog_name="redraft", complete_var=_ASKED, shell=_shell()))


def _shell() -> str:
    import shellingham

    try:
        name = shellingham.detect_shell()[0]
    except shellingham.ShellDetectionFailure:
        name = os.path.basename(os.environ.get("SHELL", ""))
    if name not in _SHELLS:
        raise InputError(f"no completion for {name or 'an unknown shell'}: there is one for {', '.join(_SHELLS)}")
    return name
