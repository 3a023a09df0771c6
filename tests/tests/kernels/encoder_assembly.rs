use super::pools;
use vitmae_cpu::encoder_assembly::{self, Shape};
use vitmae_cpu::gather;
use vitmae_testing::close::Tolerance;
use vitmae_testing::draws::{Draws, widen};
use vitmae_testing::error_model::tolerance_at;
use vitmae_testing::reference::encoder_assembly as reference;
use vitmae_testing::reference::gather as reference_gather;

/// B, L, K, D: everything kept, nothing kept, widths beside a vector.
const SHAPES: [[usize; 4]; 7] = [
    [1, 1, 1, 1],
    [1, 4, 0, 3],
    [3, 9, 9, 17],
    [5, 16, 4, 33],
    [2, 196, 49, 64],
    [33, 10, 3, 15],
    [0, 4, 1, 8],
];

/// The reference embeds all patches and keeps some; the kernel is given the kept ones.
#[test]
fn forward_and_backward_equal_the_reference() {
    let mut draws = Draws::new(1);
    for [batch, patches, kept, width] in SHAPES {
        let shape = Shape { batch, patches, kept, width };
        let of_reference = reference::Shape { batch, patches, kept, width };
        let ids: Vec<u32> = (0..batch)
            .flat_map(|_| draws.permutation(patches).into_iter().take(kept).collect::<Vec<_>>())
            .map(|id| id as u32)
            .collect();
        let all = draws.vec_f32(batch * patches * width);
        let mut tokens = vec![0.0; batch * kept * width];
        gather::forward(
            &all,
            &ids,
            gather::Shape { batch, rows: patches, kept, width },
            &mut tokens,
        );
        let (cls, positions) = (draws.vec_f32(width), draws.vec_f32((1 + patches) * width));
        let dout = draws.vec_f32(batch * (1 + kept) * width);
        let name = |what: &str| format!("{what} {shape:?}");

        let wide = [&all, &cls, &positions].map(|x| widen(x));
        let expected = reference::forward(&wide[0], &wide[1], &wide[2], &ids, of_reference);
        pools::assert_output(&name("out"), &expected, tolerance_at(1, 1.0), |out| {
            encoder_assembly::forward(&tokens, &cls, &positions, &ids, shape, out);
        });

        let gradients = reference::backward(&widen(&dout), &ids, of_reference);
        if batch > 0 {
            let expected = reference_gather::forward(&gradients.dpatches, &ids, batch, width);
            pools::assert_output(&name("dtokens"), &expected, Tolerance::EXACT, |dtokens| {
                encoder_assembly::backward_tokens(&dout, shape, dtokens);
            });
        }
        let tolerance = tolerance_at(batch + 1, 3.0 + (batch as f64).sqrt());
        pools::assert_sum(&name("dcls"), &gradients.dcls, tolerance, |out, add| {
            encoder_assembly::backward_cls(&dout, shape, out, add);
        });
        pools::assert_sum(&name("dpositions"), &gradients.dpositions, tolerance, |out, add| {
            encoder_assembly::backward_positions(&dout, &ids, shape, out, add);
        });
    }
}

#[test]
#[should_panic(expected = "encoder_assembly: an index")]
fn a_patch_that_does_not_exist_is_refused() {
    let shape = Shape { batch: 1, patches: 2, kept: 1, width: 1 };
    encoder_assembly::backward_positions(&[0.0; 2], &[2], shape, &mut [0.0; 3], false);
}
