# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# The stage `lint`: every check works on a copy of the tree, so that no tool leaves files in it.
# shellcheck shell=bash

in_copy() {
    # $1 name of the copy  $2... command, run with the lint tools on PATH
    local copy
    copy=$(copy_collection "$1")
    shift
    cd "$copy" || return
    PATH=$LINT_VENV/bin:$PATH ANSIBLE_COLLECTIONS_PATH=${copy%/ansible_collections/*} "$@"
}

shell_scripts() { # the tracked files that bash or sh runs
    local file first
    project_files | while IFS= read -r -d '' file; do
        [[ $file == *.sh ]] && printf '%s\0' "$file" && continue
        IFS= read -r first <"$ROOT/$file" || true
        [[ ! $first =~ ^\#\!.*[/\ ](ba)?sh ]] || printf '%s\0' "$file"
    done
}

lint_shell() {
    cd "$ROOT" || return
    shell_scripts | xargs -0 shellcheck -x -P SCRIPTDIR -P bin/lib
}

lint_python() {
    ruff check --output-format concise .
    ruff format --check .
}

lint_docs() {
    antsibull-docs lint-collection-docs --plugin-docs --skip-rstcheck \
        --validate-collection-refs=self .
}

lint_changelog() {
    antsibull-changelog lint
    antsibull-changelog lint-changelog-yaml changelogs/changelog.yaml
}

galaxy_import() {
    # $1 the tarball. The importer's own ansible-test wants a container engine; ours runs above.
    local venv config=$CACHE/galaxy-importer.cfg
    venv=$(make_venv importer "$CONTROLLER_PYTHON" importer)
    printf '[galaxy-importer]\nRUN_ANSIBLE_TEST = False\nRUN_ANSIBLE_LINT = False\nCHECK_CHANGELOG = True\n' >"$config"
    cd "$CACHE" || return
    PATH=$venv/bin:$PATH GALAXY_IMPORTER_CONFIG=$config \
        python -m galaxy_importer.main "$1" | tee "$CACHE/galaxy-importer.out"
    if grep -E '^(ERROR|WARNING)' "$CACHE/galaxy-importer.out"; then
        say "galaxy-importer has the complaints above."
        return 1
    fi
}

build_tarball() {
    rm -rf "$CACHE/dist"
    PATH=$LINT_VENV/bin:$PATH ansible-galaxy collection build --output-path "$CACHE/dist" "$ROOT"
    python_of_lint "$ROOT/bin/lib/check-tarball.py" "$CACHE"/dist/*.tar.gz
    galaxy_import "$CACHE"/dist/*.tar.gz
}

python_of_lint() { PATH=$LINT_VENV/bin:$PATH python "$@"; }

stage_lint() {
    if ! LINT_VENV=$(make_venv lint "$CONTROLLER_PYTHON" lint 2>"$LOGS/lint-venv.log"); then
        show_failure "lint tools" "$LOGS/lint-venv.log"
        fail_check lint "lint tools" "see ${LOGS#"$ROOT"/}/lint-venv.log"
        return
    fi
    bash "$ROOT/bin/lib/hosts.sh" collection_link >/dev/null
    check_beside lint "shellcheck" lint_shell
    check_beside lint "yamllint" in_copy yamllint yamllint --strict .
    check_beside lint "ruff" in_copy ruff lint_python
    check_beside lint "options, defaults, docs agree" in_copy match \
        python -m pytest -q --noconftest tests/unit/test_docs_match.py
    check_beside lint "antsibull-changelog" in_copy changelog lint_changelog
    sanity_checks
    check_beside lint "ansible-lint, production" in_copy ansible-lint \
        ansible-lint --offline --strict --profile production
    check_beside lint "antsibull-docs" in_copy docs lint_docs
    check_beside lint "tarball and galaxy-importer" build_tarball
    wait_for_checks
}
