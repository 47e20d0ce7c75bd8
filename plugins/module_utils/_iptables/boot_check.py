# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Whether a boot may load a rules file: it must load, without a name server, and let this connection in. Pure.

A boot loads the file instead of the live rules, and nothing waits then that could undo it. So the file is judged before anything
is changed, as the live rules are.
"""

import ipaddress
from typing import Callable, Mapping, NamedTuple, Optional, Sequence

from ansible_collections.sesame.portknock.plugins.module_utils._engine import Connection
from ansible_collections.sesame.portknock.plugins.module_utils._errors import HostError, SpecError
from ansible_collections.sesame.portknock.plugins.module_utils._foreign.access import is_let_in
from ansible_collections.sesame.portknock.plugins.module_utils._iptables.installed import position_of, read_state
from ansible_collections.sesame.portknock.plugins.module_utils._names.chains import TAIL
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.packet_walk import Packets, Walker, packets_of
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.rule_text import options
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.save_format import Document, Table, parse
from ansible_collections.sesame.portknock.plugins.module_utils._spec.model import Address, Spec, family_of
from ansible_collections.sesame.portknock.plugins.module_utils._tables.own_rules import foreign_rules

_ADVICE = (
    "Mend the file, or set persist to false to keep nothing over a reboot (then nothing here changes what a boot loads). "
    "Nothing was changed."
)
_EARLIER = (("raw", "PREROUTING"), ("mangle", "PREROUTING"), ("mangle", "INPUT"))
"""What a packet to this host passes before the table filter."""


class BootFile(NamedTuple):
    """A rules file that a boot loads."""

    path: str
    """Where it is."""
    family: str
    """The IP version that it is for."""
    text: str
    """Its text as it is to be."""
    spec: Optional[Spec]
    """The Spec that our rules in it are for, or None where it holds none."""


Test = Callable[[str, str, bool], None]
"""From an IP version, a text and whether it replaces the tables that it names; raises a HostError if iptables-restore does not
take it."""


def check_boot(
    files: Sequence[BootFile], connection: Optional[Connection], test: Test, ours: Mapping[str, str]
) -> None:
    """Refuse what a boot must not load.

    :param connection: the connection that must get in again, if one is known.
    :param ours: IP version to a text of our rules alone.
    :raises SpecError: if a file does not load, or keeps the connection out.
    """
    for file in files:
        check_loads(file, test, ours.get(file.family, ""))
        if connection is not None and file.family == family_of(connection.source):
            check_lets_in(file.path, file.text, file.spec, connection)


def check_text(path: str, before: str) -> None:
    """Refuse a rules file that is no text for iptables-restore at all, in words that say how to mend it.

    :param before: its text as it is.
    :raises SpecError: if its lines end as on Windows, or it begins with a byte order mark.
    """
    if before.startswith("\ufeff"):
        raise _refusal(
            path, "it begins with a byte order mark, so it does not load (sed -i '1s/^\\xEF\\xBB\\xBF//' removes it)"
        )
    if "\r\n" in before:
        raise _refusal(
            path, "its lines end with carriage returns, so it does not load (sed -i 's/\\r$//' removes them)"
        )


def check_loads(file: BootFile, test: Test, ours: str) -> None:
    """Refuse a rules file that a boot could not load.

    :param ours: a text of our rules alone. If that cannot be loaded either, the load of them will say better what is missing.
    :raises SpecError: if it does not, or if a rule holds a name: at boot none can be looked up.
    """
    for table in parse(file.text, file.path).tables:
        for chain, rules in table.chains.items():
            for rule in rules:
                name = _host_name(rule.text)
                if name:
                    raise _refusal(
                        file.path,
                        f"a rule of {chain} holds the host name {name}, which nothing can look up when a boot loads the file, and "
                        "then none of its rules is loaded. Write its address",
                    )
    try:
        test(file.family, file.text, True)
    except HostError as error:
        if ours and not _is_taken(file.family, ours, test):
            return
        raise _refusal(file.path, f"it does not load with the knock rules in it: {str(error).rstrip('.')}") from error


def _is_taken(family: str, text: str, test: Test) -> bool:
    try:
        test(family, text, False)
    except HostError:
        return False
    return True


def _host_name(text: str) -> str:
    """Return the first name that stands in the place of an address in a rule, '' where there is none."""
    for option, values, _negated in options(text):
        for value in values[:1] if option in ("-s", "-d") else ():
            for item in value.split(","):
                if not _is_address(item.split("/", 1)[0]):
                    return item
    return ""


def _is_address(text: str) -> bool:
    try:
        # iptables also takes an address with its last numbers left out.
        return bool(ipaddress.ip_address(text)) or True
    except ValueError:
        return text.replace(".", "").isdigit()


def check_lets_in(path: str, text: str, spec: Optional[Spec], connection: Connection) -> None:
    """Refuse a rules file under which no new connection like this one would get in.

    :param text: its text as it is to be.
    :param spec: the Spec that our rules in it are for, or None where it holds none.
    :raises SpecError: if none would.
    """
    document = parse(text, path)
    why = _shut_out(document, spec, connection)
    if why:
        raise _refusal(
            path,
            f"{why}, so after a reboot nothing would let {connection.source} in to port {connection.port}. Open the port with a "
            "door, name it in allow, or name the address in trusted_sources",
        )


def _shut_out(document: Document, spec: Optional[Spec], connection: Connection) -> str:
    """Return what keeps a new connection out, '' where nothing does."""
    packets = packets_of([(connection.port, "tcp")])
    for name, chain in _EARLIER:
        table = document.table(name)
        if table is not None and _refuses(table, chain, packets, connection.source):
            return f"chain {chain} of its table {name} refuses this connection"
    table = document.table("filter")
    if table is None:
        return ""
    if table.policy("OUTPUT") != "ACCEPT" and not table.rules("OUTPUT"):
        return "its chain OUTPUT lets no answer out"
    if spec is not None:
        decided = is_let_in(spec, connection.port, connection.source)
        if decided is not None:
            return "" if decided else "no door is for this address"
    tail = position_of(read_state(document), TAIL)
    if _is_accepted(table, packets, tail, spec, connection.source):
        return ""
    return "its chain INPUT refuses this connection"


def _is_accepted(table: Table, packets: Packets, tail: Optional[int], spec: Optional[Spec], source: Address) -> bool:
    trusted = (spec.trusted_interfaces, spec.trusted_sources) if spec is not None else ((), ())
    walker = Walker(table, *trusted, source=source)
    for rule in foreign_rules(table)[:tail]:
        effect = walker.rule_effect("INPUT", rule.text, packets)
        if effect.accepts or effect.terminal:
            return effect.accepts
    return tail is None and table.policy("INPUT") == "ACCEPT"


def _refuses(table: Table, chain: str, packets: Packets, source: Address) -> bool:
    effect = Walker(table, source=source).chain_effect(chain, packets)
    return not effect.accepts and (effect.terminal or table.policy(chain) != "ACCEPT")


def _refusal(path: str, why: str) -> SpecError:
    return SpecError("persist", f"{path} is what a boot loads, and {why}. {_ADVICE}")


__all__ = ("BootFile", "check_boot", "check_lets_in", "check_loads", "check_text")
