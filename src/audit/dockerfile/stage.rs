//! A Dockerfile's stages: what each is built on, as whom it starts, what it runs.

use super::lex::{Instruction, instructions};
use crate::audit::command;
use crate::audit::variables::{Variables, expand};

/// Past these a file is none that a person wrote, and stages that each inherit everything take too much memory.
const MAX_LINES: usize = 4000;
const MAX_STAGES: usize = 64;

/// One stage, with what it inherits from the stage that it is built on.
#[derive(Debug, Clone, Default)]
pub(super) struct Stage {
    pub(super) name: Option<String>,
    /// The line of its FROM
    pub(super) line: usize,
    /// The image at the bottom; `None` where only the build knows
    pub(super) image: Option<String>,
    pub(super) user: Option<User>,
    pub(super) entrypoint: Option<Words>,
    pub(super) command: Option<Words>,
    /// Where a USER can follow: the end of what comes before the first CMD or ENTRYPOINT of the stage's own
    pub(super) body_end: usize,
    /// Lines that give the node binary a capability
    pub(super) setcap: Vec<usize>,
    variables: Variables,
    on_build: Vec<Instruction>,
}

/// What a USER says.
#[derive(Debug, Clone)]
pub(super) struct User {
    pub(super) line: usize,
    /// `None` where only the build knows
    pub(super) value: Option<String>,
    pub(super) written: String,
}

/// A CMD or ENTRYPOINT.
#[derive(Debug, Clone)]
pub(super) struct Words {
    pub(super) words: Vec<String>,
    /// Written as a line for the shell
    pub(super) shell: bool,
}

/// All stages, in order; none for a file past all measure.
pub(super) fn stages(text: &str) -> Vec<Stage> {
    if text.lines().count() > MAX_LINES {
        return Vec::new();
    }
    let mut stages: Vec<Stage> = Vec::new();
    let mut global = Variables::new();
    for instruction in instructions(text) {
        if instruction.keyword == "FROM" {
            if stages.len() == MAX_STAGES {
                return Vec::new();
            }
            stages.push(Stage::from(&instruction, &stages, &global));
        } else if let Some(stage) = stages.last_mut() {
            stage.take(&instruction, &global);
        } else if instruction.keyword == "ARG" {
            arguments(&instruction.rest, &mut global, None);
        }
    }
    stages
}

impl Stage {
    fn from(instruction: &Instruction, earlier: &[Self], global: &Variables) -> Self {
        let mut words = instruction
            .rest
            .split_whitespace()
            .filter(|word| !word.starts_with("--"));
        let image = words.next().and_then(|image| expand(image, global));
        let name = words
            .next()
            .filter(|word| word.eq_ignore_ascii_case("as"))
            .and_then(|_| words.next());
        let base = image.as_deref().and_then(|image| {
            earlier.iter().rev().find(|stage| {
                stage
                    .name
                    .as_deref()
                    .is_some_and(|name| name.eq_ignore_ascii_case(image))
            })
        });
        let mut stage = base.cloned().unwrap_or_else(|| Self {
            image,
            ..Self::default()
        });
        stage.name = name.map(str::to_owned);
        stage.line = instruction.line;
        stage.body_end = instruction.end;
        stage.setcap.clear();
        for trigger in std::mem::take(&mut stage.on_build) {
            stage.take(&trigger, global);
        }
        stage.body_end = instruction.end;
        stage
    }

    fn take(&mut self, instruction: &Instruction, global: &Variables) {
        let rest = instruction.rest.as_str();
        match instruction.keyword.as_str() {
            "USER" => {
                self.user = Some(User {
                    line: instruction.line,
                    value: expand(rest, &self.variables),
                    written: rest.to_owned(),
                });
            }
            "ARG" => arguments(rest, &mut self.variables, Some(global)),
            "ENV" => environment(rest, &mut self.variables),
            "CMD" => self.command = Some(words(rest)),
            "ENTRYPOINT" => {
                self.entrypoint = Some(words(rest));
                // An entry point resets the command of the image below.
                self.command = None;
            }
            "RUN" => {
                let text = format!("{rest}\n{}", instruction.documents).to_ascii_lowercase();
                if text.contains("setcap")
                    && text.contains("cap_net_bind_service")
                    && text.contains("node")
                {
                    self.setcap.push(instruction.line);
                }
            }
            "ONBUILD" => {
                self.on_build
                    .extend(Instruction::new(rest, instruction.line, instruction.end))
            }
            _ => {}
        }
        if !matches!(instruction.keyword.as_str(), "CMD" | "ENTRYPOINT") {
            self.body_end = instruction.end;
        }
    }
}

/// `["a", "b"]`, or a line for the shell.
fn words(rest: &str) -> Words {
    match serde_json::from_str(rest) {
        Ok(words) => Words {
            words,
            shell: false,
        },
        Err(_) => Words {
            words: vec!["/bin/sh".into(), "-c".into(), rest.to_owned()],
            shell: true,
        },
    }
}

/// `NAME[=DEFAULT]...`. In a stage a name without a default takes that of the ARG before the first FROM.
fn arguments(rest: &str, variables: &mut Variables, global: Option<&Variables>) {
    for word in command::parts(rest).into_iter().flatten() {
        let (name, value) = match word.split_once('=') {
            Some((name, default)) => (name, expand(default, variables)),
            None => (
                word.as_str(),
                global
                    .and_then(|global| global.get(&word))
                    .cloned()
                    .flatten(),
            ),
        };
        variables.insert(name.to_owned(), value);
    }
}

/// `NAME=VALUE...`, or `NAME VALUE` as it once was.
fn environment(rest: &str, variables: &mut Variables) {
    let words: Vec<String> = command::parts(rest).into_iter().flatten().collect();
    let pairs: Vec<(String, String)> = if words.first().is_some_and(|word| word.contains('=')) {
        words
            .iter()
            .filter_map(|word| word.split_once('='))
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect()
    } else {
        rest.split_once(char::is_whitespace)
            .map(|(name, value)| (name.to_owned(), value.trim().to_owned()))
            .into_iter()
            .collect()
    };
    for (name, value) in pairs {
        let value = expand(&value, variables);
        variables.insert(name, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_that_double_with_each_line_come_to_an_end() {
        let mut text = String::from("FROM node\nENV A=xx\n");
        for _ in 0..3000 {
            text += "ENV A=$A$A\n";
        }
        let stages = stages(&text);
        assert_eq!(stages[0].variables["A"], None);
        assert!(super::stages(&"FROM a\n".repeat(65)).is_empty());
        assert!(super::stages(&"FROM a\nRUN <<X\n".repeat(60_000)).is_empty());
    }

    #[test]
    fn environment_and_arguments_are_known() {
        let text = "ARG G=g\nFROM a\nENV A=one B=\"two words\"\nENV C three\nARG D E=$A-e G\n";
        let stages = stages(text);
        let value = |name: &str| stages[0].variables[name].as_deref();
        assert_eq!(
            ["A", "B", "C", "D", "E", "G"].map(value),
            [
                Some("one"),
                Some("two words"),
                Some("three"),
                None,
                Some("one-e"),
                Some("g")
            ]
        );
    }

    #[test]
    fn a_stage_inherits_from_the_stage_it_is_built_on() {
        let text = "ARG V=20\nFROM --platform=$X node:$V AS base\nUSER node\nONBUILD USER app\nENTRYPOINT [\"a\"]\n\
                    FROM BASE AS last\nCMD b\n";
        let stages = stages(text);
        assert_eq!(stages.len(), 2);
        assert_eq!(stages[1].image.as_deref(), Some("node:20"));
        let user = |at: usize| stages[at].user.as_ref().and_then(|user| user.value.clone());
        assert_eq!(
            (user(0).as_deref(), user(1).as_deref()),
            (Some("node"), Some("app"))
        );
        assert_eq!(stages[1].entrypoint.as_ref().unwrap().words, ["a"]);
        assert!(stages[1].command.as_ref().unwrap().shell);
        assert_eq!(stages[1].body_end, 6);
    }
}
