// A lowport in front of WebSocket servers.

import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync, chmodSync, openSync, readFileSync } from 'node:fs';
import net from 'node:net';
import os from 'node:os';
import path from 'node:path';

/** Ports that nobody has, all different. */
export async function freePorts(count) {
  const servers = Array.from({ length: count }, () => net.createServer().listen(0, '127.0.0.1'));
  await Promise.all(servers.map((server) => once(server, 'listening')));
  const ports = servers.map((server) => server.address().port);
  await Promise.all(servers.map((server) => new Promise((resolve) => server.close(resolve))));
  return ports;
}

/**
 * Starts `binary` in front of `upstreams`: ports by the first segment of the path, which is taken off. Resolves to its ports,
 * for plaintext and TLS. What it says goes to the file `log`.
 */
export async function startLowport(binary, upstreams, log) {
  const [http, https] = await freePorts(2);
  const folder = mkdtempSync(path.join(os.tmpdir(), 'lowport-autobahn-'));
  // As root it becomes somebody who has to reach the file again for a reload.
  chmodSync(folder, 0o755);
  const file = path.join(folder, 'lowport.toml');
  writeFileSync(file, config(http, https, upstreams));
  const made = 'req -x509 -nodes -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -days 2 -subj /CN=localhost -addext subjectAltName=DNS:localhost';
  execFileSync('openssl', [...made.split(' '), '-keyout', 'key.pem', '-out', 'cert.pem'], { cwd: folder, stdio: 'ignore' });
  const said = openSync(log, 'w');
  const child = spawn(binary, ['run', '-c', file], { stdio: ['ignore', said, said] });
  // However this process ends.
  process.on('exit', () => {
    child.kill('SIGKILL');
    rmSync(folder, { recursive: true, force: true });
  });
  await once(child, 'spawn');
  while (!readFileSync(log, 'latin1').includes(' ready ')) {
    if (child.exitCode !== null) {
      throw new Error(`lowport did not start:\n${readFileSync(log, 'latin1')}`);
    }
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  return { http, https };
}

function config(http, https, upstreams) {
  const head = `[server]
http = "127.0.0.1:${http}"
https = "127.0.0.1:${https}"
redirect_to_https = false
user = "65534:65534"
[[certificate]]
cert = "cert.pem"
key = "key.pem"
`;
  const routes = Object.entries(upstreams).map(
    ([name, port]) => `[upstream.${name}]
peers = "127.0.0.1:${port}"
expect_user = "any"
[[route]]
path = "/${name}"
strip_prefix = "/${name}"
upstream = "${name}"
`,
  );
  return head + routes.join('');
}
