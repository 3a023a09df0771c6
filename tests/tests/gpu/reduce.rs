use super::device::{self, Canary};
use vitmae_kernels::{Array, Dtype, reduce};
use vitmae_testing::close::assert_close;
use vitmae_testing::draws::{Draws, widen};
use vitmae_testing::error_model::tolerance_at;
use vitmae_testing::reference::reduce as reference;

#[test]
fn add_equals_the_reference() {
    let (client, mut draws) = (device::client(), Draws::new(1));
    for len in [1, 31, 257, 70_001] {
        let (a, b) = (draws.vec_f32(len), draws.vec_f32(len));
        let out = Canary::poisoned(&client, len, Dtype::F32);
        reduce::add(&client, &Array::from_f32(&client, &a), &Array::from_f32(&client, &b), out.array());
        let expected = reference::add(&widen(&a), &widen(&b));
        assert_close("add", &out.finish(&client, "add"), &expected, tolerance_at(1, 1.0));
    }
}
