//! `cargo xtask bench instructions`: instruction counts of some kernels, against those that were recorded.

use std::collections::BTreeMap;

use anyhow::{Context, bail};
use serde_json::Value;

use crate::command::Line;
use crate::usage::Usage;
use crate::workspace;

/// Where the counts stand.
const RECORD: &str = "benches/instructions.json";
/// Growth that is reported as a failure; another compiler changes less, a lost vector loop far more.
const TOLERANCE: f64 = 0.02;

/// Instructions by the name of a kernel.
type Counts = BTreeMap<String, u64>;

pub(crate) fn run(arguments: &[String]) -> anyhow::Result<()> {
    let update = match arguments {
        [] => false,
        [flag] if flag == "--update" => true,
        [other, ..] => return Err(Usage(format!("`{other}` is not known")).into()),
    };
    let found = measured()?;
    let path = workspace::root().join(RECORD);
    if update {
        let text = serde_json::to_string_pretty(&found)? + "\n";
        return std::fs::write(&path, text).with_context(|| format!("`{RECORD}`"));
    }
    let text = std::fs::read_to_string(&path).with_context(|| format!("`{RECORD}`"))?;
    let recorded: Counts = serde_json::from_str(&text).with_context(|| format!("`{RECORD}`"))?;
    let grown = compare(&recorded, &found);
    if !grown.is_empty() {
        bail!(
            "{}\nhelp: if that is meant, `cargo xtask bench instructions --update`",
            grown.join("\n")
        );
    }
    Ok(())
}

/// Runs the bench.
fn measured() -> anyhow::Result<Counts> {
    let line = Line::cargo(
        "bench --package vitmae-benches --features instructions --bench instructions -- --output-format=json",
    );
    let output = line.command().output().with_context(|| format!("`{}`", line.shown()))?;
    if !output.status.success() {
        bail!(
            "`{}` failed\n{}\nhelp: it needs Valgrind and `cargo install gungraun-runner --version 0.20.0`",
            line.shown(),
            String::from_utf8_lossy(&output.stderr)
        );
    }
    let text = String::from_utf8_lossy(&output.stdout);
    let counts: Counts = text.lines().filter_map(count).collect();
    if counts.is_empty() {
        bail!("`{}` printed no counts", line.shown());
    }
    Ok(counts)
}

/// Name and instructions of one line of gungraun's JSON.
fn count(line: &str) -> Option<(String, u64)> {
    let result: Value = serde_json::from_str(line).ok()?;
    let name = format!("{} {}", result["function_name"].as_str()?, result["id"].as_str()?);
    let total = &result["profiles"][0]["data"]["total"]["metrics"];
    Some((name, total["Ir"]["values"]["new"].as_u64()?))
}

/// Prints every kernel; returns what is wrong.
fn compare(recorded: &Counts, found: &Counts) -> Vec<String> {
    let mut wrong = Vec::new();
    for (name, &count) in found {
        let Some(&before) = recorded.get(name) else {
            wrong.push(format!("`{name}` is not in {RECORD}"));
            continue;
        };
        let change = count as f64 / before as f64 - 1.0;
        println!("{name}: {count} instructions, {:+.2} %", 100.0 * change);
        if change > TOLERANCE {
            wrong.push(format!("`{name}` takes {count} instructions, {before} were recorded"));
        }
    }
    let missing = recorded.keys().filter(|name| !found.contains_key(*name));
    wrong.extend(missing.map(|name| format!("`{name}` was not measured")));
    wrong
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn growth_and_gaps_are_found() {
        let line = |name: &str, count: u64| {
            let total = serde_json::json!({"metrics": {"Ir": {"values": {"new": count}}}});
            let data = serde_json::json!({"total": total});
            let profile = serde_json::json!({"data": data});
            let line =
                serde_json::json!({"function_name": name, "id": "f32", "profiles": [profile]});
            line.to_string()
        };
        let counts = |lines: &[(&str, u64)]| -> Counts {
            lines.iter().filter_map(|&(name, n)| count(&line(name, n))).collect()
        };
        let recorded = counts(&[("gemm", 1000), ("gelu", 500)]);
        assert_eq!(recorded["gemm f32"], 1000);
        assert!(compare(&recorded, &counts(&[("gemm", 1019), ("gelu", 100)])).is_empty());
        assert_eq!(compare(&recorded, &counts(&[("gemm", 1021), ("gelu", 500)])).len(), 1);
        assert_eq!(compare(&recorded, &counts(&[("gemm", 1000), ("new", 1)])).len(), 2);
        assert_eq!(count("no JSON"), None);
    }
}
