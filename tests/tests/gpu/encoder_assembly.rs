use super::device::{client, dtypes, rounded};
use super::output::{assert_output, assert_sum};
use vitmae_cpu::encoder_assembly as cpu;
use vitmae_kernels::encoder_assembly::{self, Shape};
use vitmae_kernels::{Array, Ids};
use vitmae_testing::close::Tolerance;
use vitmae_testing::draws::{Draws, widen};
use vitmae_testing::error_model::tolerance_at;
use vitmae_testing::reference::encoder_assembly as reference;
use vitmae_testing::reference::gather;

/// B, L, K, D: everything kept, nothing kept, widths beside a vector.
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

/// The reference embeds all patches and keeps some; the kernel is given the kept ones.
#[test]
fn forward_and_backward_equal_the_reference() {
    let (client, mut draws) = (client(), Draws::new(1));
    for dtype in dtypes(&client) {
        for [batch, patches, kept, width] in SHAPES {
            let shape = Shape { batch, patches, kept, width };
            let of_cpu = cpu::Shape { batch, patches, kept, width };
            let of_reference = reference::Shape { batch, patches, kept, width };
            let ids: Vec<u32> = (0..batch)
                .flat_map(|_| draws.permutation(patches).into_iter().take(kept).collect::<Vec<_>>())
                .map(|id| id as u32)
                .collect();
            let all = rounded(&draws.vec_f32(batch * patches * width), dtype);
            let tokens: Vec<f32> = ids
                .iter()
                .enumerate()
                .flat_map(|(i, &id)| &all[(i / kept * patches + id as usize) * width..][..width])
                .copied()
                .collect();
            let (cls, positions) = (draws.vec_f32(width), draws.vec_f32((1 + patches) * width));
            let dout = rounded(&draws.vec_f32(batch * (1 + kept) * width), dtype);
            let name = |what: &str| format!("{what} {shape:?}");
            let [on_tokens, on_dout] =
                [&tokens, &dout].map(|v| Array::from_f32_as(&client, v, dtype));
            let [on_cls, on_positions] = [&cls, &positions].map(|v| Array::from_f32(&client, v));
            let on_ids = Ids::from_slice(&client, &ids);

            let wide = [&all, &cls, &positions].map(|x| widen(x));
            let expected = reference::forward(&wide[0], &wide[1], &wide[2], &ids, of_reference);
            let twin = |out: &mut [f32]| {
                cpu::forward(&tokens, &cls, &positions, &ids, of_cpu, out);
            };
            let tolerance = tolerance_at(1, 1.0);
            assert_output(&client, &name("out"), dtype, &expected, tolerance, twin, |out| {
                encoder_assembly::forward(
                    &client,
                    &on_tokens,
                    &on_cls,
                    &on_positions,
                    &on_ids,
                    shape,
                    out,
                );
            });

            let gradients = reference::backward(&widen(&dout), &ids, of_reference);
            if batch > 0 {
                let expected = gather::forward(&gradients.dpatches, &ids, batch, width);
                let twin = |out: &mut [f32]| cpu::backward_tokens(&dout, of_cpu, out);
                let (name, exact) = (name("dtokens"), Tolerance::EXACT);
                assert_output(&client, &name, dtype, &expected, exact, twin, |dtokens| {
                    encoder_assembly::backward_tokens(&client, &on_dout, shape, dtokens);
                });
            }
            let tolerance = tolerance_at(batch + 1, 3.0 + (batch as f64).sqrt());
            let twin = |out: &mut [f32], add| cpu::backward_cls(&dout, of_cpu, out, add);
            assert_sum(&client, &name("dcls"), &gradients.dcls, tolerance, twin, |out, add| {
                encoder_assembly::backward_cls(&client, &on_dout, shape, out, add);
            });
            let twin =
                |out: &mut [f32], add| cpu::backward_positions(&dout, &ids, of_cpu, out, add);
            let name = name("dpositions");
            assert_sum(&client, &name, &gradients.dpositions, tolerance, twin, |out, add| {
                encoder_assembly::backward_positions(&client, &on_dout, &on_ids, shape, out, add);
            });
        }
    }
}
