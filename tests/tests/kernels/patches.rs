use super::pools;
use vitmae_cpu::patches::{self, Shape};
use vitmae_testing::close::Tolerance;
use vitmae_testing::draws::{Draws, widen};
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
    let mut draws = Draws::new(1);
    for [batch, channels, height, width, patch_height, patch_width] in SHAPES {
        let shape = Shape { batch, channels, height, width, patch_height, patch_width };
        let of_reference =
            reference::Shape { batch, channels, height, width, patch_height, patch_width };
        let pixels = draws.vec_f32(shape.len());
        let name = |what: &str| format!("{what} {shape:?}");
        let expected = reference::patchify(&widen(&pixels), of_reference);
        pools::assert_output(&name("patchify"), &expected, Tolerance::EXACT, |out| {
            patches::patchify(&pixels, shape, out);
        });
        let expected = reference::unpatchify(&widen(&pixels), of_reference);
        pools::assert_output(&name("unpatchify"), &expected, Tolerance::EXACT, |out| {
            patches::unpatchify(&pixels, shape, out);
        });
        let rows = reference::im2col(&widen(&pixels), of_reference);
        let count = shape.num_patches();
        for kept in [0, 1, count.div_ceil(2), count] {
            let ids: Vec<u32> = (0..batch)
                .flat_map(|_| draws.permutation(count).into_iter().take(kept).collect::<Vec<_>>())
                .map(|id| id as u32)
                .collect();
            let expected = gather::forward(&rows, &ids, batch, shape.patch_dim());
            pools::assert_output(
                &name(&format!("im2col {kept}")),
                &expected,
                Tolerance::EXACT,
                |out| {
                    patches::im2col(&pixels, &ids, shape, out);
                },
            );
        }
    }
}

#[test]
#[should_panic(expected = "patches: an index")]
fn a_patch_that_does_not_exist_is_refused() {
    let shape =
        Shape { batch: 1, channels: 1, height: 2, width: 2, patch_height: 1, patch_width: 1 };
    patches::im2col(&[0.0; 4], &[4], shape, &mut [0.0]);
}
