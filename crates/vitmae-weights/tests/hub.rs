//! The hub's client against a server on this machine that answers as the hub does.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::collections::{BTreeMap, HashMap};
use std::error::Error;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::thread;

use sha2::{Digest, Sha256};
use vitmae_model::{VitMaeConfig, VitMaeForPreTraining};
use vitmae_tensor::Device;
use vitmae_weights::{Hub, LoadOptions, WeightsError, from_pretrained, save_pretrained};

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
const ID: &str = "facebook/vit-mae-tiny";

/// A server with the files of one model.
struct Server {
    endpoint: String,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    files: Mutex<HashMap<String, Vec<u8>>>,
    /// Every request, as `HEAD /path token`.
    requests: Mutex<Vec<String>>,
    /// Another name of this machine, as a second host.
    host: Mutex<String>,
    /// Whether weights come with a changed byte, or cut.
    damage: Mutex<&'static str>,
}

impl Server {
    fn start(files: HashMap<String, Vec<u8>>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let host = Mutex::new(format!("localhost:{}", listener.local_addr().unwrap().port()));
        let shared = Arc::new(Shared { files: Mutex::new(files), host, ..Shared::default() });
        let of_thread = shared.clone();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let shared = of_thread.clone();
                thread::spawn(move || shared.serve(stream.unwrap()));
            }
        });
        Self { endpoint, shared }
    }

    fn requests(&self) -> Vec<String> {
        std::mem::take(&mut self.shared.requests.lock().unwrap())
    }

    fn hub(&self, cache: &Path) -> Hub {
        let (endpoint, cache) = (self.endpoint.clone(), cache.to_path_buf());
        Hub { endpoint, cache, token: None, offline: false }
    }
}

impl Shared {
    /// Answers one request and closes the connection.
    fn serve(&self, mut stream: TcpStream) {
        let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
        let first = lines.next().unwrap().unwrap();
        let mut token = String::new();
        for line in lines.map_while(Result::ok).take_while(|line| !line.is_empty()) {
            if let Some(value) = line.to_lowercase().strip_prefix("authorization: ") {
                token = format!(" {value}");
            }
        }
        let mut words = first.split(' ');
        let (method, path) = (words.next().unwrap(), words.next().unwrap());
        self.requests.lock().unwrap().push(format!("{method} {path}{token}"));
        let answer = self.answer(method, path);
        let _ = stream.write_all(&answer);
    }

    fn answer(&self, method: &str, path: &str) -> Vec<u8> {
        let reply = |status: &str, headers: &str, body: &[u8]| {
            let body = if method == "HEAD" { &[][..] } else { body };
            let head = format!("HTTP/1.1 {status}\r\nconnection: close\r\n{headers}\r\n");
            [head.as_bytes(), body].concat()
        };
        let files = self.files.lock().unwrap();
        let hash = |bytes: &[u8]| -> String {
            Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect()
        };
        // Large files lie elsewhere: the first answer says what they are and where.
        if let Some(name) = path.strip_prefix("/cdn/") {
            let mut bytes = files[name].clone();
            match *self.damage.lock().unwrap() {
                "change" => *bytes.last_mut().unwrap() ^= 1,
                "cut" => bytes.truncate(bytes.len() / 2),
                _ => {}
            }
            return reply("200 OK", &format!("content-length: {}\r\n", bytes.len()), &bytes);
        }
        let small = |name: &str| {
            let bytes = &files[name];
            let etag = &hash(bytes)[..40];
            let headers = format!(
                "x-repo-commit: {COMMIT}\r\netag: \"{etag}\"\r\ncontent-length: {}\r\n",
                bytes.len()
            );
            reply("200 OK", &headers, bytes)
        };
        if let Some(name) = path.strip_prefix("/api/cache/") {
            return small(name);
        }
        let known = ["main", "v1", COMMIT];
        let name = known
            .iter()
            .find_map(|revision| path.strip_prefix(&format!("/{ID}/resolve/{revision}/")));
        let Some(name) = name else {
            return reply(
                "404 Not Found",
                "x-error-code: RepoNotFound\r\ncontent-length: 0\r\n",
                b"",
            );
        };
        match files.get(name) {
            None => {
                let headers = format!(
                    "x-error-code: EntryNotFound\r\nx-repo-commit: {COMMIT}\r\ncontent-length: 0\r\n"
                );
                reply("404 Not Found", &headers, b"")
            }
            Some(bytes) if name.ends_with(".safetensors") => {
                let (etag, size) = (hash(bytes), bytes.len());
                let headers = format!(
                    "x-repo-commit: {COMMIT}\r\nx-linked-etag: \"{etag}\"\r\nx-linked-size: {size}\r\n\
                     location: http://HOST/cdn/{name}\r\ncontent-length: 0\r\n"
                );
                // Another host by name, the same by number.
                let host = self.host.lock().unwrap().clone();
                reply("302 Found", &headers.replace("HOST", &host), b"")
            }
            Some(_) => {
                let headers = format!(
                    "x-repo-commit: {COMMIT}\r\nlocation: /api/cache/{name}\r\ncontent-length: 0\r\n"
                );
                reply("307 Temporary Redirect", &headers, b"")
            }
        }
    }
}

/// The files of a small model.
fn files() -> HashMap<String, Vec<u8>> {
    let folder = tempfile::tempdir().unwrap();
    save_pretrained(&model(), folder.path()).unwrap();
    let names = ["config.json", "model.safetensors"];
    let read = |name: &str| (name.to_string(), std::fs::read(folder.path().join(name)).unwrap());
    names.map(read).into()
}

fn model() -> VitMaeForPreTraining {
    let config = VitMaeConfig {
        hidden_size: 8,
        num_hidden_layers: 1,
        num_attention_heads: 2,
        intermediate_size: 12,
        decoder_hidden_size: 4,
        decoder_num_hidden_layers: 1,
        decoder_num_attention_heads: 1,
        decoder_intermediate_size: 6,
        image_size: (8, 8),
        patch_size: (4, 4),
        ..VitMaeConfig::default()
    };
    VitMaeForPreTraining::new(config, &Device::cpu(), 1).unwrap()
}

fn loads(folder: &Path) {
    let (loaded, _) = from_pretrained(folder, &Device::cpu(), &LoadOptions::default()).unwrap();
    for (a, b) in loaded.parameters().iter().zip(model().parameters()) {
        assert_eq!(a.value.to_vec().unwrap(), b.value.to_vec().unwrap());
    }
}

fn text(error: WeightsError) -> String {
    error.to_string()
}

#[test]
fn a_model_is_fetched_once_and_then_taken_from_the_cache() {
    let (server, cache) = (Server::start(files()), tempfile::tempdir().unwrap());
    let hub = server.hub(cache.path());
    let folder = hub.model(ID, None).unwrap();
    assert!(folder.ends_with(format!("models--facebook--vit-mae-tiny/snapshots/{COMMIT}")));
    loads(&folder);
    let reference = cache.path().join("models--facebook--vit-mae-tiny/refs/main");
    assert_eq!(std::fs::read_to_string(reference).unwrap(), COMMIT);
    let gets = |requests: Vec<String>| requests.iter().filter(|r| r.starts_with("GET")).count();
    // Each file's own address and where that leads.
    assert_eq!(gets(server.requests()), 4);
    assert_eq!(hub.model(ID, None).unwrap(), folder);
    assert_eq!(gets(server.requests()), 0);
    let offline = Hub { offline: true, ..hub };
    assert_eq!(offline.model(ID, None).unwrap(), folder);
    assert!(server.requests().is_empty(), "offline asks nobody");
    // By its commit, which needs no note.
    assert_eq!(offline.model(ID, Some(COMMIT)).unwrap(), folder);
}

#[test]
fn without_a_network_the_cache_serves_or_the_message_says_what_to_do() {
    let (server, cache) = (Server::start(files()), tempfile::tempdir().unwrap());
    let nowhere = Hub { endpoint: "http://127.0.0.1:9".to_string(), ..server.hub(cache.path()) };
    let message = text(nowhere.model(ID, None).unwrap_err());
    let start = format!(
        "`{ID}` at revision `main` is not in `{}`, and the hub cannot be reached (",
        cache.path().display()
    );
    assert!(message.starts_with(&start), "{message}");
    assert!(message.contains("\nhelp: fetch it where there is a network"), "{message}");
    let offline = Hub { offline: true, ..server.hub(cache.path()) };
    let message = text(offline.model(ID, Some("v1")).unwrap_err());
    assert!(message.contains("`HF_HUB_OFFLINE` is set"), "{message}");
    let folder = server.hub(cache.path()).model(ID, Some("v1")).unwrap();
    assert_eq!(nowhere.model(ID, Some("v1")).unwrap(), folder);
    assert!(nowhere.model(ID, Some("main")).is_err(), "nothing is known of another revision");
}

#[test]
fn damaged_downloads_are_refused_and_leave_nothing() {
    let (server, cache) = (Server::start(files()), tempfile::tempdir().unwrap());
    let hub = server.hub(cache.path());
    for (damage, expected) in [
        ("change", "`model.safetensors` came with SHA-256 "),
        ("cut", "`model.safetensors` came with "),
    ] {
        *server.shared.damage.lock().unwrap() = damage;
        let message = text(hub.model(ID, None).unwrap_err());
        assert!(message.starts_with(expected), "{message}");
        assert!(message.ends_with("help: try again; nothing was kept"), "{message}");
        let blobs = cache.path().join("models--facebook--vit-mae-tiny/blobs");
        assert_eq!(std::fs::read_dir(blobs).unwrap().count(), 1, "the configuration alone");
    }
    *server.shared.damage.lock().unwrap() = "";
    loads(&hub.model(ID, None).unwrap());
}

#[test]
fn the_token_goes_to_the_hub_and_nowhere_else() {
    let (server, cache) = (Server::start(files()), tempfile::tempdir().unwrap());
    let hub = Hub { token: Some("hf_secret".to_string()), ..server.hub(cache.path()) };
    hub.model(ID, None).unwrap();
    for request in server.requests() {
        let elsewhere = request.contains("/cdn/");
        assert_eq!(request.ends_with(" bearer hf_secret"), !elsewhere, "{request}");
    }
}

#[test]
fn what_the_hub_does_not_have_is_named() {
    let (server, cache) = (Server::start(files()), tempfile::tempdir().unwrap());
    let hub = server.hub(cache.path());
    let message = text(hub.model("facebook/other", None).unwrap_err());
    assert!(
        message.starts_with("the hub has no model `facebook/other` at revision `main`"),
        "{message}"
    );
    let message = text(hub.model(ID, Some("v2")).unwrap_err());
    assert!(message.contains("at revision `v2`"), "{message}");
    for name in ["", "a/b/c", "../x", "a/..", "a b", "a//b", "/a"] {
        let message = text(hub.model(name, None).unwrap_err());
        assert!(message.contains("is no name of a model"), "{message}");
    }
    assert!(hub.model(ID, Some("../../x")).is_err());
    server.shared.files.lock().unwrap().remove("model.safetensors");
    let message = text(hub.model(ID, None).unwrap_err());
    assert_eq!(message, format!("the model `{ID}` has no weights"));
    server.shared.files.lock().unwrap().remove("config.json");
    let message = text(hub.model(ID, None).unwrap_err());
    assert_eq!(message, format!("the model `{ID}` has no `config.json`"));
}

#[test]
fn shards_come_with_their_index() {
    let mut all = files();
    let weights = all.remove("model.safetensors").unwrap();
    all.insert("model-00001-of-00001.safetensors".to_string(), weights.clone());
    let listed = safetensors::SafeTensors::deserialize(&weights).unwrap();
    let map: serde_json::Map<String, serde_json::Value> = listed
        .names()
        .into_iter()
        .map(|name| (name.to_string(), "model-00001-of-00001.safetensors".into()))
        .collect();
    let index = serde_json::json!({"metadata": {}, "weight_map": map}).to_string();
    all.insert("model.safetensors.index.json".to_string(), index.into_bytes());
    let (server, cache) = (Server::start(all), tempfile::tempdir().unwrap());
    loads(&server.hub(cache.path()).model(ID, None).unwrap());
    let evil = serde_json::json!({"weight_map": {"a": "../../../evil"}}).to_string();
    let name = "model.safetensors.index.json".to_string();
    server.shared.files.lock().unwrap().insert(name, evil.into_bytes());
    let other = tempfile::tempdir().unwrap();
    let error = server.hub(other.path()).model(ID, None).unwrap_err();
    let cause = error.source().unwrap().to_string();
    assert!(cause.contains("the index names `../../../evil`"), "{cause}");
}

/// Every file and link below a folder: a link's target, or a file's bytes.
fn tree(folder: &Path, below: &str, found: &mut BTreeMap<String, String>) {
    for entry in std::fs::read_dir(folder.join(below)).unwrap() {
        let entry = entry.unwrap();
        let name = format!("{below}/{}", entry.file_name().to_string_lossy());
        let kind = entry.file_type().unwrap();
        if kind.is_dir() {
            tree(folder, &name, found);
        } else if kind.is_symlink() {
            let target = std::fs::read_link(entry.path()).unwrap();
            found.insert(name, format!("-> {}", target.display()));
        } else {
            let bytes = std::fs::metadata(entry.path()).unwrap().len();
            found.insert(name, format!("{bytes} bytes"));
        }
    }
}

/// `tests/fixtures/hub-cache.json` is written by `tests/generate/check_hub_cache.py`, which lets `huggingface_hub` find the
/// model in what this test leaves in `VITMAE_HUB_CACHE`. What it saw holds as long as the cache is the same.
#[test]
#[cfg(unix)]
fn the_cache_is_the_one_that_huggingface_hub_was_seen_to_use() {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures");
    let case = fixtures.join("parity/pretraining-batch-of-five");
    let read = |name: &str| (name.to_string(), std::fs::read(case.join(name)).unwrap());
    let server = Server::start(["config.json", "model.safetensors"].map(read).into());
    let temporary = tempfile::tempdir().unwrap();
    let kept = std::env::var_os("VITMAE_HUB_CACHE").map(std::path::PathBuf::from);
    let cache = kept.as_deref().unwrap_or(temporary.path());
    server.hub(cache).model(ID, None).unwrap();
    if kept.is_some() {
        return;
    }
    let mut found = BTreeMap::new();
    tree(cache, "models--facebook--vit-mae-tiny", &mut found);
    let seen = std::fs::read_to_string(fixtures.join("hub-cache.json")).unwrap();
    let seen: serde_json::Value = serde_json::from_str(&seen).unwrap();
    assert_eq!(serde_json::to_value(&found).unwrap(), seen["tree"]);
    assert_eq!(seen["found"]["config.json"], true);
    assert_eq!(seen["found"]["model.safetensors"], true);
}
