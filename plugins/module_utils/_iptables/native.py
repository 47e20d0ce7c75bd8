# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What nft shows of this host, where it is installed: also what iptables cannot print."""

from typing import Callable, List, Optional

from ansible_collections.sesame.portknock.plugins.module_utils._iptables.chains import CHAIN
from ansible_collections.sesame.portknock.plugins.module_utils._iptables.commands import NFT_FAMILIES, Run
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.nft_json import Item, jumps_in, read_listing


class Native:
    """Reads with nft, and deletes jumps to chains of the collection."""

    def __init__(self, run: Run, find: Callable[[str], Optional[str]]) -> None:
        """Take the seams, as Iptables does."""
        self._run, self._nft = run, find("nft")

    def ruleset(self) -> Optional[List[Item]]:
        """Return all that nft lists, None where it cannot; nothing where it is not installed."""
        if self._nft is None:
            return []
        code, out, _err = self._run([self._nft, "-j", "-s", "list", "ruleset"], "")
        return read_listing(out) if code == 0 else None

    def holds_ours(self, family: str) -> Optional[bool]:
        """Return whether a chain of the collection is in nftables for an IP version, None where that cannot be told."""
        items = self.ruleset() if self._nft else None
        if items is None:
            return None
        chains = [item["chain"] for item in items if isinstance(item.get("chain"), dict)]
        return any(
            chain.get("family") == NFT_FAMILIES[family] and CHAIN.match(chain.get("name", "")) for chain in chains
        )

    def delete_jumps(self, family: str) -> None:
        """Delete the rules of INPUT that jump to chains of the collection, each by its handle, which no other rule has."""
        if self._nft is None:
            return
        chain = [NFT_FAMILIES[family], "filter", "INPUT"]
        _code, out, _err = self._run([self._nft, "-j", "-a", "list", "chain"] + chain, "")
        for handle in jumps_in(read_listing(out) or [], CHAIN):
            self._run([self._nft, "delete", "rule"] + chain + ["handle", str(handle)], "")


__all__ = ("Native",)
