"""Lets `huggingface_hub` find, without a network, the model that our client put into a cache.

    export VITMAE_HUB_CACHE=$(mktemp -d)
    cargo test --release -p vitmae-weights --features hub --test hub huggingface_hub
    python check_hub_cache.py ORIGINAL tests/fixtures/hub-cache.json       (then `cargo xtask fixtures --sign`)

ORIGINAL is the folder with the files that were served, the case `pretraining-batch-of-five`. Stops where anything is not found or differs.
"""

import json
import os
import sys
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"

import huggingface_hub  # noqa: E402
from huggingface_hub import hf_hub_download, scan_cache_dir, snapshot_download  # noqa: E402

ID = "facebook/vit-mae-tiny"
FILES = ("config.json", "model.safetensors")


def tree(cache):
    found = {}
    for path in sorted((cache / "models--facebook--vit-mae-tiny").rglob("*")):
        name = path.relative_to(cache).as_posix()
        if path.is_symlink():
            found[name] = f"-> {os.readlink(path)}"
        elif path.is_file():
            found[name] = f"{path.stat().st_size} bytes"
    return found


def main(original, result):
    cache = Path(os.environ["VITMAE_HUB_CACHE"])
    before = tree(cache)
    found = {}
    for name in FILES:
        path = Path(hf_hub_download(ID, name, cache_dir=cache))
        assert path.read_bytes() == (original / name).read_bytes(), name
        found[name] = True
    snapshot = Path(snapshot_download(ID, cache_dir=cache))
    assert sorted(path.name for path in snapshot.iterdir()) == sorted(FILES)
    info = scan_cache_dir(cache)
    assert not info.warnings, info.warnings
    (repository,) = info.repos
    (revision,) = repository.revisions
    assert (repository.repo_id, revision.refs, repository.nb_files) == (ID, frozenset({"main"}), 2)
    assert tree(cache) == before, "it changed the cache"
    library = f"huggingface_hub {huggingface_hub.__version__}"
    result.write_text(json.dumps({"library": library, "found": found, "tree": before}, indent=2) + "\n")
    print(f"{library}: {', '.join(found)}, {repository.size_on_disk} bytes, revision {revision.commit_hash}")


if __name__ == "__main__":
    main(*(Path(argument) for argument in sys.argv[1:]))
