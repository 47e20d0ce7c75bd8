# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module util is PRIVATE to the collection: it may change at any time. Do not import it from elsewhere.

"""What knock_ruleset_info tells: reads the host and puts together what the pure parts say of it."""

from ansible_collections.sesame.portknock.plugins.module_utils._change.record import Store
from ansible_collections.sesame.portknock.plugins.module_utils._iptables.chains import DOORS
from ansible_collections.sesame.portknock.plugins.module_utils._iptables.commands import Iptables
from ansible_collections.sesame.portknock.plugins.module_utils._iptables.findings import (
    Finding,
    ruleset_findings,
    spec_findings,
)
from ansible_collections.sesame.portknock.plugins.module_utils._iptables.hooks import Ground
from ansible_collections.sesame.portknock.plugins.module_utils._iptables.installed import ABSENT, place_of, read_state
from ansible_collections.sesame.portknock.plugins.module_utils._iptables.persistence import COMMANDS, DIRECTORY
from ansible_collections.sesame.portknock.plugins.module_utils._iptables.read_back import (
    counters,
    drift,
    expected_own,
    recover_spec,
)
from ansible_collections.sesame.portknock.plugins.module_utils._iptables.recent_lists import (
    guess_hertz,
    read_list,
    seconds_left,
)
from ansible_collections.sesame.portknock.plugins.module_utils._knockd.config import interface_of, is_edited, steps_of
from ansible_collections.sesame.portknock.plugins.module_utils._knockd.daemon import config_of, is_listening
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.save_format import parse
from ansible_collections.sesame.portknock.plugins.module_utils._spec.model import IPV4, KERNEL, KNOCKD, Step
from ansible_collections.sesame.portknock.plugins.module_utils._spec.ports import port_text


def inspect(host):
    """Return the result of knock_ruleset_info as a dictionary.

    :param host: a Host.
    :raises HostError: if the ruleset cannot be read.
    """
    iptables = Iptables(host.run, host.find, host.read)
    families = [family for family in host.families() if iptables.installed(family)]
    backend = iptables.backend(family=families[0]) if families else ""
    lists = {name: read_list(text) for name, text in host.lists().items()}
    hertz = guess_hertz([entry for entries in lists.values() for entry in entries], host.uptime())
    result = dict(backend=backend, engine="", daemon={}, doors=[], drift=[], findings=[], ip_versions=[])
    result["pending"] = _pending(host)
    config = config_of(host)
    for family in families:
        _inspect_family(family, iptables, host, lists, hertz, result, config)
        other = iptables.other_backend_rules(family, backend)
        if other:
            result["findings"].append(_other_backend(family, other))
    if config:
        _inspect_daemon(host, config, result)
    return result


def _inspect_daemon(host, config, result):
    """Add what there is to say of knockd."""
    interface, running = interface_of(config), is_listening(host)
    result["daemon"] = dict(running=running, interface=interface)
    if is_edited(config):
        result["drift"].append("edited by hand: the configuration of knockd")
    if not running:
        message = (
            "knockd does not listen on {0}, so knocks open nothing; trusted sources and sessions that run are let in as ever. "
            "'systemctl status knockd' on the host tells why; write the ruleset again to mend it.".format(interface)
        )
        result["findings"].append(Finding("knockd", "", "", message)._asdict())


def _pending(host):
    """Return the change that waits to be confirmed, as a dictionary, empty where there is none."""
    record = Store(host).read()
    if record is None or record.boot != host.boot():
        return {}
    left = max(0, int(record.deadline - host.monotonic()))
    return dict(id=record.id, owner=record.owner, seconds_left=left)


def _other_backend(family, other):
    message = "the other backend of iptables holds rules as well, and a packet must pass both. Remove them or switch the alternative."
    return Finding("other_backend", family, other, message)._asdict()


def _inspect_family(family, iptables, host, lists, hertz, result, config):
    document = parse(iptables.save(family, counters=True), "the live {0} ruleset".format(family))
    table = document.table("filter")
    live = read_state(table)
    own = expected_own(host.read("{0}/{1}.rules".format(DIRECTORY, COMMANDS[family])), live)
    if own is None and live == ABSENT:
        return
    spec = recover_spec(own.chains if own else live.chains, family)
    result["ip_versions"].append(family)
    result["drift"] += ["{0}: {1}".format(family, line) for line in drift(document, own, spec, family)]
    alive = recover_spec(live.chains, family)
    # Rules that let in whoever knocked, and none that counts a knock: somebody else does.
    result["engine"] = KNOCKD if alive.doors and not any(door.knock for door in alive.doors) else KERNEL
    spec = spec._replace(engine=result["engine"])
    result["doors"] += _doors(alive, family, table, lists, hertz, host.uptime(), steps_of(config))
    place = place_of(live, DOORS) or 0
    found = ruleset_findings(document, spec, family, Ground(document, spec), place)
    found += spec_findings(_with_steps(spec, steps_of(config))) if family == IPV4 else []
    result["findings"] += [finding._asdict() for finding in found]


def _with_steps(spec, known):
    """Return a Spec whose doors have as many steps as knockd's configuration says, where the rules say nothing of them."""
    doors = tuple(
        door if door.knock else door._replace(knock=(Step(0, "tcp"),) * known.get(door.name, 0)) for door in spec.doors
    )
    return spec._replace(doors=doors)


def _doors(spec, family, table, lists, hertz, uptime, steps):
    counted = counters(table)
    doors = []
    for door in spec.doors:
        entries = [entry for name, entries in lists.items() if _is_list_of(name, door, family) for entry in entries]
        doors.append(
            dict(
                name=door.name,
                ip_version=family,
                opens=["{0}/{1}".format(port_text(ports).replace(":", "-"), ports.protocol) for ports in door.opens],
                steps=len(door.knock) or steps.get(door.name, 0),
                window=door.window,
                open_for=seconds_left(entries, door.window, uptime, hertz) if hertz else {},
                **_counted(door, counted),
            )
        )
    return doors


def _counted(door, counted):
    """Return the door's counters; the kernel counts no knocks that knockd recognises."""
    found = counted.get(door.name, dict(let_in=0, knocked=0))
    return found if door.knock else dict(let_in=found["let_in"])


def _is_list_of(name, door, family):
    prefix, _underscore, rest = name.partition("_")
    return rest == door.name and prefix.startswith("pk4" if family == IPV4 else "pk6")


__all__ = ("inspect",)
