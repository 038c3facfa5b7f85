# What setup.sh and browser.sh share: messages, and system packages where they can be installed.

say() {
    printf '>> %s\n' "$*"
}

fail() {
    printf '!! %s\n' "$@" >&2
    exit 1
}

# apt_install PACKAGE...: false where there is no apt-get, or no way to run it without a password.
apt_install() {
    local root=()
    command -v apt-get >/dev/null || return 1
    if [ "$(id -u)" != 0 ]; then
        sudo -n true 2>/dev/null || return 1
        root=(sudo -n)
    fi
    root+=(env DEBIAN_FRONTEND=noninteractive)
    say "apt-get install $*"
    # a fresh container has no package lists, an old machine may have outdated ones
    "${root[@]}" apt-get install -qq -y --no-install-recommends "$@" >/dev/null 2>&1 && return
    "${root[@]}" apt-get update -qq || return 1
    "${root[@]}" apt-get install -qq -y --no-install-recommends "$@" >/dev/null
}
