"""Whether a run's folder is whole: ``tracefl verify RUN [key=PUBLIC_KEY] [sign=PRIVATE_KEY] [--json]``.

Compares every file that decides an answer with its checksum in SHA256SUMS, says which are missing and which have none,
reads each one, compares what they say of one another, and averages the stored clients of every stored round again.
Exit status 0 where the folder is whole, 1 where it is not, 2 after bad input.

Whoever may write into a folder can also make its checksums again. sign=PRIVATE_KEY signs those of a whole run, in
SHA256SUMS.sig; key=PUBLIC_KEY checks that they are signed with the private key of this one. Keys are Ed25519, in PEM or
as OpenSSH has them:

    openssl genpkey -algorithm ed25519 -out key.pem
    openssl pkey -in key.pem -pubout -out key.pub
"""

import sys
from pathlib import Path

from tracefl.common.paths import expand
from tracefl.conf.tool import JSON, Given, Grammar, run_tool
from tracefl.errors import ConfigError, RecordError


def _file(key: str, given: str) -> Path:
    path = expand(given)
    if not path.is_file():
        raise ConfigError(f"{key}={given!r} is no file; give that of the key")
    return path


GRAMMAR = Grammar(
    usage="tracefl verify RUN [key=PUBLIC_KEY] [sign=PRIVATE_KEY] [--json]", keys={"key": _file, "sign": _file}
)


def main() -> None:
    """Verify one run; bad input is one line and exit status 2."""
    run_tool(__doc__, GRAMMAR, _main)


def _main(given: Given) -> None:
    from tracefl.questions.verify import verify
    from tracefl.report.console import TerminalConsole, say_json
    from tracefl.report.verify import as_json, show

    if len(given.picked("key", "sign")) > 1:
        raise ConfigError("sign= makes a signature and key= checks one; give one of them, and then the other")
    found = verify(given.folder, given.get("key"), given.get("sign"))
    if JSON in given.flags:
        say_json(as_json(found))
    else:
        show(TerminalConsole(), found)
    if "sign" in given.values and found.signature != "made":
        raise RecordError(f"{given.folder} is not whole, and was not signed", 1)
    if not found.is_whole:
        sys.stdout.flush()
        sys.exit(1)


if __name__ == "__main__":
    main()
