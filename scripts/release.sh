#!/bin/sh
# Tags a version: scripts/release.sh VERSION. Runs on main with a clean tree, once CHANGELOG.md has a section
# "## [VERSION] - YYYY-MM-DD" that says something. Sets the version in pyproject.toml, runs `make check`, makes an
# annotated tag vVERSION with that section as its message, and says what to push. It pushes nothing.
set -eu
cd "$(dirname "$0")/.."

fail() {
    printf 'release: %s\n' "$*" >&2
    exit 1
}

version=${1-}
printf '%s\n' "$version" | grep -Eq '^(0|[1-9][0-9]*)\.(0|[1-9][0-9]*)\.(0|[1-9][0-9]*)(-[0-9A-Za-z.-]+)?$' ||
    fail "'$version' is not a version; give one such as 1.2.3: scripts/release.sh 1.2.3"
branch=$(git branch --show-current)
[ "$branch" = main ] || fail "this is ${branch:-no branch}, but versions are tagged on main; git switch main"
[ -z "$(git status --porcelain)" ] || fail "the tree is not clean; commit or stash what git status shows"
! git rev-parse --quiet --verify "refs/tags/v$version" >/dev/null ||
    fail "the tag v$version is there already; choose the next version"

heading=$(grep -F "## [$version]" CHANGELOG.md) ||
    fail "CHANGELOG.md has no section for $version; add the line: ## [$version] - $(date +%F)"
day=${heading#"## [$version] - "}
[ "$(date -d "$day" +%F 2>/dev/null)" = "$day" ] ||
    fail "CHANGELOG.md: '$heading' has no date; write: ## [$version] - $(date +%F)"
notes=$(awk -v heading="$heading" '/^## / { on = 0 } on; $0 == heading { on = 1 }' CHANGELOG.md)
printf '%s\n' "$notes" | grep -q '^- ' || fail "CHANGELOG.md: the section of $version lists nothing; say what a user gets"

trap 'git checkout --quiet -- pyproject.toml' EXIT
sed -i "s/^version = .*/version = \"$version\"/" pyproject.toml
grep -qFx "version = \"$version\"" pyproject.toml || fail "pyproject.toml has no line that begins with 'version = '"
make check || fail "make check fails; nothing was tagged"
git diff --quiet || git commit --quiet --message "Version $version" pyproject.toml
printf 'Version %s\n%s\n' "$version" "$notes" | git tag --annotate --cleanup=whitespace --file=- "v$version"
echo "tagged v$version; to publish it: git push origin main v$version"
