# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Faults put into the table: what packets tell from the right one, the prover must not call proved."""

import random
import re

import pytest
from ansible_collections.sesame.portknock.plugins.module_utils._engine import Wanted
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.local_network import UNKNOWN
from ansible_collections.sesame.portknock.plugins.module_utils._nftables.build import build_table
from ansible_collections.sesame.portknock.plugins.module_utils._nftables.foreign import Foreign
from ansible_collections.sesame.portknock.plugins.module_utils._nftables.proven import prove_table
from ansible_collections.sesame.portknock.plugins.module_utils._nftables.text import load_text
from ansible_collections.sesame.portknock.plugins.module_utils._spec.options import spec_from_options
from nft_model import Model, Sent
from prover_questions import PROMISED

STRANGER = {"ipv4": "192.0.2.77", "ipv6": "2001:db8:1::77"}
LONG = {
    "name": "long",
    "knock": ["20081", "31002", "20003", "41004", "31002", "22006", "60007/udp", "20508"],
    "opens": ["7777"],
}
OF_SOME = {
    "name": "some", "knock": ["51001", "21002/udp"], "opens": ["22"], "sources": ["192.0.2.0/24", "2001:db8::/32"], "once": True,
}  # fmt: skip
SPECS = [
    spec_from_options(dict(PROMISED, **more))
    for more in (
        {}, {"policy": "accept"}, {"log": True}, {"ipv6_prefix": 64},
        {"doors": [*PROMISED["doors"], OF_SOME, LONG], "trusted_interfaces": ["tun+"]},
        {"doors": [*PROMISED["doors"], LONG, dict(LONG, name="second", knock=["30081", "50002", "30503", "44004", "33005", "48006"])]},
    )
]  # fmt: skip


def knocks(spec):
    """Return sequences of (port, protocol): right ones, and such as must not open; the last one is to the door."""
    for door in spec.doors:
        steps, opened = [tuple(step) for step in door.knock], [(ports.first, ports.protocol) for ports in door.opens]
        wrong = [[]]
        for cut in range(len(steps)) if len(steps) > 1 else ():
            wrong += [steps[:cut] + steps[cut + 1 :], steps[:cut], steps[cut:]] if cut else [steps[1:]]
            wrong += [[*steps[: cut + 1], (6543, protocol), *steps[cut + 1 :]] for protocol in ("tcp", "udp")]
        wrong += [steps[::-1]]
        yield from ([*steps, port] for port in opened)
        yield from ([*sequence, opened[0]] for sequence in wrong if sequence != steps)


def behaviour(text, spec, family):
    """Return what becomes of packets of a stranger, and of those who knock rightly and wrongly."""
    found, model = [], Model(text)
    for sequence in knocks(spec):
        for pause in (0.5, 40):
            model.forget()
            for port, protocol in sequence[:-1]:
                model.send(Sent(STRANGER[family], port, protocol))
                model.later(0.5)
            model.later(pause)
            found.append(model.send(Sent(STRANGER[family], *sequence[-1])))
    outside = "198.51.100.9" if family == "ipv4" else "2001:dead::9"
    for door in spec.doors:
        model.forget()
        for step in door.knock:
            model.send(Sent(outside, step.port, step.protocol))
        found += [model.send(Sent(outside, ports.first, ports.protocol)) for ports in door.opens]
    plain = [
        Sent(outside, port, protocol, state=state)
        for port in (8080, 443, 8443, 22)
        for protocol in ("tcp", "udp")
        for state in ("new", "related")
    ]
    plain += [each._replace(interface="wg0") for each in plain]
    model.forget()
    return found + [model.send(packet) for packet in plain]


def lines_of(text):
    lines = text.splitlines()
    return lines, [index for index, line in enumerate(lines) if line.startswith("add rule ") and " about " not in line]


def dropped_rule(rng, lines, rules):
    del lines[rng.choice(rules)]


def swapped_rules(rng, lines, rules):
    near = [index for index in rules if index - 1 in rules and lines[index].split()[4] == lines[index - 1].split()[4]]
    index = rng.choice(near)
    lines[index - 1], lines[index] = lines[index], lines[index - 1]


WIDER = (
    (r"timeout \d+s", "timeout 3600s"), (r"ip saddr (\d\S+|\{ [^}]* \}) ", ""), (r"ip6? saddr(?: & \S+)? @open\w+ ", ""),
    (r"ip6? saddr(?: & \S+)? \. \S+ \S+ & \S+ \| \S+ @stages\w ", ""), (r"meta l4proto 6 ", ""), (r"meta nfproto \w+ ", ""),
    (r"ct state established", "ct state new"), (r"ct state related", "ct state new"), (r'iifname "\S+" ', ""),
    (r"goto (\w+)", "accept"), (r"jump (\w+)", "accept"), (r"goto refuse", "return"), (r"goto (\w+)", r"jump \1"),
    (r"delete @\w+ \{[^}]*\} ", ""), (r"update @(?:progress\w|stages\w \{[^}]* \| 0x0) [^}]*\} ", ""), (r" accept", " drop"),
    (r"reject with \w+ \w+( \S+)?", "accept"),
    (r"@stages(\w) counter", r"@stages\1 counter drop"), (r" \| 0x8", " | 0x9"), (r"mark & 0x\w+ ", "mark & 0xffffffff "),
)  # fmt: skip


def widened_match(rng, lines, rules):
    index = rng.choice(rules)
    pattern, wider = rng.choice([each for each in WIDER if re.search(each[0], lines[index])] or [("^", "")])
    lines[index] = re.sub(pattern, wider, lines[index], count=1)


def swapped_steps(rng, lines, rules):
    """Two steps change the sets that they wait for, or how long."""
    one, other = rng.sample([index for index in rules if "step" in lines[index]], 2)
    pattern = rng.choice([r"& 0x\w+ \| 0x\w+", r"@open\w+", r"update @stages\w \{[^}]*\}", r"timeout \d+s \}"])
    first, second = re.search(pattern, lines[one]), re.search(pattern, lines[other])
    if first and second:
        a, b = lines[one], lines[other]
        lines[one] = a.replace(first.group(), second.group(), 1)
        lines[other] = b.replace(second.group(), first.group(), 1)


def moved_entry(rng, lines, rules):
    """An entry of a verdict map points elsewhere."""
    index = rng.choice([index for index in rules if re.search(r" vmap .* : (goto|jump) ", lines[index])])
    targets = re.findall(r"(?:goto|jump) \w+", lines[index].split(" comment ")[0])
    one, other = rng.choice(targets), rng.choice([*targets, "goto refuse", "goto wrong"])
    lines[index] = re.sub(rf": {one}\b", f": {other}", lines[index], count=1)


def ended_early(rng, lines, rules):
    """A rule more lets packets past the rest of a chain, or past all of it."""
    index = rng.choice(rules)
    chain = lines[index].split()[4]
    first = min(each for each in rules if lines[each].split()[4] == chain)
    match = rng.choice(["", "meta nfproto ipv4 ", "meta nfproto ipv6 ", "meta l4proto 6 ", "meta l4proto 17 "])
    text = f'add rule inet portknock {chain} {match}{rng.choice(["return", "accept"])} comment "more"'
    lines.insert(rng.choice([index, first]), text)


FAULTS = (dropped_rule, swapped_rules, widened_match, swapped_steps, moved_entry, ended_early)
RIGHT = {}


def assert_no_step_is_shown(spec, proven):
    """Neither its port, nor the digests by which the table names it."""
    steps = {str(step.port) for door in spec.doors for step in door.knock}
    opened = {str(ports.first) for door in spec.doors for ports in door.opens}
    for text in [word["message"] + word["rule"] for word in proven.words] + [each.message for each in proven.findings]:
        assert not set(re.findall(r"[0-9]+", text)) & (steps - opened), text
        assert not re.search(r"stage|0x[0-9a-f]{4}|[0-9]{9}|portknock:", text), text


def hunt(seeds):
    """Return how many faults packets tell, and those of them that the prover does not."""
    apart, missed = 0, []
    for seed in range(seeds):
        rng = random.Random(seed)
        spec, family = rng.choice(SPECS), rng.choice(("ipv4", "ipv6"))
        text = load_text(build_table(spec)).text
        lines, rules = lines_of(text)
        before = list(lines)
        FAULTS[seed % len(FAULTS)](rng, lines, rules)
        if lines == before:
            continue
        key = (SPECS.index(spec), family)
        if key not in RIGHT:
            RIGHT[key] = behaviour(text, spec, family)
        changed = "\n".join(lines)
        if behaviour(changed, spec, family) == RIGHT[key]:
            continue
        apart += 1
        proven = prove_table(
            Wanted(spec, (family,), True, False, None, "", {}, prove=False), changed, Foreign([], ()), UNKNOWN
        )
        assert_no_step_is_shown(spec, proven)
        if {word["result"] for word in proven.words} == {"proved"}:
            missed.append((seed, FAULTS[seed % len(FAULTS)].__name__, set(before) ^ set(lines)))
    return apart, missed


def test_right_tables_are_proved_and_behave_so():
    for spec in SPECS:
        for family in ("ipv4", "ipv6"):
            text = load_text(build_table(spec)).text
            proven = prove_table(Wanted(spec, (family,), True, False, None, "", {}), text, Foreign([], ()), UNKNOWN)
            assert {word["result"] for word in proven.words} == {"proved"}
            assert any(behaviour(text, spec, family))


@pytest.mark.slow
def test_faults_that_packets_tell_are_caught():
    apart, missed = hunt(120)
    assert apart > 20
    assert len(missed) <= 0.05 * apart, missed


@pytest.mark.slow
@pytest.mark.hunt
def test_more_faults():
    apart, missed = hunt(5000)
    assert len(missed) <= 0.05 * apart, missed
