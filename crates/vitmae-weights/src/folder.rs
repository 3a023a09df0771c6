//! A model folder: `config.json`, `model.safetensors` and, beside them, `preprocessor_config.json`.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use vitmae_model::VitMaeConfig;

use crate::error::WeightsError;

/// Bytes of the longest JSON file accepted.
pub const MAX_JSON_BYTES: u64 = 1 << 20;

/// The configuration's file name.
pub const CONFIG_FILE: &str = "config.json";
/// The weights' file name.
pub const WEIGHTS_FILE: &str = "model.safetensors";
/// The image processor's file name.
pub const PREPROCESSOR_FILE: &str = "preprocessor_config.json";

/// What a folder may hold as weights, the first that is there.
const WEIGHTS: [&str; 5] = [
    WEIGHTS_FILE,
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
    "tf_model.h5",
];
/// Weights that are not read, and what they are.
const OTHER_WEIGHTS: [(&str, &str); 1] = [("flax_model.msgpack", "Flax weights")];

/// The two files of a model, found but not yet read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelFolder {
    /// The weights.
    pub weights: PathBuf,
    /// The configuration, which lies beside them.
    pub config: PathBuf,
}

impl ModelFolder {
    /// Finds the files of `path`, a folder or a file of weights.
    ///
    /// # Errors
    /// [`WeightsError::Io`] if `path` cannot be looked at, [`WeightsError::NotInFolder`] if a
    /// folder holds no weights that are read.
    pub fn find(path: &Path) -> Result<ModelFolder, WeightsError> {
        let failed = |source| WeightsError::Io { action: "open", path: path.into(), source };
        if !fs::metadata(path).map_err(failed)?.is_dir() {
            let config = path.with_file_name(CONFIG_FILE);
            return Ok(ModelFolder { weights: path.to_path_buf(), config });
        }
        let weights = WEIGHTS.iter().map(|name| path.join(name)).find(|path| path.exists());
        if let Some(weights) = weights {
            return Ok(ModelFolder { weights, config: path.join(CONFIG_FILE) });
        }
        let other = OTHER_WEIGHTS.iter().find(|(name, _)| path.join(name).exists());
        let help = match other {
            Some((name, what)) => format!(
                "it holds {what} in `{name}`, which this version does not read; save the model as \
                 one `{WEIGHTS_FILE}`"
            ),
            None => "name a folder with a model, or a file of weights".to_string(),
        };
        Err(WeightsError::NotInFolder { folder: path.into(), file: WEIGHTS_FILE, help })
    }

    /// Reads and checks the configuration.
    ///
    /// # Errors
    /// [`WeightsError::NotInFolder`] if there is none, [`WeightsError::File`] around what is wrong
    /// with it.
    pub fn read_config(&self) -> Result<VitMaeConfig, WeightsError> {
        let Some(text) = read_json_text(&self.config)? else {
            let folder = self.config.parent().unwrap_or(Path::new(".")).to_path_buf();
            let help = "the sizes of a model, above all its number of heads, are not all in its \
                        weights; copy the file from where the weights come from";
            return Err(WeightsError::NotInFolder { folder, file: CONFIG_FILE, help: help.into() });
        };
        let config = VitMaeConfig::from_json(&text).and_then(|config| {
            config.validate()?;
            Ok(config)
        });
        config.map_err(|error| WeightsError::from(error).in_file(&self.config))
    }

    /// The text of `preprocessor_config.json` beside the weights, if there is one.
    ///
    /// # Errors
    /// As [`read_json_text`].
    pub fn read_preprocessor_text(&self) -> Result<Option<String>, WeightsError> {
        read_json_text(&self.weights.with_file_name(PREPROCESSOR_FILE))
    }
}

/// The text of a JSON file of at most 1 MiB; none if it does not exist. It is not parsed.
///
/// # Errors
/// [`WeightsError::Io`], [`WeightsError::NotAFile`], and [`WeightsError::File`] around
/// [`WeightsError::TextTooLarge`] or [`WeightsError::NotUtf8`].
pub fn read_json_text(path: &Path) -> Result<Option<String>, WeightsError> {
    let failed = |source| WeightsError::Io { action: "read", path: path.into(), source };
    let about = match fs::metadata(path) {
        Ok(about) => about,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    if !about.is_file() {
        return Err(WeightsError::NotAFile { path: path.to_path_buf() });
    }
    let mut bytes = Vec::new();
    // One byte more than accepted: the file may have grown since it was looked at.
    let mut limited = File::open(path).map_err(failed)?.take(MAX_JSON_BYTES + 1);
    limited.read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > MAX_JSON_BYTES {
        let (found, limit) = (about.len().max(bytes.len() as u64), MAX_JSON_BYTES);
        return Err(WeightsError::TextTooLarge { found, limit }.in_file(path));
    }
    let text = String::from_utf8(bytes).map_err(|error| {
        let valid_up_to = error.utf8_error().valid_up_to();
        WeightsError::NotUtf8 { valid_up_to }.in_file(path)
    })?;
    Ok(Some(text))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::error::Error;

    fn cause(error: &WeightsError) -> String {
        error.source().unwrap().to_string()
    }

    #[test]
    fn a_folder_and_a_file_in_it_lead_to_the_same_config() {
        let folder = tempfile::tempdir().unwrap();
        let weights = folder.path().join(WEIGHTS_FILE);
        fs::write(&weights, "").unwrap();
        let found = ModelFolder::find(folder.path()).unwrap();
        assert_eq!(found, ModelFolder { weights, config: folder.path().join(CONFIG_FILE) });
        assert_eq!(ModelFolder::find(&found.weights).unwrap(), found);
    }

    #[test]
    fn a_folder_without_weights_says_what_it_has() {
        let folder = tempfile::tempdir().unwrap();
        let shown = folder.path().display().to_string();
        let error = ModelFolder::find(folder.path()).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!(
                "`{shown}` has no `model.safetensors`\nhelp: name a folder with a model, or a file of weights"
            )
        );
        fs::write(folder.path().join("flax_model.msgpack"), "").unwrap();
        let error = ModelFolder::find(folder.path()).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!(
                "`{shown}` has no `model.safetensors`\nhelp: it holds Flax weights in `flax_model.msgpack`, which this version does not read; save the model as one \
                 `model.safetensors`"
            )
        );
        let nowhere = folder.path().join("nowhere");
        let error = ModelFolder::find(&nowhere).unwrap_err();
        assert_eq!(error.to_string(), format!("cannot open `{}`", nowhere.display()));
        assert!(error.is_io());
    }

    #[test]
    fn config_faults_name_the_file_and_the_key() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(WEIGHTS_FILE), "").unwrap();
        let files = ModelFolder::find(folder.path()).unwrap();
        let message = files.read_config().unwrap_err().to_string();
        let start = format!("`{}` has no `config.json`\nhelp: ", folder.path().display());
        assert!(message.starts_with(&start), "{message}");

        let fault = |text: &[u8]| {
            fs::write(&files.config, text).unwrap();
            let error = files.read_config().unwrap_err();
            let file = format!("`{}` cannot be used", files.config.display());
            assert_eq!(error.to_string(), file);
            assert!(!error.is_io());
            cause(&error)
        };
        assert_eq!(fault(b"{"), "config: the text is not valid JSON");
        assert_eq!(
            fault(br#"{"patch_size": 15}"#),
            "config: image height 224 is not divisible by patch height 15"
        );
        assert_eq!(fault(b"{\"x\":\"\xff\"}"), "the file is not UTF-8 from byte 6 on");
        let large = vec![b' '; MAX_JSON_BYTES as usize + 1];
        assert_eq!(fault(&large), "the file has 1048577 bytes, expected at most 1048576");
    }

    #[test]
    fn the_preprocessor_file_may_be_absent() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(WEIGHTS_FILE), "").unwrap();
        let files = ModelFolder::find(folder.path()).unwrap();
        assert_eq!(files.read_preprocessor_text().unwrap(), None);
        fs::write(folder.path().join(PREPROCESSOR_FILE), "{\"size\": 224}").unwrap();
        assert_eq!(files.read_preprocessor_text().unwrap().unwrap(), "{\"size\": 224}");
    }
}
