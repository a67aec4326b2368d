// Who this process runs as, which is what the whole exercise is about.

import fs from 'node:fs';
import os from 'node:os';

/**
 * The user, the groups and the privileges of this process.
 * Read anew on each call: a process may change its user after it has started.
 */
export function identity() {
  const uid = process.getuid?.() ?? null;
  const euid = process.geteuid?.() ?? null;
  return {
    uid,
    gid: process.getgid?.() ?? null,
    groups: process.getgroups?.() ?? [],
    user: userName(),
    root: uid === 0 || euid === 0,
    ...kernelView(),
  };
}

/** One line for logs: `node (uid 1000, gid 1000)`. */
export function describe(me) {
  return `${me.user ?? 'a user without a name'} (uid ${me.uid}, gid ${me.gid})`;
}

/** Containers often run under a uid that no passwd file names; Node throws then. */
function userName() {
  try {
    return os.userInfo().username;
  } catch {
    return null;
  }
}

/**
 * What only Linux tells. A uid other than 0 is not the whole truth: capabilities
 * are pieces of root, and `noNewPrivs` says that no setuid program gives them back.
 */
function kernelView() {
  try {
    const status = fs.readFileSync('/proc/self/status', 'utf8');
    const field = (name) => status.match(new RegExp(`^${name}:\\s*(\\S+)`, 'm'))?.[1];
    return {
      capabilities: field('CapEff')?.replace(/^0+(?=.)/, '') ?? null,
      noNewPrivs: field('NoNewPrivs') === '1',
    };
  } catch {
    return { capabilities: null, noNewPrivs: null };
  }
}
