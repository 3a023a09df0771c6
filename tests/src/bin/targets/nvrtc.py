"""Compiles CUDA sources with NVRTC and ptxas, without a GPU or a driver.

    python nvrtc.py sm_90 KERNEL.cu=UNITS=SHARED...

Packages: nvidia-cuda-nvrtc, nvidia-cuda-runtime, nvidia-cuda-cccl (headers), nvidia-cuda-nvcc (ptxas).
Prints a line a kernel: units, registers, bytes of shared memory (as CubeCL asks for it at the launch, and
what the source has of its own), bytes of spills. A line that begins with FAILED names a source that does not
compile, spills registers, or needs more of them than its cube can have.
"""

import ctypes
import pathlib
import re
import subprocess
import sys
import tempfile

# The options with which CubeCL's runtime calls NVRTC.
OPTIONS = ["-lineinfo"]


def nvidia_files(pattern):
    """Files of the nvidia packages, wherever pip put them; then of others that bring the tools along."""
    for folder in sys.path:
        for root in ("nvidia", "triton/backends/nvidia"):
            yield from sorted(pathlib.Path(folder).joinpath(root).glob(pattern))


def first(pattern, package):
    found = next(nvidia_files(pattern), None)
    if found is None:
        sys.exit(f"no {pattern} in the Python packages\nhelp: pip install {package}")
    return found


class Nvrtc:
    def __init__(self):
        self.library = ctypes.CDLL(str(first("**/libnvrtc.so*", "nvidia-cuda-nvrtc")))
        header = first("**/include/cuda_fp16.h", "nvidia-cuda-runtime")
        include = header.parent
        self.includes = [f"--include-path={include}"]
        if (include / "cccl").is_dir():
            self.includes.append(f"--include-path={include / 'cccl'}")

    def compile(self, source, arch):
        """PTX, or the compiler's log as an error."""
        program = ctypes.c_void_p()
        check(self.library.nvrtcCreateProgram(ctypes.byref(program), source, None, 0, None, None))
        # As CubeCL: Hopper's own instructions.
        options = [f"--gpu-architecture={'sm_90a' if arch == 'sm_90' else arch}", *self.includes, *OPTIONS]
        array = (ctypes.c_char_p * len(options))(*[option.encode() for option in options])
        if self.library.nvrtcCompileProgram(program, len(options), array):
            raise ValueError(self.text(program, "ProgramLog"))
        return self.text(program, "PTX")

    def text(self, program, what):
        size = ctypes.c_size_t()
        check(getattr(self.library, f"nvrtcGet{what}Size")(program, ctypes.byref(size)))
        buffer = ctypes.create_string_buffer(size.value)
        check(getattr(self.library, f"nvrtcGet{what}")(program, buffer))
        return buffer.value.decode()


def check(code):
    if code:
        raise RuntimeError(f"NVRTC error {code}")


def ptxas(path, ptx, arch):
    """Registers, shared bytes and spilled bytes of the kernel."""
    with tempfile.TemporaryDirectory() as folder:
        source, target = pathlib.Path(folder, "k.ptx"), pathlib.Path(folder, "k.cubin")
        source.write_text(ptx)
        arch = "sm_90a" if arch == "sm_90" else arch
        result = subprocess.run(
            [first("**/bin/ptxas", "nvidia-cuda-nvcc"), "-v", f"-arch={arch}", source, "-o", target],
            capture_output=True,
            text=True,
        )
    if result.returncode:
        raise ValueError(result.stderr)
    numbers = lambda pattern: [int(n) for n in re.findall(pattern, result.stderr)]
    registers = max(numbers(r"Used (\d+) registers"))
    shared = sum(numbers(r"(\d+) bytes smem"))
    spills = sum(numbers(r"(\d+) bytes spill stores")) + sum(numbers(r"(\d+) bytes spill loads"))
    return registers, shared, spills


def main():
    arch, *sources = sys.argv[1:]
    nvrtc, failed = Nvrtc(), 0
    for argument in sources:
        path, units, dynamic = argument.rsplit("=", 2)
        name = pathlib.Path(path).stem
        try:
            ptx = nvrtc.compile(pathlib.Path(path).read_bytes(), arch)
            registers, shared, spills = ptxas(path, ptx, arch)
        except ValueError as error:
            print(f"FAILED {name}: {error}".strip().replace("\n", " | "))
            failed += 1
            continue
        shared += int(dynamic)
        print(
            f"{arch} {name:60} {units:>5} units {registers:4} registers {shared:6} shared {spills:5} spilled"
        )
        if spills:
            print(f"FAILED {name}: {spills} bytes of spills")
            failed += 1
        # A multiprocessor has 65536 registers.
        if registers * int(units) > 65536:
            print(f"FAILED {name}: {units} units of {registers} registers do not fit")
            failed += 1
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
