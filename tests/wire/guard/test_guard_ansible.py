# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The guard over every way that leads to a host."""

import contextlib

import pytest
from rig import faults
from rig.controller import MULTIPLEX, PING, Controller, knock_task
from rig.engines import ASKED, IN_SOAK
from rig.guard import DOOR, KNOCK, LONG, NEW, OLD, TIMEOUT
from rig.guard_nft import case_of
from rig.jump import OTHER
from rig.packets import IPV4, IPV6
from rig.peer import TARGET
from rig.target import door

pytestmark = [ASKED, IN_SOAK]

PASSWORD = "open sesame"
USER = """
install -d -m 0711 /run/own
useradd --no-create-home --home-dir /run/own --shell /bin/sh ali
chpasswd
install -d -o ali /run/own/ali
echo 'ali ALL=(ALL:ALL) ALL' >/etc/sudoers.d/ali
chmod 0440 /etc/sudoers.d/ali
"""
BECOME = {
    "sudo": {"ansible_become_method": "ansible.builtin.sudo", "ansible_become_password": PASSWORD},
    "su": {"ansible_become_method": "ansible.builtin.su", "ansible_become_password": PASSWORD},
}


@pytest.fixture
def ali(rig):
    """A user on the target who is not root, and may become it with a password."""
    if "ali:" not in faults.text_of(rig, "/etc/passwd"):
        rig.target.namespace.run("sh", "-ec", USER, stdin=f"ali:{PASSWORD}\nroot:{PASSWORD}\n")
    # sshd reads the key as the user.
    rig.target.folder.chmod(0o711)
    return {"ansible_user": "ali", "ansible_become": True, "ansible_remote_tmp": "/run/own/ali"}


# How the module gets there


@pytest.mark.parametrize(
    ("method", "pipelining", "end"),
    [("sudo", True, NEW), ("sudo", False, OLD), ("su", False, NEW)]
    + [
        pytest.param(*values, marks=pytest.mark.soak)
        for values in [
            ("sudo", True, OLD),
            ("sudo", False, NEW),
            ("su", True, NEW),
            ("su", True, OLD),
            ("su", False, OLD),
        ]
    ],
)
def test_become(rig, controller, ali, method, pipelining, end):
    """Not root: the session that confirms becomes root as the tasks do, with a password, and in one go."""
    case = case_of(rig, controller)
    variables = dict(ali, **BECOME[method], ansible_pipelining=pipelining)
    # Without pipelining sudo may insist on a terminal: tasks have one, and what confirms must have one as well.
    tty = "" if pipelining else "Defaults:ali requiretty"
    rig.target.namespace.run("sh", "-c", "umask 337; rm -f /etc/sudoers.d/tty; cat >/etc/sudoers.d/tty", stdin=tty)
    with faults.way_blocked(rig, 7000) if end == OLD else contextlib.nullcontext():
        run = case.apply(run={"hosts": {"target": variables}}, guard_timeout=8 if end == OLD else LONG)
        case.check(end, run)
    if end == OLD:
        case.check_next_play({"hosts": {"target": variables}})


@pytest.mark.parametrize("pipelining", [True, pytest.param(False, marks=pytest.mark.soak)], ids=["pipelining", "files"])
def test_root(rig, controller, pipelining):
    """Without pipelining is how nearly all other tests of the guard come."""
    case = case_of(rig, controller)
    case.check(NEW, case.apply(guard_timeout=LONG, run={"hosts": {"target": {"ansible_pipelining": pipelining}}}))
    case.check_door()


@pytest.mark.parametrize("how", ["port", "host"])
def test_another_port(rig, controller, how):
    """The port is taken from the connection, wherever it was set; a door for port 22 says nothing about it."""
    case = case_of(rig, controller)
    if how == "port":
        variables = {"ansible_port": 2200}
    else:
        variables = {"ansible_host": "the-target"}
        controller.configure(f"Host the-target\n    HostName {TARGET[IPV4]}\n    Port 2200")
    with faults.sshd_with(rig, port=2200):
        refused = case.apply(DOOR, run={"hosts": {"target": variables}}).only()
        assert refused.kind == "failed"
        assert "2200" in refused.result["msg"]
        case.check_target(OLD)
        run = case.apply(
            door(*KNOCK, name="high", opens=("2190-2210",)), guard_timeout=LONG, run={"hosts": {"target": variables}}
        )
        case.check(NEW, run)
        assert run.only().result["guard"]["knocked"] == "high"
        assert run.only().result["guard"]["proof"].endswith("2200")


@pytest.mark.parametrize("end", [NEW, pytest.param(OLD, marks=pytest.mark.soak)])
def test_over_ipv6(rig, controller, end):
    """The fault matrix has it rolled back over IPv6."""
    case = case_of(rig, controller)
    with faults.way_blocked(rig, 3100) if end == OLD else contextlib.nullcontext():
        run = case.apply(
            guard_timeout=LONG if end == NEW else TIMEOUT, run={"hosts": {"target": {"ansible_host": TARGET[IPV6]}}}
        )
        case.check(end, run, family=IPV6)
    if end == NEW:
        assert "fd77::2" in run.only().result["guard"]["proof"]
        case.check_door(IPV6)


@pytest.mark.parametrize("where", ["ProxyJump", pytest.param("ProxyCommand", marks=pytest.mark.soak), "common args"])
def test_through_a_jump_host(rig, controller, jump, where):
    """The host sees the jump host's address: the knock must come from there."""
    case = case_of(rig, controller)
    proxy = f"ssh -F {controller.ssh_config} -i {controller.key} -W %h:%p {jump}"
    variables = {}
    if where == "ProxyJump":
        controller.configure(f"IdentityFile {controller.key}", f"Host {TARGET[IPV4]}\n    ProxyJump {jump}")
    elif where == "ProxyCommand":
        controller.configure(f"IdentityFile {controller.key}", f"Host {TARGET[IPV4]}\n    ProxyCommand {proxy}")
    else:
        variables = {"ansible_ssh_common_args": f'-o ProxyCommand="{proxy}"'}
    run = case.apply(run={"hosts": {"target": variables}}, guard_timeout=LONG)
    case.check(NEW, run)
    assert OTHER[IPV4] in run.only().result["guard"]["proof"]
    assert run.only().result["guard"]["knocked"] == "ssh"
    assert not rig.target.listed("pk4_ssh") - {OTHER[IPV4]}


def test_through_a_jump_host_that_is_cut_off(rig, controller, jump):
    """Only the jump host's way is cut: the door lets in the controller alone."""
    case = case_of(rig, controller)
    controller.configure(f"IdentityFile {controller.key}", f"Host {TARGET[IPV4]}\n    ProxyJump {jump}")
    with faults.sshd_with(
        rig, 'ForceCommand exec env -u SSH_CONNECTION -u SSH_CLIENT /bin/sh -c "${SSH_ORIGINAL_COMMAND:-true}"'
    ):
        run = case.apply(door(*KNOCK, sources=["10.77.0.2", "fd77::2"]))
        case.check(OLD, run)


@pytest.mark.parametrize("end", [NEW, pytest.param(OLD, marks=pytest.mark.soak)])
def test_a_master_of_the_users_own(rig, controller, end):
    """ControlMaster in the user's own configuration, none of Ansible's: it must not be the one that confirms."""
    case = case_of(rig, controller)
    controller.configure("ControlMaster auto", f"ControlPath {controller.folder}/cp/own-%C", "ControlPersist 60")
    environment = {"ANSIBLE_SSH_ARGS": f"-F {controller.ssh_config}"}
    assert controller.play(PING, environment=environment).only(task="ping").kind == "ok"
    masters = list((controller.folder / "cp").iterdir())
    assert len(masters) == 1
    with faults.way_blocked(rig, 7000) if end == OLD else contextlib.nullcontext():
        run = controller.play(
            knock_task(DOOR, guard_timeout=TIMEOUT if end == OLD else LONG),
            dict(PING, ignore_errors=True),
            environment=environment,
        )
        case.check(end, run)


def test_no_multiplexing_at_all(rig, controller):
    case = case_of(rig, controller)
    environment = {"ANSIBLE_SSH_ARGS": f"-F {controller.ssh_config} -o ControlMaster=no -o ControlPath=none"}
    case.check(NEW, case.apply(guard_timeout=LONG, run={"environment": environment}))


def test_a_blank_in_the_control_path(rig, controller):
    case = case_of(rig, controller)
    folder = controller.folder / "c p"
    folder.mkdir()
    environment = {"ANSIBLE_SSH_ARGS": f"-F {controller.ssh_config} {MULTIPLEX} -o 'ControlPath=\"{folder}/%C\"'"}
    case.check(NEW, case.apply(guard_timeout=LONG, run={"environment": environment}))
    controller.namespace.run(
        "ssh", "-O", "exit", "-o", f'ControlPath="{folder}/%C"', "-F", "/dev/null", "root@10.77.0.1"
    )


def test_on_the_host_itself(rig, controller, core):
    """A connection without a network: it is applied and kept, and the result says that nothing was proved."""
    case = case_of(rig, controller)
    local = Controller(rig.target.namespace, controller.key, rig.target.folder / "local", core)
    with contextlib.closing(local):
        run = local.apply(DOOR, run={"hosts": {"target": {"ansible_connection": "local"}}})
    event = run.only()
    assert event.kind == "ok", run.output
    assert event.result["guard"]["state"] == "unproved"
    assert event.result["guard"]["proof"]
    case.check_target(NEW)
