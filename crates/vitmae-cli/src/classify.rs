//! `vitmae knn` and `vitmae linprobe`: how well an encoder's features tell classes apart.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Result;
use clap::{Args, ValueEnum};
use serde_json::{Value, json};
use vitmae_model::Head;
use vitmae_tensor::Device;
use vitmae_trainer::data::{Dataset, Parts, open_parts};
use vitmae_trainer::features::{Pool, features};
use vitmae_trainer::knn::{KnnOptions, knn};
use vitmae_trainer::linear_probe::{Labelled, linear_probe};
use vitmae_trainer::{Classes, Confusion, Team};

use crate::exit::{BadInput, Usage};
use crate::features::encoder;
use crate::linprobe_lars::{self, Probed};
use crate::precision::InferencePrecisionArgs;
use crate::run_args::TrainingArgs;
use crate::{Global, model_folder, processes};

/// Example: vitmae knn --model run --data-path digits
#[derive(Args, Debug)]
pub struct KnnArgs {
    #[command(flatten)]
    set: SetArgs,
    /// Neighbours that vote
    #[arg(long, default_value_t = 20)]
    k: usize,
    /// Temperature of the votes: the smaller, the more the nearest count
    #[arg(long, default_value_t = 0.07)]
    temperature: f64,
}

/// Example: vitmae linprobe --model run --data-path digits
///
/// Multinomial logistic regression on standardised features, solved to its minimum, with the regularisation chosen on
/// a fifth of the training images. It needs no learning rate and gives the same number every time. `--optimizer lars` is the
/// original's probe instead: 90 epochs of cropped and mirrored images, and a classifier at the end.
#[derive(Args, Debug)]
pub struct LinprobeArgs {
    /// Settings by the name of a recipe (`vitmae recipes list`) or from a TOML file; other flags win
    #[arg(long, value_name = "NAME|FILE")]
    recipe: Option<String>,
    /// How the linear map is found
    #[arg(long, value_enum, default_value_t = OptimizerName::Lbfgs)]
    optimizer: OptimizerName,
    #[command(flatten, next_help_heading = "Options of --optimizer lars")]
    training: TrainingArgs,
    #[command(flatten)]
    set: SetArgs,
}

/// The encoder and labelled images.
#[derive(Args, Debug)]
struct SetArgs {
    /// Model folder, file of weights, or the output folder of a training
    #[arg(long, value_name = "DIR")]
    model: PathBuf,
    /// Folder with `train` and `val` (or `test`) inside, each with a folder a class
    #[arg(long, alias = "data_path", value_name = "DIR")]
    data_path: PathBuf,
    /// Which vector stands for an image [default: mean; LARS cls]
    #[arg(long, value_enum)]
    pool: Option<PoolName>,
    /// Images that go through the encoder at once [default: 16; LARS 512]
    #[arg(long)]
    batch_size: Option<usize>,
    #[command(flatten)]
    precision: InferencePrecisionArgs,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum PoolName {
    /// The CLS token
    Cls,
    /// The mean of the patch tokens
    Mean,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum OptimizerName {
    /// Fixed features, to the minimum
    Lbfgs,
    /// Augmented images, by LARS, as the original
    Lars,
}

/// Features and labels of both parts.
struct Set {
    classes: Classes,
    train: Vec<f32>,
    test_labels: Vec<usize>,
    test: Vec<f32>,
}

/// Runs `knn`.
pub fn run_knn(args: &KnnArgs, global: &Global, device: &Device, team: &Team) -> Result<u8> {
    if args.k == 0 || !args.temperature.is_finite() || args.temperature <= 0.0 {
        let message = "`--k` must be at least 1 and `--temperature` above 0";
        return Err(Usage(message.to_owned()).into());
    }
    let Some(set) = args.set.read(global, device, team)? else { return Ok(0) };
    let train = Labelled { features: &set.train, labels: &set.classes.labels };
    let options = KnnOptions { k: args.k, temperature: args.temperature };
    let count = set.classes.names.len();
    let predictions = knn(train, &set.test, count, options)?;
    let confusion = Confusion::new(count, &set.test_labels, &predictions);
    let settings = json!({
        "k": args.k,
        "temperature": args.temperature,
        "train": set.classes.labels.len(),
    });
    print_confusion(global, &set.classes.names, &confusion, &settings);
    Ok(0)
}

/// Prints shares and counts; as JSON beside `others`.
pub(crate) fn print_confusion(
    global: &Global,
    names: &[String],
    confusion: &Confusion,
    others: &Value,
) {
    let total: usize = confusion.counts.iter().flatten().sum();
    if global.json {
        let recalls = names.iter().enumerate();
        let recalls = recalls.map(|(class, name)| (name.clone(), json!(confusion.recall(class))));
        let per_class: serde_json::Map<String, Value> = recalls.collect();
        let mut result = json!({
            "accuracy": confusion.accuracy(),
            "test": total,
            "per_class": per_class,
            "confusion": confusion.counts,
        });
        for (key, value) in others.as_object().into_iter().flatten() {
            result[key] = value.clone();
        }
        outln!("{result:#}");
        return;
    }
    let (accuracy, hits) = (100.0 * confusion.accuracy(), confusion.hits());
    outln!("accuracy {accuracy:.2} %, {hits} of {total} images");
    for (class, name) in names.iter().enumerate() {
        if let Some(recall) = confusion.recall(class) {
            outln!("  {:6.2} % {}", 100.0 * recall, name.escape_debug());
        }
    }
}

/// Runs `linprobe`.
pub fn run_linprobe(
    args: &LinprobeArgs,
    global: &Global,
    device: &Device,
    team: &Team,
) -> Result<u8> {
    if args.optimizer == OptimizerName::Lars {
        return linprobe_lars::run(&args.training, args.set.probed()?, global, device, team);
    }
    if args.training != TrainingArgs::default() {
        let message = "flags of training are given, but L-BFGS on fixed features needs none\nhelp: add `--optimizer lars`";
        return Err(Usage(message.to_owned()).into());
    }
    let Some(set) = args.set.read(global, device, team)? else { return Ok(0) };
    let train = Labelled { features: &set.train, labels: &set.classes.labels };
    let test = Labelled { features: &set.test, labels: &set.test_labels };
    let found = linear_probe(train, test, set.classes.names.len())?;
    if global.json {
        let result = json!({
            "accuracy": found.accuracy,
            "regularisation": found.strength,
            "train": found.train,
            "test": found.test,
            "classes": set.classes.names,
        });
        outln!("{result:#}");
    } else {
        let (accuracy, strength) = (100.0 * found.accuracy, found.strength);
        outln!("accuracy {accuracy:.2} % of {} images, regularisation {strength}", found.test);
    }
    Ok(0)
}

impl SetArgs {
    /// What the original's probe needs of these.
    fn probed(&self) -> Result<Probed<'_>> {
        if self.precision.is_int8() {
            let message = "`--precision int8` is not for `--optimizer lars`\nhelp: take bf16";
            return Err(Usage(message.to_owned()).into());
        }
        let images = parts(&self.data_path)?;
        let classes = Classes::of(images.0.as_ref(), &self.data_path)?;
        let test_labels = classes.same_for(images.1.as_ref(), &self.data_path)?.labels;
        let head = match self.pool.unwrap_or(PoolName::Cls) {
            PoolName::Cls => Head::Cls,
            PoolName::Mean => Head::MeanFcNorm,
        };
        Ok(Probed {
            model: &self.model,
            images,
            classes,
            test_labels,
            head,
            batch_size: self.batch_size.unwrap_or(512),
            precision: self.precision.of_tensors(),
        })
    }

    /// The set, where this process leads; all make a part of its features.
    fn read(&self, global: &Global, device: &Device, team: &Team) -> Result<Option<Set>> {
        let batch_size = self.batch_size.unwrap_or(16);
        if batch_size == 0 {
            return Err(Usage("`--batch-size` must be at least 1".to_owned()).into());
        }
        let (train_images, test_images) = parts(&self.data_path)?;
        let classes = Classes::of(train_images.as_ref(), &self.data_path)?;
        let test_labels = classes.same_for(test_images.as_ref(), &self.data_path)?.labels;
        let folder = model_folder::resolve(&self.model)?;
        let mut model = encoder(&folder, device)?;
        self.precision.prepare(&mut model, device)?;
        let processor = model_folder::processor(&folder, &model.config)?;
        let pool = match self.pool.unwrap_or(PoolName::Mean) {
            PoolName::Cls => Pool::Cls,
            PoolName::Mean => Pool::Mean,
        };
        let settings = || {
            let images = [&train_images, &test_images].map(|images| images.fingerprint());
            format!("{images:?} {batch_size} {pool:?} {:?}", self.precision)
        };
        processes::check_same(team, &model.parameters(), settings)?;
        let of = |images: &dyn Dataset, what: &str| {
            let total = images.len();
            let mut told = 0;
            let mut progress = |done: usize| {
                // A line each tenth of the way.
                if !global.quiet && (10 * done / total > told || done == total) {
                    told = 10 * done / total;
                    errln!("{what}: {done} of {total} images");
                }
            };
            features(&model, images, &processor, pool, batch_size, team, &mut progress)
        };
        let train = of(train_images.as_ref(), "train")?;
        let test = of(test_images.as_ref(), "test")?;
        Ok(team.leads().then_some(Set { classes, train, test_labels, test }))
    }
}

/// Images to train on and to test with.
pub(crate) fn parts(path: &Path) -> Result<(Arc<dyn Dataset>, Arc<dyn Dataset>)> {
    let Parts { train, evaluation } = open_parts(path)?;
    let test = evaluation.ok_or_else(|| {
        BadInput(format!(
            "`{}` has no `train` and `val` inside\nhelp: put a folder a class into each, or files with these words in their names",
            path.display()
        ))
    })?;
    Ok((train, test))
}
