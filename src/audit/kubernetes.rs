//! Kubernetes manifests: as whom, and with what, does each container run?
//!
//! All containers are looked at, not only those whose image tells that it is Node: most images of apps have names of
//! their own. What is asked for is what the "restricted" Pod Security Standard asks for.

use super::command;
use super::compose::capability_added;
use super::finding::Severity;
use super::image::{self, Starts};
use super::report::InFile;
use super::yaml::{Value, Yaml};

/// Whether a document is a manifest.
pub(super) fn is_manifest(document: Value<'_>) -> bool {
    document.get("apiVersion").is_some() && document.get("kind").is_some()
}

/// Tells what is wrong with the workloads of a file.
pub(super) fn check(yaml: &Yaml, out: &mut InFile<'_>) {
    for document in yaml.documents().filter(|document| is_manifest(*document)) {
        let items = document.get("items").into_iter().flat_map(Value::items);
        for workload in std::iter::once(document).chain(items) {
            if let Some(pod) = pod(workload) {
                check_pod(pod, out);
            }
        }
    }
}

/// The pod's specification within a workload.
fn pod(workload: Value<'_>) -> Option<Value<'_>> {
    match workload.get("kind")?.str()? {
        "Pod" => workload.get("spec"),
        "Deployment"
        | "StatefulSet"
        | "DaemonSet"
        | "ReplicaSet"
        | "Job"
        | "ReplicationController" => workload.at(&["spec", "template", "spec"]),
        "CronJob" => workload.at(&["spec", "jobTemplate", "spec", "template", "spec"]),
        _ => None,
    }
}

fn check_pod(pod: Value<'_>, out: &mut InFile<'_>) {
    for kind in ["initContainers", "containers"] {
        for container in pod.get(kind).into_iter().flat_map(Value::items) {
            Container {
                name: container
                    .get("name")
                    .and_then(Value::str)
                    .unwrap_or("without a name"),
                is: container,
                pod,
            }
            .check(out);
        }
    }
}

struct Container<'a> {
    name: &'a str,
    is: Value<'a>,
    pod: Value<'a>,
}

impl<'a> Container<'a> {
    fn check(&self, out: &mut InFile<'_>) {
        self.user(out);
        self.escalation(out);
        self.capabilities(out);
        self.ports(out);
    }

    fn image(&self) -> &'a str {
        self.is
            .get("image")
            .and_then(Value::str)
            .unwrap_or_default()
    }

    fn is_node(&self) -> bool {
        let runs = |key| {
            self.is
                .get(key)
                .and_then(Value::words)
                .is_some_and(|words| command::exec(&words).is_node())
        };
        image::is_node(self.image()) || runs("command") || runs("args")
    }

    /// A field of the container's security context.
    fn own(&self, key: &str) -> Option<Value<'a>> {
        self.is.at(&["securityContext", key])
    }

    /// The same, else of the pod's.
    fn effective(&self, key: &str) -> Option<Value<'a>> {
        self.own(key)
            .or_else(|| self.pod.at(&["securityContext", key]))
    }

    /// What runs: `node` where that is known, else `it`.
    fn subject(&self) -> &'static str {
        if self.is_node() { "node" } else { "it" }
    }

    fn user(&self, out: &mut InFile<'_>) {
        let name = self.name;
        let non_root = self.effective("runAsNonRoot").and_then(Value::bool) == Some(true);
        let user = self.effective("runAsUser");
        let uid = user.and_then(Value::int);
        // With both, the kubelet refuses to start root.
        if non_root || uid.is_some_and(|uid| uid != 0) {
            return;
        }
        let starts_other = uid.is_none() && image::starts(self.image()) == Starts::NonRoot;
        let subject = self.subject();
        let severity = match (uid, starts_other) {
            (Some(_), _) => Severity::High,
            (None, true) => Severity::Low,
            (None, false) if self.is_node() => Severity::High,
            (None, false) => Severity::Medium,
        };
        let what = match uid {
            Some(_) => format!("container {name}: {subject} runs as root: runAsUser is 0"),
            None => format!(
                "container {name}: {subject} may run as root: neither runAsNonRoot nor runAsUser forbids it"
            ),
        };
        out.found(
            "k8s-user",
            severity,
            user.unwrap_or(self.is).line(),
            what,
            "set `runAsNonRoot: true` and a `runAsUser` that is not 0 in its securityContext",
        );
    }

    fn escalation(&self, out: &mut InFile<'_>) {
        let name = self.name;
        if let Some(privileged) = self.own("privileged")
            && privileged.bool() == Some(true)
        {
            out.found(
                "k8s-privileged",
                Severity::High,
                privileged.line(),
                format!("container {name} is privileged: that is root of the node"),
                format!("take line {} out", privileged.line()),
            );
        }
        let field = self.own("allowPrivilegeEscalation");
        if field.and_then(Value::bool) != Some(false) {
            out.found(
                "k8s-privilege-escalation",
                Severity::Low,
                field.unwrap_or(self.is).line(),
                format!("container {name} may gain privileges, by a set-uid program for one"),
                "set `allowPrivilegeEscalation: false` in its securityContext",
            );
        }
    }

    fn capabilities(&self, out: &mut InFile<'_>) {
        let name = self.name;
        let capabilities = self.own("capabilities");
        let of = |key| {
            capabilities
                .and_then(|capabilities| capabilities.get(key))
                .into_iter()
                .flat_map(Value::items)
        };
        let drops_all = of("drop").any(|dropped| {
            dropped
                .str()
                .is_some_and(|dropped| dropped.eq_ignore_ascii_case("ALL"))
        });
        if !drops_all {
            out.found(
                "k8s-capabilities",
                Severity::Low,
                capabilities.unwrap_or(self.is).line(),
                format!("container {name} keeps the runtime's capabilities"),
                "set `capabilities: {drop: [ALL]}` in its securityContext",
            );
        }
        // What faces a low port without being Node may need this one.
        let may_bind = !self.is_node();
        for added in of("add") {
            let (severity, capability) = capability_added(added);
            if !(may_bind && capability == "CAP_NET_BIND_SERVICE") {
                out.found(
                    "k8s-capabilities",
                    severity,
                    added.line(),
                    format!("container {name}: {} is given {capability}", self.subject()),
                    "take it out, and let lowport hold 80 and 443",
                );
            }
        }
    }

    fn ports(&self, out: &mut InFile<'_>) {
        if image::is_lowport(self.image()) {
            return;
        }
        let host_network = self.pod.get("hostNetwork").and_then(Value::bool) == Some(true);
        for port in self.is.get("ports").into_iter().flat_map(Value::items) {
            let host = port
                .get("hostPort")
                .or_else(|| port.get("containerPort").filter(|_| host_network));
            if let Some(host) = host
                && matches!(host.int(), Some(80 | 443))
            {
                out.found(
                    "k8s-host-port",
                    Severity::Medium,
                    host.line(),
                    format!(
                        "container {}: {} takes port {} of the host itself",
                        self.name,
                        self.subject(),
                        host.str().unwrap_or_default()
                    ),
                    "let lowport, or the Service before it, have the port",
                );
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::report::Report;
    use super::*;

    fn told(text: &str) -> Vec<String> {
        let yaml = Yaml::parse(text).unwrap();
        let mut report = Report::default();
        check(&yaml, &mut report.file("m.yaml".as_ref()));
        super::super::testing::told(&report)
    }

    const GOOD: &str = "securityContext: {runAsNonRoot: true, runAsUser: 1000, allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}";

    fn deployment(pod: &str, container: &str) -> String {
        format!(
            "apiVersion: apps/v1\nkind: Deployment\nspec:\n  template:\n    spec:\n      {pod}\n      containers:\n        - name: web\n          image: node:20\n          {container}\n"
        )
    }

    #[test]
    fn what_a_container_lacks_is_found() {
        for (pod, container, expected) in [
            (
                "x: 1",
                "x: 1",
                &[
                    "high 8 k8s-user",
                    "low 8 k8s-privilege-escalation",
                    "low 8 k8s-capabilities",
                ][..],
            ),
            ("x: 1", GOOD, &[]),
            // The container's word counts, field by field.
            (
                "securityContext: {runAsNonRoot: true}",
                "securityContext: {runAsNonRoot: false, allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}",
                &["high 8 k8s-user"],
            ),
            (
                "securityContext: {runAsUser: 1000}",
                "securityContext: {allowPrivilegeEscalation: false, capabilities: {drop: [all]}}",
                &[],
            ),
            (
                "securityContext: {runAsUser: 1000}",
                "securityContext: {runAsUser: 0, allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}",
                &["high 10 k8s-user"],
            ),
            (
                "securityContext: {runAsNonRoot: true}",
                "securityContext: {privileged: true, allowPrivilegeEscalation: true, capabilities: {drop: [NET_RAW], add: [NET_BIND_SERVICE, SYS_ADMIN]}}",
                &[
                    "high 10 k8s-privileged",
                    "low 10 k8s-privilege-escalation",
                    "low 10 k8s-capabilities",
                    "medium 10 k8s-capabilities",
                    "high 10 k8s-capabilities",
                ],
            ),
        ] {
            let text = deployment(pod, container);
            assert_eq!(told(&text), expected, "{text}");
        }
    }

    #[test]
    fn ports_of_the_host_are_found() {
        let ports = |pod: &str, port: &str| {
            told(&deployment(
                pod,
                &format!("{GOOD}\n          ports: [{port}]"),
            ))
        };
        assert_eq!(ports("x: 1", "{containerPort: 80}"), [] as [&str; 0]);
        assert_eq!(
            ports("x: 1", "{containerPort: 3000, hostPort: 80}"),
            ["medium 11 k8s-host-port"]
        );
        assert_eq!(
            ports("hostNetwork: true", "{containerPort: 443}"),
            ["medium 11 k8s-host-port"]
        );
        assert_eq!(
            ports("hostNetwork: true", "{containerPort: 3000}"),
            [] as [&str; 0]
        );
    }

    #[test]
    fn every_kind_of_workload_is_found() {
        let container = "{containers: [{name: a, image: x, securityContext: {allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}}]}";
        for (kind, spec) in [
            ("Pod", format!("spec: {container}")),
            (
                "StatefulSet",
                format!("spec: {{template: {{spec: {container}}}}}"),
            ),
            (
                "DaemonSet",
                format!("spec: {{template: {{spec: {container}}}}}"),
            ),
            (
                "ReplicaSet",
                format!("spec: {{template: {{spec: {container}}}}}"),
            ),
            ("Job", format!("spec: {{template: {{spec: {container}}}}}")),
            (
                "CronJob",
                format!("spec: {{jobTemplate: {{spec: {{template: {{spec: {container}}}}}}}}}"),
            ),
        ] {
            let text = format!("apiVersion: v1\nkind: {kind}\n{spec}\n");
            assert_eq!(told(&text), ["medium 3 k8s-user"], "{text}");
            let list = format!("apiVersion: v1\nkind: List\nitems:\n- kind: {kind}\n  {spec}\n");
            assert_eq!(told(&list), ["medium 5 k8s-user"], "{list}");
        }
        assert_eq!(
            told("apiVersion: v1\nkind: Service\nspec: {containers: [{name: a}]}\n"),
            [] as [&str; 0]
        );
        assert_eq!(
            told("kind: Pod\nspec: {containers: [{name: a}]}\n"),
            [] as [&str; 0]
        );
    }
}
