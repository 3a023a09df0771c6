use super::pools;
use vitmae_cpu::decoder_assembly::{self, Shape};
use vitmae_testing::close::Tolerance;
use vitmae_testing::draws::{Draws, widen};
use vitmae_testing::error_model::tolerance_at;
use vitmae_testing::reference::decoder_assembly as reference;

/// B, L, K, E: everything kept, nothing kept, widths beside a vector.
const SHAPES: [[usize; 4]; 7] = [
    [1, 1, 1, 1],
    [1, 4, 0, 3],
    [3, 9, 9, 17],
    [5, 16, 4, 33],
    [2, 196, 49, 64],
    [33, 10, 3, 15],
    [0, 4, 1, 8],
];

#[test]
fn forward_and_backward_equal_the_reference() {
    let mut draws = Draws::new(1);
    for [batch, patches, kept, width] in SHAPES {
        let shape = Shape { batch, patches, kept, width };
        let of_reference = reference::Shape { batch, patches, kept, width };
        let ids: Vec<u32> =
            (0..batch).flat_map(|_| draws.permutation(patches)).map(|id| id as u32).collect();
        let visible = draws.vec_f32(batch * (1 + kept) * width);
        let (mask_token, positions) = (draws.vec_f32(width), draws.vec_f32((1 + patches) * width));
        let dout = draws.vec_f32(batch * (1 + patches) * width);
        let name = |what: &str| format!("{what} {shape:?}");

        let wide = [&visible, &mask_token, &positions].map(|x| widen(x));
        let expected = reference::forward(&wide[0], &wide[1], &ids, &wide[2], of_reference);
        pools::assert_output(&name("out"), &expected, tolerance_at(1, 1.0), |out| {
            decoder_assembly::forward(&visible, &mask_token, &positions, &ids, shape, out);
        });

        let gradients = reference::backward(&widen(&dout), &ids, of_reference);
        pools::assert_output(
            &name("dvisible"),
            &gradients.dvisible,
            Tolerance::EXACT,
            |dvisible| {
                decoder_assembly::backward_visible(&dout, &ids, shape, dvisible);
            },
        );
        let removed = batch * (patches - kept);
        let tolerance = tolerance_at(removed + 1, 3.0 + (removed as f64).sqrt());
        pools::assert_sum(&name("dmask_token"), &gradients.dmask_token, tolerance, |out, add| {
            decoder_assembly::backward_mask_token(&dout, &ids, shape, out, add);
        });
        let tolerance = tolerance_at(batch + 1, 3.0 + (batch as f64).sqrt());
        pools::assert_sum(&name("dpositions"), &gradients.dpositions, tolerance, |out, add| {
            decoder_assembly::backward_positions(&dout, shape, out, add);
        });
    }
}
