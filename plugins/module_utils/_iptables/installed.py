# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What of a table is ours, and how to get from one state of it to another. Pure.

A State holds only our chains and where our hooks stand among the foreign rules of INPUT, so a change and
its undo are the same function with its arguments swapped, and no foreign rule is ever in the text.
"""

from typing import NamedTuple, Tuple

from ansible_collections.sesame.portknock.plugins.module_utils._errors import HostError
from ansible_collections.sesame.portknock.plugins.module_utils._iptables.chains import CHAIN, HEAD
from ansible_collections.sesame.portknock.plugins.module_utils._iptables.comments import comment_texts, has_comment
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.rule_text import options

Hook = NamedTuple("Hook", [("place", int), ("text", str)])
"""place: how many foreign rules of INPUT stand before it."""

State = NamedTuple("State", [("chains", dict), ("hooks", Tuple[Hook, ...])])

ABSENT = State({}, ())


def is_ours(chain, text):
    """Tell whether a rule is ours: it is in a chain of ours, or it hooks one into INPUT."""
    return bool(CHAIN.match(chain)) or (chain == "INPUT" and _hooks(text))


def _hooks(text):
    if "PORTKNOCK" not in text and "portknock:" not in text:
        return False
    return any(
        option in ("-j", "-g") and values and CHAIN.match(values[0]) for option, values, _negated in options(text)
    )


def foreign_rules(table):
    """Return the rules of INPUT that are not ours, in their order."""
    return [rule for rule in table.rules("INPUT") if not is_ours("INPUT", rule.text)] if table else []


def read_state(table):
    """Return the State of a table as it is, or ABSENT where there is no such table.

    :raises HostError: if a chain with our name holds rules and nothing shows that we made it.
    """
    if table is None:
        return ABSENT
    chains = {
        name: tuple(rule.text.rstrip() for rule in rules) for name, rules in table.chains.items() if CHAIN.match(name)
    }
    hooks, place = [], 0
    for rule in table.rules("INPUT"):
        if is_ours("INPUT", rule.text):
            hooks.append(Hook(place, rule.text.rstrip()))
        else:
            place += 1
    _check_owner(chains, hooks)
    return State(chains, tuple(hooks))


def _check_owner(chains, hooks):
    texts = [text for rules in chains.values() for text in rules] + [hook.text for hook in hooks]
    if texts and not any(has_comment(text) for text in texts):
        raise HostError(
            "the chain {0} is there already and was not made by this collection. Rename or remove it first: "
            "names that begin with PORTKNOCK are used here.".format(sorted(chains)[0] if chains else HEAD)
        )


def place_of(state, chain):
    """Return how many foreign rules stand before the hook of a chain, or None where it has no hook."""
    return next((hook.place for hook in state.hooks if hook.text.endswith("-j " + chain)), None)


def named_by_foreign(table):
    """Return the names of our chains that foreign rules send packets to."""
    return {
        values[0]
        for name, rules in table.chains.items()
        if not CHAIN.match(name)
        for rule in rules
        if "PORTKNOCK" in rule.text and not is_ours(name, rule.text)
        for option, values, _negated in options(rule.text)
        if option in ("-j", "-g") and values and CHAIN.match(values[0])
    }


def spelled_alike(one, other):
    """Tell whether two rules are the same but for what some versions of iptables-save print and others do not.

    Known: a blank at the end (1.8.7 nft), ``-m tcp`` and ``-m udp`` and the full ``--mask`` left out.
    """
    return one == other or _spelling(one) == _spelling(other)


def _spelling(text):
    return [
        (option, values, negated)
        for option, values, negated in options(text)
        if (option, values) not in (("-m", ["tcp"]), ("-m", ["udp"]))
        and option not in ("--rsource", "--comment")
        and not (
            option == "--mask" and values[:1] in (["255.255.255.255"], ["ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"])
        )
    ] + [comment_texts(text)]


def same_rules(one, other):
    """Tell whether two chains hold the same rules in the same order."""
    return len(one) == len(other) and all(spelled_alike(*pair) for pair in zip(one, other))


def same_state(one, other):
    """Tell whether nothing need be done to get from one State to the other."""
    return (
        set(one.chains) == set(other.chains)
        and [hook.place for hook in one.hooks] == [hook.place for hook in other.hooks]
        and same_rules([hook.text for hook in one.hooks], [hook.text for hook in other.hooks])
        and all(same_rules(rules, other.chains[name]) for name, rules in one.chains.items())
    )


def same_ids(one, other):
    """Tell whether two States hold the same rules by their ids, in the same order, however they are spelled."""
    return _ids(one) == _ids(other)


def _ids(state):
    chains = {name: [comment_texts(text) for text in rules] for name, rules in state.chains.items()}
    return chains, [(hook.place, comment_texts(hook.text)) for hook in state.hooks]


def transition(now, then, foreign_count):
    """Return the text for ``iptables-restore --noflush`` that leads from one State to another, '' for none.

    :param foreign_count: how many foreign rules INPUT holds.
    """
    if same_state(now, then):
        return ""
    changed = [
        name for name, rules in then.chains.items() if name not in now.chains or not same_rules(rules, now.chains[name])
    ]
    gone = [name for name in now.chains if name not in then.chains]
    lines = ["*filter"]
    lines += [":{0} - [0:0]".format(name) for name in changed + gone]
    lines += ["-A {0} {1}".format(name, text) for name in changed for text in then.chains[name]]
    lines += _hook_lines(now.hooks, then.hooks, foreign_count)
    lines += ["-X " + name for name in gone]
    return "\n".join(lines + ["COMMIT", ""])


def _hook_lines(now, then, foreign_count):
    if len(now) == len(then) and all(a.place == b.place and spelled_alike(a.text, b.text) for a, b in zip(now, then)):
        return []
    lines = ["-D INPUT " + hook.text for hook in now]
    for before, hook in enumerate(then):
        if hook.place >= foreign_count:
            lines.append("-A INPUT " + hook.text)
        else:
            lines.append("-I INPUT {0} {1}".format(hook.place + before + 1, hook.text))
    return lines


__all__ = (
    "ABSENT",
    "Hook",
    "State",
    "foreign_rules",
    "is_ours",
    "named_by_foreign",
    "place_of",
    "read_state",
    "same_ids",
    "same_rules",
    "same_state",
    "spelled_alike",
    "transition",
)
