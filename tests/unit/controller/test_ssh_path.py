# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which way ssh takes, as ssh itself says, and a knock from a jump host by programs that are really run."""

import os
import shlex
import shutil
import socket
import subprocess
import sys
import time

import pytest

pytest.importorskip("ansible", reason="it runs on controllers, and this Python has no ansible-core")

from ansible.playbook.play_context import PlayContext
from ansible.plugins.loader import connection_loader
from ansible_collections.sesame.portknock.plugins.module_utils._client.knock import KnockError
from ansible_collections.sesame.portknock.plugins.plugin_utils._ssh.jump import (
    jump_command,
    jump_script,
    knock_via_jump,
)
from ansible_collections.sesame.portknock.plugins.plugin_utils._ssh.path import (
    SshPath,
    addresses_of,
    path_of_dump,
    ssh_path,
)
from shown_steps import steps_in

HOST = "127.0.0.1"
HAVE_SSH = bool(shutil.which("ssh"))
PLAIN = SshPath("192.0.2.7", 22, "any", "me")


def dump(**more):
    facts = {"host": "alias", "user": "me", "hostname": "192.0.2.7", "port": "22", "addressfamily": "any", **more}
    return "".join(f"{key} {value}\n" for key, value in facts.items())


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        (dump(), PLAIN),
        (dump(port="2222", addressfamily="inet6"), PLAIN._replace(port=2222, family="inet6")),
        (dump(addressfamily="unspec"), PLAIN),
        (dump(proxyjump="a@j1:2200,j2"), PLAIN._replace(jump="a@j1:2200,j2")),
        (dump(proxyjump="none", proxycommand="none"), PLAIN),
        (dump(proxycommand="nc %h %p"), PLAIN._replace(proxy_command="nc %h %p")),
        (dump(bindaddress="192.0.2.9"), PLAIN._replace(source="192.0.2.9")),
        (dump(bindaddress="2001:db8::9"), PLAIN._replace(source="2001:db8::9")),
        (dump(bindaddress="some.name"), PLAIN),
        (dump() + "hostname second\nport 99\n", PLAIN),
        ("HostName x\r\nport 22\r\n", SshPath("x", 22, "any", "")),
        ("", None),
        ("a wrapper says something\nport 22\n", None),
        ("hostname x\n", None),
        ("hostname x\nport ssh\n", None),
    ],
)
def test_what_ssh_says_is_read(text, wanted):
    assert path_of_dump(text) == wanted


def command_end(words):
    """The command without what is the same for all: the options that keep ssh quiet, and the remote command."""
    words = list(words)
    while "-o" in words:
        at = words.index("-o")
        del words[at : at + 2]
    assert words[-1].startswith("exec sh -c ")
    return words[:-1]


@pytest.mark.parametrize(
    ("jump", "words", "wanted"),
    [
        ("j", ["ssh", "h"], ["ssh", "--", "j"]),
        ("me@j", ["/opt/ssh", "h"], ["/opt/ssh", "-l", "me", "--", "j"]),
        ("me@j:2200", ["ssh", "h"], ["ssh", "-l", "me", "-p", "2200", "--", "j"]),
        ("ssh://me@j:2200/", ["ssh", "h"], ["ssh", "-l", "me", "-p", "2200", "--", "j"]),
        ("a@[2001:db8::1]:22", ["ssh", "h"], ["ssh", "-l", "a", "-p", "22", "--", "2001:db8::1"]),
        ("[2001:db8::1]", ["ssh", "h"], ["ssh", "--", "2001:db8::1"]),
        ("a@b@j", ["ssh", "h"], ["ssh", "-l", "a@b", "--", "j"]),
        ("a,b:2,c:3", ["ssh", "h"], ["ssh", "-p", "3", "-J", "a,b:2", "--", "c"]),
        ("j", ["ssh", "-vv", "-C", "-F", "my cfg", "-o", "User=x", "-p22", "h"], ["ssh", "-F", "my cfg", "--", "j"]),
        ("j", ["ssh", "-4CFcfg", "-i", "-F", "h"], ["ssh", "-F", "cfg", "--", "j"]),
        ("j", ["ssh", "-i", "-Fkey", "h", "-F", "none"], ["ssh", "--", "j"]),
    ],
)
def test_a_jump_host_is_reached_as_ssh_reaches_it(jump, words, wanted):
    assert command_end(jump_command(PLAIN._replace(jump=jump), words)) == wanted


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("ssh -W %h:%p bastion", ["ssh", "bastion"]),
        ("exec ssh -q -W '[%h]:%p' -p 2200 %r@bastion", ["ssh", "-q", "-p", "2200", "me@bastion"]),
        ('/usr/bin/ssh -i "~/.ssh/a key" bastion -W "%h:%p"', ["/usr/bin/ssh", "-i", "~/.ssh/a key", "bastion"]),
        ("ssh -o Tag=100%% bastion -W %h:%p", ["ssh", "bastion"]),
    ],
)
def test_a_proxy_command_that_is_a_jump_is_used_as_it_stands(text, wanted):
    words = jump_command(PLAIN._replace(proxy_command=text), ["ssh", "h"])
    assert words[:2] == ["/bin/sh", "-c"]
    assert words[2].startswith("exec ")
    assert command_end(shlex.split(words[2])[1:]) == wanted


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("nc -X connect %h %p", "not of the form"),
        ("sshpass -f x ssh -W %h:%p bastion", "not of the form"),
        ("myssh -W %h:%p bastion", "not of the form"),
        ("ssh -W other:22 bastion", "not of the form"),
        ("ssh bastion nc %h %p", "not of the form"),
        ("ssh -W %h:%p bastion; true", "not of the form"),
        ("ssh -W %h:%p $(bastion)", "not of the form"),
        ("ssh -W %h:%p %k.bastion", "has %k in it"),
        ("", "no jump host"),
    ],
)
def test_a_way_without_a_jump_host_says_why(text, reason):
    with pytest.raises(KnockError, match=reason):
        jump_command(PLAIN._replace(proxy_command=text), ["ssh", "h"])


def test_addresses_keep_to_the_family():
    assert addresses_of(PLAIN) == ("192.0.2.7",)
    with pytest.raises(KnockError, match="192.0.2.7 has no address"):
        addresses_of(PLAIN._replace(family="inet6"))


# With core's plugin


def connection_to(host, **options):
    """Core's ssh plugin as a task would have it."""
    context = PlayContext()
    context.remote_addr = host
    connection = connection_loader.get("ssh", context, os.devnull)
    known = {"host": host, "control_path_dir": "/nonexistent", "ssh_args": "-C", **options}
    connection.set_options(direct=known)
    return connection


@pytest.fixture
def script(tmp_path):
    """Make an executable out of a shell text; return its path."""

    def make(name, text):
        path = tmp_path / name
        path.write_text("#!/bin/sh\n" + text)
        path.chmod(0o755)
        return str(path)

    return make


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "config"
    path.write_text(
        "Host alias\n  HostName 192.0.2.7\n  Port 2200\n  ProxyJump a@j1,j2:2222\n  AddressFamily inet\n"
        "Host *\n  User someone\n"
    )
    return str(path)


def test_core_and_ssh_are_asked(config):
    assert HAVE_SSH, "this test asks ssh itself: install the OpenSSH client"
    connection = connection_to("alias", ssh_common_args=f"-F {config}")
    assert ssh_path(connection) == SshPath("192.0.2.7", 2200, "inet", "someone", "a@j1,j2:2222", timeout=10)


def test_options_of_the_inventory_win(config):
    assert HAVE_SSH, "this test asks ssh itself: install the OpenSSH client"
    options = {"port": 22022, "remote_user": "root", "ssh_extra_args": "-J other -6"}
    connection = connection_to("alias", ssh_args=f"-F {config}", **options)
    assert ssh_path(connection) == SshPath("192.0.2.7", 22022, "inet6", "root", "other", timeout=10)


@pytest.mark.parametrize(
    "text",
    [
        "exit 1",
        "echo 'unknown option -G'",
        "echo hostname elsewhere",
        "echo hostname x; echo port 9; exit 1",
        "sleep 60",
        "exec 0</dev/tty",
    ],
)
def test_a_wrapper_that_does_not_know_g_leaves_the_options(script, text):
    began = time.monotonic()
    connection = connection_to("192.0.2.8", ssh_executable=script("wrapper", text), port=2201, remote_user="root")
    assert ssh_path(connection, 1) == SshPath("192.0.2.8", 2201, "any", "root")
    assert time.monotonic() - began < 50


def test_an_executable_that_is_not_there_leaves_the_options(tmp_path):
    connection = connection_to("192.0.2.8", ssh_executable=str(tmp_path / "none"))
    assert ssh_path(connection) == SshPath("192.0.2.8", 22, "any", "")


def test_a_wrapper_that_does_know_g_is_asked_with_the_same_words(script, tmp_path):
    seen = tmp_path / "seen"
    wrapper = script("wrapper", f"printf '%s\\n' \"$@\" >{seen}; cat >>{seen}; echo hostname x; echo port 9")
    connection = connection_to("h", ssh_executable=wrapper, port=7, private_key_file="/k")
    assert ssh_path(connection) == SshPath("x", 9, "any", "")
    wanted = [os.fsdecode(word) for word in connection._build_command(wrapper, "ssh", "-G", "h")]
    assert seen.read_text().splitlines() == wanted[1:]


def test_the_password_pipe_of_the_plugin_is_left_alone(script, monkeypatch):
    """As core up to 2.20 builds a command for a password: behind sshpass, with a new pipe, while another is in use."""
    connection = connection_to("h", ssh_executable=script("wrapper", "echo hostname x; echo port 9"))
    build = connection._build_command

    def with_sshpass(*words):
        connection.sshpass_pipe = os.pipe()
        return [b"/nonexistent/sshpass", b"-d%d" % connection.sshpass_pipe[0], b"-P", b"prompt", *build(*words)]

    monkeypatch.setattr(connection, "_build_command", with_sshpass)
    mine = connection.sshpass_pipe = os.pipe()
    before = len(os.listdir("/proc/self/fd"))
    try:
        assert ssh_path(connection).host == "x"
        assert connection.sshpass_pipe is mine
        assert len(os.listdir("/proc/self/fd")) == before
        assert os.write(mine[1], b"x") == 1
    finally:
        for number in mine:
            os.close(number)


# From a jump host: what would run there, run here

# Takes no notice of the way and runs the command as sshd does, with the account's shell; remembers how it was called.
FAKE_SSH = 'printf "%s\\n" "$@" >>{log}\nfor last; do :; done\nexec {shell} -c "$last"\n'


def tools(directory, *names, python=False):
    """A PATH with nothing on it but these."""
    directory.mkdir()
    for name in names:
        (directory / name).symlink_to(shutil.which(name))
    if python:
        # What is called python3 here may be a script that needs more than this PATH.
        (directory / "python3").write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
        (directory / "python3").chmod(0o755)
    return str(directory)


@pytest.fixture(params=["python3", "bash"])
def jump(request, script, tmp_path, monkeypatch):
    """A connection whose jump host is this machine with only one of the two to knock with; with the log of ssh."""
    log = tmp_path / "log"
    wrapper = script("ssh", FAKE_SSH.format(log=log, shell="/bin/sh"))
    names = ["sed", "sh"] + (["bash", "sleep", "getent"] if request.param == "bash" else [])
    monkeypatch.setenv("PATH", tools(tmp_path / "bin", *names, python=request.param == "python3"))
    return connection_to("target", ssh_executable=wrapper), log


def receivers(count):
    found = []
    for _number in range(count):
        opened = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        opened.bind((HOST, 0))
        opened.settimeout(20)
        found.append(opened)
    return found


def test_the_jump_host_knocks(jump):
    connection, log = jump
    first, second = receivers(2)
    listener = socket.socket()
    listener.bind((HOST, 0))
    listener.listen(5)
    listener.settimeout(20)
    steps = [(opened.getsockname()[1], kind) for opened, kind in ((first, "udp"), (listener, "tcp"), (second, "udp"))]
    began = time.monotonic()
    with first, second, listener:
        knock_via_jump(connection, SshPath(HOST, 22, "any", "", "me@bastion:2200"), steps, 0.1)
        assert time.monotonic() - began >= 0.2
        assert (len(first.recv(9)), len(second.recv(9))) == (1, 1)
        listener.accept()[0].close()
        for opened, read in ((first, first.recv), (second, second.recv), (listener, lambda _size: listener.accept())):
            opened.settimeout(0.1)
            with pytest.raises(socket.timeout):
                read(9)
    words = log.read_text()
    assert "bastion" in words
    assert not any(str(port) in words for port, _kind in steps)


def test_the_jump_host_waits_after_the_last_step(jump):
    """So that ssh, which goes through it at once, finds the door open."""
    connection, _log = jump
    (receiver,) = receivers(1)
    step = (receiver.getsockname()[1], "udp")
    with receiver:
        begun = time.monotonic()
        knock_via_jump(connection, SshPath(HOST, 22, "any", "", "bastion"), [step], 0.01, settle=0.75)
        assert time.monotonic() - begun >= 0.76
        assert len(receiver.recv(9)) == 1


def test_the_jump_host_resolves_names(jump):
    connection, _log = jump
    path = SshPath("no.such.name.invalid", 22, "any", "", "bastion")
    with pytest.raises(
        KnockError, match=r"^the knock was not sent by the jump host of no\.such.*has no address"
    ) as caught:
        knock_via_jump(connection, path, [(17005, "tcp")], 0.01)
    assert steps_in(["17005"], str(caught.value)) == []


def test_the_users_own_proxy_command_is_run(jump):
    connection, log = jump
    (receiver,) = receivers(1)
    wrapper = connection.get_option("ssh_executable")
    path = SshPath(HOST, 22, "any", "", "", f"{wrapper} -W %h:%p -p 2200 bastion")
    with receiver:
        knock_via_jump(connection, path, [(receiver.getsockname()[1], "udp")], 0.01)
        assert len(receiver.recv(9)) == 1
    words = log.read_text().splitlines()
    assert "-W" not in words
    assert words[words.index("-p") :][:3] == ["-p", "2200", "bastion"]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("echo 'Permission denied (publickey).' >&2; exit 255", r"Permission denied \(publickey\)\. A command"),
        ("echo Welcome; exit 0", "it printed nothing"),
        ("sleep 60", "no answer within 1 s"),
        ('for last; do :; done\nPATH={empty}\neval "$last"', "neither python3 nor bash"),
    ],
)
def test_a_jump_host_that_does_not_knock_says_why(script, tmp_path, text, reason):
    wrapper = script("ssh", text.format(empty=tools(tmp_path / "empty", "sh")))
    limit = 1 if "no answer" in reason else 30
    began = time.monotonic()
    with pytest.raises(KnockError, match=reason):
        knock_via_jump(
            connection_to("h", ssh_executable=wrapper), PLAIN._replace(jump="j"), [(17005, "udp")], 0.01, limit
        )
    assert time.monotonic() - began < 50


def test_bash_gives_a_silent_port_up_and_goes_on():
    """A listener with a full queue is as silent as a firewall that drops."""
    listener = socket.socket()
    listener.bind((HOST, 0))
    listener.listen(0)
    kept = [socket.socket() for _number in range(8)]
    for opened in kept:
        opened.setblocking(False)
        opened.connect_ex(listener.getsockname())
    (receiver,) = receivers(1)
    steps = [(listener.getsockname()[1], "tcp"), (receiver.getsockname()[1], "udp")]
    text = jump_script(HOST, steps, 0.1).partition("#-- bash\n")[2]
    began = time.monotonic()
    done = subprocess.run(["bash"], input=text, capture_output=True, text=True, timeout=200, check=False)
    assert time.monotonic() - began < 50
    assert done.stdout == "portknock: sent\n"
    assert len(receiver.recv(9)) == 1
    for opened in (*kept, receiver, listener):
        opened.close()
