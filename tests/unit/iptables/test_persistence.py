# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is kept over a reboot, and the script that looks after it."""

import os
import shutil
import subprocess

import pytest
from ansible_collections.sesame.portknock.plugins.module_utils._errors import HostError
from ansible_collections.sesame.portknock.plugins.module_utils._iptables.boot import BOOT_SCRIPT_TEXT as BOOT_SCRIPT
from ansible_collections.sesame.portknock.plugins.module_utils._iptables.boot import BOOT_UNIT_TEXT as BOOT_UNIT
from ansible_collections.sesame.portknock.plugins.module_utils._iptables.boot import closed_text, fallback_text
from ansible_collections.sesame.portknock.plugins.module_utils._iptables.build import build_rules
from ansible_collections.sesame.portknock.plugins.module_utils._iptables.persistence import (
    layout_of,
    modprobe_text,
    wanted_files,
)
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.save_format import parse
from ansible_collections.sesame.portknock.plugins.module_utils._paths import BOOT_SCRIPT as SCRIPT
from ansible_collections.sesame.portknock.plugins.module_utils._paths import UNIT
from ansible_collections.sesame.portknock.plugins.module_utils._spec.options import spec_from_options
from fake_iptables import FakeIptables
from walker import Packet, Walker

RELEASES = {
    "Debian 11": ("debian", 'PRETTY_NAME="Debian GNU/Linux 11 (bullseye)"\nNAME="Debian GNU/Linux"\nVERSION_ID="11"\nID=debian\n'),
    "Debian 12": ("debian", 'PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\nNAME="Debian GNU/Linux"\nVERSION_ID="12"\nID=debian\n'),
    "Debian 13": ("debian", 'PRETTY_NAME="Debian GNU/Linux 13 (trixie)"\nNAME="Debian GNU/Linux"\nVERSION_ID="13"\nID=debian\n'),
    "Ubuntu 22.04": ("debian", 'PRETTY_NAME="Ubuntu 22.04.4 LTS"\nNAME="Ubuntu"\nVERSION_ID="22.04"\nID=ubuntu\nID_LIKE=debian\n'),
    "Ubuntu 24.04": ("debian", 'PRETTY_NAME="Ubuntu 24.04 LTS"\nNAME="Ubuntu"\nVERSION_ID="24.04"\nID=ubuntu\nID_LIKE=debian\n'),
    "Rocky 8": ("el", 'NAME="Rocky Linux"\nID="rocky"\nID_LIKE="rhel centos fedora"\nVERSION_ID="8.9"\n'),
    "Rocky 9": ("el", 'NAME="Rocky Linux"\nID="rocky"\nID_LIKE="rhel centos fedora"\nVERSION_ID="9.4"\n'),
    "Alma 10": ("el", 'NAME="AlmaLinux"\nID="almalinux"\nID_LIKE="rhel centos fedora"\nVERSION_ID="10.0"\n'),
    "RHEL 10": ("el", 'NAME="Red Hat Enterprise Linux"\nID="rhel"\nID_LIKE="centos fedora"\nVERSION_ID="10.0"\n'),
    "CentOS Stream 9": ("el", 'NAME="CentOS Stream"\nVERSION="9"\nID="centos"\nID_LIKE="rhel fedora"\nVERSION_ID="9"\n'),
    "Fedora": ("el", 'NAME="Fedora Linux"\nVERSION="42 (Server Edition)"\nID=fedora\nVERSION_ID=42\n'),
    "a derivative": ("debian", "NAME='Something'\nID=something\nID_LIKE=\"ubuntu debian\"\n"),
}  # fmt: skip
SPEC = spec_from_options(
    {
        "doors": [{"name": "ssh", "knock": ["17005", "19100/udp"], "opens": ["22", "51820/udp", "6000-6010"]}],
        "trusted_sources": ["192.0.2.0/24", "2001:db8::/32"],
    }
)
FAMILIES = ("ipv4", "ipv6")
OWNS = {family: build_rules(SPEC, family) for family in FAMILIES}
TRUSTED = {"ipv4": "192.0.2.9", "ipv6": "2001:db8::9"}
STRANGER = {"ipv4": "198.51.100.9", "ipv6": "2001:db9::9"}


@pytest.mark.parametrize("name", sorted(RELEASES))
def test_layout(name):
    wanted, text = RELEASES[name]
    layout = layout_of(text)
    assert layout.name == wanted
    assert layout.rules["ipv4"] == {"debian": "/etc/iptables/rules.v4", "el": "/etc/sysconfig/iptables"}[wanted]
    assert layout.rules["ipv6"] == {"debian": "/etc/iptables/rules.v6", "el": "/etc/sysconfig/ip6tables"}[wanted]


@pytest.mark.parametrize(
    ("text", "name"), [('ID=arch\nPRETTY_NAME="Arch Linux"\n', "Arch Linux"), ("", "this distribution")]
)
def test_layout_unknown(text, name):
    with pytest.raises(HostError) as refusal:
        layout_of(text)
    assert str(refusal.value) == (
        "persist: it is not known where {0} keeps its iptables rules. Set persist to false and keep them "
        "yourself, or use one of the supported distributions.".format(name)
    )


def test_where_knockd_recognises_them_no_knock_is_kept_in_a_rules_file():
    spec = SPEC._replace(engine="knockd")
    owns = {family: build_rules(spec, family) for family in FAMILIES}
    files = wanted_files(spec, owns, layout_of("ID=debian\n"), lambda _path: "")
    text = "".join(text for text, _mode in files.values())
    assert "--rcheck" in text
    assert "17005" not in text
    assert "19100" not in text


def test_modes_of_what_is_kept():
    files = wanted_files(SPEC, OWNS, layout_of("ID=debian\n"), lambda _path: "")
    for path, (text, mode) in files.items():
        assert mode == {SCRIPT: 0o755, UNIT: 0o644}.get(path, 0o600)
        assert ("17005" in text) <= (mode == 0o600)
        assert text.endswith("\n")


def test_nothing_is_wanted_where_nothing_was():
    files = wanted_files(None, {}, layout_of("ID=debian\n"), lambda _path: "")
    assert {text for text, _mode in files.values()} == {None}
    assert "/etc/iptables/rules.v4" not in files


def test_modprobe():
    assert modprobe_text(SPEC).splitlines()[-1] == "options xt_recent ip_list_tot=4096 ip_list_perms=0600"


def actions(text, *packets):
    """Load a text as our script does, which makes Docker's chain where it is missing."""
    host = FakeIptables(
        "*filter\n:INPUT ACCEPT [0:0]\n:DOCKER-USER - [0:0]\n-A INPUT -p tcp -m tcp --dport 22 -j ACCEPT\nCOMMIT\n"
    )
    host.restore(text)
    walker = Walker(parse(host.save()))
    return [walker.send(packet).action for packet in packets]


@pytest.mark.parametrize("family", FAMILIES)
def test_the_fallback_has_working_doors(family):
    source = STRANGER[family]
    packets = [
        Packet(source, 22),
        Packet(source, 17005),
        Packet(source, 19100, "udp"),
        Packet(source, 22),
        Packet(TRUSTED[family], 22),
    ]
    assert [actions(fallback_text(OWNS[family]), *packets)[place] for place in (0, 3, 4)] == [
        "REJECT",
        "ACCEPT",
        "ACCEPT",
    ]


@pytest.mark.parametrize("family", FAMILIES)
def test_the_closed_doors(family):
    """For a kernel that lacks our matches: only what is always there, and shut."""
    whole = closed_text(SPEC, family)
    text = "".join(line for line in whole.splitlines(True) if "PORTKNOCK_FWD" not in line)
    assert actions(whole, Packet(STRANGER[family], 22), Packet(TRUSTED[family], 22)) == ["DROP", "ACCEPT"]
    assert not [
        word for word in ("recent", "multiport", "comment", "conntrack", "pkttype", "17005", "19100") if word in text
    ]
    source, friend = STRANGER[family], TRUSTED[family]
    packets = [Packet(source, 22), Packet(source, 51820, "udp"), Packet(source, 6005), Packet(source, 80), Packet(friend, 22),
               Packet(source, 22, flags="ACK", state="ESTABLISHED"), Packet(source, 22, interface="lo")]  # fmt: skip
    assert actions(text, *packets) == ["DROP", "DROP", "DROP", "ACCEPT", "ACCEPT", "ACCEPT", "ACCEPT"]


def test_the_unit_runs_the_script():
    assert "ExecStart=" + SCRIPT in BOOT_UNIT.splitlines()
    assert "Type=oneshot" in BOOT_UNIT.splitlines()


@pytest.fixture
def script(tmp_path):
    path = tmp_path / "portknock-boot"
    path.write_text(BOOT_SCRIPT)
    return str(path)


@pytest.mark.parametrize("shell", ["sh", "bash", "dash"])
def test_the_script_parses(script, shell):
    if not shutil.which(shell):
        pytest.skip("no {0} on this machine".format(shell))
    subprocess.check_call([shell, "-n", script])


def test_the_script_passes_shellcheck(script):
    if not shutil.which("shellcheck"):
        pytest.skip("no shellcheck on this machine")
    subprocess.check_call(["shellcheck", "--shell=sh", script])


COMMAND = """#!/bin/sh
echo "$0 $*" >> "$LOG"
case ${0##*/} in
    nft) cat "$NATIVE" ;;
    iptables) [ "$2" != -V ] && [ "$1" != -V ] || { echo "iptables v1.8.9 (nf_tables)"; exit 0; }; cat "$RULES" ;;
    *) cat > "$TEXT"; [ ! -e "$RULES.loaded" ] || { sleep 0.3; cp "$RULES.loaded" "$RULES"; }; grep -q "$LOADS" "$TEXT" ;;
esac
"""


def started(tmp_path, rules, loads, native=None, words=(), times=1):
    """Start the script with commands that only write down how they were called; return the processes and a function for the calls.

    :param rules: what iptables prints, None where it fails.
    :param native: what nft prints, None where it fails.
    :param times: how many are started at once.
    """
    commands, kept, log = tmp_path / "bin", tmp_path / "kept", tmp_path / "log"
    commands.mkdir()
    kept.mkdir()
    for name in ("iptables", "iptables-restore", "nft"):
        (commands / name).write_text(COMMAND)
        (commands / name).chmod(0o755)
    (kept / "iptables.rules").write_text("*filter\nrules\n")
    (kept / "iptables.closed").write_text("*filter\nclosed\n")
    for name, printed in (("live", rules), ("native", native)):
        if printed is not None:
            (tmp_path / name).write_text(printed)
    text = BOOT_SCRIPT.replace("/etc/portknock", str(kept)).replace(
        "PATH=/usr/sbin", "PATH={0}:/usr/sbin".format(commands)
    )
    text = text.replace("/proc/net/xt_recent", str(tmp_path / "lists"))
    path = tmp_path / "script"
    path.write_text(text)
    environment = dict(os.environ, LOG=str(log), RULES=str(tmp_path / "live"), LOADS=loads)
    environment.update(NATIVE=str(tmp_path / "native"), TEXT=str(tmp_path / "text"))
    made = [
        subprocess.Popen(
            ["sh", str(path), *words],
            env=environment,
            stderr=subprocess.PIPE,
            stdout=subprocess.PIPE,
            universal_newlines=True,
        )
        for _turn in range(times)
    ]
    return made, lambda: [line.split("/")[-1].split(" ", 1)[0] for line in log.read_text().splitlines()]


def boot(*args, **options):
    """Run the script, as started() does; return its exit code, what it said, and the calls."""
    (done,), calls = started(*args, **options)
    _out, err = done.communicate()
    return done.returncode, err, calls()


RIGHT = """-P INPUT ACCEPT
-A INPUT -m comment --comment x -j PORTKNOCK_HEAD
-A INPUT -m comment --comment x -j PORTKNOCK
-A PORTKNOCK_HEAD -i lo -j ACCEPT
"""


def test_a_boot_that_went_well(tmp_path):
    assert boot(tmp_path, RIGHT, "rules") == (0, "", ["iptables"])


@pytest.mark.parametrize("missing", ["PORTKNOCK_HEAD\n", "PORTKNOCK\n", "-A PORTKNOCK_HEAD"])
def test_a_boot_without_the_rules_closes_the_doors_and_fails(tmp_path, missing):
    live = "".join(line + "\n" for line in RIGHT.splitlines() if missing not in line + "\n")
    code, err, calls = boot(tmp_path, live, "rules")
    assert code != 0
    assert "the knock rules of iptables were not loaded with the rest" in err
    assert "loaded the doors alone" in err
    assert calls == ["iptables", "iptables-restore"]


def test_a_boot_without_the_matches_closes_the_doors_for_good(tmp_path):
    code, err, calls = boot(tmp_path, "", "closed")
    assert code != 0
    assert "the doors are shut but for trusted sources" in err
    assert calls == ["iptables", "iptables-restore", "iptables-restore"]


def test_behind_another_firewall_the_doors_are_put_back(tmp_path):
    code, err, calls = boot(tmp_path, "-P INPUT DROP\n", "rules", words=("again",))
    assert (code, calls) == (0, ["iptables", "iptables-restore"])
    assert err == "portknock: another firewall has loaded rules of its own; the doors of iptables are put back\n"


def test_behind_another_firewall_that_left_them_nothing_is_done(tmp_path):
    assert boot(tmp_path, RIGHT, "rules", words=("again",)) == (0, "", ["iptables"])


def test_the_boot_and_the_start_of_another_firewall_at_once_load_the_doors_once(tmp_path):
    (tmp_path / "live.loaded").write_text(RIGHT)
    made, calls = started(tmp_path, "-P INPUT DROP\n", "rules", words=("again",), times=3)
    assert sorted(bool(done.communicate()[1]) for done in made) == [False, False, True]
    assert calls().count("iptables-restore") == 1


def test_behind_another_firewall_doors_that_cannot_be_loaded_are_shut(tmp_path):
    code, err, calls = boot(tmp_path, "", "closed", words=("again",))
    assert code != 0
    assert "the doors are shut but for trusted sources" in err
    assert calls == ["iptables"] + ["iptables-restore"] * 3


NATIVE = """table ip filter {
\tchain INPUT {
\t\ttype filter hook input priority filter; policy accept;
\t\t counter packets 0 bytes 0 jump PORTKNOCK_HEAD
\t\tct state vmap { established : accept }

\t\t counter packets 0 bytes 0 jump PORTKNOCK
\t}
\tchain PORTKNOCK_HEAD {
\t\tiifname "lo" counter packets 2 bytes 100 accept
\t}
}
"""


def test_a_boot_with_native_rules_beside_ours_adds_no_hook(tmp_path):
    assert boot(tmp_path, None, "rules", NATIVE) == (0, "", ["iptables", "iptables", "nft"])


@pytest.mark.parametrize(
    "missing", ["jump PORTKNOCK_HEAD\n", "jump PORTKNOCK\n", 'iifname "lo" counter packets 2 bytes 100 accept']
)
def test_a_boot_with_native_rules_and_without_ours(tmp_path, missing):
    code, err, calls = boot(tmp_path, None, "rules", NATIVE.replace(missing, "\n"))
    assert (code, calls[-1]) == (1, "iptables-restore")
    assert "loaded the doors alone" in err


def test_a_boot_that_cannot_read_adds_nothing_and_fails(tmp_path):
    code, err, calls = boot(tmp_path, None, "rules")
    assert (code, calls) == (1, ["iptables", "iptables", "nft"])
    assert "portknock: iptables cannot read its table filter (try: iptables -S)" in err
    assert "nothing was loaded" in err


def test_a_hook_that_is_left_is_not_there_twice(tmp_path):
    boot(
        tmp_path,
        RIGHT.replace("x -j PORTKNOCK_HEAD", '"x y" -j PORTKNOCK_HEAD').replace("-A PORTKNOCK_HEAD", "-N OTHER"),
        "rules",
    )
    assert (tmp_path / "text").read_text() == (
        '*filter\n-D INPUT -m comment --comment "x y" -j PORTKNOCK_HEAD\n-D INPUT -m comment --comment x -j PORTKNOCK\nrules\n'
    )


def test_a_boot_where_nothing_loads_says_so(tmp_path):
    code, err, _calls = boot(tmp_path, "", "no such line")
    assert code != 0
    assert "NOTHING is closed" in err
