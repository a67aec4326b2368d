//! Containers by podman, which change nothing of the machine's: storage, configuration, mounts and network are the test's own.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::lowport::BINARY;
use super::{copy_program, folder, is_root, node, process, say, skipped, until};

/// What a container of lowport's is started with: it may do nothing, write nothing and become nobody.
pub(crate) const LEAST: [&str; 6] = [
    "--cap-drop",
    "ALL",
    "--read-only",
    "--read-only-tmpfs=false",
    "--security-opt",
    "no-new-privileges",
];
/// A network with nobody else in it, in which everybody may listen on port 80, as Docker has it.
pub(crate) const NETWORK: [&str; 4] = [
    "--network",
    "none",
    "--sysctl",
    "net.ipv4.ip_unprivileged_port_start=0",
];
/// When everything in the images is from, in seconds.
pub(crate) const EPOCH: &str = "1700000000";

/// A storage, and what is made in it. All containers end when it drops.
pub(crate) struct Podman {
    folder: tempfile::TempDir,
    /// Holds the namespaces
    room: Child,
    pub(crate) binary: PathBuf,
}

/// A container that was started.
pub(crate) struct Container<'a> {
    podman: &'a Podman,
    name: String,
    /// Of its PID 1, as this machine sees it
    pub(crate) pid: u32,
}

/// crun looks for its control groups where the machine may have those of two versions, which it does not know what to do
/// with: it gets one version, and uses none. What is mounted here is gone with the namespace.
const ROOM: &str =
    "ip link set lo up && mount -t cgroup2 none /sys/fs/cgroup && echo ready && read -r end";

const CONFIGURATION: &str = r#"
[containers]
cgroups = "disabled"
cgroupns = "host"
default_ulimits = ["nofile=4096:4096", "nproc=4096:4096"]
log_driver = "k8s-file"
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
runtime = "crun"
tmp_dir = "FOLDER/state"
static_dir = "FOLDER/static"
volume_path = "FOLDER/volumes"
"#;

impl Podman {
    /// `None` where there is no podman, no static binary, or no right to namespaces, which is said.
    pub(crate) fn new(test: &str) -> Option<Self> {
        if !is_root() {
            skipped(test, "needs root");
            return None;
        }
        let lacks = |program: &&str| Command::new(program).arg("--version").output().is_err();
        if ["podman", "buildah", "crun"].iter().any(lacks) {
            let how = "apt-get install --no-install-recommends podman buildah crun";
            skipped(
                test,
                &format!("there is no podman, buildah or crun ({how})"),
            );
            return None;
        }
        let Some(binary) = static_binary() else {
            let how = format!("cargo build --locked --target {}", target());
            skipped(test, &format!("there is no static binary ({how})"));
            return None;
        };
        let mut room = Command::new("unshare")
            .args(["--mount", "--net", "sh", "-c", ROOM])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("unshare(1) is there");
        let mut said = String::new();
        let mut out = std::io::BufReader::new(room.stdout.take().expect("piped"));
        let _ = std::io::BufRead::read_line(&mut out, &mut said);
        if said != "ready\n" {
            let _ = room.wait();
            skipped(test, "needs namespaces and control groups of version 2");
            return None;
        }
        let folder = folder();
        let at = folder.path().to_str().expect("UTF-8");
        let storage = format!(
            "[storage]\ndriver = \"overlay\"\ngraphroot = \"{at}/storage\"\nrunroot = \"{at}/run\"\n"
        );
        for (name, text) in [
            ("storage.conf", storage),
            ("containers.conf", CONFIGURATION.replace("FOLDER", at)),
            (
                "registries.conf",
                "unqualified-search-registries = []\n".to_owned(),
            ),
        ] {
            std::fs::write(folder.path().join(name), text).expect("written");
        }
        Some(Self {
            folder,
            room,
            binary,
        })
    }

    /// A program in the namespaces, with this configuration.
    pub(crate) fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        for kind in ["mnt", "net"] {
            let flag = if kind == "mnt" { "mount" } else { kind };
            command.arg(format!("--{flag}=/proc/{}/ns/{kind}", self.room.id()));
        }
        command.arg(program).stdin(Stdio::null()).current_dir("/");
        for name in ["storage", "containers", "registries"] {
            let variable = match name {
                "containers" => "CONTAINERS_CONF".to_owned(),
                _ => format!("CONTAINERS_{}_CONF", name.to_uppercase()),
            };
            let file = self.folder.path().join(format!("{name}.conf"));
            command.env(variable, file);
        }
        // What building runs, it runs without control groups, and in this network.
        command.env("BUILDAH_ISOLATION", "chroot");
        command
    }

    /// Runs podman, which must succeed, and returns what it printed.
    pub(crate) fn run(&self, args: &[&str]) -> String {
        done(self.command("podman").args(args))
    }

    /// Builds the image of the binary the way that users do.
    pub(crate) fn lowport(&self, name: &str) {
        self.lowport_with("buildah", name);
    }

    /// As [`lowport`](Self::lowport), with this program. Returns the image's id, which is a digest of what is in it, and the
    /// digest of its manifest.
    pub(crate) fn lowport_with(&self, builder: &str, name: &str) -> (String, String) {
        let stripped = self.folder.path().join("lowport");
        if !stripped.exists() {
            copy_program(&self.binary, &stripped);
            // Names of functions are most of a debug build. Without strip(1) the image is large, and no worse.
            let _ = Command::new("strip").arg(&stripped).status();
        }
        let script = manifest().join("deploy/image");
        done(
            self.command(script.to_str().expect("UTF-8"))
                .arg(name)
                .env("BINARY", &stripped)
                .env("BUILDER", builder)
                .env("SOURCE_DATE_EPOCH", EPOCH),
        );
        let told = |what| self.run(&["image", "inspect", name, "--format", what]);
        (told("{{.Id}}"), told("{{.Digest}}"))
    }

    /// How many bytes of the image travel: registries hold its layer compressed.
    pub(crate) fn compressed(&self) -> usize {
        let binary = self.folder.path().join("lowport");
        let packed = Command::new("gzip").arg("-c").arg(binary).output();
        packed.expect("gzip runs").stdout.len()
    }

    /// Builds the stand-in for Docker's image of Node, which cannot be had without a network: this machine's own Node and
    /// npm, a shell, and the user `node`.
    pub(crate) fn node(&self) {
        let context = self.folder.path().join("node");
        let made = Command::new("sh")
            .args(["-ec", STAND_IN, "sh"])
            .arg(&context)
            .stdin(Stdio::null())
            .output();
        let made = made.expect("a shell");
        assert!(made.status.success(), "{made:?}");
        self.build(&context.join("Dockerfile"), &context, "node", &[]);
        std::fs::remove_dir_all(&context).expect("removed");
    }

    /// Builds an image of the sample app, by the file of this name in `deploy/node`.
    pub(crate) fn app(&self, dockerfile: &str, name: &str) {
        let context = self.folder.path().join("app");
        if !context.exists() {
            std::fs::create_dir(&context).expect("made");
            node::copy(&node::sample(), &context);
        }
        let file = manifest().join("deploy/node").join(dockerfile);
        let args = ["--build-arg", "NODE_IMAGE=localhost/node"];
        self.build(&file, &context, name, &args);
    }

    fn build(&self, file: &Path, context: &Path, name: &str, args: &[&str]) {
        let mut command = self.command("buildah");
        command
            .args(["build", "--format", "docker", "--quiet", "-t", name, "-f"])
            .arg(file)
            .args(args)
            .arg(context);
        done(&mut command);
    }

    /// Starts a container of this name.
    pub(crate) fn start(&self, name: &str, args: &[&str], image: &[&str]) -> Container<'_> {
        let fixed = ["run", "--detach", "--cgroups=disabled", "--name", name];
        let args: Vec<&str> = [&fixed, args, image].concat();
        self.run(&args);
        let pid = self.run(&["inspect", name, "--format", "{{.State.Pid}}"]);
        Container {
            podman: self,
            name: name.to_owned(),
            pid: pid.parse().expect("a number"),
        }
    }
}

impl Drop for Podman {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let names = self.command("podman").args(["ps", "-aq"]).output();
            let names = names.map(|names| names.stdout).unwrap_or_default();
            for id in String::from_utf8_lossy(&names).lines() {
                let logs = self.command("podman").args(["logs", id]).output();
                eprintln!("--- container {id}: {logs:?}");
            }
        }
        let args = ["rm", "--all", "--force", "--time", "0"];
        let _ = self.command("podman").args(args).output();
        // It reads the end of its input, and the mounts of the storage go with its namespace.
        drop(self.room.stdin.take());
        let _ = self.room.wait();
    }
}

impl Container<'_> {
    /// Runs curl in the container's network, which must succeed, and returns what it printed.
    pub(crate) fn curl(&self, url: &str, args: &[&str]) -> String {
        done(self.begin(url).args(args))
    }

    /// curl in the container's network.
    pub(crate) fn begin(&self, url: &str) -> Command {
        let mut command = Command::new("nsenter");
        command
            .arg(format!("--net=/proc/{}/ns/net", self.pid))
            .args(["curl", "-sS", "--max-time", "30", url])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    /// Runs the health check that the image has: whether it is healthy, and what was said of that.
    pub(crate) fn health(&self) -> (bool, String) {
        let mut podman = self.podman.command("podman");
        let checked = podman.args(["healthcheck", "run", &self.name]).output();
        let checked = checked.expect("podman runs");
        let args = ["inspect", &self.name, "--format", "{{json .State.Health}}"];
        let told: serde_json::Value = serde_json::from_str(&self.podman.run(&args)).expect("JSON");
        let last = told["Log"].as_array().and_then(|log| log.last());
        let said = last.and_then(|last| last["Output"].as_str());
        let said = said.unwrap_or_else(|| panic!("{checked:?}, {told}"));
        (checked.status.success(), said.to_owned())
    }

    /// All that its processes have written.
    pub(crate) fn log(&self) -> String {
        let output = self
            .podman
            .command("podman")
            .args(["logs", &self.name])
            .output();
        let Output { stdout, stderr, .. } = output.expect("podman runs");
        String::from_utf8_lossy(&[stdout, stderr].concat()).into_owned()
    }

    /// Waits for this in the log.
    pub(crate) fn wait_for(&self, text: &str) -> String {
        until(text, || {
            let log = self.log();
            let line = log.lines().find(|line| line.contains(text));
            line.map(str::to_owned)
        })
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.pid as i32), signal).expect("signalled");
    }

    /// Asks it to stop, as `docker stop` does, waits for that, and returns its exit code.
    pub(crate) fn stop(&self) -> String {
        self.podman.run(&["stop", "--time", "25", &self.name]);
        let args = ["inspect", &self.name, "--format", "{{.State.ExitCode}}"];
        self.podman.run(&args)
    }

    /// Its PID 1 and everybody below it.
    pub(crate) fn pids(&self) -> Vec<u32> {
        let mut pids = vec![self.pid];
        let mut at = 0;
        while let Some(pid) = pids.get(at) {
            pids.extend(process::children(*pid));
            at += 1;
        }
        pids
    }
}

/// Runs a command that must succeed, and returns what it printed.
fn done(command: &mut Command) -> String {
    let output = command.output().expect("it starts");
    assert!(output.status.success(), "{command:?}: {output:?}");
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    text.trim_end().to_owned()
}

fn manifest() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn target() -> String {
    format!("{}-unknown-linux-musl", std::env::consts::ARCH)
}

/// The static binary that was built last, beside the one that is tested otherwise; or the one that
/// `LOWPORT_STATIC_BINARY` names.
fn static_binary() -> Option<PathBuf> {
    if let Some(named) = std::env::var_os("LOWPORT_STATIC_BINARY") {
        return Some(named.into());
    }
    let tested = Path::new(BINARY);
    let time = |path: &Path| path.metadata().and_then(|found| found.modified()).ok();
    if tested
        .components()
        .any(|part| *part.as_os_str() == *target())
    {
        return Some(tested.to_owned());
    }
    let folder = tested.parent()?.parent()?.join(target());
    let built = ["release", "debug"].map(|profile| folder.join(profile).join("lowport"));
    let last = built
        .into_iter()
        .filter(|file| file.exists())
        .max_by_key(|file| time(file))?;
    if time(&last) < time(&manifest().join("src/main.rs")) {
        say("*** the static binary is older than the sources ***");
    }
    Some(last)
}

/// Whether what is tested was built to be used, so that its size says something.
pub(crate) fn is_release(binary: &Path) -> bool {
    binary
        .parent()
        .is_some_and(|folder| folder.ends_with("release"))
}

const STAND_IN: &str = r#"
root=$1/root
mkdir -p "$1/home" "$root/etc" "$root/tmp" "$root/usr/local/bin" "$root/usr/local/lib/node_modules"
bring() {
  mkdir -p "$root/$(dirname "$2")"
  cp -L "$1" "$root/$2"
  for library in $(ldd "$1" | grep -o '/[^ ]*'); do
    mkdir -p "$root/$(dirname "$library")"
    test -e "$root/$library" || cp -L "$library" "$root/$library"
  done
}
bring "$(readlink -f "$(command -v node)")" /usr/local/bin/node
for program in /bin/sh /bin/mkdir /usr/bin/env; do bring "$program" "$program"; done
npm=$(dirname "$(dirname "$(readlink -f "$(command -v npm)")")")
cp -r "$npm" "$root/usr/local/lib/node_modules/npm"
ln -s ../lib/node_modules/npm/bin/npm-cli.js "$root/usr/local/bin/npm"
printf 'root:x:0:0::/root:/bin/sh\nnode:x:1000:1000::/home/node:/bin/sh\n' >"$root/etc/passwd"
printf 'root:x:0:\nnode:x:1000:\n' >"$root/etc/group"
chmod 1777 "$root/tmp"
printf 'FROM scratch\nCOPY root /\nCOPY --chown=1000:1000 home /home/node\nENV PATH=/usr/local/bin:/usr/bin:/bin\n' >"$1/Dockerfile"
"#;
