// A lowport with its access log at hand.

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { rmSync } from 'node:fs';
import fs from 'node:fs/promises';
import net from 'node:net';
import os from 'node:os';
import path from 'node:path';
import readline from 'node:readline';

/** A running lowport; what it logged is kept by client. */
export class Lowport {
  #child;
  #folder;
  #entries = new Map();
  #noise = [];
  port;

  /** Starts `binary` in front of an app at `plain`, and one that takes WebSockets at `upgrades`. */
  static async start(binary, plain, upgrades) {
    const lowport = new Lowport();
    lowport.port = await freePort();
    lowport.#folder = await fs.mkdtemp(path.join(os.tmpdir(), 'lowport-differential-'));
    // As root it becomes somebody who has to reach the file again for a reload.
    await fs.chmod(lowport.#folder, 0o755);
    const file = path.join(lowport.#folder, 'lowport.toml');
    await fs.writeFile(file, config(lowport.port, plain, upgrades));
    const child = spawn(binary, ['run', '-c', file], { stdio: ['ignore', 'pipe', 'pipe'] });
    lowport.#child = child;
    // However this process ends.
    process.on('exit', () => {
      child.kill('SIGKILL');
      rmSync(lowport.#folder, { recursive: true, force: true });
    });
    child.on('error', (error) => lowport.#noise.push(String(error)));
    readline.createInterface({ input: child.stdout }).on('line', (line) => lowport.#take(line));
    const said = readline.createInterface({ input: child.stderr });
    const ready = new Promise((resolve) => {
      said.on('line', (line) => {
        lowport.#noise.push(line);
        if (line.includes(' ready ')) {
          resolve();
        }
      });
    });
    await Promise.race([ready, once(child, 'close')]);
    if (child.exitCode !== null || child.pid === undefined) {
      throw new Error(`lowport did not start:\n${lowport.#noise.join('\n')}`);
    }
    return lowport;
  }

  /** What it said besides the access log. */
  get noise() {
    return this.#noise;
  }

  get isRunning() {
    return this.#child.exitCode === null && this.#child.signalCode === null;
  }

  /** What it logged of a client, in order. */
  entries(client) {
    return this.#entries.get(client) ?? [];
  }

  forget(client) {
    this.#entries.delete(client);
  }

  async stop() {
    if (this.isRunning) {
      this.#child.kill('SIGKILL');
      await once(this.#child, 'close');
    }
  }

  #take(line) {
    const entry = JSON.parse(line);
    const list = this.#entries.get(entry.client);
    if (list) {
      list.push(entry);
    } else {
      this.#entries.set(entry.client, [entry]);
    }
  }
}

async function freePort() {
  const server = net.createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address();
  server.close();
  await once(server, 'close');
  return port;
}

function config(port, plain, upgrades) {
  return `[server]
http = "127.0.0.1:${port}"
user = "65534:65534"
workers = 1
[log]
format = "json"
[upstream.plain]
peers = "127.0.0.1:${plain}"
expect_user = "any"
[upstream.upgrades]
peers = "127.0.0.1:${upgrades}"
expect_user = "any"
[[route]]
upstream = "plain"
[[route]]
path_regex = "/w.*"
upstream = "upgrades"
`;
}
