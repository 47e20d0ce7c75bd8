# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Other firewalls on a host: which are in use, and what is said of them. Pure."""

import re
from typing import Container, List, Sequence

FAIL, DISABLE = "fail", "disable"
"""What to do about another firewall."""
FIREWALLD, NFTABLES, UFW = "firewalld", "nftables", "ufw"


def is_ufw_on(config: str) -> bool:
    """Return whether ufw is switched on; its unit is active also where it never was.

    :param config: the text of UFW_CONFIG.
    """
    return bool(re.search(r"^ENABLED=[\"']?yes", config, re.M | re.I))


def firewalls_in_use(used: Container[str], ufw_on: bool, uses_iptables: bool = True) -> List[str]:
    """Return the other firewalls in use.

    :param used: the services, without the suffix, that are active or enabled: an enabled one is back after the next boot.
    :param uses_iptables: whether the doors are in iptables; of a table of nftables, what nftables.service flushes is put back behind it.
    """
    rivals = (FIREWALLD, NFTABLES) if uses_iptables else (FIREWALLD,)
    return [name for name in rivals if name in used] + ([UFW] if ufw_on else [])


def refusal(names: Sequence[str], prefix: str = "") -> str:
    """Return why nothing is done beside other firewalls, as a message for an operator.

    :param prefix: what stands before the names of options.
    """
    found, verb = " and ".join(names), "is" if len(names) == 1 else "are"
    return (
        f"{found} {verb} in use on this host (active now, or enabled for the next boot) and would overwrite or "
        "override the knock ruleset. Nothing was changed. Carry the exceptions that are still needed over to "
        f"{prefix}allow and {prefix}trusted_sources, then set {prefix}conflicting_firewall to disable, and it is switched off "
        "together with the change, or switch it off by hand. Then run this again."
    )


__all__ = ("DISABLE", "FAIL", "FIREWALLD", "NFTABLES", "UFW", "firewalls_in_use", "is_ufw_on", "refusal")
