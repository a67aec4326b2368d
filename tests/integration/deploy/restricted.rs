//! The restricted Pod Security Standard, field by field, for every manifest in `deploy/` and all that `lowport init` writes.
//! Schema validators know the fields' types and not what they may say.
//!
//! <https://kubernetes.io/docs/concepts/security/pod-security-standards/>

use std::fs;

use serde_json::{Value, json};

use super::samples::deploy;
use super::yaml::documents;
use super::{EDGE, Project, SIDECAR};
use crate::support::lowport::run;
use crate::support::terminal::done;

/// Kinds of volumes that are allowed.
const VOLUMES: [&str; 9] = [
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "image",
    "persistentVolumeClaim",
    "projected",
    "secret",
];
/// Sysctls that touch nobody but the pod.
const SYSCTLS: [&str; 10] = [
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.ping_group_range",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
];
const SELINUX: [&str; 5] = [
    "",
    "container_t",
    "container_init_t",
    "container_kvm_t",
    "container_engine_t",
];

/// What a pod does that the standard forbids, by field.
fn violations(pod: &Value) -> Vec<String> {
    let mut found = Vec::new();
    for field in ["hostNetwork", "hostPID", "hostIPC"] {
        if pod[field] == json!(true) {
            found.push(field.to_owned());
        }
    }
    for volume in list(&pod["volumes"]) {
        let kinds = volume
            .as_object()
            .unwrap()
            .keys()
            .filter(|key| *key != "name");
        for kind in kinds.filter(|kind| !VOLUMES.contains(&kind.as_str())) {
            found.push(format!("volumes: {kind}"));
        }
    }
    let of_pod = &pod["securityContext"];
    for sysctl in list(&of_pod["sysctls"]) {
        let name = sysctl["name"].as_str().unwrap();
        if !SYSCTLS.contains(&name) {
            found.push(format!("sysctls: {name}"));
        }
    }
    context(of_pod, "pod", &mut found);
    for kind in ["initContainers", "containers", "ephemeralContainers"] {
        for container in list(&pod[kind]) {
            let name = container["name"].as_str().unwrap();
            let own = &container["securityContext"];
            context(own, name, &mut found);
            let mut wrong = |what: &str| found.push(format!("{name}: {what}"));
            for port in list(&container["ports"]) {
                if port.get("hostPort").is_some_and(|port| *port != json!(0)) {
                    wrong("hostPort");
                }
            }
            if own["privileged"] == json!(true) {
                wrong("privileged");
            }
            if own["allowPrivilegeEscalation"] != json!(false) {
                wrong("allowPrivilegeEscalation");
            }
            let drops = list(&own["capabilities"]["drop"]);
            if !drops.contains(&json!("ALL")) {
                wrong("capabilities.drop");
            }
            let adds = list(&own["capabilities"]["add"]);
            if adds.iter().any(|added| *added != "NET_BIND_SERVICE") {
                wrong("capabilities.add");
            }
            if !matches!(own.get("procMount"), None | Some(Value::Null))
                && own["procMount"] != "Default"
            {
                wrong("procMount");
            }
            let either = |field: &str| match own.get(field) {
                Some(value) => value.clone(),
                None => of_pod[field].clone(),
            };
            if either("runAsNonRoot") != json!(true) {
                wrong("runAsNonRoot");
            }
            let seccomp = either("seccompProfile");
            if seccomp["type"] != "RuntimeDefault" && seccomp["type"] != "Localhost" {
                wrong("seccompProfile");
            }
        }
    }
    found
}

/// What may stand in the security context of a pod or a container.
fn context(context: &Value, whose: &str, found: &mut Vec<String>) {
    let mut wrong = |what: &str| found.push(format!("{whose}: {what}"));
    if context["runAsUser"] == json!(0) {
        wrong("runAsUser");
    }
    if context["windowsOptions"]["hostProcess"] == json!(true) {
        wrong("hostProcess");
    }
    let selinux = &context["seLinuxOptions"];
    let kind = selinux["type"].as_str().unwrap_or_default();
    if !SELINUX.contains(&kind) || selinux.get("user").is_some() || selinux.get("role").is_some() {
        wrong("seLinuxOptions");
    }
    if context["appArmorProfile"]["type"] == "Unconfined" {
        wrong("appArmorProfile");
    }
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// The pods of a text's documents.
fn pods(text: &str) -> Vec<Value> {
    documents(text)
        .into_iter()
        .filter(|document| document["kind"] == "Deployment")
        .map(|document| document["spec"]["template"]["spec"].clone())
        .collect()
}

/// What `lowport init kubernetes` writes for a table.
fn written(table: &str) -> Value {
    let project = Project::new(table);
    done(&project.init(&["kubernetes"]));
    pods(&project.read("kubernetes/deployment.yaml")).remove(0)
}

#[test]
fn every_manifest_meets_it() {
    let mut files = Vec::new();
    super::collect(&deploy().join("kubernetes"), &mut files);
    let mut seen = 0;
    for file in files
        .iter()
        .filter(|file| file.extension().is_some_and(|it| it == "yaml"))
    {
        for pod in pods(&fs::read_to_string(file).unwrap()) {
            // A part that is laid over another one says only what differs.
            if pod.get("securityContext").is_none() {
                continue;
            }
            seen += 1;
            assert_eq!(violations(&pod), Vec::<String>::new(), "{}", file.display());
        }
    }
    assert_eq!(seen, 2, "a sidecar and an edge");
}

#[test]
fn whatever_the_table_the_manifests_meet_it() {
    let many = format!("{EDGE}[[route]]\npath = \"/local\"\nto = \"http://127.0.0.1:3000\"\n");
    let high = format!("[server]\nhttp = \":8080\"\n{SIDECAR}");
    for table in [SIDECAR, EDGE, &many, &high, "[[route]]\nrespond = \"x\"\n"] {
        assert_eq!(violations(&written(table)), Vec::<String>::new(), "{table}");
    }
}

#[test]
fn each_of_its_rules_can_be_broken() {
    let good = written(SIDECAR);
    let lowport = "/initContainers/0";
    let app = "/containers/0";
    for (at, field, value, rule) in [
        ("", "hostNetwork", json!(true), "hostNetwork"),
        ("", "hostPID", json!(true), "hostPID"),
        ("", "hostIPC", json!(true), "hostIPC"),
        (
            "",
            "volumes",
            json!([{"name": "x", "hostPath": {"path": "/"}}]),
            "volumes: hostPath",
        ),
        (
            "",
            "volumes",
            json!([{"name": "x", "nfs": {}}]),
            "volumes: nfs",
        ),
        (
            "/securityContext",
            "sysctls",
            json!([{"name": "kernel.msgmax", "value": "1"}]),
            "sysctls: kernel.msgmax",
        ),
        ("/securityContext", "runAsUser", json!(0), "pod: runAsUser"),
        (
            "/securityContext",
            "windowsOptions",
            json!({"hostProcess": true}),
            "pod: hostProcess",
        ),
        (
            "/securityContext",
            "seLinuxOptions",
            json!({"type": "spc_t"}),
            "pod: seLinuxOptions",
        ),
        (
            "/securityContext",
            "seLinuxOptions",
            json!({"user": "x"}),
            "pod: seLinuxOptions",
        ),
        (
            "/securityContext",
            "appArmorProfile",
            json!({"type": "Unconfined"}),
            "pod: appArmorProfile",
        ),
        (
            &format!("{lowport}/ports/0"),
            "hostPort",
            json!(80),
            "lowport: hostPort",
        ),
        (
            &format!("{lowport}/securityContext"),
            "privileged",
            json!(true),
            "lowport: privileged",
        ),
        (
            &format!("{lowport}/securityContext"),
            "allowPrivilegeEscalation",
            json!(true),
            "lowport: allowPrivilegeEscalation",
        ),
        (
            &format!("{lowport}/securityContext"),
            "allowPrivilegeEscalation",
            Value::Null,
            "lowport: allowPrivilegeEscalation",
        ),
        (
            &format!("{lowport}/securityContext"),
            "runAsNonRoot",
            json!(false),
            "lowport: runAsNonRoot",
        ),
        (
            &format!("{lowport}/securityContext"),
            "runAsUser",
            json!(0),
            "lowport: runAsUser",
        ),
        (
            &format!("{app}/securityContext"),
            "capabilities",
            json!({"drop": ["NET_RAW"]}),
            "app: capabilities.drop",
        ),
        (
            &format!("{app}/securityContext"),
            "capabilities",
            json!({"drop": ["ALL"], "add": ["SYS_ADMIN"]}),
            "app: capabilities.add",
        ),
        (
            &format!("{app}/securityContext"),
            "procMount",
            json!("Unmasked"),
            "app: procMount",
        ),
        (
            &format!("{app}/securityContext"),
            "seccompProfile",
            json!({"type": "Unconfined"}),
            "app: seccompProfile",
        ),
    ] {
        let mut bad = good.clone();
        let place = bad.pointer_mut(at).unwrap_or_else(|| panic!("{at}"));
        place[field] = value;
        assert_eq!(violations(&bad), [rule], "{at}/{field}");
    }
    // What the pod says counts for containers that say nothing.
    let mut silent = good;
    let container = silent.pointer_mut("/containers/0/securityContext").unwrap();
    let own = container.as_object_mut().unwrap();
    own.remove("seccompProfile");
    own.remove("runAsNonRoot");
    assert_eq!(violations(&silent), Vec::<String>::new());
    let of_pod = silent
        .pointer_mut("/securityContext")
        .unwrap()
        .as_object_mut()
        .unwrap();
    of_pod.remove("seccompProfile");
    of_pod.remove("runAsNonRoot");
    assert_eq!(
        violations(&silent),
        ["app: runAsNonRoot", "app: seccompProfile"]
    );
}

#[test]
fn lowport_audit_finds_nothing_in_what_lowport_init_writes() {
    for (table, targets) in [
        (SIDECAR, ["dockerfile", "compose", "kubernetes"]),
        (EDGE, ["swarm", "compose", "kubernetes"]),
    ] {
        for target in targets {
            let project = Project::new(table);
            done(&project.init(&[target]));
            let told = run(&["audit", "--no-host", project.path("").to_str().unwrap()]);
            let out = String::from_utf8(told.stdout).unwrap();
            assert_eq!(told.status.code(), Some(0), "{target}: {out}");
        }
    }
}
