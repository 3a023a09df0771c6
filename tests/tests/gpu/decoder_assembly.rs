use super::device::{client, dtypes, rounded};
use super::output::{assert_output, assert_sum};
use vitmae_cpu::decoder_assembly as cpu;
use vitmae_kernels::decoder_assembly::{self, Shape};
use vitmae_kernels::{Array, Ids};
use vitmae_testing::close::Tolerance;
use vitmae_testing::draws::{Draws, widen};
use vitmae_testing::error_model::tolerance_at;
use vitmae_testing::reference::decoder_assembly as reference;

/// B, L, K, E: everything kept, nothing kept, widths beside a vector, several parts of a sum.
const SHAPES: [[usize; 4]; 8] = [
    [1, 1, 1, 1],
    [1, 4, 0, 3],
    [2, 3, 0, 8],
    [3, 9, 9, 17],
    [5, 16, 4, 36],
    [2, 196, 49, 64],
    [33, 10, 3, 15],
    [0, 4, 1, 8],
];

#[test]
fn forward_and_backward_equal_the_reference() {
    let (client, mut draws) = (client(), Draws::new(1));
    for dtype in dtypes(&client) {
        for [batch, patches, kept, width] in SHAPES {
            let shape = Shape { batch, patches, kept, width };
            let of_cpu = cpu::Shape { batch, patches, kept, width };
            let of_reference = reference::Shape { batch, patches, kept, width };
            let ids: Vec<u32> =
                (0..batch).flat_map(|_| draws.permutation(patches)).map(|id| id as u32).collect();
            let visible = rounded(&draws.vec_f32(batch * (1 + kept) * width), dtype);
            let mask_token = draws.vec_f32(width);
            let positions = draws.vec_f32((1 + patches) * width);
            let dout = rounded(&draws.vec_f32(batch * (1 + patches) * width), dtype);
            let name = |what: &str| format!("{what} {shape:?}");
            let [on_visible, on_dout] =
                [&visible, &dout].map(|v| Array::from_f32_as(&client, v, dtype));
            let [on_mask_token, on_positions] =
                [&mask_token, &positions].map(|v| Array::from_f32(&client, v));
            let on_ids = Ids::from_slice(&client, &ids);

            let wide = [&visible, &mask_token, &positions].map(|x| widen(x));
            let expected = reference::forward(&wide[0], &wide[1], &ids, &wide[2], of_reference);
            let twin = |out: &mut [f32]| {
                cpu::forward(&visible, &mask_token, &positions, &ids, of_cpu, out);
            };
            let tolerance = tolerance_at(1, 1.0);
            assert_output(&client, &name("out"), dtype, &expected, tolerance, twin, |out| {
                decoder_assembly::forward(
                    &client,
                    &on_visible,
                    &on_mask_token,
                    &on_positions,
                    &on_ids,
                    shape,
                    out,
                );
            });

            let gradients = reference::backward(&widen(&dout), &ids, of_reference);
            let twin = |out: &mut [f32]| cpu::backward_visible(&dout, &ids, of_cpu, out);
            let (what, exact) = (name("dvisible"), Tolerance::EXACT);
            assert_output(&client, &what, dtype, &gradients.dvisible, exact, twin, |dvisible| {
                decoder_assembly::backward_visible(&client, &on_dout, &on_ids, shape, dvisible);
            });
            let removed = batch * (patches - kept);
            let tolerance = tolerance_at(removed + 1, 3.0 + (removed as f64).sqrt());
            let twin =
                |out: &mut [f32], add| cpu::backward_mask_token(&dout, &ids, of_cpu, out, add);
            let what = name("dmask_token");
            assert_sum(&client, &what, &gradients.dmask_token, tolerance, twin, |out, add| {
                decoder_assembly::backward_mask_token(&client, &on_dout, &on_ids, shape, out, add);
            });
            let tolerance = tolerance_at(batch + 1, 3.0 + (batch as f64).sqrt());
            let twin = |out: &mut [f32], add| cpu::backward_positions(&dout, of_cpu, out, add);
            let what = name("dpositions");
            assert_sum(&client, &what, &gradients.dpositions, tolerance, twin, |out, add| {
                decoder_assembly::backward_positions(&client, &on_dout, shape, out, add);
            });
        }
    }
}
