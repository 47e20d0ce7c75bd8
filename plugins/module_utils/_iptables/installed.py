# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The collection's rules as they are in the tables, and how to get from one state of them to another. Pure.

A State holds only the collection's chains and where its hooks stand among the foreign rules of INPUT, FORWARD and DOCKER-USER,
and of nat's PREROUTING and POSTROUTING, so a change and its undo are the same function with its arguments swapped, and no foreign
rule is ever in the text. Of which table a chain is, its name says.
"""

from typing import Any, Dict, List, Mapping, NamedTuple, Optional, Sequence, Set, Tuple

from ansible_collections.sesame.portknock.plugins.module_utils._errors import HostError
from ansible_collections.sesame.portknock.plugins.module_utils._names.chains import (
    DOCKER,
    FILTER,
    HEAD,
    NAT,
    table_of,
)
from ansible_collections.sesame.portknock.plugins.module_utils._names.comments import comment_texts, has_comment
from ansible_collections.sesame.portknock.plugins.module_utils._names.lists import FULL_MASK
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.rule_text import options
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.save_format import Document, Table
from ansible_collections.sesame.portknock.plugins.module_utils._tables.own_rules import (
    HOOKED,
    INPUT,
    TABLES,
    foreign_in,
    is_own_chain,
    is_own_rule,
)


class Hook(NamedTuple):
    """A rule that jumps to a chain of the collection."""

    position: int
    """How many foreign rules of its chain stand before it."""
    text: str
    """The rule."""
    chain: str = INPUT
    """The chain that it is in, one of HOOKED."""


class State(NamedTuple):
    """The collection's part of a ruleset."""

    chains: Mapping[str, Tuple[str, ...]]
    """Name of a chain to its rules."""
    hooks: Tuple[Hook, ...]
    """In the order of HOOKED, and those of one chain in their order."""

    def hooks_of(self, chain: str = INPUT) -> Tuple[Hook, ...]:
        """Return the hooks in one chain."""
        return tuple(hook for hook in self.hooks if hook.chain == chain)

    def of_table(self, table: str) -> "State":
        """Return what of it is in one table."""
        return State(
            {name: rules for name, rules in self.chains.items() if table_of(name) == table},
            tuple(hook for hook in self.hooks if table_of(hook.chain) == table),
        )


class Around(NamedTuple):
    """What matters of others' rules for where hooks go."""

    counts: Mapping[str, int]
    """Each chain that may have hooks, and is there, to how many foreign rules it holds."""
    docker_is_used: bool
    """Whether chain DOCKER-USER must stay without our hook too: others have rules in it, or send packets to it."""


ABSENT = State({}, ())


def around(document: Document) -> Around:
    """Return the Around of a ruleset; the chains that the kernel makes are there in any."""
    table = document.table(FILTER)
    there = [chain for chain in HOOKED if chain != DOCKER or (table is not None and DOCKER in table.chains)]
    counts = {chain: len(foreign_in(document, chain)) for chain in there}
    rules = [rule.text for chain in table.chains.values() for rule in chain if DOCKER in rule.text] if table else []
    named = any(
        option in ("-j", "-g") and values == [DOCKER] for text in rules for option, values, _negated in options(text)
    )
    return Around(counts, bool(counts.get(DOCKER)) or named)


def read_state(document: Document) -> State:
    """Return the State of a ruleset as it is, ABSENT where nothing of the collection is in it.

    :raises HostError: if a chain with a name of the collection holds rules and nothing shows that the collection made it.
    """
    chains = {
        name: tuple(rule.text.rstrip() for rule in rules)
        for table in filter(None, map(document.table, TABLES))
        for name, rules in table.chains.items()
        if is_own_chain(table.name, name)
    }
    hooks = [hook for chain in HOOKED for hook in _hooks_in(document.table(table_of(chain)), chain)]
    for name in TABLES:
        # Each of its own: chains of somebody else in one do not become ours by what is in the other.
        state = State(chains, tuple(hooks)).of_table(name)
        _check_owner(state.chains, state.hooks)
    return State(chains, tuple(hooks))


def _hooks_in(table: Optional[Table], chain: str) -> List[Hook]:
    hooks, position = [], 0
    for rule in table.rules(chain) if table else ():
        if is_own_rule(chain, rule.text):
            hooks.append(Hook(position, rule.text.rstrip(), chain))
        else:
            position += 1
    return hooks


def _check_owner(chains: Mapping[str, Tuple[str, ...]], hooks: Sequence[Hook]) -> None:
    texts = [text for rules in chains.values() for text in rules] + [hook.text for hook in hooks]
    if texts and not any(has_comment(text) for text in texts):
        raise HostError(
            f"the chain {sorted(chains)[0] if chains else HEAD} exists already and was not made by this collection. "
            "Rename or remove it first: names that begin with PORTKNOCK are used here."
        )


def position_of(state: State, chain: str) -> Optional[int]:
    """Return how many foreign rules stand before the hook of a chain, or None where it has no hook."""
    return next((hook.position for hook in state.hooks if hook.text.endswith("-j " + chain)), None)


def named_by_foreign(document: Document) -> Set[str]:
    """Return the names of the collection's chains that foreign rules send packets to."""
    return {
        values[0]
        for table in filter(None, map(document.table, TABLES))
        for name, rules in table.chains.items()
        if not is_own_chain(table.name, name)
        for rule in rules
        if "PORTKNOCK" in rule.text and not is_own_rule(name, rule.text)
        for option, values, _negated in options(rule.text)
        if option in ("-j", "-g") and values and is_own_chain(table.name, values[0])
    }


def spelled_alike(one: str, other: str) -> bool:
    """Return whether two rules are the same but for what some versions of iptables-save print and others do not.

    Known: a blank at the end (1.8.7 nft), ``-m tcp`` and ``-m udp`` and the full ``--mask`` left out. Comments count: a
    rule with another wording is another rule.
    """
    return one == other or _spelling(one) == _spelling(other)


_FULL_MASKS = [[mask] for mask in FULL_MASK.values()]


def _spelling(text: str) -> Tuple[List[Tuple[str, List[str], bool]], Tuple[Tuple[str, str], ...]]:
    plain = [
        (option, values, negated)
        for option, values, negated in options(text)
        if (option, values) not in (("-m", ["tcp"]), ("-m", ["udp"]))
        and option not in ("--rsource", "--comment")
        and not (option == "--mask" and values[:1] in _FULL_MASKS)
    ]
    return plain, comment_texts(text)


def same_rules(one: Sequence[str], other: Sequence[str]) -> bool:
    """Return whether two chains hold the same rules in the same order."""
    return len(one) == len(other) and all(spelled_alike(*pair) for pair in zip(one, other))


def same_state(one: State, other: State) -> bool:
    """Return whether nothing need be done to get from one State to the other."""
    return (
        set(one.chains) == set(other.chains)
        and _places(one.hooks) == _places(other.hooks)
        and same_rules([hook.text for hook in one.hooks], [hook.text for hook in other.hooks])
        and all(same_rules(rules, other.chains[name]) for name, rules in one.chains.items())
    )


def _places(hooks: Sequence[Hook]) -> List[Tuple[str, int]]:
    return [(hook.chain, hook.position) for hook in hooks]


def same_ids(one: State, other: State) -> bool:
    """Return whether two States hold the same rules by their comments, in the same order, however they are spelled."""
    return _ids(one) == _ids(other)


def _ids(state: State) -> Tuple[Dict[str, List[Any]], List[Any]]:
    chains = {name: [comment_texts(text) for text in rules] for name, rules in state.chains.items()}
    return chains, [(hook.chain, hook.position, comment_texts(hook.text)) for hook in state.hooks]


def _removes_docker(now: State, then: State, others: Around) -> bool:
    """Return whether chain DOCKER-USER goes in a transition."""
    return bool(now.hooks_of(DOCKER) and not then.hooks_of(DOCKER) and not others.docker_is_used)


def around_after(now: State, then: State, others: Around) -> Around:
    """Return what is there of others once a transition was loaded.

    :param others: what is there before it.
    """
    counts = dict(others.counts)
    if then.hooks_of(DOCKER):
        counts.setdefault(DOCKER, 0)
    elif _removes_docker(now, then, others):
        counts.pop(DOCKER, None)
    return others._replace(counts=counts)


def transition(now: State, then: State, others: Around) -> str:
    """Return the text for ``iptables-restore --noflush`` that leads from one State to another, '' for none.

    The tables are two steps. What guards published ports in nat is there before what it takes the place of goes, and stays until
    what takes its place has come.

    :param others: what is there of others. Chain DOCKER-USER is made where it is missing, and goes where nothing else needs it.
    """
    tables = TABLES if same_state(then.of_table(NAT), ABSENT) else TABLES[::-1]
    return "".join(table_transition(name, now.of_table(name), then.of_table(name), others) for name in tables)


def table_transition(table: str, now: State, then: State, others: Around) -> str:
    """Return the text that leads from one State to another in one table, '' for none; both hold what is in that table alone."""
    if same_state(now, then):
        return ""
    changed = [
        name for name, rules in then.chains.items() if name not in now.chains or not same_rules(rules, now.chains[name])
    ]
    gone = [name for name in now.chains if name not in then.chains]
    lines = ["*" + table]
    lines += [f":{name} - [0:0]" for name in changed + gone]
    lines += [f":{DOCKER} - [0:0]"] if then.hooks_of(DOCKER) and DOCKER not in others.counts else []
    lines += [f"-A {name} {text}" for name in changed for text in then.chains[name]]
    for chain in (name for name in HOOKED if table_of(name) == table):
        lines += _hook_lines(now.hooks_of(chain), then.hooks_of(chain), others.counts.get(chain, 0))
    lines += ["-X " + DOCKER] if _removes_docker(now, then, others) else []
    lines += ["-X " + name for name in gone]
    return "\n".join(lines + ["COMMIT", ""])


def _hook_lines(now: Sequence[Hook], then: Sequence[Hook], foreign_count: int) -> List[str]:
    if len(now) == len(then) and all(
        one.position == other.position and spelled_alike(one.text, other.text) for one, other in zip(now, then)
    ):
        return []
    lines = [f"-D {hook.chain} {hook.text}" for hook in now]
    for before, hook in enumerate(then):
        if hook.position >= foreign_count:
            lines.append(f"-A {hook.chain} {hook.text}")
        else:
            lines.append(f"-I {hook.chain} {hook.position + before + 1} {hook.text}")
    return lines


__all__ = (
    "ABSENT", "Around", "Hook", "State", "around", "around_after", "named_by_foreign", "position_of", "read_state",
    "same_ids", "same_state", "table_transition", "transition",
)  # fmt: skip
