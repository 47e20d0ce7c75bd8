# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The rig: one network of namespaces a backend, with both families on it."""

import functools
import os
import shutil
import signal
import tempfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from rig.bare_host import BareHost, docker_daemon
from rig.controller import Controller, cores, three_cores
from rig.faults import clean_up
from rig.guard import Case
from rig.jump import jump_host
from rig.knockd import ENGINES, KERNEL, KNOCKD, Knockd
from rig.lan import Lan
from rig.network import Rig
from rig.nftables import NFTABLES, Table
from rig.packets import IPV4, IPV6
from rig.peer import Peer
from rig.target import Target

NEEDED = (
    "unshare",
    "nsenter",
    "ip",
    "iptables-nft",
    "iptables-legacy",
    "nft",
    "nmap",
    "telnet",
    "nc",
    "knock",
    "knockd",
    "curl",
    "ssh",
    "sshd",
    "flock",
    "sudo",
    "faketime",
)
BACKENDS = ("nft", "legacy")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add our options."""
    parser.addoption("--soak", action="store_true", help="run the long series as well")
    parser.addoption("--backend", choices=BACKENDS, action="append", help="only this backend of iptables")


def pytest_configure(config: pytest.Config) -> None:
    """Say at once what is missing, instead of failing later in a hundred places."""
    config.addinivalue_line("markers", "soak: a long series, only with --soak")
    config.addinivalue_line("markers", "every_core: also without --soak with each release of ansible-core")
    config.addinivalue_line("markers", "three_cores: also without --soak with each of rig.controller.three_cores()")
    config.addinivalue_line(
        "markers", "on_one_backend: also without a core on one backend only, unless --soak; it is no matter which"
    )
    config.addinivalue_line(
        "markers",
        "engines(names, soak): which engines a test that asks for one is run with, if not all, and which only with --soak",
    )
    config.addinivalue_line("markers", "only(backend): where the other backend does not have what the test is about")
    config.addinivalue_line(
        "markers", "image(name): which image of bin/lib/images a bare host is made of, if not debian-12"
    )
    Case.soak = config.getoption("--soak")
    # Whatever ends the run, what it made is taken down; a shell starts what runs beside it deaf to SIGINT.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    os.environ["PATH"] += ":/usr/sbin:/sbin"
    missing = [name for name in NEEDED if not shutil.which(name)]
    if missing:
        pytest.exit("these commands are missing: " + ", ".join(missing) + ". bin/test wire installs them.", 3)
    if os.geteuid():
        pytest.exit("the tests on the wire need root.", 3)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what a backend does not have, and the long series unless they were asked for."""
    soak = config.getoption("--soak")
    out = [item for item in items if not _runs(item, soak)]
    if not soak:
        out += _more_than_one_case([item for item in items if item not in out])
        out += _more_than_pairs([item for item in items if item not in out])
    config.hook.pytest_deselected(items=out)
    items[:] = _longest_first([item for item in items if item not in out])


def _longest_first(items: list[pytest.Item]) -> list[pytest.Item]:
    """Have each worker begin with its share of the whole hosts, so that none of those is what all wait for in the end."""
    items = sorted(items, key=lambda item: "bare_host" not in getattr(item, "fixturenames", ()))
    # A worker gets what stands together in the list, and takes from others once it has nothing left.
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    return [item for number in range(workers) for item in items[number::workers]]


def _values(item: pytest.Item) -> dict[str, Any]:
    """Return the values that a test is run with."""
    return item.callspec.params if hasattr(item, "callspec") else {}


def _function(item: pytest.Item) -> str:
    """Return the file and the name of a test, without the values that it is run with."""
    return item.nodeid.split("[")[0]


def _more_than_one_case(items: list[pytest.Item]) -> list[pytest.Item]:
    """Return the tests of the engine nftables but for one case of each function: the same ones every time, here and there."""
    functions: dict[str, list[pytest.Item]] = {}
    for item in items:
        if _values(item).get("engine") == NFTABLES:
            functions.setdefault(_function(item), []).append(item)
    kept = {id(cases[zlib.crc32(name.encode()) % len(cases)]) for name, cases in functions.items()}
    return [item for cases in functions.values() for item in cases if id(item) not in kept]


def _more_than_pairs(items: list[pytest.Item]) -> list[pytest.Item]:
    """Return half of the tests that have a backend, a family and cases of their own: each pair of two of these is left.

    Both backends with both families, and each case with either: a fault that shows where all three meet alone is for soak.
    """
    functions: dict[str, dict[str, list[pytest.Item]]] = {}
    for item in items:
        values = _values(item)
        if "family" in values and "network" in values and _decided_by_iptables(item, values):
            case = item.name.replace(values["network"], "").replace(values["family"], "")
            functions.setdefault(_function(item), {}).setdefault(case, []).append(item)
    out = []
    for cases in functions.values():
        for number, name in enumerate(sorted(cases) if len(cases) > 1 else ()):
            for item in cases[name]:
                values = _values(item)
                turn = number + BACKENDS.index(values["network"]) + (values["family"] == IPV6)
                out += [item] if turn % 2 else []
    return out


def _runs(item: pytest.Item, soak: bool) -> bool:
    only = item.get_closest_marker("only")
    values = _values(item)
    backend: str = values.get("network", values.get("bare_host", ""))
    if only and backend not in only.args:
        return False
    is_native = values.get("engine") == NFTABLES
    takes_turns = "core" in values and not soak
    if is_native and not takes_turns and backend != BACKENDS[zlib.crc32(_function(item).encode()) % len(BACKENDS)]:
        # The backend of iptables has no part in it: half of the functions are run beside each.
        return False
    if soak:
        return True
    if item.get_closest_marker("soak"):
        return False
    backends = only.args if only else BACKENDS
    if "core" not in values:
        return is_native or not _suits_either(item, values) or _turn(item, backend, backends) == backend
    assert backend, f"{item.name} asks for a core and for no host"
    return _is_its_turn(item, values["core"], backend, backends)


def _decided_by_iptables(item: pytest.Item, values: Mapping[str, Any]) -> bool:
    """Return whether what a test is about is done by iptables, on either backend."""
    return values.get("engine") != NFTABLES and not _suits_either(item, values) and not item.get_closest_marker("only")


def _suits_either(item: pytest.Item, values: Mapping[str, Any]) -> bool:
    """Return whether it is enough to run a test on one of the backends, since what it is about is not done by iptables.

    So it is with the daemon: what it captures it does by itself, and it runs one command for each knock.
    """
    daemon = values["engine"] == KNOCKD if "engine" in values else "knockd" in getattr(item, "fixturenames", ())
    return daemon or item.get_closest_marker("on_one_backend") is not None


def _number(item: pytest.Item, *parts: str) -> int:
    """Return a number by which tests take turns: of the name without these parts, so that it is the same every time."""
    name = item.name
    for part in parts:
        name = name.replace(part, "")
    return zlib.crc32(name.encode())


def _turn(item: pytest.Item, backend: str, backends: Sequence[str]) -> str:
    """Return the backend that a test is run on where one is enough."""
    return backends[_number(item, backend) % len(backends)]


def _is_its_turn(item: pytest.Item, core: str, backend: str, backends: Sequence[str]) -> bool:
    """Return whether a test of the guard, which is run once, is run with these two: with the same ones every time."""
    three = item.get_closest_marker("three_cores")
    releases = three_cores() if three else cores()
    # An engine more changes nothing for the other one.
    number = _number(item, core, backend, f"{_values(item).get('engine')}-")
    if core not in releases:
        return False
    if three or item.get_closest_marker("every_core"):
        return backends[(number + releases.index(core)) % len(backends)] == backend
    return (backends[number % len(backends)], releases[number // 2 % len(releases)]) == (backend, core)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run each test on both backends, and where it asks for a family, on both of those."""
    backends = metafunc.config.getoption("--backend") or BACKENDS
    if "rig" in metafunc.fixturenames:
        metafunc.parametrize("network", backends, indirect=True, scope="session")
    if "bare_host" in metafunc.fixturenames:
        # Its backend is the distribution's; the value only says in which of the two runs it is tried.
        metafunc.parametrize("bare_host", backends, indirect=True)
    if "family" in metafunc.fixturenames:
        metafunc.parametrize("family", (IPV4, IPV6))
    if "engine" in metafunc.fixturenames:
        marker = metafunc.definition.get_closest_marker("engines")
        names, soaked = (marker.args, marker.kwargs.get("soak", ())) if marker else ((*ENGINES, NFTABLES), ())
        values = [pytest.param(name, marks=pytest.mark.soak) if name in soaked else name for name in names]
        metafunc.parametrize("engine", values, indirect=True)
    if "core" in metafunc.fixturenames:
        # A long series is long enough with one release.
        metafunc.parametrize("core", cores()[-1:] if metafunc.definition.get_closest_marker("soak") else cores())


@pytest.fixture(scope="session")
def network(request: pytest.FixtureRequest) -> Iterator[Rig]:
    """A network whose target uses one backend."""
    folder = Path(tempfile.mkdtemp(prefix="portknock-wire-"))
    lan = Lan()
    target = client = other = None
    try:
        target = Target(lan.target, request.param, folder)
        client, other = (Peer(host, lan.target.mac) for host in (lan.client, lan.other))
        yield Rig(target, client, other, request.param)
    finally:
        for part in (client, other, target, lan):
            if part:
                part.close()
        shutil.rmtree(folder)


@pytest.fixture
def rig(network: Rig) -> Rig:
    """The network with an empty ruleset."""
    network.target.reset()
    network.client.drain()
    return network


@pytest.fixture
def knockd(rig: Rig) -> Iterator[Knockd]:
    """The target with the engine knockd: the daemon runs with what is applied, and a knock waits until it was seen."""
    target = rig.target
    daemon = Knockd(target.namespace, target.folder)
    target.engine, target.daemon = KNOCKD, daemon
    with pytest.MonkeyPatch.context() as patch:
        for peer in (rig.client, rig.other):
            patch.setattr(peer, "settle", functools.partial(daemon.settle, rig.client))
        yield daemon
    daemon.stop()
    target.engine, target.daemon = KERNEL, None


@pytest.fixture
def table(rig: Rig) -> Iterator[Table]:
    """The target with the engine nftables: what is applied is a table of its own."""
    target = rig.target
    target.engine, target.table = NFTABLES, Table(target.namespace)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Controller, "module_options", {"engine": NFTABLES})
        yield target.table
    target.table.remove()
    target.engine, target.table = KERNEL, None


@pytest.fixture
def engine(rig: Rig, request: pytest.FixtureRequest) -> str:
    """The engine that the target's rules are made for; a test that names it is run with each."""
    fixture = {KNOCKD: "knockd", NFTABLES: "table"}.get(request.param)
    if fixture:
        request.getfixturevalue(fixture)
    assert rig.target.engine == request.param
    return request.param


@pytest.fixture
def soak(request: pytest.FixtureRequest) -> bool:
    """Whether the long series were asked for."""
    return request.config.getoption("--soak")


@pytest.fixture
def controller(rig: Rig, core: str) -> Iterator[Controller]:
    """A controller with one release of ansible-core, and the target as if the collection had never been there."""
    made = Controller(rig.client.namespace, rig.target.start_sshd(), rig.target.folder / "controller", core)
    clean_up(rig)
    yield made
    made.close()
    clean_up(rig)


@pytest.fixture
def jump(rig: Rig) -> Iterator[str]:
    """The other host as a jump host, as user@address; the keys are the controller's."""
    rig.target.start_sshd()
    with jump_host(rig) as place:
        yield place


@pytest.fixture(scope="session")
def docker() -> Iterator[None]:
    """A docker daemon that runs."""
    with docker_daemon():
        yield


@pytest.fixture
def bare_host(request: pytest.FixtureRequest) -> Iterator[BareHost]:
    """A host on which the role was never run."""
    request.getfixturevalue("docker")
    marker = request.node.get_closest_marker("image")
    made = BareHost(request.param, *(marker.args if marker else ()))
    yield made
    made.close()
