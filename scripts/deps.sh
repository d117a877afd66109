#!/bin/sh
# Installs the real mail software that the tests and benchmarks talk to, from Debian's packages. Idempotent: when all of
# it is there, it only looks. Nothing is started: policy-rc.d keeps the daemons down, the tests start their own.
set -eu

packages="
postfix dovecot-imapd dovecot-pop3d dovecot-lmtpd
haproxy
swaks libio-socket-ssl-perl libnet-ssleay-perl
curl fetchmail isync neomutt msmtp s-nail getmail6 mpop offlineimap3 sieve-connect
postgresql-15
rspamd opendkim
unbound
python3 iproute2 bsdutils e2fsprogs mount gcc libc6-dev
"

missing=""
for p in $packages; do
	status=$(dpkg-query -W -f '${Status}' "$p" 2>/dev/null || true)
	[ "$status" = "install ok installed" ] || missing="$missing $p"
done
[ -n "$missing" ] || exit 0

if [ "$(id -u)" != 0 ]; then
	echo "make deps: these Debian packages are missing and need root: apt-get install$missing" >&2
	exit 1
fi
if ! command -v apt-get >/dev/null; then
	echo "make deps: the tests need Debian's packages:$missing" >&2
	exit 1
fi

echo "make deps: installing$missing" >&2
export DEBIAN_FRONTEND=noninteractive
made_policy=
if [ ! -e /usr/sbin/policy-rc.d ]; then
	printf '#!/bin/sh\nexit 101\n' > /usr/sbin/policy-rc.d
	chmod 755 /usr/sbin/policy-rc.d
	made_policy=yes
fi
trap '[ -z "$made_policy" ] || rm -f /usr/sbin/policy-rc.d' EXIT
# The tests make database clusters of their own: none is made, and none runs, because of the package.
if [ ! -e /etc/postgresql-common/createcluster.conf ]; then
	mkdir -p /etc/postgresql-common
	echo "create_main_cluster = false" > /etc/postgresql-common/createcluster.conf
fi
echo "postfix postfix/main_mailer_type select No configuration" | debconf-set-selections
# Another apt may be at work, a mirror may stumble, and files that were put there ahead stay as they are.
apt() {
	apt-get -o DPkg::Lock::Timeout=600 -o Acquire::Retries=5 -o Dpkg::Options::=--force-confold "$@"
}
apt update -qq
# shellcheck disable=SC2086
apt install -y -qq --no-install-recommends $missing >/dev/null
