//! `vitmae doctor CHECKPOINT`.

use std::fs;
use std::path::Path;

use serde_json::Value;
use vitmae_weights::{TensorToWrite, WeightsFile, write_safetensors};

use crate::setup::{Call, Workplace, vitmae};

fn json(call: &Call) -> Value {
    serde_json::from_str(&call.stdout).unwrap_or_else(|_| panic!("no JSON: {}", call.stdout))
}

fn kinds(report: &Value) -> Vec<String> {
    let findings = report["findings"].as_array().unwrap();
    findings.iter().map(|finding| finding["kind"].as_str().unwrap().to_owned()).collect()
}

/// Fills a tensor of a model with zeros.
fn clear(folder: &Path, name: &str) {
    let path = folder.join("model.safetensors");
    let mut file = WeightsFile::open(&path).unwrap();
    let tensors: Vec<TensorToWrite> = file
        .tensors()
        .iter()
        .map(|t| TensorToWrite { name: t.name.clone(), dtype: t.dtype, shape: t.shape.clone() })
        .collect();
    write_safetensors(&path, &Default::default(), &tensors, |tensor| {
        let mut values = file.read_f32(&tensor.name)?;
        if tensor.name == name {
            values.fill(0.0);
        }
        Ok(values)
    })
    .unwrap();
}

#[test]
fn a_sick_model_is_told_in_words_and_its_mended_copy_is_healthy() {
    let place = Workplace::new(8);
    place.model();
    let well = place.text("well");
    let sick = place.text("sick");
    Call::of(vitmae(&["convert", &place.text("trained"), "--to", "hf", &sick])).succeeded();
    let healthy = Call::of(vitmae(&["doctor", &sick])).succeeded().stdout;
    assert!(
        healthy.contains("nothing wrong was found") && healthy.contains("CC-BY-NC"),
        "{healthy}"
    );
    assert!(healthy.contains("layer norm eps 1e-6"), "{healthy}");

    clear(Path::new(&sick), "decoder.decoder_pos_embed");
    let call = Call::of(vitmae(&["doctor", &sick]));
    assert_eq!(call.code, Some(1), "{}", call.stderr);
    for part in
        ["`decoder.decoder_pos_embed` is zero throughout", "the same prediction", "--repair"]
    {
        assert!(call.stdout.contains(part), "{}", call.stdout);
    }
    let call = Call::of(vitmae(&["doctor", &sick, "--repair", &well, "--json"])).succeeded();
    let report = json(&call);
    assert_eq!(kinds(&report), ["zero-table"]);
    assert_eq!(report["repair"]["mended"], serde_json::json!(["zero-table"]));
    let call = Call::of(vitmae(&["doctor", &well, "--json", "--no-predict"])).succeeded();
    assert_eq!(
        (&json(&call)["healthy"], &json(&call)["predictions"]),
        (&true.into(), &Value::Null)
    );

    // Never over anything, and nothing without need.
    Call::of(vitmae(&["doctor", &sick, "--repair", &well])).failed(3, "exists");
    let other = place.text("other");
    Call::of(vitmae(&["doctor", &well, "--repair", &other])).succeeded();
    assert!(!place.path("other").exists());
    Call::of(vitmae(&["doctor", &place.text("nothing")])).failed(3, "nothing");
}

#[test]
fn a_decoder_of_normalised_patches_is_told_from_one_of_pixels() {
    let place = Workplace::new(0);
    let photos = concat!(env!("CARGO_MANIFEST_DIR"), "/assets/held-out");
    let tiny = fs::read_to_string(place.path("tiny.json")).unwrap();
    let config = tiny.replace("\"hidden_size\": 16", "\"hidden_size\": 32");
    fs::write(
        place.path("config.json"),
        config.replace("\"image_size\": 16", "\"image_size\": 32"),
    )
    .unwrap();
    for normalised in [false, true] {
        let (config, out) = (place.text("config.json"), place.text(&format!("{normalised}")));
        let mut command = vitmae(&["pretrain", "--data_path", photos, "--config", &config, "-q"]);
        command.args(["--output_dir", &out, "--batch_size", "3", "--epochs", "300"]);
        command.args(["--lr", "3e-3", "--warmup_epochs", "5", "--threads", "1"]);
        if normalised {
            command.arg("--norm_pix_loss");
        }
        Call::of(command).succeeded();
        let right = json(&Call::of(vitmae(&["doctor", &out, "--json"])).succeeded());
        assert_eq!(right["predictions"]["normalised"], normalised, "{right:#}");

        let wrong = place.path(&format!("wrong-{normalised}"));
        let mended = place.text(&format!("mended-{normalised}"));
        let text = wrong.display().to_string();
        Call::of(vitmae(&["convert", &out, "--to", "hf", &text])).succeeded();
        let path = wrong.join("config.json");
        let mut config: Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
        config["norm_pix_loss"] = (!normalised).into();
        fs::write(&path, config.to_string()).unwrap();
        let call = Call::of(vitmae(&["doctor", &text, "--json"]));
        assert_eq!((call.code, kinds(&json(&call))), (Some(1), vec!["decoder-target".to_owned()]));
        Call::of(vitmae(&["doctor", &text, "--repair", &mended])).succeeded();
        let report = json(&Call::of(vitmae(&["doctor", &mended, "--json"])).succeeded());
        assert_eq!((&report["healthy"], kinds(&report)), (&true.into(), vec![]));
    }
}
