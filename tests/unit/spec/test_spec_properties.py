# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Options to a Spec, whatever they are: no message holds a step, and many doors are read quickly."""

import re
from time import process_time

from ansible_collections.sesame.portknock.plugins.module_utils._errors import SpecError
from ansible_collections.sesame.portknock.plugins.module_utils._spec.options import spec_from_options
from hypothesis import given
from hypothesis import strategies as st


def two(first, second):
    return {"doors": [{"name": "a", "knock": first, "opens": ["22"]}, {"name": "b", "knock": second, "opens": ["80"]}]}


# No message may hold a step. Steps from 10000 on are five digits that nothing else here has.

steps = st.integers(10000, 70000).flatmap(
    lambda port: st.sampled_from(
        ["{0}", "{0}/udp", "{0}/tcp", "{0}/icmp", "0{0}", "{0}-65535", "{0} ", "{0},1", "x{0}", "-{0}"]
    ).map(lambda text: text.format(port))
)
knocks = st.lists(steps, max_size=9)


@given(first=knocks, second=knocks, close=knocks, opens=st.sampled_from(["22", "10000-60000", "10000-65535/udp", "1"]),
       allowed=st.sampled_from(["80", "9999-65535"]), name=st.sampled_from(["b", "a"]))  # fmt: skip
def test_no_message_holds_a_step(first, second, close, opens, allowed, name):
    options = {
        "doors": [
            {"name": "a", "knock": first, "close": close, "opens": ["23"]},
            {"name": name, "knock": second, "opens": [opens]},
        ],
        "allow": [{"port": allowed}],
    }
    try:
        spec_from_options(options)
    except SpecError as error:
        message = str(error)
        for step in first + second + close:
            digits = re.search(r"[1-9][0-9]{4}", step).group(0)
            assert digits in ("65535", "10000", "60000") or digits not in message


neighbours = st.lists(st.integers(11000, 11012).map(str), min_size=2, max_size=4)


@given(first=neighbours, second=neighbours)
def test_no_message_about_scans_and_clashes_holds_a_step(first, second):
    said = ""
    try:
        spec_from_options(two(first, second))
    except SpecError as error:
        said = str(error)
    assert not [step for step in first + second if step in said]


def test_many_doors_are_read_quickly():
    """Every check is linear or nearly so; ten times the doors must not cost a hundred times."""

    def seconds(count):
        items = [
            {"name": "d{0}".format(n), "knock": [str(20000 + n), str(40000 - n), str(50000 + n)], "opens": [str(1 + n)]}
            for n in range(count)
        ]
        best = []
        for _turn in range(3):
            start = process_time()
            spec_from_options({"doors": items})
            best.append(process_time() - start)
        return min(best)

    assert seconds(2000) < 40 * seconds(200)
