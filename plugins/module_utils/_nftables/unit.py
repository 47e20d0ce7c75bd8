# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is kept of the table over a reboot: its text, a plainer one, what loads them, and when. Pure.

The table is loaded before the network is up, and again behind whatever nftables.service does, which begins with ``flush ruleset``.
"""

from typing import List, Optional

from ansible_collections.sesame.portknock.plugins.module_utils._boot.loaders import DROP_IN_TEXT, drop_in
from ansible_collections.sesame.portknock.plugins.module_utils._boot.unit import boot_unit
from ansible_collections.sesame.portknock.plugins.module_utils._engine import ABSENT_FILE, Files
from ansible_collections.sesame.portknock.plugins.module_utils._nftables.names import (
    INPUT,
    PRIORITY,
    TABLE,
    families_of,
)
from ansible_collections.sesame.portknock.plugins.module_utils._nftables.rules import SYN
from ansible_collections.sesame.portknock.plugins.module_utils._paths import (
    BOOT_SCRIPT,
    CLOSED_TABLE,
    TABLE_FILE,
    UNIT,
)
from ansible_collections.sesame.portknock.plugins.module_utils._spec.model import PUBLISHED_NONE, Spec, family_of
from ansible_collections.sesame.portknock.plugins.module_utils._spec.ports import Ports

_SENT_ON = "sent_on"
"""The chain of the plainer table for packets that this host sends on."""
DROP_IN = drop_in("nftables")
"""That service flushes the whole ruleset whenever it starts, reloads or stops."""

# nft quotes the lines that it does not take, and there are steps in them.
_BOOT_SCRIPT_TEXT = f"""#!/bin/sh
# Written by sesame.portknock; changes to this file are lost.
# Loads the table with the doors, at boot and behind whatever flushes it. If that does not work: closes the doors
# with plainer rules, then fails, so that "systemctl status portknock" shows it. Who has knocked stays known.
set -u
PATH=/usr/sbin:/sbin:/usr/bin:/bin
if nft -f {TABLE_FILE} 2>/dev/null; then
    exit 0
fi
echo "portknock: the table {TABLE} was not loaded. Look why with: nft -c -f {TABLE_FILE}" \\
    "(steps of knocks are in there), mend it, then: systemctl restart portknock" >&2
if nft -f {CLOSED_TABLE} 2>/dev/null; then
    echo "portknock: the doors are shut but for trusted sources" >&2
else
    echo "portknock: nft does not work at all: NOTHING is closed" >&2
fi
exit 1
"""

_UNIT_TEXT = boot_unit("Port knocking: the table of nftables with the doors", "nftables.service")


def table_files(spec: Optional[Spec], text: str, persist: bool) -> Files:
    """Return every file that is kept for a table, as it should be.

    :param spec: a Spec, or None where there is to be no table.
    :param text: what load_text() made of it. It is kept in any case, to be read by whoever looks at the table.
    :param persist: whether a boot is to load it.
    """
    kept: Files = {TABLE_FILE: ABSENT_FILE, CLOSED_TABLE: ABSENT_FILE, DROP_IN: (None, 0o644)}
    if spec is not None:
        kept[TABLE_FILE] = (text, 0o600)
        kept.update({UNIT: (None, 0o644), BOOT_SCRIPT: (None, 0o755)})
    if spec is not None and persist:
        kept[CLOSED_TABLE] = (closed_table(spec), 0o600)
        kept[UNIT] = (_UNIT_TEXT, 0o644)
        kept[BOOT_SCRIPT] = (_BOOT_SCRIPT_TEXT, 0o755)
        kept[DROP_IN] = (DROP_IN_TEXT, 0o644)
    return kept


def closed_table(spec: Spec) -> str:
    """Return the plainest table that keeps the doors' ports shut, for an nft or a kernel that lacks what ours needs."""
    let_in = ['iifname "lo" accept']
    let_in += [f"{family.within((network,))} accept" for family in families_of(spec) for network in spec.trusted_sources
               if family_of(network) == family.name]  # fmt: skip
    closed = {ports for door in spec.doors for ports in door.here}
    closed |= {allow.ports for allow in spec.allow if spec.panic}
    rules = [f"{family.packet} {_refused(ports)} drop" for family in families_of(spec) for ports in sorted(closed)]
    lines = [
        f"add table {TABLE}",
        f"flush table {TABLE}",
        *_plain_chain(INPUT, f"input priority {PRIORITY}", [*let_in, *rules]),
    ]
    sent_on = {ports for door in spec.doors for ports in door.opens if door.to or spec.published != PUBLISHED_NONE}
    if sent_on:
        # Before nat, which changes the port: so also what hosts behind this one send elsewhere to these ports.
        rules = [f"{family.packet} {_refused(ports)} drop" for family in families_of(spec) for ports in sorted(sent_on)]
        lines += _plain_chain(_SENT_ON, "prerouting priority -150", [*let_in, *rules])
    return "".join(f"{line}\n" for line in lines)


def _plain_chain(name: str, hook: str, rules: List[str]) -> List[str]:
    chain = f"add chain {TABLE} {name} {{ type filter hook {hook}; policy accept; }}"
    return [chain, *(f"add rule {TABLE} {name} {rule}" for rule in rules)]


def _refused(ports: Ports) -> str:
    which = str(ports.first) if ports.first == ports.last else f"{ports.first}-{ports.last}"
    syn = f"{SYN} " if ports.protocol == "tcp" else ""
    return f"{syn}{ports.protocol} dport {which}"


__all__ = ("DROP_IN", "closed_table", "table_files")
