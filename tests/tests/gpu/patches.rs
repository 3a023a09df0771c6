use super::device::{client, dtypes, rounded};
use super::output::assert_output;
use vitmae_cpu::patches as cpu;
use vitmae_kernels::patches::{self, Shape};
use vitmae_kernels::{Array, Dtype, Ids};
use vitmae_testing::close::Tolerance;
use vitmae_testing::draws::{Draws, widen};
use vitmae_testing::error_model::tolerance_at;
use vitmae_testing::reference::gather;
use vitmae_testing::reference::patches as reference;

/// B, C, H, W, PH, PW: one patch, one pixel a patch, rectangles, channels other than three.
const SHAPES: [[usize; 6]; 7] = [
    [1, 1, 1, 1, 1, 1],
    [2, 3, 4, 4, 2, 2],
    [1, 3, 5, 7, 5, 7],
    [3, 1, 6, 15, 2, 5],
    [2, 6, 8, 4, 4, 1],
    [5, 2, 3, 3, 1, 1],
    [2, 3, 32, 48, 16, 16],
];

#[test]
fn patchify_unpatchify_and_im2col_equal_the_reference() {
    let (client, mut draws) = (client(), Draws::new(1));
    for dtype in dtypes(&client) {
        for [batch, channels, height, width, patch_height, patch_width] in SHAPES {
            let shape = Shape { batch, channels, height, width, patch_height, patch_width };
            let of_cpu = cpu::Shape { batch, channels, height, width, patch_height, patch_width };
            let of_reference =
                reference::Shape { batch, channels, height, width, patch_height, patch_width };
            let pixels = rounded(&draws.vec_f32(shape.len()), dtype);
            let on_pixels = Array::from_f32_as(&client, &pixels, dtype);
            let name = |what: &str| format!("{what} {shape:?}");
            let exact = Tolerance::EXACT;
            let expected = reference::patchify(&widen(&pixels), of_reference);
            let twin = |out: &mut [f32]| cpu::patchify(&pixels, of_cpu, out);
            assert_output(&client, &name("patchify"), dtype, &expected, exact, twin, |out| {
                patches::patchify(&client, &on_pixels, shape, out);
            });
            let expected = reference::unpatchify(&widen(&pixels), of_reference);
            let twin = |out: &mut [f32]| cpu::unpatchify(&pixels, of_cpu, out);
            assert_output(&client, &name("unpatchify"), dtype, &expected, exact, twin, |out| {
                patches::unpatchify(&client, &on_pixels, shape, out);
            });
            let rows = reference::im2col(&widen(&pixels), of_reference);
            let count = shape.num_patches();
            for kept in [0, 1, count.div_ceil(2), count] {
                let ids: Vec<u32> = (0..batch)
                    .flat_map(|_| {
                        draws.permutation(count).into_iter().take(kept).collect::<Vec<_>>()
                    })
                    .map(|id| id as u32)
                    .collect();
                let on_ids = Ids::from_slice(&client, &ids);
                let expected = gather::forward(&rows, &ids, batch, shape.patch_dim());
                let twin = |out: &mut [f32]| cpu::im2col(&pixels, &ids, of_cpu, out);
                let name = name(&format!("im2col {kept}"));
                assert_output(&client, &name, dtype, &expected, exact, twin, |out| {
                    patches::im2col(&client, &on_pixels, &on_ids, shape, out);
                });
            }
        }
    }
}

#[test]
fn pixels_and_rows_may_differ_in_type() {
    let (client, mut draws) = (client(), Draws::new(2));
    let shape =
        Shape { batch: 2, channels: 3, height: 6, width: 4, patch_height: 3, patch_width: 2 };
    let of_cpu =
        cpu::Shape { batch: 2, channels: 3, height: 6, width: 4, patch_height: 3, patch_width: 2 };
    let pixels = draws.vec_f32(shape.len());
    let on_pixels = Array::from_f32(&client, &pixels);
    let ids = [3, 0, 2, 1];
    for dtype in dtypes(&client) {
        let mut expected = vec![0.0; ids.len() * shape.patch_dim()];
        cpu::im2col(&pixels, &ids, of_cpu, &mut expected);
        let twin = |out: &mut [f32]| out.copy_from_slice(&expected);
        let tolerance = tolerance_at(1, 0.0);
        assert_output(&client, "im2col", dtype, &widen(&expected), tolerance, twin, |out| {
            patches::im2col(&client, &on_pixels, &Ids::from_slice(&client, &ids), shape, out);
        });
    }
}

#[test]
fn a_patch_that_does_not_exist_is_a_row_of_zeros() {
    let client = client();
    let shape =
        Shape { batch: 1, channels: 1, height: 2, width: 2, patch_height: 1, patch_width: 1 };
    let pixels = Array::from_f32(&client, &[1.0, 2.0, 3.0, 4.0]);
    let ids = Ids::from_slice(&client, &[4, 3, u32::MAX]);
    let twin = |out: &mut [f32]| out.copy_from_slice(&[0.0, 4.0, 0.0]);
    let (exact, f32) = (Tolerance::EXACT, Dtype::F32);
    assert_output(&client, "rows", f32, &[0.0, 4.0, 0.0], exact, twin, |out| {
        patches::im2col(&client, &pixels, &ids, shape, out);
    });
}
