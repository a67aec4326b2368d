//! The supervisor's loop: start, wait, report, start again.

use std::pin::pin;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;
use tokio::net::unix::OwnedWriteHalf;
use tokio::time::{Instant, sleep};

use super::listening::{hint, opens, share};
use super::output::Console;
use super::running::{App, Running};
use super::state::AppState;
use super::supervisor::AppSpec;
use super::wire::{Lines, Report, stop_of};
use crate::config::AppAddr;

/// How long the app has to end when the proxy is gone without a word.
const ORPHANED: Duration = Duration::from_secs(2);
/// How long an app may take to listen before that is worth a word.
const SLOW: Duration = Duration::from_secs(5);

/// Keeps the app running until the other end of `socket` says stop or is gone; then stops it.
pub(super) async fn supervise(app: &App, console: Console, socket: UnixStream) {
    let (read, write) = socket.into_split();
    let (mut orders, mut reports) = (Lines::new(read), Reports(write));
    let (running, deadline) = keep_running(app, &console, &mut orders, &mut reports).await;
    if let Some(running) = running {
        running.stop(deadline, gone(&mut orders)).await;
    }
}

async fn keep_running(
    app: &App,
    console: &Console,
    orders: &mut Lines,
    reports: &mut Reports,
) -> (Option<Running>, Duration) {
    let mut stop = pin!(told_to_stop(orders));
    let mut backoff = Backoff::new(app.spec.longest_pause);
    loop {
        let attempt = backoff.attempt();
        reports.state(AppState::Starting { attempt }).await;
        let (end, stderr, worked) = match Running::start(app, console).await {
            Ok(mut running) => {
                let worked = tokio::select! {
                    deadline = &mut stop => return (Some(running), deadline),
                    worked = attend(&mut running, &app.spec, reports) => worked,
                };
                let (end, stderr) = running.bury().await;
                (end, stderr, worked)
            }
            Err(end) => (end, Vec::new(), Duration::ZERO),
        };
        let restart_in = backoff.after(worked);
        reports
            .state(AppState::Exited {
                end,
                stderr,
                restart_in,
            })
            .await;
        tokio::select! {
            deadline = &mut stop => return (None, deadline),
            () = sleep(restart_in) => {}
        }
    }
}

/// Waits until the app ends and reports when it is ready; returns for how long it was.
async fn attend(running: &mut Running, spec: &AppSpec, reports: &mut Reports) -> Duration {
    let mut exited = pin!(running.exited());
    let mut opens = pin!(opens(&spec.listens));
    let mut slow = pin!(sleep(SLOW));
    let (mut ready, mut hinted) = (None::<Instant>, false);
    loop {
        tokio::select! {
            biased;
            () = &mut exited => return ready.map_or(Duration::ZERO, |since| since.elapsed()),
            () = &mut opens, if ready.is_none() => {
                ready = Some(Instant::now());
                if let (AppAddr::Socket(path), Some(user)) = (&spec.listens, &spec.user)
                    && let Err(error) = share(path)
                {
                    let path = path.display();
                    let note = format!("{path} cannot be opened to others than {user}: {error}");
                    reports.send(&Report::Note(note)).await;
                }
                reports.state(AppState::Ready).await;
            }
            () = &mut slow, if ready.is_none() && !hinted => {
                hinted = true;
                reports.send(&Report::Note(hint(&spec.listens).await)).await;
            }
        }
    }
}

/// The deadline that the proxy sets, or the one for when it is gone.
async fn told_to_stop(orders: &mut Lines) -> Duration {
    while let Ok(Some(line)) = orders.next().await {
        if let Some(deadline) = stop_of(&line) {
            return deadline;
        }
    }
    ORPHANED
}

/// Some time after the proxy is gone, whatever it said before.
async fn gone(orders: &mut Lines) {
    while let Ok(Some(_)) = orders.next().await {}
    sleep(ORPHANED).await;
}

/// The way to the proxy.
struct Reports(OwnedWriteHalf);

impl Reports {
    async fn state(&mut self, state: AppState) {
        self.send(&Report::State(state)).await;
    }

    async fn send(&mut self, report: &Report) {
        // When nobody is there to read it, `told_to_stop` knows too.
        let _ = self.0.write_all(report.to_line().as_bytes()).await;
    }
}

/// How long to wait before the next start.
#[derive(Debug)]
struct Backoff {
    failures: u32,
    longest: Duration,
}

impl Backoff {
    const FIRST: Duration = Duration::from_millis(100);
    /// An app that was ready for so long has worked: whatever ended it is a new story.
    const WORKED: Duration = Duration::from_secs(10);

    fn new(longest: Duration) -> Self {
        Self {
            failures: 0,
            longest,
        }
    }

    /// Which try the next start is, from 1.
    fn attempt(&self) -> u32 {
        self.failures + 1
    }

    /// After a run that was ready for `worked`.
    fn after(&mut self, worked: Duration) -> Duration {
        if worked >= Self::WORKED {
            self.failures = 0;
        }
        let wait = Self::FIRST.saturating_mul(2_u32.saturating_pow(self.failures));
        self.failures = self.failures.saturating_add(1);
        wait.min(self.longest)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::net::TcpListener;

    use nix::errno::Errno;
    use nix::sys::signal::kill;
    use nix::unistd::Pid;
    use tokio::sync::mpsc;
    use tokio::task::JoinHandle;

    use super::super::output::Stream;
    use super::super::state::End;
    use super::super::wire::stop_line;
    use super::*;

    const SERVER: &str = "require('http').createServer((q, r) => r.end('hi')).listen(process.env.PORT, process.env.HOST);";

    /// A supervisor as a task, with an app of its own.
    struct Scene {
        folder: tempfile::TempDir,
        port: u16,
        task: JoinHandle<()>,
        reports: Lines,
        orders: OwnedWriteHalf,
        lines: mpsc::Receiver<(Stream, String)>,
    }

    impl Scene {
        fn node(script: &str) -> Self {
            Self::new(&["node", "app.js"], script, free_port())
        }

        fn new(command: &[&str], script: &str, port: u16) -> Self {
            let folder = tempfile::tempdir().unwrap();
            fs::write(folder.path().join("app.js"), script).unwrap();
            let app = App {
                spec: AppSpec {
                    command: command.iter().map(|&word| word.to_owned()).collect(),
                    dir: folder.path().to_owned(),
                    user: None,
                    listens: AppAddr::Port(port),
                    extra_ca: None,
                    longest_pause: Duration::from_secs(30),
                },
                path: std::env::var_os("PATH").unwrap(),
            };
            let (ours, theirs) = UnixStream::pair().unwrap();
            let (console, lines) = Console::channel([false; 2]);
            let task = tokio::spawn(async move { supervise(&app, console, theirs).await });
            let (read, orders) = ours.into_split();
            Self {
                folder,
                port,
                task,
                reports: Lines::new(read),
                orders,
                lines,
            }
        }

        async fn report(&mut self) -> AppState {
            let line = self.reports.next().await.unwrap().unwrap();
            match Report::from_line(&line) {
                Some(Report::State(state)) => state,
                other => panic!("{other:?}"),
            }
        }

        async fn line(&mut self) -> (Stream, String) {
            let (stream, line) = self.lines.recv().await.unwrap();
            (
                stream,
                line.strip_prefix("app | ").unwrap().trim_end().to_owned(),
            )
        }

        async fn pid(&mut self) -> Pid {
            Pid::from_raw(self.line().await.1.parse().unwrap())
        }

        async fn ready(&mut self) {
            assert_eq!(self.report().await, AppState::Starting { attempt: 1 });
            assert_eq!(self.report().await, AppState::Ready);
        }

        async fn stop(&mut self, deadline: Duration) {
            self.orders
                .write_all(stop_line(deadline).as_bytes())
                .await
                .unwrap();
            (&mut self.task).await.unwrap();
        }
    }

    fn free_port() -> u16 {
        TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port()
    }

    /// Waits for a process that is not our child; a zombie that nobody has reaped yet is gone, too.
    async fn gone(pid: Pid) {
        let dead = || {
            kill(pid, None) == Err(Errno::ESRCH)
                || fs::read_to_string(format!("/proc/{pid}/stat"))
                    .is_ok_and(|stat| stat.contains(") Z "))
        };
        let wait = async {
            while !dead() {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), wait)
            .await
            .unwrap();
    }

    #[tokio::test]
    async fn a_server_becomes_ready_and_stops_when_told() {
        let mut scene = Scene::node(&format!(
            "{SERVER} console.log(process.pid); console.error('warned');
             process.on('SIGTERM', () => {{ console.log('bye'); process.exit(); }});"
        ));
        scene.ready().await;
        let pid = loop {
            match scene.line().await {
                (Stream::Stdout, pid) => break Pid::from_raw(pid.parse().unwrap()),
                (Stream::Stderr, line) => assert_eq!(line, "warned"),
            }
        };
        let answers = tokio::net::TcpStream::connect(("127.0.0.1", scene.port)).await;
        assert!(answers.is_ok());
        scene.stop(Duration::from_secs(60)).await;
        let mut last = String::new();
        while let Some((_, line)) = scene.lines.recv().await {
            last = line;
        }
        assert_eq!(last, "app | bye\n");
        assert_eq!(kill(pid, None), Err(Errno::ESRCH));
    }

    #[tokio::test]
    async fn a_crash_is_reported_and_the_app_started_again_ever_more_slowly() {
        let mut scene = Scene::node("console.error('boom\\nat x'); process.exit(3);");
        for (attempt, millis) in [(1, 100), (2, 200), (3, 400)] {
            assert_eq!(scene.report().await, AppState::Starting { attempt });
            let expected = AppState::Exited {
                end: End::Code(3),
                stderr: vec!["boom".into(), "at x".into()],
                restart_in: Duration::from_millis(millis),
            };
            assert_eq!(scene.report().await, expected);
        }
        scene.stop(Duration::ZERO).await;
    }

    #[tokio::test]
    async fn a_signal_is_told_from_an_exit_code_and_code_0_is_an_end_too() {
        for (script, expected) in [
            ("process.kill(process.pid, 'SIGKILL')", End::Signal(9)),
            ("", End::Code(0)),
        ] {
            let mut scene = Scene::node(script);
            scene.report().await;
            match scene.report().await {
                AppState::Exited { end, .. } => assert_eq!(end, expected),
                other => panic!("{other:?}"),
            }
        }
    }

    #[tokio::test]
    async fn what_cannot_start_says_why() {
        let mut scene = Scene::new(&["no-such-program"], "", free_port());
        scene.report().await;
        let told = scene.report().await.to_string();
        assert!(
            told.contains("there is no program \"no-such-program\" in PATH (/"),
            "{told}"
        );

        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = taken.local_addr().unwrap().port();
        let mut scene = Scene::new(&["node", "app.js"], SERVER, port);
        scene.report().await;
        let told = scene.report().await.to_string();
        assert!(
            told.contains(&format!("port {port} on 127.0.0.1 is taken")),
            "{told}"
        );
    }

    #[tokio::test]
    async fn without_the_proxy_the_app_goes_too() {
        let mut scene = Scene::node(&format!("{SERVER} console.log(process.pid);"));
        scene.ready().await;
        let pid = scene.pid().await;
        let Scene {
            task,
            reports,
            orders,
            ..
        } = scene;
        drop((reports, orders));
        task.await.unwrap();
        assert_eq!(kill(pid, None), Err(Errno::ESRCH));
    }

    #[tokio::test]
    async fn an_app_that_does_not_listen_to_signals_is_killed() {
        let mut scene = Scene::node(&format!(
            "process.on('SIGTERM', () => {{}}); console.log(process.pid); {SERVER}"
        ));
        scene.ready().await;
        let pid = scene.pid().await;
        scene.stop(Duration::from_millis(50)).await;
        assert_eq!(kill(pid, None), Err(Errno::ESRCH));
    }

    #[tokio::test]
    async fn what_a_crashed_app_leaves_in_its_group_is_killed() {
        let mut scene = Scene::node(
            "const c = require('child_process').spawn('sleep', ['600']);
             console.log(c.pid); setImmediate(() => process.exit(1));",
        );
        scene.report().await;
        let left = scene.pid().await;
        assert!(matches!(scene.report().await, AppState::Exited { .. }));
        gone(left).await;
    }

    #[tokio::test]
    async fn a_shell_around_the_app_does_not_cut_its_farewell_short() {
        let script = format!(
            "{SERVER} process.on('SIGTERM', () => setTimeout(() => {{ console.log('bye'); process.exit(); }}, 100));"
        );
        let mut scene = Scene::new(&["sh", "-c", "node app.js; true"], &script, free_port());
        scene.ready().await;
        scene.stop(Duration::from_secs(60)).await;
        assert_eq!(scene.line().await, (Stream::Stdout, "bye".into()));
        assert!(scene.folder.path().exists());
    }

    #[test]
    fn the_backoff_doubles_to_its_longest_and_forgets_what_worked() {
        let mut backoff = Backoff::new(Duration::from_secs(30));
        let waits: Vec<u128> = (0..12)
            .map(|_| backoff.after(Duration::from_secs(9)).as_millis())
            .collect();
        let expected = [
            100, 200, 400, 800, 1600, 3200, 6400, 12_800, 25_600, 30_000, 30_000, 30_000,
        ];
        assert_eq!(waits, expected);
        assert_eq!(backoff.attempt(), 13);
        assert_eq!(backoff.after(Backoff::WORKED), Duration::from_millis(100));
        assert_eq!(backoff.attempt(), 2);
        for _ in 0..100 {
            backoff.after(Duration::ZERO);
        }
        assert_eq!(backoff.after(Duration::ZERO), Duration::from_secs(30));
    }
}
