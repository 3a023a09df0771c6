//! First values of every parameter, as the original initialises its models.
//!
//! | parameter | values |
//! |---|---|
//! | position tables | sines and cosines, [`position::table`] |
//! | weights of linear maps, the patch projection included | uniform in ±√(6 / (in + out)) (Xavier) |
//! | bias of the patch projection | uniform in ±1/√in, the default of PyTorch's convolution |
//! | CLS token, mask token | normal, standard deviation `initializer_range` |
//! | norms | weight 1, bias 0 |
//! | every other bias | 0 |
//!
//! Traps: the patch projection is initialised as a linear map on its `[D, C·PH·PW]` view; query, key
//! and value count as one map with 3·D outputs. transformers 4 leaves the decoder's position table at
//! zero, and transformers 5 both tables and the CLS token: a model that starts so predicts the same for
//! every removed patch, for ever. Source: `initialize_weights` of the original, by its behaviour.

use vitmae_cpu::random::Stream;

use crate::{VitMaeConfig, position};

/// The first values of the parameter `name` of this shape: a function of configuration, name and seed.
pub fn values(config: &VitMaeConfig, seed: u64, name: &str, shape: &[usize]) -> Vec<f32> {
    let count: usize = shape.iter().product();
    let stream = Stream::new(seed, name, 0, 0);
    let uniform = |bound: f64| -> Vec<f32> {
        let mut values = vec![0.0; count];
        stream.fill_uniform(bound, &mut values);
        values
    };
    let last = name.rsplit('.').next().unwrap_or(name);
    match last {
        "position_embeddings" => position::table(shape.last().copied().unwrap_or(0), config.grid()),
        "cls_token" | "mask_token" => {
            let deviation = config.initializer_range;
            (0..count as u64).map(|i| (deviation * stream.normal(i)) as f32).collect()
        }
        "weight" if shape.len() == 1 => vec![1.0; count],
        "weight" => {
            let outputs = shape[0];
            let inputs = count / outputs.max(1);
            uniform((6.0 / (inputs + outputs) as f64).sqrt())
        }
        "bias" if name.ends_with("patch_embedding.bias") => {
            uniform(1.0 / (config.patch_dim() as f64).sqrt())
        }
        _ => vec![0.0; count],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spread(values: &[f32]) -> (f64, f64) {
        let n = values.len() as f64;
        let mean = values.iter().map(|&x| f64::from(x)).sum::<f64>() / n;
        let square = values.iter().map(|&x| (f64::from(x) - mean).powi(2)).sum::<f64>() / n;
        (mean, square.sqrt())
    }

    #[test]
    fn each_kind_of_parameter_has_its_distribution() {
        let config = VitMaeConfig::base();
        let of = |name: &str, shape: &[usize]| values(&config, 1, name, shape);
        let weight = of("vit.blocks.0.attention.qkv.weight", &[2304, 768]);
        let bound = (6.0f64 / (2304 + 768) as f64).sqrt();
        assert!(weight.iter().all(|x| f64::from(x.abs()) <= bound));
        let (mean, deviation) = spread(&weight);
        assert!(mean.abs() < 1e-4 && (deviation - bound / 3f64.sqrt()).abs() < 1e-4);
        let projection = of("vit.patch_embedding.weight", &[768, 3, 16, 16]);
        assert!((spread(&projection).1 - (6.0f64 / 1536.0 / 3.0).sqrt()).abs() < 1e-3);
        let token = of("decoder.mask_token", &[1, 1, 8192]);
        assert!((spread(&token).1 - 0.02).abs() < 1e-3);
        assert!(of("vit.norm.weight", &[768]).iter().all(|&x| x == 1.0));
        assert!(of("vit.norm.bias", &[768]).iter().all(|&x| x == 0.0));
        let bias = of("vit.patch_embedding.bias", &[768]);
        assert!(bias.iter().all(|&x| x.abs() <= 1.0 / 768f32.sqrt()) && spread(&bias).1 > 0.01);
        let tables = of("decoder.position_embeddings", &[1, 197, 512]);
        assert_eq!(tables, position::table(512, (14, 14)));
    }

    #[test]
    fn names_and_seeds_have_their_own_numbers() {
        let config = VitMaeConfig::base();
        let of = |seed, name: &str| values(&config, seed, name, &[4, 4]);
        assert_eq!(of(1, "a.weight"), of(1, "a.weight"));
        assert_ne!(of(1, "a.weight"), of(2, "a.weight"));
        assert_ne!(of(1, "a.weight"), of(1, "b.weight"));
    }
}
