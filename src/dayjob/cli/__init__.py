"""The command line: one file a command family. This is where parts are handed to each other.

Exit status: 0 done; 1 something is not well (`doctor`, `backup`), or interrupted; 2 not done, and the message says why
and what to do.
"""

import errno
import sys
from typing import Annotated

import apsw
import typer
from rich.console import Console
from rich.markup import escape

from dayjob.cli.commands import Commands
from dayjob.endings import DayjobError
from dayjob.version import VERSION

app = typer.Typer(
    name="dayjob",
    cls=Commands,
    help="A learning loop for deployed models: serve, remember, learn, and promote only what the record proves better.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _say_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"dayjob {VERSION}")
        raise typer.Exit


@app.callback()
def _dayjob(
    version: Annotated[
        bool, typer.Option("--version", callback=_say_version, is_eager=True, help="Say which version this is.")
    ] = False,
) -> None:
    """Its help is the application's."""


REMEDIES = {
    errno.ENOENT: "check the path",
    errno.EACCES: "run as the user that owns it, or name another path",
    errno.EPERM: "run as the user that owns it, or name another path",
    errno.EROFS: "name a path on a disk that can be written",
    errno.EEXIST: "name a directory",
    errno.ENOTDIR: "name a directory",
    errno.EISDIR: "name a file",
    errno.ENOSPC: "free some space, then try again",
    errno.EMFILE: "raise the limit of open files (ulimit -n)",
}


def main() -> None:
    """Run a command; an error of ours, of the disk or of a database is one line that says what to do, exit code 2."""
    try:
        app()
    except DayjobError as error:
        _end(str(error))
    except OSError as error:
        _end(words_of(error))
    except apsw.Error as error:
        _end(words_of_database(error))


def words_of(error: OSError) -> str:
    """An error of the operating system as a sentence with its remedy."""
    what = "" if error.filename is None else f"{error.filename}: "
    remedy = REMEDIES.get(error.errno or 0, "`dayjob doctor` looks at the machine")
    return f"{what}{error.strerror or error}; {remedy}"


def words_of_database(error: apsw.Error) -> str:
    """An error of a database of ours as a sentence with its remedy."""
    if isinstance(error, apsw.NotADBError | apsw.CorruptError):
        return f"a database of this data directory is damaged ({error}): restore it from a backup (dayjob backup)"
    if isinstance(error, apsw.BusyError | apsw.LockedError):
        return "a database of this data directory is held by another process: try again; if it stays, stop that process"
    if isinstance(error, apsw.FullError):
        return "the disk is full: nothing was changed; free some space and try again"
    return f"a database of this data directory cannot be used ({error}): `dayjob doctor --data DIR` says what is wrong"


def _end(message: str) -> None:
    Console(stderr=True, soft_wrap=True).print(f"[bold red]error:[/] {escape(message)}", highlight=False)
    sys.exit(2)
