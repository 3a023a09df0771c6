//! Recipes: flags of `pretrain`, `finetune` and `linprobe` as a TOML file, by name or by path, and `vitmae recipes`.
//!
//! A recipe's settings are put in front of the flags of the command line, so that these win.

use std::ffi::OsString;
use std::path::Path;

use anyhow::{Context, Result};
use clap::{Args, Subcommand};
use serde_json::json;
use toml::{Table, Value};

use crate::Global;
use crate::exit::{BadInput, Usage, hyphenate};

/// The recipes that come with the program.
const RECIPES: [(&str, &str); 12] = [
    ("pretrain-small", include_str!("../recipes/pretrain-small.toml")),
    ("pretrain-base", include_str!("../recipes/pretrain-base.toml")),
    ("pretrain-large", include_str!("../recipes/pretrain-large.toml")),
    ("pretrain-huge", include_str!("../recipes/pretrain-huge.toml")),
    ("finetune-small", include_str!("../recipes/finetune-small.toml")),
    ("finetune-base", include_str!("../recipes/finetune-base.toml")),
    ("finetune-large", include_str!("../recipes/finetune-large.toml")),
    ("finetune-huge", include_str!("../recipes/finetune-huge.toml")),
    ("linprobe-small", include_str!("../recipes/linprobe-small.toml")),
    ("linprobe-base", include_str!("../recipes/linprobe-base.toml")),
    ("linprobe-large", include_str!("../recipes/linprobe-large.toml")),
    ("linprobe-huge", include_str!("../recipes/linprobe-huge.toml")),
];
/// Flags that say which model it is, in place of a recipe's.
const OTHER_MODELS: [&str; 5] =
    ["--config", "--config-name", "--init", "--model-name-or-path", "--finetune"];

/// Example: vitmae recipes show finetune-base > mine.toml; vitmae finetune --recipe mine.toml …
#[derive(Args, Debug)]
pub struct RecipesArgs {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand, Debug)]
enum Action {
    /// Name each recipe
    List,
    /// Print a recipe, with the source of its numbers
    Show {
        /// One of the names of `list`
        name: String,
    },
}

/// Runs the command.
pub fn run(args: &RecipesArgs, global: &Global) -> Result<u8> {
    match &args.action {
        Action::List => {
            let all = RECIPES.map(|(name, text)| Ok((name, Recipe::parse(text)?)));
            let all = all.into_iter().collect::<Result<Vec<(&str, Recipe)>>>()?;
            if global.json {
                let all: Vec<_> = all
                    .iter()
                    .map(|(name, r)| json!({"name": name, "command": r.command, "summary": r.summary}))
                    .collect();
                outln!("{}", json!(all));
            } else {
                all.iter().for_each(|(name, recipe)| outln!("{name:16} {}", recipe.summary));
            }
        }
        Action::Show { name } => outln!("{}", text_of(name)?.trim_end()),
    }
    Ok(0)
}

/// A recipe as its file has it.
struct Recipe {
    command: String,
    summary: String,
    settings: Table,
}

impl Recipe {
    fn parse(text: &str) -> Result<Self> {
        let table: Table = text.parse().map_err(|error: toml::de::Error| {
            BadInput(error.to_string().trim_end().replace('\n', "\n  "))
        })?;
        let text = |key: &str| table.get(key).and_then(Value::as_str).map(str::to_owned);
        let missing = |key: &str| BadInput(format!("it has no `{key}`, expected a text"));
        let settings = table.get("settings").and_then(Value::as_table);
        Ok(Self {
            command: text("command").ok_or_else(|| missing("command"))?,
            summary: text("summary").unwrap_or_default(),
            settings: settings
                .ok_or_else(|| BadInput("it has no table `settings`".into()))?
                .clone(),
        })
    }

    /// Its settings as flags.
    fn flags(&self) -> Result<Vec<String>> {
        let mut flags = Vec::new();
        for (key, value) in &self.settings {
            let flag = format!("--{}", key.replace('_', "-"));
            let values = match value {
                Value::Boolean(true) => vec![],
                Value::Boolean(false) => continue,
                Value::Array(all) => {
                    all.iter().map(plain).collect::<Option<Vec<_>>>().with_context(|| {
                        BadInput(format!("`{key}` is a list of something else than numbers"))
                    })?
                }
                value => vec![plain(value).with_context(|| {
                    BadInput(format!(
                        "`{key}` is a {}, expected a text or a number",
                        value.type_str()
                    ))
                })?],
            };
            flags.push(flag);
            flags.extend(values);
        }
        Ok(flags)
    }
}

fn plain(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Integer(number) => Some(number.to_string()),
        Value::Float(number) => Some(number.to_string()),
        _ => None,
    }
}

/// The text of a recipe by name or path.
fn text_of(name: &str) -> Result<String> {
    if let Some((_, text)) = RECIPES.iter().find(|(known, _)| *known == name) {
        return Ok((*text).to_owned());
    }
    if Path::new(name).is_file() {
        return std::fs::read_to_string(name).with_context(|| format!("cannot read `{name}`"));
    }
    let names = RECIPES.map(|(name, _)| name).join(", ");
    Err(Usage(format!(
        "there is no recipe and no file `{name}`, expected a file or one of {names}"
    ))
    .into())
}

/// The arguments with `--recipe NAME` replaced by the recipe's flags, right behind the command.
///
/// # Errors
/// If there is no such recipe, it cannot be read, or it is for another command.
pub fn expand(arguments: Vec<OsString>) -> Result<Vec<OsString>> {
    let arguments: Vec<OsString> = arguments.into_iter().map(hyphenate).collect();
    let is = |text: &str| arguments.iter().position(|a| a.to_str().is_some_and(|a| a == text));
    let joined =
        arguments.iter().position(|a| a.to_str().is_some_and(|a| a.starts_with("--recipe=")));
    let (at, name, count) = match (is("--recipe"), joined) {
        (Some(at), _) => match arguments.get(at + 1).and_then(|name| name.to_str()) {
            Some(name) => (at, name.to_owned(), 2),
            None => return Err(Usage("`--recipe` needs a name or a file".to_owned()).into()),
        },
        (None, Some(at)) => {
            let name = arguments[at].to_str().unwrap_or_default();
            (at, name.trim_start_matches("--recipe=").to_owned(), 1)
        }
        (None, None) => return Ok(arguments),
    };
    let commands =
        ["pretrain", "finetune", "linprobe"].map(|command| Some((is(command)?, command)));
    let Some((place, command)) = commands.into_iter().flatten().min() else {
        return Err(Usage(
            "`--recipe` belongs to `pretrain`, `finetune` and `linprobe`".to_owned(),
        )
        .into());
    };
    let wrong = || format!("the recipe `{name}` cannot be used");
    let mut recipe = Recipe::parse(&text_of(&name)?).with_context(wrong)?;
    if recipe.command != command {
        let message = format!("it is for `{}`, not for `{command}`", recipe.command);
        return Err(anyhow::Error::new(Usage(message)).context(wrong()));
    }
    if OTHER_MODELS.iter().any(|flag| {
        let given = |a: &OsString| a.to_str().is_some_and(|a| a.split('=').next() == Some(flag));
        arguments.iter().any(given)
    }) {
        recipe.settings.remove("model");
    }
    let mut expanded = arguments;
    expanded.drain(at..at + count);
    let place = if at < place { place - count } else { place };
    let flags = recipe.flags().with_context(wrong)?;
    expanded.splice(place + 1..place + 1, flags.into_iter().map(OsString::from));
    Ok(expanded)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expanded(arguments: &[&str]) -> Result<Vec<String>> {
        let arguments = arguments.iter().map(OsString::from).collect();
        Ok(expand(arguments)?.into_iter().map(|a| a.into_string().unwrap()).collect())
    }

    #[test]
    fn every_recipe_is_understood_by_its_command() {
        use clap::Parser;
        for (name, text) in RECIPES {
            let recipe = Recipe::parse(text).unwrap();
            let model: &[&str] = if recipe.command == "linprobe" { &["--model=m"] } else { &[] };
            let rest = [&["--data-path", "images", "--recipe", name][..], model].concat();
            let all =
                expanded(&[&["vitmae", recipe.command.as_str()][..], &rest[..]].concat()).unwrap();
            assert!(crate::Cli::try_parse_from(all).is_ok(), "{name}");
            assert!(
                !recipe.summary.is_empty() && text.starts_with('#'),
                "{name} names its sources"
            );
        }
    }

    #[test]
    fn a_recipe_stands_in_front_of_the_flags_and_gives_way_to_another_model() {
        let all =
            expanded(&["vitmae", "-q", "pretrain", "--recipe=pretrain-small", "--epochs", "3"])
                .unwrap();
        let place = |text: &str| all.iter().rposition(|a| a == text).unwrap();
        assert_eq!(all[..3], ["vitmae", "-q", "pretrain"]);
        assert_eq!(all.iter().filter(|a| *a == "--epochs").count(), 2);
        assert_eq!((place("--epochs"), all.len()), (all.len() - 2, all.len()));
        assert!(all.contains(&"tiny-32".to_owned()) && all.contains(&"--norm-pix-loss".to_owned()));
        let all = expanded(&["vitmae", "pretrain", "--recipe", "pretrain-small", "--init", "run"])
            .unwrap();
        assert!(!all.contains(&"--model".to_owned()));
        let same = ["vitmae", "pretrain", "--data-path", "x"];
        assert_eq!(expanded(&same).unwrap(), same);
    }

    #[test]
    fn what_is_no_recipe_is_named() {
        let error = |arguments: &[&str]| format!("{:#}", expanded(arguments).unwrap_err());
        assert!(
            error(&["vitmae", "pretrain", "--recipe", "none"])
                .contains("no recipe and no file `none`")
        );
        let wrong = error(&["vitmae", "pretrain", "--recipe", "finetune-base"]);
        assert!(wrong.contains("it is for `finetune`, not for `pretrain`"), "{wrong}");
        assert!(error(&["vitmae", "bench", "--recipe", "finetune-base"]).contains("belongs to"));
        assert!(error(&["vitmae", "pretrain", "--recipe"]).contains("needs a name"));
        for (text, message) in [
            ("summary = 1", "no `command`"),
            ("command = \"pretrain\"", "no table `settings`"),
            ("command = [", "TOML parse error"),
        ] {
            let error = Recipe::parse(text).err().unwrap().to_string();
            assert!(error.contains(message), "{error}");
        }
    }
}
