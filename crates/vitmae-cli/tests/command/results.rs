//! What the commands write and print when all is well.

use std::fs;

use serde_json::Value;
use vitmae_image::{Image, Limits, decode, encode_png};
use vitmae_weights::SafetensorsFile;

use crate::setup::{Call, Workplace, vitmae};

fn json(call: &Call) -> Value {
    serde_json::from_str(&call.stdout).unwrap_or_else(|_| panic!("no JSON: {}", call.stdout))
}

#[test]
fn training_prints_its_checkpoint_and_goes_on_by_itself() {
    let place = Workplace::new(12);
    let call = Call::of(place.pretrain("run", &["--json"])).succeeded();
    let result = json(&call);
    assert_eq!((&result["step"], &result["stopped"]), (&Value::from(12), &Value::Null));
    let checkpoint = result["checkpoint"].as_str().unwrap();
    assert!(checkpoint.ends_with("ckpt-00000012"));
    let again = Call::of(place.pretrain("run", &[])).succeeded();
    assert_eq!(again.stdout.trim(), checkpoint);
    assert!(again.stderr.contains("going on from"), "{}", again.stderr);
    let log = fs::read_to_string(place.path("run/log.txt")).unwrap();
    let lines: Vec<Value> = log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let of_kind = |kind: &str| lines.iter().filter(|line| line["kind"] == kind).count();
    assert_eq!((of_kind("step"), of_kind("epoch"), of_kind("resume")), (12, 4, 1));
    let quiet = Call::of(place.pretrain("quiet", &["-q"])).succeeded();
    assert_eq!(quiet.stderr, "");
}

#[test]
fn a_training_reports_about_itself_and_so_does_the_command() {
    let place = Workplace::new(12);
    Call::of(place.pretrain("run", &["-q", "--val-path", &place.text("images")])).succeeded();
    let read = |name: &str| fs::read_to_string(place.path("run").join(name)).unwrap();
    let names = ["steps.csv", "epochs.csv", "curves.svg", "report.html"];
    let written = names.map(read);
    assert_eq!((written[0].lines().count(), written[1].lines().count()), (1 + 12, 1 + 4));
    assert!(
        written[1].starts_with("epoch,step,train_loss,train_lr,val_loss\n1,3,"),
        "{}",
        written[1]
    );
    assert!(written[2].contains("val_loss") && written[2].ends_with("</svg>\n"), "{}", written[2]);
    assert!(written[3].contains("<th scope=\"row\">betas</th>"), "{}", written[3]);
    for name in names {
        fs::remove_file(place.path("run").join(name)).unwrap();
    }
    let call = Call::of(vitmae(&["report", &place.text("run")])).succeeded();
    assert_eq!(call.stdout.trim(), place.text("run/report.html"));
    assert_eq!(names.map(read), written);
    let call = Call::of(vitmae(&["report", &place.text("images")]));
    call.failed(3, "has no `log.txt`\nhelp: give the `--output-dir` of a");
}

#[test]
fn what_learns_beside_a_model_is_told_and_kept() {
    let place = Workplace::new(1);
    let data = place.labelled().join("train").display().to_string();
    let flags = ["--data-path", &data, "--val-path", &data, "--epochs", "3"];
    let log_dir = place.text("events");
    let mut command = place.pretrain("run", &flags);
    command.args(["--log-dir", &log_dir, "--model-ema", "--model-ema-decay", "0.9"]);
    command.args([
        "--online-probe",
        "--loss",
        "l1",
        "--mask-ratio-end",
        "0.5",
        "--sheet-every",
        "1",
    ]);
    let call = Call::of(command).succeeded();
    assert!(call.stderr.contains("averaged weights: loss"), "{}", call.stderr);
    assert!(call.stderr.contains("the probe found"), "{}", call.stderr);
    let table = fs::read_to_string(place.path("run/epochs.csv")).unwrap();
    let names = table.lines().next().unwrap();
    assert!(names.contains("probe_accuracy") && names.contains("val_loss_ema"), "{names}");
    let page = fs::read_to_string(place.path("run/report.html")).unwrap();
    assert!(page.contains("epoch-0003.png"), "the newest sheet is not on the page");
    // The average is a model like any other.
    let ema = newest(&place).join("ema").display().to_string();
    Call::of(vitmae(&["inspect", &ema])).succeeded();
    Call::of(vitmae(&["quality", "--model", &ema, "--data-path", &data, "-q"])).succeeded();
}

#[test]
fn the_originals_folder_layout_is_understood() {
    let place = Workplace::new(12);
    fs::create_dir_all(place.path("set/train/a")).unwrap();
    fs::create_dir_all(place.path("set/val/a")).unwrap();
    for index in 0..12 {
        let folder = if index < 8 { "train" } else { "val" };
        let from = place.path(&format!("images/{index}.png"));
        fs::copy(from, place.path(&format!("set/{folder}/a/{index}.png"))).unwrap();
    }
    let data = place.text("set");
    let mut command = place.pretrain("run", &["--json", "--norm_pix_loss", "--num_workers", "1"]);
    command.args(["--pin_mem", "--accum_iter", "2", "--clip_grad", "1"]);
    let arguments: Vec<_> = command.get_args().map(|a| a.to_owned()).collect();
    let images = place.path("images").into_os_string();
    let arguments =
        arguments.into_iter().map(|a| if a == images { data.clone().into() } else { a });
    let mut command = vitmae(&[]);
    command.args(arguments);
    let call = Call::of(command).succeeded();
    assert!(call.stderr.contains("8 images, 4 updates of 8 images"), "{}", call.stderr);
    assert!(call.stderr.contains("on 4 evaluation images"), "{}", call.stderr);
    assert!(call.stderr.contains("`--pin-mem` has no effect"), "{}", call.stderr);
    assert!(json(&call)["val_loss"].as_f64().unwrap() > 0.0);
}

#[test]
fn reconstructions_are_drawn_under_the_mask_that_was_asked_for() {
    let place = Workplace::new(12);
    let model = place.model().display().to_string();
    let images = [place.text("images/1.png"), place.text("images/2.png")];
    let out = place.text("sheet.png");
    let reconstruct = |more: &[&str]| {
        let mut command = vitmae(&["reconstruct", &images[0], &images[1], "--model", &model]);
        command.args(["--out", &out, "--json"]).args(more);
        let result = json(&Call::of(command).succeeded());
        (result, decode(&place.path("sheet.png"), &Limits::default()).unwrap())
    };
    let (result, sheet) = reconstruct(&[]);
    assert_eq!((sheet.width, sheet.height), (2 + 4 * 18, 2 + 2 * 18));
    assert_eq!(result["images"][0]["removed"], 12);
    assert!(result["images"][1]["loss"].as_f64().unwrap() > 0.0);
    assert_eq!(reconstruct(&[]).1, sheet);
    assert_ne!(reconstruct(&["--seed", "1"]).1, sheet);
    let (result, _) = reconstruct(&["--mask_ratio", "0.5"]);
    assert_eq!(result["images"][0]["removed"], 8);
    // A mask picture of any size: the right half is white.
    let half = vitmae_image::Image::new(8, 8, 1, [[0u8; 4], [255; 4]].as_flattened().repeat(8));
    let half = vitmae_image::encode_png(&half.unwrap()).unwrap();
    fs::write(place.path("mask.png"), half).unwrap();
    let mask = place.text("mask.png");
    let (result, sheet) = reconstruct(&["--mask", &mask]);
    assert_eq!(result["images"][0]["removed"], 8);
    // Second panel, first row: left half visible, right half grey.
    let pixel = |x: usize, y: usize| &sheet.data[(y * sheet.width + x) * 3..][..3];
    assert!((10..18).all(|x| pixel(20 + x - 2, 2) == [128; 3]));
    assert!((0..8).any(|x| pixel(20 + x, 2) != [128; 3]));
}

#[test]
fn features_have_their_shapes_in_both_formats() {
    let place = Workplace::new(12);
    let model = place.model().display().to_string();
    let images: Vec<_> = (0..3).map(|index| place.text(&format!("images/{index}.png"))).collect();
    let features = |out: &str, pool: &str| {
        let out = place.text(out);
        let mut command = vitmae(&["features", "--model", &model, "--out", &out, "--pool", pool]);
        command.args(&images).arg("--json");
        json(&Call::of(command).succeeded())["shape"].clone()
    };
    assert_eq!(features("all.safetensors", "none"), serde_json::json!([3, 17, 16]));
    assert_eq!(features("cls.npy", "cls"), serde_json::json!([3, 16]));
    assert_eq!(features("mean.safetensors", "mean"), serde_json::json!([3, 16]));
    let read = |name: &str| {
        SafetensorsFile::open(&place.path(name)).unwrap().read_f32("features").unwrap()
    };
    let all = read("all.safetensors");
    let cls: Vec<u8> = all
        .chunks_exact(17 * 16)
        .flat_map(|image| &image[..16])
        .flat_map(|x| x.to_le_bytes())
        .collect();
    let npy = fs::read(place.path("cls.npy")).unwrap();
    assert!(npy.ends_with(&cls));
    let mean = read("mean.safetensors");
    for (image, mean) in all.chunks_exact(17 * 16).zip(mean.chunks_exact(16)) {
        for (column, &mean) in mean.iter().enumerate() {
            let sum: f32 = (1..17).map(|token| image[token * 16 + column]).sum();
            assert!((sum / 16.0 - mean).abs() < 1e-5);
        }
    }
    let wrong = vitmae(&["features", &images[0], "--model", &model, "--out", "x.csv"]);
    Call::of(wrong).failed(2, "expected .npy or .safetensors");
}

#[test]
fn inspect_and_bench_answer_in_json() {
    let place = Workplace::new(12);
    let model = place.model().display().to_string();
    let found = json(&Call::of(vitmae(&["inspect", &model, "--json"])).succeeded());
    assert_eq!(found["architecture"]["hidden_size"], 16);
    assert!(found["path"].as_str().unwrap().contains("ckpt-00000012"));
    let text = Call::of(vitmae(&["inspect", &model, "--tensors"])).succeeded().stdout;
    assert!(text.contains("vit.embeddings.cls_token F32 [1, 1, 16]"), "{text}");

    for task in ["pretrain", "forward", "features"] {
        let arguments = ["bench", "--model", "tiny", "--task", task, "--batch-size", "2"];
        let mut command = vitmae(&arguments);
        command.args(["--steps", "1", "--precision", "f32", "--json"]);
        let result = json(&Call::of(command).succeeded());
        for key in
            ["ms_per_image", "images_per_second", "peak_memory_bytes", "gflops", "peak_gflops"]
        {
            assert!(result[key].as_f64().unwrap() > 0.0, "{task}: {key} in {result}");
        }
        assert!(result["gflops"].as_f64() < result["peak_gflops"].as_f64(), "{result}");
        assert_eq!(result["loss"].is_number(), task != "features", "{result}");
    }
}

#[test]
fn a_short_demo_writes_everything() {
    let place = Workplace::new(0);
    let out = place.text("demo");
    let mut command = vitmae(&["demo", "--out", &out, "--steps", "20", "--json", "-q"]);
    command.env("NO_COLOR", "1");
    let result = json(&Call::of(command).succeeded());
    assert_eq!(result["steps"], 20);
    assert!(result["masked_mse"]["model"].as_f64().unwrap() > 0.0);
    assert_eq!(result["probe"].as_array().unwrap().len(), 3);
    let page = fs::read_to_string(place.path("demo/report.html")).unwrap();
    assert!(page.contains("data:image/png;base64,") && page.contains("<svg"));
    // Nothing is fetched: no address in the page but names of namespaces.
    let addresses = page.matches("http").count();
    assert_eq!(addresses, page.matches("http://www.w3.org/2000/svg").count());
    decode(&place.path("demo/reconstructions.png"), &Limits::default()).unwrap();
    let model = place.text("demo/model");
    Call::of(vitmae(&["inspect", &model])).succeeded();
}

#[test]
fn a_trained_model_is_converted_there_and_back() {
    let place = Workplace::new(8);
    Call::of(place.pretrain("run", &[])).succeeded();
    let (run, pth, back) = (place.text("run"), place.text("model.pth"), place.text("back"));
    let call = Call::of(vitmae(&["convert", &run, "--to", "fb", &pth, "--json"])).succeeded();
    let report = json(&call);
    assert_eq!((&report["layout"], &report["to"]), (&Value::from("L1"), &Value::from("fb")));
    let shown = Call::of(vitmae(&["inspect", &pth])).succeeded().stdout;
    assert!(shown.contains("a PyTorch archive") && shown.contains("(L5)"), "{shown}");
    let arguments = ["convert", &pth, "--to", "hf", &back];
    let refused = Call::of(vitmae(&arguments));
    assert_eq!(refused.code, Some(3), "{}", refused.stderr);
    assert!(refused.stderr.contains("heads are unknown"), "{}", refused.stderr);
    let text = fs::read_to_string(newest(&place).join("config.json")).unwrap();
    let config: Value = serde_json::from_str(&text).unwrap();
    let heads = config["num_attention_heads"].to_string();
    let decoder_heads = config["decoder_num_attention_heads"].to_string();
    let mut arguments = arguments.to_vec();
    arguments.extend(["--heads", &heads, "--decoder-heads", &decoder_heads]);
    let call = Call::of(vitmae(&arguments)).succeeded();
    assert_eq!(call.stdout.trim(), place.text("back/model.safetensors"));
    let tensors = |path: &std::path::Path| {
        let mut file = SafetensorsFile::open(path).unwrap();
        let names: Vec<String> = file.tensors().iter().map(|t| t.name.clone()).collect();
        names.into_iter().map(|name| (file.read_f32(&name).unwrap(), name)).collect::<Vec<_>>()
    };
    let before = tensors(&newest(&place).join("model.safetensors"));
    assert_eq!(tensors(&place.path("back/model.safetensors")), before);
    let again = Call::of(vitmae(&arguments));
    assert_eq!(again.code, Some(3), "{}", again.stderr);
    assert!(again.stderr.contains("exists\nhelp: name another place"), "{}", again.stderr);
}

#[test]
fn reconstructions_are_measured() {
    let place = Workplace::new(12);
    let model = place.model().display().to_string();
    let (data, csv, maps) = (place.text("images"), place.text("q.csv"), place.text("maps"));
    let measure = |more: &[&str]| {
        let mut command = vitmae(&["quality", "--model", &model, "--data-path", &data, "-q"]);
        command.args(more);
        Call::of(command)
    };
    let call = measure(&["--json", "--csv", &csv, "--anomaly", &maps]).succeeded();
    let found = json(&call);
    assert_eq!(found["images"].as_array().unwrap().len(), 12);
    for key in ["loss", "mse", "psnr", "ssim"] {
        let images = found["images"].as_array().unwrap().iter();
        let mean = images.map(|image| image[key].as_f64().unwrap()).sum::<f64>() / 12.0;
        assert!((found[key].as_f64().unwrap() - mean).abs() < 1e-12, "{key}");
    }
    let table = fs::read_to_string(&csv).unwrap();
    assert_eq!(table.lines().count(), 13);
    assert_eq!(fs::read_dir(&maps).unwrap().count(), 24);
    let map = decode(&place.path("maps/00003-11.png"), &Limits::default()).unwrap();
    assert_eq!((map.width, map.height, map.channels), (16, 16, 1));
    assert_eq!(measure(&["--json"]).stdout, call.stdout);
    assert_ne!(measure(&["--json", "--seed", "1"]).stdout, call.stdout);
    let text = measure(&[]).succeeded().stdout;
    assert!(text.contains("means of 12 images, 4 masks each"), "{text}");
    measure(&["--mask-ratio", "0"]).failed(2, "removes 0 of 16");
}

#[test]
fn classes_are_told_apart_by_neighbours_and_by_a_linear_map() {
    let place = Workplace::new(8);
    Call::of(place.pretrain("run", &[])).succeeded();
    // Dark and bright pictures, each with a texture of its own.
    for (part, count) in [("train", 12), ("val", 5)] {
        for (class, level) in [("bright", 150), ("dark", 0)] {
            let folder = place.path(&format!("set/{part}/{class}"));
            fs::create_dir_all(&folder).unwrap();
            for index in 0..count {
                let value = |at: usize| level + ((at * (7 + index) + part.len() * 13) % 60) as u8;
                let pixels = (0..16 * 16 * 3).map(value).collect();
                let image = Image::new(16, 16, 3, pixels).unwrap();
                fs::write(folder.join(format!("{index}.png")), encode_png(&image).unwrap())
                    .unwrap();
            }
        }
    }
    let (run, set) = (place.text("run"), place.text("set"));
    let arguments = ["--model", &run, "--data_path", &set, "--pool", "mean", "--json"];
    let call = Call::of(vitmae(&[&["knn", "--k", "5"], &arguments[..]].concat())).succeeded();
    let found = json(&call);
    assert_eq!((&found["accuracy"], &found["test"]), (&Value::from(1.0), &Value::from(10)));
    assert_eq!(found["confusion"], serde_json::json!([[5, 0], [0, 5]]));
    assert_eq!(found["per_class"]["dark"], 1.0);
    assert!(call.stderr.contains("test: 10 of 10 images"), "{}", call.stderr);
    let call = Call::of(vitmae(&[&["linprobe"], &arguments[..]].concat())).succeeded();
    let found = json(&call);
    assert_eq!((&found["accuracy"], &found["train"]), (&Value::from(1.0), &Value::from(24)));
    fine_tuned(&place, &run, &set);
    probed_by_lars(&place, &run, &set);
    // Labels that mean nothing cannot be told: the test is able to fail.
    for index in 0..6 {
        let (a, b) =
            (format!("set/train/dark/{index}.png"), format!("set/train/bright/{index}.png"));
        let other = place.path("other.png");
        fs::rename(place.path(&a), &other).unwrap();
        fs::rename(place.path(&b), place.path(&a)).unwrap();
        fs::rename(&other, place.path(&b)).unwrap();
    }
    let call = Call::of(vitmae(&[&["knn", "--k", "24"], &arguments[..]].concat())).succeeded();
    assert!(json(&call)["accuracy"].as_f64().unwrap() < 1.0);
    let missing = Call::of(vitmae(&["knn", "--model", &run, "--data_path", &place.text("images")]));
    missing.failed(3, "has no `train` and `val` inside");
    fs::create_dir_all(place.path("set/val/grey")).unwrap();
    fs::copy(place.path("set/val/dark/0.png"), place.path("set/val/grey/0.png")).unwrap();
    let unknown = Call::of(vitmae(&["linprobe", "--model", &run, "--data_path", &set]));
    unknown.failed(3, "is none of the 2 classes of the training images");
}

/// The original's probe, and what `evaluate` finds of the classifier that it saves.
fn probed_by_lars(place: &Workplace, run: &str, set: &str) {
    let out = place.text("probe");
    let common = ["linprobe", "--model", run, "--data_path", set, "--json"];
    let recipe =
        "--optimizer lars --epochs 20 --lr 20 --warmup_epochs 2 --batch_size 8 --pool mean";
    let mut arguments = common.to_vec();
    arguments.extend(["--output_dir", &out]);
    arguments.extend(recipe.split_whitespace());
    let call = Call::of(vitmae(&arguments)).succeeded();
    let trained = json(&call);
    assert!(trained["accuracy"].as_f64().unwrap() >= 0.9, "{trained}");
    let evaluate = ["evaluate", "--model", &out, "--data-path", set, "--json"];
    let found = json(&Call::of(vitmae(&evaluate)).succeeded());
    assert_eq!(found["accuracy"], trained["accuracy"]);
    let close = (found["loss"].as_f64().unwrap() - trained["val_loss"].as_f64().unwrap()).abs();
    assert!(close < 1e-6, "{found} {trained}");
    let without = Call::of(vitmae(&[&common[..], &["--epochs", "3"]].concat()));
    without.failed(2, "L-BFGS on fixed features needs none");
    let int8 = ["--optimizer", "lars", "--precision", "int8"];
    Call::of(vitmae(&[&common[..], &int8].concat())).failed(2, "`--precision int8` is not for");
}

/// A classifier on the run's encoder, and what `evaluate` finds of it.
fn fine_tuned(place: &Workplace, run: &str, set: &str) {
    let out = place.text("classifier");
    let recipe = "--epochs 30 --lr 3e-3 --warmup_epochs 2 --batch_size 8 --layer_decay 1 --drop_path 0.1 --mixup 0.2 \
                  --reprob 0.1 --crop_scale 0.6 1";
    let mut arguments = vec!["finetune", "--finetune", run, "--data_path", set, "--json"];
    arguments.extend(["--output_dir", &out]);
    arguments.extend(recipe.split_whitespace());
    let call = Call::of(vitmae(&arguments)).succeeded();
    let trained = json(&call);
    assert!(trained["val_accuracy"].as_f64().unwrap() >= 0.9, "{trained}");
    assert!(call.stderr.contains("% right on 10 evaluation images"), "{}", call.stderr);
    let evaluate = ["evaluate", "--model", &out, "--data-path", set, "--json"];
    let found = json(&Call::of(vitmae(&evaluate)).succeeded());
    assert_eq!(found["accuracy"], trained["val_accuracy"]);
    assert_eq!(found["test"], 10);
    let close = (found["loss"].as_f64().unwrap() - trained["val_loss"].as_f64().unwrap()).abs();
    assert!(close < 1e-6, "{found} {trained}");
    let of_pretraining = ["evaluate", "--model", run, "--data-path", set];
    Call::of(vitmae(&of_pretraining)).failed(3, "classifier.weight");
    let no_model = ["finetune", "--data-path", set, "--output-dir", &place.text("none")];
    Call::of(vitmae(&no_model)).failed(2, "`--model` says which size");
}

/// The newest checkpoint of the run.
fn newest(place: &Workplace) -> std::path::PathBuf {
    let folders = fs::read_dir(place.path("run")).unwrap().map(|entry| entry.unwrap().path());
    folders.filter(|path| path.join("model.safetensors").exists()).max().unwrap()
}

#[test]
fn a_graph_carries_its_configuration_and_is_refused_where_it_makes_no_sense() {
    let place = Workplace::new(8);
    Call::of(place.pretrain("run", &["-q"])).succeeded();
    let (run, out) = (place.text("run"), place.text("model.onnx"));
    let export = |arguments: &[&str]| {
        let mut command = vitmae(&["export-onnx", &run, "--out", &out]);
        command.args(arguments);
        Call::of(command)
    };
    let result = json(&export(&["--what", "reconstruction", "--json"]).succeeded());
    assert_eq!((&result["output"], &result["external"]), (&out.as_str().into(), &false.into()));
    let bytes = fs::read(&out).unwrap();
    assert!(bytes.len() as u64 > result["weight_bytes"].as_u64().unwrap());
    let holds = |text: &str| bytes.windows(text.len()).any(|window| window == text.as_bytes());
    for text in ["vitmae.config", "\"decoder_hidden_size\": 12", "vitmae.preprocessor", "noise"] {
        assert!(holds(text), "{text}");
    }
    export(&["--what", "encoder", "--mask-ratio", "1"]).failed(3, "keeps 0 of 16 patches");
    export(&["--what", "classifier"]).failed(3, "classifier.");
    assert_eq!(fs::read(&out).unwrap(), bytes);
}
