//! Nothing in the repository belongs to one machine: no home folders, no package hosts.

use crate::workspace::File;

// Spelled in two parts, so that this file does not find itself.
const FOLDERS: [&str; 5] = [
    concat!("/ho", "me/"),
    concat!("/wo", "rk/"),
    concat!("/op", "t/"),
    concat!("/ro", "ot/"),
    concat!("/Us", "ers/"),
];
const HOSTS: [&str; 8] = [
    concat!("pypi", ".org"),
    concat!("pythonhosted", ".org"),
    concat!("registry.npmjs", ".org"),
    concat!("deb.debian", ".org"),
    concat!("static.crates", ".io"),
    concat!("index.crates", ".io"),
    concat!("download.pytorch", ".org"),
    concat!("artifact", "ory"),
];
/// The one source that a lock file may name.
const REGISTRY: &str = "\"registry+https://github.com/rust-lang/crates.io-index\"";

pub(super) fn check(files: &[File]) -> Vec<String> {
    let mut findings = Vec::new();
    for file in files {
        for (index, line) in file.text().lines().enumerate() {
            let folder = FOLDERS.iter().find(|folder| names_folder(line, folder));
            let host = HOSTS.iter().find(|host| line.contains(*host));
            for word in folder.into_iter().chain(host) {
                findings.push(format!("`{}:{}` names `{word}`", file.path, index + 1));
            }
            if file.path == "Cargo.lock"
                && line.strip_prefix("source = ").is_some_and(|source| source != REGISTRY)
            {
                findings.push(format!(
                    "`Cargo.lock:{}` has another source than the registry",
                    index + 1
                ));
            }
        }
    }
    findings
}

/// True if `folder` stands at the start of a path: `frame/work/` in the middle of one does not count.
fn names_folder(line: &str, folder: &str) -> bool {
    line.match_indices(folder).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        !before.is_some_and(|c| c.is_alphanumeric() || "._-/}".contains(c))
    })
}

#[cfg(test)]
mod tests {
    use super::super::file;
    use super::*;

    #[test]
    fn machine_folders_and_hosts_are_found() {
        for word in FOLDERS {
            assert_eq!(check(&[file("a.md", &format!("see {word}me/x"))]).len(), 1, "{word}");
            assert!(check(&[file("a.md", &format!("see ours{word}me/x"))]).is_empty(), "{word}");
        }
        for word in HOSTS {
            assert_eq!(
                check(&[file("a.txt", &format!("--index-url https://{word}/simple"))]).len(),
                1
            );
        }
    }

    #[test]
    fn a_lock_file_names_one_registry() {
        let good = format!("source = {REGISTRY}\n");
        assert!(check(&[file("Cargo.lock", &good)]).is_empty());
        let bad = "source = \"git+https://example.com/x\"\n";
        assert_eq!(check(&[file("Cargo.lock", bad)]).len(), 1);
    }
}
