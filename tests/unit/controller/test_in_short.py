# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The diff as a person reads it, made of what the module returns for a host in memory."""

import difflib
from types import SimpleNamespace

import pytest

pytest.importorskip("ansible", reason="it runs on controllers, and this Python has no ansible-core")

from ansible_collections.sesame.portknock.plugins.action import knock_ruleset
from ansible_collections.sesame.portknock.plugins.module_utils._paths import UNIT
from ansible_collections.sesame.portknock.plugins.plugin_utils._report.in_short import in_short
from fake_host import FakeHost
from module_run import DOOR, run, settled
from shown_steps import steps_in

V4, V6 = "/etc/iptables/rules.v4", "/etc/iptables/rules.v6"
WRITTEN = (
    "files written: /etc/iptables/{rules.v4,rules.v6}, "
    "/etc/portknock/{ip6tables.closed,ip6tables.rules,iptables.closed,iptables.rules}"
)
DHCP = (
    "# IPv6 also: -A PORTKNOCK_HEAD -s fe80::/10 -d fe80::/10 -p udp -m udp --sport 547 --dport 546 "
    '-m comment --comment "DHCPv6 replies" -j ACCEPT'
)
TRUSTED = '-A PORTKNOCK_HEAD -s 192.0.2.1/32 -m comment --comment "trusted source" -j ACCEPT'
SENT_ON = TRUSTED.replace("PORTKNOCK_HEAD", "PORTKNOCK_FWD").replace("ACCEPT", "RETURN")
BY_NAT = SENT_ON.replace("PORTKNOCK_FWD", "PORTKNOCK_NAT")
WEB = {"name": "web", "knock": ["31005", "32100"], "opens": ["8443"]}
BOTH = "ruleset in the kernel (IPv4; IPv6 says the same)"
MARKED = "ruleset in the kernel (IPv4; IPv6 says the same but for the lines marked)"


def shown(result):
    """Return the words of the short diff, and the headers of what follows them, each with its changed lines."""
    parts = in_short(result["diff"], result["summary"])
    words = [line for part in parts for line in part.get("prepared", "").splitlines()]
    return words, {part["before_header"]: changed(part) for part in parts if "prepared" not in part}


def changed(part):
    texts = [part[side].splitlines() for side in ("before", "after")]
    return [line for line in difflib.ndiff(*texts) if line[0] in "+-"]


def test_a_bare_host():
    words, parts = shown(run(FakeHost(), check=True))
    assert words[-3].startswith("rules: IPv4 ")
    assert words[-3].endswith(" added. Those of others stay.")
    assert words[-2].startswith(WRITTEN)
    assert words[-2].endswith("/usr/local/sbin/portknock-boot (-v shows them)")
    assert words[-1] == ""
    assert list(parts) == [MARKED]
    assert parts[MARKED][-1] == "+ " + DHCP
    assert len([line for line in parts[MARKED] if "IPv6" in line]) == 1


def test_the_summary_comes_first():
    result = run(FakeHost(), check=True)
    words, _parts = shown(result)
    assert result["summary"]
    assert words[: len(result["summary"])] == result["summary"]


def test_what_only_ipv4_has_is_marked():
    _words, parts = shown(run(FakeHost(), check=True, trusted_sources=["192.0.2.1"]))
    assert [line for line in parts[MARKED] if "IPv6" in line] == [
        "+ " + DHCP,
        "+ # not IPv6: " + TRUSTED,
    ], "nor is the same for what is sent on, which is one line"


def test_rules_files_that_say_the_same_are_named():
    host = FakeHost()
    settled(host)
    words, parts = shown(run(host, check=True, doors=[DOOR, WEB]))
    assert list(parts) == [BOTH, "/etc/portknock/ip6tables.closed", "/etc/portknock/iptables.closed"]
    names = "/etc/iptables/{rules.v4,rules.v6}, /etc/portknock/{ip6tables.rules,iptables.rules} (-v shows them)"
    assert words[-2] == f"files written: {names}"


@pytest.mark.parametrize(("before", "after", "word"), [("", "table\n", "new"), ("table\n", "", "removed")])
def test_a_table_of_nftables_is_no_file(before, after, word):
    header = "table inet portknock in the kernel"
    head, *rest = in_short([dict(before_header=header, after_header=header, before=before, after=after)], [])
    assert head["prepared"] == f"{header}: {word} (-v shows it)\n\n"
    assert rest == []


def test_of_a_table_in_which_knocks_alone_change_it_is_said():
    """What recognises them is not shown, so its text for people is the same; the summary says what is so then."""
    host = FakeHost()
    host.tools = host.tools | {"nft"}
    settled(host, engine="nftables")
    result = run(host, check=True, engine="nftables", doors=[dict(DOOR, knock=["31001", "32002", "33003"])])
    words, parts = shown(result)
    assert result["changed"]
    assert words[: len(result["summary"])] == result["summary"] != []
    said = "table inet portknock in the kernel: rules that recognise knocks are written anew (steps are never shown)"
    assert words.count(said) == 1
    assert "table inet portknock in the kernel" not in parts


def test_one_rule_more():
    host = FakeHost()
    settled(host)
    words, parts = shown(run(host, check=True, trusted_sources=["192.0.2.1"]))
    assert parts["ipv4 ruleset in the kernel"] == ["+ " + SENT_ON, "+ " + TRUSTED, "+ " + BY_NAT]
    assert "rules: IPv4 3 added. Those of others stay." in words


def test_a_removal():
    host = FakeHost()
    settled(host)
    words, parts = shown(run(host, check=True, state="absent"))
    assert words[0].startswith("rules: IPv4 ")
    assert words[1].startswith("files removed: /etc/iptables/{rules.v4,rules.v6}, ")
    assert list(parts) == [MARKED]
    assert parts[MARKED][-1] == "- " + DHCP


@pytest.mark.parametrize("path", [V4, UNIT])
def test_what_was_edited_by_hand_is_shown(path):
    host = FakeHost()
    settled(host)
    text, mode = host.files[path]
    host.files[path] = (text.replace("PORTKNOCK_HEAD\n", "PORTKNOCK\n").replace("Type=oneshot", "Type=simple"), mode)
    words, parts = shown(run(host, check=True))
    assert list(parts) == [path]
    assert len(parts[path]) == 2
    assert words == [], "no rule changes, and the file is shown"


def test_families_that_differ_are_shown_apart():
    sources = [f"192.0.2.{number}" for number in range(1, 60)]
    _words, parts = shown(run(FakeHost(), check=True, trusted_sources=sources))
    assert list(parts) == ["ipv4 ruleset in the kernel", "ipv6 ruleset in the kernel"]


def test_one_family_alone():
    _words, parts = shown(run(FakeHost(), check=True, ip_versions=["ipv6"]))
    assert list(parts) == ["ipv6 ruleset in the kernel"]


def test_nothing_is_left_out_of_the_rulesets():
    """A host with other rules: each line of either family is in the short diff, as it is or as that of IPv4, but for knocks."""
    host = FakeHost(v4="*filter\n:INPUT ACCEPT [0:0]\n-A INPUT -p tcp -m tcp --dport 22 -j ACCEPT\nCOMMIT\n")
    result = run(host, check=True, reject_with="icmp-admin-prohibited")
    full = [line for part in result["diff"][:2] for line in changed(part)]
    _words, parts = shown(result)
    said = {line for lines in parts.values() for line in lines}
    for line in full:
        other = (
            line.replace("pk6_", "pk4_")
            .replace("icmp6-adm-", "icmp-admin-")
            .replace("ipv6-icmp", "icmp")
            .replace("MPv6", "MP")
        )
        if not rules_of_knocks([line]):
            assert {line, other, f"{line[:2]}# IPv6 also: {line[2:]}"} & said, line


def test_no_step():
    result = run(FakeHost(), check=True, doors=[DOOR, WEB])
    assert steps_in([*DOOR["knock"], *WEB["knock"]], repr(in_short(result["diff"], result["summary"]))) == []


def test_nothing_changes():
    assert in_short([], ["door ssh"]) == []


def rules_of_knocks(lines):
    return [line for line in lines if "PORTKNOCK_K" in line or "PORTKNOCK_CATALOG" in line]


def test_rules_of_knocks_are_one_line():
    result = run(FakeHost(), check=True, doors=[DOOR, WEB])
    (part,) = [part for part in in_short(result["diff"], []) if part["before_header"] == MARKED]
    full = rules_of_knocks(result["diff"][0]["after"].splitlines())
    count = len(full)
    sent_on, folded = [line for line in part["after"].splitlines() if line.startswith("#") and "IPv6" not in line]
    assert (
        "that do the same for what nat publishes and for hosts behind, in FORWARD, DOCKER-USER, PREROUTING, PORTKNOCK_FWD, "
        in sent_on
    )
    assert folded.startswith(
        f"# {count} rules added that recognise knocks and forget them, in PORTKNOCK, PORTKNOCK_CATALOG, "
    )
    assert folded.endswith(" (-v shows them)")
    assert rules_of_knocks(part["after"].splitlines()) == [folded]


def many(count):
    return [
        {
            "name": f"door{number}",
            "knock": [str(31000 - 37 * number), str(33000 - 41 * number)],
            "opens": [str(8000 + number)],
        }
        for number in range(count)
    ]


@pytest.mark.parametrize("count", [4, 10])
def test_the_first_run_of_many_doors_is_short(count):
    """No more than 70 lines are on the screen, of which 40 are the tasks' and the findings'."""
    result = run(FakeHost(), check=True, doors=many(count), trusted_sources=["192.0.2.1"], allow=[{"port": "443"}])
    parts = in_short(result["diff"], result["summary"])
    words, changes = shown(result)
    assert len(words) + sum(3 + len(lines) for lines in changes.values()) < 40
    (folded,) = [line for part in parts for line in part["after"].splitlines() if "at doors' ports" in line]
    text = f"# {2 * count} rules added that let in at doors' ports who has knocked, and refuse all others, in PORTKNOCK_D1 (-v shows them)"
    assert folded == text
    assert not [line for lines in changes.values() for line in lines if "-A PORTKNOCK_D" in line]


def test_a_few_doors_are_shown_rule_by_rule():
    _words, parts = shown(run(FakeHost(), check=True, doors=many(3)))
    assert len([line for line in parts[MARKED] if line.startswith("+ -A PORTKNOCK_D1 ")]) == 6


def test_a_change_of_as_many_rules_is_seen():
    """Another pause between steps: the same number of rules goes and comes."""
    host = FakeHost()
    settled(host, doors=[dict(DOOR, knock=["31005", "32100", "33000"])])
    _words, parts = shown(run(host, check=True, doors=[dict(DOOR, knock=["31005", "32100", "33000"], step_timeout=9)]))
    signs = [line[0] for lines in parts.values() for line in lines if "PORTKNOCK_K" in line]
    assert "-" in signs
    assert "+" in signs


def test_one_rule_that_was_edited_is_shown():
    host = FakeHost()
    settled(host)
    table = host.rules["iptables"]
    save = table.save()
    rule = next(line for line in save.splitlines() if line.startswith("-A PORTKNOCK_K"))
    table.restore(save.replace(rule, rule.replace("recent --set", "recent --update", 1)), noflush=False)
    _words, parts = shown(run(host, check=True))
    assert [line[:18] for line in parts["ipv4 ruleset in the kernel"]] == ["- -A PORTKNOCK_K1 ", "+ -A PORTKNOCK_K1 "]


@pytest.mark.parametrize("verbosity", [0, 1])
def test_the_texts_of_all_files_are_there_with_v(monkeypatch, verbosity):
    full = run(FakeHost(), check=True)
    monkeypatch.setattr(knock_ruleset, "display", SimpleNamespace(verbosity=verbosity))
    readable = knock_ruleset._readable(dict(full))
    assert readable["diff"] == (full["diff"] if verbosity else in_short(full["diff"], full["summary"]))
    assert readable["diff"] != [], verbosity
