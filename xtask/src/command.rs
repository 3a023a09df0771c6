//! Running other programs in the workspace root.

use std::process::Command;

use anyhow::{Context, bail};

use crate::workspace;

/// A command line, shown as it can be typed.
pub(crate) struct Line {
    program: String,
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
}

impl Line {
    /// `program` with arguments separated by blanks.
    pub(crate) fn new(program: impl Into<String>, arguments: &str) -> Self {
        let arguments = arguments.split_whitespace().map(str::to_owned).collect();
        Self { program: program.into(), arguments, environment: Vec::new() }
    }

    /// `cargo` with arguments separated by blanks.
    pub(crate) fn cargo(arguments: &str) -> Self {
        Self::new("cargo", arguments)
    }

    /// Adds one argument, blanks and all.
    pub(crate) fn argument(mut self, argument: impl Into<String>) -> Self {
        self.arguments.push(argument.into());
        self
    }

    /// Sets an environment variable.
    pub(crate) fn environment(mut self, name: &str, value: impl Into<String>) -> Self {
        self.environment.push((name.to_owned(), value.into()));
        self
    }

    /// The line as it can be typed in a shell.
    pub(crate) fn shown(&self) -> String {
        let variables =
            self.environment.iter().map(|(name, value)| format!("{name}={}", quoted(value)));
        let words = std::iter::once(&self.program).chain(&self.arguments).map(|word| quoted(word));
        variables.chain(words).collect::<Vec<_>>().join(" ")
    }

    /// The program, ready to start in the workspace root.
    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.args(&self.arguments).current_dir(workspace::root());
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }

    /// Runs it with our input and output.
    ///
    /// # Errors
    /// If it cannot start or does not exit with 0.
    pub(crate) fn run(&self) -> anyhow::Result<()> {
        let status = self.command().status();
        let status = status.with_context(|| format!("`{}` does not start", self.program))?;
        if !status.success() {
            bail!("`{}` failed with {status}", self.shown());
        }
        Ok(())
    }
}

fn quoted(word: &str) -> String {
    if word.is_empty() || word.contains(|c: char| c.is_whitespace() || "\"'$&|;<>()*".contains(c)) {
        return format!("'{}'", word.replace('\'', r"'\''"));
    }
    word.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_shown_as_it_is_typed() {
        let line = Line::cargo("doc --no-deps").environment("RUSTDOCFLAGS", "-D warnings");
        assert_eq!(
            line.argument("a b").shown(),
            "RUSTDOCFLAGS='-D warnings' cargo doc --no-deps 'a b'"
        );
    }

    #[test]
    fn a_failing_program_and_a_missing_one_are_errors() {
        let error = Line::cargo("no-such-subcommand-here").run().unwrap_err();
        assert!(error.to_string().starts_with("`cargo no-such-subcommand-here` failed"), "{error}");
        assert!(Line::new("no-such-program-here", "").run().is_err());
    }
}
