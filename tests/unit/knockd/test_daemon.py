# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""knockd on a host in memory: when it is started, refused and taken away."""

import json
import re

import pytest
from ansible_collections.sesame.portknock.plugins.module_utils._change.plan import plan_change, result_of
from ansible_collections.sesame.portknock.plugins.module_utils._errors import HostError, PortknockError, SpecError
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
from knockd_host import FRIENDS, NEW, SSH4, SSH6, Change, by_knockd, everything
from module_run import DOOR, foreign_part, options, run, settled
from shown_steps import steps_in
from story import options as guarded


def services(host):
    return [what[1] for what in host.done if what[0] == "service" and what[1] != "daemon-reload"]


def test_a_bare_host(host):
    result = settled(host, **by_knockd())
    assert (result["changed"], result["engine"]) == (True, "knockd")
    modes = {path: host.mode(path) for path in KEPT if path in host.files}
    assert modes == {CONFIG: 0o600, DROP_IN: 0o644, KEPT[3]: 0o644, KEPT[4]: 0o644, KEPT[5]: 0o755}
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
    ("what starts it after an upgrade is gone", lambda host: host.files.pop(KEPT[4])),
    ("the script was edited", lambda host: write(host, KEPT[5], "#!/bin/sh\n")),
    ("it is dead", lambda host: host._stop()),
    ("it runs and does not listen", lambda host: setattr(host, "slow_start", 1.0) or host._start()),
    ("it is not enabled", lambda host: host.wants.clear()),
    ("a part of an unconfirmed one was left", lambda host: write(host, RUN_DROP_IN, "[Service]\n")),
    ("another drop-in has it read another file", lambda host: host.daemon.update(path="/etc/knockd.conf")),
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
        assert host.knockd() == was, "the collection did not set it up"


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
    assert served.drop_ins == {}, "systemd did not reload"
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
