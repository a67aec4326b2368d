// The suite's two ends: a client that tries a server, and a server that tries whoever connects.

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import fs from 'node:fs/promises';
import net from 'node:net';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';

/** How long one of them may run, in ms: many times what a group of cases takes on a busy machine. */
const PATIENCE = 3600_000;

/** What each case came to, by way: `{ way: { case: { behavior, behaviorClose } } }`. Nothing if the suite ended early. */
async function verdicts(folder) {
  try {
    return JSON.parse(await fs.readFile(path.join(folder, 'index.json')));
  } catch {
    return {};
  }
}

/** Tries the servers at `urls`, which are by way, one after the other. */
export async function tryServers(wstest, cases, folder, urls) {
  const servers = Object.entries(urls).map(([agent, url]) => ({ agent, url }));
  const suite = await start(wstest, 'fuzzingclient', folder, { servers, cases });
  if (suite.exitCode === null) {
    await once(suite, 'close');
  }
  return verdicts(folder);
}

/** Tries what `talk` has connect, once a case, to `url(way)` with the path and query that it is given. */
export async function tryClients(wstest, cases, folder, port, ways, talk) {
  const suite = await start(wstest, 'fuzzingserver', folder, { url: `ws://127.0.0.1:${port}`, cases });
  while (!(await answers(port))) {
    await sleep(50);
    if (suite.exitCode !== null) {
      return {};
    }
  }
  const count = Number(await talk('direct', '/getCaseCount'));
  for (const way of ways) {
    for (let number = 1; number <= count; number++) {
      await talk(way, `/runCase?case=${number}&agent=${way}`);
    }
  }
  await talk('direct', '/updateReports?agent=direct');
  suite.kill();
  return verdicts(folder);
}

async function start(wstest, mode, folder, spec) {
  await fs.mkdir(folder, { recursive: true });
  const file = path.join(folder, 'spec.json');
  await fs.writeFile(file, JSON.stringify({ outdir: folder, ...spec }));
  const log = await fs.open(path.join(folder, 'log'), 'w');
  const suite = spawn(wstest, ['--mode', mode, '--spec', file, '--webport', '0'], { stdio: ['ignore', log.fd, log.fd] });
  // However this process ends.
  process.on('exit', () => suite.kill('SIGKILL'));
  setTimeout(() => suite.kill('SIGKILL'), PATIENCE).unref();
  await once(suite, 'spawn');
  await log.close();
  return suite;
}

/** Whether somebody listens on `port`. */
function answers(port) {
  return new Promise((resolve) => {
    const socket = net.connect(port, '127.0.0.1');
    socket.on('connect', () => {
      socket.destroy();
      resolve(true);
    });
    socket.on('error', () => resolve(false));
  });
}
