# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The seam between engines and the rest: what guard, plan and info ask of an engine, whichever it is.

An engine is made of parts, each of which keeps one thing on the host: a ruleset, a daemon. A part is planned with what is
wanted of it or, where the engine has no use for it, to be taken out; so changing the engine is one change like any other.
What a part plans, loads and undoes means something to itself alone; the rest carries it, as JSON in the record of a change.
"""

import ipaddress
from typing import Any, Callable, Dict, Iterable, List, NamedTuple, Optional, Tuple

from ansible_collections.sesame.portknock.plugins.module_utils._open_doors import OpenDoors

Files = Dict[str, Tuple[Optional[str], Optional[int]]]
"""Path to text, None where there is to be no file, and permission bits."""

ABSENT_FILE = (None, 0o600)
"""Text and mode of a file that is to be removed."""

EXACT, SNAPSHOT, EMPTIED = "exact", "snapshot", "emptied"
"""How a change was undone: rule by rule, and read back; by putting back all that had been there; or, where the rules could not be
read, by emptying our chains, so that they refuse nothing."""


def worst(undone: Iterable[str]) -> str:
    """Return which of EXACT, SNAPSHOT and EMPTIED holds for a whole of which each part was undone in its own way."""
    order = (EXACT, SNAPSHOT, EMPTIED)
    return max(undone, key=order.index, default=EXACT)


ERROR, WARNING, INFO = "error", "warning", "info"
"""How bad a finding is, worst first."""

SEVERITIES = {
    # The doors or the owner's own way in are not as they were asked for.
    "doors_gone": ERROR,
    "family_open": ERROR,
    "list_shared": ERROR,
    "other_backend": ERROR,
    "policy_drop": ERROR,
    "tunnel_closes": ERROR,
    "unguarded": ERROR,
    "untracked": ERROR,
    "void": ERROR,
    # They may not be, or not for long.
    "broad_trust": WARNING,
    "connection_unguarded": WARNING,
    "knockd": WARNING,
    "limited": WARNING,
    "list_size": WARNING,
    "may_be_unguarded": WARNING,
    "native_table": WARNING,
    "native_unknown": WARNING,
    "nothing_listens": WARNING,
    "not_persisted": WARNING,
    "only_at_boot": WARNING,
    "other_firewall": WARNING,
    "protocol_refused": WARNING,
    "saves_on_stop": WARNING,
    "not_loaded_at_boot": WARNING,
    "single_step": WARNING,
    # They are; something else lost its effect.
    "lost_effect": INFO,
}
"""Every kind of finding, and its severity; docs/findings.md has the same table for people."""
_ABOUT_OTHERS = frozenset(("native_table", "native_unknown", "policy_drop"))
"""Kinds that are about rules of others even where they name none."""


class Finding(NamedTuple):
    """What an operator should know."""

    kind: str
    """A word for programs: one of SEVERITIES."""
    ip_version: str
    """``ipv4``, ``ipv6``, or '' where it is about both or neither."""
    rule: str
    """The foreign rule that it is about, or ''."""
    message: str
    """What is so, and what to do about it."""

    @property
    def severity(self) -> str:
        """ERROR, WARNING or INFO.

        :raises KeyError: for a kind that SEVERITIES does not know.
        """
        return SEVERITIES[self.kind]

    @property
    def is_about_others(self) -> bool:
        """Whether it is about rules of others as they are now."""
        return bool(self.rule) or self.kind in _ABOUT_OTHERS


def findings_result(findings: Iterable[Finding]) -> List[Dict[str, str]]:
    """Return findings as modules return them, the worst first."""
    order = (ERROR, WARNING, INFO)
    sorted_findings = sorted(findings, key=lambda finding: order.index(finding.severity))
    return [dict(finding._asdict(), severity=finding.severity) for finding in sorted_findings]


class Connection(NamedTuple):
    """A TCP connection to this host."""

    source: Any
    """The ``ipaddress`` address that it comes from."""
    address: str
    """The address of this host that it comes to."""
    port: int
    """The port that it comes to."""


def connection_of(words: Optional[List[str]]) -> Optional[Connection]:
    """Return the Connection that the words of SSH_CONNECTION describe, or None where they describe none.

    One from this host itself is none: what takes connections in front of sshd (sslh, stunnel) has made it, and the firewall
    decides about those.
    """
    if not words or len(words) != 4 or address_of(words[0]).is_loopback:
        return None
    return Connection(address_of(words[0]), words[2], int(words[3]))


def address_of(text: str) -> Any:
    """Return the ``ipaddress`` address of a text, without the zone that a link-local one may have."""
    return ipaddress.ip_address(text.split("%", 1)[0])


def differing(files: Files, read: Callable[[str], str], mode: Callable[[str], Optional[int]]) -> List[str]:
    """Return the paths of those files that are not as they should be.

    :param read: function from a path to the file's text, '' where there is none.
    :param mode: function from a path to the file's permission bits, None where there is none.
    """
    return [
        path
        for path, (text, bits) in files.items()
        if (read(path) or None) != text or (text is not None and mode(path) != bits)
    ]


class Wanted(NamedTuple):
    """What is wanted of one part."""

    spec: Any
    """The Spec, or None where this part is to be taken out."""
    families: Tuple[str, ...]
    """The IP versions that are managed."""
    persist: bool
    """Whether what it keeps must outlive a boot."""
    may_lack: bool
    """Whether packages may still be missing (check mode)."""
    connection: Optional[Connection]
    """The connection that the change is made through, if it is known and must not be cut off."""
    door: str
    """The door that a new connection like that one must knock at, as the parts before this one found it, or ''."""
    state: Dict[str, Dict[str, Any]]
    """What was remembered of earlier changes."""
    conflicting_firewall: str = "fail"
    """What to do about another firewall: ``fail`` or ``disable``."""
    command: Any = None
    """The program that is to be there as the host's command, None to leave that as it is."""
    prove: bool = True
    """Whether a ruleset under which a packet gets to a door without the knock is refused, and not merely reported."""
    code: str = ""
    """What tells this code from another version of it, '' where that is not known."""


_NO_FILES: Files = {}
_NOTHING: Dict[str, Any] = {}


class PartPlan(NamedTuple):
    """What a part is going to do. Nothing was written yet."""

    part: str
    """The name of the part."""
    wanted: Wanted
    """What it was planned for."""
    loads: bool
    """Whether something that is running must change, beside files."""
    keeps: bool = False
    """Whether keep() has something to do even where nothing else changes."""
    disturbs: bool = False
    """Whether loading it changes what the parts after it were planned on, so that they must be planned anew then."""
    begins: bool = False
    """Whether there were no rules of its own before: the kernel may not have tracked any connection."""
    files: Files = _NO_FILES
    """Every file that it keeps, as it should be."""
    early: Tuple[str, ...] = ()
    """Paths of those files that must be in place before it is loaded."""
    previous: Tuple[str, ...] = ()
    """Paths of those files of which the version before is to be kept."""
    door: str = ""
    """The door that the connection must knock at, if this part knows."""
    proof: Dict[str, Any] = _NOTHING
    """Where the connection needs no knock: how to see that one was recognised all the same, with ``door``; JSON."""
    findings: Tuple[Finding, ...] = ()
    """What an operator should know."""
    facts: Dict[str, Any] = _NOTHING
    """Results of its own for the operator."""
    before: Dict[str, Any] = _NOTHING
    """All that is needed to undo it; JSON."""
    saved_to: Tuple[str, ...] = ()
    """Paths of files that others may save to what was loaded, also where the part itself keeps nothing there."""
    last_way: Tuple[str, ...] = ()
    """Commands for a plain sh that let everybody in again, for when the program that undoes a change cannot run: without ``$``,
    ``%`` and ``\\``, which systemd would replace, and with no name that must be looked up."""
    last_look: Tuple[str, ...] = ()
    """Commands of that kind which succeed only if it is seen, behind those, that the part refuses nothing any more."""
    details: Any = None
    """What only the part itself understands."""
    remembered: Dict[str, Dict[str, Any]] = _NOTHING
    """What is to be remembered for later changes, if this one stays, whether something is loaded or not; JSON."""


class Loaded(NamedTuple):
    """What came of loading."""

    expected: Dict[str, Any]
    """What must still be so when the change is confirmed; JSON."""
    remembered: Dict[str, Dict[str, Any]]
    """What is to be remembered for later changes, if this one stays; JSON."""


class Report(NamedTuple):
    """What knock_ruleset_info says; each part adds to it."""

    installed: Dict[str, bool]
    """Parts that are on the host: name to whether it is what recognises knocks."""
    doors: List[Dict[str, Any]]
    """Doors found, one of each IP version."""
    steps: Dict[str, int]
    """Door to how many steps its knock has, where that is known."""
    drift: List[str]
    """What is not as it was written."""
    findings: List[Finding]
    """What an operator should know."""
    facts: Dict[str, Any]
    """Further results."""
    wanted: Optional[Wanted] = None
    """What was asked for, None where that is not kept on the host."""


class Part:
    """A part of an engine on one host. What plans and inspects never writes."""

    name = ""

    def __init__(self, host: Any) -> None:
        """Take a Host."""
        self._host = host

    def import_late(self) -> None:
        """Import what load, keep and undo import only when they run: the program that undoes a change is made of what is loaded."""

    def plan(self, wanted: Wanted) -> PartPlan:
        """Return what has to be done.

        :raises PortknockError: if the options or the host do not allow it.
        """
        raise NotImplementedError

    def diff(self, plan: PartPlan) -> List[Dict[str, str]]:
        """Return before and after of what runs, as Ansible's diff wants it; no step in it."""
        raise NotImplementedError

    def readable(self, path: str, text: str) -> str:
        """Return the text of one of its files for a person; no step in it."""
        raise NotImplementedError

    def load(self, plan: PartPlan) -> Loaded:
        """Do what was planned; nothing of it outlives a boot yet.

        :raises HostError: with what failed.
        """
        raise NotImplementedError

    def forget(self, plan: PartPlan, door: str, source: Any) -> None:
        """Take a source off the list of those who may come in by a door, so that only a new knock lets it in."""

    def problem(self, before: Dict[str, Any], expected: Dict[str, Any]) -> str:
        """Return why a loaded change cannot be confirmed, or ''."""
        raise NotImplementedError

    def missing_knock(self, proof: Dict[str, Any], source: Any) -> str:
        """Return why the knock of a source that ``proof`` asks for was not recognised, '' where it was."""
        raise NotImplementedError

    def hides(self, connection: Connection) -> Optional[str]:  # noqa: ARG002
        """Return the rule that keeps a connection to a door out of connection tracking, as far as this part sees rules.

        :returns: '' where no rule keeps any connection out, None where one may be the reason; no step in it.
        """
        return ""

    def keep(self, before: Dict[str, Any]) -> None:
        """Do what is left once the files of a confirmed change are in place; may be done again from the start.

        :raises HostError: if that cannot be done.
        """

    def undo(self, before: Dict[str, Any]) -> str:
        """Have what runs as it was before a change, and return EXACT, SNAPSHOT or EMPTIED; the files come after it.

        :raises HostError: if that cannot be done.
        """
        raise NotImplementedError

    def undo_with_files(self, before: Dict[str, Any]) -> None:
        """Do what is left of undoing a change once its files are as they were.

        :raises HostError: if that cannot be done.
        """

    def undo_after_boot(self, before: Dict[str, Any]) -> str:  # noqa: ARG002
        """Have what a boot loaded as it was before a change that was not confirmed; its files come before it.

        :returns: EXACT, SNAPSHOT or EMPTIED.
        :raises HostError: if that cannot be done.
        """
        return EXACT

    def is_loaded_in(self, before: str, now: str) -> bool:
        """Return whether what was loaded has been saved to a file, given its text before and now."""
        raise NotImplementedError

    def without_loaded(self, path: str, before: str, now: str) -> str:  # noqa: ARG002
        """Return the text of a file that what was loaded has been saved to, with nothing of it, and the rest as it is now."""
        return before

    def open_doors(self) -> Optional[OpenDoors]:
        """Return the OpenDoors of a part that lets in by doors, None for any other."""
        return None

    def inspect(self, report: Report) -> Report:
        """Return a Report with what there is to say of this part.

        :raises HostError: if it cannot be read.
        """
        raise NotImplementedError


class PartOutsideKernel(Part):
    """A part that has nothing in the kernel: it recognises no knock, and no rule of it can be changed while a change is pending."""

    def problem(self, before: Dict[str, Any], expected: Dict[str, Any]) -> str:  # noqa: ARG002
        return ""

    def missing_knock(self, proof: Dict[str, Any], source: Any) -> str:  # noqa: ARG002
        return ""

    def undo(self, before: Dict[str, Any]) -> str:  # noqa: ARG002
        """Leave all of it to undo_with_files()."""
        return EXACT

    def is_loaded_in(self, before: str, now: str) -> bool:  # noqa: ARG002
        return False


__all__ = (
    "ABSENT_FILE",
    "EMPTIED",
    "ERROR",
    "EXACT",
    "INFO",
    "SEVERITIES",
    "SNAPSHOT",
    "WARNING",
    "Connection",
    "Files",
    "Finding",
    "Loaded",
    "Part",
    "PartOutsideKernel",
    "PartPlan",
    "Report",
    "Wanted",
    "address_of",
    "connection_of",
    "differing",
    "findings_result",
    "worst",
)
