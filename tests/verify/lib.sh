# shellcheck shell=bash
#
# What the scripts/verify-* share: a server in a temporary directory, packages in a
# cache, and an end that leaves nothing behind. To be sourced first; the working
# directory is the repository afterwards.

caller=$PWD

# CDPATH could lead a relative path somewhere else.
CDPATH='' cd -- "$(dirname -- "${BASH_SOURCE[0]}")/../.."

cache=${XDG_CACHE_HOME:-$HOME/.cache}/latchkey-verify
work=''           # the temporary directory
server=''         # process group of the server
job=''            # process group of the command that runs now
draft=''          # packages that are being installed

# --- small things ------------------------------------------------------------

say() { printf '%s\n' "$*"; }

die() { say "scripts/${0##*/}: $*" >&2; exit 2; }

not_run() { say "not run: $*"; exit 3; }

# The comment at the top of the script.
help() {
  sed -n '3,/^$/s/^# \{0,1\}//p' "scripts/${0##*/}"
  exit 0
}

has() { command -v "$1" >/dev/null 2>&1; }

show_log() { [ ! -e "$1" ] || tail -n 40 "$1" | sed 's/^/    /'; }

# absolute PATH: as the caller meant it.
absolute() {
  case $1 in
    '' | /*) printf '%s' "$1" ;;
    *) printf '%s' "$caller/$1" ;;
  esac
}

# Below the ranges that Linux and macOS give to outgoing connections, so that
# no client takes the port between this look and the server's bind.
free_port() {
  local port
  while :; do
    port=$((20000 + RANDOM % 12000))
    (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null || break
  done
  say "$port"
}

# Runs a command until it succeeds, for 15 seconds at most.
wait_until() {
  local tries=150
  until "$@"; do
    [ "$tries" -gt 0 ] || return 1
    tries=$((tries - 1))
    sleep 0.1
  done
}

# --- beginning and end ---------------------------------------------------------

# Finds the server's program, and makes the temporary directory.
begin() {
  binary=$(absolute "${LATCHKEY_BIN:-}")
  : "${binary:=$PWD/target/debug/latchkey}"
  [ -x "$binary" ] || die "there is no program $binary: run cargo build, or name one in LATCHKEY_BIN"

  # The caller's own Latchkey must not configure the one under test.
  unset "${!LATCHKEY_@}" "${!DATABASE_URL@}" "${!REDIS_URL@}" "${!SMTP_URL@}" RUST_LOG NODE_OPTIONS

  trap cleanup EXIT
  trap 'exit 130' INT
  trap 'exit 143' TERM
  trap 'exit 129' HUP

  work=$(mktemp -d "${TMPDIR:-/tmp}/latchkey-verify.XXXXXX")
}

# Runs a command in a process group of its own, and waits: bash answers a signal
# only between foreground commands.
run_job() {
  local code=0
  set -m
  "$@" </dev/null &
  job=$!
  set +m
  wait "$job" || code=$?
  job=''
  return "$code"
}

is_gone() { ! kill -0 -- "-$1" 2>/dev/null; }

# end_group GROUP: fifteen seconds to leave by itself, then no more asking.
end_group() {
  kill -TERM -- "-$1" 2>/dev/null || return 0
  wait_until is_gone "$1" || kill -KILL -- "-$1" 2>/dev/null || true
  wait "$1" 2>/dev/null || true
}

cleanup() {
  local code=$?
  trap '' INT TERM HUP
  trap - EXIT
  set +e
  [ -z "$job" ] || end_group "$job"
  [ -z "$server" ] || end_group "$server"
  [ -z "$draft" ] || rm -rf "$draft"
  [ -z "$work" ] || rm -rf "$work"
  exit "$code"
}

# --- packages ------------------------------------------------------------------

# provide NAME KEY COMMAND...: leaves in $packages a directory in which COMMAND
# has succeeded, now or in an earlier run with the same KEY. COMMAND may find the
# directory in $draft.
provide() {
  local name=$1
  packages=$cache/$name-$(printf '%s\n' "$2" | cksum | tr -d ' ')
  shift 2
  [ ! -d "$packages" ] || return 0
  say "$name: installing its packages"
  mkdir -p -- "$cache"
  draft=$(mktemp -d "$packages.XXXXXX")
  if ! run_job in_draft "$@" >"$work/install.log" 2>&1; then
    show_log "$work/install.log"
    rm -rf "$draft"
    draft=''
    return 1
  fi
  mv -- "$draft" "$packages"
  draft=''
}

in_draft() { cd -- "$draft" && "$@"; }

# npm_packages DIRECTORY: what its lock file names.
npm_packages() {
  cp "$1/package.json" "$1/package-lock.json" . &&
    npm ci --omit=dev --ignore-scripts --no-audit --no-fund
}

# --- the server ----------------------------------------------------------------

# Asking the port instead could be answered by somebody else's server, which
# took it first.
listens_or_is_gone() { grep -q '"listening"' "$work/server.log" || is_gone "$server"; }

# start_server NAME=VALUE...: with these settings. Leaves its public URL in
# $origin; $base is the same without a name to look up.
start_server() {
  local port
  # More than one try: somebody may have taken the port in between.
  for _ in 1 2 3; do
    port=$(free_port)
    : >"$work/server.log"
    origin=http://localhost:$port
    base=http://127.0.0.1:$port
    # A process group of its own, so that Ctrl-C leaves its end to us. The
    # directory is empty: no .env is read.
    mkdir -p "$work/server"
    set -m
    (
      cd -- "$work/server"
      exec env LATCHKEY_PUBLIC_URL="$origin" LATCHKEY_LISTEN="127.0.0.1:$port" LATCHKEY_INTERNAL_LISTEN=off \
        LATCHKEY_LOG=json "$@" "$binary"
    ) </dev/null >"$work/server.log" 2>&1 &
    server=$!
    set +m
    if wait_until listens_or_is_gone && ! is_gone "$server"; then
      say "server: $origin ($binary)"
      return
    fi
    end_group "$server"
    server=''
  done
  show_log "$work/server.log"
  die 'the server does not start'
}
