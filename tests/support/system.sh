#!/usr/bin/env bash
# Installs Debian packages that tests and benchmarks drive: `system.sh PACKAGE...`. Says what, and starts nothing.
#
# Debian starts a daemon when its package is installed, and enables it for the next boot. Tests start servers of their
# own, on ports of their own, so both is prevented: a policy-rc.d that refuses (101) while apt runs, and `systemctl disable`
# for the units that came. What was there before, a policy-rc.d too, is as it was afterwards.
set -euo pipefail
[ $# -gt 0 ] || exit 0
policy=${POLICY_RC_D:-/usr/sbin/policy-rc.d}
units=${SYSTEMD_UNITS:-/lib/systemd/system}

as_root=()
if [ "$(id -u)" != 0 ]; then
	if sudo -n true 2>/dev/null || { [ -t 0 ] && command -v sudo >/dev/null; }; then as_root=(sudo); else as_root=(none); fi
fi
if ! command -v apt-get >/dev/null || [ "${as_root[*]}" = none ]; then
	echo "some tests need programs that are missing; install these (Debian names): $*" >&2
	exit 0
fi

echo "installing with apt-get, for tests that drive them: $*"
echo "their daemons are neither started nor enabled; SYSTEM=no leaves this out, and the tests that need them"
log=$(mktemp) kept=$(mktemp -d)
before=$(ls "$units" 2>/dev/null || true)

restore() {
	if [ -e "$kept/policy-rc.d" ]; then "${as_root[@]}" cp -p "$kept/policy-rc.d" "$policy"; else "${as_root[@]}" rm -f "$policy"; fi
	rm -rf "$kept" "$log"
}
if [ -e "$policy" ]; then "${as_root[@]}" cp -p "$policy" "$kept/policy-rc.d"; fi
trap restore EXIT
trap 'exit 130' INT TERM
printf '#!/bin/sh\nexit 101\n' >"$kept/refuse"
"${as_root[@]}" install -m 755 "$kept/refuse" "$policy"

if "${as_root[@]}" apt-get update -qq >"$log" 2>&1 && "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
	apt-get install -y -qq --no-install-recommends "$@" >>"$log" 2>&1; then
	if command -v systemctl >/dev/null; then
		for unit in $(comm -13 <(sort <<<"$before") <(ls "$units" 2>/dev/null | sort)); do
			case $unit in *@.service) ;; *.service) "${as_root[@]}" systemctl disable --quiet "$unit" 2>/dev/null || true ;; esac
		done
	fi
else
	tail -n 5 "$log" >&2
	echo "could not install $*: tests that need them cannot pass" >&2
fi
