# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a boot finds of our ruleset: texts that load it alone, the script that looks whether it is there, and its unit. Pure."""

from typing import List

from ansible_collections.sesame.portknock.plugins.module_utils._boot.unit import boot_unit
from ansible_collections.sesame.portknock.plugins.module_utils._iptables.build import BuiltRules
from ansible_collections.sesame.portknock.plugins.module_utils._iptables.forward import (
    guarded_behind,
    guarded_published,
)
from ansible_collections.sesame.portknock.plugins.module_utils._names.chains import (
    FILTER,
    FORWARD,
    NAT,
    SENT_ON,
    table_of,
)
from ansible_collections.sesame.portknock.plugins.module_utils._spec.model import Spec, family_of
from ansible_collections.sesame.portknock.plugins.module_utils._spec.ports import port_text


def fallback_text(built: BuiltRules) -> str:
    """Return input for ``iptables-restore --noflush`` that puts the given rules into any ruleset, doors first."""
    hooks = ["-I INPUT 1 " + built.doors, "-I INPUT 1 " + built.head]
    hooks += ["-A INPUT " + built.tail] if built.tail else []
    hooks += [f"-I {chain} 1 {text}" for chain, text in built.forward if table_of(chain) == FILTER]
    by_nat = [f"-I {chain} 1 {text}" for chain, text in built.forward if table_of(chain) == NAT]
    return _table_text(FILTER, built, hooks) + (_table_text(NAT, built, by_nat) if by_nat else "")


def _table_text(table: str, built: BuiltRules, hooks: List[str]) -> str:
    """Return the input for one table; its first line is the table's header."""
    chains = {name: rules for name, rules in built.chains.items() if table_of(name) == table}
    lines = ["*" + table] + [f":{name} - [0:0]" for name in chains]
    lines += [f"-A {name} {text}" for name, rules in chains.items() for text in rules]
    return "\n".join(lines + hooks + ["COMMIT", ""])


def closed_text(spec: Spec, family: str) -> str:
    """Return the plainest rules that keep the doors' ports shut, for a kernel that lacks matches we need."""
    lines = ["*filter", ":PORTKNOCK - [0:0]", "-A PORTKNOCK -i lo -j ACCEPT"]
    for network in spec.trusted_sources:
        if family_of(network) == family:
            lines.append(f"-A PORTKNOCK -s {network} -j ACCEPT")
    closed = {ports for door in spec.doors for ports in door.here}
    closed |= {allow.ports for allow in spec.allow if spec.panic}
    for ports in sorted(closed):
        syn = " --syn" if ports.protocol == "tcp" else ""
        lines.append(f"-A PORTKNOCK -p {ports.protocol} -m {ports.protocol} --dport {port_text(ports)}{syn} -j DROP")
    return "\n".join(lines + ["-I INPUT 1 -j PORTKNOCK", *_closed_forward(spec, family), "COMMIT", ""])


def _closed_forward(spec: Spec, family: str) -> List[str]:
    """Return the same for what is sent on; each line names the chain, so that the rest can be had without."""
    rules = [f"-s {network} -j RETURN" for network in spec.trusted_sources if family_of(network) == family]
    guarded = guarded_behind(spec, family) + guarded_published(spec)
    refused = [
        f"{match} -m conntrack --ctstate NEW,RELATED -j DROP" for each in guarded for _ports, match in each.matches
    ]
    if not refused:
        return []
    lines = [f"-A {FORWARD} {rule}" for rule in rules + refused]
    return [f":{FORWARD} - [0:0]", *lines, *(f"-I {chain} 1 -j {FORWARD}" for chain in SENT_ON)]


BOOT_SCRIPT_TEXT = """#!/bin/sh
# Written by sesame.portknock; changes to this file are lost.
# Are the doors in the ruleset after boot? If a rules file did not load: close them here, then fail, so
# that "systemctl status portknock" shows it.
set -u
PATH=/usr/sbin:/sbin:/usr/bin:/bin
failed=0
again=${1:-}

# The table as iptables -S prints it, or, where iptables cannot print it, as nft does in much the same form.
rules_of() {
    "$1" -w 30 -S 2>/dev/null && return 0
    "$1" -V 2>/dev/null | grep -q nf_tables || return 1
    family=ip
    [ "$1" = iptables ] || family=ip6
    listed=$(nft list table "$family" filter 2>/dev/null) || return 1
    printf '%s\\n' "$listed" | awk '
        $1 == "chain" { chain = $2 }
        $1 == "chain" && chain == "DOCKER-USER" { print "-N DOCKER-USER" }
        NF > 1 && $(NF - 1) == "jump" && chain ~ /^(INPUT|FORWARD|DOCKER-USER)$/ { print "-A " chain "  -j " $NF }
        chain == "PORTKNOCK_HEAD" && /counter/ { print "-A PORTKNOCK_HEAD " }'
}

hooked() {
    for hook in '-A INPUT .*-j PORTKNOCK_HEAD$' '-A INPUT .*-j PORTKNOCK$' '-A PORTKNOCK_HEAD '; do
        printf '%s\\n' "$1" | grep -q -e "^$hook" || return 1
    done
    for chain in FORWARD DOCKER-USER; do
        grep -q "^-I $chain " "$2" || continue
        printf '%s\\n' "$1" | grep -q -e "^-A $chain .*-j PORTKNOCK_FWD" || return 1
    done
}

# What is left of our hooks goes in the same step, so that none is there twice; iptables takes no rule as nft prints it.
# Docker's chain for the rules of others is made before it comes, and never emptied.
load() {
    {
        echo '*filter'
        if grep -q '^-I DOCKER-USER ' "/etc/portknock/$1.$2" && ! printf '%s\\n' "$rules" | grep -q '^-N DOCKER-USER$'; then
            echo ':DOCKER-USER - [0:0]'
        fi
        printf '%s\\n' "$rules" | sed -n 's/^-A \\(\\(INPUT\\|FORWARD\\|DOCKER-USER\\) -.*-j PORTKNOCK.*\\)$/-D \\1/p'
        sed -e 1d -e "${3:-}" -e '/^COMMIT$/q' "/etc/portknock/$1.$2"
    } | "$1-restore" -w 30 --noflush 2>&1
}

close_doors() {
    if [ "$again" = again ] && load "$1" rules; then
        echo "portknock: another firewall has loaded rules of its own; the doors of $1 are put back" >&2
        return
    fi
    failed=1
    echo "portknock: the knock rules of $1 were not loaded with the rest. Look for errors in the rules file" \\
        "(try: $1-restore --test < FILE), mend it, restart the service that loads it, then: systemctl restart portknock" >&2
    if load "$1" rules; then
        echo "portknock: loaded the doors alone from /etc/portknock/$1.rules; they open to their knocks" >&2
    elif load "$1" closed || load "$1" closed '/PORTKNOCK_FWD/d'; then
        echo "portknock: the kernel lacks what the knocks need; the doors are shut but for trusted sources" >&2
    else
        echo "portknock: $1-restore does not work at all: NOTHING is closed" >&2
    fi
}

# What guards published ports in table nat, which is a step of its own: nothing that is closed waits for it.
guard_nat() {
    grep -q '^\\*nat$' "$2" || return 0
    if ! nat=$("$1" -w 30 -t nat -S 2>/dev/null); then
        family=ip
        [ "$1" = iptables ] || family=ip6
        ! nft list table "$family" nat 2>/dev/null | grep -q 'jump PORTKNOCK_NAT$' || return 0
    fi
    missing=
    for hook in PREROUTING POSTROUTING; do
        grep -q "^-I $hook " "$2" || continue
        printf '%s\\n' "$nat" | grep -q -e "^-A $hook .*-j PORTKNOCK_NAT" || missing=$hook
    done
    printf '%s\\n' "$nat" | grep -q -e '^-A PORTKNOCK_NAT ' || missing=rules
    [ -n "$missing" ] || return 0
    [ "$again" = again ] || failed=1
    if {
        echo '*nat'
        printf '%s\\n' "$nat" | sed -n 's/^-A \\(P[A-Z]*ROUTING -.*-j PORTKNOCK_NAT.*\\)$/-D \\1/p'
        sed -e '1,/^\\*nat$/d' "$2"
    } | "$1-restore" -w 30 --noflush 2>&1; then
        echo "portknock: the rules of $1 for published ports were not in table nat; they are loaded now" >&2
    else
        failed=1
        echo "portknock: $1-restore does not load table nat: what publishes ports with rules in front of FORWARD passes the doors" >&2
    fi
}

for file in /etc/portknock/*.rules; do
    [ -e "$file" ] || continue
    # The boot and the start of another firewall may look at the same time, and would both load. Only root can open this file.
    exec 9<"$file"
    flock -w 30 9 2>/dev/null || :
    command=${file##*/}
    command=${command%.rules}
    if ! rules=$(rules_of "$command"); then
        failed=1
        echo "portknock: $command cannot read its table filter (try: $command -S), so whether the doors are in it is not known, and" \\
            "nothing was loaded. Rules that nft wrote there must move to a table of their own; then: systemctl restart portknock" >&2
    elif ! hooked "$rules" "$file"; then
        close_doors "$command"
    fi
    guard_nat "$command" "$file"
done
for list in /proc/net/xt_recent/pk[46][_.]*; do
    [ ! -e "$list" ] || chmod 0600 "$list"
done
exit "$failed"
"""


BOOT_UNIT_TEXT = boot_unit(
    "Port knocking: are the doors in the ruleset?",
    "netfilter-persistent.service",
    "iptables.service",
    "ip6tables.service",
)

__all__ = (
    "BOOT_SCRIPT_TEXT",
    "BOOT_UNIT_TEXT",
    "closed_text",
    "fallback_text",
)
