# Sourced by the tools that look at this folder's sources: goes to its top, whoever it belongs to.
set -euo pipefail
unset CDPATH
cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."

# git refuses a checkout that belongs to somebody else; so do the programs that call it.
export GIT_CONFIG_COUNT=1 GIT_CONFIG_KEY_0=safe.directory GIT_CONFIG_VALUE_0=$PWD

# sources PATTERN...: those that are there, committed or not, but for what .gitignore leaves out.
sources() {
  local found
  found=$(git ls-files --cached --others --exclude-standard -- "$@" | sort -u) || return
  while read -r file; do
    if [ -e "$file" ]; then printf '%s\n' "$file"; fi
  done <<<"$found"
}
