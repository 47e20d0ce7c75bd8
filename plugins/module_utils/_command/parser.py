# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The command line of ``portknock``, read."""

import argparse
from typing import Any, NoReturn

from ansible_collections.sesame.portknock.plugins.module_utils._command.verbs import (
    DESCRIPTION,
    EXIT_CODES,
    USAGE,
    VERBS,
    Verb,
)


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line."""

    def error(self, message: str) -> NoReturn:
        """End with the exit code for a command line that is not valid."""
        self.exit(USAGE, f"portknock: {message}. Try: {self.prog} --help\n")


def parser() -> argparse.ArgumentParser:
    """Return the parser; what it reads has ``verb``, and each argument of that by its name in small letters."""
    made = _Parser(
        prog="portknock",
        description=DESCRIPTION,
        epilog="Exit codes: " + ", ".join(f"{code} {meaning}" for code, meaning in EXIT_CODES) + ".",
    )
    verbs = made.add_subparsers(dest="verb", metavar="VERB", parser_class=_Parser)
    verbs.required = True
    for verb in VERBS:
        _add(verbs, verb)
    return made


def _add(verbs: Any, verb: Verb) -> None:
    made = verbs.add_parser(
        verb.name, help=verb.summary, description=f"{verb.summary[0].upper()}{verb.summary[1:]}. {verb.text}"
    )
    for argument in verb.arguments:
        flag, _blank, value = argument.name.partition(" ")
        if value:
            made.add_argument(flag, metavar=value, help=argument.help)
        elif argument.is_flag:
            made.add_argument(flag, help=argument.help, action="store_true")
        else:
            made.add_argument(
                argument.name.lower().replace("|", "_"),
                metavar=argument.name,
                help=argument.help,
                nargs="?" if argument.optional else None,
            )


__all__ = ("parser",)
