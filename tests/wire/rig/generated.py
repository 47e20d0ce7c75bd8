# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Hosts that a number decides: recorded rulesets with limits, tunnels and native rules mixed in, and a change on them."""

import random
import re
from typing import NamedTuple

from rig.guard import NEW, OLD, REFUSED
from rig.network import Rig
from rig.packets import IPV4, IPV6
from rig.target import COMMANDS, FAMILIES, ROOT

CORPUS = ROOT / "tests" / "unit" / "corpus"
# Those that a kernel loads without lists of ipset or devices of their own, in several versions of iptables' spelling.
BASES = (
    "arno", "article-nft", "docker", "docker-trixie", "el-stock", "el-stock-live", "empty-nft", "fail2ban", "fail2ban-trixie",
    "fail2ban-bullseye", "ferm", "firewalld", "hand-written", "hand-written-live", "headers", "headers-trixie", "kube",
    "kube-trixie", "libvirt", "shorewall", "spelling-1.8.7-nft", "spelling-1.8.11-nft", "touched-nft", "ufw", "ufw-bullseye",
)  # fmt: skip
# The controller had a way in before: without it there is nothing that a change could cut.
WAY_IN = "-I INPUT 1 -p tcp -m tcp --dport 22 -j ACCEPT"
LIMITS = (
    ("-p tcp --dport 22 -m conntrack --ctstate NEW -m recent --set --name SSH",
     "-p tcp --dport 22 -m conntrack --ctstate NEW -m recent --update --seconds 60 --hitcount 30 --name SSH -j DROP"),
    ("-p tcp --syn --dport 22 -m connlimit --connlimit-above 40 -j REJECT",),
    ("-p tcp --syn -m hashlimit --hashlimit-above 50/sec --hashlimit-burst 100 --hashlimit-mode srcip --hashlimit-name syn"
     " -j DROP",),
    ("-p tcp --syn -m limit --limit 50/s --limit-burst 100 -j RETURN",),
)  # fmt: skip
TUNNELS = (
    ("-i wg0 -j ACCEPT", "-p udp --dport 51820 -j ACCEPT"),
    ("-i tun+ -j ACCEPT", "-p udp --dport 1194 -j ACCEPT"),
    ("-i tailscale0 -j ACCEPT", "-p udp --dport 41641 -j ACCEPT"),
)
# Native rules, none of which decides about a packet of these tests: iptables-save cannot print a table with one of these,
UNREADABLE = (
    "tcp dport 64999 ct state vmap { established : accept, new : continue }",
    "tcp dport 64999 ct count over 20 drop",
    "tcp dport 64999 meter seen { ip saddr limit rate over 10/second } drop",
)
# and prints these as what they are not, `-j DROP` for one.
MISPRINTED = ("ip saddr { 192.0.2.7, 192.0.2.9 } drop", "tcp dport { 64998, 64999 } accept")


# The name of a chain of the collection's, in it or as a target; a recorded ruleset has names that are much like them.
OURS = re.compile(r"\bPORTKNOCK(?:_[A-Z0-9_]+)?(?![\w-])")


class Host(NamedTuple):
    """One host, and what happens on it."""

    number: int
    base: str
    """The recorded ruleset."""
    rules: tuple[str, ...]
    """What is inserted at random places of INPUT, without `-I INPUT n`."""
    places: tuple[int, ...]
    native: str
    """A native rule for INPUT, '' for none."""
    when: str
    """Whether the native rule is there before the change, or comes in its window."""
    blocked: bool
    """Whether the knock cannot arrive, so that nothing confirms."""

    @property
    def end(self) -> str:
        """What must become of the change."""
        if self.native and self.when == "before":
            return REFUSED
        return OLD if self.blocked or self.unreadable else NEW

    @property
    def unreadable(self) -> bool:
        """Whether the ruleset cannot be read any more while the change waits."""
        return self.when == "window" and self.native in UNREADABLE

    def __str__(self) -> str:
        """Return what a failing test shows."""
        native = f", native {self.when}: {self.native}" if self.native else ""
        return f"{self.number}: {self.base} with {len(self.rules)} rules{native}, {self.end}"


def host(number: int, backend: str) -> Host:
    """Return the host of a number, always the same."""
    rng = random.Random(f"{number} {backend}")
    chosen = [group for groups in (LIMITS, TUNNELS) for group in groups if rng.random() < 0.3]
    rules = tuple(rule for group in chosen for rule in group)
    native = rng.choice(UNREADABLE + MISPRINTED) if backend == "nft" and rng.random() < 0.4 else ""
    return Host(
        number,
        BASES[number % len(BASES)],
        rules,
        tuple(rng.randint(1, 2) for _rule in rules),
        native,
        rng.choice(("before", "window")),
        rng.random() < 0.4,
    )


def load(rig: Rig, made: Host) -> None:
    """Load a host's iptables rules into the target, without its native rule."""
    for family in FAMILIES:
        path = CORPUS / f"{made.base}.{'v4' if family == IPV4 else 'v6'}.save"
        if path.exists() and path.read_text().strip():
            rig.target.restore(family, path.read_text())
        command = COMMANDS[family]
        rig.target.namespace.run(command, "-w", "-A", "INPUT", "-p", "udp", "--dport", "64997", "-j", "ACCEPT")
        for place, rule in zip(made.places, made.rules, strict=True):
            rig.target.namespace.run(command, "-w", "-I", "INPUT", place, *rule.split())
        rig.target.namespace.run(command, "-w", *WAY_IN.split())


def load_native(rig: Rig, made: Host) -> None:
    """Add a host's native rule to the table that iptables-nft uses."""
    family = "ip"
    rig.target.namespace.run("nft", f"add table {family} filter", check=False)
    rig.target.namespace.run(
        "nft", f"add chain {family} filter INPUT {{ type filter hook input priority filter; }}", check=False
    )
    rig.target.namespace.run("nft", f"add rule {family} filter INPUT {made.native}")


def drop_native(rig: Rig) -> None:
    """Take the native rule away again, by its handle, as an administrator would."""
    listed = rig.target.namespace.run("nft", "-a", "list", "chain", "ip", "filter", "INPUT").stdout
    for line in listed.splitlines():
        if " 64999" in line or "{ 192.0.2.7" in line:
            rig.target.namespace.run("nft", "delete", "rule", "ip", "filter", "INPUT", "handle", line.split()[-1])


def truth(rig: Rig) -> list[str]:
    """Return every rule that the kernel has, of both backends, each behind its table and chain, without counters."""
    run = rig.target.namespace.run
    lines = _nft_rules(run("nft", "-s", "list", "ruleset").stdout)
    for family in FAMILIES:
        text = run(f"{COMMANDS[family]}-legacy-save").stdout
        lines += [f"legacy {family} {line}" for line in text.splitlines() if line.startswith(("-A", ":PORTKNOCK"))]
    return lines


def _nft_rules(text: str) -> list[str]:
    table = chain = ""
    rules = []
    for line in (line.strip() for line in text.splitlines()):
        if line.startswith("table "):
            table = line
        elif line.startswith("chain "):
            chain = line
        elif line and not line.startswith(("type filter hook", "type nat hook", "#", "}")):
            # nft translates this match in some listings and not in others.
            line = re.sub(r"add @connlimit\d+ \{[^}]*\}", "xt match connlimit", line)
            rules.append(f"{table} {chain} {line}")
    return rules


def foreign(rules: list[str]) -> list[str]:
    """Return the rules that are not the collection's."""
    return [rule for rule in rules if not OURS.search(rule)]


def hooks(rig: Rig) -> dict[str, int]:
    """Return how many jumps to the collection's chains INPUT has, for each family, from the kernel."""
    found = {}
    for family, name in ((IPV4, "ip"), (IPV6, "ip6")):
        native = rig.target.namespace.run("nft", "list", "chain", name, "filter", "INPUT", check=False).stdout
        legacy = rig.target.namespace.run(f"{COMMANDS[family]}-legacy", "-w", "-S", "INPUT", check=False).stdout
        found[family] = len(re.findall(rf"(?:jump|-j) {OURS.pattern}", native + legacy))
    return found
