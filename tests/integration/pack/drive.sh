# Within machine.sh: installs the package, has systemd run lowport in every way that there is a unit for, and purges it.
# Whatever it says with "wrong" in front is; the last line is "all of it" if it came to its end.

trap 'cp /run/*.log /run/pack/ 2>/dev/null || true' EXIT
wrong() { echo "wrong: $*"; }
expect() { # WHAT WANTED GOT
  if [ "$2" != "$3" ]; then wrong "$1: $3 instead of $2"; fi
}
status() { # FIELD OF PID
  sed -n "s/^$1:\s*//p" "/proc/$2/status"
}
get() { # URL
  curl -sS --max-time 10 -k -o /run/body -w '%{http_code} ' "$1" 2>&1 && cat /run/body
}
code() { curl -sS --max-time 10 -o /dev/null -w '%{http_code}' "$1" 2>&1; }
main() { systemctl show --value -p MainPID "$1"; }
own() { # UNIT LINES: lines of a drop-in
  mkdir -p "/run/systemd/system/$1.d"
  printf '%s\n' "[Service]" "${@:2}" >"/run/systemd/system/$1.d/test.conf"
  systemctl daemon-reload
}
logged() { # UNIT TEXT: a line of the unit's log
  for _ in $(seq 100); do
    if grep -q -- "$2" "/run/$1.log" 2>/dev/null; then return; fi
    sleep 0.1
  done
  wrong "$1 did not log $2"
}
check_served() { # UNIT MODE
  local pid
  pid=$(main "$1")
  expect "$1: the uid" "$user" "$(status Uid "$pid" | cut -f1)"
  for set in CapInh CapPrm CapEff CapAmb; do
    expect "$1: $set" 0000000000000000 "$(status $set "$pid")"
  done
  expect "$1: no_new_privs" 1 "$(status NoNewPrivs "$pid")"
  logged "$1" " privileges given up mode=$2 "
  logged "$1" " sandboxed "
  logged "$1" " broker sandboxed "
  expect "$1: an answer" "200 hello" "$(get http://127.0.0.1/)"
  expect "$1: an app that is root" 502 "$(code http://127.0.0.1/root)"
  # A good configuration is taken over, and a bad one is not.
  sed -i 's/"hi"/"there"/' /etc/lowport/lowport.toml
  systemctl reload "$1"
  for _ in $(seq 100); do
    if [ "$(get http://127.0.0.1/hi)" = "200 there" ]; then break; fi
    sleep 0.1
  done
  expect "$1: an answer after the reload" "200 there" "$(get http://127.0.0.1/hi)"
  sed -i 's/"there"/"hi"/; s/^respond/respnd/' /etc/lowport/lowport.toml
  systemctl reload "$1"
  logged "$1" "reload refused"
  expect "$1: an answer after a bad reload" "200 there" "$(get http://127.0.0.1/hi)"
  sed -i 's/^respnd/respond/' /etc/lowport/lowport.toml
  sleep 3
  expect "$1: it still runs" "$pid 0" "$(main "$1") $(systemctl show --value -p NRestarts "$1")"
  # Nothing that it would rather have was kept from it; but of whom PrivateUsers= makes nobody it cannot know who it is.
  complaints "$1" 'reload refused|is run by root|nobody knows who runs'
}
complaints() { # UNIT ALL-RIGHT
  grep -E ' (WARN|ERROR) ' "/run/$1.log" | grep -vE "$2" | sed "s/^/wrong: $1 says: /" || true
}
stopped() { # UNIT
  systemctl stop lowport.socket "$1"
  logged "$1" drained
  expect "$1: how it ended" success "$(systemctl show --value -p Result "$1")"
  mv "/run/$1.log" "/run/pack/$1.log"
}

ways=(lowport lowport-ambient lowport-root)
for way in "${ways[@]}"; do
  # A watchdog that would bite within the test.
  own "$way.service" "WatchdogSec=2s" "StandardOutput=append:/run/$way.service.log" "StandardError=append:/run/$way.service.log"
done

echo "== installing"
dpkg -i /run/pack/lowport.deb
user=$(id -u lowport)
expect "who lowport is" "lowport lowport /nonexistent" "$(id -un lowport) $(id -gn lowport) $(getent passwd lowport | cut -d: -f6)"
expect "what was started" "" "$(systemctl list-units --no-legend --plain 'lowport*' | grep -v failed || true)"
lowport check --no-ports >/dev/null || wrong "the configuration that comes with it"
man -l /usr/share/man/man1/lowport.1.gz >/dev/null 2>/run/man || wrong "the manual page: $(cat /run/man)"

echo "== apps: one of an ordinary user on port 3000, and one of root on port 3001"
cat >/run/app.toml <<'TEXT'
[server]
http = "127.0.0.1:3000"
[log]
access = "off"
[[route]]
respond = "hello"
TEXT
systemd-run -q --unit=app -p User=daemon lowport run -c /run/app.toml
cat >/run/root-app <<'TEXT'
use IO::Socket::INET;
my $l = IO::Socket::INET->new(Listen => 5, LocalAddr => "127.0.0.1:3001", ReuseAddr => 1) or die;
while (my $c = $l->accept) { while (<$c>) { last if /^\r$/ } print $c "HTTP/1.0 200 OK\r\n\r\nroot"; close $c }
TEXT
systemd-run -q --unit=root-app perl /run/root-app
cat >>/etc/lowport/lowport.toml <<'TEXT'
[[route]]
path = "/root"
to = "http://127.0.0.1:3001"
[[route]]
path = "/hi"
respond = "hi"
TEXT

echo "== lowport.service"
systemctl enable --now lowport.socket
expect "the link" /lib/systemd/system/lowport.socket "$(readlink /etc/systemd/system/sockets.target.wants/lowport.socket)"
expect "started by a connection" "200 hello" "$(get http://127.0.0.1/)"
expect "over IPv6" "200 hello" "$(get 'http://[::1]/')"
check_served lowport.service activated
expect "the bounding set" 0000000000000000 "$(status CapBnd "$(main lowport.service)")"
stopped lowport.service

echo "== with TLS"
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=localhost \
  -addext subjectAltName=DNS:localhost -keyout /etc/lowport/site.key -out /etc/lowport/site.pem 2>/dev/null
chown root:lowport /etc/lowport/site.key
chmod 640 /etc/lowport/site.key
cp /etc/lowport/lowport.toml /run/plain.toml
printf '[[certificate]]\ncert = "site.pem"\nkey = "site.key"\n' >>/etc/lowport/lowport.toml
systemctl start lowport.socket lowport-https.socket
expect "over TLS" "200 hello" "$(get https://127.0.0.1/)"
expect "not over TLS" 308 "$(code http://127.0.0.1/)"
systemctl stop lowport.socket lowport-https.socket lowport.service
rm /run/lowport.service.log
cp /run/plain.toml /etc/lowport/lowport.toml

echo "== lowport.service without a network"
mkdir -p /etc/systemd/system/lowport.service.d
cp /usr/share/doc/lowport/examples/private-network.conf /etc/systemd/system/lowport.service.d/
mkdir -m 755 /run/sock
chown daemon /run/sock
cat >/run/unix.toml <<'TEXT'
[upstream.app]
peers = "unix:/run/sock/app.sock"
[[route]]
upstream = "app"
[[route]]
path = "/hi"
respond = "hi"
TEXT
cp /run/unix.toml /etc/lowport/lowport.toml
cat >/run/unix-app <<'TEXT'
use IO::Socket::UNIX;
my $l = IO::Socket::UNIX->new(Listen => 5, Local => "/run/sock/app.sock") or die;
chmod 0777, "/run/sock/app.sock";
while (my $c = $l->accept) { while (<$c>) { last if /^\r$/ } print $c "HTTP/1.0 200 OK\r\n\r\nhello"; close $c }
TEXT
systemd-run -q --unit=unix-app -p User=daemon perl /run/unix-app
systemctl daemon-reload
systemctl start lowport.socket
expect "an app on a Unix socket" "200 hello" "$(get http://127.0.0.1/)"
if [ "$(readlink "/proc/$(main lowport.service)/ns/net")" = "$(readlink /proc/self/ns/net)" ]; then
  wrong "it has the network of all others"
fi
systemctl stop lowport.socket lowport.service unix-app
complaints lowport.service 'nobody knows who runs'
mv /run/lowport.service.log /run/pack/private-network.log
rm -r /etc/systemd/system/lowport.service.d
systemctl daemon-reload
cp /run/plain.toml /etc/lowport/lowport.toml

for way in ambient:capability root:root; do
  unit=lowport-${way%:*}.service
  echo "== $unit"
  systemctl start "$unit"
  check_served "$unit" "${way#*:}"
  stopped "$unit"
done

echo "== lowport-root.service with an app"
if setpriv --reuid 1 --regid 1 --clear-groups node --version >/dev/null 2>&1; then
  mkdir -p /etc/systemd/system/lowport-root.service.d
  cp /usr/share/doc/lowport/examples/app.conf /etc/systemd/system/lowport-root.service.d/
  systemctl daemon-reload
  cat >/etc/lowport/lowport.toml <<'TEXT'
[app]
command = ["node", "-e", "require('http').createServer((q, s) => s.end('uid ' + process.getuid())).listen(process.env.PORT, '127.0.0.1')"]
dir = "/"
user = "daemon"
port = 3002
TEXT
  systemctl start lowport-root.service
  expect "an app that it starts" "200 uid 1" "$(get http://127.0.0.1/)"
  systemctl stop lowport-root.service
  complaints lowport-root.service 'nothing'
  mv /run/lowport-root.service.log /run/pack/app.log
  rm -r /etc/systemd/system/lowport-root.service.d
  cp /run/plain.toml /etc/lowport/lowport.toml
  systemctl daemon-reload
else
  echo "*** NOT RUN: there is no node that everybody may run ***"
fi

echo "== installing again, over one that runs"
systemctl start lowport.socket
expect "before" 200 "$(code http://127.0.0.1/)"
pid=$(main lowport.service)
dpkg -i /run/pack/lowport.deb
expect "after" 200 "$(code http://127.0.0.1/)"
if [ "$pid" = "$(main lowport.service)" ]; then wrong "the old one runs on"; fi
grep -q 3001 /etc/lowport/lowport.toml || wrong "the configuration is not what it was"

echo "== purging"
systemctl stop app root-app
dpkg -P lowport
mv /run/lowport.service.log /run/pack/purged.log
expect "what runs" "" "$(systemctl list-units --no-legend --plain 'lowport*')"
if id lowport 2>/dev/null; then wrong "the user is there"; fi
# What is on the layer above this machine's files. dpkg keeps books and logs; account files are there, and as they were.
find /run/upper -mindepth 1 ! -type d -printf '%P\n' | sort | while read -r file; do
  case $file in
    var/lib/dpkg/* | var/log/* | var/cache/* | etc/*- | etc/.pwd.lock) ;;
    *) cmp -s "/run/upper/$file" "/run/lower/$file" || wrong "left behind: /$file" ;;
  esac
done
find /run/upper -mindepth 1 -type d -printf '%P\n' | sort | while read -r folder; do
  [ -d "/run/lower/$folder" ] || case $folder in
    var/lib/dpkg/* | var/cache/* | var/log/*) ;;
    *) wrong "left behind: /$folder" ;;
  esac
done
echo "all of it"
