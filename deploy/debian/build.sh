#!/usr/bin/env bash
# Makes the Debian package of programs that are already built. `cargo xtask package` calls it, and so do tests.
#
#   deploy/debian/build.sh --version 0.1.0-1 --relay-bin FILE --relay-cli FILE --out DIR [--sbom FILE] [--fast]
#
# It needs dpkg-deb and strip, and asks dpkg-shlibdeps, if it is there, which libraries the programs need. The same input
# makes the same package: times are those of SOURCE_DATE_EPOCH. --fast compresses nothing, for tests.
set -euo pipefail
root="$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)"

version='' relay_bin='' relay_cli='' out='' sbom='' compression=xz
while (($#)); do
    case "$1" in
        --version) version="$2"; shift 2 ;;
        --relay-bin) relay_bin="$2"; shift 2 ;;
        --relay-cli) relay_cli="$2"; shift 2 ;;
        --out) out="$2"; shift 2 ;;
        --sbom) sbom="$2"; shift 2 ;;
        --fast) compression=none; shift ;;
        *) echo "build.sh: $1 is not understood" >&2; exit 2 ;;
    esac
done
[[ -n "$version" && -n "$relay_bin" && -n "$relay_cli" && -n "$out" ]] || { sed -n '2,7p' "${BASH_SOURCE[0]}" >&2; exit 2; }

export SOURCE_DATE_EPOCH="${SOURCE_DATE_EPOCH:-$(date +%s)}"
umask 022
stage="$(mktemp --directory)"
trap 'rm -rf "$stage"' EXIT
tree="$stage/tree"
doc="$tree/usr/share/doc/relay"

put() { install -D --mode "$1" "$2" "$tree/$3"; }
packed() { mkdir -p "$(dirname "$tree/$1")" && gzip --best --no-name >"$tree/$1"; }

# --strip-unneeded keeps what a backtrace needs least; symbols stay with whoever built the programs.
for program in relay-bin relay-cli; do
    source="$relay_bin"; [[ $program == relay-bin ]] || source="$relay_cli"
    put 0755 "$source" "usr/bin/$program"
    strip --strip-unneeded --remove-section=.comment --remove-section=.note "$tree/usr/bin/$program"
    # Older programs have no such commands.
    if "$source" man >"$stage/man" 2>/dev/null; then
        packed "usr/share/man/man1/$program.1.gz" <"$stage/man"
        mkdir -p "$tree"/usr/share/{bash-completion/completions,zsh/vendor-completions,fish/vendor_completions.d}
        "$source" completions bash >"$tree/usr/share/bash-completion/completions/$program"
        "$source" completions zsh >"$tree/usr/share/zsh/vendor-completions/_$program"
        "$source" completions fish >"$tree/usr/share/fish/vendor_completions.d/$program.fish"
    fi
done

put 0644 "$root/deploy/debian/relay.toml" etc/relay/relay.toml
put 0644 "$root/deploy/relay.toml" usr/share/doc/relay/examples/relay.toml
for example in alerts.yaml grafana-dashboard.json nginx.conf relay.socket; do
    put 0644 "$root/deploy/$example" "usr/share/doc/relay/examples/$example"
done
# Without its instructions for an installation by hand, and with the path of this one.
sed -e '1,/^$/{/^#/d;/^$/d}' -e 's|/usr/local/bin/relay-bin|/usr/bin/relay-bin|' "$root/deploy/relay.service" >"$stage/relay.service"
put 0644 "$stage/relay.service" usr/lib/systemd/system/relay.service

put 0644 "$root/deploy/debian/copyright" usr/share/doc/relay/copyright
sed 's/^\(.\)/ \1/; s/^$/ ./' <(tail -n +3 "$root/LICENSE") >>"$doc/copyright"
packed usr/share/doc/relay/changelog.gz <"$root/CHANGELOG.md"
packed usr/share/doc/relay/changelog.Debian.gz <<END
relay ($version) unstable; urgency=medium

  * See /usr/share/doc/relay/changelog.gz.

 -- ${MAINTAINER:=relay authors <relay@example.org>}  $(LC_ALL=C date --utc --date "@$SOURCE_DATE_EPOCH" --rfc-email)
END
[[ -z "$sbom" ]] || packed usr/share/doc/relay/sbom.cdx.json.gz <"$sbom"

depends=libc6
if command -v dpkg-shlibdeps >/dev/null; then
    mkdir "$stage/debian" && : >"$stage/debian/control"
    depends="$(cd "$stage" && dpkg-shlibdeps -O tree/usr/bin/relay-bin tree/usr/bin/relay-cli 2>/dev/null)"
    depends="${depends#shlibs:Depends=}"
fi
mkdir "$tree/DEBIAN"
cat >"$tree/DEBIAN/control" <<END
Package: relay
Version: $version
Architecture: $(dpkg --print-architecture)
Maintainer: $MAINTAINER
Installed-Size: $(du --apparent-size --summarize --block-size=1K "$tree" | cut -f1)
Depends: adduser, $depends
Recommends: ca-certificates
Section: net
Priority: optional
Description: store-and-forward relay for end-to-end encrypted messengers
 The relay keeps each encrypted message on disk until the recipient comes
 online, takes it, and says so. It cannot read messages, and knows no users.
 .
 The package contains the server (relay-bin) with a systemd unit, and a client
 for a terminal and for scripts (relay-cli).
END
echo /etc/relay/relay.toml >"$tree/DEBIAN/conffiles"
for script in postinst prerm postrm; do
    install --mode 0755 "$root/deploy/debian/$script" "$tree/DEBIAN/$script"
done
(cd "$tree" && find usr -type f -print0 | sort -z | xargs -0 md5sum >DEBIAN/md5sums)

mkdir -p "$out"
package="$out/relay_${version}_$(dpkg --print-architecture).deb"
dpkg-deb --root-owner-group -Z"$compression" --build "$tree" "$package" >/dev/null
echo "$package"
