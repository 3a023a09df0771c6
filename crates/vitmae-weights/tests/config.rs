//! A damaged or random `config.json` is refused or leads to a model of bounded size.
#![allow(clippy::unwrap_used, reason = "a test may panic, also in its helpers")]

use proptest::prelude::*;
use vitmae_model::VitMaeConfig;
use vitmae_weights::parameters::{ModelKind, expected_parameters};

/// What a loader does with a config before it reads any weights; true if it was accepted.
fn accept(text: &str) -> bool {
    let Ok(config) = VitMaeConfig::from_json(text) else { return false };
    assert_eq!(VitMaeConfig::from_json(&config.to_json()).unwrap(), config);
    if config.validate().is_err() {
        return false;
    }
    for kind in [ModelKind::Encoder, ModelKind::PreTraining, ModelKind::Classifier] {
        let table = expected_parameters(&config, kind);
        let numbers: u64 = table.iter().map(|row| row.shape.iter().product::<usize>() as u64).sum();
        assert!(numbers <= 1 << 37, "{numbers} numbers from {text}");
    }
    true
}

#[test]
fn twenty_thousand_damaged_configs_are_refused_or_bounded() {
    let good = VitMaeConfig::base().to_json();
    assert!(accept(&good));
    let mut state = 0x2545_f491_4f6c_dd1du64;
    let mut draw = |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % below as u64) as usize
    };
    let mut accepted = 0;
    for _ in 0..20_000 {
        let mut bytes = good.clone().into_bytes();
        for _ in 0..=draw(2) {
            let place = draw(bytes.len());
            let byte = b"0123456789,:[]{}\"-e.truefalsnl "[draw(31)];
            match draw(3) {
                0 => bytes[place] = byte,
                1 => bytes.insert(place, byte),
                _ => drop(bytes.remove(place)),
            }
        }
        accepted += usize::from(accept(&String::from_utf8(bytes).unwrap()));
    }
    assert!((1_000..19_000).contains(&accepted), "accepted {accepted}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn any_sizes_are_refused_or_bounded(
        sizes in prop::collection::vec(
            prop_oneof![0u64..70_000, Just(u64::MAX), (0u32..20).prop_map(|n| 1 << n)], 12,
        ),
    ) {
        let keys = [
            "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size",
            "decoder_hidden_size", "decoder_num_hidden_layers", "decoder_num_attention_heads",
            "decoder_intermediate_size", "num_channels", "image_size", "patch_size", "num_labels",
        ];
        let pairs: Vec<_> =
            keys.iter().zip(&sizes).map(|(key, size)| format!("\"{key}\":{size}")).collect();
        accept(&format!("{{{}}}", pairs.join(",")));
    }

    #[test]
    fn sizes_that_fit_are_accepted(exponents in prop::collection::vec(2u32..9, 6)) {
        let [d, i, e, j, image, patch] = exponents[..] else { unreachable!("six exponents") };
        let text = format!(
            "{{\"hidden_size\":{},\"num_attention_heads\":4,\"intermediate_size\":{},\
             \"decoder_hidden_size\":{},\"decoder_num_attention_heads\":2,\
             \"decoder_intermediate_size\":{},\"image_size\":{},\"patch_size\":{}}}",
            1 << d, 1 << i, 1 << e, 1 << j, 1u32 << image.max(patch), 1u32 << patch
        );
        prop_assert!(accept(&text), "{}", text);
    }
}
