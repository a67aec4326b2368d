//! The filter of the app's system calls: what Node does goes on, what no app does is refused.

use serde_json::Value;

use crate::support::client::curl;
use crate::support::lowport::Setup;
use crate::support::process::{child, status};
use crate::support::{Lowport, node, port};

/// Does at `/` what Node apps do, a bit of each, and tells how it went.
const APP: &str = r#"
const { Worker } = require('worker_threads');
const { spawn, execFileSync, fork, spawnSync } = require('child_process');
const cluster = require('cluster');
const dns = require('dns').promises;
const fs = require('fs');
const http = require('http');
const inspector = require('inspector');
const once = (emitter, event) => new Promise((done, failed) => { emitter.once(event, done); emitter.once('error', failed); });

if (process.env.ROLE === 'fork') {
  process.send('forked');
} else if (cluster.isWorker) {
  http.createServer((q, r) => r.end('from the cluster')).listen(0, '127.0.0.1', function () { process.send(this.address().port); });
} else {
  const get = (port) => new Promise((done, failed) => http.get({ port, host: '127.0.0.1' }, (r) => {
    let text = ''; r.on('data', (d) => text += d).on('end', () => done(text));
  }).on('error', failed));
  const tries = {
    async thread() {
      return await once(new Worker("require('worker_threads').parentPort.postMessage('threaded')", { eval: true }), 'message');
    },
    async spawn() {
      const child = spawn('sh', ['-c', 'echo spawned']);
      let text = ''; child.stdout.on('data', (d) => text += d);
      await once(child, 'close');
      return text.trim();
    },
    async exec() { return execFileSync(process.execPath, ['-p', '"exe" + "cuted"']).toString().trim(); },
    async fork() { return await once(fork(__filename, [], { env: { ...process.env, ROLE: 'fork' } }), 'message'); },
    async cluster() {
      const worker = cluster.fork();
      const answer = await get(await once(worker, 'message'));
      worker.kill();
      return answer;
    },
    async dns() { return (await dns.lookup('localhost', { family: 4 })).address; },
    async fs() {
      const folder = fs.mkdtempSync(require('os').tmpdir() + '/lowport-app-');
      const watched = once(fs.watch(folder), 'change');
      await fs.promises.writeFile(folder + '/a', 'written');
      await watched;
      spawnSync('mkfifo', [folder + '/pipe']);
      fs.statSync(folder + '/pipe');
      const text = await fs.promises.readFile(folder + '/a', 'utf8');
      fs.rmSync(folder, { recursive: true });
      return text;
    },
    async inspector() {
      inspector.open(0, '127.0.0.1');
      const answer = await get(+new URL(inspector.url()).port);
      if (!answer.startsWith('WebSockets')) throw new Error(answer);
      inspector.close();
      const session = new inspector.Session();
      session.connect();
      return await new Promise((done, failed) => session.post('Runtime.evaluate', { expression: '6 * 7' },
        (error, { result }) => error ? failed(error) : done(result.value)));
    },
    async compiled() {
      const bytes = Uint8Array.from([0, 97, 115, 109, 1, 0, 0, 0, 1, 5, 1, 96, 0, 1, 127, 3, 2, 1, 0, 7, 5, 1, 1, 97, 0, 0, 10, 6, 1, 4, 0, 65, 7, 11]);
      return (await WebAssembly.instantiate(bytes)).instance.exports.a();
    },
    async namespace() { return spawnSync('unshare', ['-U', 'true']).status; },
    async mode() { return +/Seccomp:\s*(\d)/.exec(fs.readFileSync('/proc/self/status', 'utf8'))[1]; },
  };
  http.createServer(async (q, r) => {
    const told = {};
    for (const [name, attempt] of Object.entries(tries)) {
      try { told[name] = await attempt(); } catch (error) { told[name] = String(error); }
    }
    r.end(JSON.stringify(told));
  }).listen(process.env.PORT, '127.0.0.1');
}
"#;

/// What the app tells, and its supervisor's filters.
fn told(keys: &str, args: &[&str]) -> (Value, String) {
    let folder = node::script(APP);
    let rest = format!(
        "[app]\ncommand = [\"node\", \"server.js\"]\ndir = \"{}\"\nport = {}\n{}{keys}\n",
        folder.path().display(),
        port(),
        node::app_user()
    );
    let lowport = Lowport::with(&Setup {
        server: "redirect_to_https = false",
        rest: &rest,
        args,
    });
    lowport.wait_for("app ready in");
    let text = curl(&lowport, "/", &[]);
    let value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
    let supervisor = child(lowport.pid(), "lowport-app");
    (value, status(supervisor, "Seccomp").expect("it runs"))
}

#[test]
fn what_node_does_goes_on_and_no_namespace_is_made() {
    let own = status(std::process::id(), "Seccomp").expect("a status");
    for (keys, args, filtered) in [
        ("", &[][..], true),
        ("sandbox = false", &[], false),
        ("", &["--no-sandbox"], false),
    ] {
        let (told, supervisor) = told(keys, args);
        for (name, expected) in [
            ("thread", "threaded"),
            ("spawn", "spawned"),
            ("exec", "executed"),
            ("fork", "forked"),
            ("cluster", "from the cluster"),
            ("dns", "127.0.0.1"),
            ("fs", "written"),
        ] {
            assert_eq!(told[name], expected, "{name}, {keys} {args:?}: {told}");
        }
        assert_eq!(
            (&told["inspector"], &told["compiled"]),
            (&42.into(), &7.into()),
            "{told}"
        );
        let mode = if filtered { "2" } else { own.as_str() };
        assert_eq!(supervisor, mode, "{keys} {args:?}");
        assert_eq!(told["mode"].to_string(), mode, "{keys} {args:?}");
        if filtered {
            assert_ne!(told["namespace"], 0, "{told}");
        }
    }
}
