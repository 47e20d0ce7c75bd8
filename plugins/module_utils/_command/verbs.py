# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the command ``portknock`` can do: the one place that its parser, its manual and its completion are made from. Pure."""

from typing import NamedTuple, Tuple


class Argument(NamedTuple):
    """A word or a flag behind a verb."""

    name: str
    """As it is shown in capitals, or the flag with its dashes and what must follow it."""
    help: str
    """What it is, as the end of a sentence."""
    optional: bool = False
    """Whether a word may be left out."""

    @property
    def is_flag(self) -> bool:
        """Whether it is a flag."""
        return self.name.startswith("-")


class Verb(NamedTuple):
    """One thing that the command does."""

    name: str
    """The word for it."""
    summary: str
    """What it does, in one line."""
    text: str
    """The rest of what there is to say."""
    arguments: Tuple[Argument, ...] = ()
    """What stands behind it."""


JSON = Argument("--json", "print one JSON object")

OK, WARNING, CRITICAL, UNKNOWN = range(4)
"""Exit codes of ``status --check``, as monitoring programs expect them."""
DONE, FAILED, USAGE, NOT_ROOT = 0, 1, 2, 77
"""Exit codes of everything else; the last one is EX_NOPERM of sysexits.h."""

DESCRIPTION = "Look at the doors of this host and work them. Steps of a knock are never shown."

STATUS = Verb(
    "status",
    "show the doors, who has them open, and what is wrong",
    "For each door: the ports that it opens, the sources that it is open to and for how many more seconds, and how many knocks and "
    "new connections there were since the rules were loaded. Below that: refused packets, wrong knocks, how full the kernel's "
    "lists are, the change that waits to be confirmed, drift, and findings. In panic also: the ports that it has closed, who is still "
    "let in, and the established connections to these ports. With --check one line for a monitoring program: exit "
    "code 0 if all is well, 1 for a warning (drift, a finding of that severity, a pending change), 2 if the doors are not as they "
    "should be, 3 if that cannot be read.",
    (JSON, Argument("--check", "print one line, and say by the exit code whether all is well")),
)
CONFIRM = Verb(
    "confirm",
    "keep the change that waits to be confirmed",
    "Over ssh the connection must be newer than the change: one from before it proves nothing. Log in again, and confirm there.",
)
ROLLBACK = Verb(
    "rollback", "undo the change that waits to be confirmed", "The rules, files and services are then as before it."
)

OPEN = Verb(
    "open",
    "open a door to an address",
    "As if the address had knocked, for the door's window, or for SECONDS: shorter or longer than the window, a day at the most. A door "
    "that is opened for longer is closed when the time is over, by 'close', by its own close knock, or by a reboot.",
    (
        Argument("DOOR", "the name of the door"),
        Argument("ADDRESS", "an IPv4 or IPv6 address"),
        Argument("SECONDS", "for how long, from 1 to 86400", optional=True),
    ),
)
CLOSE = Verb(
    "close",
    "close a door to everyone, or all doors to an address",
    "Sources that have the door open must knock again. Established connections go on.",
    (Argument("DOOR|ADDRESS", "the name of a door, or an IPv4 or IPv6 address"),),
)

PANIC = Verb(
    "panic",
    "close all doors and allowed ports, except to trusted sources",
    "No knock opens a door any more, also after a reboot, until 'resume'. Established connections go on. Ports that rules of others "
    "open, or that nat publishes for containers, and that are no doors or allowed ports stay as they are. Over ssh it is undone "
    "after a minute unless you confirm it over a new connection: log in again, from a trusted source, and run 'portknock confirm'.",
)
RESUME = Verb("resume", "end the panic: the doors and allowed ports are as they were before it", "")

METRICS = Verb(
    "metrics",
    "print metrics for Prometheus",
    "Doors open, knocks, refusals, wrong knocks, drift, pending changes, and how full the kernel's lists are.",
    (
        Argument(
            "--write DIRECTORY",
            "write them to portknock.prom in that directory, for the textfile collector of node_exporter",
        ),
    ),
)

VERBS: Tuple[Verb, ...] = (STATUS, OPEN, CLOSE, PANIC, RESUME, CONFIRM, ROLLBACK, METRICS)

EXIT_CODES = (
    (DONE, "done"),
    (FAILED, "it could not be done"),
    (USAGE, "the command line is not valid"),
    (NOT_ROOT, "this user is not root"),
)


__all__ = (
    "CRITICAL", "DESCRIPTION", "DONE", "EXIT_CODES", "FAILED", "NOT_ROOT", "OK", "UNKNOWN", "USAGE", "VERBS", "WARNING", "Argument",
    "Verb",
)  # fmt: skip
