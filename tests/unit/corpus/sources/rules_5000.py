# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Prints a ruleset of 5,000 rules in 50 chains, always the same one. Argument: 4 or 6."""

import sys

CHAINS, RULES = 50, 98
KINDS = (
    "-s {a} -j DROP",
    "-s {a} -p tcp -m tcp --dport {p} -j ACCEPT",
    "-s {a} -p udp -m multiport --dports {p},{q} -j REJECT",
    '-s {a} -m comment --comment "customer {n}" -j RETURN',
)


def address(family, chain, rule):
    if family == 6:
        return "2001:db8:{:x}:{:x}::/64".format(chain, rule)
    return "198.18.{}.{}/32".format(chain, rule)


def lines(family):
    yield "*filter"
    for chain in range(CHAINS):
        yield ":customer-{:02d} - [0:0]".format(chain)
    for chain in range(CHAINS):
        yield "-A INPUT -s {} -j customer-{:02d}".format(
            "2001:db8:{:x}::/48".format(chain) if family == 6 else "198.18.{}.0/24".format(chain), chain
        )
    yield "-A INPUT -p tcp -m tcp --dport 22 -j ACCEPT"
    for number in range(49):
        yield "-A FORWARD -i eth{} -j ACCEPT".format(number)
    for chain in range(CHAINS):
        for rule in range(RULES):
            number = chain * RULES + rule
            text = KINDS[number % len(KINDS)].format(
                a=address(family, chain, rule), p=1024 + number, q=20000 + number, n=number
            )
            yield "-A customer-{:02d} {}".format(chain, text)
    yield "COMMIT"


print("\n".join(lines(int(sys.argv[1]))))
