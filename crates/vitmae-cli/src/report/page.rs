//! The page about a run.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::history::History;
use crate::html;

/// Notes that are shown; a run with more of them shows the last.
const MOST_NOTES: usize = 50;

/// The page: where the run stands, its curves, its newest sheet, what happened and its settings.
pub fn html(folder: &Path, history: &History, curves: &str) -> String {
    let name = folder.file_name().unwrap_or(folder.as_os_str()).to_string_lossy();
    let mut body = format!(
        "<h1>{}</h1>\n<p class=\"lead\">{}</p>\n<ul class=\"facts\">\n{}</ul>\n<h2>Curves</h2>\n<figure>{}</figure>\n",
        html::escape(&name),
        "What this training has written of itself. The numbers are in <code>steps.csv</code> and <code>epochs.csv</code>.",
        facts(history),
        html::inline_svg(curves),
    );
    if let Some((name, png)) = newest_sheet(&folder.join("sheets")) {
        body += &format!(
            "<h2>Reconstructions</h2>\n<img class=\"sheet\" alt=\"Original, visible patches, reconstruction, reconstruction \
             with visible patches\" src=\"{}\">\n<p class=\"caption\">{}</p>\n",
            html::png_source(&png),
            html::escape(&name)
        );
    }
    if !history.notes.is_empty() {
        let first = history.notes.len().saturating_sub(MOST_NOTES);
        let rows: String = history.notes[first..].iter().map(note).collect();
        body += &format!("<h2>What happened</h2>\n<table class=\"plain\">\n{rows}</table>\n");
    }
    let settings = settings(folder);
    if !settings.is_empty() {
        let rows: String = settings.iter().map(|(key, value)| html::row(key, value)).collect();
        body += &format!("<h2>Settings</h2>\n<table class=\"plain\">\n{rows}</table>\n");
    }
    html::page(&name, &body)
}

fn facts(history: &History) -> String {
    let mut facts = Vec::new();
    if let Some(step) = history.steps.last() {
        facts.push((step.step.to_string(), "updates made"));
    }
    let number = |key: &str| history.last(key);
    facts.extend(number("train_loss").map(|x| (format!("{x:.4}"), "loss of the last epoch")));
    facts.extend(number("val_loss").map(|x| (format!("{x:.4}"), "loss on evaluation images")));
    facts.extend(number("val_accuracy").map(|x| (format!("{:.2} %", 100.0 * x), "of them right")));
    let mut speeds: Vec<f64> = history.steps.iter().map(|step| step.images_per_second).collect();
    speeds.sort_unstable_by(f64::total_cmp);
    facts.extend(
        speeds.get(speeds.len() / 2).map(|x| (format!("{x:.1}"), "images per second, median")),
    );
    facts.iter().map(|(number, what)| format!("<li><b>{number}</b> {what}</li>\n")).collect()
}

fn note(line: &Value) -> String {
    let mut text: Vec<String> = Vec::new();
    for (key, value) in line.as_object().into_iter().flatten() {
        if key != "kind" && key != "step" {
            let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            text.push(format!("{} {value}", key.replace('_', " ")));
        }
    }
    let kind = line["kind"].as_str().unwrap_or_default();
    html::row(&format!("update {}: {kind}", line["step"]), &text.join(", "))
}

/// The name and the bytes of the last sheet by name.
fn newest_sheet(folder: &Path) -> Option<(String, Vec<u8>)> {
    let names = std::fs::read_dir(folder).ok()?.flatten().map(|entry| entry.file_name());
    let names = names.filter_map(|name| name.into_string().ok());
    let newest = names.filter(|name| name.ends_with(".png")).max()?;
    let png = std::fs::read(folder.join(&newest)).ok()?;
    Some((newest, png))
}

/// The settings that decide the result, from the newest checkpoint: dotted names and values.
fn settings(folder: &Path) -> Vec<(String, String)> {
    let newest = || -> Option<PathBuf> {
        let entries = std::fs::read_dir(folder).ok()?.flatten().map(|entry| entry.path());
        entries.filter(|path| path.join("MANIFEST.json").is_file()).max()
    };
    let state = newest().and_then(|ckpt| std::fs::read_to_string(ckpt.join("state.json")).ok());
    let state = state.and_then(|text| serde_json::from_str::<Value>(&text).ok());
    let mut all = Vec::new();
    flatten("", &state.unwrap_or_default()["identity"], &mut all);
    all
}

fn flatten(name: &str, value: &Value, all: &mut Vec<(String, String)>) {
    match value {
        Value::Object(inside) => {
            for (key, value) in inside {
                let name = if name.is_empty() { key.clone() } else { format!("{name}.{key}") };
                flatten(&name, value, all);
            }
        }
        Value::Null => {}
        Value::String(text) => all.push((name.to_owned(), text.clone())),
        other => all.push((name.to_owned(), other.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::super::history::tests::history;
    use super::*;

    #[test]
    fn a_page_tells_where_a_run_stands() {
        let folder = tempfile::tempdir().unwrap();
        let run = folder.path().join("my <run>");
        std::fs::create_dir_all(run.join("sheets")).unwrap();
        std::fs::write(run.join("sheets/epoch-0001.png"), "old").unwrap();
        std::fs::write(run.join("sheets/epoch-0002.png"), "foo").unwrap();
        for (step, lr) in [("ckpt-00000001", 9), ("ckpt-00000002", 7)] {
            std::fs::create_dir(run.join(step)).unwrap();
            std::fs::write(run.join(step).join("MANIFEST.json"), "").unwrap();
            let state = format!("{{\"identity\":{{\"lr\":{lr},\"model\":{{\"x\":\"y\"}}}}}}");
            std::fs::write(run.join(step).join("state.json"), state).unwrap();
        }
        let page = html(&run, &history(), "<?xml?><svg>curve</svg>");
        for part in [
            "<title>my &lt;run&gt;</title>",
            "<b>3</b> updates made",
            "<b>50.00 %</b> of them right",
            "<figure><svg>curve</svg></figure>",
            "base64,Zm9v\"",
            "update 3: spike</th><td>what loss, value 1.2, usual 0.5<",
            "model.x</th><td>y<",
            "lr</th><td>7<",
        ] {
            assert!(page.contains(part), "{part} is not in {page}");
        }
        // A folder without checkpoints and sheets has a page too.
        assert!(!html(folder.path(), &History::default(), "").contains("Settings"));
    }
}
