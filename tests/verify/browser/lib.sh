# shellcheck shell=bash
#
# A Chromium and what drives it, for the scripts/verify-* that look at pages. To be
# sourced after tests/verify/lib.sh.

find_chromium() {
  browser=$(command -v chromium || command -v chromium-browser || command -v google-chrome ||
    command -v google-chrome-stable)
}

provide_chromium() {
  find_chromium && return
  [ "$(id -u)" = 0 ] && [ -e /etc/debian_version ] && has apt-get || return 1
  say 'chromium: not on this machine, installing it with apt-get'
  if ! run_job apt_install >"$work/apt.log" 2>&1; then
    show_log "$work/apt.log"
    return 1
  fi
  find_chromium
}

apt_install() {
  apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends chromium
}

# Leaves the browser in $browser and playwright-core in $packages.
provide_browser() {
  local source=$PWD/tests/verify/browser
  if ! has npm || ! node -e 'process.exit(parseInt(process.versions.node) < 20 ? 1 : 0)' >/dev/null 2>&1; then
    not_run 'node with npm is missing (20 or later)'
  fi
  provide_chromium || not_run 'chromium is missing'
  provide browser "$(cat "$source/package-lock.json")" npm_packages "$source" || {
    say 'browser: FAILED (playwright-core cannot be installed)'
    exit 1
  }
}

# browse NAME ARGUMENTS...: runs tests/verify/NAME/check.mjs.
browse() {
  # Node looks for packages beside the file.
  mkdir "$work/check" "$work/home"
  cp -R tests/verify/browser "tests/verify/$1" "$work/check/"
  ln -s "$packages/node_modules" "$work/check/node_modules"
  run_job drive "$@"
}

# The browser writes to more places of its user's than its profile.
drive() {
  local script=$work/check/$1/check.mjs
  shift
  HOME=$work/home XDG_CONFIG_HOME=$work/home XDG_CACHE_HOME=$work/home TMPDIR=$work exec node "$script" "$@"
}
