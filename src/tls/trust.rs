//! How to make clients trust the local certificate authority.

use std::fmt::Write;
use std::path::Path;

/// Instructions for the usual systems, browsers and programs, with commands to paste. It ends with a newline.
pub fn trust_help(ca: &Path) -> String {
    let ca = shell(ca);
    let ways = [
        (
            "Debian, Ubuntu",
            format!(
                "sudo cp {ca} /usr/local/share/ca-certificates/lowport-dev.crt && sudo update-ca-certificates"
            ),
        ),
        (
            "Fedora, RHEL",
            format!(
                "sudo cp {ca} /etc/pki/ca-trust/source/anchors/lowport-dev.pem && sudo update-ca-trust"
            ),
        ),
        (
            "macOS",
            format!(
                "security add-trusted-cert -r trustRoot -k ~/Library/Keychains/login.keychain-db {ca}"
            ),
        ),
        (
            "Chromium, Chrome on Linux (certutil is in libnss3-tools or nss-tools)",
            // Newer ones have it in the second place, unless it has been in the first already.
            format!(
                "D=$HOME/.pki/nssdb; [ -d $D ] || D=$HOME/.local/share/pki/nssdb; mkdir -p $D && \
                 certutil -d sql:$D -A -t C,, -n 'lowport dev' -i {ca}"
            ),
        ),
        (
            "Firefox (PROFILE: see about:profiles; or Settings, Certificates, Authorities, Import)",
            format!("certutil -d sql:PROFILE -A -t C,, -n 'lowport dev' -i {ca}"),
        ),
        ("Node", format!("NODE_EXTRA_CA_CERTS={ca} node client.js")),
        ("curl", format!("curl --cacert {ca} https://localhost/")),
    ];
    let mut text = format!("To trust the certificates of `lowport dev`, trust {ca}:\n");
    for (who, how) in ways {
        // Writing to memory does not fail.
        let _ = write!(text, "\n  {who}\n    {how}\n");
    }
    text.push_str(
        "\nThe authority can only sign for localhost, names that end with .localhost, and loopback addresses.\n",
    );
    text
}

/// As one word for a shell.
fn shell(path: &Path) -> String {
    let path = path.display().to_string();
    let plain = |character: char| character.is_alphanumeric() || "/._-+@:,".contains(character);
    if path.chars().all(plain) {
        path
    } else {
        format!("'{}'", path.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_client_has_its_way_and_paths_survive_the_shell() {
        let help = trust_help(Path::new("/home/it's me/ca.pem"));
        for word in [
            "update-ca-certificates",
            "update-ca-trust",
            "add-trusted-cert",
            "pki/nssdb",
            "Firefox",
            "NODE_EXTRA_CA_CERTS=",
            "--cacert",
        ] {
            let line = help.lines().find(|line| line.contains(word)).unwrap();
            assert!(
                line.contains(r"'/home/it'\''s me/ca.pem'") || line.contains("Firefox"),
                "{line}"
            );
        }
        assert!(trust_help(Path::new("/h/ca.pem")).contains("--cacert /h/ca.pem "));
    }
}
