//! `lowport completions` and `lowport manpage`, as shells and man(1) read them.

use std::process::{Command, Stdio};

use super::{both, is_there};
use crate::support::folder;
use crate::support::lowport::run;
use crate::support::terminal::{USAGE, done, failed};

/// Sources the script and has the function that it registers complete the last word.
const BASH: &str = r#"
source "$1"
function=$(complete -p lowport | sed "s/.* -F \([^ ]*\).*/\1/")
COMP_WORDS=("${@:2}")
COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
COMPREPLY=()
"$function" lowport "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}"
printf '%s\n' "${COMPREPLY[@]}"
"#;

#[test]
fn bash_completes_commands_options_and_files() {
    const TEST: &str = "completions in bash";
    let script = done(&run(&["completions", "bash"]));
    if !is_there(TEST, "bash", &["--version"]) {
        return;
    }
    let folder = folder();
    let file = folder.path().join("lowport.bash");
    std::fs::write(&file, script).unwrap();
    std::fs::write(folder.path().join("site.toml"), "").unwrap();
    let complete = |words: &[&str]| -> Vec<String> {
        let output = Command::new("bash")
            .args(["--norc", "-c", BASH, "bash"])
            .arg(&file)
            .args(words)
            .current_dir(folder.path())
            .stdin(Stdio::null())
            .output()
            .expect("bash runs");
        assert!(output.stderr.is_empty(), "{words:?}: {output:?}");
        let mut found: Vec<String> = both(&output).lines().map(str::to_owned).collect();
        found.sort_unstable();
        found
    };
    assert_eq!(complete(&["lowport", "che"]), ["check"]);
    assert_eq!(
        complete(&["lowport", "c"]),
        ["cert", "check", "completions"]
    );
    assert_eq!(complete(&["lowport", "check", "--no"]), ["--no-ports"]);
    assert_eq!(complete(&["lowport", "cert", "tr"]), ["trust"]);
    assert_eq!(complete(&["lowport", "completions", "f"]), ["fish"]);
    assert_eq!(complete(&["lowport", "run", "-c", "si"]), ["site.toml"]);
}

#[test]
fn zsh_and_fish_read_their_scripts() {
    let folder = folder();
    let write = |shell: &str| {
        let file = folder.path().join(shell);
        std::fs::write(&file, done(&run(&["completions", shell]))).unwrap();
        file
    };
    let (zsh, fish) = (write("zsh"), write("fish"));
    if is_there("completions in zsh", "zsh", &["--version"]) {
        let output = Command::new("zsh").arg("-n").arg(zsh).output().unwrap();
        assert!(output.status.success(), "{output:?}");
    }
    if is_there("completions in fish", "fish", &["--version"]) {
        let output = Command::new("fish")
            .args([
                "--no-config",
                "-c",
                "source $argv[1]; complete -C 'lowport che'",
            ])
            .arg(fish)
            .output()
            .unwrap();
        assert!(both(&output).starts_with("check\t"), "{output:?}");
    }
    failed(&run(&["completions", "tcsh"]), USAGE);
}

#[test]
fn the_manual_page_is_sound_and_whole() {
    let page = done(&run(&["manpage"]));
    if !is_there("the manual page", "groff", &["--version"]) {
        return;
    }
    let folder = folder();
    let file = folder.path().join("lowport.1");
    std::fs::write(&file, page).unwrap();
    let output = Command::new("groff")
        .args(["-man", "-ww", "-Tascii", "-P-cbou"])
        .arg(&file)
        .output()
        .expect("groff runs");
    assert!(
        output.status.success() && output.stderr.is_empty(),
        "{output:?}"
    );
    let text = both(&output);
    for part in [
        "LOWPORT(1)",
        "lowport run [OPTIONS]",
        "--no-sandbox",
        "lowport cert trust [OPTIONS]",
        "EXIT STATUS",
        "78 ",
        "SIGHUP",
        "/etc/lowport/lowport.toml",
    ] {
        assert!(text.contains(part), "{part} in {text}");
    }
}
