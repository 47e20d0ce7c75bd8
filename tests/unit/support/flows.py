# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A host with a ruleset of ours, and packet flows written as words."""

from typing import Any, Dict, List, Tuple

from ansible_collections.sesame.portknock.plugins.module_utils._iptables.plan import plan_family
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.save_format import parse
from ansible_collections.sesame.portknock.plugins.module_utils._spec.options import spec_from_options
from fake_iptables import FakeIptables
from walker import Packet, Verdict, Walker

ME = {"ipv4": "192.0.2.1", "ipv6": "2001:db8::1"}
YOU = {"ipv4": "192.0.2.2", "ipv6": "2001:db8:0:1::2"}


def planned(options: Dict[str, Any], family: str, save: str = "") -> FakeIptables:
    """Return a FakeIptables on which the core's plan for the options has been loaded."""
    host = FakeIptables(save)
    plan = plan_family(host.save(), spec_from_options(options), family)
    host.restore(plan.change)
    return host


class Host:
    """A walker on a planned ruleset, driven by flows."""

    def __init__(self, options: Dict[str, Any], family: str = "ipv4", save: str = "", **more: Any) -> None:
        self.family = family
        self.iptables = planned(options, family, save)
        self.walker = Walker(parse(self.iptables.save()), **more)
        self.names = {"me": ME[family], "you": YOU[family]}

    def flow(self, words: str) -> List[str]:
        """Play a flow; return the words that did not come true.

        ``22`` a new TCP packet from ``me``, ``22/udp``, ``you:22`` one from another; ``+5`` seconds pass;
        ``open:22`` and ``shut:22`` send one and say what must become of it.
        """
        wrong = []
        for word in words.split():
            if word.startswith("+"):
                self.walker.later(float(word[1:]))
                continue
            prefix, _colon, port = word.rpartition(":")
            wanted, who = self._split(prefix)
            verdict = self.send(port, who)
            if wanted and (verdict.action == "ACCEPT") != (wanted == "open"):
                wrong.append("{0}: {1}".format(word, verdict.action))
        return wrong

    def _split(self, prefix: str) -> Tuple[str, str]:
        parts = [part for part in prefix.split("|") if part]
        wanted = next((part for part in parts if part in ("open", "shut")), "")
        return wanted, next((part for part in parts if part not in ("open", "shut")), "me")

    def send(self, port: str, who: str = "me", **more: Any) -> Verdict:
        number, _slash, protocol = port.partition("/")
        return self.walker.send(Packet(self.names.get(who, who), int(number), protocol or "tcp", **more))
