# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""knockd on a host in memory: when it is started, kept, taken back and refused."""

import ipaddress
import json
import re

import pytest
from ansible_collections.sesame.portknock.plugins.module_utils._change.guard import Guard
from ansible_collections.sesame.portknock.plugins.module_utils._change.plan import plan_change, result_of
from ansible_collections.sesame.portknock.plugins.module_utils._errors import (
    AppliedError,
    HostError,
    PortknockError,
    SpecError,
)
from ansible_collections.sesame.portknock.plugins.module_utils._knockd.service import (
    CONFIG,
    DROP_IN,
    KEPT,
    PREFIX,
    RUN_CONFIG,
    RUN_DROP_IN,
    RUN_PREFIX,
)
from ansible_collections.sesame.portknock.plugins.module_utils._paths import LAST
from ansible_collections.sesame.portknock.plugins.module_utils._redact import readable_config
from fake_host import KNOCKD, FakeHost, knockd_host
from hypothesis import given
from hypothesis import strategies as st
from shown_steps import steps_in
from story import IDENT, FakeAgent, without_empty_table
from story import options as guarded
from test_change_plan import DOOR, foreign_part, options, run, settled

NEW = dict(DOOR, knock=["23111", "24500", "23777"])
SSH4, SSH6 = "192.0.2.7 50000 192.0.2.1 22", "2001:db8:5:6:7::7 50000 2001:db8::1 22"
FRIENDS = {"trusted_sources": ["192.0.2.7", "2001:db8:5::/48"]}


def by_knockd(**more):
    return dict({"engine": "knockd"}, **more)


@pytest.fixture
def host():
    return knockd_host()


@pytest.fixture
def served(host):
    """A host on which knockd does its work, and a run finds nothing to do."""
    settled(host, **by_knockd())
    host.done = []
    return host


def services(host):
    return [what[1] for what in host.done if what[0] == "service" and what[1] != "daemon-reload"]


# As it is to be


def test_a_bare_host(host):
    result = settled(host, **by_knockd())
    assert (result["changed"], result["engine"]) == (True, "knockd")
    modes = {path: host.mode(path) for path in KEPT if path in host.files}
    assert modes == {CONFIG: 0o600, DROP_IN: 0o644, KEPT[3]: 0o644, KEPT[4]: 0o755}
    assert not [path for path in (RUN_CONFIG, RUN_DROP_IN, RUN_PREFIX) if path in host.files]
    assert host.knockd() == (True, host.read(CONFIG))
    assert host.daemon["path"] == CONFIG
    rules = "".join(host.rules[family].save() for family in ("iptables", "ip6tables"))
    assert "--rcheck" in rules
    assert not re.search("17005|19100|18300|--set", rules), "the kernel recognises no knock"
    assert [each["kind"] for each in result["findings"]] == ["knockd"]


def test_the_engine_is_told():
    assert run(knockd_host())["engine"] == "iptables"
    assert run(knockd_host(), state="absent")["engine"] == ""
    assert run(knockd_host(), check=True, **by_knockd())["engine"] == "knockd"


def test_without_doors_nothing_is_needed_of_it():
    host = FakeHost()
    result = settled(host, doors=[], **by_knockd())
    assert result["engine"] == "knockd"
    assert not [path for path in KEPT if path in host.files]


WRONG = [
    ("the configuration was edited", lambda host: write(host, CONFIG, host.read(CONFIG) + "[x]\nsequence = 1:tcp\n")),
    ("it is readable for all", lambda host: host.files.update({CONFIG: (host.read(CONFIG), 0o644)})),
    ("its part of the unit is gone", lambda host: host.files.pop(DROP_IN)),
    ("the watcher is gone", lambda host: host.files.pop(KEPT[3])),
    ("the script was edited", lambda host: write(host, KEPT[4], "#!/bin/sh\n")),
    ("it is dead", lambda host: host._stop()),
    ("it runs and does not listen", lambda host: setattr(host, "slow_start", 1.0) or host._start()),
    ("it is not enabled", lambda host: host.wants.clear()),
    ("a part of an unconfirmed one was left", lambda host: write(host, RUN_DROP_IN, "[Service]\n")),
    ("somebody's drop-in has it read another file", lambda host: host.daemon.update(path="/etc/knockd.conf")),
    ("a helper that is not needed was left", lambda host: write(host, PREFIX, "#!/bin/sh\n")),
]


def write(host, path, text):
    host.files[path] = (text, host.mode(path) or 0o600)


@pytest.mark.parametrize("harm", [item[1] for item in WRONG], ids=[item[0] for item in WRONG])
def test_what_is_not_as_it_should_be_is_mended(harm, served):
    good = everything(served)
    harm(served)
    served.frozen = True
    assert run(served, check=True, **by_knockd())["changed"] is True
    served.frozen = False
    result = settled(served, **by_knockd())
    assert result["changed"] is True
    assert everything(served) == good
    assert not [what for what in served.done if what[0] == "restore"], "the rules were right"


def test_what_is_right_is_left_alone(served):
    served.frozen = True
    assert run(served, **by_knockd())["changed"] is False


@pytest.mark.parametrize(
    "more", [{"log": True}, {"ipv6_prefix": 64}, {"ip_versions": ["ipv4"]}, {"doors": [NEW]}, {"knockd_interface": "lo"},
             {"doors": [dict(DOOR, step_timeout=9)]}]
)  # fmt: skip
def test_another_spec_starts_it_anew(more, served):
    old = served.knockd()
    assert settled(served, **by_knockd(**more))["changed"] is True
    assert served.knockd() == (True, served.read(CONFIG)) != old


def test_a_change_that_is_none_of_knockds_leaves_it_running(served):
    assert settled(served, **by_knockd(allow=[{"port": 80}]))["changed"] is True
    assert services(served) == []


def test_the_helper_comes_and_goes(served):
    settled(served, **by_knockd(ipv6_prefix=64))
    assert served.mode(PREFIX) == 0o600
    assert "/etc/portknock/ipv6-prefix 64" in served.read(CONFIG)
    settled(served, **by_knockd())
    assert PREFIX not in served.files


def test_it_is_given_time_to_listen(host):
    host.slow_start = 3.0
    settled(host, **by_knockd())
    host.slow_start = 6.0
    with pytest.raises(HostError, match="5 s after its start knockd does not listen, with /run/portknock/knockd.conf"):
        run(host, **by_knockd(doors=[NEW]))


# Check mode


def test_check_mode_on_a_host_that_is_bare_of_all():
    host = FakeHost()
    host.runs_systemd = True
    host.tools = {"systemctl"}
    host.frozen = True
    result = run(host, check=True, **by_knockd())
    assert result["changed"] is True
    shown = {part["after_header"].split(" ", 1)[0]: part for part in result["diff"]}
    assert "****" in shown[CONFIG]["after"]
    assert "ExecStart=/usr/sbin/knockd -c " + CONFIG in shown[DROP_IN]["after"]


# Refusals


def refuses(host, message, error=HostError, check=True, **more):
    """Nothing was changed, and check mode says so too."""
    before = host.state()
    host.frozen = True
    for each in (False, True) if check else (False,):
        with pytest.raises(error, match=message):
            run(host, check=each, **by_knockd(**more))
    assert host.state() == before
    host.frozen = False


def test_without_systemd(host):
    host.runs_systemd = False
    refuses(
        host, "knockd is run by systemd, which does not run on this host. Set engine to iptables. Nothing was changed"
    )


@pytest.mark.parametrize("lacks", ["knockd", "ip"])
def test_not_installed(lacks, host):
    host.tools.discard(lacks)
    refuses(host, "{0} is not installed on this host.*tag portknock_install".format(lacks), check=False)
    assert run(host, check=True, **by_knockd())["changed"] is True


def test_too_old(host):
    host.knockd_version = "knockd 0.7\n"
    refuses(host, "knockd on this host is older than 0.8")


@pytest.mark.parametrize("how", ["runs", "is enabled"])
def test_somebody_elses_knockd(how, host):
    if how == "runs":
        host._start()
    else:
        host.wants.add(KNOCKD)
    refuses(
        host,
        "knockd.service already runs on this host, or is enabled, with doors of its own.*disable --now knockd.service",
    )
    was = host.knockd()
    for more in ({}, {"state": "absent"}):
        settled(host, **more)
        assert host.knockd() == was, "it is none of ours"


INTERFACES = [
    ("one that is not there", {"knockd_interface": "eth7"}, None, "has no interface eth7. It has eth0"),
    ("no default route", {}, {"/proc/net/route": "", "/proc/net/ipv6_route": ""}, "no default route to tell the interface by"),
    ("two", {}, {"/proc/net/ipv6_route": "eth1"}, r"different interfaces \(eth0, eth1\)"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("more", "kernel", "message"), [item[1:] for item in INTERFACES], ids=[item[0] for item in INTERFACES]
)
def test_interface_unknown(more, kernel, message, host):
    for path, text in (kernel or {}).items():
        host.kernel_files[path] = host.kernel_files[path].replace("eth0", text) if text else ""
    refuses(host, "^knockd_interface: .*" + message, SpecError, **more)


@pytest.mark.parametrize("ssh", [SSH4, SSH6, "2001:db8:5::7 50000 2001:db8::1%eth0 22"])
def test_a_connection_to_an_address_that_knockd_does_not_hear(ssh, host):
    host.ssh = ssh
    settled(host, **by_knockd())
    host.addresses_of = {"lo": {"127.0.0.1"}, "eth0": {"198.51.100.1"}, "eth1": {"192.0.2.1", "2001:db8::1"}}
    refuses(
        host, "knockd_interface: this connection needs door ssh and comes to .*, which is no address of eth0", SpecError
    )
    settled(host, **by_knockd(knockd_interface="eth1"))
    settled(host, **by_knockd(**FRIENDS))


# The guard


class Change:
    """A change of a host under guard, from an ssh session."""

    def __init__(self, host, ssh=SSH4, **more):
        self.host, self.agent = host, FakeAgent()
        self.host.ssh = ssh
        self.guard = Guard(host, self.agent)
        self.options = guarded(**dict({"doors": [DOOR]}, **more))

    def apply(self):
        change = plan_change(self.options, self.host)
        record = self.guard.apply(change, self.options)
        self.host.now += 1
        return self.guard.answer(record, change.door)

    def confirm(self, ssh=None):
        words = (ssh or self.host.ssh).split()
        return self.guard.confirm(IDENT, ([words[0], "50001"] + words[2:], self.host.now))


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


def everything(host):
    """What a rollback has to put back: the rules, knockd, and its files in /etc as well as in /run."""
    files = {path: value for path, value in host.files.items() if path in KEPT + (RUN_CONFIG, RUN_PREFIX, RUN_DROP_IN)}
    rules = [without_empty_table(host.rules[family].save()) for family in ("iptables", "ip6tables")]
    return host.knockd(), host.daemon and host.daemon["path"], files, host.unit, rules


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
        assert change.guard.undo(IDENT, "nobody confirmed it")["outcome"] == "rolled_back"
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
        with pytest.raises(AppliedError, match="Everything is as it was before"):
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
    with pytest.raises(HostError, match="knockd does not listen.*Everything is as it was before") as error:
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


# The proof


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


# The way out


def test_the_kernel_takes_over(served):
    files = {path: value for path, value in served.files.items() if path in KEPT}
    change = Change(served)
    change.apply()
    assert served.daemon is None, "it still listened"
    assert {path: value for path, value in served.files.items() if path in KEPT} == files
    assert served.knockd() == (True, None), "a boot now is a rollback"
    assert change.confirm()["outcome"] == "confirmed"
    assert served.knockd() == (False, None)
    assert not [path for path in served.files if path in KEPT or path.startswith("/run/systemd")]
    assert served.drop_ins == {}, "systemd was not told"
    assert not plan_change(guarded(doors=[DOOR]), served).changed


def test_absent_takes_just_ours():
    host = knockd_host()
    host.files["/etc/knockd.conf"] = ("[options]\n", 0o640)
    host.files["/etc/systemd/system/knockd.service.d/mine.conf"] = ("[Service]\nNice=5\n", 0o644)
    before = host.state()
    settled(host, **by_knockd(ipv6_prefix=64))
    assert settled(host, state="absent", **by_knockd())["changed"] is True
    assert foreign_part(host.state()) == foreign_part(before)
    assert host.knockd() == (False, None)
    assert list(host.drop_ins) == ["mine.conf"]


def test_absent_where_the_package_is_gone_already(served):
    served._stop()
    served.tools -= {"knockd", "ip"}
    assert settled(served, state="absent")["changed"] is True
    assert not [path for path in served.files if path in KEPT]


# Secrets


@pytest.mark.slow
@given(
    ports=st.lists(st.integers(10000, 65000), min_size=4, max_size=4, unique=True),
    wrong=st.sampled_from(["", "dies", "refuses", "disk", "interface", "systemd"]),
    guard=st.booleans(),
    prefix=st.sampled_from([64, 128]),
)
def test_no_step_in_a_result_or_an_error(ports, wrong, guard, prefix):  # fmt: skip
    steps = [str(port) for port in ports]
    host, shown = knockd_host(), []
    for turn in range(2):
        more = by_knockd(doors=[dict(DOOR, knock=steps[:2], close=steps[2:])], ipv6_prefix=prefix, log=bool(turn))
        host.daemon_dies, host.service_refuses = wrong == "dies", "restart" if wrong == "refuses" else None
        host.disk_full, host.runs_systemd = CONFIG if wrong == "disk" else None, wrong != "systemd"
        more["knockd_interface"] = "eth7" if wrong == "interface" else ""
        try:
            if guard:
                change = Change(host, **more)
                shown += [result_of(plan_change(change.options, host)), change.apply(), change.confirm()]
            else:
                shown.append(run(host, **more))
        except PortknockError as error:
            shown.append(str(error))
    text = repr(shown)
    assert steps_in(steps, text) == []
    assert not re.search(r"\d+:(tcp|udp)", text)


def test_the_diff_tells_what_changed_but_no_step(served):
    before = served.read(CONFIG)
    diff = run(served, check=True, **by_knockd(doors=[dict(NEW, step_timeout=9)]))["diff"]
    (part,) = [each for each in diff if each["before_header"] == CONFIG]
    assert set(part["before"].splitlines()) & set(readable_config(before).splitlines())
    assert "seq_timeout = 19" in part["after"]
    assert "seq_timeout = 11" in part["before"]
    assert steps_in(DOOR["knock"] + NEW["knock"], repr(diff)) == []


def test_files_with_steps_are_for_root_alone(host):
    change = Change(host, **by_knockd())
    change.apply()
    for path, (text, mode) in host.files.items():
        if "18300" in text:
            assert mode == 0o600, path
    assert [path for path, (text, _mode) in host.files.items() if "18300" in text] == [RUN_CONFIG]
    change.confirm()
    assert [path for path, (text, _mode) in host.files.items() if "18300" in text] == [CONFIG]
    assert steps_in(["18300"], host.read(LAST)) == []
    assert json.loads(host.read(LAST))["outcome"] == "confirmed"
    assert all("18300" not in " ".join(words) for words in host.commands)


def test_options_are_those_of_the_module():
    assert options(**by_knockd())["knockd_interface"] == ""
