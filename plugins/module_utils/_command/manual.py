# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The manual page and the completion of the command ``portknock``, made from the same words as its help. Pure."""

from ansible_collections.sesame.portknock.plugins.module_utils._change.host_command import MARK
from ansible_collections.sesame.portknock.plugins.module_utils._command.verbs import (
    DESCRIPTION,
    EXIT_CODES,
    VERBS,
    Argument,
    Verb,
)


def manual() -> str:
    """Return the manual page, for man(1)."""
    lines = [
        f'.\\" {MARK}; changes to this file are lost.',
        ".TH PORTKNOCK 8",
        ".SH NAME",
        "portknock \\- look at the doors of this host and work them",
        ".SH SYNOPSIS",
    ]
    for verb in VERBS:
        lines += [f".B portknock {_plain(verb.name)}", *(_in_synopsis(each) for each in verb.arguments), ".br"]
    lines += [".SH DESCRIPTION", _plain(DESCRIPTION), ".SH VERBS"]
    for verb in VERBS:
        lines += [".TP", f".B {_plain(_usage(verb))}", _plain(f"{verb.summary[0].upper()}{verb.summary[1:]}."), ".br"]
        lines += [_plain(verb.text)] if verb.text else []
        for argument in verb.arguments:
            lines += [".br", f".I {_plain(argument.name)}", ".br", _plain(f"{argument.help}.")]
    lines += [".SH EXIT STATUS"]
    for code, meaning in EXIT_CODES:
        lines += [".TP", f".B {code}", _plain(meaning)]
    return "\n".join([*lines, ".SH SEE ALSO", ".BR iptables (8)", ""])


def _usage(verb: Verb) -> str:
    return " ".join([verb.name, *(_shown(each) for each in verb.arguments)])


def _shown(argument: Argument) -> str:
    return f"[{argument.name}]" if argument.is_flag or argument.optional else argument.name


def _in_synopsis(argument: Argument) -> str:
    return f".I {_plain(_shown(argument))}"


def _plain(text: str) -> str:
    """Return a text that roff prints as it is."""
    text = text.replace("\\", "\\e").replace("-", "\\-")
    return "\\&" + text if text.startswith((".", "'")) else text


def completion() -> str:
    """Return the completion, for bash."""
    cases = "".join(_case(verb) for verb in VERBS)
    names = " ".join(verb.name for verb in VERBS)
    return f"""# {MARK}; changes to this file are lost.
_portknock() {{
    local word=${{COMP_WORDS[COMP_CWORD]}} words
    case "$COMP_CWORD:${{COMP_WORDS[1]}}" in
    1:*) words="{names} --help" ;;
{cases}    *) words="" ;;
    esac
    mapfile -t COMPREPLY < <(compgen -W "$words" -- "$word")
}}
complete -F _portknock portknock
"""


def _case(verb: Verb) -> str:
    flags = " ".join([each.name.split()[0] for each in verb.arguments if each.is_flag] + ["--help"])
    return f'    *:{verb.name}) words="{flags}" ;;\n'


__all__ = ("completion", "manual")
