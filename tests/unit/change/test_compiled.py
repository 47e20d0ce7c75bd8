# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What Python compiles at an import from a module's zip file is kept, and what is kept is what was imported."""

import json
import subprocess
import sys
import zipfile

import pytest
from ansible_collections.sesame.portknock.plugins.module_utils._change import compiled as _compiled

PACKAGE = _compiled.__name__.rsplit(".", 2)[0] + "."
OTHER = "A = 1\n\n\ndef twice(number):\n    return 2 * number\n"
PROGRAM = """
import json, marshal, sys
from {package}_change.compiled import compiled, keep_compiled
early = compiled("{package}_change.compiled")
keep_compiled()
keep_compiled()
import json.tool
from {package}_change import other
code = compiled("{package}_change.other")
space = {{}}
exec(marshal.loads(marshal.dumps(code)), space)
loader = other.__spec__.loader
print(json.dumps([early is None, other.twice(4), space["twice"](5), loader.get_source(other.__name__), other.__file__,
                  compiled("json.tool") is None, len([1 for each in sys.meta_path if type(each).__name__ == "_Finder"])]))
"""


@pytest.mark.parametrize("with_packages", [True, False], ids=["packages", "namespace packages"])
def test_the_code_of_an_import_is_kept(tmp_path, with_packages):
    path = tmp_path / "module.zip"
    with zipfile.ZipFile(path, "w") as made:
        folder = PACKAGE.replace(".", "/")
        with open(_compiled.__file__, encoding="utf-8") as stream:
            made.writestr(folder + "_change/compiled.py", stream.read())
        made.writestr(folder + "_change/other.py", OTHER)
        names = (folder + "_change").split("/")
        for depth in range(1, len(names) + 1) if with_packages else ():
            made.writestr("/".join(names[:depth]) + "/__init__.py", "")
        if not with_packages:
            # As zip files that people make have them, and as zipimport wants them for packages without a file.
            for depth in range(1, len(names) + 1):
                made.writestr("/".join(names[:depth]) + "/", "")
    program = "import sys\nsys.path.insert(0, {!r})\n".format(str(path)) + PROGRAM.format(package=PACKAGE)
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", program],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    early, twice, again, source, file, foreign, finders = json.loads(done.stdout.decode())
    assert (early, twice, again, foreign, finders) == (True, 8, 10, True, 1)
    assert source == OTHER
    assert file.startswith(str(path))
