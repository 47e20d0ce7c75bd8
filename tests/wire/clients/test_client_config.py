# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The playbook client_config: whatever calls ssh gets in, with one knock a connection, both counted on the host."""

import base64
import os
import re
import resource
import stat
import subprocess

import pytest
from rig import faults
from rig.controller import PING
from rig.counter import Counter, close_doors
from rig.jump import OTHER, jump_host
from rig.packets import IPV4, IPV6
from rig.peer import OPEN, TARGET
from rig.person import DOOR, PLAYBOOK, PROGRAMS, STEPS, Person
from rig.target import ROOT, door

PAGE = re.search(r"^## People$.*?^## ", (ROOT / "docs" / "clients.md").read_text(), re.M | re.S)[0]
LINES = re.findall(r"^\$ (.*192\.0\.2\.11.*); ssh \S+$", PAGE, re.M)


def changes(done):
    """Return how many tasks changed something."""
    return int(re.search(r"changed=(\d+)", done.stdout)[1])


@pytest.fixture
def person(rig, controller):
    """Somebody, and a door that is closed to them, over IPv4."""
    rig.target.apply(DOOR)
    return Person(controller, TARGET[IPV4])


@pytest.fixture
def counter(rig):
    """The knocks and connections that the target sees."""
    return Counter(rig, STEPS[-1])


def copied(rig, path, data):
    """Return whether a file of the target has this content."""
    return faults.inside(rig, path).read_bytes() == data


@pytest.mark.parametrize(
    ("program", "version"),
    [
        ("python", IPV4),
        ("bash", IPV6),
        pytest.param("python", IPV6, marks=pytest.mark.soak),
        pytest.param("bash", IPV4, marks=pytest.mark.soak),
    ],
)
def test_every_client_knocks_once(rig, version, program, person, counter):
    person.host = TARGET[version]
    person.run_playbook(program=program)
    data = os.urandom(3_000_000)
    local = person.home / "data"
    local.write_bytes(data)
    rig.target.namespace.run(
        "sh", "-ec", "rm -rf /run/own/repo; git init -q /run/own/repo; cd /run/own/repo; echo a >a; git add a; "
        "git -c user.name=a -c user.email=a commit -qm a"
    )  # fmt: skip
    by_ssh = " ".join(person.ssh_words)

    def ansible():
        run = person.controller.play(
            PING, hosts={"target": {"ansible_host": person.host, "ansible_ssh_common_args": f"-F {person.config}"}}
        )
        assert run.code == 0, run.output
        person.controller.close()

    clients = {
        "ssh": person.ssh,
        "ssh by address": lambda: person.ssh(host=person.host),
        "ssh with much output": lambda: person.ssh("base64", "-w0", str(local)),
        "scp": lambda: person.run("scp", "-F", person.config, local, "target:/run/own/by-scp"),
        "sftp": lambda: person.run("sftp", "-F", person.config, f"target:{local}", person.home / "by-sftp"),
        "rsync": lambda: person.run("rsync", "-e", by_ssh, local, "target:/run/own/by-rsync"),
        "git": lambda: person.run("git", "clone", "target:/run/own/repo", person.home / "repo", GIT_SSH_COMMAND=by_ssh),
        "ansible": ansible,
    }
    for name, client in clients.items():
        close_doors(rig)
        assert person.controller.gets_in(host=person.host) is False
        counter.take()
        done = client()
        assert (name, counter.take()) == (name, (1, 1)), done
        if name == "ssh with much output":
            assert base64.b64decode(done.stdout) == data
    assert copied(rig, "/run/own/by-scp", data)
    assert copied(rig, "/run/own/by-rsync", data)
    assert (person.home / "by-sftp").read_bytes() == data
    assert (person.home / "repo" / "a").read_text() == "a\n"


@pytest.mark.parametrize("mode", ["push", "pull"])
def test_synchronize(rig, controller, person, counter, mode):
    """Its rsync calls an ssh of its own, which shares nothing with the play's: this configuration has it knock.

    It is named in ssh's arguments here, as no test may have a file in ~/.ssh.
    """
    person.run_playbook()
    near, far = person.home / "near", "/run/own/synchronized"
    near.write_text("a\n")
    rig.target.namespace.run("cp", near, far)
    ends = (far, person.home / "pulled") if mode == "pull" else (near, far)
    task = {
        "ansible.posix.synchronize": dict(
            zip(("src", "dest"), map(str, ends), strict=True), mode=mode, use_ssh_args=True
        )
    }
    hosts = {
        "target": {
            "ansible_connection": "sesame.portknock.knock_ssh",
            "ansible_knock": list(STEPS),
            "ansible_ssh_common_args": f"-F {person.config}",
        }
    }
    collections = os.pathsep.join(str(ROOT / name) for name in (".build", ".cache/posix"))
    environment = {"ANSIBLE_COLLECTIONS_PATH": collections}
    assert controller.play(PING, hosts=hosts, environment=environment).only(task="ping").kind == "ok"
    # The window is over; the play's own connection goes on.
    close_doors(rig)
    assert controller.gets_in(host=person.host) is False
    counter.take()
    run = controller.play(dict(task, name="synchronize"), hosts=hosts, environment=environment)
    assert run.only(task="synchronize").kind == "ok", run.output
    assert counter.take() == (1, 1)
    assert copied(rig, far, b"a\n")


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_master_knocks_once_for_many(person, counter, program):
    person.run_playbook(program=program)
    path = person.home / "cp"
    options = ("ControlMaster=auto", "ControlPersist=60", f"ControlPath={path}")
    # A master that goes to the background keeps what it was started with; the test waits for none of it.
    for _turn in range(4):
        done = subprocess.run(
            person.controller.namespace.words(
                *person.ssh_words, *[word for option in options for word in ("-o", option)], "target", "echo in"
            ),
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL, timeout=600, check=False,
        )  # fmt: skip
        assert done.stdout == b"in\n"
    assert counter.take() == (1, 1)
    person.run("ssh", "-F", person.config, "-o", f"ControlPath={path}", "-O", "exit", "target")
    assert "hostname" in person.run(*person.ssh_words, "-G", "target").stdout
    assert counter.take() == (0, 0)


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_lost_step_costs_a_second_knock(rig, person, counter, program):
    person.run_playbook(program=program)
    lose = "-t raw -A PREROUTING -p udp --dport 19100 -m statistic --mode nth --every 3 --packet 0 -j DROP"
    rig.target.namespace.run("iptables", *lose.split())
    assert person.ssh().stdout == "in\n"
    assert counter.take()[0] == 2


@pytest.mark.parametrize("program", PROGRAMS)
def test_several_at_once_do_not_disturb_each_other(person, counter, program):
    person.run_playbook(program=program)
    words = person.controller.namespace.words(*person.ssh_words, "target", "echo in")
    running = [subprocess.Popen(words, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL) for _number in range(4)]
    assert [process.communicate(timeout=600)[0] for process in running] == [b"in\n"] * 4
    assert counter.take() == (4, 4)


def test_the_files(person):
    assert changes(person.run_playbook("--check", "--diff")) > 0
    assert not person.directory.exists()
    assert changes(person.run_playbook("--diff", "-vvv")) > 0
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in [person.directory, *person.directory.iterdir()]}
    assert modes.pop(person.directory.name) == 0o700
    assert set(modes.values()) == {0o600}
    text = (person.directory / "config").read_text()
    assert "Changes are lost" in text.splitlines()[0]
    assert PLAYBOOK in text.splitlines()[0]
    holders = {path.name for path in person.directory.iterdir() if "17005" in path.read_text()}
    assert holders == {"knocks"}
    assert changes(person.run_playbook("--diff")) == 0


def test_hosts_that_went_go(person):
    knock = {"ansible_knock": list(STEPS)}
    person.run_playbook(hosts={"one": knock, "two": knock, "open": {}})
    text = (person.directory / "config").read_text()
    assert re.findall(r"^Host (.*)$", text, re.M) == ["one", "two"]
    person.run_playbook("--check", hosts={"two": knock})
    assert (person.directory / "config").read_text() == text
    done = person.run_playbook("--limit", "two", hosts={"one": knock, "two": knock})
    assert "No longer in it: one" in done.stdout
    assert re.findall(r"^Host (.*)$", (person.directory / "config").read_text(), re.M) == ["two"]
    assert [line.split()[0] for line in (person.directory / "knocks").read_text().splitlines()] == ["two"]
    person.run_playbook(hosts={})
    assert "\nHost " not in (person.directory / "config").read_text()
    assert (person.directory / "knocks").read_text() == ""


def test_the_inventorys_key_and_user_let_a_person_in(person, counter):
    own = [line for line in person.config.read_text().splitlines() if "IdentityFile" not in line]
    person.config.write_text("\n".join(own) + "\n    User nobody\n")
    variables = {"ansible_host": person.host, "portknock_doors": [DOOR], "ansible_user": "root"}
    person.run_playbook(hosts={"target": variables})
    assert "Permission denied" in person.ssh(check=False).stderr
    person.run_playbook(hosts={"target": dict(variables, ansible_ssh_private_key_file=str(person.controller.key))})
    counter.take()
    assert person.ssh("id -un").stdout == "root\n"
    assert counter.take() == (1, 1)


def test_a_hundred_hosts_cost_little(person):
    """Processor time of ansible-playbook and all that it starts; a task for each host took ten times as much."""
    variables = {"ansible_knock": list(STEPS), "ansible_ssh_private_key_file": "~/.ssh/x"}
    hosts = {f"host{number}": dict(variables, ansible_host=f"192.0.2.{number}") for number in range(1, 101)}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    person.run_playbook(hosts=hosts)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert (after.ru_utime + after.ru_stime) - (before.ru_utime + before.ru_stime) < 10
    assert (person.directory / "config").read_text().count("ProxyCommand") == 100


def test_the_bundle_for_another_person(rig, person, counter):
    other = person.home / "other"
    done = person.run_playbook(
        "-e", "portknock_client_for=anna", "-e", f"portknock_client_directory={other}/.ssh/portknock-anna"
    )  # fmt: skip
    assert f"The bundle for anna is in {other}/.ssh/portknock-anna" in done.stdout
    config = other / ".ssh" / "config"
    config.write_text(person.config.read_text().replace(str(person.directory), f"{other}/.ssh/portknock-anna"))
    assert person.run("ssh", "-F", config, "target", "echo in", HOME=str(other)).stdout == "in\n"
    assert counter.take() == (1, 1)
    # PuTTY's local proxy, as docs/clients.md has it for Linux.
    command = re.search(
        r"`(bash portknock-connect.sh) alpha (%host %port)`", (ROOT / "docs" / "clients.md").read_text()
    )
    proxy = f"{command[1].replace('portknock', f'{other}/.ssh/portknock-anna/portknock', 1)} target {command[2]}"
    person.run("puttygen", person.controller.key, "-o", other / "key.ppk")
    server = person.run("ssh-keygen", "-lf", rig.target.folder / "host.pub").stdout.split()[1]
    words = ["plink", "-batch", "-hostkey", server, "-i", other / "key.ppk", "-proxycmd", proxy]
    words += [f"root@{person.host}", "echo in"]
    close_doors(rig)
    assert person.run(*words, HOME=str(other)).stdout == "in\n"
    assert counter.take() == (1, 1)


@pytest.mark.parametrize("how", ["inventory", "own configuration"])
def test_the_jump_host_knocks(rig, person, counter, how):
    with jump_host(rig) as jump:
        hosts = {"target": {"ansible_host": person.host, "ansible_user": "root", "portknock_doors": [DOOR]}}
        if how == "inventory":
            hosts["target"]["ansible_ssh_common_args"] = f"-o ProxyJump={jump}"
        else:
            # Ansible calls ssh with the address, a person with the name.
            person.write_config(f"Host {person.host}", f"    ProxyJump {jump}")
        person.run_playbook(hosts=hosts)
        counter.take()
        data = os.urandom(300_000)
        local = person.home / "data"
        local.write_bytes(data)
        person.run("scp", "-F", person.config, local, "target:/run/own/by-jump")
        assert copied(rig, "/run/own/by-jump", data)
        assert counter.take() == (1, 1)
        close_doors(rig)
        assert person.ssh("echo $SSH_CLIENT").stdout.split()[0] == OTHER[IPV4]
        assert counter.take() == (1, 1)
        # Our connection plugin knocks by the jump host too, and then the program does.
        run = person.controller.play(
            PING,
            hosts={
                "target": {
                    "ansible_host": person.host,
                    "ansible_connection": "sesame.portknock.knock_ssh",
                    "ansible_knock": list(STEPS),
                    "ansible_ssh_common_args": f"-F {person.config}",
                }
            },
        )
        assert run.code == 0, run.output
        person.controller.close()
        rig.target.reset()
        rig.target.apply(dict(DOOR, knock=["18000", "14000"]))
        done = person.ssh(check=False)
        assert done.returncode == 255
        assert (
            "portknock: no connection to port 22 of 10.77.0.1 after 3 knocks by the jump host: it is refused: "
            in done.stderr
        )


@pytest.mark.on_one_backend
@pytest.mark.parametrize("tool", ["/dev/$p", "knock ", "nc ", "nmap "])
def test_the_lines_that_the_readme_shows(rig, tool):
    """The article's own is in test_knockers."""
    found = [line for line in LINES if tool in line]
    assert len(found) == 1
    rig.target.apply(door("7144", "2791/udp", "9318", opens=(2222,)))
    assert rig.client.probe(2222) != OPEN
    done = rig.client.namespace.run(
        "bash", "-c", found[0].replace("192.0.2.11", TARGET[IPV4]), check=False, timeout=600
    )
    assert rig.client.probe(2222) == OPEN, (done.stdout, done.stderr)
