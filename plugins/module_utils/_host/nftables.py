# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the kernel holds in nftables, asked without the command nft, which not every host has."""

from typing import Any, Callable, Dict, List, Optional, TypeVar

from ansible_collections.sesame.portknock.plugins.module_utils._errors import HostError
from ansible_collections.sesame.portknock.plugins.module_utils._host.netlink import (
    Exchange,
    InterruptedDumpError,
    answers,
    talk,
)
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.netlink import DUMP, REQUEST, request
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.nft_kernel import (
    FAMILIES,
    GET_CHAINS,
    GET_RULES,
    KernelRule,
    read_chain,
    read_rule,
)

_TRIES = 20

Read = TypeVar("Read")


class Nftables:
    """Chains and rules of nftables in the running kernel. To ask for them loads its module."""

    def __init__(self, exchange: Exchange = talk) -> None:
        """Take what talks to the kernel, for tests."""
        self._exchange = exchange

    def rules(self, family: str) -> List[KernelRule]:
        """Return the rules of all tables of a family, those of a chain in their order.

        :param family: as nft names it, ``ip`` or ``ip6``.
        :raises HostError: if the kernel does not say.
        """
        try:
            return self._dump(GET_RULES, family, read_rule)
        except OSError as error:
            raise HostError(
                f"the kernel does not list the rules of nftables ({error}), so it is not known whether iptables shows all of its own "
                "tables. Nothing was changed. Run this again; where it fails again, look whether 'iptables-save' works there."
            ) from error

    def chains(self) -> Optional[List[Dict[str, Any]]]:
        """Return the chains of all tables as ``nft -j`` lists them, None where the kernel does not say."""
        try:
            return self._dump(GET_CHAINS, "", read_chain)
        except OSError:
            return None

    def _dump(self, kind: int, family: str, read: Callable[[bytes], Read]) -> List[Read]:
        asked = request(kind, REQUEST | DUMP, FAMILIES.get(family, 0))
        for turn in range(_TRIES):
            try:
                return [read(body) for found, body in answers(self._exchange, asked) if found == kind - 1]
            except InterruptedDumpError:
                # Others write rules at the same time.
                if turn == _TRIES - 1:
                    raise
        raise AssertionError


__all__ = ("Nftables",)
