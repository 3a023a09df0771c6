//! Models by name from the Hugging Face hub, in the cache that its Python library shares.
//!
//!   CACHE/models--ORG--NAME/refs/REVISION             the commit that a branch or tag was at
//!   CACHE/models--ORG--NAME/snapshots/COMMIT/FILE     a link to
//!   CACHE/models--ORG--NAME/blobs/ETAG                the bytes; for large files the ETag is their SHA-256
//!
//! The configuration, the image processor's and the weights are fetched, nothing else, and nothing is executed. A
//! file takes its name only once it is whole.
//!
//! Source: "Understand caching" in the manual of `huggingface_hub` 2.4; `hf_hub_download` of it, behaviour only.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};
use ureq::Agent;
use ureq::http::{Response, StatusCode};

use crate::error::{WeightsError, shown};
use crate::folder::{CONFIG_FILE, PREPROCESSOR_FILE, WEIGHTS_FILE, read_json_text};
use crate::weights_file::shards_of_index;

/// Where the hub is, unless `HF_ENDPOINT` says otherwise.
const ENDPOINT: &str = "https://huggingface.co";
/// The branch that is taken where none is named.
const MAIN: &str = "main";
/// Names of weights, the first that a model has.
const WEIGHTS: [&str; 4] =
    [WEIGHTS_FILE, "model.safetensors.index.json", "pytorch_model.bin", "tf_model.h5"];
/// Most redirections within the hub.
const REDIRECTIONS: usize = 5;
/// Bytes copied at a time.
const CHUNK: usize = 1 << 16;

/// Why a model could not be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HubError {
    /// What was asked for is no name of a model.
    #[error("`{id}` is no name of a model\nhelp: names look like `facebook/vit-mae-base`")]
    Name {
        /// The name.
        id: String,
    },
    /// The hub has no such model, or shows it to nobody without permission.
    #[error(
        "the hub has no model `{id}` at revision `{revision}`, or it is private (status {status})\nhelp: check the name; \
         for a private model set `HF_TOKEN`"
    )]
    NotFound {
        /// The model.
        id: String,
        /// The branch, tag or commit.
        revision: String,
        /// The hub's answer.
        status: u16,
    },
    /// The model has none of the files it needs.
    #[error("the model `{id}` has no {what}")]
    NoFile {
        /// The model.
        id: String,
        /// What was looked for.
        what: &'static str,
    },
    /// The hub cannot be reached, or may not be, and the cache does not hold the model.
    #[error(
        "`{id}` at revision `{revision}` is not in `{}`, and {why}\nhelp: fetch it where there is a network, or copy its \
         folder here and name that",
        cache.display()
    )]
    Unreachable {
        /// The model.
        id: String,
        /// The branch, tag or commit.
        revision: String,
        /// The cache.
        cache: PathBuf,
        /// What is in the way.
        why: String,
    },
    /// The hub answered with a failure.
    #[error("the hub answers `{url}` with status {status}")]
    Status {
        /// What was asked.
        url: String,
        /// The answer.
        status: u16,
    },
    /// The hub's answer lacks what a client needs.
    #[error("the hub's answer for `{url}` has no {what}")]
    Answer {
        /// What was asked.
        url: String,
        /// What is missing.
        what: &'static str,
    },
    /// What came is not what was announced.
    #[error("`{file}` came with {found}, expected {expected}\nhelp: try again; nothing was kept")]
    Damaged {
        /// The file.
        file: String,
        /// What came.
        found: String,
        /// What was announced.
        expected: String,
    },
    /// The connection failed.
    #[error("`{url}` cannot be fetched")]
    Http {
        /// What was asked.
        url: String,
        /// What the client says.
        source: Box<ureq::Error>,
    },
}

/// A hub and its cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hub {
    /// Address without a slash at its end.
    pub endpoint: String,
    /// The folder of the cache.
    pub cache: PathBuf,
    /// What private models ask for.
    pub token: Option<String>,
    /// Whether only the cache is looked at.
    pub offline: bool,
}

impl Hub {
    /// As the environment says: `HF_ENDPOINT`, `HF_HUB_CACHE` (else `HF_HOME/hub`, else `~/.cache/huggingface/hub`),
    /// `HF_TOKEN`, `HF_HUB_OFFLINE`.
    pub fn from_environment() -> Self {
        let text = |name: &str| std::env::var(name).ok().filter(|text| !text.is_empty());
        let home =
            || PathBuf::from(text("HOME").or_else(|| text("USERPROFILE")).unwrap_or_default());
        let cache = text("HF_HUB_CACHE").map(PathBuf::from);
        let cache = cache.or_else(|| Some(PathBuf::from(text("HF_HOME")?).join("hub")));
        let off = text("HF_HUB_OFFLINE").map(|text| text.to_lowercase());
        Self {
            endpoint: text("HF_ENDPOINT").unwrap_or_else(|| ENDPOINT.to_string()),
            cache: cache.unwrap_or_else(|| home().join(".cache/huggingface/hub")),
            token: text("HF_TOKEN"),
            offline: off.is_some_and(|text| ["1", "true", "yes", "on"].contains(&text.as_str())),
        }
    }

    /// The folder of a model with its configuration and weights, which is what
    /// [`from_pretrained`](crate::from_pretrained) takes. `revision` is a branch, tag or commit; `main` without one.
    ///
    /// What the cache holds is not fetched again. Without a network the newest that the cache knows of the revision is
    /// taken.
    ///
    /// # Errors
    /// [`WeightsError::Hub`] and [`WeightsError::Io`].
    pub fn model(&self, id: &str, revision: Option<&str>) -> Result<PathBuf, WeightsError> {
        if !is_name(id) {
            return Err(HubError::Name { id: shown(id) }.into());
        }
        let revision = revision.unwrap_or(MAIN);
        if !is_revision(revision) {
            let (id, revision) = (id.to_string(), shown(revision));
            return Err(HubError::NotFound { id, revision, status: 404 }.into());
        }
        let of_model = OfModel {
            hub: self,
            id,
            revision,
            folder: self.cache.join(format!("models--{}", id.replace('/', "--"))),
            agent: agent(),
        };
        if self.offline {
            return of_model.cached("`HF_HUB_OFFLINE` is set".to_string());
        }
        match of_model.fetch() {
            Err(WeightsError::Hub(HubError::Http { source, .. })) => {
                of_model.cached(format!("the hub cannot be reached ({source})"))
            }
            other => other,
        }
    }
}

/// `ORG/NAME` or `NAME` in the letters that the hub allows.
fn is_name(id: &str) -> bool {
    let part = |part: &str| {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
        !part.is_empty()
            && !part.starts_with('.')
            && !part.contains("--")
            && part.bytes().all(allowed)
    };
    id.split('/').count() <= 2 && id.split('/').all(part)
}

fn is_revision(revision: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b'/');
    !revision.is_empty()
        && revision.bytes().all(allowed)
        && revision.split('/').all(|part| !part.is_empty() && part != "." && part != "..")
}

fn agent() -> Agent {
    // Redirections are followed here, since what the hub says of a file stands in the first answer.
    let config = Agent::config_builder()
        .max_redirects(0)
        .max_redirects_will_error(false)
        .http_status_as_error(false)
        .user_agent(concat!("vitmae/", env!("CARGO_PKG_VERSION")));
    config.build().new_agent()
}

/// What the hub says of a file.
struct About {
    commit: String,
    etag: String,
    size: Option<u64>,
}

/// One model at one revision.
struct OfModel<'a> {
    hub: &'a Hub,
    id: &'a str,
    revision: &'a str,
    folder: PathBuf,
    agent: Agent,
}

impl OfModel<'_> {
    /// Fetches what the cache lacks.
    fn fetch(&self) -> Result<PathBuf, WeightsError> {
        let Some(config) = self.about(CONFIG_FILE, self.revision)? else {
            return Err(HubError::NoFile { id: self.id.to_string(), what: "`config.json`" }.into());
        };
        // One commit for all files, whatever is pushed meanwhile.
        let commit = config.commit.clone();
        let snapshot = self.folder.join("snapshots").join(&commit);
        self.file(CONFIG_FILE, &snapshot, config)?;
        if let Some(about) = self.about(PREPROCESSOR_FILE, &commit)? {
            self.file(PREPROCESSOR_FILE, &snapshot, about)?;
        }
        let mut weights = None;
        for name in WEIGHTS {
            if let Some(about) = self.about(name, &commit)? {
                self.file(name, &snapshot, about)?;
                weights = Some(name);
                break;
            }
        }
        let Some(weights) = weights else {
            return Err(HubError::NoFile { id: self.id.to_string(), what: "weights" }.into());
        };
        if weights.ends_with(".index.json") {
            let path = snapshot.join(weights);
            let text = read_json_text(&path)?.unwrap_or_default();
            let shards = shards_of_index(&text).map_err(|error| error.in_file(&path))?;
            for shard in shards.into_iter().collect::<BTreeSet<_>>() {
                let Some(about) = self.about(&shard, &commit)? else {
                    let what = "shard that its index names";
                    return Err(HubError::NoFile { id: self.id.to_string(), what }.into());
                };
                self.file(&shard, &snapshot, about)?;
            }
        }
        if self.revision != commit {
            let path = self.folder.join("refs").join(self.revision);
            put(&path, commit.as_bytes())?;
        }
        Ok(snapshot)
    }

    /// What the cache holds of the revision.
    fn cached(&self, why: String) -> Result<PathBuf, WeightsError> {
        let noted = fs::read_to_string(self.folder.join("refs").join(self.revision)).ok();
        let commit = noted.as_deref().map_or(self.revision, str::trim);
        let snapshot = self.folder.join("snapshots").join(commit);
        let whole = snapshot.join(CONFIG_FILE).exists()
            && WEIGHTS.iter().any(|name| snapshot.join(name).exists());
        if whole && is_revision(commit) {
            return Ok(snapshot);
        }
        let (id, revision) = (self.id.to_string(), self.revision.to_string());
        Err(HubError::Unreachable { id, revision, cache: self.hub.cache.clone(), why }.into())
    }

    fn url(&self, name: &str, revision: &str) -> String {
        let Hub { endpoint, .. } = self.hub;
        let revision = revision.replace('/', "%2F");
        format!("{endpoint}/{}/resolve/{revision}/{name}", self.id)
    }

    /// What the hub says of a file; none if the model does not have it.
    fn about(&self, name: &str, revision: &str) -> Result<Option<About>, WeightsError> {
        let url = self.url(name, revision);
        let mut at = url.clone();
        let (mut commit, mut etag, mut size) = (None, None, None);
        for _ in 0..=REDIRECTIONS {
            let answer = self.ask(&at, true)?;
            let text =
                |header: &str| Some(answer.headers().get(header)?.to_str().ok()?.to_string());
            commit = commit.or_else(|| text("x-repo-commit"));
            etag = etag.or_else(|| text("x-linked-etag"));
            size = size.or_else(|| text("x-linked-size"));
            if answer.status().is_redirection() {
                match text("location") {
                    // Within the hub: the file's own answer is there.
                    Some(next) if next.starts_with('/') => {
                        at = format!("{}{next}", self.hub.endpoint);
                        continue;
                    }
                    _ => break,
                }
            }
            etag = etag.or_else(|| text("etag"));
            size = size.or_else(|| text("content-length"));
            match answer.status() {
                status if status.is_success() => break,
                StatusCode::NOT_FOUND
                    if text("x-error-code").as_deref() == Some("EntryNotFound") =>
                {
                    return Ok(None);
                }
                StatusCode::NOT_FOUND | StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                    let (id, revision) = (self.id.to_string(), revision.to_string());
                    let status = answer.status().as_u16();
                    return Err(HubError::NotFound { id, revision, status }.into());
                }
                status => return Err(HubError::Status { url, status: status.as_u16() }.into()),
            }
        }
        let lacks = |what| HubError::Answer { url: url.clone(), what };
        let hexadecimal = |text: &String| text.bytes().all(|b| b.is_ascii_hexdigit());
        let etag = etag.map(|etag| etag.trim_start_matches("W/").trim_matches('"').to_string());
        Ok(Some(About {
            // Both become names of files.
            commit: commit.filter(hexadecimal).ok_or_else(|| lacks("commit"))?,
            etag: etag
                .filter(|etag| is_revision(etag) && !etag.contains('/'))
                .ok_or_else(|| lacks("ETag"))?,
            size: size.and_then(|size| size.parse().ok()),
        }))
    }

    fn ask(&self, url: &str, head: bool) -> Result<Response<ureq::Body>, WeightsError> {
        let mut request = if head { self.agent.head(url) } else { self.agent.get(url) };
        // Nobody but the hub gets the token.
        let own = url.strip_prefix(&self.hub.endpoint).is_some_and(|rest| rest.starts_with('/'));
        if let Some(token) = self.hub.token.as_ref().filter(|_| own) {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        request.header("accept-encoding", "identity").call().map_err(|source| {
            HubError::Http { url: url.to_string(), source: Box::new(source) }.into()
        })
    }

    /// Puts a file into the snapshot, from the cache's bytes or the hub's.
    fn file(&self, name: &str, snapshot: &Path, about: About) -> Result<(), WeightsError> {
        let blob = self.folder.join("blobs").join(&about.etag);
        if !blob.exists() {
            self.download(name, &about, &blob)?;
        }
        let link = snapshot.join(name);
        if fs::symlink_metadata(&link).is_ok() {
            return Ok(());
        }
        make_folder(snapshot)?;
        #[cfg(unix)]
        let linked = {
            let target = Path::new("../../blobs").join(&about.etag);
            std::os::unix::fs::symlink(target, &link)
        };
        #[cfg(not(unix))]
        let linked = fs::copy(&blob, &link).map(drop);
        linked.map_err(failed("create", &link))
    }

    /// Fetches a file's bytes and compares their number, and for large files their hash, with what was announced.
    fn download(&self, name: &str, about: &About, blob: &Path) -> Result<(), WeightsError> {
        let mut url = self.url(name, &about.commit);
        let mut answer = self.ask(&url, false)?;
        for _ in 0..REDIRECTIONS {
            let next = answer.headers().get("location").and_then(|text| text.to_str().ok());
            match next.filter(|_| answer.status().is_redirection()) {
                Some(next) if next.starts_with('/') => url = format!("{}{next}", self.hub.endpoint),
                Some(next) => url = next.to_string(),
                None => break,
            }
            answer = self.ask(&url, false)?;
        }
        if !answer.status().is_success() {
            return Err(HubError::Status { url, status: answer.status().as_u16() }.into());
        }
        let folder = blob.parent().unwrap_or(Path::new("."));
        make_folder(folder)?;
        let temporary = folder.join(format!("{}.{}.incomplete", about.etag, std::process::id()));
        let copied = self.copy(&mut answer, &temporary, &url);
        let kept = copied.and_then(|(bytes, hash)| {
            let damaged = |found: String, expected: String| HubError::Damaged {
                file: name.to_string(),
                found,
                expected,
            };
            if let Some(size) = about.size.filter(|&size| size != bytes) {
                return Err(damaged(format!("{bytes} bytes"), format!("{size}")).into());
            }
            if about.etag.len() == 64 && hash != about.etag {
                return Err(damaged(format!("SHA-256 {hash}"), about.etag.clone()).into());
            }
            fs::rename(&temporary, blob).map_err(failed("rename", &temporary))
        });
        if kept.is_err() {
            let _ = fs::remove_file(&temporary);
        }
        kept
    }

    /// The number of bytes and their SHA-256.
    fn copy(
        &self,
        answer: &mut Response<ureq::Body>,
        path: &Path,
        url: &str,
    ) -> Result<(u64, String), WeightsError> {
        let mut out = File::create(path).map_err(failed("create", path))?;
        let (mut hash, mut total) = (Sha256::new(), 0);
        let mut chunk = vec![0; CHUNK];
        let mut body = answer.body_mut().with_config().limit(u64::MAX).reader();
        loop {
            let count = body.read(&mut chunk).map_err(|error| HubError::Http {
                url: url.to_string(),
                source: Box::new(error.into()),
            })?;
            if count == 0 {
                break;
            }
            hash.update(&chunk[..count]);
            out.write_all(&chunk[..count]).map_err(failed("write", path))?;
            total += count as u64;
        }
        out.sync_all().map_err(failed("flush", path))?;
        Ok((total, hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()))
    }
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> WeightsError {
    let path = path.to_path_buf();
    move |source| WeightsError::Io { action, path, source }
}

fn make_folder(path: &Path) -> Result<(), WeightsError> {
    fs::create_dir_all(path).map_err(failed("create", path))
}

/// Replaces a small file.
fn put(path: &Path, bytes: &[u8]) -> Result<(), WeightsError> {
    make_folder(path.parent().unwrap_or(Path::new(".")))?;
    crate::write_atomically(path, |out| out.write_all(bytes).map_err(failed("write", path)))
}
