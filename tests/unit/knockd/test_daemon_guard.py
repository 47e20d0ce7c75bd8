# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""knockd on a host in memory, under guard: what is confirmed, taken back, and proved by a knock."""

import ipaddress
import re

import pytest
from ansible_collections.sesame.portknock.plugins.module_utils._change.plan import plan_change
from ansible_collections.sesame.portknock.plugins.module_utils._errors import AppliedError, HostError
from ansible_collections.sesame.portknock.plugins.module_utils._knockd.service import (
    CONFIG,
    KEPT,
    RUN_CONFIG,
    RUN_DROP_IN,
)
from knockd_host import FRIENDS, NEW, SSH4, SSH6, Change, by_knockd, everything
from module_run import DOOR, run, settled
from story import IDENT


def test_nothing_is_kept_before_the_confirm(served):
    files = {path: served.files.get(path) for path in KEPT}
    old = served.read(CONFIG)
    change = Change(served, **by_knockd(doors=[NEW]))
    change.apply()
    assert {path: served.files.get(path) for path in KEPT} == files
    assert served.daemon["path"] == RUN_CONFIG
    assert "23111" in served.daemon["config"]
    assert served.mode(RUN_CONFIG) == 0o600
    served.reboot()
    assert served.knockd() == (True, old)


def test_a_boot_in_between_finds_no_knockd_where_there_was_none(host):
    Change(host, **by_knockd()).apply()
    assert host.daemon["path"] == RUN_CONFIG
    assert host.knockd()[0] is False
    host.reboot()
    assert host.knockd() == (False, None)


def test_a_confirm_keeps_it_and_starts_it_from_there(host):
    change = Change(host, **by_knockd())
    change.apply()
    assert change.confirm()["outcome"] == "confirmed"
    assert host.knockd() == (True, host.read(CONFIG))
    assert host.daemon["path"] == CONFIG
    assert not [path for path in (RUN_CONFIG, RUN_DROP_IN) if path in host.files]
    host.reboot()
    assert host.knockd() == (True, host.read(CONFIG))
    assert not plan_change(change.options, host).changed


def test_not_kept_it_runs_until_the_next_boot(host):
    change = Change(host, **by_knockd(persist=False))
    change.apply()
    assert change.confirm()["outcome"] == "confirmed"
    assert host.knockd() == (False, host.read(RUN_CONFIG))
    assert not [path for path in KEPT if path in host.files]
    assert not plan_change(change.options, host).changed
    host.reboot()
    assert host.knockd() == (False, None)


BEFORE = [
    ("a bare host", None),
    ("the kernel recognised", {}),
    ("knockd did, with other doors", by_knockd(doors=[NEW])),
    ("knockd did, not kept", by_knockd(doors=[NEW], persist=False)),
    ("knockd did, with a helper", by_knockd(ipv6_prefix=64)),
]


@pytest.mark.parametrize("ending", ["deadline", "cannot be kept", "does not start", "unit", "daemon gone"])
@pytest.mark.parametrize("before", [item[1] for item in BEFORE], ids=[item[0] for item in BEFORE])
def test_a_rollback_puts_all_of_it_back(before, ending, host):
    if before is not None:
        settled(host, **before)
    was = everything(host)
    change = Change(host, **by_knockd(doors=[DOOR], log=True))
    change.apply()
    assert everything(host) != was
    if ending == "deadline":
        host.now += 60
        assert change.guard.undo(IDENT, "it was not confirmed")["outcome"] == "rolled_back"
    else:
        fail(host, ending)
        answer = change.confirm()
        assert answer["outcome"] == "rolled_back", answer
    host.daemon_dies = host.service_refuses = host.settle_refuses = None
    host.unit_refuses = False
    assert everything(host) == was
    assert change.guard.pending() is None


def fail(host, ending):
    """Have the confirm fail in one of its steps."""
    if ending == "cannot be kept":
        host.settle_refuses = CONFIG
        host.refuse = lambda _command, _words, _data: setattr(host, "settle_refuses", None)
    elif ending == "does not start":
        plain, seen = host._start, []

        def start():
            seen.append(plain())
            host.daemon_dies = len(seen) == 1

        host._start = start
    elif ending == "unit":
        host.unit_refuses = True
    else:
        host._stop()


@pytest.mark.parametrize("before", [item[1] for item in BEFORE], ids=[item[0] for item in BEFORE])
def test_a_knockd_that_does_not_start_leaves_all_as_it_was(before, host):
    if before is not None:
        settled(host, **before)
    was = everything(host)
    for trouble in ("daemon_dies", "service_refuses"):
        plain, seen = host._start, []

        host._start = start_and_note(host, trouble == "daemon_dies", seen)
        host.service_refuses = "restart" if trouble == "service_refuses" else None
        change = Change(host, **by_knockd(log=True))
        if trouble == "service_refuses":
            heal_after_first_refusal(host)
        with pytest.raises(AppliedError, match="are as they were before the change"):
            change.apply()
        host._start, host.service_refuses, host.daemon_dies = plain, None, False
        assert everything(host) == was


def start_and_note(host, dies, seen):
    """Return what starts the daemon, which dies the first time if it is to."""
    plain = host._start

    def start():
        seen.append(plain())
        host.daemon_dies = dies and len(seen) == 1

    return start


def heal_after_first_refusal(host):
    plain = host.service

    def service(verb, *units, **more):
        try:
            plain(verb, *units, **more)
        except HostError:
            host.service_refuses, host.service = None, plain
            raise

    host.service = service


def test_without_a_guard_too_all_is_as_it_was(served):
    was = everything(served)
    plain, seen = served._start, []

    def start():
        seen.append(plain())
        served.daemon_dies = len(seen) == 1

    served._start = start
    with pytest.raises(HostError, match="knockd does not listen.*are as they were before the change") as error:
        run(served, **by_knockd(doors=[NEW], allow=[{"port": 80}]))
    assert "Undoing it failed" not in str(error.value)
    assert everything(served) == was


def test_one_that_cannot_be_put_back_is_said(served):
    served.service_refuses = "restart"
    with pytest.raises(
        HostError,
        match="systemctl restart knockd.service failed.*Undoing it failed too.*systemctl restart knockd.service failed",
    ):
        run(served, **by_knockd(doors=[NEW]))


def test_a_dead_one_is_not_confirmed(host):
    change = Change(host, **by_knockd())
    change.apply()
    host._stop()
    answer = change.confirm()
    assert answer["outcome"] == "rolled_back"
    assert "knockd does not run" in answer["why"]


def kernel_text(address):
    return address.exploded if address.version == 6 else str(address)


PROOFS = [
    (SSH4, 128, "pk4_ssh", "192.0.2.7"),
    (SSH6, 128, "pk6_ssh", "2001:db8:5:6:7::7"),
    (SSH6, 64, "pk6.64_ssh", "2001:db8:5:6::"),
    (SSH4, 64, "pk4_ssh", "192.0.2.7"),
]


@pytest.mark.parametrize(("ssh", "prefix", "name", "entry"), PROOFS)
def test_a_knock_proves_knockd_to_whoever_needs_none(ssh, prefix, name, entry, host):
    change = Change(host, ssh, **by_knockd(ipv6_prefix=prefix, **FRIENDS))
    told = change.apply()
    assert (told["door"], told["proof_door"]) == ("", "ssh")
    for wrong in ("198.51.100.9", "2001:db8:9::9"):
        host.hear(name, kernel_text(ipaddress.ip_address(wrong)))
        answer = change.confirm()
        assert answer["outcome"] == "unheard"
        assert "knockd has not heard a knock of {0} at door ssh".format(ssh.split()[0]) in answer["why"]
        assert change.guard.pending() is not None
    (real,) = {each for each in re.findall(r"xt_recent/(\S+)", host.daemon["config"]) if each.startswith(name[:3])}
    host.hear(real, kernel_text(ipaddress.ip_address(entry)))
    assert change.confirm()["outcome"] == "confirmed"


def test_what_was_heard_before_proves_nothing(served):
    served.hear("pk4_ssh", "192.0.2.7")
    change = Change(served, **by_knockd(log=True, **FRIENDS))
    assert change.apply()["proof_door"] == "ssh"
    assert change.confirm()["outcome"] == "unheard"


def test_who_comes_over_another_family_proves_that_one(host):
    change = Change(host, SSH4, **by_knockd(**FRIENDS))
    change.apply()
    host.hear("pk4_ssh", "192.0.2.7")
    assert change.confirm(SSH6)["outcome"] == "unheard"
    host.hear("pk6_ssh", ipaddress.ip_address(SSH6.split()[0]).exploded)
    assert change.confirm(SSH6)["outcome"] == "confirmed"


NO_PROOF = [
    ("it knocks anyway", SSH4, by_knockd(), {}),
    ("the kernel recognises", SSH4, dict(FRIENDS), {}),
    ("no session", None, by_knockd(), {}),
    ("an address that it does not hear", SSH4, by_knockd(**FRIENDS), {"eth0": {"198.51.100.1"}}),
    ("a family that is not managed", SSH6, by_knockd(ip_versions=["ipv4"]), {}),
    ("a door for others", SSH4, by_knockd(doors=[dict(DOOR, sources=["198.51.100.0/24"])], **FRIENDS), {}),
    ("no doors", SSH4, by_knockd(doors=[], **FRIENDS), {}),
    ("all goes", SSH4, by_knockd(state="absent"), {}),
]


@pytest.mark.parametrize(
    ("ssh", "more", "addresses"), [item[1:] for item in NO_PROOF], ids=[item[0] for item in NO_PROOF]
)
def test_where_no_proof_is_asked_for(ssh, more, addresses, host):
    settled(host)
    host.addresses_of.update(addresses)
    change = Change(host, ssh, **dict({"log": True}, **more))
    told = change.apply()
    assert told["proof_door"] == ""
    assert change.confirm(ssh or SSH4)["outcome"] == "confirmed"


def test_a_door_that_is_for_the_controller_proves_it(host):
    other = dict(NEW, name="other", opens=["80"], sources=["198.51.100.0/24"])
    change = Change(host, **by_knockd(doors=[other, DOOR], **FRIENDS))
    assert change.apply()["proof_door"] == "ssh"


def test_an_administrator_needs_no_proof(host):
    change = Change(host, **by_knockd(**FRIENDS))
    change.apply()
    assert change.guard.confirm("")["outcome"] == "confirmed"


def test_a_running_knockd_that_does_not_change_needs_none(served):
    change = Change(served, **by_knockd(**FRIENDS))
    assert change.apply()["proof_door"] == ""
