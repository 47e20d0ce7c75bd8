# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is in nftables of this host: as the command nft lists it where there is one, else as far as the kernel says it."""

from typing import Callable, List, NamedTuple, Optional, Sequence

from ansible_collections.sesame.portknock.plugins.module_utils._names.chains import CHAIN, table_of
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.nft_json import Item, jumps_in, read_listing
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.nft_kernel import read_chain
from ansible_collections.sesame.portknock.plugins.module_utils._tables.commands import NFT_FAMILIES, Run
from ansible_collections.sesame.portknock.plugins.module_utils._tables.own_rules import HOOKED


class Listing(NamedTuple):
    """What is in nftables, in the form of ``nft -j``."""

    items: Optional[List[Item]]
    """Tables, chains, rules, sets; None where they could not be listed."""
    has_rules: bool = True
    """Whether rules and sets are in it; without the command nft it is the chains alone."""


NOTHING = Listing([])


class Native:
    """Reads what is in nftables, empties chains of the collection, and deletes jumps to them."""

    def __init__(
        self,
        run: Run,
        find: Callable[[str], Optional[str]],
        held: Callable[[], Optional[List[bytes]]],
        empty: Callable[[str, str, str], None] = lambda *_names: None,
    ) -> None:
        """Take the seams: run and find as Iptables does, what returns the chains as the kernel sends them, and what has it empty one."""
        self._run, self._nft, self._held, self._empty = run, find("nft"), held, empty

    def listing(self) -> Listing:
        """Return what is there."""
        if self._nft is None:
            return Listing(self._chains(), has_rules=False)
        code, out, _err = self._run([self._nft, "-j", "-s", "list", "ruleset"], "")
        return Listing(read_listing(out) if code == 0 else None)

    def _chains(self) -> Optional[List[Item]]:
        held = self._held()
        return None if held is None else [read_chain(body) for body in held]

    def holds_ours(self, family: str) -> Optional[bool]:
        """Return whether a chain of the collection is there for an IP version, None where that is not known."""
        items = self._chains()
        if items is None:
            return None
        nft = NFT_FAMILIES[family]
        return any(item["chain"]["family"] == nft and CHAIN.match(item["chain"]["name"]) for item in items)

    def empty(self, family: str, chains: Sequence[str]) -> None:
        """Empty chains of the collection without a command: those that are there.

        :raises HostError: if the kernel refuses.
        """
        for chain in chains:
            self._empty(NFT_FAMILIES[family], table_of(chain), chain)

    def delete_jumps(self, family: str) -> None:
        """Delete the rules that hook chains of the collection into others, each by its handle, which no other rule has."""
        if self._nft is None:
            return
        for name in HOOKED:
            chain = [NFT_FAMILIES[family], table_of(name), name]
            _code, out, _err = self._run([self._nft, "-j", "-a", "list", "chain"] + chain, "")
            for handle in jumps_in(read_listing(out) or [], CHAIN):
                self._run([self._nft, "delete", "rule"] + chain + ["handle", str(handle)], "")


__all__ = ("NOTHING", "Listing", "Native")
