# Sourced by the tools that look at this folder's sources: goes to its top, whoever it belongs to.
set -euo pipefail
unset CDPATH
cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."

# show_help "$@" <TEXT: shows the text, and ends, if it is asked for.
show_help() {
  case "${1:-}" in -h | --help) cat; exit 0 ;; esac
}

# no_arguments "$@" <TEXT: the same, for a tool that takes nothing else.
no_arguments() {
  show_help "$@"
  [ -z "${1:-}" ] || { echo "${0##*/}: unknown argument '$1' (see --help)" >&2; exit 2; }
}

# git refuses a checkout that belongs to somebody else; so do the programs that call it.
export GIT_CONFIG_COUNT=1 GIT_CONFIG_KEY_0=safe.directory GIT_CONFIG_VALUE_0=$PWD

# clone_here FOLDER: a clone of the last commit.  git passes the settings above on to no other repository.
clone_here() {
  printf '[safe]\n\tdirectory = *\n' >"$1.gitconfig"
  GIT_CONFIG_GLOBAL=$1.gitconfig git clone -q . "$1"
  rm "$1.gitconfig"
}

# The version of clang and of its tools: the presets' own, or what Debian 14 has instead.
clang_version() { if command -v clang-19 >/dev/null; then echo 19; else echo 22; fi; }

# sources [PATTERN...]: those that are there, committed or not, but for what .gitignore leaves out.
sources() {
  local found
  found=$(git ls-files -z --cached --others --exclude-standard -- "$@" | tr '\0' '\n' | sort -u) || return
  while IFS= read -r file; do
    if [ -f "$file" ]; then printf '%s\n' "$file"; fi
  done <<<"$found"
}
