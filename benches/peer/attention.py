"""Times PyTorch's attention on the shapes of `cargo bench -p vitmae-benches --bench kernels -- attention`.

    python attention.py [--threads 2] [--seconds 2]

From packed rows q|k|v `[B, N, 3D]` to the output `[B, N, D]`, as in a model, by `scaled_dot_product_attention`; going back, the
gradient of the packed rows. Prints one JSON object a case: the median in ms and the rate that the bench prints.
"""

import argparse
import json
import statistics
import time

import torch
import torch.nn.functional as F

CASES = [("encoder", 8, 50, 12, 64), ("encoder, all patches", 8, 197, 12, 64), ("decoder", 8, 197, 16, 32)]


def median(call, seconds):
    call()
    times, end = [], time.perf_counter() + seconds
    while time.perf_counter() < end or len(times) < 5:
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    for dtype in [torch.float32, torch.bfloat16]:
        for name, batch, tokens, heads, head_dim in CASES:
            qkv = torch.randn(batch, tokens, 3 * heads * head_dim, dtype=dtype, requires_grad=True)
            dout = torch.randn(batch, tokens, heads * head_dim, dtype=dtype)

            def forward():
                q, k, v = qkv.view(batch, tokens, 3, heads, head_dim).permute(2, 0, 3, 1, 4)
                return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(batch, tokens, -1)

            with torch.no_grad():
                inference = median(forward, args.seconds)
            out = forward()
            backward = median(lambda: torch.autograd.grad(out, qkv, dout, retain_graph=True), args.seconds)
            product = 2 * batch * heads * tokens * tokens * head_dim
            for what, seconds, flop in [("forward", inference, 2 * product), ("backward", backward, 5 * product)]:
                print(json.dumps({
                    "case": f"{name} {what}", "dtype": str(dtype).removeprefix("torch."),
                    "ms": 1e3 * seconds, "gflops": flop / seconds / 1e9,
                }), flush=True)


if __name__ == "__main__":
    main()
