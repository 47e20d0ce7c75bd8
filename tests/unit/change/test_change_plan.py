# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A whole run of knock_ruleset on a host in memory."""

import pytest
from ansible_collections.sesame.portknock.plugins.module_utils._errors import HostError, PortknockError, SpecError
from ansible_collections.sesame.portknock.plugins.module_utils._paths import MODPROBE, PREVIOUS, STATE_FILE
from fake_host import EL, FakeHost
from hypothesis import given, reject
from hypothesis import strategies as st
from module_run import ACCEPT_22, DOOR, KEPT, foreign_part, run, settled
from shown_steps import steps_in


def test_a_bare_host():
    host = FakeHost()
    result = settled(host)
    assert result["changed"] is True
    assert (result["ip_versions"], result["backend"], result["findings"]) == (["ipv4", "ipv6"], "nft", [])
    assert {path: host.mode(path) for path in host.files if path != "/etc/os-release"} == KEPT
    assert host.unit
    headers = [part["after_header"] for part in result["diff"]]
    assert headers[:2] == ["ipv4 ruleset in the kernel", "ipv6 ruleset in the kernel"]
    assert sorted(headers[2:]) == sorted("{0} (mode {1:04o})".format(*item) for item in KEPT.items())
    assert all(part["before"] == "" for part in result["diff"])


def test_el_keeps_its_rules_elsewhere():
    stock = (
        "*filter\n:INPUT ACCEPT [0:0]\n-A INPUT -p tcp -m tcp --dport 22 -j ACCEPT\n-A INPUT -j REJECT\nCOMMIT\n",
        0o644,
    )
    host = FakeHost(EL, files={"/etc/sysconfig/iptables": stock}, v4=stock[0])
    result = settled(host)
    assert "PORTKNOCK" in host.read("/etc/sysconfig/iptables")
    assert host.mode("/etc/sysconfig/iptables") == 0o600, "it holds knocks now"
    assert "/etc/iptables/rules.v4" not in host.files
    assert [finding["kind"] for finding in result["findings"]] == ["lost_effect"]
    settled(host, state="absent")
    assert host.files["/etc/sysconfig/iptables"] == stock
    assert host.state()[0] == FakeHost(v4=stock[0]).state()[0]


@pytest.mark.parametrize("mode", [0o644, 0o640])
def test_what_saves_rules_with_permissions_of_its_own_is_a_change_that_says_so(mode):
    """As netfilter-persistent save does: whoever is in its group could read the steps."""
    host = FakeHost()
    run(host)
    path, text = "/etc/iptables/rules.v4", host.read("/etc/iptables/rules.v4")
    host.files[path] = (text, mode)
    for check in (True, False):
        result = run(host, check=check)
        assert result["changed"] is True
        assert result["permissions"] == [
            "{0} has mode {1:04o} instead of 0600: it may hold steps of knocks, which only root may read".format(
                path, mode
            )
        ]
        (part,) = result["diff"]
        assert part["before"].splitlines()[0] == "mode {0:04o}".format(mode)
        assert part["after"].splitlines()[0] == "mode 0600"
    assert host.mode(path) == 0o600
    again = run(host)
    assert (again["changed"], again["permissions"]) == (False, [])
    host.files[path] = ("".join(line for line in text.splitlines(True) if "-j PORTKNOCK_TAIL" not in line), mode)
    assert run(host)["permissions"] == [], "it is not the permissions alone"


def test_an_acknowledged_finding_is_still_returned():
    single = dict(doors=[dict(DOOR, knock=["1000"])])
    for kinds, expected in (
        ([], False),
        (["list_size"], False),
        (["list_size", "single_step"], True),
        ("single_step", True),
    ):
        (finding,) = run(FakeHost(), check=True, acknowledge=kinds, **single)["findings"]
        assert (finding["kind"], finding["acknowledged"]) == ("single_step", expected)


def test_check_mode_only_plans():
    host = FakeHost()
    host.frozen = True
    before = host.state()
    result = run(host, check=True)
    assert result["changed"] is True
    assert len(result["diff"]) == 2 + len(KEPT)
    assert host.state() == before
    assert not [words for words in host.commands if "-restore" in words[0]]
    host.frozen = False
    assert run(host)["diff"] == result["diff"]


def test_without_iptables():
    host = FakeHost()
    host.tools.clear()
    with pytest.raises(HostError, match="iptables is not installed on this host"):
        run(host)
    result = run(host, check=True)
    assert result["changed"] is True
    assert [part["after"] for part in result["diff"]] == [part["after"] for part in run(FakeHost(), check=True)["diff"]]
    assert run(host, state="absent")["changed"] is False
    assert not host.done


def test_a_host_without_ipv6():
    host = FakeHost()
    host.speaks = ("ipv4",)
    assert settled(host)["ip_versions"] == ["ipv4"]
    assert not [path for path in host.files if "6" in path]
    with pytest.raises(SpecError, match="names only ipv6, which this host does not speak"):
        run(host, ip_versions=["ipv6"])


def test_one_family_is_taken_back():
    host = FakeHost()
    settled(host)
    result = settled(host, ip_versions=["ipv4"])
    assert result["changed"] is True
    assert "PORTKNOCK" not in host.rules["ip6tables"].save()
    left = [path for path in host.files if "ip6tables" in path or path.endswith(".v6")]
    assert left == [PREVIOUS + "/rules.v6"], "the version before is kept"
    assert [finding["kind"] for finding in result["findings"]] == ["family_open"]


@pytest.mark.parametrize(
    ("version", "other", "legacy_tables", "found"),
    [
        ("iptables v1.8.9 (nf_tables)", "iptables-legacy-save", "filter\n", True),
        ("iptables v1.8.9 (nf_tables)", "iptables-legacy-save", "", False),
        ("iptables v1.8.9 (legacy)", "iptables-nft-save", "", True),
        ("iptables v1.8.9 (nf_tables)", "ip6tables-legacy-save", "filter\n", True),
    ],
)
def test_rules_in_the_other_backend(version, other, legacy_tables, found):
    host = FakeHost(
        files={
            "/proc/net/ip_tables_names": (legacy_tables, 0o400),
            "/proc/net/ip6_tables_names": (legacy_tables, 0o400),
        }
    )
    host.version = version
    host.tools.add(other)
    host.other_backend[other] = "*filter\n:INPUT ACCEPT [0:0]\n-A INPUT -p tcp -j ACCEPT\nCOMMIT\n"
    before = host.state()
    if not found:
        assert run(host)["changed"] is True
        return
    with pytest.raises(
        HostError, match="both backends of iptables hold rules.*{0} shows: -A INPUT -p tcp -j ACCEPT".format(other)
    ):
        run(host)
    assert host.state() == before
    assert run(host, state="absent")["changed"] is False


def test_the_other_backend_with_tables_but_no_rules_is_fine():
    host = FakeHost(files={"/proc/net/ip_tables_names": ("filter\n", 0o400)})
    host.tools.add("iptables-legacy-save")
    host.other_backend["iptables-legacy-save"] = "*filter\n:INPUT ACCEPT [0:0]\nCOMMIT\n"
    assert run(host)["changed"] is True


ME4, ME6 = "192.0.2.7 50000 192.0.2.1 22", "2001:db8::7 50000 2001:db8::1 22"
WEB = {"name": "web", "knock": ["1000", "500"], "opens": ["443"]}
REJECT_ALL = "*filter\n:INPUT ACCEPT [0:0]\n-A INPUT -j REJECT\n-A INPUT -p tcp -m tcp --dport 22 -j ACCEPT\nCOMMIT\n"
SOME_22 = "*filter\n:INPUT ACCEPT [0:0]\n-A INPUT -s 198.51.100.0/24 -p tcp -m tcp --dport 22 -j ACCEPT\nCOMMIT\n"
LOCKED_OUT = [
    ("no doors", dict(doors=[]), ME4, "", True),
    ("no doors, v6", dict(doors=[]), ME6, "", True),
    ("no doors, no ssh", dict(doors=[]), None, "", False),
    ("no doors, policy accept", dict(doors=[], policy="accept"), ME4, "", False),
    (
        "policy accept, a door for others",
        dict(doors=[dict(DOOR, sources=["198.51.100.0/24"])], policy="accept"),
        ME4,
        "",
        True,
    ),
    ("policy accept, a door for us", dict(doors=[DOOR], policy="accept"), ME4, "", False),
    ("no doors, other port", dict(doors=[WEB]), ME4, "", True),
    ("a door for it", dict(doors=[DOOR]), ME4, "", False),
    ("a door of a range", dict(doors=[dict(DOOR, opens=["20-30"])]), ME4, "", False),
    ("a door for its UDP", dict(doors=[dict(DOOR, opens=["22/udp"])]), ME4, "", True),
    ("a door for others", dict(doors=[dict(DOOR, sources=["198.51.100.0/24"])]), ME4, "", True),
    ("a door for us", dict(doors=[dict(DOOR, sources=["192.0.2.0/24"])]), ME4, "", False),
    ("allowed", dict(doors=[], allow=[{"port": 22}]), ME4, "", False),
    ("allowed to others", dict(doors=[], allow=[{"port": 22, "sources": ["198.51.100.0/24"]}]), ME4, "", True),
    ("UDP allowed", dict(doors=[], allow=[{"port": "22/udp"}]), ME4, "", True),
    ("trusted", dict(doors=[], trusted_sources=["192.0.2.0/24"]), ME4, "", False),
    ("others trusted", dict(doors=[], trusted_sources=["198.51.100.0/24"]), ME4, "", True),
    ("an interface trusted", dict(doors=[], trusted_interfaces=["wg0"]), ME4, "", False),
    ("the loopback trusted", dict(doors=[], trusted_interfaces=["lo"]), ME4, "", True),
    ("a foreign ACCEPT", dict(doors=[]), ME4, ACCEPT_22, False),
    ("a foreign ACCEPT behind a REJECT", dict(doors=[]), ME4, REJECT_ALL, True),
    ("a foreign ACCEPT for others alone", dict(doors=[]), ME4, SOME_22, True),
    ("a foreign ACCEPT of v4 and ssh over v6", dict(doors=[]), ME6, ACCEPT_22, True),
    ("the other family is not managed", dict(doors=[], ip_versions=["ipv4"]), ME6, "", False),
    ("removal", dict(doors=[], state="absent"), ME4, "", False),
    ("a link-local address", dict(doors=[DOOR]), "fe80::7%eth0 50000 fe80::1%eth0 22", "", False),
    ("another port of the host", dict(doors=[DOOR]), "192.0.2.7 50000 192.0.2.1 2222", "", True),
]


@pytest.mark.parametrize(
    ("more", "ssh", "v4", "refused"), [item[1:] for item in LOCKED_OUT], ids=[item[0] for item in LOCKED_OUT]
)
def test_nobody_locks_himself_out(more, ssh, v4, refused):
    # What lets the connection in must also be there at the next boot.
    host = FakeHost(v4=v4, files={"/etc/iptables/rules.v4": (v4, 0o640)} if v4 else {})
    host.ssh = ssh
    if not refused:
        run(host, **more)
        return
    before = host.state()
    with pytest.raises(
        SpecError,
        match="policy [a-z]+ would shut out this connection: nothing would let {0} in to port".format(ssh.split()[0]),
    ):
        run(host, **more)
    assert host.state() == before
    with pytest.raises(SpecError):
        run(host, check=True, **more)


def test_absent_leaves_the_host_as_it_was():
    rules = "*filter\n:INPUT DROP [0:0]\n-A INPUT -p tcp -m tcp --dport 22 -j ACCEPT\nCOMMIT\n"
    host = FakeHost(v4=rules, files={"/etc/iptables/rules.v4": ("# mine\n" + rules, 0o640)})
    host.module = True
    before = host.state()
    settled(host)
    assert MODPROBE in host.files
    assert host.mode(MODPROBE) == 0o644
    result = settled(host, state="absent")
    assert result["changed"] is True
    after = host.state()
    assert foreign_part(after) == foreign_part(before)


def test_absent_on_a_host_that_never_had_it():
    host = FakeHost()
    host.frozen = True
    assert run(host, state="absent")["changed"] is False


def test_persist_false_keeps_nothing():
    host = FakeHost()
    settled(host, persist=False)
    assert set(host.files) == {"/etc/os-release", STATE_FILE}
    assert host.read(STATE_FILE) == '{"unkept": {"ipv4": true, "ipv6": true}}\n', (
        "so that it can be told when they are gone"
    )
    assert not host.unit
    assert "PORTKNOCK" in host.rules["iptables"].save()


def test_persist_switched_off_takes_the_files_away():
    host = FakeHost()
    settled(host)
    settled(host, persist=False)
    assert [path for path in host.files if path != "/etc/os-release"] == []
    assert not host.unit
    assert "PORTKNOCK" in host.rules["iptables"].save()


def test_persist_on_a_distribution_that_is_not_known():
    host = FakeHost('ID=plan9\nPRETTY_NAME="Plan 9"\n')
    with pytest.raises(HostError, match="it is not known where Plan 9 keeps its iptables rules"):
        run(host)
    settled(host, persist=False)


def test_a_wrong_mode_is_mended():
    host = FakeHost()
    settled(host)
    host.files["/etc/iptables/rules.v4"] = (host.read("/etc/iptables/rules.v4"), 0o644)
    result = settled(host)
    assert result["changed"] is True
    assert host.mode("/etc/iptables/rules.v4") == 0o600


def test_a_unit_that_failed_is_run_again():
    host = FakeHost()
    settled(host)
    host.unit = False
    host.done = []
    assert settled(host)["changed"] is True
    assert ("enable_unit",) in host.done
    assert not [what for what in host.done if what[0] == "restore"]


def test_list_size():
    host = FakeHost()
    host.size = 100
    result = run(host)
    assert [finding["kind"] for finding in result["findings"]] == ["list_size"]
    assert "xt_recent.ip_list_tot=4096 on its command line" in result["findings"][0]["message"]
    host.module = True
    result = settled(host, list_size=5000)
    assert host.read(MODPROBE).endswith("options xt_recent ip_list_tot=5000 ip_list_perms=0600\n")
    assert "It will take effect when the module is loaded next" in result["findings"][0]["message"]
    host.size = None
    assert run(host)["findings"] == []


# Secrets

ports = st.lists(st.integers(10000, 65000), min_size=4, max_size=4, unique=True)


@pytest.mark.slow
@given(ports=ports, protocols=st.lists(st.sampled_from(["tcp", "udp"]), min_size=4, max_size=4),
       wrong=st.sampled_from(["", "refuse", "test", "probe", "disk", "unit"]),
       log=st.booleans(), policy=st.sampled_from(["accept", "reject"]),
       v4=st.sampled_from(["", ACCEPT_22, REJECT_ALL]))  # fmt: skip
def test_no_step_in_a_result_or_an_error(ports, protocols, wrong, log, policy, v4):
    steps = ["{0}/{1}".format(*pair) for pair in zip(ports, protocols)]
    more = {"doors": [dict(DOOR, knock=steps[:2], close=steps[2:])], "log": log, "policy": policy}
    host = FakeHost(v4=v4)

    def refuse(_command, words, data):
        place = {
            "refuse": "-A PORTKNOCK_K" in data and "--test" not in words,
            "test": "--test" in words,
            "probe": "PROBE" in data,
        }
        number = next((n for n, line in enumerate(data.split("\n"), 1) if line.startswith("-A PORTKNOCK_K1")), 3)
        return (2, "", "iptables-restore: line {0} failed\n".format(number)) if place.get(wrong) else None

    host.refuse = refuse
    host.disk_full = STATE_FILE if wrong == "disk" else None
    host.unit_refuses = wrong == "unit"
    shown = []
    for each in (more, more, dict(more, state="absent")):
        try:
            shown.append(repr(run(host, **each)))
        except SpecError:
            reject()
        except PortknockError as error:
            shown.append(str(error))
    assert steps_in(ports, " ".join(shown)) == []


def test_files_with_steps_are_for_root_alone():
    host = FakeHost(EL)
    settled(host)
    for path, (text, mode) in host.files.items():
        if any(step.split("/", 1)[0] in text for step in DOOR["knock"]):
            assert mode == 0o600, path
    assert "18300" in host.read("/etc/sysconfig/iptables")
    assert all("18300" not in " ".join(words) for words in host.commands), (
        "arguments are seen by every user of the host"
    )
