# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""knockd's configuration: what is in it, how it is read back, and what of it is shown."""

import configparser
import ipaddress
import os
import re
import subprocess

import pytest
from ansible_collections.sesame.portknock.plugins.module_utils._errors import SpecError
from ansible_collections.sesame.portknock.plugins.module_utils._iptables.build import build_rules
from ansible_collections.sesame.portknock.plugins.module_utils._knockd import config as _knockd
from ansible_collections.sesame.portknock.plugins.module_utils._knockd.config import (
    config_id,
    config_text,
    interface_of,
    is_edited,
    is_too_old,
    seq_timeout,
    steps_of,
)
from ansible_collections.sesame.portknock.plugins.module_utils._knockd.service import is_needed
from ansible_collections.sesame.portknock.plugins.module_utils._knockd.units import PREFIX_SCRIPT
from ansible_collections.sesame.portknock.plugins.module_utils._redact import readable_config
from ansible_collections.sesame.portknock.plugins.module_utils._spec.options import spec_from_options
from hypothesis import example, given
from hypothesis import strategies as st
from knockd_model import Knockd
from knockd_specs import BOTH, DOOR, HERE, SEVERAL, config_of, ports_used, spec_of, specs, text_of


def sections_of(text):
    """Return section to its keys, as an independent parser reads them."""
    parser = configparser.RawConfigParser(allow_no_value=True, delimiters=("=",), comment_prefixes=("#",))
    parser.optionxform = str
    parser.read_string(text)
    return {name: dict(parser[name]) for name in parser.sections()}


def test_golden(golden):
    golden("knockd.conf", text_of(*SEVERAL, log=True, ipv6_prefix=64))


def test_knockd_takes_it():
    daemon = Knockd(text_of(*SEVERAL, log=True, ipv6_prefix=64))
    assert daemon.interface == "eth0"
    names = [each.name for each in daemon.sections]
    assert names[:4] == ["open ssh", "close ssh", "open web_2", "open six"]
    assert all(name.startswith("decoy ") for name in names[4:])
    assert len(set(names)) == len(names)


WHO_MAY = [
    ([], BOTH, True, True),
    ([], ("ipv4",), True, False),
    ([], ("ipv6",), False, True),
    (["192.0.2.0/24"], BOTH, True, False),
    (["2001:db8::/32"], BOTH, False, True),
    (["192.0.2.0/24", "2001:db8::/32"], BOTH, True, True),
]


@pytest.mark.parametrize(("sources", "families", "v4", "v6"), WHO_MAY)
def test_a_knock_over_a_family_that_has_no_list_does_nothing(sources, families, v4, v6):
    """Without a line of its own, knockd would take IPv4's command for IPv6."""
    spec = spec_of(dict(DOOR, sources=sources, close=["18311"]))
    found = sections_of(config_text(spec, families, "eth0", HERE))
    for name, sign in (("open ssh", "+"), ("close ssh", "-")):
        commands = found[name]["start_command"], found[name]["start_command_6"]
        assert commands == (
            "echo {0}%IP% > /proc/net/xt_recent/pk4_ssh".format(sign) if v4 else ":",
            "echo {0}%IP% > /proc/net/xt_recent/pk6_ssh".format(sign) if v6 else ":",
        )


NAMES = st.from_regex(r"\A[A-Za-z][A-Za-z0-9_]{0,15}\Z")
ADDRESSES = st.one_of(
    st.integers(0, 2**32 - 1).map(ipaddress.IPv4Address), st.integers(0, 2**128 - 1).map(ipaddress.IPv6Address)
)


@given(name=NAMES, address=ADDRESSES, prefix=st.sampled_from([64, 100, 128]))
@example(name="options", address=ipaddress.ip_address("192.0.2.1"), prefix=128)
def test_the_shell_gets_no_surprise(name, address, prefix):
    door = dict(DOOR, name=name, close=["18311"])
    daemon = Knockd(text_of(door, ipv6_prefix=prefix))
    source = str(address)
    done = daemon.knock(spec_of(door).doors[0].knock, source) + daemon.knock([(18311, "tcp")], source)
    assert [section for section, _command in done] == ["open " + name, "close " + name]
    for sign, (_section, command) in zip("+-", done):
        what = re.escape(source)
        if address.version == 6 and prefix != 128:
            what = r"\$\(sh /etc/portknock/ipv6-prefix {0} {1}\)".format(prefix, what)
        wanted = r"echo {0}{1} > /proc/net/xt_recent/pk[46](\.\d+)?_{2}\Z".format(re.escape(sign), what, name)
        assert re.match(wanted, command)


@pytest.mark.parametrize("name", ["a;id", "$(id)", "a\nb", "a]", "a=b", "a b", "%IP%", "..", "a/b", "`id`", "a|b", "é"])
def test_no_door_has_a_name_that_means_something(name):
    with pytest.raises(SpecError, match="is not a valid name"):
        spec_of(dict(DOOR, name=name))


@pytest.mark.parametrize(
    ("source", "prefix", "written"),
    [
        ("192.0.2.7", 64, {"pk4_ssh": "+192.0.2.7\n"}),
        ("2001:db8:1:2:3:4:5:6", 128, {"pk6_ssh": "+2001:db8:1:2:3:4:5:6\n"}),
        ("2001:db8:1:2:3:4:5:6", 64, {"pk6.64_ssh": "+2001:db8:1:2:0:0:0:0\n"}),
    ],
)
def test_what_the_shell_does_with_it(source, prefix, written, tmp_path, monkeypatch):
    monkeypatch.setattr(_knockd, "RECENT_LISTS", str(tmp_path))
    (tmp_path / "ipv6-prefix").write_text(PREFIX_SCRIPT)
    spec = spec_of(ipv6_prefix=prefix)
    text = config_text(spec, BOTH, "eth0", str(tmp_path))
    for _section, command in Knockd(text).knock(spec.doors[0].knock, source):
        subprocess.check_call(["/bin/sh", "-c", command])
    found = {name: (tmp_path / name).read_text() for name in os.listdir(str(tmp_path)) if name != "ipv6-prefix"}
    assert len(found) == 1
    assert list(found.values()) == list(written.values())
    assert {name.split("_")[-1] for name in found} == {"ssh"}


def test_the_list_is_the_one_that_the_rules_ask():
    for prefix in (128, 64):
        spec = spec_of(*SEVERAL, ipv6_prefix=prefix)
        rules = [text for family in BOTH for chain in build_rules(spec, family).chains.values() for text in chain]
        asked = set(re.findall(r"--rcheck .*?--name (\S+)", "\n".join(rules)))
        text = config_text(spec, BOTH, "eth0", HERE)
        assert set(re.findall(r"xt_recent/(\S+)", text)) == asked
        assert "--set" not in "\n".join(rules)


@pytest.mark.parametrize(("count", "pause", "wanted"), [(1, 5, 1), (2, 5, 6), (3, 5, 11), (8, 1, 8), (2, 86400, 86401)])
def test_seq_timeout(count, pause, wanted):
    steps = [str(20000 - 500 * n + 9000 * (n % 2)) for n in range(count)]
    spec = spec_of(dict(DOOR, knock=steps, step_timeout=pause))
    assert seq_timeout(spec.doors[0], spec.doors[0].knock) == wanted
    text = config_text(spec, BOTH, "eth0", HERE)
    assert sections_of(text)["open ssh"]["seq_timeout"] == str(wanted)


def test_a_close_has_its_own_time():
    door = dict(DOOR, close=["18311", "17444"], step_timeout=3)
    found = sections_of(text_of(door))
    assert (found["open ssh"]["seq_timeout"], found["close ssh"]["seq_timeout"]) == ("7", "4")


@pytest.mark.parametrize(("more", "wanted"), [({}, True), ({"doors": []}, False)])
def test_who_needs_knockd(more, wanted):
    assert is_needed(spec_from_options(dict({"doors": [DOOR], "engine": "knockd"}, **more))) is wanted
    assert is_needed(None) is False


@pytest.mark.parametrize(
    ("said", "old"),
    [
        ("knockd 0.8\nCopyright (C) 2004-2012 Judd Vinet\n", False),
        ("knockd 0.7\nCopyright\n", True),
        ("knockd 0.7.8\n", True),
        ("knockd 0.10\n", False),
        ("knockd 1.0\n", False),
        ("", False),
        ("usage: knockd [options]\n", False),
    ],
)
def test_versions(said, old):
    assert is_too_old(said) is old


# Read back


def test_what_is_read_back():
    text = text_of(*SEVERAL)
    assert interface_of(text) == "eth0"
    assert steps_of(text) == {"ssh": 3, "web_2": 1, "six": 2}
    assert re.match(r"[0-9a-f]{16}\Z", config_id(text))
    assert not is_edited(text)
    assert (config_id(""), interface_of(""), steps_of("")) == ("", "", {})


EDITS = [
    lambda text: text.replace("eth0", "eth1"),
    lambda text: text.replace("seq_timeout = 7", "seq_timeout = 700"),
    lambda text: text + "\n",
    lambda text: text[:-1],
    lambda text: text + "[more]\nsequence = 1:tcp\n",
    lambda text: re.sub("id [0-9a-f]{16}", "id 0123456789abcdef", text),
    lambda text: text.partition("\n")[2],
    lambda _text: "[options]\nUseSyslog\n",
]


@pytest.mark.parametrize("edit", EDITS)
def test_an_edit_shows(edit):
    text = text_of(*SEVERAL)
    assert edit(text) != text
    assert is_edited(edit(text))


def test_another_spec_has_another_id():
    texts = {text_of(*doors, **more) for doors, more in [
        (SEVERAL, {}), ([DOOR], {}), ([DOOR], {"log": True}), ([dict(DOOR, step_timeout=6)], {}), ([DOOR], {"ipv6_prefix": 64}),
    ]}  # fmt: skip
    assert len({config_id(text) for text in texts}) == 5


# What is shown


@pytest.mark.slow
@given(spec=specs(), log=st.booleans())
def test_no_step_in_what_is_shown(spec, log):
    spec = spec._replace(log=log)
    text = config_of(spec)
    shown = readable_config(text)
    _opened, steps = ports_used(spec)
    numbers = set(re.findall(r"\d{2,}", shown))
    assert not {str(port) for port, _protocol in steps if port > 99} & numbers
    assert not {str(port) for port, _protocol in Knockd(text).ports if port > 99} & numbers, "decoys tell of steps"
    assert "sequence = " in shown
    assert not re.search(r"sequence = .*\d", shown)
    # Neither what the steps could be tried against.
    assert config_id(text) not in shown


@pytest.mark.parametrize("line", ["sequence = 7000,8000", "\tSequence=7000,8000", "  SEQUENCE\t=  7000:tcp,8000:udp"])
def test_no_spelling_of_a_sequence_is_shown(line):
    """Somebody who edited the file may have written it as knockd's own manual does."""
    shown = readable_config("[open ssh]\n" + line + "\nseq_timeout = 5\n")
    assert "000" not in shown and shown.endswith("****\nseq_timeout = 5\n")
