# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The module is run again, with and without a change, while people knock and sessions run."""

import json
import subprocess
import sys
import time

import pytest
from rig.engines import EVERY_TIME
from rig.knockd import KERNEL
from rig.peer import OPEN, REFUSED
from rig.target import FAMILIES, HERE, ROOT, clean_environment, door

KNOCK = (7000, "9100/udp", 3100)
DOOR = door(*KNOCK, opens=("2222", "22"), window=600, step_timeout=60)
ONE = {"doors": [DOOR], "allow": [{"port": "443", "comment": "für alle, 誰でも"}], "persist": False}
TWO = {
    "doors": [DOOR, door(7500, 9500, name="two", opens=("8000",))],
    "allow": [{"port": "443"}, {"port": "80"}],
    "persist": False,
}


@EVERY_TIME
@pytest.mark.parametrize("policy", ["reject", "accept"])
def test_who_has_knocked_still_gets_in(rig, engine, policy):
    """Unchanged, changed, and changed back; in mid-window and in mid-knock; both families at once."""
    assert rig.target.module(**ONE, policy=policy)["changed"]
    for family in FAMILIES:
        rig.client.knock(*KNOCK, family=family)
        rig.other.knock(KNOCK[0], family=family)
    for number, options in enumerate((ONE, TWO, TWO, ONE)):
        result = rig.target.module(**options, policy=policy)
        assert result["changed"] == (number in (1, 3))
        assert result.get("backend", "") == (rig.backend if engine == KERNEL else "")
        for family in FAMILIES:
            assert rig.client.probe(2222, family) == OPEN
            assert rig.other.probe(2222, family) == REFUSED[family]
        if number == 1:
            for family in FAMILIES:
                rig.other.knock(KNOCK[1], family=family)
    for family in FAMILIES:
        rig.other.knock(KNOCK[2], family=family)
        assert rig.other.probe(2222, family) == OPEN, "a knock that was under way goes on"


@EVERY_TIME
@pytest.mark.usefixtures("engine")
def test_another_window_and_another_knock(rig, family):
    rig.target.module(**ONE)
    rig.client.knock(*KNOCK, family=family)
    rig.target.module(doors=[dict(DOOR, window=300, knock=["7000", "9300", "3100"])], persist=False)
    assert rig.client.probe(2222, family) == OPEN, "who has knocked is known by the door's name"
    rig.other.knock(*KNOCK, family=family)
    assert rig.other.probe(2222, family) == REFUSED[family], "the old knock"
    rig.other.knock(7000, 9300, 3100, family=family)
    assert rig.other.probe(2222, family) == OPEN
    rig.target.module(doors=[dict(DOOR, name="new")], persist=False)
    assert rig.client.probe(2222, family) == REFUSED[family], "another door's name is another door"


class Probes:
    """New connections and running ones, looked at again and again; what answers wrongly is noted."""

    def __init__(self, rig):
        """Knock, and begin the sessions."""
        self._rig, self.rounds, self.wrong, self._sessions = rig, 0, [], {}
        for family in FAMILIES:
            rig.client.knock(*KNOCK, family=family)
            self._sessions[family] = rig.client.connect(2222, family)
            assert not isinstance(self._sessions[family], OSError), self._sessions[family]

    def look(self):
        """Look at everything once."""
        self.rounds += 1
        for family in FAMILIES:
            # Each is answered, if late where the machine is busy.
            seen = {
                "allowed": self._rig.client.probe(443, family, patience=20),
                "knocked": self._rig.client.probe(2222, family, patience=20),
                "not knocked": self._rig.other.probe(2222, family, patience=20),
                "shut": self._rig.client.probe(9999, family, patience=20),
                "session": self._speaks(family),
            }
            right = {
                "allowed": OPEN,
                "knocked": OPEN,
                "not knocked": REFUSED[family],
                "shut": REFUSED[family],
                "session": True,
            }
            self.wrong += [(self.rounds, family, name, seen[name]) for name in right if seen[name] != right[name]]

    def _speaks(self, family):
        word = str(self.rounds).encode()
        try:
            self._sessions[family].sendall(word)
            return self._sessions[family].recv(100) == word
        except OSError as error:
            return repr(error)

    def close(self):
        """End the sessions."""
        for handle in self._sessions.values():
            handle.close()


def _under_probes(rig, words, times):
    """Run a command that re-applies on the target, and look all the while. Return what it printed."""
    path = rig.target.folder / "two.json"
    path.write_text(json.dumps([TWO, ONE]))
    rig.target.module(**ONE)
    probes = Probes(rig)
    probes.look()
    assert not probes.wrong
    running = rig.target.namespace.start(
        *words, str(times), str(path), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=clean_environment(),
    )  # fmt: skip
    try:
        end = time.monotonic() + 10 + 5 * times
        while running.poll() is None and time.monotonic() < end:
            probes.look()
            # The re-applies want a processor too.
            time.sleep(0.01)
        out, err = running.communicate(timeout=100)
    finally:
        running.kill()
        probes.close()
    assert running.returncode == 0, err
    assert probes.rounds >= times / 10, "too few looks to tell anything"
    assert not probes.wrong, f"{len(probes.wrong)} wrong answers in {probes.rounds} rounds: {probes.wrong[:5]}"
    print(f"{probes.rounds} rounds of 10 answers, none wrong, over {times} re-applies")
    return out


def test_not_one_wrong_answer_in_60_reapplies(rig):
    assert _under_probes(rig, [sys.executable, str(HERE / "reapply.py")], 60) == "60\n"


@EVERY_TIME
@pytest.mark.soak
def test_not_one_wrong_answer_in_200_runs_of_the_module(rig, engine):
    """The same with one process a run, as Ansible does it."""
    script = (
        "import json, subprocess, sys; times, path = int(sys.argv[1]), sys.argv[2]; sets = json.load(open(path)); changed = 0\n"
        "for turn in range(times):\n"
        f'    open(path + ".now", "w").write(json.dumps({{"ANSIBLE_MODULE_ARGS": dict(sets[turn % 2], engine={engine!r})}}))\n'
        f'    done = subprocess.run([sys.executable, {str(HERE / "module.py")!r}, path + ".now"], stdout=subprocess.PIPE, check=True)\n'
        '    changed += json.loads(done.stdout)["changed"]\n'
        "print(changed)"
    )
    assert _under_probes(rig, [sys.executable, "-c", script], 200) == "200\n"


@pytest.mark.soak
def test_not_one_wrong_answer_in_3000_reapplies(rig):
    assert _under_probes(rig, [sys.executable, str(HERE / "reapply.py")], 3000) == "3000\n"


@EVERY_TIME
def test_through_ansible(rig, engine):
    """A playbook with the module, run twice by ansible-playbook on the target itself."""
    folder = rig.target.folder
    place = folder / "collections/ansible_collections/sesame"
    place.mkdir(parents=True, exist_ok=True)
    if not (place / "portknock").exists():
        (place / "portknock").symlink_to(ROOT)
    task = {"name": "Apply", "sesame.portknock.knock_ruleset": dict(ONE, engine=engine)}
    (folder / "play.yml").write_text(json.dumps([{"hosts": "localhost", "gather_facts": False, "tasks": [task]}]))
    env = clean_environment(
        ANSIBLE_COLLECTIONS_PATH=str(folder / "collections"), ANSIBLE_LOCAL_TEMP=str(folder / "tmp"),
        ANSIBLE_REMOTE_TEMP=str(folder / "tmp"), ANSIBLE_LOCALHOST_WARNING="false", ANSIBLE_NOCOLOR="1", HOME=str(folder),
    )  # fmt: skip
    python = f"ansible_python_interpreter={sys.executable}"
    playbook = [sys.executable, "-m", "ansible", "playbook", "-i", "localhost,", "-c", "local", "-e", python]
    for changed in (1, 0):
        done = rig.target.namespace.run(*playbook, folder / "play.yml", env=env)
        assert f"changed={changed} " in done.stdout, done.stdout
    for family in FAMILIES:
        assert rig.client.probe(2222, family) == REFUSED[family]
        rig.client.knock(*KNOCK, family=family)
        assert rig.client.probe(2222, family) == OPEN
