# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Our lines in the distribution's rules file: they come and go, every other byte stays."""

import foreign
import pytest
from ansible_collections.sesame.portknock.plugins.module_utils._errors import HostError
from ansible_collections.sesame.portknock.plugins.module_utils._iptables.build import build_rules
from ansible_collections.sesame.portknock.plugins.module_utils._iptables.plan import plan_family
from ansible_collections.sesame.portknock.plugins.module_utils._iptables.rules_file import MADE_HERE, merged_file
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.save_format import parse
from ansible_collections.sesame.portknock.plugins.module_utils._spec.options import spec_from_options
from fake_iptables import FakeIptables
from hypothesis import given
from hypothesis import strategies as st

DOOR = {"name": "ssh", "knock": ["7005", "9100/udp", "8300"], "opens": ["22"]}
REJECT = spec_from_options({"doors": [DOOR], "allow": [{"port": 443}]})
ACCEPT = spec_from_options({"doors": [dict(DOOR, opens=["22", "80"])], "policy": "accept", "log": True})
BARE = "*filter\n:INPUT ACCEPT [0:0]\n:FORWARD ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\n"


def present(text, spec=REJECT, family="ipv4"):
    return merged_file(text, build_rules(spec, family), spec, "rules.v4")


def absent(text):
    return merged_file(text, None, None, "rules.v4")


def foreign_lines(text):
    return foreign.lines_of_others(text)


def in_the_kernel(text):
    """What INPUT holds after a load of a file, by the strict fake; a file's older tables of a name are emptied."""
    lines = []
    for line in text.split("\n"):
        line = " ".join(line.split()) if line.strip()[:1] in ("-", ":", "*") else line.strip()
        lines.append(line.replace("--append ", "-A ").replace("--insert ", "-I "))
    return FakeIptables("\n".join(lines)).save()


NAT = "*nat\n:PREROUTING ACCEPT [0:0]\n-A PREROUTING -p tcp -m tcp --dport 8080 -j REDIRECT --to-ports 80\nCOMMIT\n"
FTP, SSH = ("-A INPUT -p tcp -m tcp --dport {0} -j ACCEPT\n".format(port) for port in (21, 22))
FILES = {
    "none": "",
    "only a comment": "# nothing here yet\n",
    "bare": BARE + "COMMIT\n",
    "no newline at the end": BARE + "-A INPUT -p tcp -m tcp --dport 22 -j ACCEPT\nCOMMIT",
    "the stock EL file": (
        BARE + "-A INPUT -m state --state RELATED,ESTABLISHED -j ACCEPT\n-A INPUT -p tcp -m tcp --dport 22 -j ACCEPT\n"
        "-A INPUT -j REJECT --reject-with icmp-host-prohibited\n-A FORWARD -j REJECT\nCOMMIT\n"
    ),
    "comments and blank lines": "# mine\n\n*filter\n# policy\n:INPUT DROP [0:0]\n\n# web\n-A INPUT -p tcp -m tcp --dport 80 -j ACCEPT\n\n"
                                "# ssh\n-A INPUT -p tcp -m tcp --dport 22 -j ACCEPT\n\n# end\nCOMMIT\n# the end\n\n",
    "indented rules": "*filter\n:INPUT DROP [0:0]\n\t-A  INPUT  -p tcp\t-m tcp --dport 22 -j ACCEPT\n  -A INPUT -j DROP\nCOMMIT\n",
    "inserts": BARE + FTP + SSH.replace("-A", "-I") + "-I INPUT 2 -s 192.0.2.9/32 -j DROP\nCOMMIT\n",
    "long options": BARE + "--append INPUT --protocol tcp --destination-port 22 --jump ACCEPT\nCOMMIT\n",
    "policy without counters": "*filter\n:INPUT DROP\n-A INPUT -i lo -j ACCEPT\nCOMMIT\n",
    "counters": "*filter\n:INPUT DROP [9:900]\n[3:30] -A INPUT -i lo -j ACCEPT\n[1:2] -A INPUT -p tcp -j ACCEPT\nCOMMIT\n",
    "nat first": NAT + BARE + "COMMIT\n",
    "nat only": NAT,
    "filter twice": BARE + FTP + "COMMIT\n" + BARE + SSH + "COMMIT\n",
    "chains declared late": "*filter\n:INPUT DROP [0:0]\n-A INPUT -p tcp -m tcp --dport 22 -j ACCEPT\n:WEB - [0:0]\n-A WEB -j ACCEPT\n"
                            "-A INPUT -p tcp -j WEB\nCOMMIT\n",
    "a chain made by -N": "*filter\n:INPUT DROP [0:0]\n-N WEB\n-A WEB -j ACCEPT\n-A INPUT -p tcp -j WEB\nCOMMIT\n",
    "a policy by -P": "*filter\n-P INPUT DROP\n-A INPUT -p tcp -m tcp --dport 22 -j ACCEPT\nCOMMIT\n",
    "a comment with a newline": BARE + '-A INPUT -m comment --comment "one\nCOMMIT\n*nat" -j ACCEPT\nCOMMIT\n',
    "no declarations": "*filter\n-A INPUT -p tcp -m tcp --dport 22 -j ACCEPT\nCOMMIT\n",
    "carriage returns": "*filter\r\n:INPUT ACCEPT [0:0]\r\n-A INPUT -p tcp -m tcp --dport 22 -j ACCEPT\r\nCOMMIT\r\n",
    "no UTF-8": BARE + '-A INPUT -m comment --comment "caf\udce9" -j ACCEPT\nCOMMIT\n',
}  # fmt: skip
files = pytest.mark.parametrize("text", list(FILES.values()), ids=list(FILES))
LOADABLE = [name for name in FILES if name not in
            ("carriage returns", "no newline at the end", "a comment with a newline", "a chain made by -N", "a policy by -P",
             "long options", "policy without counters", "only a comment")]  # fmt: skip


@files
@pytest.mark.parametrize("spec", [REJECT, ACCEPT], ids=["reject", "accept"])
def test_there_and_back_to_the_byte(text, spec):
    merged = present(text, spec)
    assert merged != text
    assert absent(merged) == text


@files
def test_twice_is_once(text):
    merged = present(text)
    assert present(merged) == merged
    changed = present(merged, ACCEPT)
    assert changed != merged
    assert present(changed, ACCEPT) == changed
    back = present(changed)
    assert present(back) == back
    assert sorted(back.split("\n")) == sorted(merged.split("\n"))
    assert absent(changed) == absent(back) == text


@files
def test_foreign_lines_stay_in_order(text):
    kept = foreign_lines(present(text))
    if "filter" in text:
        assert kept == foreign_lines(text)
    else:
        assert kept == (MADE_HERE + BARE + "COMMIT\n" + text).split("\n")


@files
def test_nothing_to_take_out(text):
    assert absent(text) == text


@pytest.mark.parametrize("name", LOADABLE)
def test_the_file_loads_and_is_what_the_plan_would_make(name):
    """The same plan on the file and on the kernel: after a reboot there is nothing to do."""
    saved = in_the_kernel(present(FILES[name]))
    assert plan_family(saved, REJECT, "ipv4").change == ""


def test_a_new_file_is_made_here_and_goes():
    merged = present("")
    assert merged.startswith(MADE_HERE + "*filter\n")
    assert merged.endswith("COMMIT\n")
    assert absent(merged) == ""


def test_a_table_made_here_stays_when_others_use_it():
    merged = present("").replace("COMMIT\n", "-A INPUT -p tcp -m tcp --dport 80 -j ACCEPT\nCOMMIT\n")
    assert "--dport 80" in absent(merged)
    assert "PORTKNOCK" not in absent(merged)


def test_ours_in_a_table_that_no_longer_counts_goes_too():
    """Somebody put a second filter table behind the one that holds our rules."""
    merged = present(BARE + "COMMIT\n") + BARE + "-A INPUT -p tcp -m tcp --dport 80 -j ACCEPT\nCOMMIT\n"
    again = present(merged)
    assert plan_family(in_the_kernel(again), REJECT, "ipv4").change == ""
    assert "PORTKNOCK" not in absent(again)


def test_our_lines_edited_by_hand_are_mended():
    merged = present(FILES["the stock EL file"])
    for old, new in (
        ("--seconds 5", "--seconds 50"),
        ("-j PORTKNOCK\n", "-j PORTKNOCK_TAIL\n"),
        (":PORTKNOCK_K1 - [0:0]\n", ""),
    ):
        assert old in merged
        assert present(merged.replace(old, new)) == merged


@pytest.mark.parametrize("rest", ["-D INPUT -j DROP", "-F INPUT", "-X", "rubbish", "-E A B"])
def test_what_cannot_be_followed_is_refused(rest):
    with pytest.raises(HostError, match="rules.v4, line 5: "):
        present(BARE + rest + "\nCOMMIT\n")


pieces = st.lists(
    st.one_of(
        foreign.rule("ipv4", ()).map("-A INPUT {0}\n".format),
        foreign.rule("ipv4", ()).map("\t-A  INPUT {0}\n".format),
        foreign.rule("ipv4", ()).map("-I INPUT {0}\n".format),
        foreign.rule("ipv4", ()).map("[1:2] -A FORWARD {0}\n".format),
        st.sampled_from(
            ["\n", "  \n", "# a comment\n", '# one " quote\n', "#*filter\n", ":WEB - [0:0]\n", ":INPUT DROP [1:2]\n"]
        ),
    ),
    max_size=8,
)
around = st.lists(
    st.sampled_from(["\n", "# text\n", "*nat\n:PREROUTING ACCEPT [0:0]\nCOMMIT\n", "*filter\nCOMMIT\n"]), max_size=3
)


@given(before=around, inside=pieces, after=around, spec=st.sampled_from([REJECT, ACCEPT]))
def test_any_file_there_and_back(before, inside, after, spec):
    text = "".join(before) + "*filter\n" + "".join(inside) + "COMMIT\n" + "".join(after)
    merged = present(text, spec)
    assert present(merged, spec) == merged
    assert absent(merged) == text
    assert foreign_lines(merged) == foreign_lines(text)
    rules = parse(merged).table("filter").rules("INPUT")
    assert sum(rule.text.endswith("-j PORTKNOCK_HEAD") for rule in rules) == 1


@given(inside=pieces)
def test_any_file_declares_before_it_uses(inside):
    """iptables-restore refuses a jump to a chain that is declared only further down."""
    merged = present("*filter\n" + "".join(inside) + "COMMIT\n")
    declared = set()
    for line in merged.splitlines():
        if line.startswith(":"):
            declared.add(line[1:].split()[0])
        for word in line.split():
            if word.startswith("PORTKNOCK") and line.startswith(("-A", "-I")):
                assert word in declared
