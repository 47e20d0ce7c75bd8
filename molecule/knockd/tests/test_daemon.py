# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""knockd as a service: what runs, as whom, with which files; killed, stopped, restarted."""

import ipaddress

import pytest
from rig_console import soon
from rig_knockd import CONFIG, IN_RUN, OURS, PATIENCE

ADDRESSES = "portknock-addresses.service"
EXAMPLE = [7000, 8000, 9000]
"""The steps of the door to ssh that Debian's package has in its own configuration."""


def opens(machine):
    """Knock until the door opens, for some seconds: a daemon may be just starting."""
    machine.shut()
    return soon(machine.opens_to, PATIENCE)


def test_service_runs_our_configuration_now_and_at_boot(served):
    unit = served.shown("ActiveState", "UnitFileState", "FragmentPath")
    assert (unit["ActiveState"], unit["UnitFileState"]) == ("active", "enabled")
    assert unit["FragmentPath"].endswith("/lib/systemd/system/knockd.service")
    assert served.argv() == ["/usr/sbin/knockd", "-c", CONFIG]
    assert served.shown("ActiveState", unit=ADDRESSES) == {"ActiveState": "active"}
    assert served.out(f"find {IN_RUN} 2>/dev/null || true") == ""


def test_files_are_root_s_and_only_root_reads_the_steps(served):
    modes = served.out(f"stat -c '%a %U:%G' {' '.join(OURS)}").splitlines()
    assert modes == [f"{mode} root:root" for mode in (600, 644, 644, 644, 755)]


def test_an_upgrade_of_the_package_leaves_it_running(served):
    """Its preinst stops the daemon, and nothing of the package starts it again."""
    before = served.main_pid()
    served.run("apt-get install --reinstall --yes --no-install-recommends knockd")
    assert soon(lambda: served.shown("ActiveState") == {"ActiveState": "active"}, PATIENCE)
    assert served.main_pid() != before
    assert opens(served)
    assert served.argv() == ["/usr/sbin/knockd", "-c", CONFIG]


def test_doors_of_the_package_s_example_are_not_there(served):
    for address in served.addresses():
        assert not served.opens_to(EXAMPLE, port=22, address=address)
        assert not served.opens_to(EXAMPLE[::-1], port=22, address=address)
    assert not [line for line in served.out("dpkg --verify knockd || true").splitlines() if "/etc/" in line]
    assert "7000" in served.out("cat /etc/knockd.conf")


def test_hardening_is_in_force_and_lets_it_do_its_work(served):
    assert served.shown(
        "ProtectSystem", "CapabilityBoundingSet", "NoNewPrivileges", "Restart", "StartLimitIntervalUSec"
    ) == {
        "ProtectSystem": "yes",
        "CapabilityBoundingSet": "cap_net_raw",
        "NoNewPrivileges": "yes",
        "Restart": "always",
        "StartLimitIntervalUSec": "0",
    }
    status = dict(line.split(":\t", 1) for line in served.out(f"cat /proc/{served.main_pid()}/status").splitlines())
    # Bit 13 alone: CAP_NET_RAW.
    assert (status["CapBnd"], status["CapEff"], status["NoNewPrivs"]) == ("0000000000002000",) * 2 + ("1",)
    assert served.opens_to()


@pytest.mark.usefixtures("served")
def test_modules_tell_how_it_is(operator):
    told = operator.doors()
    assert (told["engine"], told["daemon"]) == ("knockd", {"running": True, "interface": "eth0"})
    assert told["drift"] == [] and told["pending"] == {}
    assert [(door["name"], door["ip_version"], door["steps"]) for door in told["doors"]] == [
        ("shell", "ipv4", 3), ("shell", "ipv6", 3)
    ]  # fmt: skip
    # Whoever asked came through the door; the kernel does not know how often it was knocked at.
    assert any(door["let_in"] for door in told["doors"])
    assert not any("knocked" in door for door in told["doors"])


def test_address_that_comes_later_hears_knocks_too(served):
    for version, own in zip((4, 6), served.addresses()):
        bits = served.out(f"ip -o -{version} address show dev eth0 | grep -wF '{own}'").split()[3].split("/")[1]
        # The network's last addresses are free: the container engine begins at the other end.
        late = ipaddress.ip_interface(f"{own}/{bits}").network[-5]
        served.run(f"ip address add {late}/{bits} dev eth0 {'nodad' if version == 6 else ''}")
        try:
            assert soon(lambda late=late: served.opens_to(address=str(late)), PATIENCE)
        finally:
            served.run(f"ip address del {late}/{bits} dev eth0")
    assert soon(served.listens, PATIENCE) and opens(served)


def test_killed_daemon_is_back_at_once(served):
    killed = served.main_pid()
    served.run(f"kill -KILL {killed}")
    assert soon(lambda: served.main_pid() not in (0, killed) and served.listens(), PATIENCE)
    assert opens(served)
    assert served.shown("NRestarts") != {"NRestarts": "0"}


def test_doors_stay_shut_without_it_and_the_info_module_says_so(served, operator):
    operator.come_in()
    served.shut()
    served.run("systemctl stop knockd.service")
    try:
        for address in served.addresses():
            assert not served.opens_to(address=address)
        told = operator.doors()
        assert told["daemon"] == {"running": False, "interface": "eth0"}
        assert "systemctl status knockd" in " ".join(each["message"] for each in told["findings"])
    finally:
        served.run("systemctl start knockd.service")
    assert opens(served)


def test_door_works_after_a_reboot(served):
    served.reboot()
    assert soon(served.listens, PATIENCE)
    assert served.argv() == ["/usr/sbin/knockd", "-c", CONFIG]
    assert served.out("systemctl list-units --failed --no-legend --plain") == ""
    for address in served.addresses():
        assert soon(lambda address=address: served.opens_to(address=address), PATIENCE)
