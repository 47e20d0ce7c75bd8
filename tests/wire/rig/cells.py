# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The cells of the fault matrix: what goes wrong while a change waits, as blocks around the run and in its window."""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import pytest
from rig import faults
from rig.controller import Run
from rig.guard import DOOR, EITHER, LONG, NEW, OLD, REFUSED, TIMEOUT, Case
from rig.packets import IPV4, IPV6
from rig.peer import TARGET
from rig.target import COMMANDS, FAMILIES, door

Block = Callable[[Any], contextlib.AbstractContextManager[Any]]
"""Makes a block for a Case."""


def nothing(_case: Case) -> contextlib.AbstractContextManager[Any]:
    """No fault."""
    return contextlib.nullcontext()


class Cell(NamedTuple):
    """What goes wrong, when, and how it must end."""

    end: str
    around: Block = nothing
    """A block around the whole run; what is there after it was entered is the old state."""
    window: Block | None = None
    """A block that is entered once the change is in force, and left when the run has ended."""
    answered: bool = False
    """The window is entered only when the controller has the module's answer."""
    waits: bool = False
    """New connections are held back until the window was entered."""
    options: Mapping[str, Any] | None = None
    variables: Mapping[str, Any] | None = None
    undo: str = "exact"
    marks: tuple[pytest.MarkDecorator, ...] = ()
    tidy: bool = True
    """Nothing staged is left."""
    patient: bool = False
    """Where it would be confirmed if only the time sufficed: what takes long is given half a minute."""


def cut(reject_with: str, families: Sequence[str] = FAMILIES) -> Cell:
    """Rules that drop or refuse everything, the running session too, because nothing is tracked."""
    return Cell(OLD, lambda case: faults.cut_off(case.rig, families=families), options={"reject_with": reject_with})


def in_turn(*blocks: Block) -> Block:
    """One block after the other."""

    @contextlib.contextmanager
    def both(case: Case) -> Iterator[None]:
        with contextlib.ExitStack() as stack:
            for block in blocks:
                stack.enter_context(block(case))
            yield

    return both


def once(act: Callable[[Any], object]) -> Block:
    """Do something when the block is entered."""

    @contextlib.contextmanager
    def block(case: Case) -> Iterator[None]:
        act(case)
        yield

    return block


BLIND = 'ForceCommand exec env -u SSH_CONNECTION -u SSH_CLIENT /bin/sh -c "${SSH_ORIGINAL_COMMAND:-true}"'
ELSEWHERE = door(7000, 9100, opens=(2200,))


def blind_sshd(case: Case) -> contextlib.AbstractContextManager[Any]:
    """Sessions do not know where they come from, as behind some proxies and with some sudo rules."""
    return faults.sshd_with(case.rig, BLIND)


def leaves_from_elsewhere(case: Case) -> None:
    """New connections leave from another address than the running one, as from behind a pool of addresses."""
    case.controller.configure("BindAddress 10.77.0.22")


def ban(case: Case) -> None:
    """What fail2ban and Docker do at any moment: rules and chains of their own, in front and in other tables."""
    run = case.rig.target.namespace.run
    for command in COMMANDS.values():
        run(command, "-w", "-N", "f2b-web")
        run(command, "-w", "-I", "INPUT", "1", "-p", "tcp", "--dport", "80", "-j", "f2b-web")
        # The change that waits has made it already.
        run(command, "-w", "-N", "DOCKER-USER", check=False)
        run(command, "-w", "-I", "FORWARD", "1", "-j", "DOCKER-USER")
        run(command, "-w", "-t", "nat", "-N", "DOCKER")
    case.others_changed()


def unban(case: Case) -> None:
    """A rule and a chain of others go."""
    run = case.rig.target.namespace.run
    for command in COMMANDS.values():
        run(command, "-w", "-D", "INPUT", "-p", "tcp", "-m", "multiport", "--dports", "22", "-j", "f2b-sshd")
        run(command, "-w", "-F", "f2b-sshd")
        run(command, "-w", "-X", "f2b-sshd")
    case.others_changed()


def hold_on_to_ours(case: Case) -> None:
    """A foreign rule, in a foreign chain, names a chain of the collection: the rule stays, so the chain, then empty, must too."""
    for command in COMMANDS.values():
        case.rig.target.namespace.run(
            command, "-w", "-I", "f2b-sshd", "-p", "udp", "--dport", "514", "-j", "PORTKNOCK_REFUSE"
        )
    kept = (":PORTKNOCK_REFUSE", "-A f2b")
    case.before = {family: faults.without_ours(lines, but=kept) for family, lines in faults.ruleset(case.rig).items()}


def forget_connections(case: Case) -> None:
    """Somebody runs conntrack -F: the sessions that are there are not known any more, the play's among them."""
    faults.forget_connections(case.rig)


@contextlib.contextmanager
def strict(case: Case) -> Iterator[None]:
    """Connection tracking takes up no connection of which it has not seen the beginning."""
    run = case.rig.target.namespace.run
    run("sysctl", "-qw", "net.netfilter.nf_conntrack_tcp_loose=0")
    try:
        yield
    finally:
        run("sysctl", "-qw", "net.netfilter.nf_conntrack_tcp_loose=1")


def kill_sessions(case: Case) -> None:
    """The processes that serve ssh connections go."""
    killed = faults.sessions(case.rig)
    assert killed
    faults.send(case.rig, "KILL", killed)


def freeze_sessions(case: Case) -> None:
    """Connections that are there do not answer any more, and do not end: a master over one is dead, and does not know."""
    faults.send(case.rig, "STOP", faults.sessions(case.rig))


def kill_agent(case: Case) -> None:
    """What waits for the deadline goes."""
    killed = faults.processes(case.rig, "guard.zip wait")
    assert killed
    faults.send(case.rig, "KILL", killed)


def empty_run(case: Case) -> None:
    """Somebody clears what lies in /run."""
    case.rig.target.namespace.run("rm", "-rf", faults.RUN)


def slow(seconds: int, families: Sequence[str] = FAMILIES) -> Block:
    """Loading a ruleset takes long: a busy lock, a big ruleset, a slow disk."""
    return lambda case: faults.restore_that(case.rig, f"sleep {seconds}", families)


def fails(*families: str) -> Block:
    """Loading fails although the test of the same text went well."""
    return lambda case: faults.restore_that(case.rig, faults.FAILS, families)


def fails_later(*families: str, only: str = "") -> Block:
    """Loading works the first time only, or only without the word."""
    what = f'[ $(wc -l </run/own/restores) -le {len(families)} ] || case " $* " in *"{only}"*) rm -f $input; exit 4 ;; esac'
    return lambda case: faults.restore_that(case.rig, what, families)


def in_the_way(port: int, protocol: str = "tcp") -> Block:
    """A firewall between drops a port."""
    return lambda case: faults.way_blocked(case.rig, port, protocol)


def lock(path: str, seconds: int) -> Block:
    """Somebody holds a lock."""
    return lambda case: faults.held(case.rig, path, seconds)


def another_user_at(path: str) -> Block:
    """A user of the host who is not root takes a lock whenever he can."""
    return lambda case: faults.grabbed(case.rig, path)


def ipv6_alone(case: Case) -> contextlib.AbstractContextManager[Any]:
    """The host has no address of IPv4."""
    return faults.without_ipv4(case.rig)


def full(folder: str) -> Block:
    """A disk is full."""
    return in_turn(small(folder), fills_up(folder))


def small(folder: str) -> Block:
    """A disk is small."""
    return lambda case: faults.small_disk(case.rig, folder)


def fills_up(folder: str) -> Block:
    """A small disk fills up."""
    return lambda case: faults.full(case.rig, folder)


def full_run(case: Case) -> contextlib.AbstractContextManager[Any]:
    """/run is full: the record of the change cannot be written again."""
    return faults.full_run(case.rig)


def fixed(folder: str) -> Block:
    """A disk is read-only."""
    return lambda case: faults.read_only(case.rig, folder)


def no_sshd(case: Case) -> contextlib.AbstractContextManager[Any]:
    """Nobody listens for ssh any more."""
    return faults.sshd_stopped(case.rig)


LEGACY = (pytest.mark.only("legacy"),)
OVER_IPV6 = {"ansible_host": TARGET[IPV6]}

CELLS = {
    # What cuts the controller off.
    "everything is dropped": cut("drop"),
    "everything is refused": cut("icmp-port-unreachable"),
    "everything is reset": cut("tcp-reset"),
    "everything is prohibited": cut("icmp-admin-prohibited"),
    "only IPv6 is cut": cut("drop", (IPV6,))._replace(variables=OVER_IPV6),
    "only IPv6 is cut, which the controller does not use": cut("drop", (IPV6,))._replace(end=NEW),
    "the first step is lost": Cell(OLD, in_the_way(7000)),
    "the datagram is lost": Cell(OLD, in_the_way(9100, "udp")),
    "the last step is lost, over IPv6": Cell(OLD, in_the_way(3100), variables=OVER_IPV6),
    "the door opens another port": Cell(REFUSED, options={"doors": [ELSEWHERE]}),
    "the door opens another port, and the host cannot know": Cell(OLD, blind_sshd, options={"doors": [ELSEWHERE]}),
    "the host cannot know, and all is well": Cell(NEW, blind_sshd),
    "a host without IPv4, confirmed": Cell(NEW, ipv6_alone, variables=OVER_IPV6),
    "a host without IPv4, rolled back": Cell(OLD, in_turn(ipv6_alone, in_the_way(7000)), variables=OVER_IPV6),
    "new connections come from elsewhere": Cell(
        OLD,
        window=once(leaves_from_elsewhere),
        waits=True,
        options={"doors": [], "allow": [{"port": "22", "sources": ["10.77.0.2", "fd77::2"]}]},
    ),
    "others are allowed, not we": Cell(
        REFUSED, options={"doors": [], "allow": [{"port": "22", "sources": ["10.77.0.3"]}]}
    ),
    "only the other family is allowed": Cell(
        REFUSED, variables=OVER_IPV6, options={"doors": [], "allow": [{"port": "22", "sources": ["10.77.0.2"]}]}
    ),
    "sshd is stopped": Cell(OLD, window=no_sshd, waits=True),
    # What fails on the host.
    "loading fails": Cell(OLD, fails(*FAMILIES)),
    "the second family fails": Cell(OLD, fails(IPV6)),
    "the first family fails": Cell(OLD, fails(IPV4)),
    "loading is slow": Cell(NEW, slow(4), patient=True),
    "loading is slower than the deadline": Cell(OLD, slow(4)),
    "loading is slow, and cuts off": Cell(OLD, in_turn(slow(2), lambda case: faults.cut_off(case.rig))),
    "the lock is held while it is applied": Cell(NEW, lock("/run/xtables.lock", 4), patient=True, marks=LEGACY),
    "the lock is held at the deadline": Cell(
        OLD, in_the_way(7000), window=lock("/run/xtables.lock", TIMEOUT + 4), marks=LEGACY
    ),
    "our lock is held at the deadline": Cell(OLD, in_the_way(7000), window=lock(faults.LOCK, TIMEOUT + 4)),
    "another user reaches for our lock, confirmed": Cell(NEW, another_user_at(faults.LOCK)),
    "another user reaches for our lock, rolled back": Cell(
        OLD, in_turn(in_the_way(7000), another_user_at(faults.LOCK))
    ),
    "the exact undo cannot be loaded": Cell(
        OLD, in_turn(in_the_way(7000), fails_later(*FAMILIES, only=" --noflush ")), undo="snapshot"
    ),
    "a chain of the collection is held on to": Cell(OLD, in_the_way(7000), window=once(hold_on_to_ours)),
    "no room to stage": Cell(OLD, full("/etc/iptables")),
    "no room to stage the collection's files": Cell(OLD, full("/etc/portknock")),
    "no room in /run": Cell(REFUSED, full(faults.RUN)),
    "no room for the rules files when it is confirmed": Cell(
        NEW, small("/etc/iptables"), window=fills_up("/etc/iptables"), waits=True
    ),
    "no room for the collection's files when it is confirmed": Cell(
        NEW, small("/etc/portknock"), window=fills_up("/etc/portknock"), waits=True
    ),
    "/run fills up, confirmed or not": Cell(EITHER, window=full_run, waits=True),
    "/run fills up, rolled back": Cell(OLD, in_the_way(7000), window=full_run),
    "no room in /run from the start": Cell(REFUSED, full_run),
    "/run is read-only": Cell(REFUSED, fixed("/run")),
    "/var is read-only": Cell(NEW, fixed("/var")),
    "/etc becomes read-only": Cell(OLD, window=fixed("/etc"), waits=True, tidy=False),
    "/etc becomes read-only, rolled back": Cell(OLD, in_the_way(7000), window=fixed("/etc"), tidy=False),
    # What others do meanwhile.
    "/run/portknock is removed, confirmed": Cell(NEW, window=once(empty_run), waits=True),
    "/run/portknock is removed, rolled back": Cell(OLD, in_the_way(7000), window=once(empty_run)),
    "others add rules, confirmed": Cell(NEW, window=once(ban), waits=True),
    "others add rules, rolled back": Cell(OLD, in_the_way(7000), window=once(ban)),
    "others have connection tracking forget, confirmed": Cell(NEW, window=once(forget_connections), waits=True),
    "running connections are not taken up, rolled back": Cell(OLD, in_turn(strict, in_the_way(7000))),
    "others take rules away, confirmed": Cell(NEW, window=once(unban), waits=True),
    "others take rules away, rolled back": Cell(OLD, in_the_way(7000), window=once(unban)),
    # What dies.
    "the sessions are killed, confirmed": Cell(NEW, window=once(kill_sessions), waits=True, answered=True),
    "the sessions are killed before the answer, confirmed": Cell(NEW, window=once(kill_sessions), waits=True),
    "the sessions are killed, rolled back": Cell(OLD, in_the_way(7000), window=once(kill_sessions)),
    "the sessions freeze, confirmed": Cell(NEW, window=once(freeze_sessions), waits=True, answered=True),
    "the sessions freeze, rolled back": Cell(OLD, in_the_way(7000), window=once(freeze_sessions), answered=True),
    "the agent is killed, confirmed": Cell(NEW, window=once(kill_agent), waits=True),
    "the agent is killed, nothing confirms": Cell(OLD, in_the_way(7000), window=once(kill_agent)),
}


def check_cell(case: Case, cell: Cell) -> None:
    """Run the change with its fault, and check how it ended, and that the next run finds its way."""
    with cell.around(case):
        case.remember()
        run = _run(case, cell)
        case.check(cell.end, run, cell.undo, IPV6 if cell.variables else IPV4, cell.tidy)
    case.controller.configure()
    case.controller.end_masters()
    # It may come over the other family, or when the window is over.
    case.check_next(knocks=cell.end in (NEW, EITHER))


def _run(case: Case, cell: Cell) -> Run:
    """Run the change with its fault to its end."""
    options = dict(
        {"doors": [DOOR], "guard_timeout": LONG if cell.patient or cell.end == NEW else TIMEOUT}, **(cell.options or {})
    )
    how = dict(start=True, run={"hosts": {"target": cell.variables or {}}}, **options)
    if cell.window is None:
        return case.apply(**how).wait()
    with contextlib.ExitStack() as stack, contextlib.ExitStack() as windows:
        if cell.waits:
            stack.enter_context(case.waiting())
        run = case.apply(**how)
        run.until(run.confirms if cell.answered else case.applied)
        windows.enter_context(cell.window(case))
        stack.close()
        return run.wait()
