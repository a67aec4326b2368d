//! What is published besides the binary.

use std::process::Command;

use serde_json::Value;

use super::{is_there, repository};

#[test]
fn the_bill_of_materials_has_what_is_built_and_nothing_else() {
    const TEST: &str = "the bill of materials";
    let python = ["-c", "import tomllib"];
    if !is_there(TEST, "python3", &python) || !is_there(TEST, "cargo", &["--version"]) {
        return;
    }
    let bill = || -> Vec<u8> {
        let output = Command::new(repository("deploy/sbom"))
            .arg("x86_64-unknown-linux-gnu")
            .env("SOURCE_DATE_EPOCH", "1750000000")
            .output()
            .expect("it runs");
        assert!(output.status.success(), "{output:?}");
        output.stdout
    };
    let text = bill();
    assert_eq!(text, bill(), "the same each time");
    let bill: Value = serde_json::from_slice(&text).unwrap();
    assert_eq!(bill["bomFormat"], "CycloneDX");
    assert_eq!(bill["metadata"]["timestamp"], "2025-06-15T15:06:40Z");
    let components = bill["components"].as_array().unwrap();
    let mut references: Vec<&str> = Vec::new();
    for component in components {
        references.push(component["bom-ref"].as_str().unwrap());
        let hash = component["hashes"][0]["content"].as_str();
        assert!(hash.is_some_and(|hash| hash.len() == 64), "{component}");
        let license = component["licenses"][0]["expression"].as_str();
        assert!(
            license.is_some_and(|text| !text.contains('/')),
            "{component}"
        );
    }
    let has = |name: &str| {
        let start = format!("pkg:cargo/{name}@");
        references
            .iter()
            .any(|reference| reference.starts_with(&start))
    };
    for name in ["hyper", "rustls", "aws-lc-sys", "cc", "clap_derive"] {
        assert!(has(name), "{name}");
    }
    for name in [
        "criterion",
        "tempfile",
        "fastrand",
        "windows-sys",
        "lowport",
    ] {
        assert!(!has(name), "{name}");
    }
    // Whatever is said to be needed is there.
    for node in bill["dependencies"].as_array().unwrap() {
        for needed in node["dependsOn"].as_array().unwrap() {
            let needed = needed.as_str().unwrap();
            assert!(references.contains(&needed), "{node}");
        }
    }
}
