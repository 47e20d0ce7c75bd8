# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""No text of an operator's can end a line of what is written from it: rules, units, the daemon's configuration."""

import pytest
from ansible_collections.sesame.portknock.plugins.module_utils._errors import SpecError
from ansible_collections.sesame.portknock.plugins.module_utils._spec.options import spec_from_options
from hypothesis import given
from hypothesis import strategies as st

ENDS = ["a\n", "a\nb", "a\r", "a\x0bb", "a\x0cb", "a\x1cb", "a\x85b", "a\u2028b", "a\u2029b", "\n", "a\0b", '"', "a'b"]
texts = st.text(max_size=12) | st.sampled_from(ENDS)
OPTIONS = {
    "a door's name": lambda text: {"doors": [{"name": text, "knock": ["7000", "3100"], "opens": ["22"]}]},
    "a comment": lambda text: {"allow": [{"port": "80", "comment": text}]},
    "an interface": lambda text: {"trusted_interfaces": ["lo", text]},
    "the daemon's interface": lambda text: {"knockd_interface": text},
    "a source": lambda text: {"trusted_sources": [text]},
    "a port": lambda text: {"allow": [{"port": text}]},
}


@pytest.mark.parametrize("name", sorted(OPTIONS))
@given(texts)
def test_what_is_taken_is_one_line_without_quotes(name, text):
    try:
        spec = spec_from_options(OPTIONS[name](text))
    except SpecError:
        return
    shown = " ".join(
        [door.name for door in spec.doors]
        + [f"{allow.comment} {allow.ports}" for allow in spec.allow]
        + list(spec.trusted_interfaces)
        + [str(source) for source in spec.trusted_sources]
        + [spec.knockd_interface]
    )
    assert len(shown.splitlines()) == 1
    assert shown.isprintable()
    assert "'" not in text and '"' not in text
