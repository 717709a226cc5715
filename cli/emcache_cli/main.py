"""Entry point: run a command, and turn what it raises into a sentence and an exit code.

Exit codes: 0 done, 1 a check failed, 2 wrong use, 130 interrupted.
"""

from __future__ import annotations

import errno
import gc
import os
import sys

from emcache.errors import EmcacheError
from emcache_cli.app import app

_INTERRUPTED = 130
_OBJECTS = 50_000
"""New objects after which Python looks for garbage; usually 700."""
# What the machine refuses, and its user can fix.
_ENVIRONMENT = (
    errno.EACCES,
    errno.EPERM,
    errno.EROFS,
    errno.ENOSPC,
    errno.EDQUOT,
    errno.ENAMETOOLONG,
    errno.ENOTDIR,
    errno.EISDIR,
    errno.EEXIST,
)
_INTERRUPT_MESSAGE = (
    "Interrupted. Finished records, masks and shards of tokens are kept; an extraction, a training "
    "or a study goes on where it stopped when the same command runs again."
)


def main() -> None:
    """Run the command line."""
    # Commands import what they need, which makes many objects and no garbage among them.
    gc.set_threshold(_OBJECTS)
    try:
        app(prog_name="emcache")
    except EmcacheError as error:
        _fail(f"Error: {error}", error.exit_code)
    except BrokenPipeError:
        # The reader of the output has ended, as in `emcache query ... | head`.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(_INTERRUPTED)
    except OSError as error:
        if error.errno not in _ENVIRONMENT:
            raise
        name = f" ({error.filename})" if error.filename else ""
        _fail(f"Error: {error.strerror}{name}; fix that, and run the command again.", 2)
    except KeyboardInterrupt:
        _fail(_INTERRUPT_MESSAGE, _INTERRUPTED)
    except SystemExit as end:
        # Within a command, typer turns Ctrl-C into this code and says nothing.
        if end.code == _INTERRUPTED:
            _fail(_INTERRUPT_MESSAGE, _INTERRUPTED)
        raise


def _fail(message: str, code: int) -> None:
    sys.stdout.flush()
    print(message, file=sys.stderr)  # noqa: T201 - the one place where errors are shown
    sys.exit(code)
