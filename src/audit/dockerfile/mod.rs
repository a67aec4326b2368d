//! Dockerfiles and Containerfiles: as whom does the image that they build run Node?

mod lex;
mod stage;

use self::stage::Stage;
use super::command::{self, Runs};
use super::finding::Severity;
use super::image::{self, Starts};
use super::report::InFile;

/// What an image runs, and as whom.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Verdict {
    pub(super) runs: Runs,
    pub(super) user: UserIs,
    /// Where the user is said, or the FROM that leaves it open
    pub(super) line: usize,
    fix: String,
}

/// As whom a container starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum UserIs {
    /// As root, and why
    Root(String),
    /// As somebody else
    Other,
    /// It cannot be told, and why
    Unknown(String),
}

/// What building `target`, or else the last stage, comes to; `None` where there is no such stage.
pub(super) fn verdict(text: &str, target: Option<&str>) -> Option<Verdict> {
    let stages = stage::stages(text);
    let stage = match target {
        Some(target) => stages.iter().rev().find(|stage| {
            stage
                .name
                .as_deref()
                .is_some_and(|name| name.eq_ignore_ascii_case(target))
        }),
        None => stages.last(),
    };
    stage.map(Verdict::of)
}

/// Tells what is wrong with a Dockerfile.
pub(super) fn check(text: &str, out: &mut InFile<'_>) {
    for stage in stage::stages(text) {
        for line in stage.setcap {
            out.found(
                "dockerfile-setcap",
                Severity::Medium,
                line,
                "gives the node binary CAP_NET_BIND_SERVICE: everything that node runs then holds it",
                "leave the setcap out, listen on a port from 1024 up, and let lowport hold 80 and 443",
            );
        }
    }
    let Some(verdict) = verdict(text, None) else {
        out.note(
            "dockerfile-user",
            None,
            "not read: it has no FROM, or more lines or stages than a person writes",
        );
        return;
    };
    let Runs::Node { becomes } = &verdict.runs else {
        return;
    };
    match (&verdict.user, becomes.as_deref()) {
        (UserIs::Root(why), None) => out.found(
            "dockerfile-user",
            Severity::High,
            verdict.line,
            format!("the final stage runs node as root: {why}"),
            verdict.fix,
        ),
        (UserIs::Root(why), Some(user)) if !is_root(user) => out.note(
            "dockerfile-user",
            verdict.line,
            format!("starts as root ({why}), and its command becomes {user} before node runs"),
        ),
        (_, Some(user)) if is_root(user) => out.found(
            "dockerfile-user",
            Severity::High,
            verdict.line,
            "the final stage runs node through sudo, as root",
            "start node without sudo, as the image's USER",
        ),
        (UserIs::Unknown(why), _) => out.note("dockerfile-user", verdict.line, why.clone()),
        _ => {}
    }
}

/// Whether `user`, or `user:group`, is root.
pub(super) fn is_root(user: &str) -> bool {
    let user = user.split(':').next().unwrap_or(user).trim();
    user == "root" || user.parse() == Ok(0_u32)
}

impl Verdict {
    fn of(stage: &Stage) -> Self {
        let (user, line) = user(stage);
        let name = stage
            .image
            .as_deref()
            .map_or("10001:10001", image::user_for);
        let fix = match &stage.user {
            Some(user) if user.line == stage.body_end => {
                format!("write `USER {name}` on line {}", user.line)
            }
            _ => format!("add `USER {name}` after line {}", stage.body_end),
        };
        Self {
            runs: runs(stage),
            user,
            line,
            fix,
        }
    }
}

fn user(stage: &Stage) -> (UserIs, usize) {
    if let Some(user) = &stage.user {
        let is = match user.value.as_deref() {
            Some(value) if is_root(value) => UserIs::Root(format!("USER is {value}")),
            Some(value) if !value.trim().is_empty() => UserIs::Other,
            _ => UserIs::Unknown(format!(
                "runs node as `USER {}`, which only the build knows",
                user.written
            )),
        };
        return (is, user.line);
    }
    let is = match stage.image.as_deref() {
        None => UserIs::Unknown(
            "runs node on a base image that only the build knows, and sets no USER".into(),
        ),
        Some(image) => match image::starts(image) {
            Starts::Root => UserIs::Root(format!(
                "the base image {image} starts so, and no USER follows"
            )),
            Starts::NonRoot => UserIs::Other,
            Starts::Unknown => UserIs::Unknown(format!(
                "runs node and sets no USER: the user of the base image {image} is unknown"
            )),
        },
    };
    (is, stage.line)
}

fn runs(stage: &Stage) -> Runs {
    let command: &[String] = stage.command.as_ref().map_or(&[], |command| &command.words);
    let runs = match &stage.entrypoint {
        Some(entrypoint) if entrypoint.shell => command::exec(&entrypoint.words),
        Some(entrypoint) => {
            let all = [&entrypoint.words, command].concat();
            match command::exec(&all) {
                // A script of the image's own usually ends with `exec "$@"`.
                Runs::Other => command::exec(command),
                runs => runs,
            }
        }
        None => command::exec(command),
    };
    match runs {
        Runs::Other if stage.image.as_deref().is_some_and(image::is_node) => {
            Runs::Node { becomes: None }
        }
        runs => runs,
    }
}

#[cfg(test)]
mod tests {
    use super::super::report::Report;
    use super::*;

    /// Severity, line, rule and fix of everything told.
    fn told(text: &str) -> Vec<String> {
        let mut report = Report::default();
        check(text, &mut report.file("Dockerfile".as_ref()));
        let fixes = report.entries().iter().map(|entry| entry.fix.as_deref());
        let told = super::super::testing::told(&report).into_iter();
        told.zip(fixes)
            .map(|(told, fix)| format!("{told} | {}", fix.unwrap_or("-")))
            .collect()
    }

    #[test]
    fn node_as_root_is_found() {
        for (text, expected) in [
            (
                "FROM node:20\nWORKDIR /app\nCOPY . .\nRUN npm ci\nCMD [\"node\", \"server.js\"]\n",
                "high 1 dockerfile-user | add `USER node` after line 4",
            ),
            // The default command of the image is node.
            (
                "FROM node\n",
                "high 1 dockerfile-user | add `USER node` after line 1",
            ),
            (
                "FROM node:20\nUSER node\nUSER root\nRUN x\nCMD node .\n",
                "high 3 dockerfile-user | add `USER node` after line 4",
            ),
            (
                "FROM node:20\nUSER 0:0\nENTRYPOINT node .\n",
                "high 2 dockerfile-user | write `USER node` on line 2",
            ),
            (
                "FROM node:20\nARG U=root\nUSER $U\nCMD npm start",
                "high 3 dockerfile-user | write `USER node` on line 3",
            ),
            (
                "FROM debian:12\nRUN apt-get install -y nodejs\nCMD node x\n",
                "high 1 dockerfile-user | add `USER 10001:10001` after line 2",
            ),
            (
                "FROM node:20 AS build\nUSER node\nRUN npm run build\nFROM node:20-slim\nCOPY --from=build /a /a\nCMD node x\n",
                "high 4 dockerfile-user | add `USER node` after line 5",
            ),
            (
                "FROM node AS base\nUSER root\nFROM base\nCMD node x\n",
                "high 2 dockerfile-user | add `USER node` after line 3",
            ),
            (
                "FROM gcr.io/distroless/nodejs20-debian12\nCMD [\"server.js\"]\n",
                "high 1 dockerfile-user | add `USER nonroot` after line 1",
            ),
            (
                "FROM node:20\nRUN <<EOF\nUSER node\nEOF\nCMD node x\n",
                "high 1 dockerfile-user | add `USER node` after line 4",
            ),
            (
                "FROM node:20\nENTRYPOINT [\"/entry.sh\"]\nCMD [\"node\", \"x\"]\n",
                "high 1 dockerfile-user | add `USER node` after line 1",
            ),
            (
                "FROM node:20\nONBUILD USER node\nCMD node x\n",
                "high 1 dockerfile-user | add `USER node` after line 2",
            ),
            (
                "FROM node:20\nUSER node\nCMD sudo node x\n",
                "high 2 dockerfile-user | start node without sudo, as the image's USER",
            ),
        ] {
            assert_eq!(told(text), [expected], "{text}");
        }
        let setcap = "FROM node:20\nRUN apt-get install libcap2-bin && \\\n setcap 'cap_net_bind_service=+ep' $(which node)\nUSER node\n";
        assert!(
            told(setcap)[0].starts_with("medium 2 dockerfile-setcap"),
            "{:?}",
            told(setcap)
        );
    }

    #[test]
    fn what_is_not_root_or_not_node_is_left_alone() {
        for text in [
            "FROM node:20\nUSER node\nCMD node x\n",
            "FROM node:20\nUSER 1000:1000\n",
            "FROM node:20\nARG U=node\nUSER ${U}\n",
            "FROM node:20\nUSER ${U:-1000}\n",
            "FROM node:20 AS base\nUSER node\nFROM base\nCMD node x\n",
            "FROM node:20 AS base\nONBUILD USER node\nFROM base\nCMD node x\n",
            "FROM node:20 AS build\nRUN npm run build\nFROM nginx\nCOPY --from=build /dist /usr/share/nginx/html\n",
            "FROM debian\nCMD [\"nginx\"]\n",
            "FROM gcr.io/distroless/nodejs20-debian12:nonroot\nCMD [\"x.js\"]\n",
            "FROM cgr.dev/chainguard/node\nCMD [\"x.js\"]\n",
            "FROM node:20\nENTRYPOINT [\"lowport\", \"run\"]\n",
        ] {
            assert_eq!(told(text), [] as [&str; 0], "{text}");
        }
    }

    #[test]
    fn what_cannot_be_told_is_a_note() {
        for (text, line) in [
            ("FROM registry.example.com/base\nCMD node x\n", 1),
            ("FROM $BASE\nCMD node x\n", 1),
            ("FROM node:20\nARG U\nUSER $U\nCMD node x\n", 3),
            (
                "FROM node:20\nENTRYPOINT [\"gosu\", \"node\"]\nCMD [\"node\", \"x\"]\n",
                1,
            ),
        ] {
            let told = told(text);
            assert_eq!(told, [format!("note {line} dockerfile-user | -")], "{text}");
        }
        assert_eq!(told("# nothing\n"), ["note 0 dockerfile-user | -"]);
    }

    #[test]
    fn a_stage_can_be_chosen() {
        let text = "FROM node:20 AS dev\nCMD npm run dev\nFROM node:20 AS prod\nUSER node\nCMD npm start\n";
        assert!(matches!(
            verdict(text, Some("DEV")).unwrap().user,
            UserIs::Root(_)
        ));
        assert_eq!(verdict(text, Some("prod")).unwrap().user, UserIs::Other);
        assert_eq!(verdict(text, None).unwrap().user, UserIs::Other);
        assert_eq!(verdict(text, Some("x")), None);
    }
}
