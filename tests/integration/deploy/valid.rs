//! What others say of the manifests: the schemas of Compose and Kubernetes, Docker's and Kubernetes' own clients, nft.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use super::samples::deploy;
use super::{EDGE, Project, SIDECAR};
use crate::support::terminal::done;
use crate::support::{skipped, tool};

/// Runs a program that has to be there, or says loudly that it is not.
fn ask(test: &str, program: &str, args: &[&str], folder: &Path) -> Option<Output> {
    let Some(path) = tool(program) else {
        skipped(
            test,
            &format!("{program} is not installed (`tests/deploy-tools` installs what can be)"),
        );
        return None;
    };
    let output = Command::new(path)
        .args(args)
        .current_dir(folder)
        .stdin(Stdio::null())
        .output();
    Some(output.unwrap())
}

fn told(output: &Output) -> String {
    let both = [output.stdout.as_slice(), &output.stderr].concat();
    String::from_utf8_lossy(&both).into_owned()
}

/// Everything that there is of a target: in `deploy/`, and written for tables of other kinds.
fn folders(target: &str, samples: &[&str]) -> Vec<(PathBuf, Option<Project>)> {
    let high = format!("[server]\nhttp = \":8080\"\n{EDGE}");
    let mut folders: Vec<(PathBuf, Option<Project>)> = samples
        .iter()
        .map(|sample| (deploy().join(sample), None))
        .collect();
    for table in [EDGE, high.as_str(), "[[route]]\nrespond = \"x\"\n"] {
        let project = Project::new(table);
        done(&project.init(&[target]));
        folders.push((project.path(""), Some(project)));
    }
    folders
}

#[test]
fn compose_files_are_as_the_specification_has_them() {
    let test = "compose_files_are_as_the_specification_has_them";
    for (folder, _project) in folders("compose", &["compose/sidecar", "compose/edge"]) {
        let args = ["--builtin-schema", "vendor.compose-spec", "compose.yaml"];
        let Some(output) = ask(test, "check-jsonschema", &args, &folder) else {
            return;
        };
        assert!(output.status.success(), "{}", told(&output));
    }
    let bad = Project::new(SIDECAR);
    bad.write("compose.yaml", "services:\n  lowport:\n    imagine: x\n");
    let args = ["--builtin-schema", "vendor.compose-spec", "compose.yaml"];
    let output = ask(test, "check-jsonschema", &args, &bad.path("")).unwrap();
    assert!(
        !output.status.success(),
        "what is no Compose file is refused"
    );
}

/// Docker's plugin, else the older program of that name, which Debian has: it knows all but the name of the project.
#[test]
fn docker_compose_reads_the_compose_files() {
    let test = "docker_compose_reads_the_compose_files";
    let version = ["compose", "version"];
    let plugin = tool("docker").is_some()
        && ask(test, "docker", &version, Path::new("/")).is_some_and(|it| it.status.success());
    let (program, args, nameless) = match plugin {
        true => (
            "docker",
            &["compose", "--file", "read.yaml", "config"][..],
            false,
        ),
        false => (
            "docker-compose",
            &["--file", "read.yaml", "config"][..],
            true,
        ),
    };
    for sample in ["compose/sidecar", "compose/edge"] {
        let text = std::fs::read_to_string(deploy().join(sample).join("compose.yaml")).unwrap();
        let named = |line: &&str| !(nameless && line.starts_with("name:"));
        let text: Vec<&str> = text.lines().filter(named).collect();
        // With the files that it names.
        let project = Project::new(SIDECAR);
        project.write("read.yaml", &text.join("\n"));
        let Some(output) = ask(test, program, args, &project.path("")) else {
            return;
        };
        assert!(output.status.success(), "{}", told(&output));
        let read = super::yaml::document(&String::from_utf8(output.stdout).unwrap());
        let lowport = &read["services"]["lowport"];
        assert_eq!(lowport["user"], "65532:65532", "{sample}");
        assert_eq!(lowport["cap_drop"], serde_json::json!(["ALL"]), "{sample}");
        assert_eq!(lowport["read_only"], serde_json::json!(true), "{sample}");
    }
}

#[test]
fn docker_reads_the_stacks() {
    let test = "docker_reads_the_stacks";
    for (folder, project) in folders("swarm", &["swarm"]) {
        if project.is_none() {
            // The certificates that it names are the user's own.
            continue;
        }
        let args = ["stack", "config", "--compose-file", "stack.yaml"];
        let Some(output) = ask(test, "docker", &args, &folder) else {
            return;
        };
        let text = told(&output);
        if text.contains("is not a docker command") || text.contains("unknown command") {
            return skipped(test, "this docker has no `stack config`");
        }
        assert!(output.status.success(), "{text}");
        assert!(
            !text.contains("gnoring"),
            "nothing that a swarm ignores: {text}"
        );
        let lowport = &super::yaml::document(&text)["services"]["lowport"];
        assert_eq!(lowport["user"], "65532:65532");
        assert_eq!(lowport["cap_drop"], serde_json::json!(["ALL"]));
    }
    let bad = Project::new(EDGE);
    bad.write(
        "stack.yaml",
        "version: \"3.9\"\nservices:\n  x:\n    image: y\n    imagine: z\n",
    );
    let args = ["stack", "config", "--compose-file", "stack.yaml"];
    let output = ask(test, "docker", &args, &bad.path("")).unwrap();
    assert!(!output.status.success(), "what is no stack is refused");
}

#[test]
fn manifests_are_as_kubernetes_has_them() {
    let test = "manifests_are_as_kubernetes_has_them";
    const FILES: [&str; 4] = [
        "deployment.yaml",
        "service.yaml",
        "network-policy.yaml",
        "disruption-budget.yaml",
    ];
    for (folder, project) in folders("kubernetes", &["kubernetes/sidecar", "kubernetes/edge"]) {
        let folder = match project {
            Some(_) => folder.join("kubernetes"),
            None => folder,
        };
        let args = [&["--strict"][..], &FILES].concat();
        let Some(output) = ask(test, "kubernetes-validate", &args, &folder) else {
            return;
        };
        assert!(output.status.success(), "{}", told(&output));
    }
    let bad = Project::new(SIDECAR);
    done(&bad.init(&["kubernetes"]));
    let text = bad.read("kubernetes/deployment.yaml");
    bad.write(
        "bad.yaml",
        &text.replace("restartPolicy: Always", "restartPolice: Always"),
    );
    let output = ask(
        test,
        "kubernetes-validate",
        &["--strict", "bad.yaml"],
        &bad.path(""),
    )
    .unwrap();
    assert!(!output.status.success(), "an unknown field is refused");
}

#[test]
fn kustomize_builds_what_there_is_and_lays_the_overlay_over_it() {
    let test = "kustomize_builds_what_there_is_and_lays_the_overlay_over_it";
    for sample in ["sidecar", "edge", "overlays/production"] {
        let folder = deploy().join("kubernetes").join(sample);
        let Some(output) = ask(test, "kubectl", &["kustomize", "."], &folder) else {
            return;
        };
        assert!(output.status.success(), "{}", told(&output));
        let text = String::from_utf8(output.stdout).unwrap();
        let documents = super::yaml::documents(&text);
        let of = |kind: &str| {
            let found = documents.iter().find(|document| document["kind"] == kind);
            found.unwrap_or_else(|| panic!("{sample}: {kind}"))
        };
        let table = of("ConfigMap")["data"]["lowport.toml"].as_str().unwrap();
        assert!(table.contains("[[route]]"), "{table}");
        assert_eq!(
            of("ConfigMap")["metadata"]["name"],
            "shop-lowport",
            "no hash: lowport reloads"
        );
        for kind in [
            "Deployment",
            "Service",
            "NetworkPolicy",
            "PodDisruptionBudget",
        ] {
            of(kind);
        }
        let replicas = &of("Deployment")["spec"]["replicas"];
        let expected = if sample.starts_with("overlays") { 3 } else { 2 };
        assert_eq!(*replicas, serde_json::json!(expected), "{sample}");
    }
}

#[test]
fn nft_takes_the_redirect_and_another_user_can_take_it_over() {
    let test = "nft_takes_the_redirect_and_another_user_can_take_it_over";
    if !crate::support::is_root() {
        return skipped(test, "needs root, for a network namespace of its own");
    }
    let Some(nft) = ["nft"]
        .into_iter()
        .find_map(tool)
        .or_else(|| Some(PathBuf::from("/usr/sbin/nft")).filter(|it| it.is_file()))
    else {
        return skipped(test, "nft is not installed");
    };
    let file = deploy().join("nftables/lowport.nft");
    // Another user's process has the port, as when lowport is not running: it is given what was meant for port 80. Without the
    // redirect nobody has that.
    let script = "set -e
        ip link set lo up
        ask() { curl --silent --max-time 10 http://127.0.0.1:80/ || echo nobody; }
        setpriv --reuid 65534 --regid 65534 --clear-groups -- \
            node -e 'require(\"http\").createServer((q, a) => a.end(\"taken over by \" + process.getuid())).listen(8080, () => console.log(\"up\"))' > \"$1\" &
        until grep -q up \"$1\" 2>/dev/null; do sleep 0.05; done
        ask
        \"$2\" -f \"$3\"
        ask
        \"$2\" -f \"$3\"
        \"$2\" list ruleset | grep -c redirect
        kill %1";
    let folder = crate::support::folder();
    let output = Command::new("unshare")
        .args(["--net", "--", "bash", "-c", script, "bash"])
        .arg(folder.path().join("up"))
        .args([nft, file])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text = told(&output);
    if text.contains("Operation not supported") || text.contains("unshare failed") {
        return skipped(test, &format!("the kernel has no nftables for it: {text}"));
    }
    assert_eq!(
        text,
        "nobodytaken over by 655342\n".replacen("nobody", "nobody\n", 1),
        "twice is as good as once"
    );
}
